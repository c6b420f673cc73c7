"""Study maps as NIfTI with the affine, spacing and units of the input."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import DtypeLike, KeysCollection, PathLike
from monai.data import ImageWriter, NibabelWriter
from monai.data.utils import to_affine_nd
from monai.transforms import SaveImaged
from monai.utils import ImageMetaKey
from numpy.typing import NDArray

from multiad_med.data.study_results import StudyResults
from multiad_med.utils.atomic import atomic_path
from multiad_med.utils.nifti_files import save_nifti

__all__ = ["BScanMapWriter", "SaveImageMapd", "StudyMapWriter"]


# Both forms that place voxels in space; programs follow either.
_FORMS = (
    "qform_code",
    "quatern_b",
    "quatern_c",
    "quatern_d",
    "qoffset_x",
    "qoffset_y",
    "qoffset_z",
    "sform_code",
    "srow_x",
    "srow_y",
    "srow_z",
)


class StudyMapWriter(NibabelWriter):
    """MONAI's ``NibabelWriter``, which keeps the source's place in space, and writes atomically.

    For ``SaveImaged(writer=StudyMapWriter, resample=False)``. A map on the grid of its NIfTI source has
    both forms of the source's header (qform and sform), with their codes, as they are: programs differ
    in which of them they follow, and in what they make of a file that has neither. On another grid both
    forms are the map's own. A source without units, such as a DICOM series, is in mm.
    """

    def set_metadata(
        self, meta_dict: Mapping[str, Any] | None, resample: bool = True, **options: Any
    ) -> None:
        """Take affine, units and both forms from the image's metadata."""
        if resample:
            super().set_metadata(meta_dict, resample=resample, **options)
        else:
            # MONAI prepares to resample all the same, taking the data without its channel for 2D,
            # and fails where the first two axes do not span the plane, as in a sagittal scan.
            _, self.affine, _ = self.get_meta_info(meta_dict)
        self.header_fields = dict(meta_dict or {})

    def write(self, filename: PathLike, verbose: bool = False, **obj_kwargs: Any) -> None:
        """Write the map under a temporary name, then rename it."""
        image = self.create_backend_obj(
            self.data_obj, affine=self.affine, dtype=self.output_dtype, **obj_kwargs
        )
        fields = self.header_fields
        if "xyzt_units" in fields:
            image.header["xyzt_units"] = int(np.asarray(fields["xyzt_units"]))
        else:
            image.header.set_xyzt_units("mm")
        affine = to_affine_nd(3, np.asarray(self.affine, dtype=float))
        if self._on_source_grid(affine, image.shape):
            for name in _FORMS:
                image.header[name] = np.asarray(fields[name])
            # The first of pixdim is the qform's handedness.
            sizes = np.asarray(fields.get("original_pixdim", fields["pixdim"]))
            image.header["pixdim"][:4] = sizes[:4]
            image = type(image)(image.dataobj, None, image.header)
        else:
            codes = [int(np.asarray(fields.get(name, 0))) for name in ("sform_code", "qform_code")]
            code = codes[0] or codes[1] or 1
            unit = float(fields.get("millimetres", 1.0))
            affine = np.diag([1 / unit, 1 / unit, 1 / unit, 1.0]) @ affine
            image.set_sform(affine, code=code)
            image.set_qform(affine, code=code)
        with atomic_path(filename) as temporary:
            save_nifti(image, temporary)

    def _on_source_grid(self, affine: NDArray[np.floating], shape: Sequence[int]) -> bool:
        """Tell whether the map lies voxel by voxel on a source that was NIfTI."""
        fields = self.header_fields
        source = fields.get("original_affine")
        if source is None or not all(name in fields for name in (*_FORMS, "pixdim")):
            return False
        known = np.asarray(fields.get("spatial_shape", shape))[:3]
        if list(known) != list(shape[: len(known)]):
            return False
        difference = np.abs(to_affine_nd(3, np.asarray(source, dtype=float)) - affine).max()
        return bool(difference <= 1e-3 * np.linalg.norm(affine[:3, :3], axis=0).min())


class BScanMapWriter(StudyMapWriter):
    """Maps of B-scans ``(depth, width, B-scan)`` as NIfTI stores images: columns, rows, B-scans.

    The map of a NIfTI volume then lies on its file's own grid; see
    :class:`multiad_med.readers.LoadBScans`.
    """

    def write(self, filename: PathLike, verbose: bool = False, **obj_kwargs: Any) -> None:
        """Write the map, its first two axes exchanged in the array and in the affine."""
        self.data_obj = np.swapaxes(np.asarray(self.data_obj), 0, 1)
        self.affine = np.asarray(self.affine, dtype=float)[:, [1, 0, 2, 3]]
        super().write(filename, verbose, **obj_kwargs)


class SaveImageMapd(SaveImaged):
    """MONAI's ``SaveImaged`` with the names of :class:`StudyResults` and the writer's own errors.

    ``SaveImaged`` catches whatever its writer raises; on a full disk it says that no suitable
    writer was found.

    Args:
        keys: maps ``(1, ...)`` on the source grid, whose metadata name the source file.
        results: where they go.
        end: of the files' names, see :meth:`StudyResults.path`.
        output_dtype: of the voxels.
        writer: class, or its dotted name.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        results: StudyResults,
        end: str,
        output_dtype: DtypeLike = "float32",
        writer: type[ImageWriter] | str = StudyMapWriter,
    ) -> None:
        super().__init__(keys, writer=writer, output_dtype=output_dtype, resample=False)
        self.results = results
        self.end = end

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write each key's map.

        Raises:
            OSError: when it cannot be written, such as on a full disk; nothing is left then.
        """
        writer_class: Any = self.saver.writers[0]
        for key in self.key_iterator(dict(data)):
            image = data[key]
            writer = writer_class(**self.saver.init_kwargs)
            writer.set_data_array(image, **self.saver.data_kwargs)
            writer.set_metadata(image.meta, **self.saver.meta_kwargs)
            source = str(image.meta[ImageMetaKey.FILENAME_OR_OBJ])
            writer.write(self.results.path(source, self.end), verbose=False)
        return dict(data)
