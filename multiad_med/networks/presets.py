"""A Multi-AD network by name: presets, and what of them can be changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from torch import nn

from multiad_med.networks.architectures import build_extractor
from multiad_med.networks.decoder import DecoderStudent
from multiad_med.networks.dino_features import DinoFeatures
from multiad_med.networks.dual_student import DualStudent
from multiad_med.networks.experts import EXPERTS, Expert, ExpertKind
from multiad_med.networks.extractor import TOKEN, FeatureExtractor, stage_numbers
from multiad_med.networks.fusion import FusionMode
from multiad_med.networks.image_student import ImageStudent, NoStudent
from multiad_med.networks.multiad import MultiAD, Residual
from multiad_med.networks.plug_in import plugged_student, plugged_teacher
from multiad_med.networks.semantic_student import SemanticStudent
from multiad_med.networks.semantic_token import WithSemanticToken, semantic_stages
from multiad_med.networks.timm_backbone import TIMM, TimmFeatures
from multiad_med.networks.token_decoder import TokenDecoder
from multiad_med.networks.weights import load_pretrained
from multiad_med.utils.choose import choose
from multiad_med.utils.errors import InputError

__all__ = [
    "PRESETS",
    "Preset",
    "StudentKind",
    "TeacherWeights",
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
    """The teacher's features through a bottleneck: :class:`DecoderStudent`, or, of a vision transformer,
    :class:`multiad_med.networks.TokenDecoder`."""
    DUAL = "dual"
    """The decoder, and beside it an encoder of the image that imitates the teacher's token of the whole
    image: :class:`multiad_med.networks.DualStudent`, of the second paper."""
    NONE = "none"
    """There is none: experts alone say what is normal, after one pass over the images."""


@dataclass(frozen=True)
class Preset:
    """A complete set of choices; each is an argument of :func:`build_multiad`."""

    teacher: str
    output_stride: int = 8
    se: bool = True
    student: StudentKind = StudentKind.IMAGE
    stages: tuple[int | str, ...] = (1, 2, 3, 4)
    fused: tuple[int | str, ...] | None = None
    experts: tuple[ExpertKind, ...] = ()
    residual: Residual = Residual.COSINE
    fusion: FusionMode = FusionMode.ZSCORE
    recentred: bool = True
    narrow: int | None = 256


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
    "dinomaly": Preset(
        "dinov2_vitb14_reg",
        output_stride=32,
        student=StudentKind.DECODER,
        stages=(1, 2),
        fusion=FusionMode.SUM,
        recentred=False,
        narrow=None,
    ),
    **{
        f"dual_{name}": Preset(
            teacher,
            output_stride=32,
            student=StudentKind.DUAL,
            stages=(1, 2, 3, TOKEN),
            fused=(1, 2, TOKEN),
            fusion=FusionMode.HAZARD,
        )
        for name, teacher in (
            ("lite2", "efficientnet_lite2"),
            ("dinov2_s", "dinov2_vits14_reg"),
            ("dinov2_b", "dinov2_vitb14_reg"),
        )
    },
}
"""Presets by name; docs/decisions.md gives the reasons."""


def _maps(teacher: FeatureExtractor) -> int:
    """How many feature maps a teacher gives before the token; decoders answer to these."""
    tokens = semantic_stages(teacher.strides)
    return tokens[0] - 1 if tokens else len(teacher.strides)


def _check_given(kind: StudentKind | str, stages: Sequence[int], teacher: FeatureExtractor) -> None:
    """Refuse stages that a student of ours does not give."""
    if kind not in (StudentKind.DECODER, StudentKind.DUAL):
        return
    given = [*range(1, _maps(teacher) + 1)]
    if kind is StudentKind.DUAL:
        given += semantic_stages(teacher.strides)
    if not set(stages) <= set(given):
        raise InputError(
            f"Student {str(kind)!r} gives stages {given} of this teacher, and stages {list(stages)} are "
            "to be distilled: choose out of these, or leave stages out."
        )


def _decoder(choice: Preset, teacher: FeatureExtractor) -> nn.Module:
    """The student that decodes a teacher's feature maps."""
    if isinstance(teacher, DinoFeatures):
        return TokenDecoder(teacher.channels[-1], teacher.heads, narrow=choice.narrow)
    maps = _maps(teacher)
    return DecoderStudent(teacher.channels[:maps], teacher.strides[:maps], se=choice.se)


