"""Handlers that MONAI lacks: seeds that survive a resume, whole checkpoints, clear failures."""

from __future__ import annotations

import json
import logging
import random
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.distributed import get_rank
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from multiad_med.card import ModelCard, check_calibrated
from multiad_med.data import state_sha256
from multiad_med.data.image_hashes import KEPT
from multiad_med.networks import MultiAD, load_model
from multiad_med.scoring import Level, units_needed
from multiad_med.training.distributed import is_main_process
from multiad_med.training.schedule import every
from multiad_med.training.trainer import DistillationTrainer
from multiad_med.utils.atomic import write_state
from multiad_med.utils.errors import InputError, MultiADError, memory_error

__all__ = [
    "CheckpointError",
    "EpochSeedHandler",
    "ModelLoader",
    "ModelSaver",
    "ResumableTraining",
    "save_model",
    "training_scalars",
]


_logger = logging.getLogger(__name__)

_FEW = 20
"""A training with fewer normal studies is said to have few."""


class EpochSeedHandler:
    """Seeds torch, NumPy and Python from a seed and the epoch's number at each epoch's start.

    What is drawn in an epoch then depends on nothing before it, so that a training which was
    killed and resumed ends in the state of one left alone. Each process of a group draws its own.

    Args:
        seed: of the training.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Register for the start of every epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed all generators."""
        seed = self.seed * 100_003 + engine.state.epoch + 7919 * get_rank()
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)


class CheckpointError(MultiADError, RuntimeError):
    """A training checkpoint cannot be read, or belongs to another training."""


_TEACHER = "teacher."
"""What the keys of a network's frozen teacher begin with."""


