"""Federated training by MONAI's ``MonaiAlgo``: what travels, how it is averaged, a site's own thresholds.

``bundles/*/configs/federated.json`` names these parts; docs/federated.md explains the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems
from monai.fl.utils.exchange_object import ExchangeObject
from monai.fl.utils.filters import Filter
from torch import Tensor

from multiad_med.networks import MultiAD, load_model
from multiad_med.resources import bundle_path, with_preset
from multiad_med.training.calibration import calibrate
from multiad_med.training.expert_fitting import fit_experts, unite_experts
from multiad_med.training.handlers import save_model
from multiad_med.training.self_testing import record_self_test
from multiad_med.utils.errors import InputError

__all__ = ["FEDERATED_CONFIGS", "StudentWeights", "calibrate_site", "site_client", "weighted_mean"]

FEDERATED_CONFIGS = ("configs/train.json", "configs/federated.json")
"""What a site runs, relative to its bundle."""


class StudentWeights(Filter):
    """Lets only the student's weights and batch-norm statistics of a site's network travel.

    The teacher is the same everywhere; fusion statistics and thresholds belong to a site. Counters
    (``num_batches_tracked``) cannot be averaged and stay. What is sent is a copy: ``MonaiAlgo`` gives out
    the network's own memory, which on a CPU the next load would read while it writes.
    """

    def __call__(self, data: ExchangeObject, extra: dict[str, Any] | None = None) -> ExchangeObject:
        """Return the exchange object with the student's floating-point entries alone."""
        data.weights = {
            name: value.clone(memory_format=torch.contiguous_format)
            for name, value in (data.weights or {}).items()
            if name.startswith("student.") and value.is_floating_point()
        }
        return data


def weighted_mean(
    states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]
) -> dict[str, Tensor]:
    """Average state dicts by their weights (federated averaging; McMahan et al., AISTATS 2017).

    Batch-norm running means and variances are averaged like weights.

    Args:
        states: floating-point tensors by name, the same names and shapes in each.
        weights: how much each counts, such as its number of iterations; positive.

    Returns:
        The mean, in the tensors' own precision.

    Raises:
        InputError: when there is nothing to average, names differ, or a weight is not positive.
    """
    if not states or len(states) != len(weights):
        raise InputError(
            f"Give one weight to each of one or more states, got {len(states)} states and "
            f"{len(weights)} weights."
        )
    if min(weights) <= 0:
        raise InputError(f"Weights must be positive, got {list(weights)}.")
    names = states[0].keys()
    for number, state in enumerate(states):
        if different := sorted(names ^ state.keys()):
            raise InputError(
                f"State {number} has other names than state 0: {different[:3]} "
                f"({len(different)} in all). All sites must train the same preset."
            )
    total = sum(weights)
    return {
        name: torch.stack(
            [s[name].double() * (w / total) for s, w in zip(states, weights, strict=True)]
        )
        .sum(dim=0)
        .to(states[0][name].dtype)
        for name in names
    }


def site_client(
    bundle: str, name: str, settings: Mapping[str, Any], *, rounds: int, local_epochs: int = 1
) -> MonaiAlgo:
    """Return a site of a federation, ready to train.

    Args:
        bundle: name of the bundle.
        name: of the site.
        settings: ids of the bundle's train.json, at least ``dataset_dir``, ``ckpt_dir`` and
            ``output_dir``; logs of the global model's evaluation go to ``global/`` in the
            last. ``preset`` is one of :func:`multiad_med.resources.presets`.
        rounds: of the federation; the learning rate has one cycle over all of them.
        local_epochs: of each round.

    Raises:
        InputError: on an unknown bundle or preset.
    """
    root = bundle_path(bundle)
    training, federated = FEDERATED_CONFIGS
    files, given = with_preset(bundle, Path(training).name, settings)
    configs = [*(f"configs/{file}" for file in files), federated]
    given["max_epochs"] = rounds * local_epochs
    client = MonaiAlgo(
        bundle_root=str(root),
        local_epochs=local_epochs,
        # The difference would be taken of all entries, also of those that are not numbers.
        send_weight_diff=False,
        config_train_filename=configs,
        train_kwargs=given,
        config_evaluate_filename=configs,
        eval_kwargs={**given, "output_dir": str(Path(settings["output_dir"]) / "global")},
        config_filters_filename=configs[-1],
        best_model_filepath=str(Path(settings["ckpt_dir"]).resolve() / "model.pt"),
    )
    client.initialize({ExtraItems.CLIENT_NAME: name})
    return client


def calibrate_site(
    network: MultiAD,
    batches: Iterable[dict[str, Any]],
    *,
    normal: Iterable[dict[str, Any]],
    threshold_batches: Iterable[dict[str, Any]] | None = None,
    source: str | Path,
    target: str | Path,
    card: Mapping[str, Any],
    statistics: Sequence[Sequence[Mapping[str, Tensor]]] | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
    **kwargs: Any,
) -> None:
    """Make a site's model from the global one: thresholds and self-test on the site's own normals.

    Args:
        network: of the federation's preset, changed in place.
        batches: the site's held-out normal images, see :func:`multiad_med.training.calibrate`.
        normal: the site's training images, to which experts are fitted.
        threshold_batches: of the subjects that set thresholds; without it those of ``batches``.
        source: the global model, a complete state dict; its calibration does not matter.
        target: receives the calibrated model, whole or not at all.
        card: what the training knows of it, see :func:`multiad_med.data.describe_training`.
        statistics: what the experts of all sites have collected, each by
            :func:`multiad_med.training.expert_statistics`, in an order that all sites share; without it
            experts know the site's own images alone.
        device: where the network is.
        seed: of the self-test.
        kwargs: further arguments of :func:`multiad_med.training.calibrate`.

    Raises:
        WeightsError: when the source is missing, unreadable, or of another preset.
        InputError: see :func:`multiad_med.training.calibrate`.
    """
    load_model(network, source)
    if statistics is None:
        fit_experts(network, normal, device=device)
    else:
        unite_experts(network, statistics)
    calibrate(network, batches, threshold_batches=threshold_batches, device=device, **kwargs)
    held_out = batches if threshold_batches is None else threshold_batches
    record_self_test(network, held_out, device=device, seed=seed)
    save_model(network, target, card=card)
