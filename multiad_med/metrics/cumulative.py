"""Metrics of anomaly detection as MONAI's cumulative metrics, exact or streaming, over all ranks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import ignite.distributed as idist
import torch
from monai.metrics import CumulativeIterationMetric
from monai.utils import evenly_divisible_all_gather
from torch import Tensor

from multiad_med.metrics.aupro import aupro, check_fpr_limit
from multiad_med.metrics.counting import as_anomalous, as_scores
from multiad_med.metrics.ranking import Ranking
from multiad_med.metrics.streaming import StreamingAupro, StreamingRanking
from multiad_med.utils.errors import InputError

__all__ = ["AUPRO", "AUROC", "AveragePrecision", "F1Max"]

Batch = Tensor | Sequence[Tensor]


def _gathered(tensor: Tensor) -> Tensor:
    return evenly_divisible_all_gather(tensor, concat=True)


class _PooledMetric(CumulativeIterationMetric):
    """One figure of all items of all batches and ranks."""

    figure: str

    def __init__(self, *, streaming: bool) -> None:
        self.streaming = streaming
        super().__init__()

    def reset(self) -> None:
        """Forget all that was seen."""
        super().reset()
        self._stream = self._new_stream() if self.streaming else None

    def extend(self, *data: Any) -> None:
        """Add ``y_pred`` and ``y``, batch-first tensors or lists of items."""
        parts = [
            (torch.from_numpy(as_scores(p)).reshape(p.shape), as_anomalous(y).reshape(p.shape))
            for p, y in zip(*map(self._parts, data), strict=True)
        ]
        for scores, labels in parts:
            if self._stream is None:
                self.append(scores, labels)
            else:
                self._stream.update(scores, labels)

    def aggregate(self) -> float:
        """The figure of all that was seen on all ranks; NaN when a class is missing.

        Every rank must call it, also one that has seen nothing.

        Raises:
            InputError: when no rank has seen any prediction.
        """
        if self._stream is not None:
            return float(getattr(self._stream.over_ranks(), self.figure))
        self._sync()
        if self._synced_tensors is None:
            raise InputError(
                f"{type(self).__name__} has seen no predictions; call it with y_pred and y before "
                "aggregate(). Is the data set empty, or was reset() called in between?"
            )
        scores, labels, sizes = (t for t in self._synced_tensors if t is not None)
        return self._of_all(scores, labels != 0, sizes)

    def _sync(self) -> None:
        # Not the base's, which stacks items, so that they must be of one size, and which a rank
        # without data skips, so that the others would wait for it.
        if self._synced:
            return
        scores, labels = self._buffers or ([], [])
        double = any(s.dtype == torch.float64 for s in scores)
        double = bool(idist.all_reduce(torch.tensor([double], dtype=torch.uint8), "MAX"))
        sizes = [[s.numel() // s.shape[-1], s.shape[-1]] for s in scores]
        all_sizes = _gathered(torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2))
        if not len(all_sizes):
            return
        none = torch.empty(0)
        flat = torch.cat([none, *(s.flatten() for s in scores)])
        flat = flat.double() if double else flat.float()
        anomalous = torch.cat([none.byte(), *(y.flatten().byte() for y in labels)])
        self._synced_tensors = [_gathered(flat), _gathered(anomalous), all_sizes]
        self._synced = True

    def _compute_tensor(
        self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if y is None:
            raise InputError(f"{type(self).__name__} needs y, the labels or masks; got None.")
        if y_pred.shape != y.shape:
            raise InputError(
                f"y_pred {tuple(y_pred.shape)} and y {tuple(y.shape)} differ in shape; resize the "
                "mask (nearest) or the map."
            )
        if y_pred.numel() == 0:
            raise InputError(f"y_pred {tuple(y_pred.shape)} is empty; there is nothing to judge.")
        if y_pred.ndim > 1 and y_pred.shape[1] != 1:
            raise InputError(
                f"y_pred must have 1 channel, got {y_pred.shape[1]} in {tuple(y_pred.shape)}; give "
                "the anomaly map alone, such as y_pred[:, 1:] of a two-class output."
            )
        return y_pred, y

    def _compute_list(
        self, y_pred: Batch, y: Batch | None = None, **kwargs: Any
    ) -> list[Tensor | Sequence[Tensor]]:
        if y is None or len(y_pred) != len(y) or not len(y_pred):
            raise InputError(
                f"Got {len(y_pred)} items in y_pred and {0 if y is None else len(y)} in y; give one "
                "label or mask per prediction, and at least one."
            )
        pairs = [
            self._compute_tensor(p.detach()[None], t.detach()[None])
            for p, t in zip(y_pred, y, strict=True)
        ]
        return [[p[0] for p, _ in pairs], [t[0] for _, t in pairs]]

    @abstractmethod
    def _new_stream(self) -> StreamingRanking | StreamingAupro: ...

    @abstractmethod
    def _parts(self, items: Batch) -> Sequence[Tensor]:
        """What is kept, or fed to the stream, piece by piece."""

    @abstractmethod
    def _of_all(self, scores: Tensor, labels: Tensor, sizes: Tensor) -> float:
        """The exact figure of all pieces, flat and joined; their heights and widths ``(N, 2)``."""


class AUROC(_PooledMetric):
    """Area under the ROC curve of all scores pooled: one per image, or those of all pixels.

    Called with ``y_pred`` and ``y`` of the same shape, ``(B,)``, ``(B, 1)`` or ``(B, 1, H, W)``, or with
    lists of such items, which may differ in size. The larger a score the more anomalous; ``y`` is
    anomalous where not 0. A shape or value that does not fit raises ValueError.

    Args:
        streaming: in fixed memory, within 1e-4 of the exact value unless a warning says otherwise;
            see :class:`~multiad_med.metrics.StreamingRanking`. Else all scores are kept, on the CPU,
            until :meth:`reset`, and ranks exchange them.
    """

    figure = "auroc"

    def __init__(self, *, streaming: bool = False) -> None:
        super().__init__(streaming=streaming)

    def _new_stream(self) -> StreamingRanking:
        return StreamingRanking()

    def _parts(self, items: Batch) -> Sequence[Tensor]:
        if isinstance(items, Tensor):
            return [items.flatten()]
        return [torch.cat([item.flatten() for item in items])]

    def _of_all(self, scores: Tensor, labels: Tensor, sizes: Tensor) -> float:
        return float(getattr(Ranking(scores, labels), self.figure))


class AveragePrecision(AUROC):
    """Average precision of all scores pooled; inputs and option are those of :class:`AUROC`."""

    figure = "average_precision"


class F1Max(AUROC):
    """Largest F1 over all thresholds, an upper bound, as the threshold is chosen on the judged data.

    Of all scores pooled; inputs and option are those of :class:`AUROC`.
    """

    figure = "f1_max"


class AUPRO(_PooledMetric):
    """Area under the per-region-overlap curve of all images; see :func:`~multiad_med.metrics.aupro`.

    Called with anomaly maps ``y_pred`` and masks ``y``, ``(B, 1, H, W)`` both, or with lists of
    ``(1, H, W)``, which may differ in size. Regions are those of one image. A shape or value that does
    not fit raises ValueError.

    Args:
        fpr_limit: in (0, 1].
        streaming: in fixed memory, within 1e-4 of the exact value unless a warning says otherwise;
            see :class:`~multiad_med.metrics.StreamingAupro`. Else all maps are kept, on the CPU,
            until :meth:`reset`, and ranks exchange them.

    Raises:
        InputError: when the limit is not in (0, 1].
    """

    figure = "aupro"

    def __init__(self, *, fpr_limit: float = 0.3, streaming: bool = False) -> None:
        check_fpr_limit(fpr_limit)
        self.fpr_limit = fpr_limit
        super().__init__(streaming=streaming)

    def _new_stream(self) -> StreamingAupro:
        return StreamingAupro(fpr_limit=self.fpr_limit)

    def _parts(self, items: Batch) -> Sequence[Tensor]:
        for item in items:
            if item.ndim != 3:
                raise InputError(
                    f"AUPRO needs maps (B, 1, H, W), or a list of (1, H, W); got an item "
                    f"{tuple(item.shape)}. Of scores per image there is no AUPRO."
                )
        return list(items)

    def _of_all(self, scores: Tensor, labels: Tensor, sizes: Tensor) -> float:
        areas = sizes.prod(1).tolist()
        maps, masks = (
            [part.reshape(*size) for part, size in zip(t.split(areas), sizes.tolist(), strict=True)]
            for t in (scores, labels)
        )
        return aupro(maps, masks, fpr_limit=self.fpr_limit)
