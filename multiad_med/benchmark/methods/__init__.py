"""Published methods of anomaly detection on the same teacher, by anomalib (the extra ``benchmark``)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from multiad_med.benchmark.detectors import Detector, UnavailableError
from multiad_med.benchmark.methods.memory_bank import PaDiM, PatchCore
from multiad_med.benchmark.methods.own_teacher import Dinomaly, EfficientAd
from multiad_med.benchmark.methods.trained import STFPM, ReverseDistillation, SuperSimpleNet
from multiad_med.networks import FeatureExtractor
from multiad_med.utils.errors import InputError

__all__ = ["METHODS", "build_method"]


def _no_package(method: str) -> Callable[..., Detector]:
    def refuse(**_: Any) -> Detector:
        raise UnavailableError(f"{method} is in no maintained package that we know of.")

    return refuse


METHODS: dict[str, Callable[..., Detector]] = {
    "padim": PaDiM,
    "patchcore": PatchCore,
    "patchcore_1": partial(PatchCore, coreset=0.01),
    "stfpm": STFPM,
    "reverse_distillation": ReverseDistillation,
    "supersimplenet": SuperSimpleNet,
    "efficient_ad": EfficientAd,
    "dinomaly": Dinomaly,
    "mkd": _no_package("MKD"),
    "simplenet": _no_package("SimpleNet"),
}
"""The builder of each method, with the arguments of :func:`build_method`."""


def build_method(
    name: str,
    *,
    teacher: FeatureExtractor,
    architecture: str,
    size: int | tuple[int, int],
    epochs: int,
    batch_size: int | None = None,
    device: str | torch.device = "cpu",
    **options: Any,
) -> Detector:
    """Build a published method, untrained, on a given teacher.

    Args:
        name: a key of :data:`METHODS`.
        teacher: frozen features with loaded weights; a copy of it is used.
        architecture: its name, as :func:`multiad_med.networks.build_extractor` knows it.
        size: ``(H, W)`` of the images, or one number for both.
        epochs: passes over the training images, for a method that trains.
        batch_size: None means anomalib's published one.
        device: where it is fitted and predicts.
        options: of one method: ``noise_std`` of SuperSimpleNet, ``weights`` and ``imagenet`` of
            EfficientAd, ``weights`` and ``encoder`` of Dinomaly.

    Raises:
        InputError: on an unknown name, or a number that is not positive.
        UnavailableError: when the method cannot run here; the message says why.
    """
    if name not in METHODS:
        raise InputError(f"Unknown method {name!r}; choose one of {sorted(METHODS)}.")
    return METHODS[name](
        teacher=teacher,
        architecture=architecture,
        size=size,
        epochs=epochs,
        batch_size=batch_size,
        device=device,
        **options,
    )
