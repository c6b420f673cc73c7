"""The Multi-AD network: a frozen teacher, a student, and the map of where they disagree."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from multiad_med.card import ModelCard
from multiad_med.networks.decoder import DecoderStudent
from multiad_med.networks.efficientnet_lite import EfficientNetLite0Features
from multiad_med.networks.extractor import FeatureExtractor
from multiad_med.networks.fusion import FusionMode, MultiScaleFusion, cosine_distance_maps
from multiad_med.networks.plug_in import plugged_student, plugged_teacher
from multiad_med.networks.resnet import RESNETS, ResNetFeatures
from multiad_med.networks.weights import load_pretrained
from multiad_med.utils.choices import choose
from multiad_med.utils.errors import InputError

__all__ = [
    "PRESETS",
    "ImageStudent",
    "MultiAD",
    "Preset",
    "StudentKind",
    "TeacherWeights",
    "build_extractor",
    "build_multiad",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class TeacherWeights(StrEnum):
    """Where the teacher's weights come from, when not from a file."""

    IMAGENET = "imagenet"
    """ImageNet weights, found by :func:`multiad_med.networks.load_pretrained`."""
    CHECKPOINT = "checkpoint"
    """Left unset, because a Multi-AD checkpoint, which holds its teacher, is loaded next."""
    RANDOM = "random"
    """Random, for tests and ablation."""


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


class StudentKind(StrEnum):
    """What the student reads."""

    IMAGE = "image"
    """The image, with the teacher's own architecture: the paper's student."""
    DECODER = "decoder"
    """The teacher's features through a bottleneck: :class:`DecoderStudent`."""


@dataclass(frozen=True)
class Preset:
    """A complete set of choices; each is an argument of :func:`build_multiad`."""

    teacher: str
    output_stride: int = 8
    se: bool = True
    student: StudentKind = StudentKind.IMAGE
    stages: tuple[int, ...] = (1, 2, 3, 4)
    fused: tuple[int, ...] | None = None


PRESETS: dict[str, Preset] = {
    "wide_resnet50_2": Preset("wide_resnet50_2"),
    "literal": Preset("wide_resnet50_2", output_stride=4),
    "plain": Preset("wide_resnet50_2", output_stride=32, se=False),
    "resnet50": Preset("resnet50"),
    "resnet34": Preset("resnet34"),
    "resnet18": Preset("resnet18"),
    "efficientnet_lite0": Preset("efficientnet_lite0", output_stride=32),
    "efficientnet_lite0_decoder": Preset(
        "efficientnet_lite0", output_stride=32, student=StudentKind.DECODER, stages=(1, 2, 3)
    ),
}
"""Presets by name; docs/decisions.md gives the reasons."""


def build_extractor(
    architecture: str, *, output_stride: int = 32, se: bool = False
) -> ResNetFeatures | EfficientNetLite0Features:
    """Build a feature extractor with random weights by name.

    Args:
        architecture: ``efficientnet_lite0`` or a key of :data:`multiad_med.networks.RESNETS`.
        output_stride: 32, 16, 8 or 4; EfficientNet-Lite0 has 32 only.
        se: squeeze-and-excitation in every block, identity at the start.

    Raises:
        InputError: on an unknown name or an output stride that the architecture has not.
    """
    if architecture == "efficientnet_lite0":
        if output_stride != 32:
            raise InputError(f"EfficientNet-Lite0 has output stride 32 only, got {output_stride}.")
        return EfficientNetLite0Features(se=se)
    if architecture not in RESNETS:
        names = ["efficientnet_lite0", *sorted(RESNETS)]
        raise InputError(f"Unknown architecture {architecture!r}; choose one of {names}.")
    return ResNetFeatures(architecture, output_stride=output_stride, se=se)


