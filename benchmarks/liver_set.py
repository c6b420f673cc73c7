"""Prepared liver slices of 3D-IRCADb-01 for ``multiad benchmark``: p07, healthy, trains; p01 is the test.

    python benchmarks/liver_set.py IRCAD OUTPUT [--size 256]

IRCAD is as for liver_preparation.py. The liver of p07 is cut into blocks of nine slices with one slice
between two blocks left out, and a fifth of the blocks is held out for calibration. It is one patient:
thresholds are of other slices of the same liver.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np

from multiad_med.preparation import load_recipe, prepare

BLOCK = 10
LIVER_OF_BTCV = 6


def write_blocks(data: Path, folder: Path) -> None:
    """Write the blocks of p07 as patients of BTCV, and p01 as a patient of LiTS."""
    image, label = (nib.load(data / f"p07_{kind}.nii.gz") for kind in ("ct", "label"))
    liver = np.asarray(label.dataobj) > 0
    (slices,) = np.nonzero(liver.any(axis=(0, 1)))
    for number, start in enumerate(slices[::BLOCK], 1):
        block = np.s_[:, :, start : start + BLOCK - 1]
        mask = nib.Nifti1Image(liver.astype(np.uint8) * np.uint8(LIVER_OF_BTCV), label.affine)
        nib.save(image.slicer[block], _made(folder / f"btcv/img/img{number:04d}.nii.gz"))
        nib.save(mask.slicer[block], _made(folder / f"btcv/label/label{number:04d}.nii.gz"))
    ill = nib.load(data / "p01_label.nii.gz")
    values = np.array((0, 1, 2, 1), np.uint8)[np.asarray(ill.dataobj).astype(np.uint8)]
    nib.save(nib.load(data / "p01_ct.nii.gz"), _made(folder / "lits/volume-1.nii.gz"))
    nib.save(nib.Nifti1Image(values, ill.affine), folder / "lits/segmentation-1.nii.gz")


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def main() -> None:
    """Prepare the set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--size", type=int, default=256)
    args = parser.parse_args()
    source = args.output / "liver_source"
    write_blocks(args.data, source)
    settings = {"size": args.size, "training": 0.8, "validation": 0.2}
    print(prepare(load_recipe("liver_ct", settings), source, args.output / "liver", workers=1))


if __name__ == "__main__":
    main()
