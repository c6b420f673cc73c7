"""The Multi-AD network: a frozen teacher, a student, and the map of where they disagree."""

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from multiad_med.card import ModelCard
from multiad_med.networks.extractor import FeatureExtractor
from multiad_med.networks.fusion import FusionMode, MultiScaleFusion, cosine_distance_maps
from multiad_med.utils.errors import InputError

__all__ = ["ImageStudent", "MultiAD"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageStudent(nn.Module):
    """The paper's student: a backbone that reads the image and ignores the teacher's features.

    Every student is called with ``(image, teacher_features)`` and returns features of the
    teacher's shapes, so that a student which decodes the teacher's features fits too.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """Features of an ImageNet-normalised image ``(B, 3, H, W)``."""
        return self.backbone(image)


class MultiAD(nn.Module):
    """Multi-AD: image in, calibrated anomaly map out.

    The map is ``m / (m + t)``, where m is the fused and smoothed map (Eq. 14 and 15) and t the
    pixel threshold found on held-out normal images: values lie in [0, 1), and 0.5 is the threshold
    itself. The order of pixels is that of m. Everything needed (teacher, student, ImageNet mean
    and standard deviation, fusion statistics, thresholds, and the model's card) is in the state dict.
    Distances, fusion and smoothing are float32 whatever precision the features have.

    Args:
        teacher: a :class:`FeatureExtractor`; frozen, and always in evaluation mode.
        student: a module called with ``(image, teacher_features)``.
        stages: stages that are distilled, counted from 1.
        fused: those of them whose maps are fused; all without it. A stage that is distilled and not
            fused still shapes the student. A state dict brings its own.
        fusion: see :class:`FusionMode`.
        sigma: standard deviation of the map's Gaussian smoothing in pixels; the paper names none.

    Raises:
        InputError: when a stage does not exist, or one to fuse is not distilled.
    """

    __jit_unused_properties__: ClassVar[list[str]] = ["fused"]
    __jit_ignored_attributes__: ClassVar[list[str]] = ["card"]

    mean: Tensor
    std: Tensor
    calibrated: Tensor
    pixel_threshold: Tensor
    pixel_false_positive_rate: Tensor
    score_fraction: Tensor

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        *,
        stages: Sequence[int] = (1, 2, 3, 4),
        fused: Sequence[int] | None = None,
        fusion: FusionMode | str = FusionMode.ZSCORE,
        sigma: float = 4.0,
    ) -> None:
        super().__init__()
        if not isinstance(teacher, FeatureExtractor):
            raise InputError(
                f"The teacher must have `channels` and `strides`, as FeatureExtractor says; "
                f"{type(teacher).__name__} has not."
            )
        count = len(teacher.channels)
        if (
            not stages
            or sorted(set(stages)) != list(stages)
            or not 1 <= stages[0] <= stages[-1] <= count
        ):
            raise InputError(
                f"stages must be increasing numbers from 1 to {count}, got {tuple(stages)}."
            )
        fused = stages if fused is None else fused
        if not fused or sorted(set(fused)) != list(fused) or not set(fused) <= set(stages):
            raise InputError(
                f"fused must be increasing numbers out of the distilled stages {tuple(stages)}, got "
                f"{tuple(fused)}."
            )
        self.stages = list(stages)
        self.channels: tuple[int, ...] = tuple(teacher.channels[s - 1] for s in stages)
        self.strides: tuple[int, ...] = tuple(teacher.strides[s - 1] for s in stages)
        self.teacher = teacher.requires_grad_(False).eval()
        self.student = student
        self.fusion = MultiScaleFusion(
            len(self.stages), fused=[s in fused for s in stages], mode=fusion, sigma=sigma
        )
        # 1.5 times as fast on a CPU, and what AMP on a GPU asks for.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        # What calibration sets (multiad_med.engines.calibrate); scalars, so that they are saved.
        self.register_buffer("calibrated", torch.tensor(False))
        self.register_buffer("pixel_threshold", torch.tensor(1.0))
        self.register_buffer("pixel_false_positive_rate", torch.tensor(float("nan")))
        self.register_buffer("score_fraction", torch.tensor(0.0))
        self.card = ModelCard()

    def get_extra_state(self) -> Tensor:
        """The card, for the state dict."""
        return self.card.as_tensor()

    def set_extra_state(self, state: Tensor) -> None:
        """Take the card of a state dict."""
        self.card = ModelCard.from_tensor(state)

    @property
    def fused(self) -> list[int]:
        """Stages whose maps are fused."""
        return [s for s, used in zip(self.stages, self.fusion.fused.tolist(), strict=True) if used]

    def train(self, mode: bool = True) -> Self:
        """Set training mode of the student; the teacher and the fusion stay in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.jit.export
    def features(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Teacher and student features of the distilled stages.

        Args:
            x: images ``(B, 3, H, W)`` in [0, 1]; a grey image ``(B, 1, H, W)`` stands for three
                equal channels.

        Returns:
            Two lists of ``(B, channels[i], H / strides[i], W / strides[i])``; the teacher's
            without gradients.
        """
        if x.dim() != 4 or x.shape[1] not in (1, 3):
            raise ValueError(f"Expected images (B, 1 or 3, H, W), got shape {x.shape}.")
        x = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            teacher = self.teacher(x)
        student = self.student(x, teacher)
        return [teacher[s - 1] for s in self.stages], [student[s - 1] for s in self.stages]

    @torch.jit.export
    def raw_map(self, x: Tensor) -> Tensor:
        """The fused, smoothed map m before thresholds enter, ``(B, 1, H, W)``, 0 and more."""
        teacher, student = self.features(x)
        return self.map_of_features(teacher, student, [x.shape[2], x.shape[3]])

    @torch.jit.export
    def map_of_features(
        self, teacher: list[Tensor], student: list[Tensor], size: list[int]
    ) -> Tensor:
        """The map m of features of the distilled stages, ``(B, 1, *size)``, in float32."""
        teacher = [f.float() for f in teacher]
        student = [f.float() for f in student]
        if not torch.jit.is_scripting():  # which has no autocast of its own
            device = teacher[0].device.type
            if torch.is_autocast_enabled(device):
                with torch.autocast(device, enabled=False):
                    return self.fusion(cosine_distance_maps(teacher, student), size)
        return self.fusion(cosine_distance_maps(teacher, student), size)

    def forward(self, x: Tensor) -> Tensor:
        """Calibrated anomaly map ``(B, 1, H, W)`` in [0, 1) of images ``(B, 3, H, W)`` in [0, 1]."""
        m = self.raw_map(x)
        return m / (m + self.pixel_threshold)
