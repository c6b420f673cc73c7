"""NIfTI files that are written fast hold what nibabel's own hold."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from multiad_med.utils.nifti_files import save_nifti

AFFINE = np.array([[-1.5, 0, 0, 90], [0, 0, 2.0, -126], [0, 1.25, 0, -72], [0, 0, 0, 1]])


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_voxels_header_and_affine_are_those_that_nibabel_writes(
    tmp_path: Path, ending: str, dtype: str
) -> None:
    voxels = np.random.default_rng(0).integers(0, 200, (7, 5, 9)).astype(dtype)
    image = nib.Nifti1Image(voxels, AFFINE)
    image.header.set_xyzt_units("mm")
    image.set_sform(AFFINE, code=4)
    save_nifti(image, tmp_path / f"ours{ending}")
    nib.save(image, tmp_path / f"theirs{ending}")
    ours, theirs = nib.load(tmp_path / f"ours{ending}"), nib.load(tmp_path / f"theirs{ending}")
    np.testing.assert_array_equal(np.asanyarray(ours.dataobj), voxels)
    np.testing.assert_array_equal(ours.affine, theirs.affine)
    assert ours.header == theirs.header


def test_the_same_image_gives_the_same_bytes(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ones((4, 4, 4), np.float32), AFFINE)
    for name in ("first.nii.gz", "second.nii.gz"):
        save_nifti(image, tmp_path / name)
    first, second = ((tmp_path / n).read_bytes() for n in ("first.nii.gz", "second.nii.gz"))
    assert first == second
    assert first[4:8] == bytes(4)  # gzip's time of writing


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "full.nii.gz").symlink_to("/dev/full")
    image = nib.Nifti1Image(np.random.default_rng(0).random((40, 40, 40)), AFFINE)
    with pytest.raises(OSError, match="No space left"):
        save_nifti(image, tmp_path / "full.nii.gz")
