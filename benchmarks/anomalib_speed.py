"""Speed beside anomalib's Reverse Distillation and STFPM at the same backbone, and beside a bare teacher.

    python benchmarks/anomalib_speed.py [--backbones resnet18 wide_resnet50_2] [--batch 8] [--rounds 7]

Everything runs in turns on the same images of 256 x 256; medians are printed. Weights are random, which
changes no time. A training step is the teacher's pass, the student's, the loss, backward and the
optimiser, and a second time without the teacher's pass, as with ``cache_features``. Ours goes through
DistillationTrainer, without a discriminator, which the others do not have either. Inference ends with the
map. Ours is as of a loaded model: its student is folded. The decoder has the choices of the presets
``*_decoder``; the paper's student has stages 1 to 3, as STFPM, and squeeze-and-excitation.

The default, the network of ``brain_mri`` and its neighbours, stands beside the pass of its bare teacher,
folded and without stages that nobody reads. Without anomalib (extra ``benchmark``) there is only that.
``--profile`` prints in what operations the default's inference and training step spend their time.
``--processor-time`` counts the time of this process's threads instead of the clock's: on a busy machine,
and with OMP_NUM_THREADS=1, where threads do not wait for each other.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from multiad_med.networks import MultiAD, build_multiad, fold_batch_norms
from multiad_med.training import DistillationTrainer
from multiad_med.training.feature_cache import FEATURES

SIZE = 256
LAYERS = ["layer1", "layer2", "layer3"]
DEFAULT: dict[str, Any] = {
    "preset": "efficientnet_lite0_decoder",
    "fused": [2, 3],
    "experts": ["nearest_normal"],
    "fusion": "hazard",
}
Steps = dict[str, Callable[[], object]]


def medians(steps: Steps, rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Milliseconds of each, run in turns after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, run in steps.items():
            start = clock()
            run()
            if number:
                times[name].append(1000 * (clock() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def training(network: MultiAD, images: Tensor, *, cached: bool = False) -> Callable[[], object]:
    """One iteration of our trainer, with the teacher's pass or without."""
    batch: dict[str, Any] = {"image": images}
    if cached:
        batch[FEATURES] = network.teacher_features(images)
    trainer = DistillationTrainer(
        images.device,
        1,
        [batch],
        network,
        torch.optim.Adam(network.student.parameters(), 1e-3),
        decollate=False,
    )
    return lambda: trainer._iteration(trainer, batch)


def inference(network: torch.nn.Module, images: Tensor) -> Callable[[], object]:
    """One batch of maps."""
    network.eval()

    def run() -> None:
        with torch.inference_mode():
            network(images)

    return run


def loaded(**choices: Any) -> MultiAD:
    """Our network as of a model file."""
    network = build_multiad(teacher_weights="random", **choices).eval()
    fold_batch_norms(network.student)
    return network


def anomalib_training(
    model: Any, loss: Any, optimizer: torch.optim.Optimizer, images: Tensor
) -> Callable[[], object]:
    """One step of anomalib's model, as its Lightning module takes it."""

    def run() -> None:
        model.train()
        optimizer.zero_grad()
        loss(*model(images)).backward()
        optimizer.step()

    return run


def anomalib_inference(model: Any, images: Tensor) -> Callable[[], object]:
    """One batch of maps of anomalib's model."""
    run = inference(model, images)

    def evaluate() -> None:
        model.eval()
        run()

    return evaluate


def stfpm(backbone: str) -> tuple[Any, Any, torch.optim.Optimizer]:
    """Return anomalib's STFPM, its loss and its optimiser."""
    from anomalib.models.components.feature_extractors import timm as extractor
    from anomalib.models.image.stfpm.loss import STFPMLoss
    from anomalib.models.image.stfpm.torch_model import STFPMModel

    create = extractor.timm.create_model
    with patch.object(
        extractor.timm, "create_model", lambda *a, **k: create(*a, **k | {"pretrained": False})
    ):
        model = STFPMModel(layers=LAYERS, backbone=backbone)
    student = model.student_model.parameters()
    return model, STFPMLoss(), torch.optim.SGD(student, 0.4, momentum=0.9, weight_decay=1e-3)


