"""Masks that lie beside their images, told by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from multiad_med.data.study_files import DatalistError
from multiad_med.datasets.layout_files import first

__all__ = ["masks_beside"]

_SURE = r"masks?|gt|ground[-_ ]?truth|seg|segmentation|labelmap"
_WITH_IMAGE = rf"{_SURE}|labels?|roi|lesions?|tumou?r"
_AFTER = re.compile(rf"(?P<stem>.+)[-_. ](?:{_WITH_IMAGE})\d*", re.IGNORECASE)
_BEFORE = re.compile(rf"(?:{_WITH_IMAGE})[-_. ](?P<stem>.+)", re.IGNORECASE)
_ALONE = re.compile(rf".+[-_. ](?:{_SURE})\d*", re.IGNORECASE)
_IMAGE_ENDS = ("", "_image", "_img")


def masks_beside(paths: Sequence[Path]) -> tuple[list[Path], dict[Path, list[Path]]]:
    """Separate masks such as ``007_mask.png`` or ``mask_007.png`` from the images beside them.

    A name is a mask's where the image of the rest of the name lies in the same folder: ``007.*``,
    ``007_image.*`` or ``007_img.*``.

    Args:
        paths: of images and masks.

    Returns:
        The images, and the masks of those that have any.

    Raises:
        DatalistError: when a file that can only be a mask has no image beside it.
    """
    known = {path.with_suffix(""): path for path in paths}
    images: list[Path] = []
    masks: dict[Path, list[Path]] = {}
    alone: list[Path] = []
    for path in paths:
        matches = (pattern.fullmatch(path.stem) for pattern in (_AFTER, _BEFORE))
        names = [match["stem"] + end for match in matches if match for end in _IMAGE_ENDS]
        owner = next((known[o] for n in names if (o := path.with_name(n)) in known), None)
        if owner is not None:
            masks.setdefault(owner, []).append(path)
        elif _ALONE.fullmatch(path.stem):
            alone.append(path)
        else:
            images.append(path)
    if alone:
        raise DatalistError(
            f"{len(alone)} files are named as masks and have no image beside them: {first(alone)}. Put "
            "each beside its image, under its name with _mask added, or rename what is an image."
        )
    return images, masks
