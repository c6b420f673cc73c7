"""Trials of Multi-AD's choices on the development half of a test set.

    python benchmarks/trials.py CACHE OUTPUT [--trials NAME ...] [--epochs 20] [--seeds 0]

STORE is a folder of `multiad prepare`. Each trial trains once per seed; from its network the maps of
all stages, fusions, smoothings and score rules are made without training again, and the student's
moving average beside the student itself. Metrics are of the development half of the test split
(multiad_med.evaluation.Part): what is chosen on them is reported on the other half. Results are
appended to OUTPUT/trials.jsonl, one line per variant; --table prints the main ones of that file.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, RandFlipd, RandRotate90d, RandRotated
from torch import Tensor, nn
from torch.utils.data import Subset

from multiad_med.benchmark.detectors import MultiADDetector, Settings
from multiad_med.data import SliceCache
from multiad_med.evaluation.parts import Part, subjects_of_part
from multiad_med.metrics import Ranking, aupro, auroc
from multiad_med.networks import (
    FusionMode,
    MultiAD,
    MultiScaleFusion,
    build_multiad,
    cosine_distance_maps,
    load_model,
)
from multiad_med.networks.losses import FeatureDistillationLoss
from multiad_med.scoring import image_scores
from multiad_med.training.calibration import values_inside

SCORES = {"max": 0.0, "top 0.1 %": 0.001, "top 1 %": 0.01}
SIGMAS = (0.0, 2.0, 4.0, 6.0)


class NoisyStudent(nn.Module):
    """A student that sees the teacher's features with Gaussian noise while it trains."""

    def __init__(self, student: nn.Module, amount: float) -> None:
        super().__init__()
        self.student = student
        self.amount = amount

    def forward(self, image: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """Features of the teacher's shapes."""
        if self.training:
            teacher_features = [
                f + self.amount * f.std() * torch.randn_like(f) for f in teacher_features
            ]
        return self.student(image, teacher_features)


class Average:
    """Moving average of the student's state, taken at every iteration."""

    def __init__(self, detector: MultiADDetector, decay: float = 0.995) -> None:
        self.detector = detector
        self.decay = decay
        self.student: nn.Module | None = None

    def attach(self, engine: Engine) -> None:
        """Register."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Average."""
        own = self.detector.network.student
        if self.student is None:
            self.student = copy.deepcopy(own)
        for key, value in self.student.state_dict().items():
            new = own.state_dict()[key]
            value.lerp_(new, 1 - self.decay) if value.is_floating_point() else value.copy_(new)


class TrialDetector(MultiADDetector):
    """Multi-AD with what is only tried."""

    def __init__(
        self,
        settings: Settings,
        *,
        hardest: tuple[float, float] | None = None,
        noise: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(settings, **kwargs)
        self.hardest = hardest
        self.noise = noise
        self.average = Average(self)

    def build(self) -> MultiAD:
        """The network, its student wrapped."""
        network = super().build()
        if self.noise:
            network.student = NoisyStudent(network.student, self.noise)
        return network

    def loss(self) -> Callable[[list[Tensor], list[Tensor]], Tensor]:
        """L_G, with the hardest part and the weight of the others that are tried."""
        if self.hardest is None:
            return super().loss()
        part, easy_weight = self.hardest
        return FeatureDistillationLoss(hardest=part, easy_weight=easy_weight)

    def handlers(self) -> list[Any]:
        """The moving average."""
        return [self.average]


def augment(item: dict[str, Any]) -> dict[str, Any]:
    """Any rotation and reflection, the border continued."""
    return Compose(
        [
            RandRotate90d("image", prob=0.75),
            RandFlipd("image", prob=0.5, spatial_axis=0),
            RandRotated("image", prob=0.75, range_x=0.78, padding_mode="border", mode="bilinear"),
        ]
    )({"image": item["image"], "foreground": item["foreground"]})


def normalise_brightness(item: dict[str, Any]) -> dict[str, Any]:
    """Every image scaled to a median of 0.7 in its foreground, so that its light tells nothing."""
    image = item["image"]
    median = image.mean(dim=0, keepdim=True)[item["foreground"] > 0].median()
    return item | {"image": (image * (0.7 / median)).clamp(max=1)}


DECODER = Settings()
IMAGE = replace(DECODER, preset="efficientnet_lite0", learning_rate=1e-3)
RESNET = replace(IMAGE, preset="resnet50")
REVERSE = replace(DECODER, preset="resnet50", student="decoder", stages=(1, 2, 3), output_stride=32)
TRIALS: dict[str, tuple[Settings, dict[str, Any]]] = {
    "paper's student": (IMAGE, {}),
    "paper's student, no SE": (replace(IMAGE, se=False), {}),
    "paper's student, D 0.001": (replace(IMAGE, adversarial_weight=1e-3), {}),
    "paper's student, D 0.01": (replace(IMAGE, adversarial_weight=1e-2), {}),
    "paper's student, D 0.1": (replace(IMAGE, adversarial_weight=1e-1), {}),
    "paper's student, D 0.01 on two stages": (
        replace(IMAGE, adversarial_weight=1e-2, discriminator_input="fused"),
        {},
    ),
    "paper's student, stages 2-3": (replace(IMAGE, stages=(2, 3)), {}),
    "decoder": (DECODER, {}),
    "decoder, stages 1-4": (replace(DECODER, stages=(1, 2, 3, 4)), {}),
    "decoder, no SE": (replace(DECODER, se=False), {}),
    "decoder, whole map": (replace(DECODER, cosine="whole_map"), {}),
    "decoder, whole map, stages 1-2": (
        replace(DECODER, cosine="whole_map", stages=(1, 2)),
        {},
    ),
    "decoder, whole map, no SE": (replace(DECODER, cosine="whole_map", se=False), {}),
    "decoder, whole map, learning rate 1e-3": (
        replace(DECODER, cosine="whole_map", learning_rate=1e-3),
        {},
    ),
    "decoder, whole map, noise 0.5": (replace(DECODER, cosine="whole_map"), {"noise": 0.5}),
    "decoder, hardest 10 %, others 0.1": (DECODER, {"hardest": (0.1, 0.1)}),
    "decoder, hardest 1 %": (DECODER, {"hardest": (0.01, 0.0)}),
    "decoder, noise 0.2": (DECODER, {"noise": 0.2}),
    "decoder, noise 0.5": (DECODER, {"noise": 0.5}),
    "decoder, D 0.001": (replace(DECODER, adversarial_weight=1e-3), {}),
    "decoder, D 0.01": (replace(DECODER, adversarial_weight=1e-2), {}),
    "decoder, learning rate 1e-3": (replace(DECODER, learning_rate=1e-3), {}),
    "decoder, brightness normalisation": (DECODER, {"normalise_brightness": True}),
    "decoder, whole map, brightness normalisation": (
        replace(DECODER, cosine="whole_map"),
        {"normalise_brightness": True},
    ),
    "paper's student, brightness normalisation": (IMAGE, {"normalise_brightness": True}),
    "decoder, augmented": (DECODER, {"augmented": True}),
    "decoder, augmented, whole map": (replace(DECODER, cosine="whole_map"), {"augmented": True}),
    "ResNet-50, output stride 32": (replace(RESNET, output_stride=32), {}),
    "ResNet-50, output stride 16": (replace(RESNET, output_stride=16), {}),
    "ResNet-50, output stride 8": (replace(RESNET, output_stride=8), {}),
    "ResNet-50, decoder, output stride 32": (REVERSE, {}),
}


@torch.no_grad()
def stage_maps(network: MultiAD, data: Any) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """Distance maps of every stage over a data set, and its items."""
    network.eval()
    parts, items = [], []
    for batch in DataLoader(data, batch_size=16):
        parts.append(cosine_distance_maps(*network.features(batch["image"])))
    items = [data[i] for i in range(len(data))]
    return [torch.cat(level) for level in zip(*parts, strict=True)], items


def variants(network: MultiAD, held_out: Any, test: Any, about: dict[str, Any]) -> list[dict]:
    """Metrics of every stage choice, fusion, smoothing and score rule of one network."""
    normal, normal_items = stage_maps(network, held_out)
    normal_foreground = torch.stack([item["foreground"] for item in normal_items])
    levels, items = stage_maps(network, test)
    labels = torch.tensor([i["state"] == "abnormal" for i in items])
    masks = torch.stack([i["label"][0] for i in items])
    foreground = torch.stack([i["foreground"] for i in items])
    known = (~labels | masks.flatten(1).any(dim=1))[:, None, None, None] & foreground
    size = list(masks.shape[-2:])
    count = len(network.stages)
    choices = [c for n in range(1, count + 1) for c in combinations(range(count), n)]
    rows = []
    for choice in choices:
        for mode in FusionMode:
            if len(choice) == 1 and mode not in (FusionMode.ZSCORE, FusionMode.SUM):
                continue
            for sigma in SIGMAS:
                if sigma != 4 and mode is not FusionMode.ZSCORE:
                    continue
                fusion = MultiScaleFusion([1.0] * len(choice), mode=mode, sigma=sigma)
                fusion.fit([values_inside(normal[i], normal_foreground) for i in choice])
                maps = fusion([levels[i] for i in choice], size) * foreground
                row = about | {
                    "stages": [network.stages[i] for i in choice],
                    "fusion": str(mode),
                    "sigma": sigma,
                }
                if sigma == 4 and mode in (FusionMode.ZSCORE, FusionMode.QUANTILE):
                    pixels = Ranking(maps[known], masks[:, None][known])
                    row["pixel_auroc"] = pixels.auroc
                    row["pixel_ap"] = pixels.average_precision
                for rule, fraction in SCORES.items():
                    scores = image_scores(maps, foreground, fraction=fraction)
                    row[f"image_auroc {rule}"] = auroc(scores, labels)
                if mode is FusionMode.ZSCORE and sigma == 4 and len(choice) == count:
                    row["aupro"] = aupro(list(maps[:, 0]), list(masks))
                rows.append(row)
    return rows


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Append rows to the results."""
    with (folder / "trials.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def print_table(path: Path, *, everything: bool) -> None:
    """Markdown of every choice of stages, z-scored with sigma 4; or of every fusion and sigma too."""
    metrics = [*(f"image_auroc {rule}" for rule in SCORES), "pixel_auroc", "pixel_ap", "aupro"]
    header = [
        "set",
        "trial",
        "epochs",
        "seed",
        "training, s",
        "average",
        "stages",
        "fusion",
        "sigma",
    ]
    header += [f"image AUROC {rule}" for rule in SCORES] + ["pixel AUROC", "pixel AP", "AUPRO"]
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if everything or (row["fusion"] == "zscore" and row["sigma"] == 4):
            cells = [row[key] for key in ("store", "trial", "epochs", "seed")]
            cells += [row.get("seconds", ""), "yes" if row["average"] else "no"]
            cells += ["+".join(map(str, row["stages"])), row["fusion"], row["sigma"]]
            cells += [f"{row[name]:.3f}" if name in row else "" for name in metrics]
            print("| " + " | ".join(map(str, cells)) + " |")


def main() -> None:
    """Run the trials that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--trials", nargs="+", default=list(TRIALS), choices=list(TRIALS))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--part", choices=list(Part), default=Part.DEVELOPMENT)
    parser.add_argument("--teacher_weights", help="a file; the preset's ImageNet weights without")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--all", action="store_true", help="of the table: every fusion and sigma")
    parser.add_argument("--model", type=Path, help="a trained model.pt, tried without training")
    parser.add_argument("--preset", default="efficientnet_lite0_decoder", help="of --model")
    args = parser.parse_args()
    if args.table:
        print_table(args.output / "trials.jsonl", everything=args.all)
        return
    args.output.mkdir(parents=True, exist_ok=True)
    training = SliceCache(args.cache, split="training")
    held_out = SliceCache(args.cache, split="validation")
    test = SliceCache(args.cache, split="test", states=["normal", "abnormal"], labels=True)
    chosen = subjects_of_part(test.index, Part(args.part))
    half = Subset(test, [i for i, row in enumerate(test.index) if row["subject"] in chosen])
    if args.model is not None:
        network = build_multiad(args.preset, teacher_weights="checkpoint")
        load_model(network, args.model)
        about = {"store": args.cache.name, "trial": "trained model", "epochs": "", "seed": ""}
        write(args.output, variants(network, held_out, half, about | {"average": False}))
        return
    for name in args.trials:
        settings, options = TRIALS[name]
        if args.teacher_weights is not None:
            settings = replace(settings, teacher_weights=args.teacher_weights)
        options = dict(options)
        augmented = options.pop("augmented", False)
        light = options.pop("normalise_brightness", False)
        data, calibration, tested = (
            Dataset(d, normalise_brightness) if light else d for d in (training, held_out, half)
        )
        for seed in args.seeds:
            start = time.perf_counter()
            detector = TrialDetector(
                replace(settings, epochs=args.epochs),
                on_epoch=lambda e, loss: print(f"  epoch {e}: {loss:.4f}", flush=True),
                **options,
            )
            detector.fit(Dataset(data, augment) if augmented else data, calibration, seed=seed)
            about = {
                "store": args.cache.name,
                "size": training.about["size"][0],
                "trial": name,
                "epochs": args.epochs,
                "seed": seed,
                "seconds": round(time.perf_counter() - start),
                "loss": detector.losses[-1],
            }
            network = detector.network
            rows = variants(network, calibration, tested, about | {"average": False})
            network.student = detector.average.student
            rows += variants(network, calibration, tested, about | {"average": True})
            write(args.output, rows)
            default = next(
                r
                for r in rows
                if r["stages"] == network.stages and r["fusion"] == "zscore" and r["sigma"] == 4
            )
            print({k: v for k, v in default.items() if not isinstance(v, list)}, flush=True)


if __name__ == "__main__":
    main()
