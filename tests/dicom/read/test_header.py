"""What a DICOM header tells."""

from __future__ import annotations

import pytest

from multiad_med.dicom.read.header import is_uid


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.2.840.10008", True),
        ("1" * 64, True),
        ("1" * 65, False),
        ("", False),
        ("1.2.", False),
        ("../../etc/passwd", False),
        ("1.2/3", False),
        ("1.2\n", False),
    ],
)
def test_a_uid_is_digits_and_dots(text: str, expected: bool) -> None:
    assert is_uid(text) is expected
