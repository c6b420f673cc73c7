"""Speed and agreement of the pixel metrics beside those of torchmetrics and anomalib.

    python benchmarks/metrics.py [--maps 100] [--size 256] [--rounds 3] [--pixels 1e9]

All run in turns on the same maps, smooth noise with brighter lesions squeezed to (0, 1), and the
fastest round of each counts; a package that is not installed is left out, with a word. With
``--pixels`` the streaming metrics first see so many pixels in parts, and values, bounds, time and
peak memory are printed after each power of ten from 10^7 on.
"""

from __future__ import annotations

import argparse
import importlib
import resource
import time
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from multiad_med.metrics import StreamingAupro, StreamingRanking, aupro, auroc


def picture(number: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Maps and masks ``(number, size, size)``, one to three ellipses in every second."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    masks = np.zeros((number, size, size), bool)
    for mask in masks[::2]:
        for _ in range(rng.integers(1, 4)):
            (cy, cx), (ry, rx) = rng.uniform(0.1, 0.9, 2), rng.uniform(0.015, 0.12, 2)
            mask |= ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
    noise = gaussian_filter(rng.standard_normal(masks.shape, np.float32), (0, 4, 4)) * 8
    maps = noise + 1.5 * gaussian_filter(masks.astype(np.float32), (0, 3, 3))
    return torch.from_numpy(maps).sigmoid(), torch.from_numpy(masks)


def installed(name: str) -> ModuleType | None:
    """The module, or None with a printed reason."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(f"{name} is left out: {error}")
        return None


def candidates(maps: Tensor, masks: Tensor) -> dict[str, dict[str, Callable[[], float]]]:
    """By metric and package, a function that computes the value anew; ours comes first."""
    flat, labels, targets = maps.flatten(), masks.flatten().int(), masks.int()
    found: dict[str, dict[str, Callable[[], float]]] = {
        "AUROC": {"multiad_med": lambda: auroc(maps, masks)},
        "AUPRO": {"multiad_med": lambda: aupro(maps, masks)},
    }
    torchmetrics = installed("torchmetrics.functional.classification")
    if torchmetrics:
        found["AUROC"]["torchmetrics"] = lambda: float(
            torchmetrics.binary_auroc(flat, labels, thresholds=None, validate_args=False)
        )
    anomalib = installed("anomalib.metrics")
    if anomalib:

        def compute(kind: str, scores: Tensor, labels: Tensor) -> float:
            metric = getattr(anomalib, kind)(fields=["scores", "labels"])
            metric.update(SimpleNamespace(scores=scores, labels=labels))
            return float(metric.compute())

        found["AUROC"]["anomalib"] = lambda: compute("AUROC", flat, labels)
        found["AUPRO"]["anomalib"] = lambda: compute("AUPRO", maps, targets)
    return found


def compare(maps: Tensor, masks: Tensor, rounds: int) -> None:
    """Print value, difference from ours, shortest time and ratio of each."""
    print(
        f"{len(maps)} maps of {maps.shape[1]} x {maps.shape[2]}, {100 * masks.float().mean():.1f} %"
    )
    print(f"{'':6} {'':14} {'value':>10} {'difference':>11} {'seconds':>8} {'x ours':>7}")
    for metric, functions in candidates(maps, masks).items():
        best = dict.fromkeys(functions, float("inf"))
        values = {}
        for _ in range(rounds):
            for package, function in functions.items():
                start = time.perf_counter()
                values[package] = function()
                best[package] = min(best[package], time.perf_counter() - start)
        ours, seconds = values["multiad_med"], best["multiad_med"]
        for package in functions:
            print(
                f"{metric:6} {package:14} {values[package]:10.7f} {values[package] - ours:11.1e} "
                f"{best[package]:8.3f} {best[package] / seconds:7.1f}",
                flush=True,
            )


def peak_memory() -> float:
    """Peak resident memory of this process in MiB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def stream(pixels: int, size: int) -> None:
    """Feed both streaming metrics; the parts are a few images, shifted a little each time."""
    pictures = [picture(32, size, seed) for seed in range(4)]
    ranking, regions = StreamingRanking(), StreamingAupro()
    marks = [10**k for k in range(7, 19) if 10**k <= pixels]
    print(f"Streaming, {peak_memory():.0f} MiB at the start")
    print(f"{'pixels':>14} {'seconds':>8} {'MiB':>6}  AUROC AP F1 AUPRO (bounds)")
    seen, part, seconds = 0, 0, 0.0
    while marks:
        maps, masks = pictures[part % len(pictures)]
        maps = maps + 1e-5 * (part // len(pictures))
        start = time.perf_counter()
        ranking.update(maps, masks)
        regions.update(maps, masks)
        seen, part = seen + maps.numel(), part + 1
        if seen >= marks[0]:
            marks.pop(0)
            bound = ranking.error_bound
            values = [
                (ranking.auroc, bound["auroc"]),
                (ranking.average_precision, bound["average_precision"]),
                (ranking.f1_max, bound["f1_max"]),
                (regions.aupro, regions.error_bound),
            ]
            seconds += time.perf_counter() - start
            metrics = " ".join(f"{value:.6f} ({off:.0e})" for value, off in values)
            print(f"{seen:14} {seconds:8.1f} {peak_memory():6.0f}  {metrics}", flush=True)
        else:
            seconds += time.perf_counter() - start


def main() -> None:
    """Print the comparison, and the streaming run where pixels are given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=int, default=100)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pixels", type=float, default=0)
    args = parser.parse_args()
    print(f"torch {torch.__version__}, numpy {np.__version__}, {torch.get_num_threads()} threads")
    if args.pixels:
        stream(int(args.pixels), args.size)
    compare(*picture(args.maps, args.size, 0), args.rounds)


if __name__ == "__main__":
    main()
