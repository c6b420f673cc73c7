"""Whole studies for inference, of which a bad one never stops the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch.utils.data import IterableDataset

from multiad_med.data.errors import StudyError, study_errors

__all__ = ["StudyDataset"]

_logger = logging.getLogger(__name__)


class StudyDataset(IterableDataset):
    """Studies one by one; those that cannot be read are logged, counted and passed over.

    Read it in the main process (``num_workers=0``), where :attr:`failures` is filled. It has no
    length, because ignite would start anew on studies that fall short of one.

    Args:
        data: items of a datalist.
        transform: applied to each item.

    Attributes:
        failures: messages of the studies that failed, in order.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    ) -> None:
        self.data = data
        self.transform = transform
        self.failures: list[str] = []

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Transformed items."""
        self.failures = []
        for item in self.data:
            try:
                with study_errors(item):
                    study = self.transform(item)
            except StudyError as error:
                _logger.error("skipped: %s", error)
                self.failures.append(str(error))
                continue
            yield study
