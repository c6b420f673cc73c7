"""A model's card: what it is, how its input is prepared, and its held-out normal scores."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from multiad_med.scoring import Level, NormalScores, unit_name
from multiad_med.self_test_result import SelfTest
from multiad_med.utils.errors import MultiADError

__all__ = [
    "CalibratedNetwork",
    "CardError",
    "ModelCard",
    "NotCalibratedError",
    "check_calibrated",
    "check_given",
]

FORMAT = 1
_RENAMED = {"even_light": "normalise_brightness"}
"""Settings that models of version 0.1 have under another name."""

PACKAGES = ("multiad-med", "monai", "torch")


class CardError(MultiADError, ValueError):
    """A model's card cannot be read, or contradicts what was asked for."""


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back, so that a tuple equals a list and an enum its text."""
    return json.loads(json.dumps(value))


def versions() -> dict[str, str]:
    """Return the versions of the packages that make a model."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a source tree that was never installed
            found[name] = "unknown"
    return found


@dataclass
class ModelCard:
    """What a model file says of itself; one JSON in the network's state dict.

    Attributes:
        network: arguments of :func:`multiad_med.networks.build_multiad`, without the teacher's weights.
        domain: what the model is for, such as ``brain_mri``; empty where unknown.
        preparation: settings that decide what the network sees, such as ``size``; empty where unknown.
        training: settings and data of the training.
        levels: held-out normal scores of each level; see :class:`multiad_med.scoring.NormalScores`.
        calibration: rates and data of a calibration after the training; empty where there was none.
        self_test: what the training's self-test found; None where there was none.
        image_hashes: of the images that the model has seen (``training``, ``held_out``,
            ``calibration``); see :func:`multiad_med.data.image_hashes.image_hash`.
        made_with: versions of the packages.
    """

    network: dict[str, Any] = field(default_factory=dict)
    domain: str = ""
    preparation: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    levels: dict[Level, NormalScores] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    self_test: SelfTest | None = None
    image_hashes: dict[str, list[str]] = field(default_factory=dict)
    made_with: dict[str, str] = field(default_factory=versions)

    def level(self, level: Level) -> NormalScores:
        """Return a level's normal scores; empty, at a rate of 5 %, if it was never calibrated."""
        return self.levels.get(level, NormalScores((), 0.05))

    def settings(self, config: Container[str]) -> dict[str, Any]:
        """Return those settings of the training whose ids a config has."""
        return {k: v for k, v in {**self.training, **self.preparation}.items() if k in config}

    def unit(self, level: Level) -> str:
        """Return the name of a level's unit: an industrial image is slice and volume at once."""
        return unit_name(level, self.domain)

    def as_json(self) -> dict[str, Any]:
        """Return the card's content."""
        return {
            "format": FORMAT,
            "domain": self.domain,
            "network": _plain(self.network),
            "preparation": _plain(self.preparation),
            "training": _plain(self.training),
            "levels": {str(level): scores.as_json() for level, scores in self.levels.items()},
            "calibration": _plain(self.calibration),
            "self_test": None if self.self_test is None else self.self_test.as_json(),
            "image_hashes": self.image_hashes,
            "versions": self.made_with,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the card that :meth:`as_json` gave.

        Raises:
            CardError: when it is of another format, or lacks a part.
        """
        if content.get("format") != FORMAT:
            raise CardError(
                f"The model's card has format {content.get('format')!r}; this version of multiad-med "
                f"reads format {FORMAT}. Use the version that made it: {content.get('versions')}."
            )
        tested = content.get("self_test")
        try:
            return cls(
                network=dict(content["network"]),
                domain=content["domain"],
                preparation={_RENAMED.get(k, k): v for k, v in content["preparation"].items()},
                training=dict(content["training"]),
                levels={
                    Level(name): NormalScores.from_json(scores)
                    for name, scores in content["levels"].items()
                },
                calibration=dict(content.get("calibration", {})),
                self_test=SelfTest.from_json(tested) if tested else None,
                image_hashes=dict(content.get("image_hashes", {})),
                made_with=dict(content["versions"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CardError(f"The model's card is damaged: {error!r}.") from error

    def as_tensor(self) -> Tensor:
        """Return the card's JSON as bytes ``(N,)`` uint8, which ``weights_only`` loads."""
        text = json.dumps(self.as_json(), allow_nan=False)
        return torch.from_numpy(np.frombuffer(text.encode(), dtype=np.uint8).copy())

    @classmethod
    def from_tensor(cls, state: Tensor) -> Self:
        """Return the card that :meth:`as_tensor` gave.

        Raises:
            CardError: when the bytes are no card.
        """
        try:
            content = json.loads(state.cpu().numpy().tobytes())
        except ValueError as error:
            raise CardError(f"The model's card is damaged: {error}.") from error
        return cls.from_json(content)


def check_given(
    told: Mapping[str, Any], given: Mapping[str, Any], *, of: str, name: str = "the model"
) -> None:
    """Refuse arguments that contradict a card.

    Args:
        told: values on the card.
        given: values from the caller. None, and a name that the card lacks, contradict nothing.
        of: the model file, for the message.
        name: whose arguments they are, for the message.

    Raises:
        CardError: naming each argument with both values.
    """
    different = [
        f"{key} {json.dumps(_plain(told[key]))}, asked for is {json.dumps(_plain(value))}"
        for key, value in given.items()
        if value is not None and key in told and _plain(told[key]) != _plain(value)
    ]
    if different:
        raise CardError(
            f"{of}: {name} was made with {'; '.join(different)}. Leave the argument out, or use a model "
            "that was trained with it."
        )


class CalibratedNetwork(Protocol):
    """What scoring needs of a network: what calibration sets, see ``MultiAD``."""

    calibrated: Tensor
    pixel_false_positive_rate: Tensor
    score_fraction: Tensor
    card: ModelCard


class NotCalibratedError(MultiADError, RuntimeError):
    """The network has no thresholds, so that its maps and scores mean nothing yet."""


def check_calibrated(network: CalibratedNetwork) -> None:
    """Refuse a network without thresholds.

    Raises:
        NotCalibratedError: when it was never calibrated.
    """
    if not bool(network.calibrated):
        raise NotCalibratedError(
            "The model is not calibrated: load the model.pt that a finished training wrote. "
            "A training checkpoint has no thresholds yet."
        )
