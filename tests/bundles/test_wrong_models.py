"""Model files that do not fit are named, by every bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiad_med.card import CardError
from multiad_med.networks import WeightsError
from multiad_med.testing.cohorts import COHORTS, one_bundle_per_input, write_fake_model
from multiad_med.utils.errors import MultiADError, user_error
from tests.bundles.models import infer


@pytest.mark.parametrize("name", one_bundle_per_input())
def test_missing_weights_and_a_wrong_preset_are_named(name: str, tmp_path: Path) -> None:
    data = COHORTS[name](tmp_path)
    model = write_fake_model(name, tmp_path / "model.pt")
    for path, override, message in (
        (tmp_path / "no.pt", {}, "There is no weights file"),
        (model, {"preset": "efficientnet_lite0"}, 'asked for is "efficientnet_lite0"'),
    ):
        with pytest.raises(MultiADError) as error:
            infer(name, data, path, tmp_path / "out", **override)
        assert isinstance(user_error(error.value), (CardError, WeightsError))
        assert message in str(user_error(error.value))
    assert not list((tmp_path / "out").rglob("*.*"))