class ResumableTraining:
    """Writes a checkpoint every few epochs, and resumes from it when training starts.

    Of the frozen teacher it has a hash alone: the teacher is loaded from where it comes from, and is
    refused where it is another.

    MONAI's ``CheckpointSaver`` writes in place, so that a kill in mid-write leaves half a file under
    its final name, and cannot hold the trainer to which it is attached.

    Args:
        path: the checkpoint; one file, replaced atomically.
        objects: what is saved beside the trainer's epoch and gradient scaler: anything with
            ``state_dict`` and ``load_state_dict``; what is None, or has no state, is left out.
        settings: that the training is made with, as JSON; it is not resumed with others.
        resume: whether to continue from the file where it exists.
        interval: epochs from one checkpoint to the next.
    """

    def __init__(
        self,
        path: str | Path,
        objects: Mapping[str, Any],
        *,
        settings: Mapping[str, Any] | None = None,
        resume: bool = True,
        interval: int = 1,
    ) -> None:
        self.path = Path(path)
        self.interval = interval
        # The settings already have one hash of all images.
        self.settings = {k: v for k, v in (settings or {}).items() if k != "image_hashes"}
        self.objects = {
            name: item
            for name, item in objects.items()
            if hasattr(item, "state_dict") and item.state_dict()
        }
        self.resume = resume
        self._teacher_sha256 = ""

    def attach(self, engine: DistillationTrainer) -> None:
        """Register for the start of training, and the end of every few epochs and of the last."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.STARTED, self._save_last)

    def _save_last(self, engine: DistillationTrainer) -> None:
        """Register the saving last at an epoch's end, after validation."""
        if not engine.has_event_handler(self.save, Events.EPOCH_COMPLETED):
            engine.add_event_handler(every(self.interval), self.save)

    def _settings(self, engine: DistillationTrainer) -> dict[str, Any]:
        network: MultiAD = engine.network
        return flat({"network": network.card.network, **self.settings})

    def _check_settings(self, engine: DistillationTrainer, text: str | None) -> None:
        """Refuse to go on with other settings than those of the checkpoint."""
        now = self._settings(engine)
        then: dict[str, Any] = {} if text is None else json.loads(text)
        different = [
            f"{name} was {json.dumps(then[name])} and is {json.dumps(now[name])}"
            for name in now
            if name in then and then[name] != now[name]
        ]
        if different:
            raise InputError("it was made with other settings: " + "; ".join(different))

    def save(self, engine: DistillationTrainer) -> None:
        """Write the state of the training, from the main process."""
        if not is_main_process():
            return
        state = {name: _without_teacher(item) for name, item in self.objects.items()}
        state["teacher_sha256"] = self._hash_of_teacher(engine)
        state["settings"] = json.dumps(self._settings(engine))
        state["trainer"] = {
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "max_epochs": engine.state.max_epochs,
            "epoch_length": engine.state.epoch_length,
            "scaler": engine.grad_scaler.state_dict(),
        }
        write_state(self.path, state)

    def _hash_of_teacher(self, engine: DistillationTrainer) -> str:
        """Hash of the teacher, which is frozen, so that it is made once."""
        if not self._teacher_sha256:
            self._teacher_sha256 = state_sha256(engine.network.teacher)
        return self._teacher_sha256

    def _check_teacher(self, engine: DistillationTrainer, then: str) -> None:
        """Refuse to go on with another teacher than that of the checkpoint."""
        now = self._hash_of_teacher(engine)
        if then != now:
            raise InputError(
                f"its teacher has the SHA-256 {then}, and the teacher that was loaded now has {now}: "
                "give the same teacher_weights"
            )

    def load(self, engine: DistillationTrainer) -> None:
        """Continue from the checkpoint, if there is one.

        Raises:
            CheckpointError: when it is not readable or does not fit; the message names the file
                and the part.
        """
        if not self.resume or not self.path.is_file():
            return
        try:
            state = torch.load(self.path, map_location=engine.state.device, weights_only=True)
            self._check_settings(engine, state.get("settings"))
            trainer = state["trainer"]
            if trainer["max_epochs"] != engine.state.max_epochs:
                raise InputError(
                    f"it was made for {trainer['max_epochs']} epochs, which the learning rate "
                    f"follows, and now there are {engine.state.max_epochs}"
                )
            if trainer["epoch_length"] != engine.state.epoch_length:
                raise InputError(
                    f"its epochs have {trainer['epoch_length']} iterations, which the learning rate "
                    f"follows, and now they have {engine.state.epoch_length}: other data, batch size or "
                    "number of processes"
                )
            if "teacher_sha256" in state:  # else of an older version, which has the whole teacher
                self._check_teacher(engine, state["teacher_sha256"])
            for name, item in self.objects.items():
                item.load_state_dict(_teacher_of(item) | state[name])
            engine.state.epoch, engine.state.iteration = trainer["epoch"], trainer["iteration"]
            engine.grad_scaler.load_state_dict(trainer["scaler"])
        except Exception as error:  # whatever another training's state makes torch raise
            if memory_error(error) is not None:
                raise
            raise CheckpointError(
                f"Cannot resume from {self.path}: {error}. Delete it, or set resume to false, to "
                "train anew; or give the settings that it was made with."
            ) from error
        if engine.state.epoch == engine.state.max_epochs:
            _logger.warning(
                "%s is of a training that was finished: nothing is trained, the network is "
                "calibrated again. Set resume to false, or another ckpt_dir, to train anew.",
                self.path,
            )
        else:
            _logger.info("resumed from %s after epoch %d", self.path, engine.state.epoch)


def _teacher_of(item: Any) -> dict[str, Any]:
    """Return the teacher's part of a network's state dict; nothing of other objects."""
    if not isinstance(item, MultiAD):
        return {}
    return {key: value for key, value in item.state_dict().items() if key.startswith(_TEACHER)}


def _without_teacher(item: Any) -> Any:
    """Return an object's state dict, of a network without its teacher."""
    state = item.state_dict()
    if not isinstance(item, MultiAD):
        return state
    return {key: value for key, value in state.items() if not key.startswith(_TEACHER)}


