"""The work of ``multiad view``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from multiad_med.data.study_results import study_path
from multiad_med.readers import LoadImages
from multiad_med.readers.images import IMAGE_SUFFIXES
from multiad_med.scoring import decision
from multiad_med.transforms import Window
from multiad_med.utils.errors import reader_errors
from multiad_med.visualize.montage import write_montage
from multiad_med.visualize.slice_rows import MontageColumn, save_montage
from multiad_med.visualize.viewed_study import ViewError, check_map, load_study, read_scores
from multiad_med.visualize.viewer_page import write_page

__all__ = ["view"]

MONTAGE = "montage.png"
PAGE = "viewer.html"


def _view_image(path: Path, anomaly_map: Path, output: Path) -> None:
    image = np.asarray(LoadImages(colour=False)(path))[0, ..., 0]
    with reader_errors(anomaly_map, ViewError, "not a readable image"):
        heat = np.asarray(Image.open(anomaly_map))
    if heat.dtype.kind != "f" or heat.shape != image.shape:
        raise ViewError(
            f"{anomaly_map}: expected a float32 TIFF map of {image.shape} (rows, columns), the size of "
            f"{path}; got {heat.shape} of {heat.dtype}."
        )
    check_map(heat, anomaly_map)
    column = MontageColumn(title=study_path(path).name, image=image, anomaly_map=heat, upright=True)
    save_montage([column], output, title=decision(read_scores(anomaly_map)))


def view(
    study: str | Path,
    anomaly_map: str | Path,
    output_dir: str | Path,
    *,
    window: Window | str | None = None,
    bscans: bool = False,
) -> list[Path]:
    """Write ``montage.png`` and ``viewer.html`` of a study and its map; of an image the montage only.

    Args:
        study: NIfTI file, folder of one DICOM series, OCT volume, or image.
        anomaly_map: the map on its grid, as the bundles write it: float32 NIfTI, of an image TIFF.
        output_dir: folder, made if absent.
        window: see :func:`load_study`.
        bscans: see :func:`load_study`.

    Returns:
        The files written.

    Raises:
        MultiADError: naming the file and the reason; :class:`ViewError` where study, map and scores do
            not fit.
    """
    study, anomaly_map, output = Path(study), Path(anomaly_map), Path(output_dir)
    montage, page = output / MONTAGE, output / PAGE
    if study.suffix.lower() in IMAGE_SUFFIXES and not bscans:
        _view_image(study, anomaly_map, montage)
        return [montage]
    viewed = load_study(study, anomaly_map, window=window, bscans=bscans)
    write_montage(viewed, montage)
    write_page(viewed, page)
    return [montage, page]
