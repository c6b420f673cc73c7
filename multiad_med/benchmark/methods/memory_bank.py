"""PaDiM and PatchCore: statistics and examples of normal features, without training."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from multiad_med.benchmark.methods.base import TeacherMethod

__all__ = ["PaDiM", "PatchCore"]


class PaDiM(TeacherMethod):
    """One Gaussian per location, of a random choice of features (Defard et al. 2021).

    ``anomalib.models.image.padim.torch_model.PadimModel``, of stages 1 to 3. Features chosen: 100,
    as published for ResNet-18, or 550, as for WideResNet-50-2, where the stages have more than
    ResNet-18's 448. Memory grows with the square of that number times the locations of stage 1.
    """

    name = "PaDiM"
    module = "padim.torch_model"

    def build(self, source: Any) -> nn.Module:
        """PadimModel."""
        channels = sum(self.teacher.channels[:3])
        return source.PadimModel(
            backbone=self.architecture,
            layers=list(self.layers),
            pre_trained=False,
            n_features=min(channels, 100 if channels <= 448 else 550),
        )

    def learn(self, training: Dataset, held_out: Dataset) -> None:
        """Collect features and fit the Gaussians."""
        for images in self.loader(training):
            self.model(images)
        self.model.fit()


def in_place(sampler: Any) -> Any:
    """Return anomalib's KCenterGreedy with buffers: the same choice in memory that does not grow.

    Its large temporaries, made between small tensors that it keeps, let glibc's heap grow at every
    step: 5 GB for eight images of 256 x 256.
    """

    class InPlace(sampler):
        min_distances: Tensor | None

        def update_distances(self, cluster_center: int | Tensor) -> None:
            if self.min_distances is None:
                column = (len(self.features), 1)
                self.offsets = torch.empty_like(self.features)
                self.distances = self.features.new_empty(column)
                self.min_distances = self.features.new_full(column, torch.inf)
            torch.sub(self.features, self.features[cluster_center], out=self.offsets)
            torch.linalg.norm(self.offsets, ord=2, dim=1, keepdim=True, out=self.distances)
            torch.minimum(self.min_distances, self.distances, out=self.min_distances)

    return InPlace


class PatchCore(TeacherMethod):
    """Distance to the nearest of a coreset of normal patches (Roth et al. 2022).

    ``anomalib.models.image.patchcore.torch_model.PatchcoreModel``, of stages 2 and 3, with its
    score reweighted by 9 neighbours. Choosing the coreset takes time that grows with the square of
    the number of training images.

    Args:
        coreset: part of the patches that is kept; 0.1 and 0.01 are published.
    """

    name = "PatchCore"
    module = "patchcore.torch_model"
    layers = ("layer2", "layer3")
    scored_by_maximum = False

    def __init__(self, *, coreset: float = 0.1, **options: Any) -> None:
        super().__init__(**options)
        self.coreset = coreset

    def build(self, source: Any) -> nn.Module:
        """PatchcoreModel."""
        return source.PatchcoreModel(
            backbone=self.architecture, layers=self.layers, pre_trained=False, num_neighbors=9
        )

    def learn(self, training: Dataset, held_out: Dataset) -> None:
        """Collect features and choose the coreset."""
        for images in self.loader(training):
            self.model(images)
        source = self.anomalib(self.module)
        with patch.object(source, "KCenterGreedy", in_place(source.KCenterGreedy)):
            self.model.subsample_embedding(self.coreset)
