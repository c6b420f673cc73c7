"""The map of an image as files: float TIFF for programs, an overlay for people."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, cast

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey
from PIL import Image

from multiad_med.card import CalibratedNetwork
from multiad_med.data.study_results import OVERLAY, StudyResults
from multiad_med.inference.scores import SLICE_SCORES, study_scores
from multiad_med.readers.images import LoadImages
from multiad_med.scoring import decision
from multiad_med.utils.atomic import atomic_path
from multiad_med.utils.errors import InputError
from multiad_med.utils.tensors import plain_tensor
from multiad_med.visualize.colours import overlaid
from multiad_med.visualize.overlay_file import save_overlay

__all__ = ["SaveTiffMapd"]

TIFF = ".tiff"


class SaveTiffMapd(MapTransform):
    """Write an image's anomaly map, at the image's own size.

    - ``<name>.tiff``: float32 values. In an MVTec tree that is ``<category>/test/<defect>/<id>.tiff``,
      where MVTec's evaluation code looks for maps.
    - ``<name>_anomaly.png``: the map's heat over the image, a line around what reaches 0.5; below
      it the score, the verdict and the colours of the map.

    Args:
        keys: the calibrated map ``(1, H, W, 1)``, one key; its metadata name the image's file. Its
            scores are those of :class:`ScoreSlicesd`.
        results: where they go.
    """

    def __init__(self, keys: KeysCollection, *, results: StudyResults) -> None:
        super().__init__(keys)
        self.results = results
        self.load = LoadImages(colour=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write both files.

        Raises:
            InputError: when the map differs in size from the image's file.
        """
        result = dict(data)
        image = result[self.first_key(result)]
        source = str(image.meta[ImageMetaKey.FILENAME_OR_OBJ])
        plain = plain_tensor(image)
        anomaly_map = plain[0, :, :, 0].float().numpy(force=True)
        # The file again: what the network saw was resized and perhaps brightened.
        pixels = np.asarray(self.load(source))[..., 0].transpose(1, 2, 0)
        if pixels.shape[:2] != anomaly_map.shape:
            raise InputError(
                f"{source}: a map of {anomaly_map.shape} (rows, columns) for an image of "
                f"{pixels.shape[:2]}."
            )
        np.rint(pixels * np.float32(255), out=pixels)
        shown = overlaid(pixels.astype(np.uint8), anomaly_map)
        with atomic_path(self.results.path(source, TIFF)) as temporary:
            Image.fromarray(anomaly_map).save(temporary)
        network = cast(CalibratedNetwork, self.results.network)
        scores = study_scores(result[SLICE_SCORES], image.affine, network=network, oriented=False)
        save_overlay(self.results.path(source, OVERLAY), shown, decision(scores))
        return result
