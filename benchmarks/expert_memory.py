"""Fitting experts to a stream of slices: memory and time do not depend on how many have passed.

    python benchmarks/expert_memory.py [--slices 1000000] [--channels 8 8 8]

Random features of a generator stand for a teacher's. Prints resident memory and time per 1,000 slices
after each tenth of the stream, and the time of fitting at its end.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from multiad_med.networks.experts import NearestNormal, PositionGaussian

BATCH = 50


def resident_mb() -> float:
    """Resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


@torch.no_grad()
def main() -> None:
    """Stream and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=1_000_000)
    parser.add_argument("--channels", type=int, nargs=3, default=[8, 8, 8])
    args = parser.parse_args()
    experts = [PositionGaussian(args.channels), NearestNormal(args.channels)]
    collected = [expert.statistics() for expert in experts]
    sizes = (32, 16, 8)
    pool = [torch.randn(4 * BATCH, c, s, s) for c, s in zip(args.channels, sizes, strict=True)]
    batches = args.slices // BATCH
    start = time.perf_counter()
    for number in range(1, batches + 1):
        chosen = torch.randint(4 * BATCH, (BATCH,))
        features = [part[chosen] for part in pool]
        for statistics in collected:
            statistics.update(features)
        if number % max(1, batches // 10) == 0:
            seconds = time.perf_counter() - start
            done = number * BATCH
            print(
                f"{done:9} slices  {resident_mb():7.0f} MB  {1000 * seconds / done:6.2f} s per 1,000"
            )
    start = time.perf_counter()
    for expert, statistics in zip(experts, collected, strict=True):
        expert.fit(statistics)
    print(f"fitting: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
