"""Do maps get sharper by smoothing across slices, or by the image's edges? One trained network each.

    python benchmarks/sharper_maps.py CACHE... -o OUTPUT.csv [--bundle multiad_industrial] [--epochs 10]

Trains a bundle's default on each set of prepared slices, and changes nothing but what is done to the
fused map m: nothing more; a Gaussian across the slices of a volume; a guided filter, whose guide is the
image (He et al., IEEE TPAMI 35, 2013). Prints image AUROC, pixel AP, AUPRO, Dice at the threshold of
0.1 % of held-out normal pixels, and the best Dice, of the part of the test set that is asked for.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable
from itertools import groupby
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
from multiad_med.metrics import Ranking, aupro, auroc, dice
from multiad_med.scoring import image_scores

COLUMNS = "set epochs seed part map image_auroc pixel_ap aupro dice best_dice command"
RATE = 0.001

Change = Callable[[Tensor, Tensor, list[str]], Tensor]


def across_slices(sigma: float) -> Change:
    """Return a Gaussian over the slices of each volume, ends continued."""
    radius = max(1, round(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()

    def change(maps: Tensor, images: Tensor, volumes: list[str]) -> Tensor:
        found = []
        for _, group in groupby(range(len(maps)), key=volumes.__getitem__):
            columns = maps[list(group), 0].permute(1, 2, 0)
            shape = columns.shape
            columns = F.pad(columns.reshape(-1, 1, shape[-1]), [radius, radius], mode="replicate")
            smooth = F.conv1d(columns, kernel.view(1, 1, -1)).reshape(shape)
            found.append(smooth.permute(2, 0, 1)[:, None])
        return torch.cat(found)

    return change


def guided(radius: int, epsilon: float) -> Change:
    """Return a guided filter with the grey image as its guide."""

    def mean(values: Tensor) -> Tensor:
        padded = F.pad(values, [radius] * 4, mode="replicate")
        return F.avg_pool2d(padded, 2 * radius + 1, stride=1)

    def change(maps: Tensor, images: Tensor, volumes: list[str]) -> Tensor:
        guide = images.mean(dim=1, keepdim=True)
        centre, level = mean(guide), mean(maps)
        slope = (mean(guide * maps) - centre * level) / (mean(guide**2) - centre**2 + epsilon)
        return (mean(slope) * guide + mean(level - slope * centre)).clamp_min(0)

    return change


CHANGES: dict[str, Change] = {
    "default": lambda maps, images, volumes: maps,
    "across slices, 1": across_slices(1.0),
    "across slices, 2": across_slices(2.0),
    "guided, radius 4, 1e-3": guided(4, 1e-3),
    "guided, radius 8, 1e-3": guided(8, 1e-3),
    "guided, radius 8, 1e-2": guided(8, 1e-2),
}


@torch.no_grad()
def raw_maps(detector: MultiADDetector, data: Dataset) -> tuple[Tensor, list[dict]]:
    """Return the fused maps m ``(N, 1, H, W)`` of a data set, and its items."""
    items = [data[i] for i in range(len(data))]  # type: ignore[arg-type]
    network = detector.network.eval()
    batches = DataLoader(items, batch_size=16)
    return torch.cat([network.raw_map(batch["image"])[:, :1] for batch in batches]), items


def stacked(items: list[dict], name: str) -> Tensor:
    """Return one entry of all items."""
    return torch.stack([item[name] for item in items])


def main() -> None:
    """Train once for each set, change the map in every way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("caches", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--bundle", default="multiad_industrial")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", type=Part, default=Part.DEVELOPMENT)
    args = parser.parse_args()
    settings = multiad_settings(
        "multiad",
        teacher="efficientnet_lite0",
        teacher_weights="imagenet",
        epochs=args.epochs,
        bundle=args.bundle,
    )
    is_new = not args.output.exists()
    with args.output.open("a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(COLUMNS.split())
        for cache in args.caches:
            training, held_out = (SliceCache(cache, split=s) for s in ("training", "validation"))
            detector = MultiADDetector(settings)
            detector.fit(training, held_out, seed=args.seed)
            test = SliceCache(cache, split="test", states=["normal", "abnormal"], labels=True)
            subjects = subjects_of_part(test.index, args.part)
            rows = [i for i, row in enumerate(test.index) if row["subject"] in subjects]
            normal, normal_items = raw_maps(detector, held_out)
            new, items = raw_maps(detector, Subset(test, rows))
            inside = stacked(normal_items, "foreground") > 0
            foreground, labels = stacked(items, "foreground") > 0, stacked(items, "label") > 0
            abnormal = torch.tensor([item["state"] == "abnormal" for item in items])
            for name, change in CHANGES.items():
                studies = [row["study"] for row in held_out.index]
                before = change(normal, stacked(normal_items, "image"), studies)
                studies = [test.index[i]["study"] for i in rows]
                if name.startswith("across") and len(set(studies)) == len(studies):
                    continue
                maps = change(new, stacked(items, "image"), studies) * foreground
                values = before[inside].sort(descending=True).values
                threshold = float(values[int(RATE * len(values))])
                pixels = Ranking(maps.flatten(), labels.flatten())
                scores = image_scores(maps, foreground, fraction=settings.score_fraction)
                found = [
                    auroc(scores, abnormal),
                    pixels.average_precision,
                    aupro(list(maps[:, 0]), list(labels[:, 0])),
                    dice(maps >= threshold, labels),
                    pixels.f1_max,
                ]
                about = [cache.name, args.epochs, args.seed, args.part, name]
                told = [f"{value:.4f}" for value in found]
                writer.writerow([*about, *told, " ".join(["python", *sys.argv])])
                print(cache.name, name, *told, flush=True)


if __name__ == "__main__":
    main()
