"""Slices that exceed the memory are learned shard by shard, each once an epoch, the same every time."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DistributedSampler
from torch.utils.data import DataLoader

from multiad_med.data import JoinedSlices, ShardSampler, SliceCache, write_study
from multiad_med.data.slice_cache import index_rows, study_path, write_index
from multiad_med.utils.errors import InputError

COUNTS = (5, 3, 4, 1, 6, 2, 4)
SIZE = 16
SLICE = SIZE * SIZE * 2  # 8 bits and a mask


def cache(folder: Path, counts: tuple[int, ...] = COUNTS) -> SliceCache:
    items = []
    for number, count in enumerate(counts):
        study = f"s{number}"
        path = study_path(folder, study)
        path.parent.mkdir(parents=True, exist_ok=True)
        prepared = {
            "image": torch.full((count, 1, SIZE, SIZE), number / 10),
            "slices": torch.arange(count),
            "state": torch.zeros(count, dtype=torch.int8),
        }
        digest = hashlib.sha256(study.encode()).hexdigest()
        write_study(path, prepared, bits=8, about={"source_sha256": digest})
        items.append({"split": "training", "subject": study, "study": study})
    write_index(folder / "index.csv", index_rows(folder, items))
    about = {"bits": 8, "channels": 1, "size": [SIZE, SIZE], "settings": {}}
    (folder / "cache.json").write_text(json.dumps(about))
    return SliceCache(folder)


def sampler(data: Any, *, slices: int = 16, epoch: int = 1, **choices: Any) -> ShardSampler:
    """One whose memory holds so many slices, half of them in one shard."""
    alone = {"num_replicas": 1, "rank": 0, **choices}
    result = ShardSampler(data, memory=slices * SLICE / 1e9, **alone)
    result.set_epoch(epoch)
    return result


def test_what_fits_comes_in_the_order_of_monais_sampler(tmp_path: Path) -> None:
    data = cache(tmp_path)
    alone: dict[str, Any] = {"num_replicas": 1, "rank": 0, "seed": 3}
    for same in (ShardSampler(data, **alone), sampler(data, slices=sum(COUNTS), **alone)):
        expected = DistributedSampler(data, **alone)
        assert not same.streams
        for epoch in (1, 2):
            same.set_epoch(epoch)
            expected.set_epoch(epoch)
            assert list(same) == list(expected)
    in_memory = ShardSampler([1, 2, 3], memory=1e-9, **alone)
    assert sorted(in_memory) == [0, 1, 2]


def test_every_slice_comes_once_an_epoch_and_no_shard_exceeds_half_of_the_memory(
    tmp_path: Path,
) -> None:
    data = cache(tmp_path)
    for epoch in range(20):
        chosen = sampler(data, epoch=epoch)
        shards = chosen.shards()
        order = list(chosen)
        assert chosen.streams
        assert sorted(order) == list(range(len(data)))
        assert order == torch.cat(shards).tolist()
        assert all(len(shard) <= 8 for shard in shards)
        studies = [{data.studies[i] for i in shard.tolist()} for shard in shards]
        assert sum(map(len, studies)) == len(COUNTS)  # a study is in one shard


def test_a_study_larger_than_a_shard_is_one_by_itself(tmp_path: Path) -> None:
    shards = sampler(cache(tmp_path), slices=4).shards()
    assert sorted(map(len, shards)) == [1, 2, 3, 4, 4, 5, 6]


def test_the_order_is_a_function_of_seed_and_epoch(tmp_path: Path) -> None:
    data = cache(tmp_path)
    first = list(sampler(data, epoch=4, seed=1))
    assert first == list(sampler(data, epoch=4, seed=1))
    assert first != list(sampler(data, epoch=5, seed=1))
    assert first != list(sampler(data, epoch=4, seed=2))
    joined = JoinedSlices({"a": data, "b": cache(tmp_path / "b", (3, 3))})
    assert sorted(sampler(joined)) == list(range(31))
    assert joined.file_of(25) == study_path(tmp_path / "b", "s0")


@pytest.mark.parametrize("ranks", [2, 5])
def test_processes_share_an_epoch_and_are_at_the_same_shard(tmp_path: Path, ranks: int) -> None:
    data = cache(tmp_path)  # 25 slices
    parts = [list(sampler(data, num_replicas=ranks, rank=rank)) for rank in range(ranks)]
    assert len({len(part) for part in parts}) == 1
    together = [index for step in zip(*parts, strict=True) for index in step]
    alone = list(sampler(data))
    assert together[:25] == alone
    assert together[25:] == alone[: len(together) - 25]
    assert max(Counter(together).values()) == (1 if ranks == 5 else 2)


def test_a_shard_is_read_before_it_is_learned_and_no_thread_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = cache(tmp_path)
    read: list[Path] = []
    monkeypatch.setattr("multiad_med.data.shard_sampler._read", read.append)
    chosen = sampler(data)
    shards = chosen.shards()
    order = iter(chosen)
    next(order)
    order.close()  # type: ignore[attr-defined]
    ahead = {data.file_of(i) for shard in shards[:2] for i in shard.tolist()}
    assert {*read} <= ahead
    read.clear()
    before = threading.active_count()
    batches = DataLoader(data, batch_size=4, sampler=chosen)
    assert sum(len(batch["image"]) for batch in batches) == len(data)
    assert {*read} <= {data.file_of(i) for i in range(len(data))}
    assert len(read) == len({*read})
    assert threading.active_count() <= before


def test_a_memory_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more than 0 GB, got 0"):
        ShardSampler(cache(tmp_path), memory=0, num_replicas=1, rank=0)


@pytest.mark.parametrize(("limit", "streams"), [("40\n", True), ("max\n", False), (None, False)])
def test_a_container_with_less_memory_than_its_machine_counts(
    limit: str | None, streams: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "memory.max"
    if limit is not None:
        file.write_text(limit)
    monkeypatch.setattr("multiad_med.data.shard_sampler._CONTAINER", file)
    assert ShardSampler(cache(tmp_path / "s"), num_replicas=1, rank=0).streams is streams
