"""BraTS: MR of gliomas, four sequences on one grid, in the namings from 2017 to 2024."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from multiad_med.data.study_files import DatalistError
from multiad_med.datasets.layout_files import (
    by_study,
    existing_folder,
    first,
    nothing_found,
    study_name,
    walk,
)

__all__ = ["MrSequence", "find_brats"]

_logger = logging.getLogger(__name__)


class MrSequence(StrEnum):
    """The four MR sequences of BraTS by their names up to 2021."""

    T1 = "t1"
    T1CE = "t1ce"
    T2 = "t2"
    FLAIR = "flair"

    @classmethod
    def parse(cls, name: str) -> MrSequence:
        """Return the sequence of a name in any year's spelling (``t1n t1c t1gd t2w t2f``).

        Raises:
            DatalistError: for any other name.
        """
        try:
            return cls(_ALIASES.get(name.lower(), name.lower()))
        except ValueError:
            raise DatalistError(
                f"There is no MR sequence {name!r} in BraTS; choose from "
                f"{[str(s) for s in cls]} (2023: {list(_ALIASES)})."
            ) from None


_ALIASES = {"t1n": "t1", "t1c": "t1ce", "t1gd": "t1ce", "t2w": "t2", "t2f": "flair"}
_FILE = re.compile(
    r"(?P<study>brats.+)[_-](?P<part>t1ce|t1gd|t1n|t1c|t1|t2w|t2f|t2|flair|seg)\.nii(\.gz)?",
    re.IGNORECASE,
)
_ODD_SEGS = {"BraTS20_Training_355": r"W39_1998\.09\.19_Segm\.nii(\.gz)?"}
_TIME_POINT = re.compile(r"(BraTS-[A-Z]+-.+)-\d+|(BraTS1[789]_.+)_\d+", re.IGNORECASE)


def _subject(study: str) -> str:
    match = _TIME_POINT.fullmatch(study)
    return study if match is None else match.group(1) or match.group(2)


def _segmentation(files: dict[str, Path], study: str, folder: Path) -> Path | None:
    if "seg" in files:
        return files["seg"]
    pattern = _ODD_SEGS.get(study)
    odd = [p for p in folder.iterdir() if pattern and re.fullmatch(pattern, p.name)]
    return odd[0] if odd else None


def find_brats(
    source: str | Path, *, sequences: Sequence[str] = (MrSequence.FLAIR,)
) -> list[dict[str, Any]]:
    """List the studies of a BraTS release, however deep its folders lie.

    Files are ``<study>_<sequence>.nii[.gz]`` (2017 to 2021) or ``<study>-<sequence>.nii.gz`` (2023
    on). The mask of ``BraTS20_Training_355`` is found under its odd published name
    ``W39_1998.09.19_Segm.nii``.

    Args:
        source: folder of a release, or above it.
        sequences: one sequence, or several as channels in this order; see
            :meth:`MrSequence.parse` for their names.

    Returns:
        Items with ``image`` (a path, or a list of several), ``label`` where a segmentation is
        there (none in the validation releases; a warning tells where only some have one),
        ``subject``, ``study``, ``grade`` (HGG or LGG, where folders tell it) and ``anomalous``, which
        is always true: every patient of BraTS has a tumour. Label values: 1 necrotic core,
        2 oedema, 4 enhancing tumour (3 from 2023 on); every value above 0 is lesion.
        ``BraTS-GLI-00001-000`` is time point 000 of subject ``BraTS-GLI-00001``; the last number
        of ``BraTS19_2013_10_1`` is taken for a time point too [our reading], which can only keep
        studies together.

    Raises:
        DatalistError: when nothing matches, a study lacks a sequence, or a study occurs twice.
    """
    wanted = [MrSequence.parse(name) for name in sequences]
    if not wanted:
        raise DatalistError(f"No MR sequence is named; choose from {[str(s) for s in MrSequence]}.")
    folder = existing_folder(source)
    studies: dict[tuple[Path, str], dict[str, Path]] = {}
    for path in walk(folder):
        match = _FILE.fullmatch(path.name)
        if match is None:
            continue
        part = match["part"].lower()
        part = _ALIASES.get(part, part)
        files = studies.setdefault((path.parent, match["study"]), {})
        if part in files:
            raise DatalistError(
                f"Study {match['study']!r} has two files of {part!r}: {files[part]} and {path}. "
                "Remove one of them."
            )
        files[part] = path
    if not studies:
        raise nothing_found(
            folder,
            "BraTS files such as BraTS2021_00000_flair.nii.gz or BraTS-GLI-00001-000-t2f.nii.gz",
            recipe="brats2021",
        )
    lacking = [
        f"{where / study} (has {', '.join(sorted(files))})"
        for (where, study), files in studies.items()
        if not all(sequence in files for sequence in wanted)
    ]
    if lacking:
        raise DatalistError(
            f"{len(lacking)} of {len(studies)} BraTS studies lack one of the sequences "
            f"{[str(s) for s in wanted]}: {first(lacking)}. Choose sequences that all have, or "
            "complete the download."
        )
    items, bare = [], []
    for (where, study), files in studies.items():
        paths = [str(files[sequence]) for sequence in wanted]
        item: dict[str, Any] = {
            "image": paths[0] if len(paths) == 1 else paths,
            "subject": _subject(study),
            "study": study_name(study),
            "anomalous": True,
        }
        grades = {"HGG", "LGG"} & set(where.relative_to(folder.parent).parts)
        if grades:
            item["grade"] = grades.pop()
        seg = _segmentation(files, study, where)
        if seg is not None:
            item["label"] = str(seg)
        else:
            bare.append(where / study)
        items.append(item)
    if 0 < len(bare) < len(items):
        _logger.warning(
            "%d of %d BraTS studies have no segmentation, so that none of their slices is known to be "
            "normal: %s.",
            len(bare),
            len(items),
            first(bare),
        )
    return by_study(items)
