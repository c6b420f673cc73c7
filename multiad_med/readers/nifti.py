"""NIfTI: compressed files are read fast, and never more than the header promises."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip
from monai.config import PathLike
from monai.data import NibabelReader
from monai.utils import ensure_tuple
from nibabel.openers import ImageOpener
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from multiad_med.utils.errors import FileError, MultiADError, reader_errors

__all__ = ["NiftiError", "NiftiReader", "millimetres"]

_logger = logging.getLogger(__name__)

_PAIR = re.compile(r"\.(img|hdr)(\.gz)?$", re.IGNORECASE)
_HEADER_BYTES = 540  # enough for NIfTI-1 (348) and NIfTI-2
_LARGEST_RATIO = 1032  # what deflate can reach at most


def millimetres(xyzt_units: int) -> float:
    """Return the length of a header's spatial unit in mm; 1 if it is unknown."""
    return {1: 1000.0, 2: 1.0, 3: 0.001}.get(int(xyzt_units) & 7, 1.0)


class NiftiError(MultiADError, ValueError):
    """A NIfTI file is truncated, corrupt, or holds no numbers."""


class NiftiReader(NibabelReader):
    """MONAI's NibabelReader, with compressed files inflated at once by Intel's ISA-L.

    A file that is shorter than its header says, or whose checksum fails, is refused. An endless stream
    is inflated only as far as the header promises. A pair (``.hdr`` and ``.img``) is read by either of
    its names. Where qform and sform disagree, the sform counts, as in nibabel, with a warning. Where a
    file has neither, nibabel's guess is used (first axis to the patient's left), with a warning.
    """

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> Any:
        """Read one file, or several as channels.

        Raises:
            NiftiError: naming the file and the reason.
        """
        paths = [Path(name) for name in ensure_tuple(data)]
        self.filenames = [str(path) for path in paths]
        images = [self._open(path) for path in paths]
        first = images[0]
        for path, image in zip(paths[1:], images[1:], strict=True):
            difference = float(np.abs(image.affine - first.affine).max())
            if image.shape != first.shape or difference > 1e-3:
                raise NiftiError(
                    f"{path}: its grid (shape {image.shape}, affine differing by {difference:g} mm) "
                    f"is not that of {paths[0]} (shape {first.shape}). Sequences that become channels of "
                    "one image must be registered and resampled to one grid."
                )
        return images if len(images) > 1 else first

    def _open(self, path: Path) -> Any:
        if not path.exists():
            raise FileError(f"{path} does not exist.")
        name = path.name.lower()
        with reader_errors(path, NiftiError, "not a readable NIfTI file"):
            try:
                image: Any
                if name.endswith(".nii.gz"):
                    image = _inflate(path)
                elif name.endswith((".gz", ".img", ".hdr")):
                    image = _open_pair(path)
                else:
                    image = nib.load(path)
                    # The header of a loaded image has lost its offset.
                    _check_size(path, image.header, image.dataobj.offset, os.path.getsize(path))
            except EOFError as error:
                raise NiftiError(f"{path}: truncated: {error}") from error
        kind = image.get_data_dtype().kind
        if kind not in "iuf":
            raise NiftiError(
                f"{path}: its voxels are of type {image.get_data_dtype()} (colour or complex); real "
                "numbers are needed. Save one component as a volume of its own."
            )
        _check_affine(path, image.affine)
        _warn_on_frames(path, image)
        return image

    def _get_meta_dict(self, img: Any) -> dict[str, Any]:
        """Return the header's fields, and ``millimetres``: the file's unit, in which maps are written."""
        unit = millimetres(int(img.header["xyzt_units"]))
        return {**super()._get_meta_dict(img), "millimetres": unit}

    def _get_affine(self, img: Any) -> Any:
        """Return the affine in mm, whatever the header's unit."""
        unit = millimetres(int(img.header["xyzt_units"]))
        return np.diag([unit, unit, unit, 1.0]) @ super()._get_affine(img)

    def _get_array_data(self, img: Any, filename: PathLike) -> Any:
        """Return the voxels in the machine's byte order, which torch demands."""
        array = super()._get_array_data(img, filename)
        return array.astype(array.dtype.newbyteorder("="), copy=False)


def _check_affine(path: Path, affine: NDArray[np.floating]) -> None:
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    # As a fraction of the largest volume that axes of these lengths could span.
    flat = not sizes.all() or abs(np.linalg.det(affine[:3, :3] / np.where(sizes, sizes, 1))) < 1e-6
    if not np.isfinite(affine).all() or flat:
        raise NiftiError(
            f"{path}: its affine maps voxels to no place in space:\n{affine}\n"
            "Correct the file's sform or qform."
        )


