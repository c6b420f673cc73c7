"""Inference over a volume's slices by OpenVINO beside PyTorch, on the CPU.

    taskset -c 1 python benchmarks/openvino_speed.py [--presets NAME ...] [--rounds 7] [--threads 1]

Both run in turns through AxialInferer over the same random volume of 256 x 256, after a first turn
that exports, reads the export and warms up. Prints slices per second at the median turn, the ratio of the
medians, and the largest difference of the maps.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from monai.networks.utils import convert_to_onnx

from multiad_med.inference import OpenVINONetwork
from multiad_med.inference.axial_inferer import AxialInferer
from multiad_med.networks import MultiAD, build_multiad

SIZE = 256


def export(network: MultiAD, folder: Path) -> OpenVINONetwork:
    """The network by OpenVINO."""
    path = folder / "model.onnx"
    images = torch.rand(1, 3, SIZE, SIZE)
    convert_to_onnx(network, [images], filename=path, dynamic_axes={"x": {0: "batch"}})
    return OpenVINONetwork(network, path)


@torch.no_grad()
def measure(network: MultiAD, fast: OpenVINONetwork, slices: int, rounds: int) -> list[float]:
    """Median seconds of both over a volume, and the largest difference of their maps."""
    volume = torch.rand(1, 1, SIZE, SIZE, slices)
    inferer = AxialInferer(sw_batch_size=8)
    difference = float((inferer(volume, network) - inferer(volume, fast)).abs().max())
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for model, seconds in zip((network, fast), times, strict=True):
            start = time.perf_counter()
            inferer(volume, model)
            seconds.append(time.perf_counter() - start)
    return [*(statistics.median(seconds) for seconds in times), difference]


def main() -> None:
    """Print one line per preset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ["efficientnet_lite0_decoder", "efficientnet_lite0"]
    parser.add_argument("--presets", nargs="+", default=names)
    parser.add_argument("--slices", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lines = ["| preset | PyTorch, slices/s | OpenVINO, slices/s | ratio | largest difference |"]
    lines.append("|---|---|---|---|---|")
    for preset in args.presets:
        network = build_multiad(preset, teacher_weights="random").eval()
        with tempfile.TemporaryDirectory() as folder:
            fast = export(network, Path(folder))
            eager_s, fast_s, difference = measure(network, fast, args.slices, args.rounds)
        lines.append(
            f"| `{preset}` | {args.slices / eager_s:.1f} | {args.slices / fast_s:.1f} | "
            f"{eager_s / fast_s:.2f} | {difference:.1e} |"
        )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
