"""Liver and retina bundles on the one patient each that is at hand: that they run, not how well.

DATA has ``ct/example_ct.nii.gz`` (3 mm) with ``ct/liver/liver.nii.gz``, ``ct/example_ct_dicom`` with
``ct/example_seg_dicom.nii.gz``, and ``oct/*/*.png``, the B-scans of one diseased eye. One patient is
training and test at once, so that no figure here says anything about accuracy.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import time
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from multiad_med.datasets.layout_files import natural_key
from multiad_med.readers import LoadBScans
from multiad_med.resources import run_bundle
from multiad_med.utils.atomic import write_json
from multiad_med.visualize import MontageColumn, save_montage

LIVER_OF_SEGMENTATION = 5
BALL = (91, 54, 97)
BALL_RADIUS_MM, BALL_HU = 10.0, -60


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return str(path.resolve())


def write_liver_datalists(data: Path, output: Path) -> None:
    """The NIfTI CT trains, the DICOM series calibrates; both, and a CT with a dark ball, are test."""
    ct = nib.load(data / "ct/example_ct.nii.gz")
    values = np.asarray(ct.dataobj).astype(np.int16)
    mask = np.asarray(nib.load(data / "ct/liver/liver.nii.gz").dataobj) > 0
    # The mask has the CT's first affine and 30 slices; its voxels lie on liver in the last 30 only.
    organ = np.zeros(values.shape, np.uint8)
    organ[..., -mask.shape[2] :] = mask
    liver = save(output / "data/liver.nii.gz", organ, ct.affine)
    distance = np.linalg.norm(
        [3.0 * (g - c) for g, c in zip(np.indices(values.shape), BALL, strict=True)], axis=0
    )
    changed = np.where(distance < BALL_RADIUS_MM, values + BALL_HU, values).astype(np.int16)
    plain = {
        "image": str((data / "ct/example_ct.nii.gz").resolve()),
        "organ": liver,
        "organ_labels": [1],
        "subject": "a",
    }
    ball = {**plain, "image": save(output / "data/ball.nii.gz", changed, ct.affine)}
    dicom = {
        "image": str((data / "ct/example_ct_dicom").resolve()),
        "organ": str((data / "ct/example_seg_dicom.nii.gz").resolve()),
        "organ_labels": [LIVER_OF_SEGMENTATION],
        "subject": "b",
    }
    print(f"ball: {organ[distance < BALL_RADIUS_MM].mean():.0%} of it in the liver")
    # Two lists, since one that trains and tests on the same patient is refused.
    write_json(output / "training.json", {"training": [plain], "validation": [dicom]})
    write_json(output / "test.json", {"test": [plain, ball, dicom]})


def write_retina_datalists(data: Path, output: Path) -> None:
    """Odd B-scans train, even ones calibrate, all are test: one eye."""
    scans = [str(p.resolve()) for p in sorted((data / "oct").rglob("*.png"), key=natural_key)]
    odd, even = {"image": scans[::2], "subject": "odd"}, {"image": scans[1::2], "subject": "even"}
    write_json(output / "training.json", {"training": [odd], "validation": [even]})
    write_json(output / "test.json", {"test": [{"image": str(Path(scans[0]).parent)}]})


def timed(bundle: str, config: str, kind: str, **override: Any) -> float:
    start = time.perf_counter()
    run_bundle(bundle, config, workflow_type=kind, **override)
    return time.perf_counter() - start


def liver_columns(output: Path) -> list[MontageColumn]:
    """The slice through the ball, without and with it; prints the map's means there."""
    grid = np.indices(nib.load(output / "data/ball.nii.gz").shape)
    distance = np.linalg.norm([3.0 * (g - c) for g, c in zip(grid, BALL, strict=True)], axis=0)
    liver = np.asarray(nib.load(output / "data/liver.nii.gz").dataobj) > 0
    columns = []
    for study in ("example_ct", "ball"):
        (path,) = output.rglob(f"{study}_anomaly_map.nii.gz")
        (scores,) = output.rglob(f"{study}_anomaly.json")
        source = json.loads(scores.read_text())["image"]
        image, heat = (nib.load(p).get_fdata() for p in (source, path))  # both are RAS
        inside, outside = heat[distance < 8].mean(), heat[liver & (distance > 15)].mean()
        print(f"{study}: mean of the map {inside:.3f} at the ball, {outside:.3f} in other liver")
        shown = image[..., BALL[2]].clip(-200, 250)
        columns.append(MontageColumn(study, shown, heat[..., BALL[2]]))
    return columns


def retina_columns(output: Path) -> list[MontageColumn]:
    """Three B-scans, upright: depth down, the scan along; prints how much is marked."""
    (path,) = output.rglob("*_anomaly_map.nii.gz")
    (study,) = json.loads((output / "test.json").read_text())["test"]
    heat = nib.load(path).get_fdata()
    print(f"{(heat >= 0.5).mean():.1%} of the pixels reach 0.5")
    image = LoadBScans()(study["image"])[0].numpy()
    heat = heat.swapaxes(0, 1)  # NIfTI's columns and rows to rows and columns
    return [
        MontageColumn(f"B-scan {k + 1}", image[..., k], heat[..., k], upright=True)
        for k in (10, 30, 45)
    ]


def main() -> None:
    """Train, infer, and print seconds, scores and memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["liver", "retina"])
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.ERROR)
    liver = args.part == "liver"
    bundle = "multiad_liver_ct" if liver else "multiad_retina_oct"
    (write_liver_datalists if liver else write_retina_datalists)(args.data, args.output)
    models = args.output / "models"
    seconds = timed(
        bundle,
        "train.json",
        "train",
        dataset_dir=str(args.output / "training.json"),
        output_dir=str(models),
        ckpt_dir=str(models),
        max_epochs=args.epochs,
        resume=False,
    )
    print(f"training: {seconds:.0f} s for {args.epochs} epochs, reading and calibration included")
    timed(
        bundle,
        "inference.json",
        "infer",
        dataset_dir=str(args.output / "test.json"),
        output_dir=str(args.output / "maps"),
        ckpt_path=str(models / "model.pt"),
        overwrite=True,
    )
    for row in json.loads((args.output / "maps/summary.json").read_text())["studies"]:
        print(f"{Path(row['image']).name}: {row['seconds']:.1f} s, score {row['score']:.3f}")
    columns = (liver_columns if liver else retina_columns)(args.output)
    save_montage(columns, args.output / "montage.png")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.1f} GiB")


if __name__ == "__main__":
    main()
