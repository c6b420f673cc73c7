"""A Multi-AD network by name: presets, and what of them can be changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from torch import nn

from multiad_med.networks.decoder import DecoderStudent
from multiad_med.networks.dino_features import DinoFeatures
from multiad_med.networks.efficientnet_lite import EFFICIENTNET_LITES, EfficientNetLiteFeatures
from multiad_med.networks.experts import EXPERTS, ExpertKind
from multiad_med.networks.extractor import FeatureExtractor, stage_numbers
from multiad_med.networks.fusion import FusionMode
from multiad_med.networks.multiad import ImageStudent, MultiAD, NoStudent, Residual
from multiad_med.networks.plug_in import plugged_student, plugged_teacher
from multiad_med.networks.resnet import RESNETS, ResNetFeatures
from multiad_med.networks.timm_backbone import TIMM, TimmFeatures
from multiad_med.networks.vgg import VGGS, VGGFeatures
from multiad_med.networks.vision_transformer import VISION_TRANSFORMERS
from multiad_med.networks.weights import load_pretrained
from multiad_med.utils.choose import choose
from multiad_med.utils.errors import InputError

__all__ = [
    "PRESETS",
    "Preset",
    "StudentKind",
    "TeacherWeights",
    "build_extractor",
    "build_multiad",
]


class TeacherWeights(StrEnum):
    """Where the teacher's weights come from, when not from a file."""

    IMAGENET = "imagenet"
    """The public ones, ImageNet's or DINOv2's: see :func:`multiad_med.networks.load_pretrained`."""
    CHECKPOINT = "checkpoint"
    """Left unset, because a Multi-AD checkpoint, which holds its teacher, is loaded next."""
    RANDOM = "random"
    """Random, for tests and ablation."""


class StudentKind(StrEnum):
    """What the student reads."""

    IMAGE = "image"
    """The image, with the teacher's own architecture: the paper's student."""
    DECODER = "decoder"
    """The teacher's features through a bottleneck: :class:`DecoderStudent`."""
    NONE = "none"
    """There is none: experts alone say what is normal, after one pass over the images."""


@dataclass(frozen=True)
class Preset:
    """A complete set of choices; each is an argument of :func:`build_multiad`."""

    teacher: str
    output_stride: int = 8
    se: bool = True
    student: StudentKind = StudentKind.IMAGE
    stages: tuple[int, ...] = (1, 2, 3, 4)
    fused: tuple[int, ...] | None = None
    experts: tuple[ExpertKind, ...] = ()
    residual: Residual = Residual.COSINE
    fusion: FusionMode = FusionMode.ZSCORE


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
    "efficientnet_lite1": Preset("efficientnet_lite1", output_stride=32),
    "efficientnet_lite1_decoder": Preset(
        "efficientnet_lite1", output_stride=32, student=StudentKind.DECODER, stages=(1, 2, 3)
    ),
    "efficientnet_lite2": Preset("efficientnet_lite2", output_stride=32),
    "efficientnet_lite2_decoder": Preset(
        "efficientnet_lite2", output_stride=32, student=StudentKind.DECODER, stages=(1, 2, 3)
    ),
    "gaussian": Preset(
        "efficientnet_lite0",
        output_stride=32,
        student=StudentKind.NONE,
        stages=(),
        experts=(ExpertKind.POSITION_GAUSSIAN,),
        fusion=FusionMode.HAZARD,
    ),
    "neighbours": Preset(
        "efficientnet_lite0",
        output_stride=32,
        student=StudentKind.NONE,
        stages=(),
        experts=(ExpertKind.NEAREST_NORMAL,),
        fusion=FusionMode.HAZARD,
    ),
    "vgg16": Preset("vgg16", output_stride=32),
    "vgg19": Preset("vgg19", output_stride=32),
}
"""Presets by name; docs/decisions.md gives the reasons."""


ARCHITECTURES = (*EFFICIENTNET_LITES, *RESNETS, *VGGS, *VISION_TRANSFORMERS)
"""Teachers by name, beside those of timm."""


def build_extractor(
    architecture: str, *, output_stride: int = 32, se: bool = False
) -> ResNetFeatures | EfficientNetLiteFeatures | VGGFeatures | DinoFeatures | TimmFeatures:
    """Build a feature extractor with random weights by name.

    Args:
        architecture: a key of :data:`multiad_med.networks.RESNETS`, ``EFFICIENTNET_LITES``, ``VGGS`` or
            ``VISION_TRANSFORMERS``, or ``timm/NAME``.
        output_stride: 32, or, of a ResNet, 16, 8 or 4 too. A vision transformer's is its patch's side.
        se: squeeze-and-excitation in every block, identity at the start; vision transformers and timm's
            models have none.

    Raises:
        InputError: on an unknown name, or what the architecture has not.
        MissingPackageError: when timm is asked for and not installed.
    """
    if architecture in RESNETS:
        return ResNetFeatures(architecture, output_stride=output_stride, se=se)
    timm = architecture.startswith(TIMM)
    if architecture not in ARCHITECTURES and not timm:
        raise InputError(
            f"Unknown architecture {architecture!r}; choose one of {list(ARCHITECTURES)}, timm/NAME, or, "
            "as a teacher, the dotted name of a class of your own, such as my_package.MyClass."
        )
    if output_stride != 32:
        raise InputError(
            f"Another output stride than 32 is a ResNet's; {architecture} has no other, got "
            f"{output_stride}: leave it out."
        )
    if se and (timm or architecture in VISION_TRANSFORMERS):
        raise InputError(f"{architecture} has no squeeze-and-excitation of ours: give se=False.")
    if timm:
        return TimmFeatures(architecture)
    if architecture in VISION_TRANSFORMERS:
        return DinoFeatures(VISION_TRANSFORMERS[architecture])
    if architecture in VGGS:
        return VGGFeatures(architecture, se=se)
    return EfficientNetLiteFeatures(architecture, se=se)


