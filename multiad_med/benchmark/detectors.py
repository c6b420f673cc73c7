"""Detectors to compare: anything that fits normal slices and maps new ones; Multi-AD is one."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch
from monai.data import DataLoader
from monai.utils import set_determinism
from torch import Tensor
from torch.utils.data import Dataset

from multiad_med.detector import AnomalyDetector
from multiad_med.evaluation.predictions import Predictor, map_slices
from multiad_med.networks import (
    PRESETS,
    DiscriminatorInput,
    FusionMode,
    MultiAD,
    MultiScaleFusion,
    StudentKind,
    TeacherWeights,
    build_multiad,
    source_weights,
)
from multiad_med.networks.losses import CosineMode, FeatureDistillationLoss
from multiad_med.resources import bundle_of_domain, read_config
from multiad_med.training import calibrate
from multiad_med.utils.errors import InputError, MultiADError

__all__ = [
    "Detector",
    "MultiADDetector",
    "Settings",
    "UnavailableError",
    "stored_megabytes",
]


DOMAIN = "industrial"
"""The bundle whose training a comparison runs; what differs between domains is overridden."""


class Detector(Predictor, Protocol):
    """A method of anomaly detection, as :func:`multiad_med.benchmark.compare` sees it.

    Attributes:
        name: of its results in tables.
    """

    name: str

    def fit(self, training: Dataset, held_out: Dataset, *, seed: int) -> None:
        """Learn from normal slices.

        Args:
            training, held_out: items with ``image (C, H, W)`` in [0, 1], C 1 or 3, and
                ``foreground (1, H, W)``; of different subjects. The second is for calibration.
            seed: of all random choices.
        """

    @property
    def size_mb(self) -> float:
        """Megabytes (10^6 bytes) that must be stored to predict: weights, memory bank."""


class UnavailableError(MultiADError, RuntimeError):
    """A method cannot be run here; the message says why and goes into the table of results."""


def stored_megabytes(state: Any) -> float:
    """Return the size of a state dict as ``torch.save`` writes it, in megabytes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.tell() / 1e6


@dataclass(frozen=True)
class Settings:
    """How a Multi-AD is built, trained and scored; None leaves a choice to the preset.

    The training is Adam under one cycle of the learning rate, as in the bundles.
    """

    preset: str = "efficientnet_lite0_decoder"
    teacher_weights: TeacherWeights | str | Path = TeacherWeights.IMAGENET
    student: StudentKind | str | None = None
    stages: tuple[int, ...] | None = None
    fused: tuple[int, ...] | None = None
    experts: tuple[str, ...] | None = None
    fusion: FusionMode | str | None = None
    se: bool | None = None
    output_stride: int | None = None
    cosine: CosineMode | str = CosineMode.LOCAL
    hardest: float = 1.0
    adversarial_weight: float = 0.0
    discriminator_input: DiscriminatorInput | str = DiscriminatorInput.DEEPEST
    epochs: int = 20
    batch_size: int = 8
    learning_rate: float = 4e-3
    score_fraction: float = 0.0


class MultiADDetector:
    """Train and calibrate Multi-AD on slices, by the engine of the bundles.

    Fusion statistics and thresholds come from all held-out slices.

    Args:
        settings: see :class:`Settings`.
        name: in tables; by default that of the preset.
        device: where it trains and predicts.

    Raises:
        InputError: on an unknown preset.
    """

    network: MultiAD

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        name: str | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.settings = Settings() if settings is None else settings
        if self.settings.preset not in PRESETS:
            raise InputError(
                f"Unknown preset {self.settings.preset!r}; choose one of {sorted(PRESETS)}."
            )
        self.name = f"Multi-AD {self.settings.preset}" if name is None else name
        self.device = torch.device(device)

    def build(self) -> MultiAD:
        """Return the untrained network."""
        s = self.settings
        return build_multiad(
            s.preset,
            teacher_weights=s.teacher_weights,
            student=s.student,
            stages=s.stages,
            fused=s.fused,
            experts=s.experts,
            fusion=s.fusion,
            se=s.se,
            output_stride=s.output_stride,
        )

    def loss(self) -> Callable[[list[Tensor], list[Tensor]], Tensor]:
        """L_G."""
        return FeatureDistillationLoss(mode=self.settings.cosine, hardest=self.settings.hardest)

    def handlers(self) -> Sequence[Any]:
        """Return further handlers of the training."""
        return ()

    def fit(self, training: Dataset, held_out: Dataset, *, seed: int) -> None:
        """Train, then calibrate; see :class:`Detector`."""
        s = self.settings
        set_determinism(seed=seed)
        self.network = self.build()
        given = {
            "network_def": self.network,
            "loss": self.loss(),
            "discriminator_def#source": s.discriminator_input,
            "train#dataset": training,
            "validate#dataset": held_out,
            "calibrate#dataset": held_out,
            "train#handlers": [
                *read_config(bundle_of_domain(DOMAIN), "train.json")["train"]["handlers"],
                *self.handlers(),
            ],
            "card": {},
            "seed": seed,
            "max_epochs": s.epochs,
            "val_interval": s.epochs,
            "batch_size": s.batch_size,
            "learning_rate": s.learning_rate,
            "adversarial_weight": s.adversarial_weight,
            "score_fraction": s.score_fraction,
            "self_test": False,
        }
        with TemporaryDirectory() as folder:
            AnomalyDetector(DOMAIN, device=str(self.device)).fit(folder, output=folder, **given)

    def fuse(self, fusion: FusionMode, held_out: Dataset) -> None:
        """Fuse the trained stages in another way, and calibrate anew on held-out slices."""
        network = self.network
        weights = source_weights(network.stages, network.fused, len(network.experts), mode=fusion)
        other = MultiScaleFusion(weights, mode=fusion)
        network.fusion = other.to(self.device)
        calibrate(
            network,
            DataLoader(held_out, batch_size=self.settings.batch_size),
            device=self.device,
            score_fraction=self.settings.score_fraction,
        )

    def predict(self, images: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
        """Return calibrated maps, 0 outside the foreground, and their scores; see :class:`Detector`."""
        return map_slices(self.network, images.to(self.device), foreground)

    @property
    def size_mb(self) -> float:
        """Size of the state dict, which holds the teacher."""
        return stored_megabytes(self.network.state_dict())
