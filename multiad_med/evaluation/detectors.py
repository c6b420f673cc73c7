"""What is compared: anything that fits normal slices and maps new ones; Multi-AD as one of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from ignite.engine import Events
from monai.data import DataLoader
from monai.handlers import LrScheduleHandler
from monai.utils import set_determinism
from torch import Tensor
from torch.utils.data import Dataset

from multiad_med.engines import DistillationTrainer, EpochSeedHandler, calibrate
from multiad_med.losses import CosineMode, FeatureDistillationLoss
from multiad_med.networks import (
    PRESETS,
    DiscriminatorInput,
    FeatureDiscriminator,
    FusionMode,
    MultiAD,
    MultiScaleFusion,
    StudentKind,
    TeacherWeights,
    build_multiad,
)
from multiad_med.scoring import image_scores
from multiad_med.utils.errors import InputError, MultiADError

__all__ = [
    "Detector",
    "MultiADDetector",
    "Predictor",
    "Settings",
    "UnavailableError",
    "map_slices",
    "stored_megabytes",
]


class Predictor(Protocol):
    """What maps slices."""

    def predict(self, images: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
        """Maps ``(B, 1, H, W)`` and image scores ``(B,)``, the larger the more anomalous.

        Args:
            images: ``(B, C, H, W)`` in [0, 1].
            foreground: ``(B, 1, H, W)``, true inside.
        """


class Detector(Predictor, Protocol):
    """A method of anomaly detection, as :func:`multiad_med.evaluation.compare` sees it.

    Attributes:
        name: under which its results are listed.
    """

    name: str

    def fit(self, training: Dataset, held_out: Dataset, *, seed: int) -> None:
        """Learn from normal slices.

        Args:
            training, held_out: items with ``image (C, H, W)`` in [0, 1], C 1 or 3, and
                ``foreground (1, H, W)``; of different subjects. The second is for calibration.
            seed: of everything that is drawn.
        """

    @property
    def size_mb(self) -> float:
        """Megabytes (10^6 bytes) that must be stored to predict: weights, memory bank."""


class UnavailableError(MultiADError, RuntimeError):
    """A method cannot be run here; the message says why and goes into the table of results."""


def stored_megabytes(state: Any) -> float:
    """Size of a state dict as ``torch.save`` writes it, in megabytes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.tell() / 1e6


@torch.no_grad()
def map_slices(network: MultiAD, images: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
    """Calibrated maps of a trained network, 0 outside the foreground, and the images' scores.

    Args:
        network: a calibrated one.
        images: ``(B, C, H, W)`` in [0, 1], where the network is.
        foreground: ``(B, 1, H, W)``, true inside.

    Returns:
        Maps ``(B, 1, H, W)`` in [0, 1) and scores ``(B,)``, on the CPU.
    """
    maps = network.eval()(images).cpu() * foreground
    return maps, image_scores(maps, foreground, fraction=float(network.score_fraction))


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
    """Multi-AD trained on slices by :class:`DistillationTrainer` and calibrated on held-out ones.

    Args:
        settings: see :class:`Settings`.
        name: under which it is listed; the preset's without one.
        device: where it trains and predicts.
        on_epoch: called with the epoch, counted from 1, and its mean L_G.

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
        on_epoch: Callable[[int, float], None] | None = None,
    ) -> None:
        self.settings = Settings() if settings is None else settings
        if self.settings.preset not in PRESETS:
            raise InputError(
                f"Unknown preset {self.settings.preset!r}; choose one of {sorted(PRESETS)}."
            )
        self.name = f"Multi-AD {self.settings.preset}" if name is None else name
        self.device = torch.device(device)
        self.on_epoch = on_epoch
        self.losses: list[float] = []

    def build(self) -> MultiAD:
        """The untrained network."""
        s = self.settings
        return build_multiad(
            s.preset,
            teacher_weights=s.teacher_weights,
            student=s.student,
            stages=s.stages,
            fused=s.fused,
            se=s.se,
            output_stride=s.output_stride,
        )

    def loss(self) -> Callable[[list[Tensor], list[Tensor]], Tensor]:
        """L_G."""
        return FeatureDistillationLoss(mode=self.settings.cosine, hardest=self.settings.hardest)

    def handlers(self) -> Sequence[Any]:
        """Further handlers of the training."""
        return ()

    def fit(self, training: Dataset, held_out: Dataset, *, seed: int) -> None:
        """Train, then calibrate; see :class:`Detector`."""
        s = self.settings
        set_determinism(seed=seed)
        self.network = self.build().to(self.device)
        discriminator = None
        if s.adversarial_weight > 0:
            discriminator = FeatureDiscriminator(
                self.network.channels, source=s.discriminator_input, input_size=4
            )
            discriminator = discriminator.to(self.device)
        loader = DataLoader(training, batch_size=s.batch_size, shuffle=True)
        optimizer = torch.optim.Adam(self.network.student.parameters(), lr=s.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=s.learning_rate, total_steps=s.epochs * len(loader)
        )
        trainer = DistillationTrainer(
            self.device,
            s.epochs,
            loader,
            self.network,
            optimizer,
            self.loss(),
            discriminator=discriminator,
            discriminator_optimizer=None
            if discriminator is None
            else torch.optim.Adam(discriminator.parameters(), lr=2e-4),
            adversarial_weight=s.adversarial_weight,
            train_handlers=[
                EpochSeedHandler(seed),
                LrScheduleHandler(schedule, print_lr=False, epoch_level=False),  # type: ignore[arg-type]
                *self.handlers(),
            ],
            decollate=False,
        )
        batch_losses: list[float] = []
        self.losses = []

        def collect() -> None:
            batch_losses.append(float(trainer.state.output["loss_distillation"]))

        def finish() -> None:
            self.losses.append(sum(batch_losses) / len(batch_losses))
            batch_losses.clear()
            if self.on_epoch is not None:
                self.on_epoch(len(self.losses), self.losses[-1])

        trainer.add_event_handler(Events.ITERATION_COMPLETED, collect)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, finish)
        trainer.run()
        self._calibrate(held_out)

    def fuse(self, fusion: FusionMode, held_out: Dataset) -> None:
        """Fuse the trained stages otherwise, and calibrate anew on held-out slices."""
        other = MultiScaleFusion(
            len(self.network.stages), fused=self.network.fusion.fused.tolist(), mode=fusion
        )
        self.network.fusion = other.to(self.device)
        self._calibrate(held_out)

    def _calibrate(self, held_out: Dataset) -> None:
        calibrate(
            self.network,
            DataLoader(held_out, batch_size=self.settings.batch_size),
            device=self.device,
            score_fraction=self.settings.score_fraction,
        )

    def predict(self, images: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
        """Calibrated maps, 0 outside the foreground, and their scores; see :class:`Detector`."""
        return map_slices(self.network, images.to(self.device), foreground)

    @property
    def size_mb(self) -> float:
        """Of the state dict, which holds the teacher."""
        return stored_megabytes(self.network.state_dict())
