"""B-scans in any form are one upright volume."""

from __future__ import annotations

import importlib.util
import struct
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from PIL import Image

from multiad_med.readers import LoadBScans, LoadBScansd, OctError
from tests.dicom_files import OPT, multiframe, save

SPACING = [0.0039, 0.0117, 0.24]  # depth, width, B-scan
EYEPY = importlib.util.find_spec("eyepy") is not None


def b_scans(seed: int = 0) -> np.ndarray:
    """Three B-scans (B-scan, depth, width), dark above and bright below."""
    scans = np.random.default_rng(seed).integers(0, 90, (3, 7, 5)).astype(np.uint8)
    scans[:, 4:] += 150
    return scans


def image_files(folder: Path, scans: np.ndarray) -> list[str]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{index}.png" for index in range(len(scans))]
    for path, scan in zip(paths, scans, strict=True):
        Image.fromarray(scan).save(path)
    return [str(path) for path in paths]


def numpy_file(folder: Path, scans: np.ndarray) -> str:
    np.save(folder / "v.npy", scans)
    return str(folder / "v.npy")


def nifti_file(folder: Path, scans: np.ndarray, suffix: str = ".nii.gz") -> str:
    depth, width, step = SPACING
    image = nib.Nifti1Image(scans.transpose(2, 1, 0), np.diag([width, depth, step, 1]))
    nib.save(image, folder / f"v{suffix}")
    return str(folder / f"v{suffix}")


def dicom_file(folder: Path, scans: np.ndarray) -> str:
    depth, width, step = SPACING
    dataset = multiframe(
        scans.astype(np.uint16),
        sop_class=OPT,
        modality="OPT",
        orientation=None,
        spacing=(depth, width),
        between=step,
        intercept=0.0,
    )
    return str(save([dataset], folder / "dicom") / "im000.dcm")


def grid(volume: torch.Tensor) -> list[float]:
    assert isinstance(volume, MetaTensor)
    turned = np.asarray(volume.affine)[:, [1, 0, 2, 3]]  # columns of (width, depth, B-scan)
    np.testing.assert_array_equal(turned, np.diag(np.diag(turned)))
    return affine_to_spacing(volume.affine).tolist()


def as_stored(volume: torch.Tensor) -> np.ndarray:
    """(1, depth, width, B-scan) as (B-scan, depth, width)."""
    assert volume.shape[0] == 1
    return torch.as_tensor(volume)[0].numpy().transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("write", "top"), [(image_files, 255), (numpy_file, 1), (nifti_file, 1), (dicom_file, 1)]
)
def test_every_form_is_the_same_upright_volume(tmp_path: Path, write: Any, top: float) -> None:
    scans = b_scans()
    source = write(tmp_path / "p" if write is image_files else tmp_path, scans)
    volume = LoadBScans()(source)
    assert isinstance(volume, MetaTensor)
    assert volume.shape == (1, 7, 5, 3)
    np.testing.assert_allclose(as_stored(volume) * top, scans, atol=1e-4)
    assert volume.meta["filename_or_obj"] == (source[0] if isinstance(source, list) else source)


@pytest.mark.parametrize("write", [image_files, numpy_file])
def test_spacing_is_the_callers_where_the_file_tells_none(tmp_path: Path, write: Any) -> None:
    source = write(tmp_path / "p" if write is image_files else tmp_path, b_scans())
    assert grid(LoadBScans()(source)) == [1, 1, 1]
    np.testing.assert_allclose(grid(LoadBScans(spacing=SPACING)(source)), SPACING)


@pytest.mark.parametrize("write", [nifti_file, dicom_file])
@pytest.mark.parametrize("given", [None, [9.0, 9.0, 9.0]])
def test_spacing_is_the_files_where_it_tells_it(
    tmp_path: Path, write: Any, given: list[float] | None
) -> None:
    volume = LoadBScans(spacing=given)(write(tmp_path, b_scans()))
    np.testing.assert_allclose(grid(volume), SPACING, rtol=1e-5)


