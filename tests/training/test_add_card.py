"""Models of older versions get a card."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from multiad_med.networks import WeightsError, open_model, read_card
from multiad_med.testing.cohorts import write_fake_model
from multiad_med.training.add_card import convert_model
from multiad_med.utils.errors import InputError


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A model as versions before the card wrote it, with other fused stages than the preset's."""
    path = write_fake_model("multiad_brain_mri", tmp_path / "old.pt")
    state = torch.load(path, weights_only=True)
    del state["_extra_state"], state["fusion.weights"]
    state["fusion.fused"] = torch.tensor([False, True, True])
    state |= {"image_threshold": torch.tensor(0.6), "image_false_positive_rate": torch.tensor(0.05)}
    torch.save(state, path)
    return path


def test_a_converted_model_loads_without_a_word_and_gives_the_same_map(
    old: Path, tmp_path: Path
) -> None:
    new = convert_model(old, tmp_path / "new.pt", bundle="multiad_brain_mri", settings={"size": 96})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        converted = open_model(new).eval()
    with pytest.warns(UserWarning, match="has no card"):
        original = open_model(old).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(converted(x), original(x))
    card = read_card(new)
    assert card is not None
    assert card.domain == "brain_mri"
    assert card.preparation == {"size": 96, "min_fraction": 0.1, "transform": None}
    assert card.network["fused"] == [2, 3]


def test_what_cannot_be_converted_is_refused(old: Path, tmp_path: Path) -> None:
    target = tmp_path / "new.pt"
    with pytest.raises(InputError, match="no setting sise; there are preset and"):
        convert_model(old, target, bundle="multiad_brain_mri", settings={"sise": 96})
    with pytest.raises(WeightsError, match="does not hold weights"):
        convert_model(old, target, bundle="multiad_brain_mri", settings={"preset": "resnet18"})
    assert not target.exists()
    model = write_fake_model("multiad_brain_mri", tmp_path / "model.pt")
    with pytest.raises(InputError, match="has a card already"):
        convert_model(model, target, bundle="multiad_brain_mri")
