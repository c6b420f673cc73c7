"""Does the self-test rank models as real defects do, and does light augmentation help?

    python benchmarks/self_test_ranking.py TREE OUTPUT [--images 80] [--size 192] [--epochs 6]
        [--light]

TREE is a category in MVTec's form. The industrial bundle trains once on so many of its normal images, of
which a quarter is held out. Every choice of fused stages is calibrated and self-tested on those. The
truth is its image AUROC on up to 48 good test images and 10 defective ones of each kind. Printed are all
metrics, and the rank correlation of each figure of the self-test with the truth over the choices. Few
images, one seed: rough.
"""

from __future__ import annotations

import argparse
import random
import time
from itertools import combinations
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from scipy.stats import spearmanr
from torch import Tensor

from multiad_med.detector import AnomalyDetector
from multiad_med.evaluation.predictions import map_slices
from multiad_med.metrics import auroc
from multiad_med.networks import MultiAD, MultiScaleFusion, open_model
from multiad_med.resources import read_config
from multiad_med.training import calibrate, self_test

BUNDLE = "multiad_industrial"


def link_some(tree: Path, folder: Path, count: int) -> None:
    """Link so many normal training images, always the same ones."""
    images = sorted((tree / "train" / "good").iterdir())
    random.Random(0).shuffle(images)
    target = folder / "train" / "good"
    target.mkdir(parents=True, exist_ok=True)
    for image in images[:count]:
        if not (target / image.name).exists():
            (target / image.name).symlink_to(image.resolve())


def test_images(tree: Path, parser: ConfigParser) -> tuple[Tensor, Tensor]:
    """Test images ``(N, 3, H, W)`` as the bundle prepares them, and whether each is defective."""
    prepare = parser.get_parsed_content("train#preprocessing")
    chosen = [(path, False) for path in sorted((tree / "test" / "good").iterdir())[:48]]
    for kind in sorted(p for p in (tree / "test").iterdir() if p.name != "good"):
        chosen += [(path, True) for path in sorted(kind.iterdir())[:10]]
    images = [prepare({"image": str(path)})["image"][..., 0] for path, _ in chosen]
    return torch.stack([i.as_subclass(Tensor) for i in images]), torch.tensor(
        [defective for _, defective in chosen]
    )


def truth(network: MultiAD, images: Tensor, defective: Tensor) -> float:
    """Image AUROC."""
    parts = [map_slices(network, part, torch.ones_like(part[:, :1]))[1] for part in images.split(8)]
    return auroc(torch.cat(parts), defective)


def main() -> None:
    """Run the command."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("tree", type=Path)
    options.add_argument("output", type=Path)
    options.add_argument("--images", type=int, default=80)
    options.add_argument("--size", type=int, default=192)
    options.add_argument("--epochs", type=int, default=6)
    options.add_argument("--light", action="store_true")
    given = options.parse_args()
    data = given.output / "data"
    link_some(given.tree, data, given.images)
    settings = {"size": given.size, "validation_fraction": 0.25, "seed": 0}
    AnomalyDetector("industrial", device="cpu", **settings).fit(
        data,
        output=given.output,
        max_epochs=given.epochs,
        val_interval=given.epochs,
        light_augmentation=given.light,
        self_test=False,
    )
    config = read_config(BUNDLE, "train.json") | settings | {"dataset_dir": str(data)}
    parser = ConfigParser(config)
    fit, thresholds = (
        parser.get_parsed_content(f"{part}#dataloader") for part in ("validate", "calibrate")
    )
    images, defective = test_images(given.tree, parser)
    network = open_model(given.output / "model.pt")
    stages = network.stages
    metrics: dict[str, list[float]] = {}
    for fused in (c for n in range(1, len(stages) + 1) for c in combinations(stages, n)):
        network.fusion = MultiScaleFusion(len(stages), fused=[s in fused for s in stages])
        calibrate(network, fit, threshold_batches=thresholds)
        start = time.process_time()
        found = self_test(network, thresholds)
        seconds = time.process_time() - start
        row = {
            "truth": truth(network, images, defective),
            "unchanged": found.slice_auroc(),
            "worst": found.worst_auroc(),
            "worst up to 5 %": sum(found.worst_auroc(size=s) for s in found.sizes[:3]) / 3,
            "light": -max(r.auroc for r in found.reactions if r.light),
        }
        for name, value in row.items():
            metrics.setdefault(name, []).append(value)
        told = ", ".join(f"{name} {value:.3f}" for name, value in row.items())
        print(f"{fused}: {told}; {seconds:.0f} s of CPU\n  {found.summary}", flush=True)
    true = metrics.pop("truth")
    for name, values in metrics.items():
        rank = spearmanr(true, values).statistic
        print(f"rank correlation of {name} with the truth: {rank:.2f}")


if __name__ == "__main__":
    main()
