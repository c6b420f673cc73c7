"""How much the preparation of liver CT matters: view, window, and HU centred on the liver's median.

    python benchmarks/liver_preparation.py DATA OUTPUT [--size 192] [--steps 100] [--all]

DATA has ``p07_ct.nii.gz`` and ``p01_ct.nii.gz`` of 3D-IRCADb-01 with ``p07_label.nii.gz`` and
``p01_label.nii.gz`` (1 liver, 2 tumour, 3 cyst). Each setting prepares both by the recipe ``liver_ct``
and trains on slices of p07, whose liver is healthy. Every fourth block of ten slices is held out, and the
slice on either side of it belongs to nobody, so that no held-out slice has a neighbour in training.

Settings are chosen on p07 alone, by a self-test: held-out slices against the same slices with a disc in
the liver that is 60 HU darker or brighter. p01 is reported for the chosen setting; for all of them with
``--all``, which tells how much each matters and must choose nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import DataLoader
from torch import Tensor
from torch.utils.data import Subset

from multiad_med.benchmark.detectors import MultiADDetector, Settings
from multiad_med.data import SliceCache
from multiad_med.metrics import Ranking, aupro, auroc
from multiad_med.networks.losses import FeatureDistillationLoss
from multiad_med.preparation import load_recipe, prepare
from multiad_med.training import epochs_for

VIEWS = ("mask", "crop")
WINDOWS = ((-200, 250), (0, 200))
CENTRES = (None, 100)
BLOCK, HELD_OUT = 10, 4
DISC_HU = 60
DISC = 0.15  # its radius, as a part of the root of the liver's area
BATCH = 8


class Detector(MultiADDetector):
    """With the hard mining of the bundles."""

    def loss(self) -> FeatureDistillationLoss:
        """L_G."""
        return FeatureDistillationLoss(hardest=0.1, easy_weight=0.1)


def arrange(data: Path, folder: Path) -> Path:
    """The two patients as BTCV, which trains (6 is liver), and as LiTS, the test (1 and 2, tumour)."""
    for patient, image, mask, values in (
        ("p07", "btcv/img/img0007", "btcv/label/label0007", (0, 6, 6, 6)),
        ("p01", "lits/volume-1", "lits/segmentation-1", (0, 1, 2, 1)),
    ):
        target, labels = folder / f"{image}.nii.gz", folder / f"{mask}.nii.gz"
        if labels.exists():
            continue
        for path in (target, labels):
            path.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to((data / f"{patient}_ct.nii.gz").resolve())
        source = nib.load(data / f"{patient}_label.nii.gz")
        found = np.array(values, np.uint8)[np.asarray(source.dataobj).astype(np.uint8)]
        nib.save(nib.Nifti1Image(found, source.affine), labels)
    return folder


def divide(positions: Sequence[int]) -> tuple[list[int], list[int]]:
    """Indices of the training and of the held-out slices of a volume, by their positions."""

    def is_held_out(position: int) -> bool:
        return position // BLOCK % HELD_OUT == HELD_OUT - 1

    training, held_out = [], []
    for index, position in enumerate(positions):
        if is_held_out(position):
            held_out.append(index)
        elif not is_held_out(position - 1) and not is_held_out(position + 1):
            training.append(index)
    return training, held_out


def with_disc(item: dict[str, Any], *, amount: float, generator: torch.Generator) -> dict[str, Any]:
    """A slice with a disc inside its organ whose values differ, and the disc as its label."""
    organ = item["foreground"][0] > 0
    radius = DISC * math.sqrt(float(organ.sum()))
    inside = organ.nonzero()
    centre = inside[int(torch.randint(len(inside), (1,), generator=generator))]
    rows, columns = torch.meshgrid(*map(torch.arange, organ.shape), indexing="ij")
    distance = ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2).sqrt()
    disc = (distance <= radius) & organ
    image = (item["image"] + amount * disc).clamp(0, 1)
    return {**item, "image": image, "label": disc[None], "state": "abnormal"}


def metrics(detector: Detector, items: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Image AUROC, and of foreground pixels AUROC and average precision; AUPRO."""
    maps, scores = [], []
    for batch in DataLoader(items, batch_size=BATCH):
        found = detector.predict(batch["image"], batch["foreground"])
        maps.append(found[0])
        scores.append(found[1])
    joined, foreground = torch.cat(maps), torch.stack([i["foreground"] for i in items]) > 0
    labels: Tensor = torch.stack([i["label"] for i in items]) > 0
    pixels = Ranking(joined[foreground], labels[foreground])
    abnormal = torch.tensor([i["state"] == "abnormal" for i in items])
    return {
        "image AUROC": auroc(torch.cat(scores), abnormal),
        "pixel AUROC": pixels.auroc,
        "pixel AP": pixels.average_precision,
        "AUPRO": aupro(list(joined[:, 0]), list(labels[:, 0])),
    }


