"""One way in for every volume: the reader is chosen by the file, and its error is the error."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import ImageReader, ITKReader, NumpyReader
from monai.transforms import LoadImage, MapTransform
from monai.utils import convert_to_dst_type, ensure_tuple

from multiad_med.io.dicom_reader import DicomSeriesReader
from multiad_med.io.nifti_reader import NiftiReader

__all__ = ["LoadVolume", "LoadVolumed"]

_ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
_DICOM_MAGIC_AT = 128


def _is_dicom(path: Path) -> bool:
    if path.is_dir() or path.suffix.lower() in (".dcm", ".dicom", ".ima"):
        return True
    with path.open("rb") as stream:
        stream.seek(_DICOM_MAGIC_AT)
        return stream.read(4) == b"DICM"


class LoadVolume(LoadImage):
    """MONAI's ``LoadImage``, with exactly one reader for each form of file.

    ``LoadImage`` tries its other readers when one refuses a file, so that a DICOM series with a
    missing slice would come in through the next one, with an affine that is not true. Here NIfTI
    goes to :class:`NiftiReader`, a folder, a ``.dcm`` file or anything with a DICOM preamble to
    :class:`DicomSeriesReader`, ``.npy`` to MONAI's NumpyReader, MetaImage and NRRD to its
    ITKReader, and a refusal is final. A list of NIfTI files becomes channels (MR sequences); a
    list of DICOM files is one series.

    Voxels keep their integer type where it has at most 16 bits; all others become float32.

    Args:
        series_uid: which series of a DICOM folder that holds several.
    """

    def __init__(self, *, series_uid: str | None = None) -> None:
        super().__init__(image_only=True, dtype=None, ensure_channel_first=True)
        self.series_uid = series_uid

    def _reader(self, path: Path) -> ImageReader:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist.")
        name = path.name.lower()
        if name.endswith((".nii", ".nii.gz")):
            return NiftiReader()
        if name.endswith(".npy"):
            return NumpyReader(channel_dim="no_channel")
        if name.endswith(_ITK_SUFFIXES):
            return ITKReader()
        if _is_dicom(path):
            return DicomSeriesReader(series_uid=self.series_uid)
        raise ValueError(
            f"{path}: not a volume of a known form. Known are NIfTI (.nii, .nii.gz), DICOM (a folder, "
            f"a file), NumPy (.npy), NRRD and MetaImage ({', '.join(_ITK_SUFFIXES)})."
        )

    def __call__(  # type: ignore[override]
        self, filename: Sequence[str | os.PathLike[str]] | str | os.PathLike[str]
    ) -> torch.Tensor:
        """Read a volume ``(C, X, Y, Z)`` with its RAS+ affine in mm.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: naming the file and the reason (see the readers for their own errors).
        """
        paths = [Path(name) for name in ensure_tuple(filename)]
        image = super().__call__(filename, reader=self._reader(paths[0]))
        small = image.dtype in (torch.uint8, torch.int8, torch.int16)
        return image if small else convert_to_dst_type(image, image, dtype=torch.float32)[0]


class LoadVolumed(MapTransform):
    """Dictionary form of :class:`LoadVolume`.

    A key whose file is another key's too (an organ and a lesion label in one segmentation) is read
    once.

    Args:
        keys: paths, replaced by their volumes.
        allow_missing_keys: whether absent keys are passed over.
        series_uid: see :class:`LoadVolume`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        allow_missing_keys: bool = False,
        series_uid: str | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadVolume(series_uid=series_uid)

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
