"""What files are by the ends of their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiad_med.utils.suffixes import is_image, is_nifti


@pytest.mark.parametrize(
    ("name", "image", "nifti"),
    [
        ("a.PNG", True, False),
        ("a.nii.gz", False, True),
        ("a.NII", False, True),
        ("a.gz", False, False),
        ("1.2.840.1", False, False),
    ],
)
def test_the_case_of_a_suffix_does_not_matter(name: str, image: bool, nifti: bool) -> None:
    assert (is_image(Path(name)), is_nifti(Path(name))) == (image, nifti)
