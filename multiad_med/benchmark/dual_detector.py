"""A dual student in a benchmark, whose parts are scored one by one after a single training."""

from __future__ import annotations

from enum import StrEnum
from tempfile import TemporaryDirectory
from typing import Any

import torch
from monai.utils import set_determinism
from torch import Tensor
from torch.utils.data import Dataset

from multiad_med.benchmark.detectors import DOMAIN, stored_megabytes
from multiad_med.detector import AnomalyDetector
from multiad_med.networks import ExpertKind, MultiAD, build_multiad
from multiad_med.scoring import image_scores

__all__ = ["DualDetector", "DualPart"]


class DualPart(StrEnum):
    """Which of what a dual network finds is scored."""

    JOINT = "joint"
    """Local and semantic student."""
    LOCAL = "local"
    """The local student alone: the map."""
    SEMANTIC = "semantic"
    """The semantic student alone: one number an image."""
    NEIGHBOURS = "neighbours"
    """The two nearest normal tokens alone, without training."""
    GAUSSIAN = "gaussian"
    """A whitened Gaussian of normal tokens alone, without training."""
    LOCAL_NEIGHBOURS = "local_neighbours"
    """Local student and nearest normal tokens."""
    LOCAL_GAUSSIAN = "local_gaussian"
    """Local student and Gaussian of normal tokens."""


_BASELINES = (ExpertKind.TOKEN_NEIGHBOURS, ExpertKind.TOKEN_GAUSSIAN)
_TOKENS: dict[DualPart, int | None] = {
    DualPart.JOINT: 0,
    DualPart.LOCAL: None,
    DualPart.SEMANTIC: 0,
    DualPart.NEIGHBOURS: 1,
    DualPart.GAUSSIAN: 2,
    DualPart.LOCAL_NEIGHBOURS: 1,
    DualPart.LOCAL_GAUSSIAN: 2,
}
"""Which token counts: the semantic student's, or that of a baseline."""
_ALONE = (DualPart.SEMANTIC, DualPart.NEIGHBOURS, DualPart.GAUSSIAN)


class DualDetector:
    """Train a dual preset by its bundle's config, beside the untrained baselines of its tokens.

    Args:
        preset: such as ``dual_lite2``.
        name: in tables.
        teacher_weights: ``imagenet`` or a file.
        epochs: of the training.
        score_fraction: part of an image's pixels whose mean is its score; 1 for class data sets.
        form: of the loss; see :class:`multiad_med.networks.NoisyOrForm`.
        settings: further ids of the training's config.
        device: where it trains and predicts.
    """

    network: MultiAD

    def __init__(
        self,
        preset: str,
        *,
        name: str,
        teacher_weights: str = "imagenet",
        epochs: int = 10,
        score_fraction: float = 0.0,
        form: str = "likelihood",
        settings: dict[str, Any] | None = None,
        device: str = "cpu",
    ) -> None:
        self.preset = preset
        self.name = name
        self.teacher_weights = teacher_weights
        self.epochs = epochs
        self.score_fraction = score_fraction
        self.form = form
        self.settings = settings or {}
        self.device = torch.device(device)
        self.part = DualPart.JOINT

    def fit(self, training: Dataset, held_out: Dataset, *, seed: int) -> None:
        """Train, then calibrate; see :class:`multiad_med.benchmark.detectors.Detector`."""
        set_determinism(seed=seed)
        self.network = build_multiad(
            self.preset, teacher_weights=self.teacher_weights, experts=_BASELINES
        )
        given = {
            "preset": self.preset,
            "network_def": self.network,
            "loss#form": self.form,
            "train#dataset": training,
            "validate#dataset": held_out,
            "calibrate#dataset": held_out,
            "card": {},
            "seed": seed,
            "max_epochs": self.epochs,
            "val_interval": self.epochs,
            "score_fraction": self.score_fraction,
            "self_test": False,
            **self.settings,
        }
        with TemporaryDirectory() as folder:
            AnomalyDetector(DOMAIN, device=str(self.device)).fit(folder, output=folder, **given)
        self.score(DualPart.JOINT)

    def score(self, part: DualPart) -> None:
        """Choose what is scored; no training is needed for another part."""
        self.part = part
        fusion = self.network.fusion
        tokens = [number for number, whole in enumerate(fusion.whole) if whole]
        for number, token in enumerate(tokens):
            fusion.weights[token] = float(number == _TOKENS[part])

    @torch.no_grad()
    def predict(self, images: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
        """Return calibrated maps, 0 outside the foreground, and the scores of the chosen part."""
        maps = self.network.eval()(images.to(self.device)).cpu()
        scored = maps[:, 1:] if self.part in _ALONE else maps
        scores = image_scores(scored, foreground, fraction=self.score_fraction)
        return maps[:, :1] * foreground, scores

    @property
    def size_mb(self) -> float:
        """Size of the state dict, which holds the teacher and both baselines."""
        return stored_megabytes(self.network.state_dict())
