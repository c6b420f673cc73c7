"""The order in which slices are learned: any, or by shards where prepared slices exceed the memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from monai.data import DistributedSampler

from multiad_med.data.joined_slices import JoinedSlices
from multiad_med.data.slice_cache import SliceCache
from multiad_med.utils.errors import InputError

__all__ = ["ShardSampler"]

_PIECE = 1 << 23  # bytes that are read at once


_CONTAINER = Path("/sys/fs/cgroup/memory.max")  # of cgroup v2: a number, or "max"


def _memory() -> int:
    """Bytes of the machine's memory, or fewer, if its container may have only these."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _CONTAINER.read_text().strip() if _CONTAINER.is_file() else ""
    return min(machine, int(limit)) if limit.isdecimal() else machine


class ShardSampler(DistributedSampler):
    """MONAI's sampler, which goes through prepared slices shard by shard where they exceed the memory.

    Slices that fit come in any order. Others would be read from the disk one by one, at random. So
    each epoch draws an order of the studies and cuts it into shards, as many studies each as fill half
    of the memory, or one. The slices of a shard are shuffled among themselves, while the files of
    the next one are read, each from its begin to its end.

    The order is a function of seed and epoch. Processes go through one order, each taking its share:
    together they see every slice once an epoch (and the first ones twice, where the number of slices
    does not divide by that of the processes, as MONAI's sampler does).

    Args:
        dataset: of slices. Those that are held in memory come in any order.
        memory: GB that prepared slices may fill; half of the machine's or the container's if none.
            Name it where a training may be resumed on a machine with other memory, and where the
            machines of one training differ: all processes need the same.
        num_replicas: number of processes; of the process group if none.
        rank: of this process; of the process group if none.
        seed: of the order.

    Raises:
        InputError: when the memory is not positive.

    Attributes:
        streams: whether the slices exceed the memory.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        memory: float | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int = 0,
    ) -> None:
        if memory is not None and memory <= 0:
            raise InputError(f"memory must be more than 0 GB, got {memory}.")
        most = _memory() / 2 if memory is None else memory * 1e9
        prepared = isinstance(dataset, (SliceCache, JoinedSlices))
        self.streams = prepared and dataset.stored_bytes > most
        self._slices = dataset
        super().__init__(
            dataset, num_replicas=num_replicas, rank=rank, shuffle=not self.streams, seed=seed
        )
        if self.streams:
            self._most = max(1, int(most / 2 * len(dataset) / dataset.stored_bytes))
            numbers: dict[str, int] = {}
            studies = [numbers.setdefault(study, len(numbers)) for study in dataset.studies]
            self._studies = torch.tensor(studies)

    def shards(self) -> list[torch.Tensor]:
        """Return the indices of this epoch's slices, shard by shard, in the order of all processes."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        counts = self._studies.bincount()
        shard_of, number, filled = torch.empty_like(counts), 0, 0
        for study in torch.randperm(len(counts), generator=generator).tolist():
            count = int(counts[study])
            if filled and filled + count > self._most:
                number, filled = number + 1, 0
            shard_of[study] = number
            filled += count
        shuffled = torch.randperm(len(self._studies), generator=generator)
        shards = shard_of[self._studies[shuffled]]
        return list(shuffled[shards.argsort(stable=True)].split(shards.bincount().tolist()))

    def __iter__(self) -> Iterator[int]:
        """Give this process's indices of the epoch."""
        return self._by_shard() if self.streams else super().__iter__()

    def _by_shard(self) -> Iterator[int]:
        shards = self.shards()
        order = torch.cat(shards).tolist()
        begins = accumulate(map(len, shards), initial=0)
        # A shard is read as soon as the one before it begins.
        unread = deque(zip([0, *begins], shards, strict=False))
        reader = ThreadPoolExecutor(1)
        try:
            for place in super().__iter__():
                while unread and place >= unread[0][0]:
                    self._read_ahead(reader, unread.popleft()[1])
                yield order[place]
        finally:
            reader.shutdown(cancel_futures=True)

    def _read_ahead(self, reader: ThreadPoolExecutor, shard: torch.Tensor) -> None:
        for file in dict.fromkeys(self._slices.file_of(index) for index in shard.tolist()):
            reader.submit(_read, file)


def _read(file: Path) -> None:
    """Read a file into the system's cache; what is wrong with it is told by whoever needs it."""
    with suppress(OSError), file.open("rb", buffering=0) as stream:
        while stream.read(_PIECE):
            pass
