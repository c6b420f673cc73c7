"""``multiad bundles``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from multiad_med.resources import bundles_dir
from tests.cli.runs import mistake, multiad


def test_all_are_listed_with_domain_what_they_take_and_folder() -> None:
    shown = multiad("bundles").stdout
    for name in ("brain_mri", "generalist", "industrial", "liver_ct", "retina_oct"):
        assert f"multiad_{name}\n    domain: {name}\n    takes:  " in shown
        assert f"    folder: {bundles_dir() / f'multiad_{name}'}\n" in shown
    assert re.search(r"takes:  .*NIfTI.*DICOM.*\bMR\b", shown)


@pytest.mark.parametrize(
    "words",
    [
        ["bundles", "brain_mri"],
        ["bundles", "multiad_brain_mri"],
        ["bundle", "multiad_brain_mri"],  # the old spelling
    ],
)
def test_the_folder_of_one_is_printed(words: list[str]) -> None:
    folder = Path(multiad(*words).stdout.strip())
    assert (folder / "configs" / "train.json").is_file()


def test_an_unknown_one_is_told_with_those_that_there_are() -> None:
    assert "multiad_brain_mri" in mistake("bundles", "nothing")
