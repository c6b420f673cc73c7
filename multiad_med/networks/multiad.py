"""The Multi-AD network: a frozen teacher, a student, and the map of where they disagree."""

from collections.abc import Sequence
from enum import StrEnum
from typing import ClassVar, Final, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multiad_med.card import ModelCard
from multiad_med.networks.experts import Expert, WhitenedResidual
from multiad_med.networks.extractor import FeatureExtractor, takes_stages
from multiad_med.networks.folding import fold_batch_norms
from multiad_med.networks.fusion import FusionMode, MultiScaleFusion, cosine_distance_maps
from multiad_med.networks.semantic_token import semantic_stages
from multiad_med.networks.token_levels import TokenLevels
from multiad_med.utils.choose import choose
from multiad_med.utils.errors import InputError

__all__ = ["MultiAD", "Residual", "source_weights"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Residual(StrEnum):
    """How teacher and student are compared at a stage."""

    COSINE = "cosine"
    """Cosine distance (Eq. 13)."""
    WHITENED = "whitened"
    """See :class:`multiad_med.networks.experts.WhitenedResidual`."""


def source_weights(
    stages: Sequence[int],
    fused: Sequence[int],
    experts: int,
    *,
    mode: FusionMode | str,
    whole: Sequence[int] = (),
) -> list[float]:
    """Tell how much each map counts: the distilled stages', then the experts'.

    Hazards of the student's feature maps are averaged, so that the student counts as much as an expert;
    scores and distances are summed (Eq. 14). ``whole`` are the stages of the whole image; each counts 1.
    """
    maps = [stage for stage in fused if stage not in whole]
    share = 1 / len(maps) if maps and mode == FusionMode.HAZARD else 1.0
    weights = [1.0 if stage in whole else share for stage in stages]
    return [w if s in fused else 0.0 for w, s in zip(weights, stages, strict=True)] + [
        1.0
    ] * experts


class MultiAD(nn.Module):
    """Multi-AD: image in, calibrated anomaly map out.

    The map is ``m / (m + t)``, where m is the fused and smoothed map (Eq. 14 and 15) and t the
    pixel threshold found on held-out normal images: values lie in [0, 1), and 0.5 is the threshold
    itself. The order of pixels is that of m. Where a student or an expert looks at a token of the whole
    image (:mod:`multiad_med.networks.semantic_token`), there is a second channel: the same for what is
    fused of tokens, one value for all places of an image. The map leaves it out; the image's score counts
    it (:func:`multiad_med.scoring.image_scores`). Fused are the distances of teacher and student at each
    stage, and those of experts, which look at the same features of the teacher. Everything needed
    (teacher, student, experts, ImageNet mean and standard deviation, fusion statistics, thresholds, and
    the model's card) is in the state dict. Distances, fusion and smoothing are float32 whatever
    precision the features have.

    Only what is read is computed: of the teacher the stages that are distilled, or that the student or an
    expert looks at; of the student, for a map, the stages that are fused. The teacher's batch norms are
    folded into its convolutions (:func:`fold_batch_norms`).

    Args:
        teacher: a :class:`FeatureExtractor`; frozen, and always in evaluation mode.
        student: a module called with ``(image, teacher_features)``.
        experts: that stand beside it.
        stages: stages that are distilled, counted from 1; none without a student.
        fused: those of them whose maps are fused; all without it. A stage that is distilled and not
            fused still shapes the student. A state dict brings its own.
        residual: see :class:`Residual`.
        fusion: see :class:`FusionMode`.
        sigma: standard deviation of the map's Gaussian smoothing in pixels; the paper names none.
        align_categories: whether m is measured by its level on similar held-out normal images; the
            teacher needs a token of the whole image. See :class:`TokenLevels`.

    Raises:
        InputError: when a stage does not exist, one to fuse is not distilled, nothing is fused, or
            categories are to be aligned by a teacher without a token.
    """

    __jit_unused_properties__: ClassVar[list[str]] = ["fused"]
    __jit_ignored_attributes__: ClassVar[list[str]] = ["card"]

    teacher_chooses: Final[bool]
    student_chooses: Final[bool]
    stages: list[int]
    student_reads: list[int]
    expert_reads: list[int]
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
        experts: Sequence[Expert] = (),
        stages: Sequence[int] = (1, 2, 3, 4),
        fused: Sequence[int] | None = None,
        residual: Residual | str = Residual.COSINE,
        fusion: FusionMode | str = FusionMode.ZSCORE,
        sigma: float = 4.0,
        align_categories: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(teacher, FeatureExtractor):
            raise InputError(
                f"The teacher must have `channels` and `strides`, as FeatureExtractor says; "
                f"{type(teacher).__name__} has not."
            )
        count = len(teacher.channels)
        if sorted(set(stages)) != list(stages) or not set(stages) <= set(range(1, count + 1)):
            raise InputError(
                f"stages must be increasing numbers from 1 to {count}, got {tuple(stages)}."
            )
        fused = stages if fused is None else fused
        if sorted(set(fused)) != list(fused) or not set(fused) <= set(stages):
            raise InputError(
                f"fused must be increasing numbers out of the distilled stages {tuple(stages)}, got "
                f"{tuple(fused)}."
            )
        if not fused and not experts:
            raise InputError("Nothing is fused: give stages of a student to fuse, or experts.")
        self.stages = list(stages)
        self.channels: tuple[int, ...] = tuple(teacher.channels[s - 1] for s in stages)
        self.strides: tuple[int, ...] = tuple(teacher.strides[s - 1] for s in stages)
        self.teacher = teacher.requires_grad_(False).eval()
        fold_batch_norms(self.teacher)
        self.student = student
        self.experts = nn.ModuleList(experts)
        self.teacher_chooses = takes_stages(teacher)
        self.student_chooses = takes_stages(student)
        every = list(range(1, count + 1))
        self.student_reads = getattr(student, "reads", every)
        tokens = semantic_stages(teacher.strides)
        of_image = [s in tokens for s in stages] + [expert.whole_image for expert in experts]
        shown = [s in fused and s not in tokens for s in stages]
        if not any(shown) and not any(not expert.whole_image for expert in experts):
            raise InputError(
                "No map is fused, only tokens of the whole image: fuse a stage with feature maps, or add "
                "an expert of places."
            )
        self.has_tokens: bool = any(of_image)
        if align_categories and not tokens:
            raise InputError(
                "align_categories needs a teacher with a token of the whole image (stride 0); "
                f"{type(teacher).__name__} has strides {tuple(teacher.strides)}."
            )
        self.alignment = nn.ModuleList(
            [TokenLevels(tokens[-1], teacher.channels[tokens[-1] - 1])] if align_categories else []
        )
        of_experts = {s for expert in experts for s in expert.stages}
        self.expert_reads = sorted(of_experts | {*(tokens[-1:] if align_categories else [])})
        self.patch: int = getattr(teacher, "patch", 1)
        whitened = choose(Residual, residual, what="residual") is Residual.WHITENED
        if whitened and any(s in tokens for s in stages):
            raise InputError(
                "residual 'whitened' compares feature maps; where a token of the whole image is "
                "distilled, choose 'cosine'."
            )
        self.whitening = nn.ModuleList(
            WhitenedResidual(channels) for channels in (self.channels if whitened else ())
        )
        self.fusion = MultiScaleFusion(
            source_weights(stages, fused, len(experts), mode=fusion, whole=tokens),
            tokens=[number for number, whole in enumerate(of_image) if whole],
            mode=fusion,
            sigma=sigma,
        )
        # 1.5 times as fast on a CPU, and what AMP on a GPU asks for.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        # What calibration sets (multiad_med.training.calibrate); scalars, so that they are saved.
        self.register_buffer("calibrated", torch.tensor(False))
        self.register_buffer("pixel_threshold", torch.tensor(1.0))
        self.register_buffer("pixel_false_positive_rate", torch.tensor(float("nan")))
        self.register_buffer("score_fraction", torch.tensor(0.0))
        self.card = ModelCard()

    def get_extra_state(self) -> Tensor:
        """Return the card, for the state dict."""
        return self.card.as_tensor()

    def set_extra_state(self, state: Tensor) -> None:
        """Take the card of a state dict."""
        self.card = ModelCard.from_tensor(state)

    @property
    def fused(self) -> list[int]:
        """Stages whose maps are fused."""
        return self._fused_stages()

    def train(self, mode: bool = True) -> Self:
        """Set training mode of the student; the teacher and the fusion stay in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.jit.export
    def features(
        self, x: Tensor, teacher: list[Tensor] | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Teacher and student features of the distilled stages.

        Args:
            x: images ``(B, 3, H, W)`` in [0, 1]; a grey image ``(B, 1, H, W)`` stands for three
                equal channels.
            teacher: what :meth:`teacher_features` gave of them before; without it the teacher runs.

        Returns:
            Two lists of ``(B, channels[i], H / strides[i], W / strides[i])``; the teacher's
            without gradients.
        """
        x = self._normalised(x)
        if teacher is None:
            teacher = self._of_teacher(x, self.stages + self.student_reads)
        student = self._of_student(x, teacher, self.stages)
        return [teacher[s - 1] for s in self.stages], [student[s - 1] for s in self.stages]

    @torch.jit.unused
    def on_whole_patches(self, mask: Tensor) -> Tensor:
        """Continue a mask ``(B, 1, H, W)`` to the whole patches that the feature maps cover."""
        rows, columns = (-side % self.patch for side in mask.shape[2:])
        if not rows and not columns:
            return mask
        return F.pad(mask.float(), [0, columns, 0, rows], mode="replicate")

    @torch.jit.unused
    def teacher_features(self, x: Tensor) -> list[Tensor]:
        """Return the teacher's features up to the deepest stage that training reads: :meth:`features`."""
        read = self.stages + self.student_reads
        return self._of_teacher(self._normalised(x), read)[: max(read, default=0)]

    def _normalised(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] not in (1, 3):
            raise ValueError(f"Expected images (B, 1 or 3, H, W), got shape {x.shape}.")
        return ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def _of_teacher(self, x: Tensor, stages: list[int]) -> list[Tensor]:
        features: list[Tensor] = []
        if len(stages) > 0:
            with torch.no_grad():
                features = self.teacher(x, stages) if self.teacher_chooses else self.teacher(x)
        return features

    def _of_student(self, x: Tensor, teacher: list[Tensor], stages: list[int]) -> list[Tensor]:
        features: list[Tensor] = []
        if len(stages) > 0:
            if self.student_chooses:
                features = self.student(x, teacher, stages)
            else:
                features = self.student(x, teacher)
        return features

    def _all_features(self, x: Tensor, stages: list[int]) -> tuple[list[Tensor], list[Tensor]]:
        """Features of teacher and student for the distances of some stages and of all experts."""
        x = self._normalised(x)
        teacher = self._of_teacher(x, stages + self.student_reads + self.expert_reads)
        return teacher, self._of_student(x, teacher, stages)

    @torch.jit.unused
    def observed(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What experts are fitted to: features of the teacher; teacher minus student, if whitened."""
        stages = self.stages if len(self.whitening) else []
        teacher, student = self._all_features(x, stages)
        return teacher, [teacher[s - 1] - student[s - 1] for s in stages]

    def _fused_stages(self) -> list[int]:
        stages: list[int] = []
        for i, stage in enumerate(self.stages):
            if self.fusion.used[i]:
                stages.append(stage)
        return stages

    @torch.jit.export
    def distances(self, x: Tensor) -> list[Tensor]:
        """Return distances from normal of each distilled stage, then of each expert, in float32.

        Args:
            x: see :meth:`features`.

        Returns:
            Maps ``(B, 1, h_i, w_i)``, 0 and more, before they are brought to one scale.
        """
        teacher, student = self._all_features(x, self.stages)
        return self.distances_of_features(teacher, student, self.stages)

    @torch.jit.export
    def distances_of_features(
        self, teacher: list[Tensor], student: list[Tensor], stages: list[int] | None = None
    ) -> list[Tensor]:
        """Tell what :meth:`distances` gives, of the features of teacher and student.

        Args:
            teacher: of all stages that are read.
            student: of the distilled stages.
            stages: that are compared; the others' maps are empty. Without it all that are distilled.
        """
        teacher = [f.float() for f in teacher]
        student = [f.float() for f in student]
        compared = self.stages if stages is None else stages
        if not torch.jit.is_scripting():  # which has no autocast of its own
            with torch.autocast(teacher[0].device.type, enabled=False):
                return self._distances(teacher, student, compared)
        return self._distances(teacher, student, compared)

    def _distances(
        self, teacher: list[Tensor], student: list[Tensor], compared: list[int]
    ) -> list[Tensor]:
        maps = [teacher[0].new_zeros(0) for _ in self.stages]
        for i, s in enumerate(self.stages):
            if s in compared and len(self.whitening) == 0:
                maps[i] = cosine_distance_maps([teacher[s - 1]], [student[s - 1]])[0]
        for i, whitening in enumerate(self.whitening):
            s = self.stages[i]
            if s in compared:
                maps[i] = whitening([teacher[s - 1] - student[s - 1]])
        for expert in self.experts:
            maps.append(expert(teacher))
        return maps

    @torch.jit.export
    def raw_map(self, x: Tensor) -> Tensor:
        """Return the fused, smoothed map m before thresholds enter, 0 and more.

        Args:
            x: see :meth:`features`.

        Returns:
            ``(B, 1, H, W)``; with tokens of the whole image ``(B, 2, H, W)``, theirs second.
        """
        fused = self._fused_stages()
        teacher, student = self._all_features(x, fused)
        maps = self.distances_of_features(teacher, student, fused)
        size = [x.shape[2], x.shape[3]]
        if not torch.jit.is_scripting():
            with torch.autocast(maps[0].device.type, enabled=False):
                return self._aligned(self.fused_map(maps, size), teacher)
        return self._aligned(self.fused_map(maps, size), teacher)

    def _aligned(self, m: Tensor, teacher: list[Tensor]) -> Tensor:
        for levels in self.alignment:
            m = m * levels(teacher)
        return m

    @torch.jit.export
    def fused_map(self, maps: list[Tensor], size: list[int]) -> Tensor:
        """Fuse what :meth:`distances` gave of images of a size; see :meth:`raw_map`."""
        # A vision transformer's grid covers whole patches, beyond the image where these do not divide it.
        whole = [-(-size[0] // self.patch) * self.patch, -(-size[1] // self.patch) * self.patch]
        m = self.fusion(maps, whole)
        if whole != size:
            m = m[:, :, : size[0], : size[1]]
        if self.has_tokens:
            m = torch.cat([m, self.fusion.whole_image(maps).expand_as(m)], dim=1)
        return m

    def forward(self, x: Tensor) -> Tensor:
        """Return calibrated maps of images ``(B, 3, H, W)`` in [0, 1].

        Returns:
            ``(B, 1, H, W)`` in [0, 1); with tokens of the whole image ``(B, 2, H, W)``, theirs second.
        """
        m = self.raw_map(x)
        return m / (m + self.pixel_threshold)
