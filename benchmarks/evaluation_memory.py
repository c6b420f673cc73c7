"""Peak memory of an evaluation: it must not grow with the number of volumes.

    python benchmarks/evaluation_memory.py --volumes 5
    python benchmarks/evaluation_memory.py --volumes 20
    python benchmarks/evaluation_memory.py --volumes 100 --size 512 --slices 400

Each makes synthetic CTs one after the other, lets :func:`multiad_med.evaluation.evaluate_cases` have them
from a generator, and prints the largest resident memory of the process.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Iterator

import torch

from multiad_med.evaluation import Case, Thresholds, evaluate_cases


def synthetic_case(number: int, *, size: int, slices: int) -> Case:
    """A body in the shape of a cylinder, with noise in its map; every second one has lesions."""
    generator = torch.Generator().manual_seed(number)
    shape = (slices, size, size)
    row = torch.linspace(-1, 1, size)
    body = (row[:, None] ** 2 + row**2) < 0.8
    image, anomaly_map = torch.zeros(shape), torch.zeros(shape)
    label = torch.zeros(shape, dtype=torch.bool)
    if number % 2:
        for _ in range(4):
            z, x, y = (
                int(n * (0.3 + 0.4 * float(torch.rand(1, generator=generator)))) for n in shape
            )
            label[z : z + slices // 20, x : x + size // 16, y : y + size // 16] = True
    for i in range(slices):
        image[i] = (0.4 + 0.1 * torch.randn(size, size, generator=generator)).clamp(0, 1) * body
        # Scores of an exponential distribution, 1 % of which reach the threshold.
        score = torch.empty(size, size).exponential_(generator=generator) / 4.6 + 1.5 * label[i]
        anomaly_map[i] = score / (score + 1) * body
    return Case(
        study=f"study{number}",
        subject=f"patient{number}",
        image=image,
        anomaly_map=anomaly_map,
        label=label,
        foreground=body.expand(shape).clone(),
        numbers=torch.arange(slices),
        scores=anomaly_map.flatten(1).amax(dim=1),
        abnormal=label.flatten(1).any(dim=1),
        spacing=(0.8, 0.8, 1.0),
    )


def synthetic_cases(count: int, *, size: int, slices: int) -> Iterator[Case]:
    """So many cases, each made when it is asked for."""
    for number in range(count):
        start = time.perf_counter()
        yield synthetic_case(number, size=size, slices=slices)
        print(f"volume {number}: {time.perf_counter() - start:.0f} s", file=sys.stderr)


def main() -> None:
    """Evaluate, and print the peak."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--volumes", type=int, default=5)
    parser.add_argument("--size", type=int, default=256, help="rows and columns")
    parser.add_argument("--slices", type=int, default=200)
    args = parser.parse_args()
    cases = synthetic_cases(args.volumes, size=args.size, slices=args.slices)
    evaluation = evaluate_cases(cases, thresholds=Thresholds())
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    print(
        f"{args.volumes} volumes of {args.size} x {args.size} x {args.slices}: peak {peak:.0f} MB, "
        f"pixel AUROC {evaluation.metrics['pixels']['pixel_auroc'].value:.4f}"
    )


if __name__ == "__main__":
    main()
