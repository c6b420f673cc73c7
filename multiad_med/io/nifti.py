"""Study maps as NIfTI with the affine, spacing and units of the input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nibabel as nib
import numpy as np
from monai.config import PathLike
from monai.data import NibabelWriter
from monai.data.utils import to_affine_nd

from multiad_med.io.atomic import atomic_path

__all__ = ["StudyMapWriter"]


class StudyMapWriter(NibabelWriter):
    """MONAI's ``NibabelWriter``, which also keeps units and coordinate codes, and writes atomically.

    For ``SaveImaged(writer=StudyMapWriter, resample=False)``. A source without units, such as a
    DICOM series, is in mm.
    """

    def set_metadata(
        self, meta_dict: Mapping[str, Any] | None, resample: bool = True, **options: Any
    ) -> None:
        """Take affine, units and coordinate codes from the image's metadata."""
        super().set_metadata(meta_dict, resample=resample, **options)
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
        codes = [int(np.asarray(fields.get(name, 0))) for name in ("sform_code", "qform_code")]
        code = codes[0] or codes[1] or 1
        affine = to_affine_nd(3, np.asarray(self.affine, dtype=float))
        unit = float(fields.get("millimetres", 1.0))
        affine = np.diag([1 / unit, 1 / unit, 1 / unit, 1.0]) @ affine
        image.set_sform(affine, code=code)
        image.set_qform(affine, code=code)
        with atomic_path(filename) as temporary:
            nib.save(image, temporary)
