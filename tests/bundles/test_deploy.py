"""MONAI Deploy runs the bundles: its operator's calls by hand, and its SDK where that is installed.

The calls are those of ``MonaiBundleInferenceOperator`` in monai-deploy-app-sdk 4.0.0.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigParser, create_workflow
from monai.data import MetaTensor
from monai.utils import ensure_tuple

from multiad_med.readers import LoadVolume
from multiad_med.resources import bundle_path
from multiad_med.testing.cohorts import COHORTS, FAST, bundle_names, write_fake_model
from tests.bundles.test_sources import dicom_head

APP = Path(__file__).parents[2] / "docs" / "deploy" / "app.py"
MIXIN = "configs/inference_deploy.json"
VOLUME_BUNDLES = [name for name in bundle_names() if (bundle_path(name) / MIXIN).is_file()]


def copy_with_model(name: str, folder: Path) -> Path:
    """A copy of a bundle with a model and a small size, since Deploy overrides nothing."""
    root = Path(shutil.copytree(bundle_path(name), folder / name))
    config = root / "configs" / "inference.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "size": FAST["size"]}))
    write_fake_model(name, root / "models" / "model.pt")
    return root


def own_mask(root: Path, source: Path, folder: Path) -> nib.Nifti1Image:
    """What the bundle's inference writes for the only study in a folder."""
    flow = create_workflow(
        config_file=str(root / "configs" / "inference.json"),
        workflow_type="infer",
        bundle_root=str(root),
        dataset_dir=str(source),
        output_dir=str(folder / "own"),
        **FAST,
    )
    flow.run()
    flow.finalize()
    (path,) = (folder / "own").rglob("*_anomaly_mask.nii.gz")
    mask = nib.load(path)
    assert 0 < np.asarray(mask.dataobj).mean() < 1
    return mask


def deploy(root: Path, image: np.ndarray, meta: dict[str, Any]) -> torch.Tensor:
    """``pred`` of an image ``(X, Y, Z)`` in memory, by the operator's calls."""
    parser = ConfigParser()
    parser.read_meta(f=json.loads((root / "configs" / "metadata.json").read_text()))
    parser.read_config([root / "configs" / f for f in ("inference.json", "inference_deploy.json")])
    parser.parse()
    device, inferer, before, after = (
        parser.get_parsed_content(item)
        for item in ("device", "inferer", "preprocessing", "postprocessing")
    )
    for compose in (before, after):
        compose.transforms = tuple(
            t
            for t in compose.transforms
            if not any(name in type(t).__name__ for name in ("LoadImage", "SaveImage"))
        )
    network = parser.get_parsed_content("network")
    network.load_state_dict(torch.load(root / "models" / "model.pt"), strict=True)
    network.eval()
    with torch.no_grad():
        inputs = before({"image": MetaTensor.ensure_torch_and_prune_meta(image, meta)})
        first = inputs.pop("image")
        others = {k: v[None].to(device) for k, v in inputs.items() if isinstance(v, torch.Tensor)}
        outputs = inferer(inputs=first[None].to(device), network=network, **others)
        inputs["image"] = first
        return after({"pred": ensure_tuple(outputs)[0], **inputs})["pred"]


@pytest.mark.parametrize("name", VOLUME_BUNDLES)
def test_deploy_gets_the_mask_of_an_image_in_memory(name: str, tmp_path: Path) -> None:
    root = copy_with_model(name, tmp_path)
    data = COHORTS[name](tmp_path)
    source = data / json.loads((data / "datalist.json").read_text())["test"][-1]["image"]
    (tmp_path / "in").mkdir()
    expected = own_mask(root, Path(shutil.copy(source, tmp_path / "in")).parent, tmp_path)
    volume = nib.load(source)
    affine = torch.as_tensor(volume.affine)
    meta = {"affine": affine, "original_affine": affine, "original_channel_dim": "no_channel"}
    mask = deploy(root, np.asarray(volume.dataobj, dtype=np.float32), meta)
    assert mask.shape == (1, *volume.shape)
    np.testing.assert_array_equal(mask[0].numpy(), np.asarray(expected.dataobj))


def _complete(folder: Path) -> None:
    """Add what the SDK's SEG writer wants of the source images."""
    for path in folder.iterdir():
        part = pydicom.dcmread(path)
        part.PatientName, part.FrameOfReferenceUID = "Anna", "1.2.9"
        part.Manufacturer = part.ManufacturerModelName = "none"
        part.DeviceSerialNumber = part.SoftwareVersions = "1"
        part.PatientBirthDate = part.PatientSex = part.StudyDate = part.StudyTime = ""
        part.AccessionNumber = part.StudyID = part.ReferringPhysicianName = ""
        part.PositionReferenceIndicator = ""
        part.save_as(path)


def _voxels(seg: pydicom.Dataset, grid: nib.Nifti1Image) -> np.ndarray:
    """The segment's voxels on a grid; rows and columns of the source are axes of the patient."""
    result = np.zeros(grid.shape, np.uint8)
    shared = seg.SharedFunctionalGroupsSequence[0]
    row, column = (float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing)
    to_index = np.linalg.inv(grid.affine)
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    for group, frame in zip(seg.PerFrameFunctionalGroupsSequence, frames, strict=True):
        corner = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        for r, c in zip(*np.nonzero(frame), strict=True):
            x, y, z = corner + np.array([c * column, r * row, 0])
            index = np.rint(to_index @ (-x, -y, z, 1))[:3].astype(int)
            result[tuple(index)] = 1
    return result


def test_the_application_writes_the_mask_as_dicom_seg(tmp_path: Path) -> None:
    pytest.importorskip("monai.deploy", reason="monai-deploy-app-sdk is not installed")
    root = copy_with_model("multiad_brain_mri", tmp_path)
    series = dicom_head(tmp_path / "in", "anna")
    _complete(series)
    options = ["--input", str(series), "--output", str(tmp_path / "out"), "--model", str(root)]
    subprocess.run(
        [sys.executable, str(APP), *options],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=200,
    )
    (file,) = (tmp_path / "out").glob("*.dcm")
    seg = pydicom.dcmread(file)
    expected = own_mask(root, series.parent, tmp_path)
    assert expected.shape == LoadVolume()(series).shape[1:]
    assert seg.Modality == "SEG"
    np.testing.assert_array_equal(_voxels(seg, expected), np.asarray(expected.dataobj))
