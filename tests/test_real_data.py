"""Real brain volumes, where they are at hand: the rules hold on them too."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser

from multiad_med.data import SliceDataset, find_studies
from multiad_med.resources import bundle_path

pytestmark = pytest.mark.slow

PATIENTS = ["brats_2013_pat0003_1", "brats_2013_pat0005_1"]


def _preprocessing():
    config = ConfigParser.load_config_file(bundle_path("multiad_brain_mri") / "configs/train.json")
    return ConfigParser(config).get_parsed_content("train#preprocessing")


def _folder(real_data: Path, patient: str) -> Path:
    (folder,) = (real_data / "brain" / "brats2013").rglob(patient)
    return folder


@pytest.mark.parametrize("patient", PATIENTS)
def test_foreground_rule_finds_the_brain(real_data: Path, patient: str) -> None:
    folder = _folder(real_data, patient)
    (image,) = folder.glob("T1c_*.nii.gz")
    prepared = _preprocessing()({"image": str(image)})
    fraction = float((prepared["foreground"] > 0).float().mean())
    brain = np.asarray(nib.load(folder / "brainmask.nii.gz").dataobj) > 0.5
    # The same 240 mm square in both; holes filled and thin edges are the difference.
    assert fraction == pytest.approx(float(brain.mean()), rel=0.03)
    assert prepared["image"].shape == (1, 256, 256, 155)
    assert float(prepared["image"].max()) <= 1


@pytest.mark.parametrize("patient", PATIENTS)
def test_no_slice_with_tumour_is_taken_for_normal(real_data: Path, patient: str) -> None:
    folder = _folder(real_data, patient)
    items = find_studies(folder, image_glob="T1c_*.nii.gz", label_glob="OTMultiClass.nii.gz")
    dataset = SliceDataset(items, _preprocessing(), progress=False)
    tumour = np.asarray(nib.load(items[0]["label"]).dataobj) > 0
    taken = {dataset[i]["slice"] for i in range(len(dataset))}
    # The files are stored LPS: the third axis is that of RAS.
    abnormal = set(np.flatnonzero(tumour.any(axis=(0, 1))))
    assert not taken & abnormal
    assert len(taken) > 20