def run(
    source: Path, folder: Path, settings: dict[str, Any], *, size: int, steps: int, seed: int
) -> dict[str, Any]:
    """Prepare, train on p07, and measure on its held-out slices and on p01."""
    width = settings["windows"][0][1] - settings["windows"][0][0]
    given = {"size": size, "training": 1, "validation": 0}
    cache = folder / "-".join(
        map(str, (settings["view"], *settings["windows"][0], settings["centre"]))
    )
    prepare(
        load_recipe("liver_ct", {**given, **settings}), source, cache, workers=0, progress=False
    )
    healthy = SliceCache(cache, split="training")
    ill = SliceCache(cache, split="test", states=["normal", "abnormal"], labels=True)
    training, held_out = divide([int(row["slice"]) for row in healthy.index])
    detector = Detector(
        Settings(
            fused=(2, 3),
            epochs=epochs_for(steps, math.ceil(len(training) / BATCH)),
            batch_size=BATCH,
            score_fraction=0.01,
        )
    )
    parts = [Subset(healthy, part) for part in (training, held_out)]
    detector.fit(*parts, seed=seed)
    normal = [parts[1][i] for i in range(len(parts[1]))]
    normal = [{**item, "label": torch.zeros_like(item["foreground"])} for item in normal]
    generator = torch.Generator().manual_seed(seed)
    changed = [
        with_disc(item, amount=sign * DISC_HU / width, generator=generator)
        for item in normal
        for sign in (-1, 1)
    ]
    return {
        **settings,
        "slices": [len(part) for part in parts],
        "self-test": metrics(detector, normal + changed),
        "p01": metrics(detector, [ill[i] for i in range(len(ill))]),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path, help="prepared slices and results.jsonl")
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="p01 of every setting")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    source = arrange(args.data, args.output / "source")
    results = []
    for view, window, centre in product(VIEWS, WINDOWS, CENTRES):
        settings = {"view": view, "windows": [list(window)], "centre": centre}
        results.append(
            run(source, args.output, settings, size=args.size, steps=args.steps, seed=args.seed)
        )
        with (args.output / "results.jsonl").open("a") as file:
            file.write(json.dumps(results[-1]) + "\n")
    names = list(results[0]["p01"])
    header = ["view", "window", "centre", *(f"self-test {n}" for n in names[:3:2])]
    header += [f"p01 {name}" for name in names]
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
    chosen = max(results, key=lambda row: row["self-test"]["pixel AP"])
    for row in results:
        cells = [row["view"], row["windows"][0], "–" if row["centre"] is None else row["centre"]]
        cells += [f"{row['self-test'][name]:.3f}" for name in names[:3:2]]
        shown = args.all or row is chosen
        cells += [f"{row['p01'][name]:.3f}" if shown else "" for name in names]
        print("| " + " | ".join(map(str, cells)) + " |" + (" chosen" if row is chosen else ""))


if __name__ == "__main__":
    main()
