"""Synthetic trees of public data sets: names, types, label values and geometry as published.

Contents are plausible, not real: textured ellipsoids with blobs, layered B-scans, textured images
with a scratch. Sizes are the caller's, so that a whole recipe runs on them in a test.
"""

from multiad_med.testing.layouts.bmad import make_bmad
from multiad_med.testing.layouts.classes import (
    CIFAR10_CLASSES,
    make_cifar10,
    make_cifar100,
    make_class_folders,
    make_fashion_mnist,
    make_scenes,
)
from multiad_med.testing.layouts.pictures import (
    make_btad,
    make_loco,
    make_mvtec,
    make_real_iad,
    make_visa,
)
from multiad_med.testing.layouts.retina import RESC_GREYS, make_pnet, make_resc
from multiad_med.testing.layouts.shapes import picture, save_image, save_nifti
from multiad_med.testing.layouts.volumes import (
    BRATS_AFFINE,
    BRATS_NAMES,
    make_brats,
    make_btcv,
    make_lits,
    make_liver,
)

__all__ = [
    "BRATS_AFFINE",
    "BRATS_NAMES",
    "CIFAR10_CLASSES",
    "RESC_GREYS",
    "make_bmad",
    "make_brats",
    "make_btad",
    "make_btcv",
    "make_cifar10",
    "make_cifar100",
    "make_class_folders",
    "make_fashion_mnist",
    "make_lits",
    "make_liver",
    "make_loco",
    "make_mvtec",
    "make_pnet",
    "make_real_iad",
    "make_resc",
    "make_scenes",
    "make_visa",
    "picture",
    "save_image",
    "save_nifti",
]
