"""Ignite handlers of the cumulative metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai.handlers import IgniteMetricHandler, from_engine

from multiad_med.metrics.cumulative import AUPRO, AUROC, AveragePrecision, F1Max

__all__ = ["AUPROHandler", "AUROCHandler", "AveragePrecisionHandler", "F1MaxHandler"]

_PAIR = from_engine(["pred", "label"])


class AUROCHandler(IgniteMetricHandler):
    """Writes :class:`~multiad_med.metrics.AUROC` of each epoch to ``engine.state.metrics``.

    Args:
        streaming: see the metric.
        output_transform: from the engine's output to ``(y_pred, y)``; by default the items ``pred`` and
            ``label`` of MONAI's decollated outputs.
    """

    def __init__(
        self, *, streaming: bool = False, output_transform: Callable[[Any], Any] = _PAIR
    ) -> None:
        metric = AUROC(streaming=streaming)
        super().__init__(metric, output_transform=output_transform, save_details=False)


class AveragePrecisionHandler(IgniteMetricHandler):
    """Writes :class:`~multiad_med.metrics.AveragePrecision`; options: :class:`AUROCHandler`."""

    def __init__(
        self, *, streaming: bool = False, output_transform: Callable[[Any], Any] = _PAIR
    ) -> None:
        metric = AveragePrecision(streaming=streaming)
        super().__init__(metric, output_transform=output_transform, save_details=False)


class F1MaxHandler(IgniteMetricHandler):
    """Writes :class:`~multiad_med.metrics.F1Max`; options: :class:`AUROCHandler`."""

    def __init__(
        self, *, streaming: bool = False, output_transform: Callable[[Any], Any] = _PAIR
    ) -> None:
        metric = F1Max(streaming=streaming)
        super().__init__(metric, output_transform=output_transform, save_details=False)


class AUPROHandler(IgniteMetricHandler):
    """Writes :class:`~multiad_med.metrics.AUPRO`; options: :class:`AUROCHandler`, and

    Args:
        fpr_limit: in (0, 1].
    """

    def __init__(
        self,
        *,
        fpr_limit: float = 0.3,
        streaming: bool = False,
        output_transform: Callable[[Any], Any] = _PAIR,
    ) -> None:
        metric = AUPRO(fpr_limit=fpr_limit, streaming=streaming)
        super().__init__(metric, output_transform=output_transform, save_details=False)
