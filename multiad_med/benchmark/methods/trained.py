"""STFPM, Reverse Distillation and SuperSimpleNet: trained on the common teacher's features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR

from multiad_med.benchmark.detectors import UnavailableError
from multiad_med.benchmark.methods.base import Stages, TrainedMethod
from multiad_med.networks import RESNETS, build_extractor
from multiad_med.utils.errors import InputError

__all__ = ["STFPM", "ReverseDistillation", "SuperSimpleNet"]


class STFPM(TrainedMethod):
    """A student of the teacher's architecture matches its features (Wang et al. 2021).

    ``anomalib.models.image.stfpm``: STFPMModel of stages 1 to 3, STFPMLoss, SGD. The student starts
    from the random weights of :func:`multiad_med.networks.build_extractor`, not timm's.
    """

    name = "STFPM"
    module = "stfpm.torch_model"

    def extractor(
        self, *, layers: Sequence[str], requires_grad: bool = False, **options: Any
    ) -> nn.Module:
        """Return the teacher or, where gradients are asked for, the student."""
        if not requires_grad:
            return super().extractor(layers=layers, **options)
        student = build_extractor(self.architecture, output_stride=self.teacher.strides[-1])
        if student.channels != self.teacher.channels:
            raise InputError(
                f"A student {self.architecture} has channels {student.channels}, the teacher "
                f"{self.teacher.channels}: architecture must name the teacher's."
            )
        return Stages(student, layers, frozen=False)

    def build(self, source: Any) -> nn.Module:
        """STFPMModel."""
        self._loss = self.anomalib("stfpm.loss").STFPMLoss()
        return source.STFPMModel(backbone=self.architecture, layers=list(self.layers))

    def optimizer(self, steps: int) -> tuple[Optimizer, LRScheduler | None]:
        """Return SGD over the student."""
        student = self.model.student_model.parameters()
        return SGD(student, lr=0.4, momentum=0.9, weight_decay=1e-3), None

    def loss(self, images: Tensor) -> Tensor:
        """STFPMLoss."""
        return self._loss(*self.model(images))


class ReverseDistillation(TrainedMethod):
    """A decoder rebuilds the teacher's features from a bottleneck (Deng and Li 2022).

    ``anomalib.models.image.reverse_distillation``: ReverseDistillationModel of stages 1 to 3 with
    added maps, ReverseDistillationLoss, Adam, batches of 16.

    Raises:
        UnavailableError: with a teacher that is no ResNet of strides 4, 8 and 16.
    """

    name = "Reverse Distillation"
    module = "reverse_distillation.torch_model"
    default_batch_size = 16

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.architecture not in RESNETS or tuple(self.teacher.strides[:3]) != (4, 8, 16):
            raise UnavailableError(
                "Reverse Distillation's decoder in anomalib mirrors ResNets of strides 4, 8 and 16 "
                f"only, not {self.architecture} of strides {tuple(self.teacher.strides[:3])}."
            )

    def build(self, source: Any) -> nn.Module:
        """ReverseDistillationModel."""
        self._loss = self.anomalib("reverse_distillation.loss").ReverseDistillationLoss()
        return source.ReverseDistillationModel(
            backbone=self.architecture,
            input_size=self.size,
            layers=self.layers,
            anomaly_map_mode=source.AnomalyMapGenerationMode.ADD,
            pre_trained=False,
        )

    def optimizer(self, steps: int) -> tuple[Optimizer, LRScheduler | None]:
        """Return Adam over decoder and bottleneck."""
        learners = [*self.model.decoder.parameters(), *self.model.bottleneck.parameters()]
        return Adam(learners, lr=0.005, betas=(0.5, 0.99)), None

    def loss(self, images: Tensor) -> Tensor:
        """ReverseDistillationLoss."""
        return self._loss(*self.model(images))


class SuperSimpleNet(TrainedMethod):
    """Heads that tell features from features with noise (Rolih et al. 2024).

    ``anomalib.models.image.supersimplenet``: SupersimplenetModel of stages 2 and 3, unsupervised,
    SSNLoss, AdamW with two steps down. anomalib asks for 300 epochs.

    Args:
        noise_std: of the noise. The published value suits torchvision's first ResNet weights. Features
            of a wider spread, such as EfficientNet-Lite0's, hide the noise, and nothing is learnt.

    Raises:
        UnavailableError: on images whose features are too few for anomalib's Perlin noise.
    """

    name = "SuperSimpleNet"
    module = "supersimplenet.torch_model"
    layers = ("layer2", "layer3")
    scored_by_maximum = False

    def __init__(self, *, noise_std: float = 0.015, **options: Any) -> None:
        super().__init__(**options)
        self.noise_std = noise_std
        # Features of twice stage 2's resolution; the noise has up to 32 waves on a grid of a power
        # of 2 that covers them.
        if min(self.size) * 2 // self.teacher.strides[1] <= 16:
            raise UnavailableError(
                f"SuperSimpleNet's noise in anomalib needs images larger than "
                f"{8 * self.teacher.strides[1]} pixels, got {self.size}."
            )

    def build(self, source: Any) -> nn.Module:
        """SupersimplenetModel."""
        self._loss = self.anomalib("supersimplenet.loss").SSNLoss()
        model = source.SupersimplenetModel(
            perlin_threshold=0.2,
            backbone=self.architecture,
            layers=list(self.layers),
            stop_grad=True,
            adapt_cls_features=False,
        )
        model.anomaly_generator.noise_std = self.noise_std
        return model

    def optimizer(self, steps: int) -> tuple[Optimizer, LRScheduler | None]:
        """Return AdamW; its learning rates are multiplied by 0.4 at 80 % and 90 % of the epochs."""
        optimizer = AdamW(
            [
                {"params": list(self.model.adaptor.parameters()), "lr": 1e-4},
                {"params": list(self.model.segdec.parameters()), "lr": 2e-4, "weight_decay": 1e-5},
            ]
        )
        milestones = [int(self.epochs * part) * steps for part in (0.8, 0.9)]
        return optimizer, MultiStepLR(optimizer, milestones, gamma=0.4)

    def loss(self, images: Tensor) -> Tensor:
        """Return SSNLoss against the noise that was added."""
        normal = torch.zeros(len(images), device=self.device)
        maps, scores, masks, labels = self.model(images, labels=normal)
        return self._loss(pred_map=maps, pred_score=scores, target_mask=masks, target_label=labels)
