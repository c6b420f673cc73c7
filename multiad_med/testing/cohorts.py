"""A tiny cohort and random weights for each bundle; benchmarks use them too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser

from multiad_med.resources import bundle_path, bundles_dir
from multiad_med.scoring import Level, NormalScores
from multiad_med.testing.brains import make_brains
from multiad_med.testing.layouts import make_mvtec, save_nifti
from multiad_med.testing.layouts.retina import bscan
from multiad_med.testing.layouts.volumes import abdomen, ct_affine

__all__ = ["COHORTS", "FAST", "bundle_names", "one_bundle_per_input", "write_fake_model"]

FAST = {"size": 64, "device": "$torch.device('cpu')"}
"""What every config of a bundle is overridden with; training is also given few epochs."""

SPLITS = ["training"] * 3 + ["validation"] + ["test"] * 2


def bundle_names() -> list[str]:
    """Return the names of the bundles."""
    return sorted(p.parents[1].name for p in bundles_dir().glob("*/configs/metadata.json"))


def one_bundle_per_input() -> list[str]:
    """Return a bundle of each kind of input: the generalist reads as the industrial one does."""
    return [name for name in bundle_names() if name != "multiad_generalist"]


def _write(folder: Path, studies: list[dict[str, np.ndarray]], affine: np.ndarray) -> Path:
    """Write six studies, the last one with a lesion, and their datalist."""
    splits: dict[str, list[dict[str, str]]] = {name: [] for name in SPLITS}
    for index, (split, study) in enumerate(zip(SPLITS, studies, strict=True)):
        item = {"subject": f"s{index}"}
        for key, volume in study.items():
            item[key] = f"{key}s/s{index}.nii.gz"
            save_nifti(folder / item[key], volume, affine)
        splits[split].append(item)
    (folder / "datalist.json").write_text(json.dumps(splits))
    return folder


def make_abdomens(parent: Path) -> Path:
    """Write CTs in HU with the liver as ``organ``."""
    rng = np.random.default_rng(0)
    shape = (48, 48, 10)
    studies: list[dict[str, np.ndarray]] = []
    for index in range(len(SPLITS)):
        ct, liver, lesions = abdomen(shape, rng, lesion=index == len(SPLITS) - 1)
        masks = {"organ": liver.astype(np.uint8), "label": lesions.astype(np.uint8)}
        studies.append({"image": ct.astype(np.int16), **masks})
    return _write(parent / "cohort", studies, ct_affine(shape))


def make_retinas(parent: Path) -> Path:
    """Write OCT volumes ``(B-scan's width, its depth, B-scans)``."""
    rng = np.random.default_rng(0)
    studies = []
    for index in range(len(SPLITS)):
        lesion = index == len(SPLITS) - 1
        pairs = [bscan((64, 48), rng, lesion=lesion and scan > 2) for scan in range(6)]
        image, label = (np.stack(part, axis=-1).swapaxes(0, 1) for part in zip(*pairs, strict=True))
        study = {"image": image.astype(np.uint8), "label": (label > 0).astype(np.uint8)}
        studies.append(study)
    return _write(parent / "cohort", studies, np.diag([0.05, 0.01, 0.2, 1.0]))


def make_products(parent: Path) -> Path:
    """Write images of three categories as in MVTec AD."""
    folder = parent / "cohort"
    categories = ["nut", "screw", "tile"]
    make_mvtec(folder, rng=np.random.default_rng(0), categories=categories, size=64, train=6)
    return folder


def make_pictures(parent: Path) -> Path:
    """Write images of one category as in MVTec AD."""
    folder = parent / "cohort"
    make_mvtec(folder, rng=np.random.default_rng(0), categories=["screw"], size=64, train=8)
    return folder


COHORTS: dict[str, Callable[[Path], Path]] = {
    "multiad_brain_mri": make_brains,
    "multiad_generalist": make_products,
    "multiad_industrial": make_pictures,
    "multiad_liver_ct": make_abdomens,
    "multiad_retina_oct": make_retinas,
}
"""Makes a bundle's ``dataset_dir`` in a folder and returns it."""


def write_fake_model(name: str, path: Path, *, seed: int = 0, **override: Any) -> Path:
    """Write a ``model.pt`` of random weights that counts as calibrated, as the model zoo's CI does."""
    parser = ConfigParser(
        ConfigParser.load_config_file(bundle_path(name) / "configs" / "inference.json")
    )
    train = ConfigParser.load_config_file(bundle_path(name) / "configs" / "train.json")
    parser.update({"network_def#fused": train["fused"], **override})
    torch.manual_seed(seed)
    network = parser.get_parsed_content("network_def")
    network.calibrated.fill_(True)
    network.pixel_false_positive_rate.fill_(0.01)
    network.card.domain = parser["domain"]
    network.card.levels = {level: NormalScores((0.5,) * 19, 0.05) for level in Level}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)
    return path
