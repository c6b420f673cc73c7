"""Cumulative metrics and their handlers, alone and over two processes, against the functions."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator

from multiad_med.metrics import (
    AUPRO,
    AUROC,
    AUPROHandler,
    AUROCHandler,
    AveragePrecision,
    AveragePrecisionHandler,
    F1Max,
    F1MaxHandler,
    Ranking,
    aupro,
)

POOLED = {AUROC: "auroc", AveragePrecision: "average_precision", F1Max: "f1_max"}
HANDLERS = [AUROCHandler, AveragePrecisionHandler, F1MaxHandler, AUPROHandler]
KINDS = [*POOLED, AUPRO]


def _images(sizes: list[tuple[int, int]], seed: int = 0) -> tuple[list[Any], list[Any]]:
    """Maps and masks ``(1, H, W)``, every second with a lesion."""
    generator = torch.Generator().manual_seed(seed)
    masks = [torch.zeros(1, *size) for size in sizes]
    for mask in masks[::2]:
        mask[:, 2:6, 1:4] = mask[:, -3:, -2:] = 1
    maps = [torch.randn(m.shape, generator=generator) + 0.7 * m for m in masks]
    return maps, masks


def _expected(kind: type, maps: list[Any], masks: list[Any]) -> float:
    if kind is AUPRO:
        return aupro([m[0] for m in maps], [m[0] for m in masks])
    ranking = Ranking(
        torch.cat([m.flatten() for m in maps]), torch.cat([m.flatten() for m in masks])
    )
    return float(getattr(ranking, POOLED[kind]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("streaming", [False, True])
def test_batches_equal_the_whole(kind: type, streaming: bool) -> None:
    maps, masks = _images([(9, 12)] * 5)
    metric = kind(streaming=streaming)
    metric(torch.stack(maps[:2]), torch.stack(masks[:2]))
    metric(MetaTensor(torch.stack(maps[2:])), MetaTensor(torch.stack(masks[2:])).bool())
    assert metric.aggregate() == pytest.approx(_expected(kind, maps, masks), abs=1e-12)
    metric(torch.stack(maps[:1]), 1 - torch.stack(masks[:1]))
    assert metric.aggregate() == pytest.approx(
        _expected(kind, [*maps, maps[0]], [*masks, 1 - masks[0]]), abs=1e-12
    )
    metric.reset()
    metric(torch.stack(maps[:1]), torch.stack(masks[:1]))
    assert metric.aggregate() == pytest.approx(_expected(kind, maps[:1], masks[:1]), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("streaming", [False, True])
def test_lists_of_images_of_different_sizes(kind: type, streaming: bool) -> None:
    maps, masks = _images([(9, 12), (8, 8), (20, 7)])
    metric = kind(streaming=streaming)
    metric(maps, masks)
    assert metric.aggregate() == pytest.approx(_expected(kind, maps, masks), abs=1e-12)


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
@pytest.mark.parametrize("kind", POOLED)
@pytest.mark.parametrize("streaming", [False, True])
def test_scores_of_images(shape: tuple[int, ...], kind: type, streaming: bool) -> None:
    scores = torch.tensor([0.1, 0.9, 0.4, 0.4, 0.8, 0.2], dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    metric = kind(streaming=streaming)
    metric(scores.float().double().reshape(shape), labels.reshape(shape))
    metric(torch.tensor([0.5]), torch.tensor([0]))
    metric([torch.tensor(0.3)], [torch.tensor(1)])
    ranking = Ranking(
        torch.cat([scores, torch.tensor([0.5, 0.3])]), torch.cat([labels, torch.tensor([0, 1])])
    )
    assert metric.aggregate() == pytest.approx(getattr(ranking, POOLED[kind]), abs=1e-12)


def test_exact_double_scores_are_not_rounded() -> None:
    metric = AUROC()
    metric(torch.tensor([1.0, 1.0 + 1e-12], dtype=torch.float64), torch.tensor([0, 1]))
    assert metric.aggregate() == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("streaming", [False, True])
def test_one_class_is_nan(kind: type, streaming: bool) -> None:
    metric = kind(streaming=streaming)
    metric(torch.rand(2, 1, 4, 4), torch.zeros(2, 1, 4, 4))
    assert math.isnan(metric.aggregate())


@pytest.mark.parametrize("streaming", [False, True])
def test_nothing_seen_is_refused(streaming: bool) -> None:
    for kind in KINDS:
        with pytest.raises(ValueError, match=r"no predictions|There are no"):
            kind(streaming=streaming).aggregate()


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("kind", "y_pred", "y", "message"),
    [
        (AUROC, torch.rand(2, 1, 4, 4), None, "needs y"),
        (AUROC, torch.rand(2, 1, 4, 4), torch.ones(2, 1, 4, 5), "differ in shape"),
        (AUROC, torch.rand(0, 1, 4, 4), torch.ones(0, 1, 4, 4), "is empty"),
        (AUROC, torch.rand(2, 2), torch.ones(2, 2), "must have 1 channel, got 2"),
        (AUROC, [torch.rand(1, 4, 4)], [], "Got 1 items in y_pred and 0 in y"),
        (AUROC, [torch.rand(1, 4)], [torch.rand(4)], "differ in shape"),
        (AUPRO, torch.full((1, 1, 4, 4), math.nan), torch.ones(1, 1, 4, 4), "16 scores are NaN"),
        (AUPRO, torch.rand(1, 1, 2, 2), torch.ones(1, 1, 2, 2) * math.nan, "4 labels are NaN"),
        (AUPRO, torch.rand(4), torch.ones(4), r"needs maps \(B, 1, H, W\)"),
        (AUPRO, torch.rand(1, 1, 4, 4, 4), torch.ones(1, 1, 4, 4, 4), r"needs maps \(B, 1, H, W\)"),
    ],
)
def test_wrong_input_is_refused(kind, y_pred, y, message: str, streaming: bool) -> None:
    with pytest.raises(ValueError, match=message):
        kind(streaming=streaming)(y_pred, y)


def test_a_wrong_limit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lie in \(0, 1\]"):
        AUPRO(fpr_limit=0)


@pytest.mark.parametrize("streaming", [False, True])
def test_handlers_write_to_an_engine(streaming: bool) -> None:
    maps, masks = _images([(9, 12), (9, 12), (8, 8)])
    batches = [(torch.stack(maps[:2]), torch.stack(masks[:2])), (maps[2][None], masks[2][None])]
    engine = Engine(lambda _, batch: batch)
    for handler in HANDLERS:
        handler(streaming=streaming, output_transform=lambda x: x).attach(engine, handler.__name__)
    for _ in range(2):
        metrics = engine.run(batches).metrics
        for handler, kind in zip(HANDLERS, KINDS, strict=True):
            expected = _expected(kind, maps, masks)
            assert metrics[handler.__name__] == pytest.approx(expected, abs=1e-12)


def test_handlers_read_the_outputs_of_a_monai_evaluator() -> None:
    maps, masks = _images([(9, 12)] * 5)
    items = [{"image": m, "label": y} for m, y in zip(maps, masks, strict=True)]
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=2),
        network=torch.nn.Identity(),
        key_val_metric={"aupro": AUPROHandler(fpr_limit=0.3)},
        additional_metrics={"auroc": AUROCHandler()},
    )
    evaluator.run()
    assert evaluator.state.metrics["aupro"] == pytest.approx(_expected(AUPRO, maps, masks))
    assert evaluator.state.metrics["auroc"] == pytest.approx(_expected(AUROC, maps, masks))


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    maps, masks = _images([(9, 12), (8, 8), (20, 7), (5, 9)])
    # The second rank's maps are in double precision and coarser pages; in the last round it has none.
    shares = [[slice(0, 3), slice(3, 4)], [slice(0, 4), None], [None, None]]
    metrics: list[Any] = []
    for share in shares:
        for kind in (AUROC, AUPRO):
            for streaming in (False, True):
                metric = kind(streaming=streaming)
                if share[rank] is not None:
                    precise = [m.double() if rank else m for m in maps[share[rank]]]
                    metric(precise, masks[share[rank]])
                try:
                    metrics.append(metric.aggregate())
                except ValueError as error:
                    metrics.append(str(error))
    torch.save(metrics, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    torch.multiprocessing.spawn(_work, args=(str(tmp_path),), nprocs=2)
    maps, masks = _images([(9, 12), (8, 8), (20, 7), (5, 9)])
    whole = [_expected(kind, maps, masks) for kind in (AUROC, AUPRO) for _ in range(2)]
    for rank in range(2):
        metrics = torch.load(tmp_path / f"{rank}.pt")
        assert metrics[:8] == pytest.approx(whole * 2, abs=1e-12)
        assert all("no predictions" in f or "There are no" in f for f in metrics[8:])
        assert len(metrics) == 12
