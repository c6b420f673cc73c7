"""A dual student in a benchmark, whose parts are scored one by one after a single training."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from tempfile import TemporaryDirectory

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
        epochs: of the training; None leaves its length to the preset.
        score_fraction: part of an image's pixels whose mean is its score; 1 for class data sets.
        form: of the loss; see :class:`multiad_med.networks.NoisyOrForm`.
        cache_features: see :func:`multiad_med.training.cached_features`.
        device: where it trains and predicts.
    """

    network: MultiAD

    def __init__(
        self,
        preset: str,
        *,
        name: str,
        teacher_weights: str = "imagenet",
        epochs: int | None = None,
        score_fraction: float = 0.0,
        form: str = "likelihood",
        cache_features: bool = False,
        device: str = "cpu",
    ) -> None:
        self.preset = preset
        self.name = name
        self.teacher_weights = teacher_weights
        self.epochs = epochs
        self.score_fraction = score_fraction
        self.form = form
        self.cache_features = cache_features
        self.device = torch.device(device)
        self.part = DualPart.JOINT
        self._maps: dict[str, tuple[Tensor, Tensor]] = {}

    def fit(self, training: Dataset, held_out: Dataset, *, seed: int) -> None:
        """Train, then calibrate; see :class:`multiad_med.benchmark.detectors.Detector`."""
        set_determinism(seed=seed)
        self._maps.clear()
        self.network = build_multiad(
            self.preset, teacher_weights=self.teacher_weights, experts=_BASELINES
        )
        given = {
            "preset": self.preset,
            "network_def": self.network,
            "form": self.form,
            "train#dataset": training,
            "validate#dataset": held_out,
            "calibrate#dataset": held_out,
            "card": {},
            "seed": seed,
            **({} if self.epochs is None else {"max_epochs": self.epochs}),
            "score_fraction": self.score_fraction,
            "self_test": False,
            "cache_features": self.cache_features,
        }
        with TemporaryDirectory() as folder:
            AnomalyDetector(DOMAIN, device=str(self.device)).fit(folder, output=folder, **given)

    def score(self, part: DualPart) -> None:
        """Choose what is scored; no training is needed for another part."""
        self.part = part

    def predict(self, images: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
        """Return calibrated maps, 0 outside the foreground, and the scores of the chosen part.

        The network runs for the joint score; the other parts take what it found then, if it did.
        """
        key = hashlib.sha256(images.numpy().tobytes()).hexdigest()
        if self.part is DualPart.JOINT or key not in self._maps:
            self._maps[key] = self._found(images.to(self.device))
        m, tokens = self._maps[key]
        chosen = _TOKENS[self.part]
        parts = [] if self.part in _ALONE else [m]
        if chosen is not None:
            parts.append(tokens[:, chosen].reshape(-1, 1, 1, 1).expand_as(m))
        threshold = float(self.network.pixel_threshold)
        scored = torch.stack(parts).sum(dim=0)
        scores = image_scores(
            scored / (scored + threshold), foreground, fraction=self.score_fraction
        )
        return m / (m + threshold) * foreground, scores

    @torch.no_grad()
    def _found(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fused map m ``(B, 1, H, W)`` and the hazards of the three tokens ``(B, 3)``."""
        network = self.network.eval()
        fusion = network.fusion
        distances = network.distances(images)
        tokens = [
            level(distance).reshape(-1)
            for level, distance, whole in zip(fusion.levels, distances, fusion.whole, strict=True)
            if whole
        ]
        m = network.fused_map(distances, [images.shape[2], images.shape[3]])[:, :1]
        return m.cpu(), torch.stack(tokens, dim=1).cpu()

    @property
    def size_mb(self) -> float:
        """Size of the state dict, which holds the teacher and both baselines."""
        return stored_megabytes(self.network.state_dict())
