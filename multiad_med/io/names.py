"""What a study's results are called, and where they lie."""

from __future__ import annotations

from pathlib import Path

from multiad_med.io.pictures import PICTURE_SUFFIXES

__all__ = ["result_path", "study_stem"]


def study_stem(source: str | Path) -> str:
    """A study's file name without ``.nii``, ``.nii.gz`` or the suffix of a picture."""
    path = Path(source)
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return path.stem
    return path.name.removesuffix(".gz").removesuffix(".nii")


def result_path(
    source: str | Path,
    end: str,
    *,
    output_dir: str | Path,
    data_root_dir: str | Path | None = None,
) -> Path:
    """Where a study's result goes: its name with another end, in the study's folder anew.

    Args:
        source: of the study.
        end: what follows the study's name, suffix included.
        output_dir: where all results go.
        data_root_dir: the part of the source's path that is not repeated under ``output_dir``, as
            in MONAI's ``SaveImage``; by default the source's own folder.

    Raises:
        ValueError: when the source is not below ``data_root_dir``.
    """
    folder = Path(output_dir)
    if data_root_dir is not None:
        folder /= Path(source).absolute().parent.relative_to(data_root_dir)
    return folder / f"{study_stem(source)}{end}"