def _check_size(path: Path, header: Any, offset: int, available: int) -> int:
    """Return the number of bytes that header and voxels take."""
    shape = header.get_data_shape()
    voxels = 1
    for extent in shape:
        if extent < 1:
            raise NiftiError(f"{path}: the header has an impossible shape {shape}.")
        voxels *= int(extent)
    needed = offset + voxels * header.get_data_dtype().itemsize
    if not 0 <= offset < 1 << 31 or needed > available:
        raise NiftiError(
            f"{path}: truncated or corrupt: the header promises {needed} bytes (shape {shape}), the "
            f"file can hold {available} at most."
        )
    return needed


def _inflate(path: Path) -> Any:
    """Read the image in a compressed file; its voxels stay in the file's order."""
    most = _LARGEST_RATIO * os.path.getsize(path) + 1024
    with igzip.open(path, "rb") as stream:
        head = stream.read(_HEADER_BYTES)
        kinds = (nib.Nifti1Image, nib.Nifti2Image)
        image_class = next((k for k in kinds if k.header_class.may_contain_header(head)), None)
        if image_class is None:
            raise NiftiError(f"{path}: not a NIfTI file: its header has no NIfTI signature.")
        header = image_class.header_class(head[: image_class.header_class.template_dtype.itemsize])
        offset = int(header.get_data_offset())
        needed = _check_size(path, header, offset, most)
        content = np.empty(needed, np.uint8)
        got = min(len(head), needed)
        content[:got] = np.frombuffer(head, np.uint8, got)
        while got < needed:
            count = stream.readinto(memoryview(content)[got:])  # type: ignore[arg-type]
            if not count:
                raise NiftiError(f"{path}: truncated: it ends after {got} of {needed} bytes.")
            got += count
        try:
            stream.read(1)  # the checksum comes last
        except (OSError, EOFError) as error:
            raise NiftiError(f"{path}: damaged: {error}") from error
    voxels = content[offset:].view(header.get_data_dtype())
    array = apply_read_scaling(voxels, *header.get_slope_inter())
    affine = header.get_best_affine()
    _check_affine(path, affine)
    image = image_class(array.reshape(header.get_data_shape(), order="F"), affine, header)
    image.set_data_dtype(header.get_data_dtype())
    return image


def _open_pair(path: Path) -> Any:
    """Read the image in two files, header and voxels, by the name of either.

    Raises:
        NiftiError: when one of the two is missing, the header is of Analyze, which has no
            orientation, or the voxels are fewer than it promises.
    """
    parts = dict[str, Path]()
    for part in ("hdr", "img"):
        name = _PAIR.sub(rf".{part}\2", path.name)
        found = [p for p in path.parent.iterdir() if p.name.lower() == name.lower()]
        if not found:
            raise NiftiError(f"{path}: the other half of the pair, {name}, is not beside it.")
        parts[part] = next((p for p in found if p.name == name), found[0])
    with ImageOpener(str(parts["hdr"])) as stream:
        head = stream.read(_HEADER_BYTES)
    kinds = (nib.Nifti1Pair, nib.Nifti2Pair)
    image_class = next((k for k in kinds if k.header_class.may_contain_header(head)), None)
    if image_class is None:
        raise NiftiError(
            f"{path}: its header is not NIfTI's. An Analyze 7.5 pair has no orientation, so left and "
            "right would be a guess; convert it to NIfTI (.nii.gz) where its orientation is known."
        )
    files = image_class.make_file_map({"header": str(parts["hdr"]), "image": str(parts["img"])})
    image = image_class.from_file_map(files)
    available = os.path.getsize(parts["img"])
    if parts["img"].name.lower().endswith(".gz"):
        available = _LARGEST_RATIO * available + 1024
    _check_size(path, image.header, image.dataobj.offset, available)
    return image


def _warn_on_frames(path: Path, image: Any) -> None:
    header = image.header
    if not header["sform_code"] and not header["qform_code"]:
        _logger.warning(
            "%s: neither qform nor sform says how it lies in the patient. Its first axis is taken to "
            "lead to the patient's left, as nibabel does; set its sform if that is wrong.",
            path,
        )
    if not (header["sform_code"] and header["qform_code"]):
        return
    difference = float(np.abs(header.get_qform() - header.get_sform()).max())
    if difference > 1e-2:
        _logger.warning(
            "%s: qform and sform differ by up to %.3g mm; the sform is used.", path, difference
        )
