"""Training and inference speed beside the bare forward passes of teacher and student.

    python benchmarks/speed.py [--presets NAME ...] [--batch 4] [--rounds 3] [--device cpu]

Both sides of each comparison run in turns on the same batch, and the fastest round of each counts.
Training: one iteration of DistillationTrainer against teacher forward, student forward and backward,
and the discriminator's passes, without losses, optimisers or engine. Inference: AxialInferer over a
volume against the two forwards over the same slices.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from multiad_med.inference.axial_inferer import AxialInferer
from multiad_med.networks import FeatureDiscriminator, MultiAD, build_multiad
from multiad_med.training import DistillationTrainer

SIZE = 256


def fastest(
    functions: list[Callable[[], object]], rounds: int, device: torch.device
) -> list[float]:
    """Shortest time of each function in seconds, run in turns after one round to warm up."""
    best = [float("inf")] * len(functions)
    for number in range(rounds + 1):
        for i, function in enumerate(functions):
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:
                best[i] = min(best[i], time.perf_counter() - start)
    return best


def training(network: MultiAD, batch: int, rounds: int, device: torch.device) -> list[float]:
    """Seconds of a bare step and of a trainer's step."""
    discriminator = FeatureDiscriminator(network.channels, input_size=8).to(device)
    images = torch.rand(batch, 3, SIZE, SIZE, device=device)
    trainer = DistillationTrainer(
        device,
        1,
        [{"image": images}],
        network,
        torch.optim.Adam(network.student.parameters(), 1e-3),
        discriminator=discriminator,
        discriminator_optimizer=torch.optim.Adam(discriminator.parameters(), 2e-4),
        adversarial_warmup=-1,
        decollate=False,
    )

    def bare() -> None:
        network.train()
        discriminator.train().requires_grad_(True)
        teacher, student = network.features(images)
        both = [torch.cat([t, s.detach()]) for t, s in zip(teacher, student, strict=True)]
        discriminator(both).mean().backward()
        discriminator.eval().requires_grad_(False)
        fooled = discriminator(student).mean()
        (fooled + sum(s.mean() for s in student)).backward()

    return fastest([bare, lambda: trainer._iteration(trainer, {"image": images})], rounds, device)


@torch.no_grad()
def inference(network: MultiAD, batch: int, rounds: int, device: torch.device) -> list[float]:
    """Seconds for two batches of slices: bare forwards, and the inferer over the volume."""
    network.eval()
    volume = torch.rand(1, 1, SIZE, SIZE, 2 * batch, device=device)
    inferer = AxialInferer(sw_batch_size=batch)

    def bare() -> None:
        for part in volume[0].permute(3, 0, 1, 2).split(batch):
            network.features(part)

    return fastest([bare, lambda: inferer(volume, network)], rounds, device)


def main() -> None:
    """Print one line per preset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ["efficientnet_lite0", "efficientnet_lite0_decoder", "resnet18", "wide_resnet50_2"]
    parser.add_argument("--presets", nargs="+", default=names)
    parser.add_argument("--output-stride", type=int)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    print(f"{SIZE} x {SIZE}, batch {args.batch}, {device}, {torch.get_num_threads()} threads")
    print(f"{'preset':28} {'train img/s':>11} {'x bare':>7} {'infer slice/s':>13} {'x bare':>7}")
    for preset in args.presets:
        stride = args.output_stride if "resnet" in preset else None
        network = build_multiad(preset, teacher_weights="random", output_stride=stride).to(device)
        bare_train, ours_train = training(network, args.batch, args.rounds, device)
        bare_infer, ours_infer = inference(network, args.batch, args.rounds, device)
        print(
            f"{preset:28} {args.batch / ours_train:11.2f} {ours_train / bare_train:7.3f} "
            f"{2 * args.batch / ours_infer:13.2f} {ours_infer / bare_infer:7.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
