"""NAME=VALUE of the command line."""

from __future__ import annotations

import pytest

from multiad_med.utils.errors import InputError
from multiad_med.utils.settings import parse_pairs, parse_settings


def test_values_are_yaml() -> None:
    given = [
        "size=128",
        "windows=[[-200, 250]]",
        "tile=null",
        "colour=false",
        "image_glob=**/*.nii",
    ]
    assert parse_settings(given) == {
        "size": 128,
        "windows": [[-200, 250]],
        "tile": None,
        "colour": False,
        "image_glob": "**/*.nii",
    }


def test_pairs_stay_text_and_may_hold_an_equals_sign() -> None:
    assert parse_pairs(["a=1", " b = x=y "], option="--filter") == {"a": "1", "b": "x=y"}


@pytest.mark.parametrize("pair", ["size", "=3", " =3"])
def test_what_is_no_pair_is_named(pair: str) -> None:
    with pytest.raises(InputError, match=f"--set.*NAME=VALUE.*got '{pair}'"):
        parse_settings([pair])


def test_what_is_no_yaml_is_named() -> None:
    with pytest.raises(InputError, match=r"--set windows: '\[\[1'.*YAML"):
        parse_settings(["windows=[[1"])


def test_a_comment_that_cuts_a_value_is_told() -> None:
    assert parse_settings(["image_glob='a #1'"]) == {"image_glob": "a #1"}
    with pytest.raises(InputError, match=r"' #'.*comment"):
        parse_settings(["image_glob=a #1"])
