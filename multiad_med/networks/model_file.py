"""From ``model.pt`` to a network: the file says itself what it is."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from multiad_med.card import CardError, ModelCard, check_given
from multiad_med.networks.folding import fold_batch_norms
from multiad_med.networks.multiad import MultiAD
from multiad_med.networks.presets import TeacherWeights, build_multiad
from multiad_med.networks.weights import check_keys, read_state_dict
from multiad_med.utils.sizes import shortest

__all__ = [
    "bundle_of_model",
    "load_model",
    "maps_studies",
    "model_preparation",
    "network_of_model",
    "open_model",
    "read_card",
]

CARD = "_extra_state"
"""Key of the card in a state dict, as torch names what ``get_extra_state`` returns."""

CACHES = "caches"
"""Part of a card's preparation: how each of several folders of prepared slices was made."""

_PRESET = "efficientnet_lite0_decoder"

_FUSED = "fusion.fused"
"""Entry of older models: which maps are fused."""

_WITHOUT_LEVELS = ("image_threshold", "image_false_positive_rate")
"""Entries of models made before there were cards."""


def _card(content: Tensor | None, path: Path) -> ModelCard | None:
    if content is None:
        return None
    try:
        return ModelCard.from_tensor(content)
    except CardError as error:
        raise CardError(f"{path}: {error}") from error


