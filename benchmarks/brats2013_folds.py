"""Prepared slices of the four patients of BraTS 2013, each in turn held out for test.

    python benchmarks/brats2013_folds.py DATA OUTPUT [--sequence T1c] [--size 256]

DATA is as for brats2013.py. Writes four caches, OUTPUT/brats2013_fold0 to 3, for `multiad benchmark`
compare and ablate: in each one patient is the test set, the next calibrates, the other two train.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from multiad_med.preparation import load_recipe, prepare


def main() -> None:
    """Prepare the four folds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--sequence", default="T1c")
    parser.add_argument("--size", type=int, default=256)
    args = parser.parse_args()
    images = [p.resolve() for p in sorted(args.data.rglob(f"{args.sequence}_*.nii.gz"))]
    args.output.mkdir(parents=True, exist_ok=True)
    for fold in range(len(images)):
        table = args.output / f"fold{fold}.csv"
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "label", "subject", "study", "split"])
            for number, image in enumerate(images):
                split = {fold: "test", (fold + 1) % len(images): "validation"}.get(number)
                name = image.parent.name
                label = image.parent / "OTMultiClass.nii.gz"
                writer.writerow([image, label, name, name, split or "training"])
        summary = prepare(
            load_recipe("volumes", {"kind": "mr", "size": args.size}),
            source=table,
            target=args.output / f"brats2013_fold{fold}",
            workers=1,
        )
        print(f"fold {fold}: {summary}", flush=True)


if __name__ == "__main__":
    main()
