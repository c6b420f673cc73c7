"""Slices of volumes in a rectangle: every medical bundle takes one, and maps come back to the volume."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from multiad_med.networks import read_card
from tests.bundles import models
from tests.bundles.cohorts import COHORTS, bundle_names

SIZE = [64, 96]  # X, Y of volumes
REGIONS = {"multiad_brain_mri": "images", "multiad_liver_ct": "organs"}
"""Folder of what is above 0 where a bundle maps; of B-scans all is."""


@pytest.mark.parametrize("name", [n for n in bundle_names() if n != "multiad_industrial"])
def test_a_rectangle_is_on_the_card_and_maps_have_the_volumes_grid(
    name: str, tmp_path: Path
) -> None:
    data = COHORTS[name](tmp_path)
    models.train(name, data, tmp_path / "models", size=SIZE)
    card = read_card(tmp_path / "models/model.pt")
    assert card is not None
    assert card.preparation["size"] == SIZE
    rows = models.infer(name, data, tmp_path / "models/model.pt", tmp_path / "out", size=None)
    assert {row["status"] for row in rows.values()} == {"done"}
    for row in rows.values():
        source, heat = nib.load(row["image"]), nib.load(tmp_path / "out" / row["map"])
        assert heat.shape == source.shape
        np.testing.assert_allclose(heat.affine, source.affine, atol=1e-5)
        values = heat.get_fdata()
        assert values.std() > 0

        if (region := REGIONS.get(name)) is not None:
            path = data / region / Path(row["image"]).name
            inside = np.argwhere(nib.load(path).get_fdata() > 0)
            mapped = np.argwhere(values > 0)
            for edge in (np.min, np.max):  # of X and Y, which differ
                np.testing.assert_allclose(edge(mapped, 0)[:2], edge(inside, 0)[:2], atol=2)
