"""What all methods share: the common teacher in place of anomalib's extractor, fitting, predicting."""

from __future__ import annotations

import copy
import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any, Self
from unittest.mock import patch

import torch
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset

from multiad_med.benchmark.detectors import UnavailableError, stored_megabytes
from multiad_med.networks import FeatureExtractor
from multiad_med.networks.extractor import takes_stages
from multiad_med.networks.multiad import IMAGENET_MEAN, IMAGENET_STD
from multiad_med.utils.errors import InputError

__all__ = ["Stages", "TeacherMethod", "TrainedMethod"]


class Stages(nn.Module):
    """A feature extractor in the shape of ``anomalib.models.components.TimmFeatureExtractor``.

    Args:
        network: a :class:`FeatureExtractor` that is a module.
        layers: ``layer1``, ``layer2`` ... as anomalib names the stages.
        frozen: whether it never trains, batch norm included.
    """

    def __init__(self, network: Any, layers: Sequence[str], *, frozen: bool = True) -> None:
        super().__init__()
        self.network = network
        self.chooses = takes_stages(network)
        self.stages = {layer: int(layer.removeprefix("layer")) - 1 for layer in layers}
        self.out_dims = [network.channels[stage] for stage in self.stages.values()]
        self.frozen = frozen
        if frozen:
            network.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode, unless the network is frozen."""
        return super().train(mode and not self.frozen)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return features ``(B, C, H', W')`` by layer of normalised images ``(B, 3, H, W)``."""
        read = [stage + 1 for stage in self.stages.values()]
        features = self.network(images, read) if self.chooses else self.network(images)
        # anomalib calls Tensor.view, which channels_last would break.
        return {layer: features[stage].contiguous() for layer, stage in self.stages.items()}


def _images(items: Sequence[dict[str, Any]]) -> Tensor:
    return torch.stack([item["image"] for item in items])


