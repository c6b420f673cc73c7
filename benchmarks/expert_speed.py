"""What experts cost in inference: time of a network with them beside teacher and decoder alone.

    python benchmarks/expert_speed.py [--preset efficientnet_lite2_decoder] [--size 256] [--batch 1]

Weights are random, which changes no time. Prints milliseconds (the median of alternating passes), their
ratio, and what each model stores.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time

import torch

from multiad_med.networks import FusionMode, MultiAD, TeacherWeights, build_multiad
from multiad_med.networks.experts import ExpertKind
from multiad_med.training import fit_experts


def megabytes(network: MultiAD) -> float:
    """Size of ``model.pt``."""
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    return buffer.tell() / 1e6


@torch.no_grad()
def main() -> None:
    """Time both networks in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="efficientnet_lite2_decoder")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--passes", type=int, default=30)
    args = parser.parse_args()
    sets: dict[str, list[ExpertKind]] = {
        "teacher and decoder": [],
        **{f"and {kind}": [kind] for kind in ExpertKind},
        "and both of places": [ExpertKind.POSITION_GAUSSIAN, ExpertKind.NEAREST_NORMAL],
    }
    x = torch.rand(args.batch, 3, args.size, args.size)
    networks = {}
    for name, experts in sets.items():
        network = build_multiad(
            args.preset,
            teacher_weights=TeacherWeights.RANDOM,
            experts=experts,
            fusion=FusionMode.HAZARD,
        ).eval()
        fit_experts(network, [{"image": torch.rand(4, 3, args.size, args.size)}])
        networks[name] = network
    times: dict[str, list[float]] = {name: [] for name in networks}
    for number in range(args.passes + 3):
        for name, network in networks.items():
            start = time.perf_counter()
            network(x)
            if number >= 3:
                times[name].append(1000 * (time.perf_counter() - start))
    base = statistics.median(times["teacher and decoder"])
    for name, network in networks.items():
        median = statistics.median(times[name])
        print(f"{name:30} {median:7.1f} ms  {median / base:5.2f}  {megabytes(network):6.1f} MB")


if __name__ == "__main__":
    main()
