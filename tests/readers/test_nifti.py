"""NIfTI as nibabel reads it, and what is damaged refused."""

from __future__ import annotations

import gzip
import itertools
import logging
import re
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from multiad_med.readers import LoadVolume, NiftiError
from tests.transforms.test_geometry import OBLIQUE

SHAPE = (5, 6, 4)


def voxels(dtype: str = "int16", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 500, SHAPE).astype(dtype)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return rng.integers(low, high, SHAPE, dtype=np.dtype(dtype).newbyteorder("="), endpoint=True)


def nifti(dtype: str = "int16", affine: np.ndarray = OBLIQUE) -> nib.Nifti1Image:
    return nib.Nifti1Image(voxels(dtype), affine, dtype=dtype)


def write(path: Path, image: nib.Nifti1Image) -> Path:
    nib.save(image, path)
    return path


def squeezed(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content))
    return path


def agrees(path: Path) -> MetaTensor:
    """Read a file, checked against nibabel."""
    volume = LoadVolume()(path)
    reference: Any = nib.load(path)
    assert isinstance(volume, MetaTensor)
    np.testing.assert_array_equal(volume[0], np.asarray(reference.dataobj).astype(np.float32))
    np.testing.assert_allclose(volume.affine, reference.affine)
    assert volume.meta["filename_or_obj"] == str(path)
    return volume


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        ("uint8", torch.uint8),
        ("int8", torch.int8),
        ("int16", torch.int16),
        (">i2", torch.int16),
        ("uint16", torch.float32),
        ("int32", torch.float32),
        ("uint32", torch.float32),
        ("int64", torch.float32),
        ("float32", torch.float32),
        (">f4", torch.float32),
        ("float64", torch.float32),
    ],
)
def test_voxels_and_affine_are_nibabels(
    tmp_path: Path, suffix: str, dtype: str, kept: torch.dtype
) -> None:
    image = nifti(dtype)
    if dtype.startswith(">"):
        image = nib.Nifti1Image(
            voxels(dtype), OBLIQUE, header=nib.Nifti1Header(endianness=">"), dtype=dtype
        )
    assert agrees(write(tmp_path / f"v{suffix}", image)).dtype == kept


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_2_is_read_too(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"v{suffix}", nib.Nifti2Image(voxels(), OBLIQUE))
    assert isinstance(nib.load(path), nib.Nifti2Image)
    agrees(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_slope_and_intercept_are_applied(tmp_path: Path, suffix: str) -> None:
    image = nifti("int16")
    image.header.set_slope_inter(0.5, -1024)
    content = bytearray(image.to_bytes())
    struct.pack_into("<2f", content, 112, 0.5, -1024)  # scl_slope, scl_inter
    path = tmp_path / f"v{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    stored = np.frombuffer(bytes(content[352:]), "<i2").reshape(SHAPE, order="F")
    volume = agrees(path)
    assert volume.dtype == torch.float32
    np.testing.assert_allclose(volume[0], stored * 0.5 - 1024)


@pytest.mark.parametrize(
    ("shape", "channels_first"),
    [
        ((5, 6, 4), (1, 5, 6, 4)),
        ((5, 6, 1), (1, 5, 6, 1)),
        ((5, 6, 4, 1), (1, 5, 6, 4)),
        ((5, 6, 4, 3), (3, 5, 6, 4)),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_time_points_become_channels(
    tmp_path: Path, suffix: str, shape: tuple[int, ...], channels_first: tuple[int, ...]
) -> None:
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    volume = LoadVolume()(write(tmp_path / f"v{suffix}", nib.Nifti1Image(array, OBLIQUE)))
    assert volume.shape == channels_first
    expected = np.moveaxis(array, -1, 0) if len(shape) == 4 else array[None]
    np.testing.assert_array_equal(volume, expected)


def test_header_extensions_and_later_voxels_are_read(tmp_path: Path) -> None:
    image = nifti()
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 5000))
    agrees(write(tmp_path / "v.nii.gz", image))
    agrees(write(tmp_path / "v.nii", image))


@pytest.mark.parametrize("name", ["V.NII", "V.NII.GZ", "v.nii.GZ"])
def test_capital_suffixes_are_read(tmp_path: Path, name: str) -> None:
    content = nifti().to_bytes()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.lower().endswith("gz") else content)
    np.testing.assert_array_equal(LoadVolume()(path)[0], voxels())


