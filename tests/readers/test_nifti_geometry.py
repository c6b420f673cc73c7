"""Maps lie over their image in every program: ITK, which follows other rules than nibabel, looks."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from monai.transforms import Orientation

from multiad_med.data import StudyResults
from multiad_med.inference import SaveImageMapd, StudyMapWriter
from multiad_med.readers import LoadVolume, NiftiError
from multiad_med.testing.networks import tiny_multiad

SHAPE = (20, 18, 10)
CORNERS = [(0, 0, 0), (19, 0, 0), (0, 17, 0), (19, 17, 9)]
STRAIGHT = np.array([[-2, 0, 0, 30], [0, 2.5, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1.0]])
MIRRORED = np.diag([-1, 1, 1, 1.0]) @ STRAIGHT
MOVED = STRAIGHT + np.array([[0, 0, 0, 10], [0, 0, 0, -7], [0, 0, 0, 4], [0, 0, 0, 0]])
C, S = np.cos(0.3), np.sin(0.3)
TILTED = np.array([[C, -S, 0, 3], [S, C, 0, 4], [0, 0, 1, 5], [0, 0, 0, 1.0]]) @ STRAIGHT


def source(
    path: Path,
    qform: tuple[np.ndarray, int],
    sform: tuple[np.ndarray, int],
    *,
    kind: type = nib.Nifti1Image,
    units: str = "mm",
) -> Path:
    voxels = np.random.default_rng(0).integers(1, 900, SHAPE).astype(np.int16)
    image = kind(voxels, STRAIGHT)
    image.set_qform(*qform)
    image.set_sform(*sform)
    image.header.set_xyzt_units(units)
    nib.save(image, path)
    return path


def map_of(path: Path) -> Path:
    """A map of the file, turned to RAS and back as inference does."""
    volume = LoadVolume()(path)
    turn = Orientation(axcodes="RAS", labels=None)
    volume = turn.inverse(turn(volume))
    results = StudyResults(path.parent / "out", source=path.parent, network=tiny_multiad())
    SaveImageMapd("pred", results=results, end="map.nii.gz")({"pred": volume.float()})
    return results.path(path, "map.nii.gz")


def apart(first: Path, second: Path) -> float:
    """How far the corners of two files lie apart in ITK."""
    a, b = SimpleITK.ReadImage(str(first)), SimpleITK.ReadImage(str(second))
    places = [[i.TransformIndexToPhysicalPoint(c) for c in CORNERS] for i in (a, b)]
    return float(np.abs(np.subtract(*places)).max())


FORMS = {
    "both codes 0": ((STRAIGHT, 0), (STRAIGHT, 0)),
    "both codes 0, mirrored": ((MIRRORED, 0), (MIRRORED, 0)),
    "qform only": ((TILTED, 1), (STRAIGHT, 0)),
    "sform only": ((STRAIGHT, 0), (TILTED, 2)),
    "moved": ((STRAIGHT, 1), (MOVED, 4)),
    "turned": ((TILTED, 1), (STRAIGHT, 1)),
    "mirrored": ((MIRRORED, 2), (STRAIGHT, 1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("units", ["mm", "micron"])
@pytest.mark.parametrize("name", ["v.nii.gz", "v.nii", "v.img"])
@pytest.mark.parametrize("forms", FORMS.values(), ids=FORMS.keys())
def test_map_lies_over_its_image_in_itk_and_in_nibabel(
    tmp_path: Path, forms: tuple, name: str, units: str
) -> None:
    kind = nib.Nifti1Pair if name.endswith("img") else nib.Nifti1Image
    path = source(tmp_path / name, *forms, kind=kind, units=units)
    written = map_of(path)
    assert apart(path, written) < 1e-4
    a, b = nib.load(path), nib.load(written)
    np.testing.assert_allclose(a.affine, b.affine, atol=1e-4)
    for field in ("qform_code", "sform_code", "xyzt_units"):
        assert a.header[field] == b.header[field]
    np.testing.assert_allclose(a.header.get_qform(), b.header.get_qform(), atol=1e-4)
    np.testing.assert_allclose(a.header.get_sform(), b.header.get_sform(), atol=1e-4)
    np.testing.assert_allclose(a.header["pixdim"][:4], b.header["pixdim"][:4])
    np.testing.assert_array_equal(a.get_fdata(), b.get_fdata())


def test_map_on_another_grid_has_forms_of_its_own(tmp_path: Path) -> None:
    path = source(tmp_path / "v.nii.gz", (STRAIGHT, 1), (MOVED, 4))
    volume = LoadVolume()(path).float()
    turned = Orientation(axcodes="RAS", labels=None)(volume)
    writer = StudyMapWriter(output_dtype=np.float32)
    writer.set_data_array(turned)
    writer.set_metadata(turned.meta, resample=False)
    writer.write(tmp_path / "turned.nii.gz")
    written = nib.load(tmp_path / "turned.nii.gz")
    np.testing.assert_allclose(written.affine, turned.affine, atol=1e-4)
    np.testing.assert_allclose(written.get_qform(), written.get_sform(), atol=1e-4)
    assert written.affine[0, 0] == pytest.approx(2)


def test_a_file_that_says_no_place_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    LoadVolume()(source(tmp_path / "v.nii.gz", (STRAIGHT, 0), (STRAIGHT, 0)))
    assert re.search(r"v\.nii\.gz: .*qform.*sform", caplog.text)


@pytest.mark.parametrize("name", ["v.img", "v.hdr", "V.IMG"])
def test_a_pair_is_read_by_either_name(tmp_path: Path, name: str) -> None:
    source(tmp_path / "v.img", (TILTED, 1), (TILTED, 1), kind=nib.Nifti1Pair)
    if name == "V.IMG":
        (tmp_path / "v.img").rename(tmp_path / "V.IMG")
        (tmp_path / "v.hdr").rename(tmp_path / "V.HDR")
    volume = LoadVolume()(tmp_path / name)
    expected = np.random.default_rng(0).integers(1, 900, SHAPE)
    np.testing.assert_array_equal(volume[0], expected)
    np.testing.assert_allclose(volume.affine, TILTED, atol=1e-4)
    assert volume.dtype == torch.int16


def test_a_compressed_pair_is_read(tmp_path: Path) -> None:
    path = source(tmp_path / "v.img.gz", (TILTED, 1), (TILTED, 1), kind=nib.Nifti1Pair)
    np.testing.assert_allclose(LoadVolume()(path).affine, TILTED, atol=1e-4)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda p: p.with_suffix(".hdr").unlink(), r"other half of the pair, v\.hdr"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "truncated or corrupt"),
        (lambda p: p.write_bytes(b""), "truncated or corrupt"),
    ],
)
def test_a_broken_pair_is_refused(tmp_path: Path, break_it, message: str) -> None:
    path = source(tmp_path / "v.img", (TILTED, 1), (TILTED, 1), kind=nib.Nifti1Pair)
    break_it(path)
    with pytest.raises(NiftiError, match=message):
        LoadVolume()(path)


def test_an_analyze_pair_without_orientation_is_refused(tmp_path: Path) -> None:
    nib.save(nib.AnalyzeImage(np.ones(SHAPE, np.int16), np.eye(4)), tmp_path / "v.img")
    with pytest.raises(NiftiError, match=r"Analyze 7\.5\b.*orientation"):
        LoadVolume()(tmp_path / "v.img")