def test_the_affine_is_that_of_the_files_voxels(tmp_path: Path) -> None:
    affine = np.array([[0, 0.1, 4, 9], [0.01, 0, 0.2, -8], [0, -0.004, 0.3, 7], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(b_scans().transpose(2, 1, 0), affine), tmp_path / "v.nii")
    volume = LoadBScans()(tmp_path / "v.nii")
    depth, width, scan = 6, 3, 2  # one voxel, as LoadBScans and as the file count
    found = np.asarray(volume.affine) @ [depth, width, scan, 1]
    np.testing.assert_allclose(found, affine @ [width, depth, scan, 1], atol=1e-5)


def test_a_folder_of_images_is_read_in_natural_order(tmp_path: Path) -> None:
    scans = np.repeat(b_scans(), 4, axis=0)
    image_files(tmp_path / "p", scans)
    (tmp_path / "p/notes.txt").write_text("no image")
    volume = LoadBScans()(tmp_path / "p")
    np.testing.assert_allclose(as_stored(volume) * 255, scans, atol=1e-4)
    assert volume.meta["filename_or_obj"] == str(tmp_path / "p")


@pytest.mark.parametrize("spacing", [[1, 1], [1, 1, 0], [1, -1, 1]])
def test_impossible_spacing_is_refused(spacing: list[float]) -> None:
    with pytest.raises(ValueError, match=r"three positive.*mm"):
        LoadBScans(spacing=spacing)


@pytest.mark.parametrize("write", [image_files, numpy_file, nifti_file])
def test_masks_keep_their_labels(tmp_path: Path, write: Any) -> None:
    labels = np.random.default_rng(0).choice([0, 1, 2, 255], (3, 7, 5)).astype(np.uint8)
    source = write(tmp_path / "p" if write is image_files else tmp_path, labels)
    mask = LoadBScans(mask=True)(source)
    assert mask.dtype == torch.uint8
    np.testing.assert_array_equal(as_stored(mask), labels)


@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 7, 5)])
def test_what_is_no_volume_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    source = numpy_file(tmp_path, np.zeros(shape, np.uint8))
    with pytest.raises(OctError, match=r"v\.npy: .*one volume"):
        LoadBScans()(source)


def test_several_channels_are_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((5, 7, 3, 2), np.uint8), np.eye(4))
    nib.save(image, tmp_path / "v.nii")
    with pytest.raises(OctError, match=r"v\.nii: .*one volume"):
        LoadBScans()(tmp_path / "v.nii")


def test_volume_and_mask_may_have_different_forms(tmp_path: Path) -> None:
    scans, labels = b_scans(), (b_scans(1) > 100).astype(np.uint8)
    item = {"image": nifti_file(tmp_path, scans), "label": image_files(tmp_path / "m", labels)}
    data = LoadBScansd("image")(item)
    np.testing.assert_array_equal(as_stored(data["image"]), scans)
    np.testing.assert_array_equal(as_stored(data["label"]), labels)
    assert set(LoadBScansd("image")({"image": item["image"]})) == {"image"}


def test_a_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    labels = image_files(tmp_path / "m", b_scans()[:2])
    item = {"image": numpy_file(tmp_path, b_scans()), "label": labels}
    message = r"0\.png: .*mask.*\(7, 5, 2\).*\(7, 5, 3\)"
    with pytest.raises(OctError, match=message):
        LoadBScansd("image")(item)


@pytest.mark.parametrize("name", ["v.vol", "v.E2E"])
def test_heidelberg_without_eyepy_is_a_named_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "eyepy", None)
    (tmp_path / name).write_bytes(bytes(100))
    with pytest.raises(OctError, match=rf"{name}: .*`pip install 'multiad-med\[oct\]'`"):
        LoadBScans()(tmp_path / name)