@pytest.mark.parametrize("cuts", [(100,), (352,), (400, 401), (10, 348, 352, 500)])
def test_gzip_of_several_members_is_one_stream(tmp_path: Path, cuts: tuple[int, ...]) -> None:
    content = nifti().to_bytes()
    borders = [0, *cuts, len(content)]
    members = [gzip.compress(content[a:b]) for a, b in itertools.pairwise(borders)]
    path = tmp_path / "v.nii.gz"
    path.write_bytes(b"".join(members))
    agrees(path)


@pytest.mark.parametrize("level", [0, 1, 9])
def test_any_level_of_compression_is_read(tmp_path: Path, level: int) -> None:
    path = tmp_path / "v.nii.gz"
    path.write_bytes(gzip.compress(nifti("float32").to_bytes(), compresslevel=level))
    agrees(path)


@pytest.mark.slow
@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, image_class: type) -> None:
    content = image_class(voxels(), OBLIQUE).to_bytes()
    path = tmp_path / "cut.nii"
    for length in [*range(0, len(content), 7), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(NiftiError, match=r"cut\.nii: "):
            LoadVolume()(path)


@pytest.mark.parametrize("level", [0, 6])
def test_a_compressed_file_cut_anywhere_is_refused(tmp_path: Path, level: int) -> None:
    content = gzip.compress(nifti().to_bytes(), compresslevel=level)
    path = tmp_path / "cut.nii.gz"
    # The last 8 bytes are checksum and length; all of them belong to a whole file.
    for length in [*range(0, len(content) - 8, 5), *range(len(content) - 8, len(content))]:
        path.write_bytes(content[:length])
        with pytest.raises(NiftiError, match=r"cut\.nii\.gz: "):
            LoadVolume()(path)


@pytest.mark.parametrize("position", [-8, -5, -4, -1])
@pytest.mark.parametrize("size", [SHAPE, (64, 64, 40)])
def test_a_wrong_checksum_or_length_is_refused(
    tmp_path: Path, position: int, size: tuple[int, ...]
) -> None:
    image = nib.Nifti1Image(np.resize(voxels(), size), np.eye(4))
    content = bytearray(gzip.compress(image.to_bytes()))
    content[position] ^= 1
    path = tmp_path / "v.nii.gz"
    path.write_bytes(content)
    with pytest.raises(NiftiError, match=r"v\.nii\.gz: .*(checksum|CRC|length)"):
        LoadVolume()(path)


def promising(shape: tuple[int, ...]) -> bytes:
    """A header and voxels of (5, 6, 4), the header promising another shape."""
    content = bytearray(nifti().to_bytes())
    struct.pack_into("<8h", content, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    return bytes(content)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5, 6, 5), "truncated"),
        ((500, 600, 400), "truncated"),
        ((32767,) * 7, "truncated"),
        ((5, 0, 4), r"impossible shape \(5, 0, 4\)"),
        ((5, -6, 4), r"impossible shape \(5, -6, 4\)"),
    ],
)
def test_a_header_that_promises_more_than_there_is_is_refused(
    tmp_path: Path, suffix: str, shape: tuple[int, ...], message: str
) -> None:
    path = tmp_path / f"v{suffix}"
    content = promising(shape)
    path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    tracemalloc.start()
    with pytest.raises(NiftiError, match=message):
        LoadVolume()(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.slow
def test_of_a_stream_without_end_no_more_is_inflated_than_promised(tmp_path: Path) -> None:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    parts = [packer.compress(nifti().to_bytes())]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(300)]
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(b"".join([*parts, packer.flush()]))
    tracemalloc.start()
    volume = LoadVolume()(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(volume[0], voxels())
    assert peak < 16 << 20


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"hello world" * 90, bytes(1000)])
@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_what_is_no_nifti_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NiftiError, match=r"x\.nii"):
        LoadVolume()(tmp_path / name)
    with pytest.raises(NiftiError, match=r"x\.nii\.gz"):
        LoadVolume()(squeezed(tmp_path / "x.nii.gz", content))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    "dtype", ["complex64", "complex128", [("R", "u1"), ("G", "u1"), ("B", "u1")]]
)
def test_colour_and_complex_voxels_are_refused(tmp_path: Path, suffix: str, dtype: Any) -> None:
    image = nib.Nifti1Image(np.zeros(SHAPE, dtype), np.eye(4))
    with pytest.raises(NiftiError, match=r"v\.nii.*colour or complex"):
        LoadVolume()(write(tmp_path / f"v{suffix}", image))


