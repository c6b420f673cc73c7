"""The scores of a study: per slice, for the volume, and where they came from, as JSON."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from multiad_med.card import CalibratedNetwork, check_calibrated, versions
from multiad_med.data.study_results import SCORES, StudyResults
from multiad_med.scoring import Level, NormalScores, image_scores, joint_probability
from multiad_med.transforms import marked_slices
from multiad_med.utils.atomic import write_json
from multiad_med.utils.errors import InputError
from multiad_med.utils.tensors import plain_tensor

__all__ = ["SaveScoresd", "ScoreSlicesd", "study_scores"]

SLICE_SCORES = "slice_scores"
SCORE_PARTS = "score_parts"
"""Scores by the map alone, and by the whole image alone."""


class ScoreSlicesd(MapTransform):
    """Score each axial slice of a study's calibrated map, on the network's grid.

    Apply it before the map is brought back to the source grid, on which thresholds were not set.
    Slices that do not count (:func:`multiad_med.transforms.marked_slices`) get NaN. A second channel,
    what a network found of the whole image, is counted in the scores and taken off the map.

    Args:
        keys: the calibrated map ``(1 or 2, H, W, Z)``, one key; last axis axial, RAS+.
        network: the calibrated network, whose state says how a slice is scored.
        mask_key: foreground ``(1, H, W, Z)``; scores are taken inside it.
        image_key: the prepared image, whose metadata say which slices count.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        network: CalibratedNetwork,
        mask_key: str = "foreground",
        image_key: str = "image",
    ) -> None:
        super().__init__(keys)
        self.network = network
        self.mask_key = mask_key
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add ``slice_scores (Z,)``; with a second channel ``score_parts (2, Z)``, and one channel stays.

        Raises:
            NotCalibratedError: when the network was never calibrated.
        """
        check_calibrated(self.network)
        result = dict(data)
        key = self.first_key(result)
        maps = plain_tensor(result[key]).permute(3, 0, 1, 2)
        mask = plain_tensor(result[self.mask_key]).to(maps.device).permute(3, 0, 1, 2)
        left_out = ~marked_slices(result[self.image_key])
        fraction = float(self.network.score_fraction)

        def scores(of: Tensor) -> Tensor:
            found = image_scores(of, mask, fraction=fraction).cpu()
            found[left_out] = float("nan")
            return found

        result[SLICE_SCORES] = scores(maps)
        if maps.shape[1] > 1:
            result[SCORE_PARTS] = torch.stack([scores(maps[:, i : i + 1]) for i in range(2)])
            result[key] = result[key][:1]
        return result


def _in_file(
    scores: NDArray[np.floating], affine: NDArray[np.floating]
) -> tuple[int, NDArray[np.floating]]:
    """The source's slice axis, and the scores ``(N, Z)`` in the order of the slices on it."""
    orientation = nib.io_orientation(affine)
    axis = int(np.flatnonzero(orientation[:, 0] == 2)[0])
    return axis, scores[:, ::-1] if orientation[axis, 1] < 0 else scores


