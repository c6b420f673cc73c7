"""A model's card: what it keeps, and what contradicts it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from multiad_med.card import CardError, ModelCard, check_given
from multiad_med.networks import (
    MultiAD,
    build_multiad,
    load_model,
    model_preparation,
    network_of_model,
    open_model,
    read_card,
)
from multiad_med.scoring import Level, NormalScores
from multiad_med.training import save_model

PREPARATION = {"size": 96, "windows": [[-200, 250]], "region": "organ", "organ_labels": None}
CHOICES: dict[str, Any] = {
    "preset": "resnet18",
    "output_stride": 16,
    "se": False,
    "student": "image",
    "stages": [1, 2, 3],
    "fused": [2, 3],
    "experts": [],
    "residual": "cosine",
    "fusion": "quantile",
    "sigma": 2.5,
}


def make_model(path: Path, *, levels: int = 3) -> MultiAD:
    torch.manual_seed(0)
    network = build_multiad(**CHOICES, teacher_weights="random").eval()
    network.calibrated.fill_(True)
    network.card.levels = {Level.VOLUME: NormalScores((0.25,) * levels, 0.05)}
    save_model(network, path, card={"domain": "liver_ct", "preparation": PREPARATION})
    return network


@pytest.mark.slow
def test_a_model_builds_itself_and_gives_the_same_map(tmp_path: Path) -> None:
    network = make_model(tmp_path / "model.pt")
    again = open_model(tmp_path / "model.pt").eval()
    assert again.card == network.card
    assert again.card.network == CHOICES
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(again(x), network(x), atol=1e-5, rtol=0)  # folded, and not


def test_a_rectangle_is_another_size_than_its_turned_one_and_a_square_is_one_number(
    tmp_path: Path,
) -> None:
    file = tmp_path / "model.pt"
    make_model(file)

    def prepared(size: Any) -> Any:
        return model_preparation(file, domain="liver_ct", given={"size": size}, defaults={})["size"]

    assert prepared(None) == prepared(96) == prepared([96, 96]) == 96
    with pytest.raises(CardError, match=r"size 96\b.*\[96, 64\]"):
        prepared([96, 64])


def test_the_file_holds_nothing_but_tensors_and_the_card_is_plain_json(tmp_path: Path) -> None:
    make_model(tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    content = json.loads(bytes(state["_extra_state"].tolist()))
    assert content["format"] == 1
    assert content["domain"] == "liver_ct"
    assert content["preparation"] == PREPARATION
    assert content["levels"]["volume"]["scores"] == [0.25] * 3
    assert set(content["versions"]) == {"multiad-med", "monai", "torch"}


@pytest.mark.slow
def test_cards_of_other_lengths_load_into_a_network(tmp_path: Path) -> None:
    make_model(tmp_path / "few.pt", levels=3)
    make_model(tmp_path / "many.pt", levels=300)
    network = open_model(tmp_path / "few.pt")
    load_model(network, tmp_path / "many.pt")
    assert network.card.level(Level.VOLUME).units == 300


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("preset", "resnet34"),
        ("output_stride", 8),
        ("se", True),
        ("student", "decoder"),
        ("stages", (1, 2, 3, 4)),
        ("fused", (1, 2)),
        ("fusion", "sum"),
        ("sigma", 4.0),
    ],
)
def test_another_network_than_the_cards_is_refused_with_both_values(
    name: str, value: Any, tmp_path: Path
) -> None:
    make_model(tmp_path / "model.pt")
    both = f"{name} {json.dumps(CHOICES[name])}, asked for is {json.dumps(value)}"
    with pytest.raises(CardError, match=re.escape(both)):
        network_of_model(tmp_path / "model.pt", **{name: value})
    if name != "student":  # a decoder of an output stride that it has not
        other = build_multiad(**{**CHOICES, name: value}, teacher_weights="random")
        with pytest.raises(CardError, match=re.escape(both)):
            load_model(other, tmp_path / "model.pt")


@pytest.mark.slow
def test_what_is_given_again_and_equal_is_no_contradiction(tmp_path: Path) -> None:
    make_model(tmp_path / "model.pt")
    assert network_of_model(tmp_path / "model.pt", stages=(1, 2, 3), sigma=2.5).fused == [2, 3]


def prepared(path: Path, domain: str = "liver_ct", **given: Any) -> dict[str, Any]:
    defaults = {"size": 256, "windows": [[0, 80]], "region": "body", "organ_labels": None}
    return model_preparation(path, domain=domain, given=given, defaults=defaults)


@pytest.mark.slow
def test_the_card_tells_how_images_are_prepared(tmp_path: Path) -> None:
    make_model(tmp_path / "model.pt")
    assert prepared(tmp_path / "model.pt") == PREPARATION
    assert prepared(tmp_path / "model.pt", size=96, region=None) == PREPARATION


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "both"),
    [
        ({"size": 128}, "size 96, asked for is 128"),
        ({"windows": [[0, 80]]}, "windows [[-200, 250]], asked for is [[0, 80]]"),
        ({"region": "body"}, 'region "organ", asked for is "body"'),
        ({"organ_labels": [6]}, "organ_labels null, asked for is [6]"),
    ],
)
def test_another_preparation_than_the_cards_is_refused_with_both_values(
    given: dict[str, Any], both: str, tmp_path: Path
) -> None:
    make_model(tmp_path / "model.pt")
    with pytest.raises(CardError, match=re.escape(both)):
        prepared(tmp_path / "model.pt", **given)


def test_a_model_of_another_domain_is_refused(tmp_path: Path) -> None:
    make_model(tmp_path / "model.pt")
    with pytest.raises(CardError, match=r"liver_ct\b.*brain_mri\b.*multiad_liver_ct"):
        prepared(tmp_path / "model.pt", domain="brain_mri")


def without_card(path: Path, network: MultiAD) -> None:
    """The file as versions before the card wrote it."""
    state = {key: value for key, value in network.state_dict().items() if key != "_extra_state"}
    state |= {"image_threshold": torch.tensor(0.6), "image_false_positive_rate": torch.tensor(0.05)}
    torch.save(state, path)


def test_a_model_without_card_loads_with_a_warning_and_gives_no_verdicts(tmp_path: Path) -> None:
    network = make_model(tmp_path / "model.pt")
    without_card(tmp_path / "old.pt", network)
    assert read_card(tmp_path / "old.pt") is None
    with pytest.warns(UserWarning, match=r"old\.pt has no card.*no verdicts"):
        load_model(network, tmp_path / "old.pt")
    assert network.card.network == CHOICES
    level = network.card.level(Level.VOLUME)
    assert level.anomalous(1.0) is None
    assert "no held-out normal volumes" in level.no_verdict(Level.VOLUME)
    assert prepared(tmp_path / "old.pt", size=64)["size"] == 64
    assert prepared(tmp_path / "old.pt")["size"] == 256


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "damaged"),
        (b'{"format": 99, "versions": {"multiad-med": "9.9"}}', "format 99.*9.9"),
        (b'{"format": 1}', "damaged: KeyError"),
    ],
)
def test_a_card_that_cannot_be_read_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    make_model(tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    state["_extra_state"] = torch.tensor(list(content), dtype=torch.uint8)
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(CardError, match=rf"model\.pt: .*{message}"):
        open_model(tmp_path / "model.pt")


def test_a_card_survives_its_bytes() -> None:
    card = ModelCard(
        network=CHOICES,
        domain="brain_mri",
        preparation=PREPARATION,
        training={"max_epochs": 8},
        levels={level: NormalScores((0.1, 0.7), 0.05, "few") for level in Level},
    )
    assert ModelCard.from_tensor(card.as_tensor()) == card


def test_all_contradictions_are_named_at_once() -> None:
    with pytest.raises(CardError, match=r"\ba 1\b.*\b2; b null\b.*\b3\b"):
        check_given({"a": 1, "b": None, "c": 4}, {"a": 2, "b": 3, "c": 4, "d": 5}, of="model.pt")


def test_a_card_of_version_01_is_read_with_todays_names() -> None:
    content = ModelCard(preparation={"size": 64}).as_json()
    content["preparation"]["even_light"] = True
    assert ModelCard.from_json(content).preparation == {"size": 64, "normalise_brightness": True}


def test_a_model_file_that_is_written_anew_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    for domain in ("brain_mri", "liver_ct"):
        torch.save({"_extra_state": ModelCard(domain=domain).as_tensor()}, file)
        for _ in range(2):
            card = read_card(file)
            assert card is not None
            assert card.domain == domain
            card.domain = "changed by the caller"
