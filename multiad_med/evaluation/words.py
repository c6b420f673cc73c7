"""Names of the parts of an evaluated set: of volumes, or of images."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Words"]


@dataclass(frozen=True)
class Words:
    """Nouns for texts about an evaluation, in the singular; all take an s in the plural.

    Attributes:
        images: whether the studies are single images without a unit of length; else volumes.
        patients: whether images have patients; volumes always do.
    """

    images: bool = False
    patients: bool = True

    @property
    def slice(self) -> str:
        """Name of what is scored on its own."""
        return "image" if self.images else "slice"

    @property
    def lesion(self) -> str:
        """Name of a connected part of a mask."""
        return "abnormal region" if self.images else "lesion"

    @property
    def scan(self) -> str:
        """Name of what false positives are counted by."""
        return "image" if self.images else "scan"

    @property
    def patient(self) -> str:
        """Name of what intervals are resampled over."""
        return "patient" if self.patients else "image"

    def metrics(self) -> dict[str, str]:
        """Return the main metrics in order, each with its name in a text."""
        return {
            "image_auroc": f"{self.slice} AUROC",
            "image_ap": f"{self.slice} average precision",
            "pixel_auroc": "pixel AUROC",
            "pixel_ap": "pixel average precision",
            "foreground_pixel_auroc": "pixel AUROC in the foreground",
            "foreground_pixel_ap": "pixel average precision in the foreground",
            "aupro": "AUPRO (to 0.3)",
            "spro": "sPRO (to 0.05)",
            "best_dice": "best Dice (upper bound)",
            "dice": "Dice at the calibrated threshold",
            "froc_score": f"FROC score of {self.lesion}s",
            "patient_auroc": "patient AUROC",
            "patient_ap": "patient average precision",
        }

    def shown(self, name: str) -> str:
        """Return the name of a curve, a level or a count as it is shown."""
        if not self.images:
            return name
        if name in ("volume", "studies"):
            return "images"
        return name.replace("slices", "images").replace("lesion", self.lesion)

    def levels(self, names: list[str]) -> list[str]:
        """Return the calibration's levels that differ from each other.

        An image is slice and volume at once; it is judged as a volume.
        """
        hidden = {"slice"} if self.images else set()
        if not self.patients:
            hidden.add("patient")
        return [name for name in names if name not in hidden]
