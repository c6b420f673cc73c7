"""What every expert of normal features is, and how it is fitted."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from multiad_med.utils.errors import InputError

__all__ = ["Expert", "Statistics", "check_finite", "orthonormal", "usual_stages"]


def orthonormal(rows: int, columns: int, *, seed: int) -> Tensor:
    """Draw a matrix ``(rows, columns)`` with orthonormal columns; the identity where it is square."""
    if rows == columns:
        return torch.eye(rows)
    random = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(rows, columns, generator=random)).Q


def usual_stages(channels: Sequence[int], usual: Sequence[int]) -> list[int]:
    """Return those of the usual stages that a teacher has; its last where it has none of them."""
    return [stage for stage in usual if stage <= len(channels)] or [len(channels)]


def check_finite(features: Tensor) -> Tensor:
    """Refuse features that would spoil every statistic.

    Raises:
        InputError: when one is infinite or no number.
    """
    if not features.isfinite().all():
        raise InputError(
            "The teacher's features of a training image are infinite or no numbers. Check the images "
            "for NaN and for values far outside [0, 1]."
        )
    return features


class Statistics(ABC):
    """What is collected of normal features in one pass, in memory that does not grow with their number.

    Those of several processes or sites are united by :meth:`merge`.
    """

    @abstractmethod
    def update(self, features: list[Tensor], foreground: Tensor | None = None) -> None:
        """Take in a batch of normal images.

        Args:
            features: of all stages of the teacher, ``(B, C_i, h_i, w_i)``.
            foreground: ``(B, 1, H, W)``, true inside; None is everywhere.

        Raises:
            InputError: when a feature is not finite.
        """

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return all of it, to be saved or sent."""

    @abstractmethod
    def merge(self, state: Mapping[str, Tensor]) -> Self:
        """Take in what another has collected, as its :meth:`state` tells."""


class Expert(nn.Module, ABC):
    """Says how far features of a frozen teacher are from normal ones, by statistics of these.

    What is fitted is buffers: it is saved, exported and moved with the network.

    Attributes:
        whole_image: whether its distance is one of the whole image, ``(B, 1, 1, 1)``.
        stages: of the teacher that it looks at, counted from 1.
    """

    whole_image: bool = False
    stages: list[int]
    fitted: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("fitted", torch.tensor(False))

    @abstractmethod
    def statistics(self, *, part: int = 0) -> Statistics:
        """Make an empty collection of what :meth:`fit` needs.

        Args:
            part: number of the process or site that collects; of all that are united another.
        """

    @abstractmethod
    def fit(self, statistics: Statistics) -> None:
        """Take what is normal from what was collected.

        Raises:
            InputError: when that does not suffice.
        """

    @abstractmethod
    def forward(self, features: list[Tensor]) -> Tensor:
        """Distances ``(B, 1, h, w)``, 0 and more, of all stages' features ``(B, C_i, h_i, w_i)``."""
