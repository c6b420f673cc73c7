"""A uniform sample of rows out of a stream of any length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

__all__ = ["Reservoir"]


class Reservoir:
    """Keeps a uniform sample of at most ``size`` rows of all that pass by.

    Every row draws a random key, and those of the largest keys stay. So samples can be united: the
    largest keys of all are a uniform sample of all.

    Args:
        size: number of rows that are kept.
        columns: of a row.
        seed: of the keys.
    """

    def __init__(self, size: int, *, columns: int, seed: int = 0) -> None:
        self.size = size
        self._random = torch.Generator().manual_seed(seed)
        self._keys = torch.empty(0, dtype=torch.float64)
        self._rows = torch.empty(0, columns)

    def update(self, rows: Tensor) -> None:
        """Let rows ``(N, columns)`` pass by."""
        keys = torch.rand(len(rows), generator=self._random, dtype=torch.float64)
        if len(self._keys) > 2 * self.size:
            self._drop()
        if len(self._keys) >= self.size:  # most of a long stream is dropped without a copy
            likely = keys > self._keys.min()
            keys, rows = keys[likely], rows[likely.to(rows.device)]
        self._keys = torch.cat([self._keys, keys])
        self._rows = torch.cat([self._rows, rows.detach().float().cpu()])

    def _drop(self) -> None:
        if len(self._keys) > self.size:
            kept = self._keys.topk(self.size).indices
            self._keys, self._rows = self._keys[kept], self._rows[kept]

    def rows(self) -> Tensor:
        """Return the sample ``(N, columns)``, in an order that depends on the keys alone."""
        self._drop()
        return self._rows[self._keys.argsort(descending=True)]

    def state(self) -> dict[str, Tensor]:
        """Return rows and keys, to be united with others'."""
        self._drop()
        return {"keys": self._keys, "rows": self._rows}

    def merge(self, state: Mapping[str, Tensor]) -> Self:
        """Unite it with the :meth:`state` of another, whose seed must be another."""
        self._keys = torch.cat([self._keys, state["keys"].cpu()])
        self._rows = torch.cat([self._rows, state["rows"].cpu()])
        self._drop()
        return self
