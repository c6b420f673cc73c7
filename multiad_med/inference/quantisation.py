"""Post-training quantisation to INT8 for OpenVINO, and what it costs in accuracy."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from multiad_med.inference.openvino import Maps, compiled, to_openvino
from multiad_med.metrics import SubjectHistograms, map_edges
from multiad_med.metrics.bootstrap import (
    Estimate,
    bootstrap_ranking,
    paired_difference,
    resamples,
)
from multiad_med.networks.multiad import MultiAD
from multiad_med.scoring import image_scores
from multiad_med.training.self_testing import Slices, put_all_pseudo_anomalies
from multiad_med.utils.errors import MultiADError, missing_package

__all__ = [
    "AccuracyLost",
    "AccuracyLostError",
    "Int8Network",
    "Quantised",
    "accuracy_lost",
    "mapped_by",
]

LIMITS = {"image AUROC": 0.01, "pixel average precision": 0.02}
"""What INT8 may cost: the upper bound of the fall must be below."""

_BATCH = 8


class AccuracyLostError(MultiADError, RuntimeError):
    """A network in INT8 finds less than in float32, so that it is not written."""


class _Features(nn.Module):
    """What is quantised: images to the features of teacher and student that maps are made of.

    Args:
        network: in evaluation mode.
        images: two or more; features that nothing reads are empty, and are left out.
    """

    def __init__(self, network: MultiAD, images: Tensor) -> None:
        super().__init__()
        self.network = network
        self.fused = network._fused_stages()
        with torch.no_grad():
            self.teacher, self.student = (
                [feature.numel() > 0 for feature in features]
                for features in network._all_features(images, self.fused)
            )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        teacher, student = self.network._all_features(images, self.fused)
        there = zip((*teacher, *student), (*self.teacher, *self.student), strict=True)
        return tuple(feature for feature, read in there if read)

    def listed(self, features: Iterable[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return what :meth:`forward` gave as features of all stages of teacher and student."""
        coming = iter(features)
        teacher, student = (
            [next(coming) if read else torch.empty(0) for read in stages]
            for stages in (self.teacher, self.student)
        )
        return teacher, student


class _Fusion(nn.Module):
    """What stays float32: features to the map, calibrated or not."""

    def __init__(self, features: _Features, size: tuple[int, int], *, calibrated: bool) -> None:
        super().__init__()
        self.features = features
        self.size = list(size)
        self.calibrated = calibrated

    def forward(self, *features: Tensor) -> Tensor:
        network = self.features.network
        teacher, student = self.features.listed(features)
        distances = network.distances_of_features(teacher, student, self.features.fused)
        m = network._aligned(network.fused_map(distances, self.size), teacher)
        return m / (m + network.pixel_threshold) if self.calibrated else m


class Quantised(StrEnum):
    """What is computed in INT8."""

    FEATURES = "teacher and student"
    STUDENT = "student"
    """The slower choice, and the safer: what a teacher in INT8 gives is no longer what experts and
    thresholds know."""


def _before(results: Iterable[Any]) -> list[str]:
    """Return the names of the operations that results depend on."""
    names: set[str] = set()
    waiting = [result.input_value(0).get_node() for result in results]
    while waiting:
        operation = waiting.pop()
        if operation.get_friendly_name() not in names:
            names.add(operation.get_friendly_name())
            waiting += [value.get_node() for value in operation.input_values()]
    return sorted(names)


def _quantise(
    model: Any, images: Tensor, *, float32: Iterable[str] = (), transformer: bool = False
) -> Any:
    """Return an ``openvino.Model`` whose convolutions and products are in INT8, but for some.

    Args:
        model: of images ``(B, 3, H, W)``.
        images: that set the ranges of the INT8 numbers.
        float32: names of operations that stay as they are.
        transformer: whether it is one.
    """
    os.environ.setdefault("NNCF_CI", "1")  # else it reports its use to its makers
    try:
        import nncf
    except ImportError as error:
        raise missing_package("nncf") from error
    logging.getLogger("nncf").setLevel(logging.ERROR)
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    return nncf.quantize(
        model,
        nncf.Dataset([image[None] for image in images.numpy()]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        ignored_scope=nncf.IgnoredScope(names=list(float32), validate=False),
        advanced_parameters=AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM
        ),
    )


