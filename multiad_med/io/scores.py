"""The scores of a study: per slice, for the volume, and where they came from, as JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey
from torch import Tensor

from multiad_med.io.atomic import write_json
from multiad_med.io.names import result_path
from multiad_med.scoring import image_scores
from multiad_med.transforms import occupied_slices

__all__ = ["NotCalibratedError", "SaveScoresd", "ScoreSlicesd", "file_sha256", "state_sha256"]

SLICE_SCORES = "slice_scores"


class CalibratedNetwork(Protocol):
    """What scoring needs of a network: scalars that calibration sets, see ``MultiAD``."""

    calibrated: Tensor
    pixel_false_positive_rate: Tensor
    image_threshold: Tensor
    image_false_positive_rate: Tensor
    score_fraction: Tensor

    def state_dict(self) -> dict[str, Any]: ...


class NotCalibratedError(RuntimeError):
    """The network has no thresholds, so that its maps and scores mean nothing yet."""


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, or of the files of a folder in the order of their names."""
    path = Path(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def state_sha256(network: CalibratedNetwork) -> str:
    """SHA-256 of a network's state dict: names, then values, in the order of the names."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class ScoreSlicesd(MapTransform):
    """Score each axial slice of a study's calibrated map, on the network's grid.

    Apply it before the map is brought back to the source grid, on which thresholds were not set.
    Slices that were skipped as empty get NaN.

    Args:
        keys: the calibrated map ``(1, H, W, Z)``, one key; last axis axial, RAS+.
        network: the calibrated network, whose state says how a slice is scored.
        mask_key: foreground ``(1, H, W, Z)``; scores are taken inside it.
        min_fraction: see :func:`multiad_med.transforms.occupied_slices`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        network: CalibratedNetwork,
        mask_key: str = "foreground",
        min_fraction: float = 0.1,
    ) -> None:
        super().__init__(keys)
        self.network = network
        self.mask_key = mask_key
        self.min_fraction = min_fraction

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add ``slice_scores (Z,)``.

        Raises:
            NotCalibratedError: when the network was never calibrated.
        """
        if not bool(self.network.calibrated):
            raise NotCalibratedError(
                "The model is not calibrated: load the model.pt that a finished training wrote. "
                "A training checkpoint has no thresholds yet."
            )
        maps = torch.as_tensor(data[self.first_key(dict(data))]).as_subclass(Tensor)
        mask = torch.as_tensor(data[self.mask_key]).as_subclass(Tensor).to(maps.device)
        scores = image_scores(
            maps.permute(3, 0, 1, 2),
            mask.permute(3, 0, 1, 2),
            fraction=float(self.network.score_fraction),
        )
        scores[~occupied_slices(mask, min_fraction=self.min_fraction)] = float("nan")
        return {**data, SLICE_SCORES: scores.cpu()}


class SaveScoresd(MapTransform):
    """Write a study's scores as JSON, named like its map.

    Slices are numbered as in the source file: ``axis`` is the source's array axis that runs most
    nearly along the body, ``slice`` the index on it. The volume's score is its highest slice score.

    Args:
        keys: the map on the source grid, one key; its metadata tell the source file.
        network: the network that made it.
        output_dir: folder for the file.
        data_root_dir: the part of the source's path that is not repeated under ``output_dir``, as
            in MONAI's ``SaveImage``; by default the source's own folder.
        output_postfix: end of the file's name before ``.json``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        network: CalibratedNetwork,
        output_dir: str | Path,
        data_root_dir: str | Path | None = None,
        output_postfix: str = "anomaly",
    ) -> None:
        super().__init__(keys)
        self.network = network
        self.output_dir = output_dir
        self.data_root_dir = data_root_dir
        self.output_postfix = output_postfix
        self._model_hash = ""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the scores in ``slice_scores (Z,)``; adds ``volume_score``."""
        image = data[self.first_key(dict(data))]
        source = Path(str(image.meta[ImageMetaKey.FILENAME_OR_OBJ]))
        scores = np.asarray(data[SLICE_SCORES], dtype=float)
        orientation = nib.io_orientation(np.asarray(image.affine, dtype=float))
        axis = int(np.flatnonzero(orientation[:, 0] == 2)[0])
        if orientation[axis, 1] < 0:
            scores = scores[::-1]
        scored = np.flatnonzero(np.isfinite(scores))
        volume_score = float(scores[scored].max()) if scored.size else 0.0
        network = self.network
        if not self._model_hash:
            self._model_hash = state_sha256(network)
        threshold = float(network.image_threshold)
        write_json(
            result_path(
                source,
                f"_{self.output_postfix}.json",
                output_dir=self.output_dir,
                data_root_dir=self.data_root_dir,
            ),
            {
                "image": str(source),
                "image_sha256": file_sha256(source),
                "volume_score": volume_score,
                "volume_flagged": volume_score >= threshold,
                "axis": axis,
                "slices": [
                    {
                        "slice": int(index),
                        "score": float(scores[index]),
                        "flagged": bool(scores[index] >= threshold),
                    }
                    for index in scored
                ],
                "skipped_slices": [int(i) for i in range(len(scores)) if i not in set(scored)],
                "thresholds": {
                    "map": 0.5,
                    "pixel_false_positive_rate": float(network.pixel_false_positive_rate),
                    "slice_score": threshold,
                    "slice_false_positive_rate": float(network.image_false_positive_rate),
                },
                "score_rule": (
                    "maximum in the foreground"
                    if float(network.score_fraction) == 0
                    else f"mean of the largest {float(network.score_fraction):g} of the foreground"
                ),
                "model_sha256": self._model_hash,
                "versions": {name: version(name) for name in ("multiad-med", "monai", "torch")},
            },
        )
        return {**data, "volume_score": volume_score}
