"""How often healthy volumes are called anomalous, by nested cross-validation.

    python benchmarks/normal_verdicts.py NORMALS OUTPUT [--folds 4] [--size 128] [--epochs 2]

NORMALS is a folder of healthy brains, one NIfTI file each. Each outer fold is held out in turn. On the
others a model is trained (two subjects fit the fusion's scale) and cross-calibrated with as many inner
folds; then it judges the outer fold. Prints, for each level, the observed rate beside the nominal one,
with its exact 95 % interval. Thresholds are approximate: see multiad_med.cross_calibration.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from monai.data import partition_dataset
from scipy.stats import binomtest

from multiad_med.cross_calibration import cross_calibrate
from multiad_med.data.datalist import rank_subjects
from multiad_med.networks import read_card
from multiad_med.resources import run_bundle
from multiad_med.scoring import Level

BUNDLE = "multiad_brain_mri"
FITTING = 2


def judge(images: list[Path], test: set[str], output: Path, args: argparse.Namespace) -> list[dict]:
    """Train without an outer fold, cross-calibrate, and read the JSON of each of its studies."""
    rest = [image for image in images if image.name not in test]

    def items(paths: list[Path]) -> list[dict[str, str]]:
        return [{"image": str(path), "subject": path.name} for path in paths]

    output.mkdir(parents=True, exist_ok=True)
    splits = {
        "training": items(rest[FITTING:]),
        "validation": items(rest[:FITTING]),
        "test": items([image for image in images if image.name in test]),
    }
    datalist = output / "datalist.json"
    datalist.write_text(json.dumps(splits), encoding="utf-8")
    run_bundle(
        BUNDLE,
        "train.json",
        workflow_type="train",
        dataset_dir=str(datalist),
        ckpt_dir=str(output / "model"),
        output_dir=str(output / "model"),
        size=args.size,
        max_epochs=args.epochs,
    )
    model = cross_calibrate(
        output / "model" / "model.pt", datalist, output / "cross", folds=args.folds
    )
    run_bundle(
        BUNDLE,
        "inference.json",
        workflow_type="infer",
        dataset_dir=str(datalist),
        ckpt_path=str(model),
        output_dir=str(output / "maps"),
    )
    card = read_card(model)
    assert card is not None
    print(f"{output.name}: {card.level(Level.VOLUME).units} normal volumes", flush=True)
    return [json.loads(p.read_text()) for p in sorted((output / "maps").rglob("*_anomaly.json"))]


def main() -> None:
    """Judge each outer fold, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("normals", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args()
    images = sorted(path.resolve() for path in args.normals.glob("*.nii*"))
    names = rank_subjects([image.name for image in images], seed=0)
    judged: list[dict] = []
    for number, test in enumerate(partition_dataset(names, num_partitions=args.folds)):
        judged += judge(images, set(test), args.output / f"outer{number}", args)
    volumes = [study["volume_flagged"] for study in judged]
    slices = [one["flagged"] for study in judged for one in study["slices"]]
    print("| level | normal units | called anomalous | observed | 95 % interval | nominal |")
    print("|---|---|---|---|---|---|")
    for level, flags in (("volume", volumes), ("slice", slices)):
        found = binomtest(sum(flags), len(flags))
        interval = found.proportion_ci()
        # Slices of one volume are alike: an interval that takes them as independent is too narrow.
        shown = f"{interval.low:.3f} to {interval.high:.3f}" if level == "volume" else "-"
        rate = judged[0]["thresholds"][f"{level}_false_positive_rate"]
        print(
            f"| {level} | {len(flags)} | {sum(flags)} | {found.statistic:.3f} | {shown} | {rate} |"
        )
    p_values = sorted(study["volume_p_value"] for study in judged)
    print("p-values of the volumes:", " ".join(f"{p:.2f}" for p in p_values))


if __name__ == "__main__":
    main()