def read_card(file: str | Path) -> ModelCard | None:
    """Return the card of a model file; None of a model made before there were cards.

    Raises:
        WeightsError: when the file is missing or unreadable.
        CardError: when the card is.
    """
    path = Path(file)
    status = os.stat(path) if path.is_file() else None
    stamp = status and (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return _card(_card_content(path, stamp), path)


@lru_cache(maxsize=8)
def _card_content(path: Path, stamp: tuple[int, ...] | None) -> Tensor | None:
    """Return the card in a file, which many ask for; the stamp changes when the file does."""
    content = read_state_dict(path, mmap=True).get(CARD)
    return None if content is None else content.clone()  # not a view of the file


def bundle_of_model(file: str | Path, bundle: str | None = None) -> str:
    """Return the bundle that a model was trained with, as its card tells.

    Args:
        file: ``model.pt``.
        bundle: of a model without card, or named like one of the folders of prepared slices that a
            model was trained on together; None means as the card tells.

    Raises:
        CardError: when the card tells another bundle, or there is no card and none is given.
        WeightsError: when the file is missing or unreadable.
    """
    card = read_card(file)
    told = f"multiad_{card.domain}" if card is not None and card.domain else None
    if told is None and bundle is None:
        raise CardError(
            f"{file} does not tell its bundle: it was made by an older version. Name the bundle, or "
            "write a card with `multiad convert`."
        )
    caches = {} if card is None else card.preparation.get(CACHES, {})
    if bundle is not None and bundle.removeprefix("multiad_") in caches:
        return bundle
    if told is not None:
        check_given({"bundle": told}, {"bundle": bundle}, of=str(file))
    return told or str(bundle)


def maps_studies(file: str | Path, bundle: str) -> bool:
    """Return whether a bundle can prepare new studies for a model.

    It cannot where the model was trained on several folders of prepared slices, none of them of the
    bundle's domain: the model then judges prepared slices only.

    Args:
        file: ``model.pt``.
        bundle: name of the bundle.

    Raises:
        CardError, WeightsError: as of :func:`read_card`.
    """
    card = read_card(file)
    caches = None if card is None else card.preparation.get(CACHES)
    return caches is None or bundle.removeprefix("multiad_") in caches


def network_of_model(
    file: str | Path, *, preset: str | None = None, default: str = _PRESET, **choices: Any
) -> MultiAD:
    """Build the network of a model file, as its card tells; its weights are not loaded yet.

    Where there is no file, or one without card, the arguments decide.

    Args:
        file: ``model.pt`` of a finished training.
        preset: a key of :data:`multiad_med.networks.PRESETS`.
        default: preset where neither the file nor ``preset`` decides.
        choices: further arguments of :func:`multiad_med.networks.build_multiad`. None means as the card
            tells, or, without one, today's default.

    Raises:
        CardError: when a choice contradicts the card; the message names both values.
        WeightsError: when the file is unreadable.
    """
    path = Path(file)
    card = read_card(path) if path.is_file() else None
    given = {"preset": preset, **choices}
    arguments = {"preset": default, **{k: v for k, v in given.items() if v is not None}}
    if card is not None and card.network:
        check_given(card.network, given, of=str(path))
        arguments = card.network
    return build_multiad(**arguments, teacher_weights=TeacherWeights.CHECKPOINT)


def model_preparation(
    file: str | Path,
    *,
    domain: str,
    given: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> dict[str, Any]:
    """Return settings that decide what the network sees: the card's, where it tells them.

    Args:
        file: ``model.pt``; where there is none, or one without card, what is given counts.
        domain: that the caller is for, such as ``brain_mri``.
        given: settings asked for; None means as the card tells.
        defaults: of a model whose card does not tell them.

    Raises:
        CardError: when the model is of another domain, or a setting contradicts the card.
        WeightsError: when the file is unreadable.
    """
    path = Path(file)
    card = read_card(path) if path.is_file() else None
    asked = {name: value for name, value in given.items() if value is not None}
    if "size" in asked:
        asked["size"] = shortest(asked["size"])
    if card is None:
        return {**defaults, **asked}
    told = card.preparation
    if CACHES in told:
        told = _of_cache(told, domain, names=defaults, path=path)
    elif card.domain and card.domain != domain:
        raise CardError(
            f"{path} is a model of {card.domain}, asked for is {domain}. Use the bundle "
            f"multiad_{card.domain}, or another model."
        )
    check_given(told, asked, of=str(path))
    return {**defaults, **asked, **told}


def _of_cache(
    preparation: Mapping[str, Any], domain: str, *, names: Iterable[str], path: Path
) -> dict[str, Any]:
    """Return how a domain's slices were prepared, for a model of several folders of prepared slices."""
    caches = preparation[CACHES]
    if domain not in caches:
        raise CardError(
            f"{path} was trained on the prepared slices {sorted(caches)}, each prepared in its own way, "
            f"and none of them is named {domain}. It judges prepared slices, by `multiad evaluate`. New "
            "studies it maps by the bundle of their domain (--bundle multiad_brain_mri), if the folder "
            "of slices that trained has that domain's name (brain_mri)."
        )
    own = {name: caches[domain].get(name) for name in names}
    return {k: v for k, v in own.items() if v is not None} | {"size": preparation["size"]}


def load_model(network: MultiAD, file: str | Path, *, trains: bool = False) -> None:
    """Load a trained Multi-AD's state dict, strictly.

    Its student's batch norms are folded into the convolutions before them
    (:func:`multiad_med.networks.fold_batch_norms`), unless it is to be trained further.

    A model made before there were cards loads with a warning: it has no held-out scores of its
    levels, so that nothing but its map has a threshold.

    Args:
        network: of the model, see :func:`network_of_model`; changed in place.
        file: ``model.pt`` as training writes it.
        trains: whether the student goes on learning.

    Raises:
        CardError: when the network is another than the card tells; the message names both values.
        WeightsError: when the file is missing, unreadable, or of another preset; the message names
            the first keys that differ.
    """
    path = Path(file)
    state = read_state_dict(path)
    card = _card(state.get(CARD), path)
    if _FUSED in state:  # before experts, when each map counted wholly or not at all
        state["fusion.weights"] = state.pop(_FUSED).float()
    if card is None:
        warnings.warn(
            f"{path} has no card: it was made by an older version and does not tell its size, stages "
            "or fusion, which are taken from the bundle. It gives maps, but no verdicts. Train anew, or "
            "write a card with `multiad convert`.",
            stacklevel=2,
        )
        state = {key: value for key, value in state.items() if key not in _WITHOUT_LEVELS}
        card = ModelCard(network=network.card.network)
        state[CARD] = card.as_tensor()
    check_given(card.network, network.card.network, of=str(path))
    check_keys(path, "this network (another preset?)", network.state_dict(), state)
    network.load_state_dict(state)
    if not trains:
        fold_batch_norms(network.student)
    if "fused" in network.card.network:
        network.card.network["fused"] = network.fused  # a model without card brings its own


def open_model(file: str | Path, *, preset: str | None = None) -> MultiAD:
    """Build and load the network of a model file.

    Args:
        file: ``model.pt`` of a finished training.
        preset: see :func:`network_of_model`.

    Raises:
        CardError, WeightsError: as of :func:`network_of_model` and :func:`load_model`.
    """
    network = network_of_model(file, preset=preset)
    load_model(network, file)
    return network