def study_scores(
    slice_scores: ArrayLike,
    affine: ArrayLike,
    *,
    network: CalibratedNetwork,
    oriented: bool = True,
    parts: ArrayLike | None = None,
) -> dict[str, Any]:
    """Return a study's scores, p-values, verdicts and thresholds, ready for JSON.

    Slices are numbered as in the source file: ``axis`` is the source's array axis that runs most
    nearly along the body, ``slice`` the index on it. The volume's score is its highest slice score; its
    verdict is by the threshold of volumes. ``flagged`` is null where there is no verdict, and
    ``verdict`` then says why. ``not_scored_slices`` were not looked at. ``joint_probability`` is a
    score's Noisy-OR of the experts, where the network fuses hazards; see
    :func:`multiad_med.scoring.joint_probability`. A network that looks at the whole image too gives
    ``local_probability``, of the map alone, and ``semantic_probability``, of the whole image alone.

    Args:
        slice_scores: of :class:`ScoreSlicesd` ``(Z,)``; NaN where a slice does not count.
        affine: of the source file's grid, RAS+ in mm.
        network: the network that made them.
        oriented: whether slices are axial ones of a body, to be found by the affine; else they are
            B-scans, one after the other along the last axis.
        parts: scores by the map alone and by the whole image alone ``(2, Z)``.

    Raises:
        InputError: when no slice was scored.
    """
    rows = [slice_scores] if parts is None else [slice_scores, *np.asarray(parts)]
    axis, told = 2, np.asarray(rows, dtype=float)
    if oriented:
        axis, told = _in_file(told, np.asarray(affine, dtype=float))
    scores = told[0]
    scored = np.flatnonzero(np.isfinite(scores))
    if not scored.size:
        raise InputError("No slice of the study was scored, so it has no result.")
    slices, volumes = (network.card.level(level) for level in (Level.SLICE, Level.VOLUME))
    highest = int(scored[scores[scored].argmax()])
    volume_score = float(scores[highest])
    own = torch.from_numpy(scores[scored])
    p_values, flags = slices.p_values(own).tolist(), slices.flagged(own).tolist()
    reachable = slices.threshold is not None

    is_or = network.card.network.get("fusion") == "hazard"  # only hazards add up to a Noisy-OR
    names = ("joint_probability", "local_probability", "semantic_probability")

    def probabilities(index: int) -> dict[str, float]:
        found = zip(names, told[:, index], strict=False)
        return {name: joint_probability(float(score)) for name, score in found if is_or}

    return {
        "volume_score": volume_score,
        **probabilities(highest),
        "volume_p_value": volumes.p_value(volume_score),
        "volume_flagged": volumes.anomalous(volume_score),
        "verdict": volumes.verdict(volume_score, network.card.unit(Level.VOLUME)),
        "axis": axis,
        "slices": [
            {
                "slice": int(index),
                "score": float(scores[index]),
                **probabilities(int(index)),
                "p_value": p_value,
                "flagged": flagged if reachable else None,
            }
            for index, p_value, flagged in zip(scored, p_values, flags, strict=True)
        ],
        "not_scored_slices": np.flatnonzero(~np.isfinite(scores)).tolist(),
        "thresholds": {
            "map": 0.5,
            "pixel_false_positive_rate": float(network.pixel_false_positive_rate),
            **_thresholds(slices, Level.SLICE),
            **_thresholds(volumes, Level.VOLUME),
        },
        "score_rule": (
            "maximum in the foreground"
            if float(network.score_fraction) == 0
            else f"mean of the largest {float(network.score_fraction):g} of the foreground"
        ),
    }


def _thresholds(normals: NormalScores, level: Level) -> dict[str, Any]:
    """Return a level's threshold, null where its rate is out of reach, and what it comes from."""
    return {
        f"{level}_score": normals.threshold,
        f"{level}_false_positive_rate": normals.rate,
        f"normal_{level}s": normals.units,
        f"{level}_approximate": normals.approximate,
    }


class SaveScoresd(MapTransform):
    """Write a study's scores as JSON, named like its map; see :func:`study_scores`.

    Args:
        keys: the map on the source grid, one key; its metadata name the source file.
        network: the network that made it.
        results: where the scores go, and what they were made from.
        oriented: see :func:`study_scores`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        network: CalibratedNetwork,
        results: StudyResults,
        oriented: bool = True,
    ) -> None:
        super().__init__(keys)
        self.network = network
        self.results = results
        self.oriented = oriented

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the scores in ``slice_scores (Z,)`` and add ``volume_score``."""
        image = data[self.first_key(dict(data))]
        source = str(image.meta[ImageMetaKey.FILENAME_OR_OBJ])
        scores = study_scores(
            data[SLICE_SCORES],
            image.affine,
            network=self.network,
            oriented=self.oriented,
            parts=data.get(SCORE_PARTS),
        )
        write_json(
            self.results.path(source, SCORES),
            {
                "image": self.results.origin(source),
                **scores,
                **self.results.provenance(source),
                "versions": versions(),
            },
        )
        return {**data, "volume_score": scores["volume_score"]}
