"""Maps on a GPU: images per second, share of the device's matrix-product peak, and memory, by batch size.

    python benchmarks/gpu.py [--preset efficientnet_lite0_decoder] [--size 256] [--batches 8 32 128 512]
    python benchmarks/gpu.py --device cpu --size 64 --batches 2 --rounds 2  # as its test runs it

In turns: the network as `multiad predict` runs it on a GPU (AMP: features in half precision, distances
and fusion in float32; channels last); the same in float32; the same with AMP, `torch.compile` of
teacher and student. Images come from pinned memory, the next batch being copied while one is computed.
The peak is that of a product of two large matrices on the device, in the precision of the features.
Operations are counted by torch's FlopCounterMode. Memory is the most that torch has allocated.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from multiad_med.networks import MultiAD, build_multiad


def wait(device: torch.device) -> None:
    """Wait until the device has done all."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(device: torch.device, dtype: torch.dtype, *, side: int, rounds: int) -> float:
    """Operations per second of a product of two matrices, at the median of rounds."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(rounds + 1):
        wait(device)
        start = time.perf_counter()
        a @ b
        wait(device)
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / statistics.median(seconds[1:])


def ahead(batches: list[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Batches on the device; the next is copied while one is used."""
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)

    def copied(batch: Tensor) -> Tensor:
        with torch.cuda.stream(stream):
            return batch.to(device, non_blocking=True)

    coming = copied(batches[0])
    for following in [*batches[1:], None]:
        torch.cuda.current_stream(device).wait_stream(stream)
        batch = coming
        batch.record_stream(torch.cuda.current_stream(device))
        if following is not None:
            coming = copied(following)
        yield batch


@torch.no_grad()
def measure(
    network: MultiAD, batch: Tensor, device: torch.device, *, amp: bool, rounds: int
) -> tuple[float, float]:
    """Images per second over the rounds, and the most memory in MiB; NaN on a CPU."""
    on_cuda = device.type == "cuda"
    batches = [batch.pin_memory() if on_cuda else batch] * rounds
    precision = torch.autocast(device.type, dtype=torch.float16 if on_cuda else torch.bfloat16)
    with precision if amp else nullcontext():
        for images in ahead(batches[:2], device):  # warms up, and compiles
            network(images)
        wait(device)
        if on_cuda:
            torch.cuda.reset_peak_memory_stats(device)
        start = time.perf_counter()
        for images in ahead(batches, device):
            maps = network(images)
        maps.cpu()
        wait(device)
    speed = rounds * len(batch) / (time.perf_counter() - start)
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if on_cuda else float("nan")
    return speed, memory


def compiled(network: MultiAD) -> MultiAD:
    """A copy whose teacher and student are compiled; distances and fusion stay as they are."""
    network = copy.deepcopy(network)
    network.teacher.compile()
    network.student.compile()
    return network


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="efficientnet_lite0_decoder")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32, 128, 512])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--matrix", type=int, default=8192, help="side of the peak's matrices")
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.manual_seed(0)
    network = build_multiad(args.preset, teacher_weights="random").eval().to(device)
    kinds = [("AMP", network, True), ("float32", network, False)]
    if not args.no_compile:
        kinds.append(("AMP, compiled", compiled(network), True))
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    side, few = (args.matrix, 5) if device.type == "cuda" else (512, 3)
    peaks = {
        amp: peak(device, half if amp else torch.float32, side=side, rounds=few)
        for amp in (True, False)
    }
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.rand(1, 3, args.size, args.size, device=device))
    per_image = counter.get_total_flops()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(
        f"{name}, torch {torch.__version__}, {args.preset} at {args.size}²: {per_image / 1e9:.2f} GFLOP"
    )
    print("| features | batch | images/s | % of the peak | MiB |")
    print("|---|---|---|---|---|")
    for batch_size in args.batches:
        batch = torch.rand(batch_size, 3, args.size, args.size)
        for kind, its, amp in kinds:
            speed, memory = measure(its, batch, device, amp=amp, rounds=args.rounds)
            share = 100 * speed * per_image / peaks[amp]
            print(f"| {kind} | {batch_size} | {speed:.1f} | {share:.1f} | {memory:.0f} |")


if __name__ == "__main__":
    main()