class TeacherMethod(ABC):
    """A method of anomalib 2.7 as a :class:`multiad_med.benchmark.detectors.Detector`.

    The networks, losses, maps and memory banks are anomalib's. Outside the foreground a map is
    :attr:`floor`. The image score is the method's own; where that is the map's maximum, it is taken
    inside the foreground.

    Args:
        teacher: frozen features with loaded weights; a copy of it is used.
        architecture: its name, as :func:`multiad_med.networks.build_extractor` knows it.
        size: ``(H, W)`` of the images, or one number for both.
        epochs: passes over the training images, for a method that trains.
        batch_size: None means anomalib's published one.
        device: where it is fitted and predicts.

    Raises:
        UnavailableError: when anomalib cannot be imported, or the method cannot be built like this.
        InputError: when a number is not positive.
    """

    name: str
    module: str
    """Module of ``anomalib.models.image`` that holds the torch model."""
    layers: tuple[str, ...] = ("layer1", "layer2", "layer3")
    default_batch_size: int = 32
    replaces_extractor: bool = True
    """Whether anomalib's feature extractor is replaced by :meth:`extractor`."""
    input_size: tuple[int, int] | None = None
    """What images are resized to, for a method bound to a size."""
    normalised: bool = True
    """Whether the method takes images with ImageNet's mean and standard deviation removed."""
    scored_by_maximum: bool = True
    floor: float = 0.0
    """The lowest value that a map can have."""
    model: Any

    def __init__(
        self,
        *,
        teacher: FeatureExtractor,
        architecture: str,
        size: int | tuple[int, int],
        epochs: int,
        batch_size: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.batch_size = self.default_batch_size if batch_size is None else batch_size
        if min(*self.size, epochs, self.batch_size) < 1:
            raise InputError(
                f"size, epochs and batch_size must be positive, got {size}, {epochs}, {batch_size}."
            )
        self.teacher = teacher
        self.architecture = architecture
        self.epochs = epochs
        self.device = torch.device(device)
        self.mean = torch.tensor(IMAGENET_MEAN, device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(IMAGENET_STD, device=self.device).view(1, 3, 1, 1)
        self.anomalib(self.module)

    def anomalib(self, module: str) -> Any:
        """Return a module of ``anomalib.models.image``.

        Raises:
            UnavailableError: when it cannot be imported.
        """
        try:
            return importlib.import_module(f"anomalib.models.image.{module}")
        # torchvision raises RuntimeError when it was built for another torch.
        except (ImportError, RuntimeError) as error:
            raise UnavailableError(
                f"{self.name} needs anomalib, which cannot be imported ({error}): "
                "pip install 'multiad-med[benchmark]'."
            ) from error

    def extractor(self, *, layers: Sequence[str], **_: Any) -> nn.Module:
        """Return what replaces ``TimmFeatureExtractor``: the teacher."""
        return Stages(copy.deepcopy(self.teacher).cpu(), layers)  # type: ignore[attr-defined]

    @abstractmethod
    def build(self, source: Any) -> nn.Module:
        """Return the untrained model of anomalib's module ``source``, its extractor replaced."""

    @abstractmethod
    def learn(self, training: Dataset, held_out: Dataset) -> None:
        """Fit :attr:`model` to normal slices."""

    def fit(self, training: Dataset, held_out: Dataset, *, seed: int) -> None:
        """Fit to normal slices; see :class:`multiad_med.benchmark.detectors.Detector`."""
        set_determinism(seed=seed)
        source = self.anomalib(self.module)
        common = patch.object(source, "TimmFeatureExtractor", self.extractor)
        with common if self.replaces_extractor else nullcontext():
            self.model = self.build(source).to(self.device).train()
        self.learn(training, held_out)
        self.model.eval()

    def loader(self, slices: Dataset, *, shuffle: bool = False) -> Iterable[Tensor]:
        """Return batches of images as :meth:`prepare` gives them."""
        batches = DataLoader(slices, self.batch_size, shuffle=shuffle, collate_fn=_images)
        return map(self.prepare, batches)

    def prepare(self, images: Tensor) -> Tensor:
        """Return images ``(B, 1 or 3, H, W)`` in [0, 1] as the model takes them.

        Raises:
            InputError: on images of another shape.
        """
        if images.dim() != 4 or images.shape[1] not in (1, 3) or images.shape[2:] != self.size:
            raise InputError(
                f"{self.name} was built for images (B, 1 or 3, {self.size[0]}, {self.size[1]}), "
                f"got {tuple(images.shape)}."
            )
        images = images.to(self.device).expand(-1, 3, -1, -1)
        if self.input_size is not None:
            images = F.interpolate(images, self.input_size, mode="bilinear", antialias=True)
        return (images - self.mean) / self.std if self.normalised else images

    @torch.no_grad()
    def predict(self, images: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
        """Return maps and scores; see :class:`multiad_med.benchmark.detectors.Detector`."""
        result = self.model(self.prepare(images))
        maps = result.anomaly_map.float()
        if self.input_size is not None:
            maps = F.interpolate(maps, self.size, mode="bilinear")
        maps = maps.cpu().masked_fill(foreground.cpu() <= 0, self.floor)
        scores = maps.amax(dim=(1, 2, 3)) if self.scored_by_maximum else result.pred_score
        return maps, scores.float().flatten().cpu()

    @property
    def size_mb(self) -> float:
        """Size of the fitted model's state dict, which holds the teacher and any memory bank."""
        return stored_megabytes(self.model.state_dict())


class TrainedMethod(TeacherMethod):
    """A method trained by gradient descent, for ``epochs`` passes and without early stopping."""

    clip_norm: float | None = None

    @abstractmethod
    def optimizer(self, steps: int) -> tuple[Optimizer, LRScheduler | None]:
        """Return the optimiser and the learning rate by step, for ``steps`` steps an epoch."""

    @abstractmethod
    def loss(self, images: Tensor) -> Tensor:
        """Return the scalar loss of prepared images ``(B, 3, H, W)``."""

    def learn(self, training: Dataset, held_out: Dataset) -> None:
        """Train; :attr:`losses` then holds each epoch's mean.

        Raises:
            UnavailableError: when the loss is no longer finite.
        """
        self.losses: list[float] = []
        steps = math.ceil(len(training) / self.batch_size)  # type: ignore[arg-type]
        optimizer, schedule = self.optimizer(steps)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for epoch in range(1, self.epochs + 1):
            total = 0.0
            for images in self.loader(training, shuffle=True):
                loss = self.loss(images)
                optimizer.zero_grad()
                loss.backward()
                if self.clip_norm is not None:
                    nn.utils.clip_grad_norm_(parameters, self.clip_norm)
                optimizer.step()
                if schedule is not None:
                    schedule.step()
                total += float(loss.detach())
            self.losses.append(total / steps)
            if not math.isfinite(total):
                raise UnavailableError(f"{self.name} diverged in epoch {epoch}.")
