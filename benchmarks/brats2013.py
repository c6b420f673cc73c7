"""The brain bundle on the four patients of BraTS 2013, each in turn held out for test.

    python benchmarks/brats2013.py DATA OUTPUT [--sequence T1c] [--epochs 30]

DATA holds one folder per patient, at any depth, with ``T1c_*.nii.gz`` or ``Flair_*.nii.gz`` and the
manual labels ``OTMultiClass.nii.gz``. In each of the four folds one patient is the test set, the next
one's tumour-free slices calibrate, and the other two's tumour-free slices train. Beside the model's
metrics it prints those of plain smoothed brightness on the very same slices.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from multiad_med.metrics import Ranking
from multiad_med.resources import run_bundle
from multiad_med.utils.atomic import write_json

KEYS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro", "best_dice", "dice")


def run(config: str, workflow_type: str, **override: object) -> float:
    """Run one config of the bundle; returns the seconds that it took, reading included."""
    start = time.perf_counter()
    run_bundle("multiad_brain_mri", config, workflow_type=workflow_type, **override)
    return time.perf_counter() - start


def brightness(item: dict[str, str], scored: list[int]) -> dict[str, float]:
    """Image and pixel metrics of the intensity itself, smoothed (sigma 4), on the scored slices."""
    image = nib.as_closest_canonical(nib.load(item["image"])).get_fdata()
    label = np.asarray(nib.as_closest_canonical(nib.load(item["label"])).dataobj) > 0
    smooth = np.stack([gaussian_filter(image[..., k], 4.0) for k in scored])
    masks = np.stack([label[..., k] for k in scored])
    images = Ranking(
        torch.from_numpy(smooth.max(axis=(1, 2))), torch.from_numpy(masks.any(axis=(1, 2)))
    )
    pixels = Ranking(torch.from_numpy(smooth), torch.from_numpy(masks))
    return {
        "image_auroc": images.auroc,
        "pixel_auroc": pixels.auroc,
        "pixel_ap": pixels.average_precision,
        "best_dice": pixels.f1_max,
    }


def main() -> None:
    """Run the four folds and print their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--sequence", default="T1c")
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args()
    patients = [
        {
            "image": str(path.resolve()),
            "label": str((path.parent / "OTMultiClass.nii.gz").resolve()),
            "subject": path.parent.name,
        }
        for path in sorted(args.data.rglob(f"{args.sequence}_*.nii.gz"))
    ]
    rows = []
    for fold, test in enumerate(patients):
        folder = (args.output / f"fold{fold}").resolve()
        calibration = patients[(fold + 1) % len(patients)]
        training = [p for p in patients if p not in (test, calibration)]
        datalist = {"training": training, "validation": [calibration], "test": [test]}
        write_json(folder / "datalist.json", datalist)
        common = {"dataset_dir": str(folder), "output_dir": str(folder)}
        seconds = run(
            "train.json",
            "train",
            ckpt_dir=str(folder / "models"),
            max_epochs=args.epochs,
            resume=False,
            **common,
        )
        volume_seconds = run(
            "evaluate.json", "infer", ckpt_path=str(folder / "models" / "model.pt"), **common
        )
        metrics = json.loads((folder / "metrics.json").read_text())
        name = Path(test["image"]).name.removesuffix(".nii.gz")
        (path,) = folder.rglob(f"{name}_anomaly.json")
        scores = json.loads(path.read_text())
        scored = [s["slice"] for s in scores["slices"]]
        rows.append((test["subject"], metrics, brightness(test, scored)))
        print(
            f"{test['subject']}: training {seconds:.0f} s ({seconds / args.epochs:.1f} s per epoch, "
            f"reading and calibration included), evaluation of the volume "
            f"{volume_seconds:.0f} s, {len(scored)} slices",
            flush=True,
        )
    print("\n| test patient | " + " | ".join(KEYS) + " |\n" + "|---" * (len(KEYS) + 1) + "|")
    for subject, metrics, _ in rows:
        print(f"| {subject} | " + " | ".join(f"{metrics[k]:.3f}" for k in KEYS) + " |")
    print(
        "| mean | " + " | ".join(f"{np.mean([m[k] for _, m, _ in rows]):.3f}" for k in KEYS) + " |"
    )
    means = {k: float(np.mean([b[k] for *_, b in rows])) for k in rows[0][2]}
    print(
        "| smoothed brightness, mean | "
        + " | ".join(f"{means[k]:.3f}" if k in means else "-" for k in KEYS)
        + " |"
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\npeak memory {peak:.1f} GiB")


if __name__ == "__main__":
    main()
