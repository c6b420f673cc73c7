"""What a model says of one study: files beside each other, read when they are asked for."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multiad_med.utils.json_files import read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Result"]


@dataclass(frozen=True)
class Result:
    """A study's anomaly map, score, p-value and verdict, as a bundle's inference wrote them.

    Attributes:
        source: path of the study, or the paths of its files.
        map_file: float32 NIfTI on the study's own grid; of an image, a float32 TIFF.
        scores_file: JSON.
        other_files: the mask; of an image, the overlay.
        folder: for other results of the study, such as DICOM; not made yet.
        bscans: whether the study is an OCT volume.
        kept: the temporary folder of the files, which lives as long as this object.
    """

    source: str | tuple[str, ...]
    map_file: Path
    scores_file: Path
    other_files: tuple[Path, ...]
    folder: Path
    bscans: bool = False
    kept: Any = field(default=None, repr=False, compare=False)

    @cached_property
    def scores(self) -> dict[str, Any]:
        """Everything that is known of the study; see :func:`multiad_med.inference.study_scores`."""
        content: dict[str, Any] = read_json(self.scores_file)
        return content

    @cached_property
    def _map(self) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
        if self.map_file.suffix == ".tiff":
            from PIL import Image

            return np.array(Image.open(self.map_file), dtype=np.float32), None
        import nibabel as nib

        image = nib.Nifti1Image.from_filename(self.map_file)
        return np.asarray(image.dataobj, dtype=np.float32), image.affine

    @property
    def map(self) -> NDArray[np.float32]:
        """Map in [0, 1) on the study's own grid ``(X, Y, Z)``; of an image ``(rows, columns)``."""
        return self._map[0]

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """Affine ``(4, 4)`` from voxels to RAS+ in the file's units, mm as a rule; None of an image."""
        return self._map[1]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Where the map reaches its threshold, 0.5."""
        return self.map >= self.scores["thresholds"]["map"]

    @property
    def score(self) -> float:
        """Score of the whole study: its highest slice score."""
        return float(self.scores["volume_score"])

    @property
    def p_value(self) -> float:
        """Share of normal studies that score at least as high, judged by the held-out ones."""
        return float(self.scores["volume_p_value"])

    @property
    def anomalous(self) -> bool | None:
        """Whether the study is called anomalous; None where there is no verdict."""
        flagged: bool | None = self.scores["volume_flagged"]
        return flagged

    @property
    def verdict(self) -> str:
        """``normal``, ``anomalous``, or why there is no verdict."""
        return str(self.scores["verdict"])

    @property
    def slices(self) -> list[dict[str, Any]]:
        """Each slice that was looked at: its number in the file, score, p-value, whether flagged."""
        found: list[dict[str, Any]] = self.scores["slices"]
        return found

    @property
    def files(self) -> tuple[Path, ...]:
        """Map, mask or overlay, and scores."""
        return (self.map_file, *self.other_files, self.scores_file)

    def save(self, folder: str | Path) -> list[Path]:
        """Copy the files into a folder, which is made if absent.

        Returns:
            The copies, in the order of :attr:`files`.

        Raises:
            InputError: when the folder has results of another study of the same name.
            FileError: when the folder cannot be written to.
        """
        from multiad_med.utils.atomic import atomic_path
        from multiad_med.utils.errors import InputError, file_errors

        copies = [Path(folder) / file.name for file in self.files]
        if copies[-1].is_file():
            other = read_json(copies[-1]).get("image")
            if other != self.scores["image"]:
                raise InputError(
                    f"{copies[-1]}: the results of {self.scores['image']} would replace those of "
                    f"{other}. Choose another folder."
                )
        for file, copy in zip(self.files, copies, strict=True):
            with file_errors(copy, "written"), atomic_path(copy) as temporary:
                shutil.copyfile(file, temporary)
        return copies

    @property
    def name(self) -> str:
        """The name of the study's file or folder, without its path."""
        return Path(self.source if isinstance(self.source, str) else self.source[0]).name

    def show(self) -> Figure:
        """Draw the study under its map: a choice of slices, with the highest map among them.

        Returns:
            A figure, which a notebook shows.

        Raises:
            MultiADError: when the study's own file is no longer there.
        """
        from matplotlib.figure import Figure
        from matplotlib.image import imread

        from multiad_med.visualize import view

        source = self.source if isinstance(self.source, str) else str(Path(self.source[0]).parent)
        with TemporaryDirectory() as folder:
            montage = imread(view(source, self.map_file, folder, bscans=self.bscans)[0])
        rows, columns = montage.shape[:2]
        figure = Figure(figsize=(columns / 110, rows / 110), dpi=110)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.imshow(montage)
        axes.set_axis_off()
        return figure

    def __repr__(self) -> str:
        flagged = [s for s in self.slices if s["flagged"]]
        slices = f"; {len(flagged)} of {len(self.slices)} slices" if len(self.slices) > 1 else ""
        return (
            f"Result({self.name}: {self.verdict}, score {self.score:.3f}, "
            f"p-value {self.p_value:.3f}{slices}{' anomalous' if slices else ''})"
        )
