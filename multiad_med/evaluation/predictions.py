"""From prepared slices and a detector to cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from monai.data import DataLoader
from torch import Tensor
from torch.utils.data import Subset

from multiad_med.data import SliceCache, joined_name
from multiad_med.data.slice_cache import CacheError, study_about, study_path
from multiad_med.evaluation.cases import Case
from multiad_med.evaluation.parts import Part, subjects_of_part
from multiad_med.networks import MultiAD
from multiad_med.scoring import image_scores

__all__ = ["Predictor", "joined_cases", "map_slices", "predicted_cases"]


class Predictor(Protocol):
    """Anything that maps slices."""

    def predict(self, images: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
        """Return maps and image scores ``(B,)``, the larger the more anomalous.

        Maps are ``(B, 1, H, W)``, or ``(B, 2, H, W)``, the second channel being of the whole image.

        Args:
            images: ``(B, C, H, W)`` in [0, 1].
            foreground: ``(B, 1, H, W)``, true inside.
        """


@torch.no_grad()
def map_slices(network: MultiAD, images: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
    """Return calibrated maps of a trained network, 0 outside the foreground, and the images' scores.

    Args:
        network: a calibrated one.
        images: ``(B, C, H, W)`` in [0, 1], where the network is.
        foreground: ``(B, 1, H, W)``, true inside.

    Returns:
        Maps ``(B, 1 or 2, H, W)`` in [0, 1), as the network's, and scores ``(B,)``, on the CPU.
    """
    maps = network.eval()(images).cpu()
    scores = image_scores(maps, foreground, fraction=float(network.score_fraction))
    return maps * foreground, scores


def _spacing(cache: SliceCache, study: str) -> tuple[float, float, float] | None:
    affine = study_about(study_path(cache.folder, study)).get("affine")
    if affine is None or cache.about.get("upright", False):
        return None
    x, y, z = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)
    return float(x), float(y), float(z)


def predicted_cases(
    detector: Predictor,
    cache: str | Path,
    *,
    split: str = "test",
    part: Part | str = Part.ALL,
    categories: Sequence[str] | None = None,
    batch_size: int = 16,
) -> Iterator[Case]:
    """Let a detector map the slices of a cache, study by study.

    Slices whose state is unsure are left out.

    Args:
        detector: what maps slices, fitted where it needs it.
        cache: folder of prepared slices.
        split: of the cache.
        part: which subjects; see :class:`Part`.
        categories: of the cache; none means all.
        batch_size: slices per call of the detector.

    Yields:
        One case per study, in the order of the cache; memory holds one study at a time.

    Raises:
        CacheError: when no slice is left.
    """
    slices = SliceCache(
        cache,
        split=split,
        states=["normal", "abnormal"],
        labels=True,
        categories=categories,
    )
    rows = slices.index
    subjects = subjects_of_part(rows, part)
    chosen = [i for i, row in enumerate(rows) if row["subject"] in subjects]
    if not chosen:
        raise CacheError(f"{cache}: no slice in part {part} of split {split!r}.")
    upright = bool(slices.about.get("upright", False))
    loader = DataLoader(Subset(slices, chosen), batch_size=batch_size)

    def predicted() -> Iterator[tuple[int, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]]:
        numbers = iter(chosen)
        for batch in loader:
            maps, scores = detector.predict(batch["image"], batch["foreground"])
            for image, foreground, label, anomaly_map, score in zip(
                batch["image"], batch["foreground"], batch["label"], maps, scores, strict=True
            ):
                yield (
                    next(numbers),
                    image.mean(dim=0),
                    foreground[0],
                    label[0],
                    anomaly_map[0].float().cpu(),
                    score.float().cpu(),
                    anomaly_map[1:].float().cpu().flatten(1).amax(dim=1),
                )

    def case_of(
        study: str, items: list[tuple[int, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]]
    ) -> Case:
        items.sort(key=lambda item: int(rows[item[0]]["slice"]))
        its = [rows[item[0]] for item in items]
        image, foreground, label, maps, scores, whole_scores = (
            torch.stack(part) for part in list(zip(*items, strict=True))[1:]
        )
        return Case(
            study=study,
            subject=its[0]["subject"],
            image=image,
            anomaly_map=maps,
            label=label,
            foreground=foreground,
            numbers=torch.tensor([int(row["slice"]) for row in its]),
            scores=scores,
            abnormal=torch.tensor([row["state"] == "abnormal" for row in its]),
            spacing=_spacing(slices, study),
            category=its[0]["category"],
            kind=its[0]["kind"],
            upright=upright,
            whole_scores=whole_scores[:, 0] if whole_scores.shape[1] else None,
        )

    # No name here holds a case, so that it is freed when its user drops it.
    for study, group in groupby(predicted(), key=lambda item: rows[item[0]]["study"]):
        yield case_of(study, list(group))


def joined_cases(
    detector: Predictor, caches: Mapping[str, Path], *, part: Part | str = Part.ALL
) -> Iterator[Case]:
    """Let a detector map the slices of several caches, named as by :class:`JoinedSlices`.

    Args:
        detector: see :func:`predicted_cases`.
        caches: folders of prepared slices by name.
        part: see :func:`predicted_cases`.

    Yields:
        See :func:`predicted_cases`; the category is the cache's name, with that of the case where the
        cache has several.

    Raises:
        CacheError: when no slice of a cache is left.
    """
    for name, folder in caches.items():
        several = len({row["category"] for row in SliceCache(folder, split="test").index}) > 1
        for case in predicted_cases(detector, folder, part=part):
            case.category = joined_name(name, case.category) if several else name
            case.study = joined_name(name, case.study)
            case.subject = joined_name(name, case.subject)
            yield case
            del case  # else it would stay until the next one is made
