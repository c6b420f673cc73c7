"""What two students cost beside the bare pass of their teacher, in training and in inference.

    python benchmarks/dual_speed.py [--preset dual_dinov2_s] [--size 280] [--batch 1]

Weights are random, which changes no time. Prints milliseconds (median of alternating passes) and their
ratio to the bare teacher: inference of each student and of the whole network, training steps of the local
student, of the semantic one and of both, with the teacher's pass and from cached features; then the
process's largest memory before and after the training steps.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch

from multiad_med.networks import HardGradientLoss, NoisyOrLoss, TeacherWeights, build_multiad


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Time everything in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="dual_dinov2_s")
    parser.add_argument("--size", type=int, default=280)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--passes", type=int, default=7)
    args = parser.parse_args()
    network = build_multiad(args.preset, teacher_weights=TeacherWeights.RANDOM)
    images = torch.rand(args.batch, 3, args.size, args.size)
    cached = network.teacher_features(images)
    optimizer = torch.optim.AdamW(network.student.parameters(), 1e-4)
    loss, local_loss = NoisyOrLoss(HardGradientLoss()), HardGradientLoss()
    normalised = (images - network.mean) / network.std

    def inference(part: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            network.eval()
            with torch.no_grad():
                part()

        return run

    def training(*, semantic: bool, features: bool) -> Callable[[], None]:
        def run() -> None:
            network.train()
            optimizer.zero_grad()
            known = cached if features else network.teacher_features(images)
            if semantic:
                loss(*network.features(images, known)).backward()
            else:
                student = network.student.local(normalised, known)
                stages = [s for s in network.stages if network.teacher.strides[s - 1] > 0]
                local_loss([known[s - 1] for s in stages], student[: len(stages)]).backward()
            optimizer.step()

        return run

    measured = {
        "bare teacher": inference(lambda: network.teacher_features(images)),
        "local student alone": inference(lambda: network.student.local(normalised, cached)),
        "semantic student alone": inference(lambda: network.student.semantic(normalised, cached)),
        "whole network, map and score": inference(lambda: network(images)),
        "training step, local": training(semantic=False, features=False),
        "training step, local, cached features": training(semantic=False, features=True),
        "training step, both": training(semantic=True, features=False),
        "training step, both, cached features": training(semantic=True, features=True),
    }
    times: dict[str, list[float]] = {name: [] for name in measured}
    before = 0.0
    for number in range(args.passes + 1):
        for name, run in measured.items():
            if name.startswith("training") and not before:
                before = peak_mb()
            start = time.perf_counter()
            run()
            if number:
                times[name].append(1000 * (time.perf_counter() - start))
    base = statistics.median(times["bare teacher"])
    print(f"{args.preset}, {args.size}², batch {args.batch}, {torch.get_num_threads()} threads")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:40} {median:9.1f} ms  {median / base:5.2f}")
    print(f"memory: {before:.0f} MB after inference, {peak_mb():.0f} MB after training steps")


if __name__ == "__main__":
    main()
