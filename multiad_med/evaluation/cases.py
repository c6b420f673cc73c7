"""A scored study, from which every metric is computed."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from multiad_med.utils.errors import InputError

__all__ = ["Case"]


@dataclass
class Case:
    """The scored slices of one study: of a volume its axial slices, of an image itself.

    Attributes:
        study, subject: names; a subject (patient) may have several studies.
        image: ``(N, X, Y)`` in [0, 1], one grey channel.
        anomaly_map: ``(N, X, Y)`` float, the larger the more anomalous, calibrated so that
            ``threshold`` of :func:`evaluate_cases` separates.
        label: ``(N, X, Y)`` bool, true inside lesions.
        foreground: ``(N, X, Y)`` bool.
        numbers: ``(N,)`` number of each slice in its volume, ascending.
        scores: ``(N,)`` score of each slice.
        abnormal: ``(N,)`` bool, whether the slice is abnormal; a slice without mask can be.
        spacing: voxel size along X, Y and from slice to slice in mm; None for images.
        category, kind: the product and the defect, where there are any.
        whole_scores: ``(N,)`` part of each score that is of the whole slice; None where the detector
            looks at places only.
        upright: whether axes are rows and columns of an image; else RAS (right, front).

    Raises:
        InputError: when shapes differ, there is no slice, or a map or score is not finite.
    """

    study: str
    subject: str
    image: Tensor
    anomaly_map: Tensor
    label: Tensor
    foreground: Tensor
    numbers: Tensor
    scores: Tensor
    abnormal: Tensor
    spacing: tuple[float, float, float] | None = None
    category: str = ""
    kind: str = ""
    upright: bool = False
    whole_scores: Tensor | None = None
    masked: Tensor = field(init=False)
    """``(N,)`` bool, whether the pixels' truth is known: normal, or abnormal with a mask."""

    def __post_init__(self) -> None:
        shape = tuple(self.anomaly_map.shape)
        if len(shape) != 3 or 0 in shape:
            raise InputError(
                f"{self.study}: expected maps (N, X, Y) of at least one slice, got {shape}."
            )
        for name in ("image", "label", "foreground"):
            own = tuple(getattr(self, name).shape)
            if own != shape:
                raise InputError(f"{self.study}: {name} has shape {own}, its maps {shape}.")
        for name in ("numbers", "scores", "abnormal"):
            if tuple(getattr(self, name).shape) != shape[:1]:
                raise InputError(
                    f"{self.study}: {name} has shape {tuple(getattr(self, name).shape)}, expected "
                    f"{shape[:1]}, one per slice."
                )
        for name in ("anomaly_map", "scores"):
            bad = int((~torch.isfinite(getattr(self, name))).sum())
            if bad:
                raise InputError(
                    f"{self.study}: {bad} values of {name} are NaN or infinite; a detector must give "
                    "a finite map and score for every slice."
                )
        self.label, self.foreground = self.label > 0, self.foreground > 0
        self.abnormal = self.abnormal > 0
        self.masked = ~self.abnormal | self.label.flatten(1).any(dim=1)

    @property
    def score(self) -> float:
        """Score of the study: its highest slice score."""
        return float(self.scores.max())

    @property
    def anomalous(self) -> bool:
        """Whether any slice is abnormal."""
        return bool(self.abnormal.any())

    @property
    def is_image(self) -> bool:
        """Whether it is a single image without a unit of length, not slices of a volume."""
        return len(self.numbers) == 1 and self.spacing is None

    @property
    def has_gaps(self) -> bool:
        """Whether slices between the first and the last are missing, which splits lesions in 3D."""
        return bool((self.numbers.diff() != 1).any())

    def volume(self, name: str) -> Tensor:
        """Return an attribute's slices at their places in the volume ``(X, Y, Z)``, 0 in gaps.

        Without gaps the result is a view.
        """
        slices: Tensor = getattr(self, name)
        if not self.has_gaps:
            return slices.permute(1, 2, 0)
        first = int(self.numbers[0])
        result = slices.new_zeros((int(self.numbers[-1]) - first + 1, *slices.shape[1:]))
        result[self.numbers - first] = slices
        return result.permute(1, 2, 0)
