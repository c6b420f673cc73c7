"""MR sequences by their names: a model is for one of them, so a mixed folder is refused."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from multiad_med.data.study_files import DatalistError, subject_folder
from multiad_med.data.tree import matches, volume_name

__all__ = ["Named", "check_one_sequence", "matches_series", "named_files", "sequence_of"]


def _word(words: str) -> re.Pattern[str]:
    """Return a pattern of words in a name, but not of BIDS's ``space-T1w``, which is the grid."""
    return re.compile(rf"(?<![a-z0-9])(?<!space-)({words})(?![a-z0-9])", re.IGNORECASE)


_CONTRAST = _word(r"ce|gd|gad|gado|gadolinium|contrast|post|km|c\+|\+c")
# The first that occurs decides: `t2_flair` is FLAIR.
_SEQUENCES: dict[str, re.Pattern[str]] = {
    "FLAIR": _word("flair|t2f|t2flair|t2w?[-_ ]flair"),
    "T1c": _word("t1w?(c|ce|gd|km|post)|t1c[ew]"),
    "ADC": _word("adc"),
    "DWI": _word("dwi|dti"),
    "SWI": _word("swi"),
    "T2*": _word(r"t2star|t2\*|t2s"),
    "PD": _word("pdw?"),
    "BOLD": _word("bold|fmri"),
    "ASL": _word("asl"),
    "MRA": _word("mra|tof"),
    "T2": _word("t2w?"),
    "T1": _word("t1w?n?|mprage|bravo|spgr"),
}


def sequence_of(name: str) -> str:
    """Return the MR sequence that a file's name or a series' description names, or an empty text."""
    found = next((s for s, pattern in _SEQUENCES.items() if pattern.search(name)), "")
    return "T1c" if found == "T1" and _CONTRAST.search(name) else found


@dataclass(frozen=True)
class Named:
    """An image and what its names tell.

    Attributes:
        patient: whose it is.
        sequence: see :func:`sequence_of`; for a series that names none, its description.
        name: what globs are made from: a file's name, or a series' description.
        inside: its file, relative to the folder that is searched.
        matches: whether a glob chooses it.
    """

    patient: str
    sequence: str
    name: str
    inside: Path
    matches: Callable[[str], bool]


def _without_sequence(name: str) -> str:
    for pattern in (*_SEQUENCES.values(), _CONTRAST):
        name = pattern.sub("", name)
    return name.strip("-_. ")


def _named(inside: Path) -> Named:
    folders, name = inside.parts[:-1], volume_name(inside)
    told = (sequence_of(part) for part in (name, *reversed(folders)))
    rest = Path(*filter(None, map(_without_sequence, folders)), _without_sequence(name) or "_")
    return Named(
        patient=subject_folder(rest, Path()) or str(rest),
        sequence=next(filter(None, told), ""),
        name=inside.name,
        inside=inside,
        matches=lambda pattern: matches(inside, pattern),
    )


def named_files(items: Iterable[Mapping[str, Any]], folder: Path) -> list[Named]:
    """Return what the names of volumes tell; the patient is a sub-folder, or the rest of the name."""
    paths = (Path(item["image"]).absolute() for item in items)
    return [_named(path.relative_to(folder.absolute())) for path in paths]


def matches_series(description: str, file: Path, pattern: str) -> bool:
    """Tell whether a glob chooses a DICOM series: by a file's path in the folder, or by its description.

    Case does not matter in descriptions.
    """
    return matches(file, pattern) or fnmatchcase(description.lower(), pattern.lower())


def _globs(name: str, *, is_file: bool) -> Iterable[str]:
    """Yield globs that might choose all names of a sequence, made from one of them, plainest first."""
    start = "**/" if is_file else ""
    stem = volume_name(Path(name)) if is_file else name
    spans = [m.span() for p in (*_SEQUENCES.values(), _CONTRAST) for m in p.finditer(stem)]
    whole = [(min(spans)[0], max(end for _, end in spans)), *spans] if spans else []
    for suffix in (name[len(stem) :], ".nii*") if is_file else ("",):
        end = glob.escape(suffix)
        for first, last in whole:
            word, before = glob.escape(stem[first:last]), glob.escape(stem[:first][-1:])
            after = glob.escape(stem[last:])
            yield f"{start}{'*' if before else ''}{before}{word}{after}{end}"
            yield f"{start}{'*' if before else ''}{before}{word}{after[:1]}*{end}"
            yield f"{start}*{word}*{end}"
            around = (re.sub(r"\d", "?", part) for part in (glob.escape(stem[:first]), after))
            yield start + word.join(around) + end
    yield start + glob.escape(name)


def _choice(sequence: str, images: Sequence[Named], folder: Path, *, is_file: bool) -> str:
    """Return how to choose a sequence's images and no others, for a message."""
    own = [image for image in images if image.sequence == sequence]
    for pattern in _globs(own[0].name, is_file=is_file):
        if all(image.matches(pattern) == (image.sequence == sequence) for image in images):
            return f"image_glob='{pattern}'"
    top = own[0].inside.parts[0]
    if all((image.inside.parts[0] == top) == (image.sequence == sequence) for image in images):
        return f"give {folder / top}"
    return "no one glob chooses them; list them in a datalist.json"


def check_one_sequence(images: Sequence[Named], folder: Path, *, is_file: bool) -> None:
    """Refuse a folder in which a patient has several sequences; several studies of one are fine.

    Args:
        images: what their names tell.
        folder: where they lie, for the message.
        is_file: whether they are files, else DICOM series.

    Raises:
        DatalistError: with each sequence, how many images it has, and the glob that chooses it.
    """
    of_patient: dict[str, set[str]] = {}
    for image in images:
        if image.sequence:
            of_patient.setdefault(image.patient, set()).add(image.sequence)
    mixed = [patient for patient, sequences in of_patient.items() if len(sequences) > 1]
    if not mixed:
        return
    counts: dict[str, int] = {}
    for image in images:
        if image.sequence:
            counts[image.sequence] = counts.get(image.sequence, 0) + 1
    choices = "; ".join(
        f"{sequence} ({count}): {_choice(sequence, images, folder, is_file=is_file)}"
        for sequence, count in sorted(counts.items())
    )
    raise DatalistError(
        f"{folder} has several sequences of {len(mixed)} patients, such as {mixed[0]}, and a model is of "
        f"one. Choose it by image_glob (`--images`). {choices}."
    )