def _student(
    kind: StudentKind | str, choice: Preset, teacher: FeatureExtractor, *, plugged: bool
) -> nn.Module:
    """The student of a teacher, of a kind or a class of the user's own."""
    if kind is StudentKind.DECODER:
        return DecoderStudent(teacher.channels, teacher.strides, se=choice.se)
    if kind is not StudentKind.IMAGE:
        return plugged_student(kind, teacher)
    if plugged:
        raise InputError(
            "A student of kind 'image' has the teacher's architecture, which a teacher of your own does "
            "not tell: choose student 'decoder', or one of your own."
        )
    return ImageStudent(
        build_extractor(choice.teacher, output_stride=choice.output_stride, se=choice.se)
    )


def _load_teacher(teacher: nn.Module, name: str, weights: str | Path, *, plugged: bool) -> None:
    """Load a teacher's weights; one of a user's own has them already, if not in a file."""
    if weights == TeacherWeights.IMAGENET:
        if not plugged:
            load_pretrained(teacher, name)
    elif weights not in (TeacherWeights.CHECKPOINT, TeacherWeights.RANDOM):
        load_pretrained(teacher, name, file=weights)


def build_multiad(
    preset: str = "wide_resnet50_2",
    *,
    teacher: str | None = None,
    teacher_weights: TeacherWeights | str | Path = TeacherWeights.IMAGENET,
    output_stride: int | None = None,
    se: bool | None = None,
    student: StudentKind | str | None = None,
    stages: Sequence[int] | None = None,
    fused: Sequence[int] | None = None,
    fusion: FusionMode | str = FusionMode.ZSCORE,
    sigma: float = 4.0,
) -> MultiAD:
    """Build :class:`MultiAD` from a preset, of which single choices can be changed.

    SE is in the student only: a frozen teacher has no trained gates (see docs/decisions.md).

    Args:
        preset: a key of :data:`PRESETS`.
        teacher: dotted name of a class of your own, see docs/plug-in.md.
        teacher_weights: a :class:`TeacherWeights` or a file. Never random unless asked. A teacher of
            your own is built with its weights, or has them from a file.
        output_stride: stride of the last stage, 32, 16, 8 or 4.
        se: squeeze-and-excitation in the student.
        student: see :class:`StudentKind`; or the dotted name of a class of your own.
        stages: stages that are distilled, counted from 1. Without it the preset's; all of a teacher of
            your own.
        fused: those of them whose maps are fused; all without it.
        fusion: see :class:`FusionMode`.
        sigma: standard deviation of the map's smoothing in pixels.

    Raises:
        InputError: on an unknown preset or choice, or a class that does not fulfil its contract.
        WeightsError: when the teacher's weights cannot be had or do not fit.
    """
    if preset not in PRESETS:
        raise InputError(f"Unknown preset {preset!r}; choose one of {sorted(PRESETS)}.")
    if teacher is not None and output_stride is not None:
        raise InputError("A teacher of your own has its own strides: leave output_stride out.")
    if student is None:
        student = PRESETS[preset].student
    elif "." not in student:
        student = choose(StudentKind, student, what="student, if not a dotted name,")
    given: dict[str, Any] = {
        "teacher": teacher,
        "output_stride": output_stride,
        "se": se,
        "stages": stages,
        "fused": fused,
    }
    choice = replace(PRESETS[preset], **{k: v for k, v in given.items() if v is not None})
    plugged = teacher is not None
    frozen: Any
    if plugged:
        frozen = plugged_teacher(choice.teacher)
        if stages is None:
            choice = replace(choice, stages=tuple(range(1, len(frozen.channels) + 1)))
    else:
        frozen = build_extractor(choice.teacher, output_stride=choice.output_stride)
    learner = _student(student, choice, frozen, plugged=plugged)
    _load_teacher(frozen, choice.teacher, teacher_weights, plugged=plugged)
    network = MultiAD(
        frozen, learner, stages=choice.stages, fused=choice.fused, fusion=fusion, sigma=sigma
    )
    network.card.network = {
        "preset": preset,
        **({"teacher": teacher} if plugged else {"output_stride": choice.output_stride}),
        "se": choice.se,
        "student": student,
        "stages": network.stages,
        "fused": network.fused,
        "fusion": network.fusion.mode,
        "sigma": sigma,
    }
    return network