class Int8Network:
    """A network whose features are computed in INT8; distances, hazards and fusion in float32.

    Args:
        network: a calibrated one, in evaluation mode, on the CPU.
        images: normal ones ``(N, 3, H, W)`` in [0, 1]; they set the ranges of the INT8 numbers.
        what: see :class:`Quantised`.

    Raises:
        MissingPackageError: without the extra ``int8``.
    """

    def __init__(
        self, network: MultiAD, images: Tensor, *, what: Quantised = Quantised.FEATURES
    ) -> None:
        self.network = network
        self.size = (images.shape[2], images.shape[3])
        self._examples = images[:2] if len(images) > 1 else images.expand(2, -1, -1, -1)
        self._features = _Features(network, self._examples)
        model = to_openvino(self._features, [self._examples])
        teacher = model.get_results()[: sum(self._features.teacher)]
        self._quantised = _quantise(
            model,
            images,
            float32=_before(teacher) if what is Quantised.STUDENT else (),
            transformer=network.patch > 1,
        )

    @torch.no_grad()
    def model(self, *, calibrated: bool) -> Any:
        """Return the ``openvino.Model`` of images to maps, with the thresholds of now or before them."""
        import openvino

        fusion = to_openvino(
            _Fusion(self._features, self.size, calibrated=calibrated),
            self._features(self._examples),
        )
        quantised = self._quantised.clone()
        for into, out in zip(fusion.get_parameters(), quantised.get_results(), strict=True):
            into.output(0).replace(out.input_value(0))
        return openvino.Model(fusion.get_results(), quantised.get_parameters(), "multiad")

    def raw_map(self) -> Maps:
        """Return what :meth:`MultiAD.raw_map` is in INT8."""
        run = compiled(self.model(calibrated=False))
        return lambda images: run(images.expand(-1, 3, -1, -1))


@contextmanager
def mapped_by(network: MultiAD, raw_map: Maps) -> Iterator[None]:
    """Have a network's maps computed by another function of images, inside the context."""
    network.raw_map = raw_map  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        del network.raw_map


@dataclass(frozen=True)
class AccuracyLost:
    """How much less a network finds with other maps, of pseudo-anomalies; above 0 it finds less.

    Attributes:
        falls: by name of the metric, with 95 % intervals over images.
        images: number of normal images.
    """

    falls: dict[str, Estimate]
    images: int

    @property
    def acceptable(self) -> bool:
        """Whether the upper bound of each fall is below its limit."""
        return all(self.falls[name].high < limit for name, limit in LIMITS.items())

    def as_json(self) -> dict[str, Any]:
        """Return the figures for a card."""
        return {"images": self.images} | {name: asdict(e) for name, e in self.falls.items()}

    def __str__(self) -> str:
        told = (
            f"{name} falls by {fall.value:.4f} (95 % interval {fall.low:.4f} to {fall.high:.4f}, whose "
            f"end must be below {LIMITS[name]})"
            for name, fall in self.falls.items()
        )
        return f"{'; '.join(told)}; {self.images} normal images with pseudo-anomalies"


class _Found:
    """What a network finds of pseudo-anomalies, by image."""

    def __init__(self, network: MultiAD) -> None:
        self.network = network
        self.scores: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.pixels = SubjectHistograms(map_edges())

    def add(self, images: Tensor, foreground: Tensor, masks: Tensor) -> None:
        """Count images, one of each subject, with their anomalies ``(N, 1, H, W)``."""
        maps = torch.cat([self.network(part) for part in images.split(_BATCH)])
        fraction = float(self.network.score_fraction)
        self.scores.append(image_scores(maps, foreground, fraction=fraction))
        self.labels.append(masks.flatten(1).any(dim=1))
        for subject, inside in enumerate(foreground):
            self.pixels.update(subject, maps[subject, :1][inside], masks[subject][inside])

    def auroc(self, weights: Tensor) -> Tensor:
        """Return the AUROC of images on each resample."""
        scores, labels = torch.cat(self.scores), torch.cat(self.labels)
        subjects = torch.arange(weights.shape[1]).repeat(len(self.scores))
        return bootstrap_ranking(scores, labels, subjects, weights)["auroc"]

    def average_precision(self, weights: Tensor) -> Tensor:
        """Return the average precision of pixels on each resample."""
        return self.pixels.metrics(weights)["average_precision"]


@torch.no_grad()
def accuracy_lost(
    network: MultiAD, raw_map: Maps, slices: Slices, *, seed: int = 0
) -> AccuracyLost:
    """Compare what a network finds with its own maps and with others: a paired bootstrap over images.

    Args:
        network: a calibrated one, in evaluation mode, on the CPU.
        raw_map: of images, in place of the network's own.
        slices: normal images and their foreground; see
            :func:`multiad_med.training.self_testing.put_all_pseudo_anomalies`.
        seed: decides places, strengths and resamples.
    """
    ours, theirs = _Found(network), _Found(network)
    images, foreground = slices
    for changed, masks in [
        (images, torch.zeros_like(foreground)),
        *put_all_pseudo_anomalies(slices, seed=seed),
    ]:
        ours.add(changed, foreground, masks)
        with mapped_by(network, raw_map):
            theirs.add(changed, foreground, masks)
    weights = resamples(len(images), seed=seed)
    names = [str(number) for number in range(len(images))]

    def fall(a: Any, b: Any) -> Estimate:
        return paired_difference(a, b, weights, subjects=(names, names))[0]

    falls = (
        fall(ours.auroc, theirs.auroc),
        fall(ours.average_precision, theirs.average_precision),
    )
    return AccuracyLost(dict(zip(LIMITS, falls, strict=True)), len(images))