def reverse_distillation(backbone: str) -> tuple[Any, Any, torch.optim.Optimizer]:
    """Return anomalib's Reverse Distillation, its loss and its optimiser."""
    from anomalib.models.image.reverse_distillation import torch_model as source
    from anomalib.models.image.reverse_distillation.loss import ReverseDistillationLoss

    model = source.ReverseDistillationModel(
        backbone=backbone,
        input_size=(SIZE, SIZE),
        layers=LAYERS,
        anomaly_map_mode=source.AnomalyMapGenerationMode.ADD,
        pre_trained=False,
    )
    learners = [*model.decoder.parameters(), *model.bottleneck.parameters()]
    optimizer = torch.optim.Adam(learners, 0.005, betas=(0.5, 0.99))
    return model, ReverseDistillationLoss(), optimizer


def beside_anomalib(backbone: str, images: Tensor, rounds: int, clock: Callable[[], float]) -> None:
    """Print both comparisons of a backbone."""
    ours: dict[str, dict[str, Any]] = {
        "decoder": {"preset": "efficientnet_lite0_decoder", "teacher": backbone},
        "paper's student": {"preset": backbone, "output_stride": 32, "stages": (1, 2, 3)},
    }
    theirs = {"decoder": reverse_distillation, "paper's student": stfpm}
    for name, choices in ours.items():
        model, loss, optimizer = theirs[name](backbone)
        network = build_multiad(teacher_weights="random", **choices)
        steps: dict[str, Steps] = {
            "training step": {
                "ours": training(network, images),
                "ours, features cached": training(network, images, cached=True),
                "anomalib": anomalib_training(model, loss, optimizer, images),
            },
            "inference": {
                "ours": inference(loaded(**choices), images),
                "anomalib": anomalib_inference(model, images),
            },
        }
        for what, sides in steps.items():
            found = medians(sides, rounds, clock)
            other = found.pop("anomalib")
            for side, milliseconds in found.items():
                print(
                    f"{backbone:16} {name:16} {what:14} {side:22} {milliseconds:8.0f} ms, "
                    f"{theirs[name].__name__} {other:8.0f} ms: {other / milliseconds:.2f} times as fast",
                    flush=True,
                )


def beside_teacher(images: Tensor, rounds: int, clock: Callable[[], float]) -> None:
    """Print the default's inference beside the bare teacher's pass."""
    network = loaded(**DEFAULT)
    plain = loaded(**{k: v for k, v in DEFAULT.items() if k != "experts"})
    read = network.stages + network.student_reads + network.expert_reads
    normalised = network._normalised(images)

    def teacher() -> None:
        with torch.inference_mode():
            network.teacher(normalised, read)

    steps: Steps = {
        "bare teacher": teacher,
        "default": inference(network, images),
        "default without experts": inference(plain, images),
    }
    found = medians(steps, rounds, clock)
    for name, milliseconds in found.items():
        print(
            f"{name:34} {milliseconds:8.0f} ms, {milliseconds / found['bare teacher']:.2f} of bare"
        )


def print_profile(images: Tensor) -> None:
    """Print the operations of the default's inference and training step, longest first."""
    network = build_multiad(teacher_weights="random", **DEFAULT)
    for name, run in (
        ("inference", inference(loaded(**DEFAULT), images)),
        ("training step", training(network, images)),
    ):
        run()
        with profile(activities=[ProfilerActivity.CPU]) as found:
            run()
        print(name)
        print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=12))


def main() -> None:
    """Print one line a comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", nargs="*", default=["resnet18", "wide_resnet50_2"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--processor-time", action="store_true")
    args = parser.parse_args()
    clock = time.process_time if args.processor_time else time.perf_counter
    torch.manual_seed(0)
    images = torch.rand(args.batch, 3, SIZE, SIZE)
    print(f"{SIZE} x {SIZE}, batch {args.batch}, {torch.get_num_threads()} threads")
    beside_teacher(images, args.rounds, clock)
    if args.profile:
        print_profile(images)
    try:
        import anomalib  # noqa: F401
    except ImportError as error:
        print(f"anomalib cannot be imported ({error}): pip install 'multiad-med[benchmark]'")
        return
    for backbone in args.backbones:
        beside_anomalib(backbone, images, args.rounds, clock)


if __name__ == "__main__":
    main()
