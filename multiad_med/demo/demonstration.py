"""The demonstration: cohort, training, maps, montage and table in one go."""

from __future__ import annotations

import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from rich.console import Console
from rich.table import Table

from multiad_med.data import load_datalist
from multiad_med.demo.cohort import Cohort, make_cohort
from multiad_med.detector import AnomalyDetector
from multiad_med.evaluation.summary import print_summary
from multiad_med.visualize import MontageColumn, save_montage

__all__ = ["run_demo"]

DOMAIN = "brain_mri"
EPOCHS = 7


def _column(item: dict[str, Any], maps: Path) -> MontageColumn:
    """Return the slice with most lesion or, of a healthy subject, with the highest map."""
    image = nib.as_closest_canonical(nib.load(item["image"]))
    name = Path(item["image"]).name.removesuffix(".nii.gz")
    lesion = np.asarray(nib.as_closest_canonical(nib.load(item["label"])).dataobj) > 0
    (path,) = maps.rglob(f"{name}_anomaly_map.nii.gz")
    heat = nib.as_closest_canonical(nib.load(path)).get_fdata()
    index = int((lesion if lesion.any() else heat).max(axis=(0, 1)).argmax())
    if lesion.any():
        index = int(lesion.sum(axis=(0, 1)).argmax())
    zooms = image.header.get_zooms()
    return MontageColumn(
        title=name.partition("_")[2],
        image=image.get_fdata()[..., index],
        anomaly_map=heat[..., index],
        lesion=lesion[..., index],
        spacing=(float(zooms[0]), float(zooms[1])),
    )


def _print_tables(metrics: dict[str, Any], console: Console) -> None:
    print_summary(metrics, console, title="Unseen test volumes")
    volumes = Table(title="Per volume")
    for heading in ("subject", "score", "p-value", "verdict", "lesion voxels", "Dice"):
        text = heading in ("subject", "verdict")
        volumes.add_column(heading, justify="left" if text else "right")
    for study in metrics["studies"]:
        overlap = "-" if study["dice"] is None else f"{study['dice']:.3f}"
        volumes.add_row(
            study["subject"],
            f"{study['score']:.3f}",
            f"{study['p_value']:.3f}",
            study["verdict"],
            str(study["lesion_voxels"]),
            overlap,
        )
    console.print(volumes)


def run_demo(
    output: str | Path, *, seed: int = 0, cohort: Cohort | None = None, epochs: int = EPOCHS
) -> dict[str, Any]:
    """Make a cohort, train the brain bundle on it, and show maps of its unseen test volumes.

    Args:
        output: folder that receives ``cohort/``, ``model/`` with its TensorBoard log, the maps
            (``*_anomaly_map.nii.gz``, ``*_anomaly_mask.nii.gz``, ``*_anomaly.json``), ``montage.png``,
            ``metrics.json`` and ``report.html``.
        seed: of the cohort and the training; the same seed gives the same result.
        cohort: numbers of subjects.
        epochs: of the training.

    Returns:
        The content of ``metrics.json``.
    """
    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.ERROR)
    console = Console()
    output = Path(output).resolve()
    console.rule("1 of 4: an embedded cohort from the MNI152 brain")
    data = make_cohort(output / "cohort", cohort=cohort, seed=seed)
    console.rule("2 of 4: training on normal brains (bundle multiad_brain_mri)")
    detector = AnomalyDetector(
        DOMAIN,
        max_epochs=epochs,
        val_interval=epochs,
        seed=seed,
        resume=False,
        cache_features=True,
    )
    detector.fit(data, output=output / "model")
    shutil.rmtree(output / "model/features", ignore_errors=True)  # of use to the training only
    console.rule("3 of 4: anomaly maps of unseen test volumes")
    metrics = detector.evaluate(data, output=output, training_logs=output / "model")
    console.rule("4 of 4: montage and table")
    columns = [_column(item, output) for item in load_datalist(data)["test"]]
    save_montage(columns, output / "montage.png")
    _print_tables(metrics, console)
    console.print(f"maps, montage.png, metrics.json and report.html are in {output}")
    return metrics