def _semantic(teacher: FeatureExtractor) -> SemanticStudent:
    """The student of a teacher's token, smaller than the teacher."""
    channels = teacher.channels[semantic_stages(teacher.strides)[0] - 1]
    if not isinstance(teacher, DinoFeatures):
        return SemanticStudent(channels)
    dim = min(384, teacher.channels[0])
    return SemanticStudent(
        channels,
        image_size=16 * teacher.patch,
        dim=dim,
        depth=teacher.depth // 2,
        heads=max(1, dim // 64),
        patch=teacher.patch,
    )


def _student(
    kind: StudentKind | str, choice: Preset, teacher: FeatureExtractor, *, plugged: bool
) -> nn.Module:
    """The student of a teacher, of a kind or a class of the user's own."""
    if kind is StudentKind.DECODER:
        return _decoder(choice, teacher)
    if kind is StudentKind.DUAL:
        return DualStudent(_decoder(choice, teacher), _semantic(teacher))
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


def _stages_of(preset: tuple[int | str, ...], strides: Sequence[int]) -> list[int]:
    """Those of a preset's stages that a teacher has: feature maps by number, the token by name."""
    tokens = semantic_stages(strides)
    maps = [s for s in range(1, len(strides) + 1) if s in preset and s not in tokens]
    return sorted(maps + (tokens if TOKEN in preset else []))


def _expert(kind: ExpertKind, teacher: FeatureExtractor) -> Expert:
    """An expert beside the student. One of places looks at the stages before the token."""
    if EXPERTS[kind].whole_image:
        return EXPERTS[kind](teacher.channels, stages=semantic_stages(teacher.strides))
    return EXPERTS[kind](teacher.channels[: _maps(teacher)])


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
    recentred: bool | None = None,
    align_categories: bool = False,
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
        stages: stages that are distilled, counted from 1, or named by their strides, as ``stride8``, or
            ``token``, that of the whole image, which a teacher is given where student ``dual`` or an
            expert of tokens needs it. Without it the preset's; of a teacher of your own all that the
            student gives.
        fused: those of them whose maps are fused; all without it.
        experts: beside the student; see :class:`ExpertKind`.
        residual: see :class:`Residual`.
        fusion: see :class:`FusionMode`.
        sigma: standard deviation of the map's smoothing in pixels.
        recentred: of a DINOv2 teacher; see :class:`multiad_med.networks.DinoFeatures`.
        align_categories: see :class:`MultiAD`.

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
        "recentred": recentred,
    }
    choice = replace(PRESETS[preset], **{k: v for k, v in given.items() if v is not None})
    kinds = [choose(ExpertKind, kind, what="expert") for kind in choice.experts]
    frozen: Any
    if plugged:
        frozen = plugged_teacher(choice.teacher)
    else:
        frozen = build_extractor(choice.teacher, output_stride=choice.output_stride)
    if isinstance(frozen, DinoFeatures):
        frozen.recentred = choice.recentred
    elif recentred is not None:
        raise InputError("recentred is of a DINOv2 teacher, which has class tokens: leave it out.")
    _load_teacher(frozen, choice.teacher, teacher_weights, plugged=plugged)
    if not semantic_stages(frozen.strides) and (
        align_categories
        or student is StudentKind.DUAL
        or any(EXPERTS[kind].whole_image for kind in kinds)
    ):
        frozen = WithSemanticToken(frozen)
    if stages is not None:
        distilled = stage_numbers(stages, frozen.strides)
    elif plugged and student is StudentKind.DECODER:
        distilled = tuple(range(1, _maps(frozen) + 1))
    elif plugged and student not in (StudentKind.NONE, StudentKind.DUAL):
        distilled = tuple(range(1, len(frozen.strides) + 1))
    else:
        distilled = tuple(_stages_of(choice.stages, frozen.strides))
    shown: Sequence[int] | None = None
    if fused is not None:
        shown = stage_numbers(fused, frozen.strides)
    elif choice.fused is not None:
        shown = _stages_of(choice.fused, frozen.strides)
    _check_given(student, distilled, frozen)
    learner = _student(student, choice, frozen, plugged=plugged)
    network = MultiAD(
        frozen,
        learner,
        experts=[_expert(kind, frozen) for kind in kinds],
        stages=distilled,
        fused=shown,
        residual=choice.residual,
        fusion=choice.fusion,
        sigma=sigma,
        align_categories=align_categories,
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
        **({"align_categories": True} if align_categories else {}),
        **({"recentred": choice.recentred} if isinstance(frozen, DinoFeatures) else {}),
    }
    return network
