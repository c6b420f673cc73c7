"""Which published data set a tree's names suggest.

Layouts ask it before they list studies, and for the advice in their errors.
:func:`multiad_med.datasets.recognise` tries the layouts themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["looks_like"]

_SIGNS = {
    "brats2021": r"(^|/)brats[^/]*[_-](t1|t1ce|t1gd|t1n|t1c|t2|t2w|flair|t2f)\.nii(\.gz)?$",
    "lits": r"(^|/)(volume|segmentation)-\d+\.nii(\.gz)?$",
    "btcv": r"(^|/)(img\d{4}|DET\d+_avg|ABD_\d+(_0000)?)\.nii(\.gz)?$",
    "resc": r"(^|/)(original_images/[^/]+\.img|lesion_mask/[^/]+)/[^/]+$",
    "bmad": r"(^|/)(BraTS2021_slice|hist_DIY|(Brain|Liver|Retina_RESC|Chest|Histopathology)_AD)/",
    "real_iad": r"(^|/)realiad_(jsons[^/]*/.+\.json|(256|512|1024|raw)/.+)$",
    "fashion_mnist": r"(^|/)train-images-idx3-ubyte(\.gz)?$",
    "cifar10": r"(^|/)batches\.meta$",
    "cifar100": r"(^|/)cifar-100-python/meta$",
    "intel_scenes": r"(^|/)seg_train/.+\.(png|jpe?g)$",
    "mvtec_ad": r"(^|/)(train/(good|ok|normal)/.+\.(png|jpe?g|bmp|tiff?)|split_csv/1cls\.csv)$",
    "volumes": r"\.(nii(\.gz)?|nrrd|nhdr|mha|mhd)$",
    "images": r"\.(png|jpe?g|bmp|tiff?)$",
}


def looks_like(names: Iterable[str]) -> str | None:
    """Return the recipe whose file names occur among those given, the most telling first.

    Args:
        names: of files, relative to the folder in question, with ``/``.

    Returns:
        A recipe's name, or None.
    """
    names = list(names)
    for recipe, pattern in _SIGNS.items():
        if any(re.search(pattern, name, re.IGNORECASE) for name in names):
            return recipe
    return None
