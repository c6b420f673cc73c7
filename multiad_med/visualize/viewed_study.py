"""A study to view, the anomaly map on its grid, and the scores beside the map."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from nibabel.orientations import inv_ornt_aff
from numpy.typing import NDArray

from multiad_med.data import file_sha256
from multiad_med.data.study_results import MAP, SCORES, beside_map, study_path
from multiad_med.readers import LoadBScans, LoadVolume
from multiad_med.scoring import score_of_probability
from multiad_med.transforms import CheckVolume, Window, radiological_view
from multiad_med.utils.errors import MultiADError, file_errors
from multiad_med.visualize.colours import intensity_range

__all__ = ["ViewError", "ViewedStudy", "check_map", "load_study", "read_scores"]

_TOLERANCE = 1e-3  # mm, as of masks
AIR = -500.0  # HU; no other modality's values are as low


class ViewError(MultiADError, ValueError):
    """A map, or the scores beside it, cannot be shown with the study."""


@dataclass(frozen=True)
class ViewedStudy:
    """A study and its map, turned to the axes of the body.

    Attributes:
        name: of the study's file or folder, without the suffix of its format.
        image: ``(X, Y, Z)``, axes nearest to RAS+; intensities, of a CT in HU.
        anomaly_map: float32 ``(X, Y, Z)``, calibrated, in [0, 1].
        affine: (4, 4), voxel to RAS+ mm; oblique axes stay oblique.
        to_source: (4, 4), voxel to the voxel of the study's file.
        limits: intensities that are shown black and white.
        hounsfield: whether the image is a CT.
        bscans: whether slices are B-scans, upright as stored, without the axes of a body.
        scores: content of the score JSON; empty where there is none.
        remarks: what a reader must know.
    """

    name: str
    image: NDArray[Any]
    anomaly_map: NDArray[np.float32]
    affine: NDArray[np.float64]
    to_source: NDArray[np.float64]
    limits: tuple[float, float]
    hounsfield: bool
    bscans: bool
    scores: dict[str, Any]
    remarks: tuple[str, ...] = ()

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along the three axes."""
        x, y, z = (float(size) for size in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z

    @property
    def threshold(self) -> float:
        """Map value from which a voxel counts as anomalous."""
        return float(self.scores["thresholds"]["map"]) if self.scores else 0.5

    def looked_at(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Turn a plane ``(X, Y)`` to rows and columns as people look at it."""
        # B-scans are turned over by the affine, and their columns run as stored.
        return radiological_view(plane[::-1] if self.bscans else plane)

    def source_slice(self, index: int) -> int:
        """Return the number in the study's file of slice ``index`` along the last axis."""
        axis = int(np.flatnonzero(self.to_source[:3, 2])[0])
        return round(float(self.to_source[axis, 2] * index + self.to_source[axis, 3]))

    def slice_values(self) -> NDArray[np.float64]:
        """Return the score of each slice along the last axis, or without scores its highest map value.

        Slices that are nearly empty, and so were not scored, are NaN.
        """
        if not self.scores:
            highest = self.anomaly_map.max(axis=(0, 1)).astype(float)
            return np.where(highest > 0, highest, np.nan)  # 0 lies outside the foreground
        return self._of_slices(
            {entry["slice"]: float(entry["score"]) for entry in self.scores["slices"]}
        )

    def semantic_values(self) -> NDArray[np.float64]:
        """Return each slice's score by what the whole slice shows; NaN where the scores do not say it."""
        return self._of_slices(
            {
                entry["slice"]: score_of_probability(float(entry["semantic_probability"]))
                for entry in self.scores.get("slices", ())
                if "semantic_probability" in entry
            }
        )

    def _of_slices(self, values: Mapping[int, float]) -> NDArray[np.float64]:
        """Return values by number in the study's file in the order of the last axis; NaN is none."""
        return np.array(
            [values.get(self.source_slice(k), np.nan) for k in range(self.image.shape[2])]
        )


def read_scores(anomaly_map: Path) -> dict[str, Any]:
    """Return the scores beside a map, as ``<name>_anomaly.json``; empty where there are none.

    Args:
        anomaly_map: ``<name>_anomaly_map.nii.gz``, or of an image ``<name>.tiff``.

    Raises:
        ViewError: when the file is no score JSON.
    """
    path = beside_map(anomaly_map, SCORES)
    if not path.is_file():
        return {}
    try:
        with file_errors(path):
            scores = json.loads(path.read_text(encoding="utf-8"))
        float(scores["volume_score"]), float(scores["volume_p_value"]), str(scores["verdict"])
        thresholds = scores["thresholds"]
        float(thresholds["map"]), scores["volume_flagged"], int(scores["axis"])
        for level in ("slice", "volume"):  # null where there is no verdict
            float(thresholds[f"{level}_score"] or 0)
        for entry in scores["slices"]:
            int(entry["slice"]), float(entry["score"])
    except (ValueError, KeyError, TypeError) as error:
        raise ViewError(
            f"{path}: not the scores of a study ({type(error).__name__}: {error}). Run the bundle's "
            "inference again, as older versions wrote no verdict of the volume, or move the file away to "
            "see the map alone."
        ) from error
    return dict(scores)


def _read(path: Path, *, bscans: bool) -> MetaTensor:
    # An image may be viewed whatever its unit.
    load = LoadBScans() if bscans else LoadVolume(assume_hounsfield=True)
    return cast(MetaTensor, load(path))


def _load_map(path: Path, *, bscans: bool) -> MetaTensor:
    image = _read(path, bscans=bscans)
    if not image.is_floating_point() or image.ndim != 4 or image.shape[0] != 1:
        raise ViewError(
            f"{path}: expected an anomaly map, one float32 volume; got {tuple(image.shape)} of "
            f"{image.dtype}. The bundles write it as <name>_{MAP}."
        )
    values = np.asarray(image)
    check_map(values, path)
    return image


def check_map(values: NDArray[Any], path: Path) -> None:
    """Refuse values that cannot be a calibrated map.

    Raises:
        ViewError: on values that are not finite or outside [0, 1].
    """
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise ViewError(f"{path}: {bad} values of the map are NaN or infinite. Make the map anew.")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        raise ViewError(
            f"{path}: values from {low:g} to {high:g}; a calibrated map is in [0, 1]. Give the map of a "
            "bundle's inference."
        )


def _check_grid(study: Path, image: MetaTensor, path: Path, anomaly_map: MetaTensor) -> None:
    if image.shape != anomaly_map.shape:
        raise ViewError(
            f"{path}: a map of shape {tuple(anomaly_map.shape[1:])} for {study} of shape "
            f"{tuple(image.shape[1:])}. Give the study that the map was made of."
        )
    affines = [np.asarray(volume.affine, dtype=np.float64) for volume in (image, anomaly_map)]
    difference = float(np.abs(np.subtract(*affines)).max())
    if difference > _TOLERANCE:
        raise ViewError(
            f"{path}: its affine differs from that of {study} by up to {difference:g} mm. Give the study "
            "that the map was made of."
        )


def _limits(
    values: NDArray[Any], *, hounsfield: bool, window: Window | str | None
) -> tuple[float, float]:
    """Return the values shown black and white: a window in HU, or nearly the whole range."""
    if window is not None or hounsfield:
        name = window or Window.ABDOMEN
        if name not in list(Window):
            raise ViewError(
                f"Unknown window {str(name)!r}; choose one of {[str(w) for w in Window]}."
            )
        return Window(name).limits
    return intensity_range(values)


def _upright(shape: tuple[int, ...], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an affine (columns, rows, B-scans) that shows rows downwards, whatever the file's is."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    result = np.diag([sizes[0], -sizes[1], sizes[2], 1.0])
    result[1, 3] = sizes[1] * (shape[1] - 1)
    return result


def _check_slices(study: ViewedStudy, path: Path) -> None:
    if not study.scores:
        return
    axis = int(np.flatnonzero(study.to_source[:3, 2])[0])
    count, stated = study.image.shape[2], int(study.scores["axis"])
    beyond = [s["slice"] for s in study.scores["slices"] if not 0 <= s["slice"] < count]
    if axis != stated or beyond:
        raise ViewError(
            f"{path}: the scores beside it number slices along axis {stated} of the file"
            f"{f', among them {beyond[0]}' if beyond else ''}; the study has {count} along axis {axis}. "
            "Of an OCT volume, say that its slices are B-scans (--bscans)."
        )


def load_study(
    study: str | Path,
    anomaly_map: str | Path,
    *,
    window: Window | str | None = None,
    bscans: bool = False,
) -> ViewedStudy:
    """Read a study and its map, and check that they belong together.

    Args:
        study: NIfTI file, or folder of one DICOM series, see :class:`multiad_med.readers.LoadVolume`.
        anomaly_map: float32 NIfTI map on its grid; the scores beside it are used when present.
        window: name of a :class:`multiad_med.transforms.Window`, of a CT; by default ``abdomen``.
        bscans: whether the study is an OCT volume, as :class:`multiad_med.readers.LoadBScans` reads it.

    Raises:
        ViewError: when the map is not one, is not on the study's grid, or the scores are damaged.
        MultiADError: when a file cannot be read, or the study is not one finite 3D volume.
    """
    study, path = Path(study).expanduser(), Path(anomaly_map).expanduser()
    image = _read(study, bscans=bscans)
    CheckVolume()(image)
    heat = _load_map(path, bscans=bscans)
    _check_grid(study, image, path, heat)
    scores = read_scores(path)
    remarks = []
    if scores and scores.get("image_sha256") != file_sha256(study):
        remarks.append(
            f"The scores beside the map were not made from {study.name} alone: their hash differs."
        )
    values, heat_values = (np.asarray(volume)[0] for volume in (image, heat))
    affine = np.asarray(image.affine, dtype=np.float64)
    if bscans:  # (depth, width, B-scan) to columns, rows, B-scans
        values, heat_values = values.swapaxes(0, 1), heat_values.swapaxes(0, 1)
        affine = _upright(values.shape, affine[:, [1, 0, 2, 3]])
    turn = nib.io_orientation(affine)
    to_source = inv_ornt_aff(turn, values.shape)
    modality = str(image.meta.get("modality", ""))
    hounsfield = not bscans and (modality == "CT" or (not modality and values.min() <= AIR))
    result = ViewedStudy(
        name=study_path(study).name,
        image=nib.apply_orientation(values, turn),
        anomaly_map=nib.apply_orientation(heat_values, turn).astype(np.float32, copy=False),
        affine=affine @ to_source,
        to_source=to_source,
        limits=_limits(values, hounsfield=bool(hounsfield), window=window),
        hounsfield=bool(hounsfield or window is not None),
        bscans=bscans,
        scores=scores,
        remarks=tuple(remarks),
    )
    _check_slices(result, path)
    return result
