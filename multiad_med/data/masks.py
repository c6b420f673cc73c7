"""Which files are masks, not images, by their names."""

from __future__ import annotations

import re
from pathlib import Path

from multiad_med.data.tree import volume_name

__all__ = ["looks_like_mask"]

# FreeSurfer's and BIDS's segmentations among them: aseg, aparc+aseg, wmparc, _dseg, _probseg.
_WORDS = re.compile(
    r"(^|[-_.+ ])((d|prob|a)?segs?|segm|segmentations?|aparc|wmparc|labels?|labelmap|rois?|gt"
    r"|ground[-_]?truth)\d*($|[-_.+ ])"
    r"|masks?\d*($|[-_.+ ])"
    r"|(?<!no[-_ ])(?<!non)(?<!non[-_ ])(?<!without[-_ ])(lesion|tumou?r)(?!s?[-_ ]?free)",
    re.IGNORECASE,
)
# What an image's name ends in, whatever it shows: BIDS's suffixes, and those of BraTS.
_IMAGES = re.compile(
    r"(^|[-_.+ ])(t[12](w|n|c|f|ce|gd)?|flair|pd(w|t2)?|dwi|adc|swi|bold|asl|mra|cta?|image|img|im"
    r"|scan|0000)$",
    re.IGNORECASE,
)


def looks_like_mask(path: Path) -> bool:
    """Tell whether a volume's file name is one that masks are given.

    ``lesion01_T1w`` is an image, since it ends in a kind of image; ``T1w_lesion`` is a mask.
    """
    name = volume_name(path)
    return _WORDS.search(name) is not None and _IMAGES.search(name) is None