class ModelLoader:
    """Loads a trained model when a run starts, strictly.

    MONAI's ``CheckpointLoader`` names neither the file of a corrupt checkpoint nor a likely reason
    for keys that do not fit.

    Args:
        path: ``model.pt`` as :class:`ModelSaver` writes it.
        network: of the preset that was trained, changed in place.
        trains: whether its student goes on learning.
    """

    def __init__(self, path: str | Path, network: MultiAD, *, trains: bool = False) -> None:
        self.path = Path(path)
        self.network = network
        self.trains = trains

    def attach(self, engine: Engine) -> None:
        """Register for the start of the run."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Load the file.

        Raises:
            WeightsError: of :func:`multiad_med.networks.load_model`.
            NotCalibratedError: when its training was not finished.
        """
        load_model(self.network, self.path, trains=self.trains)
        check_calibrated(self.network)


class ModelSaver:
    """Writes the network's state dict, card included, when training has completed, whole or not at all.

    Then logs where the model is, what its verdicts rest on, and what to do next.

    Args:
        path: the file, to be loaded with ``weights_only=True``.
        network: the network.
        card: what the training adds to its card, see :func:`multiad_med.data.describe_training`.
    """

    def __init__(
        self, path: str | Path, network: MultiAD, *, card: Mapping[str, Any] | None = None
    ) -> None:
        self.path = Path(path)
        self.network = network
        self.card = dict(card or {})

    def attach(self, engine: Engine) -> None:
        """Register for the end of training."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the file, from the main process."""
        if not is_main_process():
            return
        save_model(self.network, self.path, card=self.card)
        if not self.network.card.domain:  # of a comparison, which keeps no model
            return
        for line in next_steps(self.network.card, self.path):
            _logger.info("%s", line)


def save_model(network: MultiAD, path: str | Path, *, card: Mapping[str, Any]) -> None:
    """Write a calibrated network with its card, whole or not at all.

    Args:
        network: whose card is completed.
        path: ``model.pt``.
        card: parts of the card, such as ``domain``, ``preparation`` and ``training``.
    """
    network.card = replace(network.card, **card)
    write_state(path, network.state_dict())


def next_steps(card: ModelCard, path: Path) -> Iterator[str]:
    """Yield what a user should know when a training ends, one line each."""
    yield f"The model is in {path}."
    held_out = {
        card.unit(level): normals for level, normals in card.levels.items() if normals.units
    }
    counts = [f"{n.units} {unit}{'s' * (n.units != 1)}" for unit, n in held_out.items()]
    yield f"Calibrated on held-out normals: {', '.join(counts)}."
    yield from _weaknesses(card)
    for unit, normals in held_out.items():
        if normals.threshold is None:
            yield (
                f"Too few {unit}s for their verdict: a false-positive rate of "
                f"{normals.rate:g} needs {units_needed(normals.rate)}."
            )
    yield f"Next: multiad predict NEW -m {shlex.quote(str(path))} -o MAPS"


def _weaknesses(card: ModelCard) -> Iterator[str]:
    """Yield what is weak about a training's images: too few, or copies."""
    unit = card.unit(Level.VOLUME)
    trained, held_out = (set(card.image_hashes.get(k, ())) for k in ("training", "held_out"))
    studies = card.training.get("training_data", {}).get("studies", 0)
    if 0 < studies < _FEW:
        yield (
            f"Few normal {unit}s in training ({studies}): what they do not show will count as anomalous."
        )
    if len(trained) < studies <= KEPT:
        yield f"{studies - len(trained)} of {studies} training {unit}s are copies and add nothing."
    if shared := len(trained & held_out):
        yield (
            f"{shared} held-out {unit}{'s' * (shared > 1)} also trained, as a copy: scores of held-out "
            "normals are too low, and more normal ones than asked will count as anomalous."
        )


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as JSON values by dotted names."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = json.loads(json.dumps(value, default=str))
    return result


def training_scalars(output: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the scalars of a :class:`DistillationTrainer`'s decollated output, for TensorBoard."""
    return {name: float(value) for name, value in output[0].items() if name != CommonKeys.IMAGE}
