"""OCT volumes: B-scans upright, one after the other, from every form of file."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import ensure_tuple, optional_import

from multiad_med.datasets.layout_files import natural_key
from multiad_med.readers.images import LoadImageMasks, LoadImages
from multiad_med.readers.load_volume import LoadVolume
from multiad_med.utils.errors import InputError, MultiADError, reader_errors
from multiad_med.utils.suffixes import is_image
from multiad_med.utils.tensors import plain_tensor

__all__ = ["LoadBScans", "LoadBScansd", "OctError"]

_HEIDELBERG = (".vol", ".e2e")


class OctError(MultiADError, ValueError):
    """A file holds no OCT volume that can be read."""


def _heidelberg(path: Path) -> tuple[torch.Tensor, list[float] | None]:
    """Read a Heidelberg Engineering volume by eyepy; with pixel size in mm (depth, width, B-scan).

    Eyepy finds no pixel size in ``.e2e`` files.
    """
    eyepy, available = optional_import("eyepy")
    if not available:
        raise OctError(
            f"{path}: Heidelberg's formats are read by the package eyepy, which is not installed. "
            "Run `pip install 'multiad-med[oct]'`, or export the volume as DICOM or images."
        )
    with reader_errors(path, OctError, "not a readable Heidelberg volume"):
        if path.suffix.lower() == ".vol":
            volumes = [eyepy.import_heyex_vol(str(path))]
        else:
            with eyepy.io.HeE2eReader(str(path)) as reader:
                volumes = reader.volumes
        data = [np.asarray(volume.data, dtype=np.float32) for volume in volumes]
    if len(data) != 1:
        raise OctError(
            f"{path}: expected one volume of B-scans, found {len(data)}. Export each as a file of its "
            "own, such as .vol or DICOM."
        )
    volume, spacing = volumes[0], None
    if volume.scale_unit == "mm":
        spacing = [float(volume.scale_y), float(volume.scale_x), float(volume.scale_z)]
    return torch.from_numpy(data[0]).permute(1, 2, 0)[None], spacing


def _images_in(folder: Path) -> list[Path]:
    """Return the images directly in a folder, in the natural order of their names."""
    visible = (p for p in folder.iterdir() if not p.name.startswith("."))
    return sorted(filter(is_image, visible), key=natural_key)


class LoadBScans(Transform):
    """Read an OCT volume with its B-scans upright: rows are depth, columns run along the scan.

    - A list of images, B-scans in order, or a folder of them, in the natural order of their names:
      in [0, 1].
    - ``.npy``: ``(B-scan, depth, width)``.
    - NIfTI and multi-frame DICOM (ophthalmic tomography): columns, rows, B-scans, as these formats
      store images, with their spacing.
    - Heidelberg ``.vol`` and ``.e2e``: by the package eyepy, if it is installed.

    The last three keep their values; :class:`monai.transforms.ScaleIntensity` maps them to [0, 1].

    Args:
        mask: whether the files are label masks, whose values are kept.
        spacing: pixel size in mm (depth, width, B-scan) for files that do not state it.
    """

    def __init__(self, *, mask: bool = False, spacing: Sequence[float] | None = None) -> None:
        if spacing is not None and (len(spacing) != 3 or min(spacing) <= 0):
            raise InputError(
                f"spacing must be three positive sizes in mm (depth, width, B-scan), got {spacing}."
            )
        self.mask = mask
        self.spacing = None if spacing is None else [float(s) for s in spacing]
        self.volume = LoadVolume()
        self.images = (
            LoadImageMasks(stack=True, keep_values=True) if mask else LoadImages(colour=False)
        )

    def __call__(
        self, filename: Sequence[str | os.PathLike[str]] | str | os.PathLike[str]
    ) -> torch.Tensor:
        """Read a volume ``(1, depth, width, B-scan)`` with the affine of its axes, to mm.

        :class:`multiad_med.inference.BScanMapWriter` writes maps back as NIfTI stores images: columns,
        rows, B-scans, with the affine of the file or, where it has none, of the spacing.

        Raises:
            OctError: when the file holds no OCT volume.
            InputError: when a file cannot be read; see :class:`LoadVolume`, :class:`LoadImages`.
        """
        path = Path(ensure_tuple(filename)[0])
        spacing = self.spacing
        meta: dict[str, Any] = {}
        grid: torch.Tensor | None = None  # of (width, depth, B-scan), where the file states it
        if path.is_dir() and (inside := _images_in(path)):
            volume = self.images(inside)
        elif is_image(path):
            volume = self.images(filename)
        elif path.suffix.lower() in _HEIDELBERG:
            volume, stated = _heidelberg(path)
            spacing = stated or spacing
        else:
            image = self.volume(filename)
            plain = plain_tensor(image)
            if plain.ndim != 4 or plain.shape[0] != 1:
                raise OctError(f"{path}: expected one volume of B-scans, got {tuple(plain.shape)}.")
            if path.suffix.lower() == ".npy":
                volume = plain.permute(0, 2, 3, 1)
            else:
                volume = plain.transpose(1, 2)
                grid, meta = image.affine, image.meta
        if self.mask:
            if int(volume.min()) < 0 or int(volume.max()) > 255:
                raise OctError(
                    f"{path}: labels are whole numbers from 0 to 255, got {int(volume.min())} to "
                    f"{int(volume.max())}."
                )
            volume = volume.to(torch.uint8)
        if grid is None:
            depth, width, step = spacing or [1.0] * 3
            grid = torch.diag(torch.tensor([width, depth, step, 1.0], dtype=torch.float64))
        result = MetaTensor(volume, affine=grid[:, [1, 0, 2, 3]], meta=meta)
        result.meta["filename_or_obj"] = str(path)
        return result


class LoadBScansd(MapTransform):
    """Dictionary form of :class:`LoadBScans`, checking masks against their volume.

    Args:
        keys: the volume, one key.
        label_key: its mask, read where present; none is never read.
        spacing: see :class:`LoadBScans`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        label_key: str | None = "label",
        spacing: Sequence[float] | None = None,
    ) -> None:
        super().__init__(keys)
        self.label_key = label_key
        self.load = LoadBScans(spacing=spacing)
        self.load_mask = LoadBScans(mask=True, spacing=spacing)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read the volume and its mask.

        Raises:
            OctError: when their shapes differ.
        """
        result = dict(data)
        key = self.first_key(result)
        result[key] = self.load(result[key])
        if self.label_key is not None and self.label_key in result:
            source = ensure_tuple(result[self.label_key])[0]
            mask = self.load_mask(result[self.label_key])
            if mask.shape != result[key].shape:
                raise OctError(
                    f"{source}: a mask of shape {tuple(mask.shape[1:])} for a volume of "
                    f"{tuple(result[key].shape[1:])} (depth, width, B-scans)."
                )
            result[self.label_key] = mask
        return result
