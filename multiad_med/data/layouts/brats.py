"""BraTS: MR of gliomas, four sequences on one grid, in the namings from 2017 to 2024."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from multiad_med.data.datalist import DatalistError
from multiad_med.data.layouts.files import (
    by_study,
    existing_folder,
    first,
    nothing_found,
    study_name,
    walk,
)

__all__ = ["MrSequence", "find_brats"]


class MrSequence(StrEnum):
    """The four MR sequences of BraTS by their names up to 2021."""

    T1 = "t1"
    T1CE = "t1ce"
    T2 = "t2"
    FLAIR = "flair"

    @classmethod
    def parse(cls, name: str) -> MrSequence:
        """The sequence of a name in any year's spelling (``t1n t1c t1gd t2w t2f``).

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
        published (none in the validation releases), ``subject``, ``study``, ``grade`` (HGG or LGG,
        where folders tell it) and ``anomalous``, which is always true: every patient of BraTS has
        a tumour. Label values: 1 necrotic core,
        2 oedema, 4 enhancing tumour (3 from 2023 on); every value above 0 is lesion.
        ``BraTS-GLI-00001-000`` is time point 000 of subject ``BraTS-GLI-00001``; the last number
        of ``BraTS19_2013_10_1`` is taken for a time point too [our reading], which can only keep
        studies together.

    Raises:
        DatalistError: when nothing matches, a study lacks a sequence, a study occurs twice, or
            some but not all studies of one folder have a segmentation.
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
    items, labelled = [], dict[Path, bool]()
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
        if labelled.setdefault(where.parent, seg is not None) != (seg is not None):
            raise DatalistError(
                f"Some studies of {where.parent} have a segmentation and some have not; {study} "
                f"has {'one' if seg else 'none'}, unlike those before. Complete the download, or "
                "put unlabelled studies into a folder of their own."
            )
        if seg is not None:
            item["label"] = str(seg)
        items.append(item)
    return by_study(items)
