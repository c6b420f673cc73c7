"""Trivial baselines: scores that do not look for anomalies at all.

Where one does as well as a model, the test set rewards something other than finding lesions:
normal slices come from other heights of the body, lesions are simply bright, and the like.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from monai.networks.layers import GaussianFilter
from torch import Tensor

from multiad_med.evaluation.cases import Case
from multiad_med.evaluation.parts import Part
from multiad_med.evaluation.predictions import predicted_cases
from multiad_med.metrics import Ranking, StreamingRanking

__all__ = ["BASELINE_METRICS", "Baselines", "baseline_note", "baselines_of"]

BASELINE_METRICS = ("image_auroc", "image_ap", "foreground_pixel_auroc", "foreground_pixel_ap")

_SIGMA = 4.0
_SLICES = 16  # at a time, as smoothing copies them several times
_PIXELWISE = ("intensity", "local standard deviation")


def _better_direction(scores: Tensor, labels: Tensor) -> Ranking:
    """Return the ranking by the scores or by their negatives, whichever separates better."""
    up, down = Ranking(scores, labels), Ranking(-scores, labels)
    return down if down.auroc > up.auroc else up


class Baselines:
    """Collect the baselines' scores study by study, in memory that does not grow with pixels.

    - *intensity*: the image itself, smoothed with a Gaussian of 4 pixels inside the foreground, so
      that its border is neither dark nor bright; an image's score is the largest value there.
    - *local standard deviation*: of the intensities under the same Gaussian; score likewise.
    - *foreground area*: pixels of the foreground.
    - *slice position*: place of the slice between the volume's first and last, or its distance
      from the middle; not where every study is a single slice.

    A baseline has no sign, so each is taken in the direction that separates better on these data.
    """

    def __init__(self) -> None:
        self._pixels = {(name, sign): StreamingRanking() for name in _PIXELWISE for sign in (1, -1)}
        self._slices: dict[tuple[str, int], list[Tensor]] = {}
        self._labels: list[Tensor] = []
        self._any_pixels = False
        self._is_single = True
        self._smooth = GaussianFilter(2, _SIGMA)

    def update(self, case: Case) -> None:
        """Add a case."""
        highest: dict[tuple[str, int], list[Tensor]] = {key: [] for key in self._pixels}
        lowest = dict.fromkeys(self._pixels, math.inf)
        for start in range(0, len(case.image), _SLICES):
            part = slice(start, start + _SLICES)
            inside, known = case.foreground[part], case.masked[part]
            counted = inside & known[:, None, None]
            labels = case.label[part][counted]
            for name, values in zip(
                _PIXELWISE, self._smoothed(case.image[part], inside), strict=True
            ):
                for sign in (1, -1):
                    signed = sign * values
                    if len(labels):
                        self._any_pixels = True
                        self._pixels[name, sign].update(signed[counted], labels)
                    peaks = signed.masked_fill(~inside, -math.inf).flatten(1).amax(dim=1)
                    highest[name, sign].append(peaks)
                    lowest[name, sign] = min(lowest[name, sign], float(signed.min()))
        for (name, sign), peaks_of_parts in highest.items():
            peaks = torch.cat(peaks_of_parts)
            self._add(name, sign, peaks.nan_to_num(neginf=lowest[name, sign]))
        self._add("foreground area", 1, case.foreground.flatten(1).sum(dim=1).float())
        if len(case.numbers) > 1:
            self._is_single = False
            span = (case.numbers - case.numbers[0]) / (case.numbers[-1] - case.numbers[0])
        else:
            span = torch.full((len(case.numbers),), 0.5)
        self._add("slice position", 1, span.float())
        self._add("slice position", 2, (span - 0.5).abs().float())
        self._labels.append(case.abnormal.clone())

    def _smoothed(self, image: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """Return local mean and standard deviation of slices ``(n, X, Y)`` inside the foreground."""
        image, inside = image[:, None].float(), inside[:, None]
        share = self._smooth(inside.float()).clamp(min=1e-6)
        mean = self._smooth(image * inside) / share
        deviation = (self._smooth(image**2 * inside) / share - mean**2).clamp(min=0).sqrt()
        return mean[:, 0], deviation[:, 0]

    def _add(self, name: str, form: int, scores: Tensor) -> None:
        self._slices.setdefault((name, form), []).append(scores)

    def metrics(self) -> dict[str, dict[str, float]]:
        """Return each baseline's ``image_auroc`` and ``image_ap``; of two also ``foreground_pixel_*``."""
        labels = torch.cat(self._labels)
        result: dict[str, dict[str, float]] = {}
        for (name, _), parts in self._slices.items():
            ranking = _better_direction(torch.cat(parts), labels)
            found = {"image_auroc": ranking.auroc, "image_ap": ranking.average_precision}
            if name not in result or found["image_auroc"] > result[name]["image_auroc"]:
                result[name] = found
        if self._is_single:
            del result["slice position"]
        for name in _PIXELWISE if self._any_pixels else ():
            rankings = [self._pixels[name, sign] for sign in (1, -1)]
            best = max(rankings, key=lambda r: -1.0 if math.isnan(r.auroc) else r.auroc)
            result[name] |= {
                "foreground_pixel_auroc": best.auroc,
                "foreground_pixel_ap": best.average_precision,
            }
        return result


class _Blind:
    """A predictor that sees nothing, to read the cases of a cache."""

    def predict(self, images: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
        """Return maps and scores of 0."""
        return torch.zeros_like(foreground, dtype=torch.float32), torch.zeros(len(images))


def baselines_of(
    cache: str | Path, *, part: Part | str = Part.ALL, categories: Sequence[str] | None = None
) -> dict[str, dict[str, float]]:
    """Return :meth:`Baselines.metrics` of a cache's test slices.

    Args:
        cache: folder of prepared slices.
        part, categories: see :func:`multiad_med.evaluation.predictions.predicted_cases`.
    """
    baselines = Baselines()
    for case in predicted_cases(_Blind(), cache, part=part, categories=categories):
        baselines.update(case)
    return baselines.metrics()


def baseline_note(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Return a sentence with the metrics of :func:`baselines_of`, to stand below a table."""
    parts = [
        f"{baseline} " + ", ".join(f"{values[n]:.3f}" for n in BASELINE_METRICS if n in values)
        for baseline, values in metrics.items()
    ]
    return (
        "Trivial baselines on the same slices (image AUROC, image AP; then AUROC and AP of pixels in the "
        f"foreground): {'; '.join(parts)}.\n"
    )
