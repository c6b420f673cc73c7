"""A size as one number or two."""

from __future__ import annotations

import pytest

from multiad_med.utils.errors import InputError
from multiad_med.utils.settings import parse_settings
from multiad_med.utils.sizes import shortest, sides, size_setting


def test_one_number_is_a_square_and_two_are_rows_and_columns() -> None:
    assert sides(64) == (64, 64)
    assert sides([416, 160]) == sides((416, 160)) == (416, 160)


def test_equal_sizes_are_written_alike() -> None:
    assert shortest(64) == shortest([64, 64]) == 64
    assert shortest((416, 160)) == [416, 160]


def test_what_is_to_be_typed_gives_the_size() -> None:
    option, value = size_setting([416, 160]).split(maxsplit=1)
    assert option == "--set"
    assert parse_settings([value.strip('"')]) == {"size": [416, 160]}


@pytest.mark.parametrize("wrong", [0, -1, [], [3], [3, -3], [1, 2, 3], "64", 6.4, None])
def test_anything_else_is_refused_with_the_name_and_what_was_got(wrong: object) -> None:
    with pytest.raises(InputError, match="tile must be a positive number of pixels, got"):
        sides(wrong, name="tile")
