"""Maps by eager PyTorch, OpenVINO in float32 and in INT8, and ONNX Runtime, on the CPU, in turns.

    taskset -c 1 python benchmarks/runtimes.py [--presets NAME ...] [--size 256] [--threads 1]
    python benchmarks/runtimes.py --model run/model.pt --good good/

The first form takes the networks of presets, with the teacher's public weights and an untrained
student, and random images: what matters is time. The second takes a trained model, quantises it as
`multiad export openvino --int8` does, and says what INT8 costs of its self-test, of which the export
asks less than 0.01 in image AUROC and 0.02 in pixel average precision. Each run-time maps the same
batch in turns, after a first turn that warms up. Prints the median milliseconds of a batch, how many
times as fast as PyTorch that is, and the largest difference of the maps; and the seconds until a
run-time is ready the first time and later.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from multiad_med.inference import exports
from multiad_med.inference.exports import by_onnxruntime, by_openvino
from multiad_med.inference.openvino import Maps, compiled
from multiad_med.inference.quantisation import Int8Network, Quantised, accuracy_lost
from multiad_med.networks import MultiAD, build_multiad, open_model
from multiad_med.recalibration import normal_slices
from multiad_med.utils.memory import keep_freed_memory


def timed(make: Callable[[], Maps]) -> tuple[Maps, float]:
    """A run-time, and the seconds until it was ready."""
    start = time.perf_counter()
    return make(), time.perf_counter() - start


@torch.no_grad()
def measure(network: MultiAD, images: Tensor, *, batch_size: int, rounds: int) -> list[str]:
    """One line per run-time."""
    batch = images[:batch_size]
    size = (images.shape[2], images.shape[3])
    runs: dict[str, Maps] = {"PyTorch": network}
    ready: dict[str, list[float]] = {"PyTorch": []}
    for name, make in (("OpenVINO", by_openvino), ("ONNX Runtime", by_onnxruntime)):
        ready[name] = []
        for _ in range(2):  # converted, then kept
            runs[name], seconds = timed(lambda make=make: make(network, size))
            ready[name].append(seconds)
    for what in Quantised:
        name = f"OpenVINO, {what} in INT8"
        fast, seconds = timed(lambda what=what: Int8Network(network, images, what=what))
        runs[name], later = timed(lambda fast=fast: compiled(fast.model(calibrated=True)))
        ready[name] = [seconds + later]
    expected = network(batch)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run(batch)
            if turn:
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    return [
        f"{name} | {1e3 * medians[name]:.0f} | {medians['PyTorch'] / medians[name]:.2f} | "
        f"{float((run(batch) - expected).abs().max()):.1e} | "
        f"{', '.join(f'{seconds:.1f}' for seconds in ready[name]) or '–'}"
        for name, run in runs.items()
    ]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", default=["efficientnet_lite0_decoder"])
    parser.add_argument("--teacher-weights", default="imagenet")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--good", type=Path)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # as commands do
    lines = ["| network | run-time | ms | times PyTorch | difference | seconds until ready |"]
    lines.append("|---|---|---|---|---|---|")
    told: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        exports.exports_dir = lambda: Path(folder)
        options = {"batch_size": args.batch_size, "rounds": args.rounds}
        if args.model is not None:
            network = open_model(args.model).eval()
            slices = normal_slices(args.model, args.good)
            images = slices[0].expand(-1, 3, -1, -1).contiguous()
            rows = measure(network, images, **options)
            lines += [f"| {args.model.name} | {row} |" for row in rows]
            for what in Quantised:
                fast = Int8Network(network, images, what=what)
                told.append(f"{what} in INT8: {accuracy_lost(network, fast.raw_map(), slices)}")
        else:
            torch.manual_seed(0)
            for preset in args.presets:
                network = build_multiad(preset, teacher_weights=args.teacher_weights).eval()
                images = torch.rand(2 * args.batch_size, 3, args.size, args.size)
                rows = measure(network, images, **options)
                lines += [f"| `{preset}` | {row} |" for row in rows]
    print("\n".join([*lines, *told]))


if __name__ == "__main__":
    main()