def heidelberg(scans: np.ndarray, *, pattern: int = 3, layers: int = 2) -> bytes:
    """A .vol file by the layout that Heidelberg Engineering documents; values are raw float32."""
    depth, width, step = SPACING
    count, height, columns = scans.shape
    size = 256 + 4 * layers * columns
    # version; A-scans, B-scans, samples; their sizes; SLO size, pixel sizes, field; focus; eye
    parts = [struct.pack("<12s3I3d", b"HSF-OCT-103", columns, count, height, width, step, depth)]
    parts += [struct.pack("<2I2dId4s", 8, 6, 0.01, 0.01, 30, 0.0, b"OD")]
    # exam time, pattern, header size; identifiers, birth and visit; no thickness grids
    parts += [struct.pack("<QiI16s16sI24sd", 0, pattern, size, b"1", b"", 0, b"P1", 1.0)]
    parts += [struct.pack("<I24sd4I34s1790x", 0, b"", 1.0, 0, 0, 0, 0, b"")]
    assert sum(map(len, parts)) == 2048
    parts.append(bytes(8 * 6))
    for index, scan in enumerate(scans):
        start, end = (0.0, index * step), (columns * width, index * step)
        parts.append(struct.pack("<12sI4d2I", b"HSF-BS-103", size, *start, *end, layers, 256))
        parts.append(struct.pack("<fI6f168x", 30.0, 0, *[0.0] * 6))
        parts.append(bytes(4 * layers * columns) + scan.astype("<f4").tobytes())
    return b"".join(parts)


@pytest.mark.skipif(not EYEPY, reason="eyepy is not installed")
def test_heidelberg_vol_is_upright_with_its_spacing(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).random((3, 7, 5)).astype(np.float32)
    raw[:, :2] = np.finfo(np.float32).max  # what lies outside of the measurement
    (tmp_path / "v.vol").write_bytes(heidelberg(raw))
    volume = LoadBScans(spacing=[9, 9, 9])(tmp_path / "v.vol")
    np.testing.assert_allclose(grid(volume), SPACING)
    # HEYEX shows the logarithm in 8 bits.
    shown = np.where(raw > 1, 0, np.round(255 * ((np.log(raw + 2.44e-4) + 8.3) / 8.285).clip(0, 1)))
    np.testing.assert_allclose(as_stored(volume), shown, atol=1)


@pytest.mark.skipif(not EYEPY, reason="eyepy is not installed")
def test_damaged_and_radial_heidelberg_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.vol"
    content = heidelberg(np.full((3, 7, 5), 0.5))
    for length in (0, 100, 2047, 2100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(OctError, match=r"v\.vol: not a readable"):
            LoadBScans()(path)
    path.write_bytes(heidelberg(np.full((3, 7, 5), 0.5), pattern=5))
    with pytest.raises(OctError, match=r"v\.vol: .*[Rr]adial"):
        LoadBScans()(path)
    (tmp_path / "v.e2e").write_bytes(bytes(5000))
    with pytest.raises(OctError, match=r"v\.e2e: "):
        LoadBScans()(tmp_path / "v.e2e")


def stand_in(monkeypatch: pytest.MonkeyPatch, scans: list[np.ndarray]) -> None:
    """An eyepy whose .e2e files hold these volumes, without pixel size, as its own do."""

    class Reader:
        def __init__(self, path: str) -> None:
            self.volumes = [
                SimpleNamespace(data=data, scale_unit="px", scale_x=1, scale_y=1, scale_z=1)
                for data in scans
            ]

        def __enter__(self) -> Reader:
            return self

        def __exit__(self, *error: object) -> None:
            pass

    module = ModuleType("eyepy")
    module.io = SimpleNamespace(HeE2eReader=Reader)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "eyepy", module)


def test_a_size_in_pixels_is_not_taken_for_millimetres(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, [b_scans()])
    volume = LoadBScans(spacing=SPACING)(tmp_path / "v.e2e")
    np.testing.assert_array_equal(as_stored(volume), b_scans())
    np.testing.assert_allclose(grid(volume), SPACING)


@pytest.mark.parametrize("count", [0, 2])
def test_a_file_of_several_volumes_or_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    stand_in(monkeypatch, [b_scans()] * count)
    with pytest.raises(OctError, match=rf"v\.e2e: .*one volume.*\b{count}\b"):
        LoadBScans()(tmp_path / "v.e2e")
