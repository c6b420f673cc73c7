"""A Multi-AD network by name: presets, and what of them can be changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from torch import nn

from multiad_med.networks.decoder import DecoderStudent
from multiad_med.networks.efficientnet_lite import EfficientNetLite0Features
from multiad_med.networks.experts import EXPERTS, ExpertKind
from multiad_med.networks.extractor import FeatureExtractor
from multiad_med.networks.fusion import FusionMode
from multiad_med.networks.multiad import ImageStudent, MultiAD, NoStudent
from multiad_med.networks.plug_in import plugged_student, plugged_teacher
from multiad_med.networks.resnet import RESNETS, ResNetFeatures
from multiad_med.networks.weights import load_pretrained
from multiad_med.utils.choices import choose
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
    """ImageNet weights, found by :func:`multiad_med.networks.load_pretrained`."""
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
    experts: Sequence[ExpertKind | str] | None = None,
    fusion: FusionMode | str | None = None,
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
        experts: beside the student; see :class:`ExpertKind`.
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
        "experts": experts,
        "fusion": fusion,
    }
    choice = replace(PRESETS[preset], **{k: v for k, v in given.items() if v is not None})
    plugged = teacher is not None
    frozen: Any
    if plugged:
        frozen = plugged_teacher(choice.teacher)
        if stages is None and student is not StudentKind.NONE:
            choice = replace(choice, stages=tuple(range(1, len(frozen.channels) + 1)))
    else:
        frozen = build_extractor(choice.teacher, output_stride=choice.output_stride)
    learner = _student(student, choice, frozen, plugged=plugged)
    _load_teacher(frozen, choice.teacher, teacher_weights, plugged=plugged)
    kinds = [choose(ExpertKind, kind, what="expert") for kind in choice.experts]
    network = MultiAD(
        frozen,
        learner,
        experts=[EXPERTS[kind](frozen.channels) for kind in kinds],
        stages=choice.stages,
        fused=choice.fused,
        fusion=choice.fusion,
        sigma=sigma,
    )
    network.card.network = {
        "preset": preset,
        **({"teacher": teacher} if plugged else {"output_stride": choice.output_stride}),
        "se": choice.se,
        "student": student,
        "stages": network.stages,
        "fused": network.fused,
        "experts": kinds,
        "fusion": network.fusion.mode,
        "sigma": sigma,
    }
    return network
