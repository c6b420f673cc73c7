"""One way in for every volume: the file decides on the reader, whose error is final."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import ImageReader, ITKReader, MetaTensor, NumpyReader
from monai.data.utils import is_no_channel
from monai.transforms import MapTransform, Transform
from monai.utils import ensure_tuple

from multiad_med.dicom.read.reader import DicomSeriesReader
from multiad_med.readers.nifti import NiftiReader
from multiad_med.utils.errors import FileError, InputError, file_errors
from multiad_med.utils.suffixes import (
    DICOM_SUFFIXES,
    ITK_SUFFIXES,
    NIFTI_PAIR_SUFFIXES,
    NIFTI_SUFFIXES,
)

__all__ = ["LoadVolume", "LoadVolumed"]

_DICOM_MAGIC_AT = 128


def is_dicom_path(path: Path) -> bool:
    """Tell whether a path is a folder, or a file with DICOM's suffix or prefix."""
    if path.is_dir() or path.suffix.lower() in DICOM_SUFFIXES:
        return True
    with file_errors(path), path.open("rb") as stream:
        stream.seek(_DICOM_MAGIC_AT)
        return stream.read(4) == b"DICM"


class LoadVolume(Transform):
    """Read a volume as MONAI's ``LoadImage`` does, with exactly one reader for each form of file.

    ``LoadImage`` tries its other readers when one refuses a file, so that a DICOM series with a
    missing slice would be read by the next one, with a wrong affine. Here NIfTI
    goes to :class:`NiftiReader`, a folder, a ``.dcm`` file or anything with a DICOM preamble to
    :class:`DicomSeriesReader`, ``.npy`` to MONAI's NumpyReader, MetaImage and NRRD to its
    ITKReader, and a refusal is final. A list of NIfTI files becomes channels (MR sequences); a
    list of DICOM files is one series.

    Voxels stay in the file's order in memory, in which slices are contiguous (``LoadImage`` reorders a
    large CT, which takes longer than to inflate it). They keep integer types of up to 16 bits; all
    others become float32.

    Args:
        series_uid: which series of a DICOM folder that holds several.
        assume_hounsfield: see :class:`DicomSeriesReader`.
    """

    def __init__(self, *, series_uid: str | None = None, assume_hounsfield: bool = False) -> None:
        self.series_uid = series_uid
        self.assume_hounsfield = assume_hounsfield

    def _reader(self, path: Path) -> ImageReader:
        if not path.exists():
            raise FileError(f"{path} does not exist.")
        name = path.name.lower()
        if name.endswith(NIFTI_SUFFIXES + NIFTI_PAIR_SUFFIXES):
            return NiftiReader()
        if name.endswith(".npy"):
            return NumpyReader(channel_dim="no_channel")
        if name.endswith(ITK_SUFFIXES):
            return ITKReader()
        if is_dicom_path(path):
            return DicomSeriesReader(
                series_uid=self.series_uid, assume_hounsfield=self.assume_hounsfield
            )
        raise InputError(
            f"{path}: not a volume of a known form. Known are NIfTI (.nii, .nii.gz, .img with .hdr), "
            f"DICOM (a folder, a file), NumPy (.npy), NRRD and MetaImage ({', '.join(ITK_SUFFIXES)})."
        )

    def __call__(
        self, filename: Sequence[str | os.PathLike[str]] | str | os.PathLike[str]
    ) -> MetaTensor:
        """Read a volume ``(C, X, Y, Z)`` with its RAS+ affine in mm.

        Raises:
            FileError: when there is no such file.
            InputError: naming the file and the reason (see the readers for their own errors).
        """
        paths = [Path(name).expanduser() for name in ensure_tuple(filename)]
        reader = self._reader(paths[0])
        array, meta = reader.get_data(reader.read(paths if len(paths) > 1 else paths[0]))
        small = array.dtype in (np.uint8, np.int8, np.int16)
        values = torch.from_numpy(array if small else array.astype(np.float32, copy=False))
        channel = meta.get("original_channel_dim", float("nan"))
        values = values[None] if is_no_channel(channel) else values.movedim(int(channel), 0)
        meta = {**meta, "filename_or_obj": str(paths[0]), "original_channel_dim": 0}
        affine = np.asarray(meta.pop("affine", np.eye(4)), dtype=float)
        return MetaTensor(values, affine=torch.from_numpy(affine.copy()), meta=meta)


class LoadVolumed(MapTransform):
    """Dictionary form of :class:`LoadVolume`.

    A key whose file is another key's too (an organ and a lesion label in one segmentation) is read
    once.

    Args:
        keys: paths, replaced by their volumes.
        allow_missing_keys: whether absent keys are passed over.
        series_uid: see :class:`LoadVolume`.
        assume_hounsfield: see :class:`LoadVolume`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        allow_missing_keys: bool = False,
        series_uid: str | None = None,
        assume_hounsfield: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadVolume(series_uid=series_uid, assume_hounsfield=assume_hounsfield)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read each key's file."""
        result = dict(data)
        read: dict[Any, torch.Tensor] = {}
        for key in self.key_iterator(result):
            source = result[key]
            name = source if isinstance(source, (str, os.PathLike)) else tuple(source)
            if name not in read:
                read[name] = self.load(source)
            result[key] = read[name]
        return result
