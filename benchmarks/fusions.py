"""What experts and stages add, on one prepared set: every fusion of one trained network.

    python benchmarks/fusions.py CACHE OUTPUT.csv [--bundle multiad_industrial] [--epochs 10]

Trains the decoder student once, fits all experts beside it, and fuses their distances in many ways.
Appends a row for each to OUTPUT.csv: image AUROC, pixel AUROC and AP, AUPRO, on the development half of
the test set. ``s`` is a stage's cosine distance, ``w`` its whitened residual, ``pos`` the Gaussian of
each position, ``knn`` the nearest neighbours. Parts joined by ``+`` are averaged; terms beside each other
are added.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import torch
from monai.data import DataLoader
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, Subset

from multiad_med.benchmark.compare import multiad_settings
from multiad_med.benchmark.detectors import MultiADDetector
from multiad_med.data import SliceCache
from multiad_med.evaluation.parts import Part, subjects_of_part
from multiad_med.metrics import Ranking, aupro, auroc
from multiad_med.networks import FusionMode, MultiAD, MultiScaleFusion, build_multiad
from multiad_med.networks.experts import ExpertKind, WhitenedResidual
from multiad_med.scoring import image_scores
from multiad_med.training import fit_experts
from multiad_med.training.calibration import values_inside

COLUMNS = "set teacher epochs seed part scale fused image_auroc pixel_auroc pixel_ap aupro command"
STUDENT = ["s1 s2", "s2 s3", "s1", "s2", "s3", "s1+s2+s3"]
WHITENED = ["w1", "w2", "w3", "w1+w2+w3"]
EXPERTS = ["pos", "knn", "pos knn"]
SUMS = [
    *("s2 pos", "s2 knn", "s1+s2 knn", "s2+s3 knn", "s1+s2+s3 knn"),
    *("s2 pos knn", "s1+s2 pos", "s1+s2 pos knn", "s2+s3 pos knn", "s1+s2+s3 pos knn"),
    *("w1+w2+w3 knn", "w1+w2+w3 pos knn", "s2+s3 w2+w3 knn", "s1+s2+s3 w1+w2+w3 pos knn"),
]
SCALES = {
    FusionMode.HAZARD: [*STUDENT, *WHITENED, *EXPERTS, *SUMS],
    FusionMode.ZSCORE: SUMS,
    FusionMode.SUM: ["s1 s2", "s1+s2 pos knn"],
    FusionMode.PRODUCT: ["s1 s2", "s1 s2 pos knn"],
}
MAXIMA = ["s1 s2 pos knn", "s2 s3 knn"]
"""Fused by the largest hazard."""


@torch.no_grad()
def distances(network: MultiAD, data: Dataset) -> tuple[dict[str, Tensor], list[dict]]:
    """All distance maps of a data set by name, and its items."""
    items = [data[i] for i in range(len(data))]  # type: ignore[arg-type]
    whitened = list(network.whitening)
    network.whitening = torch.nn.ModuleList()
    found: dict[str, list[Tensor]] = {}
    for batch in DataLoader(items, batch_size=16):
        teacher, student = network._all_features(batch["image"], network.stages)
        names = [*(f"s{s}" for s in network.stages), "pos", "knn"]
        maps = network.distances_of_features(teacher, student)
        for stage, expert in zip(network.stages, whitened, strict=True):
            names.append(f"w{stage}")
            maps.append(expert([teacher[stage - 1] - student[stage - 1]]))
        for name, values in zip(names, maps, strict=True):
            found.setdefault(name, []).append(values)
    network.whitening = torch.nn.ModuleList(whitened)
    return {name: torch.cat(values) for name, values in found.items()}, items


def terms(fused: str) -> dict[str, float]:
    """Weight of each map: ``s1+s2 knn`` is a half, a half, and one."""
    return {part: 1 / len(term.split("+")) for term in fused.split() for part in term.split("+")}


def metrics(maps: Tensor, items: list[dict], *, fraction: float) -> list[float]:
    """Image AUROC, pixel AUROC and AP, AUPRO."""
    foreground = torch.stack([i["foreground"] for i in items]) > 0
    labels = torch.stack([i["label"] for i in items]) > 0
    abnormal = torch.tensor([i["state"] == "abnormal" for i in items])
    maps = maps * foreground
    image = auroc(image_scores(maps, foreground, fraction=fraction), abnormal)
    if not labels.any():
        return [image]
    pixels = Ranking(maps.flatten(), labels.flatten())
    return [
        image,
        pixels.auroc,
        pixels.average_precision,
        aupro(list(maps[:, 0]), list(labels[:, 0])),
    ]


def main() -> None:
    """Train once, fuse often."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--bundle", default="multiad_industrial")
    parser.add_argument("--teacher", default="efficientnet_lite0")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", type=Part, default=Part.DEVELOPMENT)
    args = parser.parse_args()
    settings = multiad_settings(
        "multiad",
        teacher=args.teacher,
        teacher_weights="imagenet",
        epochs=args.epochs,
        bundle=args.bundle,
    )

    class Detector(MultiADDetector):
        def build(self) -> MultiAD:
            return build_multiad(
                args.teacher,
                student="decoder",
                stages=(1, 2, 3),
                output_stride=32,
                experts=list(ExpertKind),
                fusion=FusionMode.HAZARD,
            )

    training, held_out = (
        SliceCache(args.cache, split=split) for split in ("training", "validation")
    )
    detector = Detector(settings)
    detector.fit(training, held_out, seed=args.seed)
    network = detector.network.eval()
    network.whitening = torch.nn.ModuleList(map(WhitenedResidual, network.channels))
    fit_experts(network, DataLoader(training, batch_size=16))
    test = SliceCache(args.cache, split="test", states=["normal", "abnormal"], labels=True)
    subjects = subjects_of_part(test.index, args.part)
    rows = [i for i, row in enumerate(test.index) if row["subject"] in subjects]
    normal, normal_items = distances(network, held_out)
    new, items = distances(network, Subset(test, rows))
    inside = torch.stack([i["foreground"] for i in normal_items])
    size = list(items[0]["foreground"].shape[-2:])
    smoothing = network.fusion.smoothing
    is_new = not args.output.exists()
    with args.output.open("a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(COLUMNS.split())

        def write(scale: str, fused: str, maps: Tensor) -> None:
            found = metrics(maps, items, fraction=settings.score_fraction)
            values = [f"{value:.4f}" for value in found]
            about = [args.cache.name, args.teacher, args.epochs, args.seed, args.part, scale, fused]
            values += [""] * (4 - len(values))
            writer.writerow([*about, *values, " ".join(["python", *sys.argv])])
            print(args.cache.name, scale, fused, *values, flush=True)

        for mode, choices in SCALES.items():
            for fused in choices:
                weights = terms(fused)
                fusion = MultiScaleFusion(list(weights.values()), mode=mode, sigma=4.0)
                fusion.fit([values_inside(normal[name], inside) for name in weights])
                write(mode, fused, fusion([new[name] for name in weights], size))
        for fused in MAXIMA:
            hazards = []
            for name in fused.split():
                level = MultiScaleFusion([1.0], mode=FusionMode.HAZARD, sigma=0)
                level.fit([values_inside(normal[name], inside)])
                hazards.append(F.relu(level([new[name]], size)))
            write("max of hazards", fused, smoothing(torch.stack(hazards).amax(dim=0)))


if __name__ == "__main__":
    main()