def framed(sform: np.ndarray | None, qform: np.ndarray | None) -> nib.Nifti1Image:
    image = nib.Nifti1Image(voxels(), None)
    image.set_sform(sform, code=1 if sform is not None else 0)
    image.set_qform(qform, code=1 if qform is not None else 0)
    return image


STRAIGHT = np.array([[2.0, 0, 0, -5], [0, 3, 0, 7], [0, 0, 4, 9], [0, 0, 0, 1]])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("sform", "qform", "warns"),
    [
        (STRAIGHT, None, False),
        (None, STRAIGHT, False),
        (STRAIGHT, STRAIGHT, False),
        (STRAIGHT, STRAIGHT + np.eye(4, k=3), True),  # 1 mm along x
    ],
)
def test_the_sform_counts_and_a_disagreeing_qform_is_told(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    suffix: str,
    sform: Any,
    qform: Any,
    warns: bool,
) -> None:
    path = write(tmp_path / f"v{suffix}", framed(sform, qform))
    with caplog.at_level(logging.WARNING):
        volume = agrees(path)
    np.testing.assert_allclose(volume.affine, STRAIGHT, atol=1e-5)
    told = [r.getMessage() for r in caplog.records if "qform and sform differ" in r.getMessage()]
    assert len(told) == int(warns)
    for line in told:
        assert re.search(rf"^{re.escape(str(path))}: .*\b1 mm.*sform is used", line)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_an_affine_that_leads_nowhere_is_refused(tmp_path: Path, suffix: str, value: float) -> None:
    content = bytearray(framed(STRAIGHT, None).to_bytes())
    struct.pack_into("<f", content, 280, value)  # srow_x[0]
    path = tmp_path / f"v{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    with pytest.raises(NiftiError, match=r"v\.nii.*affine"):
        LoadVolume()(path)


def test_a_list_becomes_channels_in_its_order(tmp_path: Path) -> None:
    arrays = [voxels(seed=seed) for seed in range(3)]
    names = ["a.nii", "b.nii.gz", "c.nii.gz"]
    paths = [
        write(tmp_path / name, nib.Nifti1Image(array, OBLIQUE))
        for name, array in zip(names, arrays, strict=True)
    ]
    volume = LoadVolume()(paths)
    assert volume.dtype == torch.int16
    np.testing.assert_array_equal(volume, np.stack(arrays))
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-5)


@pytest.mark.parametrize(
    ("array", "affine", "message"),
    [
        (voxels(), OBLIQUE + 0.01 * np.eye(4, k=3), r"affine differing by .*0\.01"),
        (voxels()[:, :, :3], OBLIQUE, r"shape \(5, 6, 3\).*is not that of"),
        (voxels().transpose(1, 0, 2), OBLIQUE, r"shape \(6, 5, 4\)"),
    ],
)
def test_sequences_on_two_grids_are_refused(
    tmp_path: Path, array: np.ndarray, affine: np.ndarray, message: str
) -> None:
    first = write(tmp_path / "a.nii.gz", nifti())
    second = write(tmp_path / "b.nii.gz", nib.Nifti1Image(array, affine))
    with pytest.raises(NiftiError, match=message) as error:
        LoadVolume()([first, second])
    assert str(second) in str(error.value)
    assert str(first) in str(error.value)
