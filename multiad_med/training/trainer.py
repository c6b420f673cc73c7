"""Training by Algorithm 1 of the paper, as a MONAI engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import IterationEvents, SupervisedTrainer
from monai.utils import CommonKeys
from torch import Tensor, nn
from torch.optim import Optimizer

from multiad_med.networks import FeatureDiscriminator, MultiAD
from multiad_med.networks.losses import (
    FeatureDistillationLoss,
    adversarial_loss,
    discriminator_loss,
)
from multiad_med.training.distributed import distribute, is_distributed, mean_over_processes
from multiad_med.training.feature_cache import FEATURES
from multiad_med.utils.errors import InputError
from multiad_med.utils.tensors import plain_tensor

__all__ = ["DistillationTrainer"]


_SCALARS = (
    CommonKeys.LOSS,
    "loss_distillation",
    "loss_adversarial",
    "loss_discriminator",
    "discriminator_accuracy",
)


class DistillationTrainer(SupervisedTrainer):
    """Distils the teacher into the student, with or without a discriminator (Algorithm 1).

    Each iteration computes teacher and student features once, then

    1. updates D with the student's features detached (Eq. 10); teacher and student features pass
       through D in one batch, so that its batch norm sees both;
    2. updates the student by ``L_G + weight * L_adv`` (Eq. 12) with D frozen: no gradients to its
       weights, evaluation mode, so that neither weights nor statistics move.

    The teacher is frozen throughout. ``engine.state.output`` always has the scalars ``loss``,
    ``loss_distillation``, ``loss_adversarial``, ``loss_discriminator`` and
    ``discriminator_accuracy``; the last three are 0, 0 and 0.5 without a discriminator.

    In a process group each process passes over its share of the data (its sampler's business):
    gradients are averaged and batch norms see the batches of all, so that n processes with batches
    of b do what one with batches of n * b does, dropout aside.

    It is a ``SupervisedTrainer`` because MONAI's federated learning and experiment tracking ask
    for one and read ``loss``; MONAI's ``AdversarialTrainer`` is not one and omits ``loss`` without AMP.

    Args:
        device: where to train.
        max_epochs: number of epochs.
        train_data_loader: batches with ``image (B, C, H, W)`` in [0, 1], C 1 or 3; normal only.
            ``features`` in them, of :func:`cached_features`, spare the teacher's pass.
        network: the Multi-AD network.
        optimizer: optimiser of the student's parameters.
        loss_function: L_G, called with teacher and student features.
        discriminator: D, or none for plain distillation.
        discriminator_optimizer: optimiser of D; goes with ``discriminator``.
        adversarial_weight: lambda of Eq. 12 (the paper names no value).
        adversarial_warmup: epochs at the start in which lambda is 0 while D learns.
        gradient_clip: largest L2 norm of the gradient of each group of the student's optimiser; without
            it no clipping.
        amp: mixed precision. ``amp_kwargs={"dtype": torch.bfloat16}`` or ``torch.float16``; only
            float16 scales gradients. Slow on CPUs without bf16 units.
        kwargs: further arguments of MONAI's ``SupervisedTrainer``.

    Raises:
        InputError: when only one of ``discriminator`` and ``discriminator_optimizer`` is given, or
            when the optimiser holds parameters of the teacher.
    """

    network: MultiAD

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable[Any],
        network: MultiAD,
        optimizer: Optimizer,
        loss_function: Callable[[list[Tensor], list[Tensor]], Tensor] | None = None,
        *,
        discriminator: FeatureDiscriminator | None = None,
        discriminator_optimizer: Optimizer | None = None,
        adversarial_weight: float = 0.01,
        adversarial_warmup: int = 1,
        gradient_clip: float | None = None,
        amp: bool = False,
        amp_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if (discriminator is None) != (discriminator_optimizer is None):
            raise InputError("Give both discriminator and discriminator_optimizer, or neither.")
        frozen = {id(p) for p in network.teacher.parameters()}
        if any(id(p) in frozen for group in optimizer.param_groups for p in group["params"]):
            raise InputError(
                "The optimiser holds parameters of the teacher, which is frozen: "
                "give it network.student.parameters()."
            )
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=network,
            optimizer=optimizer,
            loss_function=FeatureDistillationLoss() if loss_function is None else loss_function,
            amp=amp,
            amp_kwargs=amp_kwargs,
            **kwargs,
        )
        self.discriminator = discriminator
        self._features: Callable[..., tuple[list[Tensor], list[Tensor]]] = network.features
        self._judge: Callable[[list[Tensor]], Tensor] | None = discriminator
        if is_distributed():
            self._features = distribute(network, network.student, method="features")
            if discriminator is not None:
                self._judge = distribute(discriminator, discriminator)
        self.discriminator_optimizer = discriminator_optimizer
        self.adversarial_weight = adversarial_weight
        self.adversarial_warmup = adversarial_warmup
        self.gradient_clip = gradient_clip
        self.device_type = self.state.device.type
        scales = amp and self.amp_kwargs.get("dtype", torch.float16) is torch.float16
        # MONAI replaces its own `scaler` at every run, by one for CUDA whatever the precision.
        self.grad_scaler = torch.amp.GradScaler(self.device_type, enabled=scales)
        if not network.stages:  # no student: only the handlers at the end have work
            self.add_event_handler(Events.STARTED, lambda engine: engine.terminate())

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device_type, enabled=self.amp, **self.amp_kwargs)

    def _step(self, loss: Tensor, optimizer: Optimizer, *, clip: float | None = None) -> None:
        optimizer.zero_grad()
        self.grad_scaler.scale(loss).backward()
        if clip is not None:
            self.grad_scaler.unscale_(optimizer)
            for group in optimizer.param_groups:
                nn.utils.clip_grad_norm_(group["params"], clip)
        self.grad_scaler.step(optimizer)

    def _update_discriminator(
        self, teacher: list[Tensor], student: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        assert self.discriminator is not None
        assert self._judge is not None
        assert self.discriminator_optimizer is not None
        self.discriminator.train().requires_grad_(True)
        with self._autocast():
            both = [torch.cat([t, s.detach()]) for t, s in zip(teacher, student, strict=True)]
            real, fake = self._judge(both).float().chunk(2)
            loss = discriminator_loss(real, fake)
        self._step(loss, self.discriminator_optimizer)
        accuracy = torch.cat([real > 0, fake <= 0]).float().mean()
        self.discriminator.eval().requires_grad_(False)
        return loss.detach(), accuracy

    def _iteration(self, engine: SupervisedTrainer, batchdata: dict[str, Tensor]) -> dict[str, Any]:
        if batchdata is None:
            raise InputError("Must provide batch data for current iteration.")
        images, _ = self.prepare_batch(
            batchdata, self.state.device, self.non_blocking, **self.to_kwargs
        )
        images = plain_tensor(images)
        known = [f.to(self.state.device) for f in batchdata.get(FEATURES, [])]
        self.network.train()
        if isinstance(self.loss_function, nn.Module):
            self.loss_function.train()
        with self._autocast():
            teacher, student = self._features(images, *([known] if known else []))
            distillation = self.loss_function(teacher, student)
        self.fire_event(IterationEvents.FORWARD_COMPLETED)

        loss = distillation
        adversarial = loss_d = distillation.new_zeros(())
        accuracy = distillation.new_full((), 0.5)
        if self.discriminator is not None:
            loss_d, accuracy = self._update_discriminator(teacher, student)
            with self._autocast():
                adversarial = adversarial_loss(self.discriminator(student).float())
            if self.state.epoch > self.adversarial_warmup:
                loss = distillation + self.adversarial_weight * adversarial
        self.fire_event(IterationEvents.LOSS_COMPLETED)
        self._step(loss, self.optimizer, clip=self.gradient_clip)
        self.grad_scaler.update()
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)

        scalars = torch.stack([loss, distillation, adversarial, loss_d, accuracy]).detach()
        scalars = mean_over_processes(scalars)
        self.state.output = {CommonKeys.IMAGE: images, **dict(zip(_SCALARS, scalars, strict=True))}
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output