def _student(
    kind: StudentKind | str, choice: Preset, teacher: FeatureExtractor, *, plugged: bool
) -> nn.Module:
    """The student of a teacher, of a kind or a class of the user's own."""
    if kind is StudentKind.DECODER:
        return DecoderStudent(teacher.channels, teacher.strides, se=choice.se)
    if kind is StudentKind.NONE:
        return NoStudent()
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
    if weights in (TeacherWeights.CHECKPOINT, TeacherWeights.RANDOM):
        return
    file = None if weights == TeacherWeights.IMAGENET else weights
    if isinstance(teacher, TimmFeatures):
        teacher.load(file)
    elif file is not None or not plugged:
        load_pretrained(teacher, name, file=file)


def build_multiad(
    preset: str = "wide_resnet50_2",
    *,
    teacher: str | None = None,
    teacher_weights: TeacherWeights | str | Path = TeacherWeights.IMAGENET,
    output_stride: int | None = None,
    se: bool | None = None,
    student: StudentKind | str | None = None,
    stages: Sequence[int | str] | None = None,
    fused: Sequence[int | str] | None = None,
    experts: Sequence[ExpertKind | str] | None = None,
    residual: Residual | str | None = None,
    fusion: FusionMode | str | None = None,
    sigma: float = 4.0,
) -> MultiAD:
    """Build :class:`MultiAD` from a preset, of which single choices can be changed.

    SE is in the student only: a frozen teacher has no trained gates (see docs/decisions.md).

    Args:
        preset: a key of :data:`PRESETS`.
        teacher: another than the preset's: as of :func:`build_extractor`, or the dotted name of a
            class of your own, see docs/plug-in.md.
        teacher_weights: a :class:`TeacherWeights` or a file. Never random unless asked. A teacher of
            your own is built with its weights, or has them from a file.
        output_stride: stride of the last stage, 32, 16, 8 or 4; without it the preset's, and 32 of
            another teacher.
        se: squeeze-and-excitation in the student.
        student: see :class:`StudentKind`; or the dotted name of a class of your own.
        stages: stages that are distilled, counted from 1, or named by their strides, as ``stride8``.
            Without it the preset's; all of a teacher of your own.
        fused: those of them whose maps are fused; all without it.
        experts: beside the student; see :class:`ExpertKind`.
        residual: see :class:`Residual`.
        fusion: see :class:`FusionMode`.
        sigma: standard deviation of the map's smoothing in pixels.

    Raises:
        InputError: on an unknown preset or choice, or a class that does not fulfil its contract.
        WeightsError: when the teacher's weights cannot be had or do not fit.
    """
    if preset not in PRESETS:
        raise InputError(f"Unknown preset {preset!r}; choose one of {sorted(PRESETS)}.")
    plugged = teacher is not None and "." in teacher and not teacher.startswith(TIMM)
    if plugged and output_stride is not None:
        raise InputError("A teacher of your own has its own strides: leave output_stride out.")
    if student is None:
        student = PRESETS[preset].student
    elif "." not in student:
        student = choose(StudentKind, student, what="student, if not a dotted name,")
    if teacher is not None and output_stride is None:
        output_stride = 32
    given: dict[str, Any] = {
        "teacher": teacher,
        "output_stride": output_stride,
        "se": se,
        "stages": stages,
        "fused": fused,
        "experts": experts,
        "residual": residual,
        "fusion": fusion,
    }
    choice = replace(PRESETS[preset], **{k: v for k, v in given.items() if v is not None})
    frozen: Any
    if plugged:
        frozen = plugged_teacher(choice.teacher)
    else:
        frozen = build_extractor(choice.teacher, output_stride=choice.output_stride)
    if stages is None:
        every = range(1, len(frozen.strides) + 1)
        every_one = plugged and student is not StudentKind.NONE
        stages = [s for s in every if every_one or s in choice.stages]
    distilled = stage_numbers(stages, frozen.strides)
    shown = None if choice.fused is None else stage_numbers(choice.fused, frozen.strides)
    learner = _student(student, choice, frozen, plugged=plugged)
    _load_teacher(frozen, choice.teacher, teacher_weights, plugged=plugged)
    kinds = [choose(ExpertKind, kind, what="expert") for kind in choice.experts]
    network = MultiAD(
        frozen,
        learner,
        experts=[EXPERTS[kind](frozen.channels) for kind in kinds],
        stages=distilled,
        fused=shown,
        residual=choice.residual,
        fusion=choice.fusion,
        sigma=sigma,
    )
    network.card.network = {
        "preset": preset,
        **({} if teacher is None else {"teacher": teacher}),
        **({} if plugged else {"output_stride": choice.output_stride}),
        "se": choice.se,
        "student": student,
        "stages": network.stages,
        "fused": network.fused,
        "experts": kinds,
        "residual": choice.residual,
        "fusion": network.fusion.mode,
        "sigma": sigma,
    }
    return network
