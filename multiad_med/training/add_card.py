"""A card for a model file made before there were cards."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from multiad_med.networks import load_model, network_of_model, read_card
from multiad_med.resources import read_config
from multiad_med.training.handlers import save_model
from multiad_med.utils.errors import InputError

__all__ = ["convert_model"]


def convert_model(
    model: str | Path, target: str | Path, *, bundle: str, settings: dict[str, Any] | None = None
) -> Path:
    """Write a model file with a card from one without.

    Its maps and their threshold stay as they are. It has no normal scores, so it gives no verdicts
    until it is calibrated again.

    Args:
        model: file of an older version.
        target: new file.
        bundle: that it was trained with, whose choices go onto the card.
        settings: other choices of its training, such as ``preset`` and ``size``.

    Returns:
        The new file.

    Raises:
        InputError: when the model has a card, or the bundle has no such setting.
        WeightsError: when the file is unreadable or does not fit the preset.
    """
    if read_card(model) is not None:
        raise InputError(f"{model} has a card already; there is nothing to convert.")
    inference = read_config(bundle, "inference.json")
    preparation = dict(inference["prepared"]["defaults"])
    given = dict(settings or {})
    network = network_of_model(model, preset=given.pop("preset", None))
    if unknown := given.keys() - preparation.keys():
        raise InputError(
            f"{bundle} has no setting {sorted(unknown)[0]}; there are preset and {sorted(preparation)}."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no card
        load_model(network, model)
    card = {"domain": inference["domain"], "preparation": preparation | given}
    save_model(network, target, card=card)
    return Path(target)
