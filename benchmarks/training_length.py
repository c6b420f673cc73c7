"""How long a training must be on few normal images: accuracy and held-out loss by optimiser steps.

    python benchmarks/training_length.py CACHE [--images 25] [--steps 25 100 200 500] [--seeds 0 1 2]

CACHE is a folder of `multiad prepare`. Each training takes so many of its normal images, drawn once,
under one cycle of the learning rate over its own steps, as the industrial bundle has it; a ninth as many
held-out images calibrate. Metrics are of the development half of the test split
(multiad_med.evaluation.Part); the loss is of all held-out images.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from monai.data import DataLoader
from torch.utils.data import Dataset, Subset

from multiad_med.benchmark.detectors import MultiADDetector, Settings
from multiad_med.data import SliceCache
from multiad_med.evaluation.parts import Part, subjects_of_part
from multiad_med.metrics import Ranking, aupro, auroc
from multiad_med.networks.losses import FeatureDistillationLoss
from multiad_med.training import epochs_for

BATCH = 8


class Detector(MultiADDetector):
    """With the hard mining of the bundles."""

    def loss(self) -> FeatureDistillationLoss:
        """L_G."""
        return FeatureDistillationLoss(hardest=0.1, easy_weight=0.1)


@torch.no_grad()
def mean_loss(detector: Detector, held_out: Dataset) -> float:
    """L_G on normal images, mean over batches."""
    network, loss = detector.network.eval(), detector.loss()
    losses = [
        float(loss(*network.features(batch["image"])))
        for batch in DataLoader(held_out, batch_size=BATCH)
    ]
    return sum(losses) / len(losses)


def metrics(detector: Detector, test: Dataset, count: int) -> dict[str, float]:
    """Of images AUROC, of pixels AUROC and average precision; AUPRO."""
    maps, scores = [], []
    for batch in DataLoader(test, batch_size=16):
        found = detector.predict(batch["image"], batch["foreground"])
        maps.append(found[0])
        scores.append(found[1])
    joined, items = torch.cat(maps), [test[i] for i in range(count)]
    masks = torch.stack([item["label"] for item in items]) > 0
    abnormal = torch.tensor([item["state"] == "abnormal" for item in items])
    pixels = Ranking(joined, masks)
    return {
        "image_auroc": auroc(torch.cat(scores), abnormal),
        "pixel_auroc": pixels.auroc,
        "pixel_ap": pixels.average_precision,
        "aupro": aupro(list(joined[:, 0]), list(masks[:, 0])),
    }


def measure(cache: Path, images: int, steps: Sequence[int], seeds: Sequence[int]) -> None:
    """Train for each number of steps and each seed, and print a line of JSON for each."""
    training = SliceCache(cache, split="training")
    held_out = SliceCache(cache, split="validation")
    test = SliceCache(cache, split="test", states=["normal", "abnormal"], labels=True)
    chosen = subjects_of_part(test.index, Part.DEVELOPMENT)
    half = [i for i, row in enumerate(test.index) if row["subject"] in chosen]
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(0)).tolist()
    taken = Subset(training, order[:images])
    calibrating = Subset(held_out, range(min(len(held_out), max(3, images // 9))))
    for seed in seeds:
        for wanted in steps:
            epochs = epochs_for(wanted, math.ceil(len(taken) / BATCH))
            detector = Detector(Settings(fused=(1, 2), epochs=epochs, batch_size=BATCH))
            start = time.perf_counter()
            detector.fit(taken, calibrating, seed=seed)
            row = {
                "set": cache.name,
                "images": len(taken),
                "seed": seed,
                "steps": epochs * math.ceil(len(taken) / BATCH),
                "seconds": round(time.perf_counter() - start),
                "held_out_loss": mean_loss(detector, held_out),
                **metrics(detector, Subset(test, half), len(half)),
            }
            print(json.dumps(row), flush=True)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--images", type=int, default=25)
    parser.add_argument("--steps", type=int, nargs="+", default=[25, 100, 200, 500])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    measure(args.cache, args.images, args.steps, args.seeds)


if __name__ == "__main__":
    main()
