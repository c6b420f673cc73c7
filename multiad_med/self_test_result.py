"""What a model's self-test found: which pseudo-anomalies it sees, and what it reacts to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any, Self

__all__ = ["Finding", "Reaction", "SelfTest"]

NEAR_CHANCE = 0.6
"""Below this AUROC next to nothing is found; 0.5 is chance."""

REACTS = 0.65
"""The AUROC of changed against unchanged normals from which a model is said to react.

If scores are normal and shift, it makes 14 % of normals exceed a threshold that 5 % exceeded.
"""


@dataclass(frozen=True)
class Finding:
    """How well pseudo-anomalies of a kind and a size are found.

    Attributes:
        kind: see :class:`multiad_med.transforms.PseudoAnomaly`.
        size: width as a fraction of the image's shorter side.
        slice_auroc: of slice scores, against held-out normals as they are.
        worst_auroc: the same against held-out normals under the nuisance that hurts most; below 0.5
            the nuisance raises scores more than the anomaly.
        pixel_auroc: of pixels inside against those outside, the mean over slices; None where no slice
            has both.
    """

    kind: str
    size: float
    slice_auroc: float
    worst_auroc: float
    pixel_auroc: float | None


@dataclass(frozen=True)
class Reaction:
    """How scores of normal slices rise with a change that is no anomaly.

    Attributes:
        nuisance: see :class:`multiad_med.transforms.Nuisance`.
        light: whether it is a change of light.
        auroc: of changed against unchanged slices; 0.5 is no reaction.
        flagged: share of the changed slices that are called anomalous; None without a threshold.
    """

    nuisance: str
    light: bool
    auroc: float
    flagged: float | None

    @property
    def reacts(self) -> bool:
        """Whether scores rise enough to flip verdicts; see ``REACTS``."""
        return self.auroc >= REACTS


@dataclass(frozen=True)
class SelfTest:
    """The result of :func:`multiad_med.training.self_test`.

    Attributes:
        images: number of held-out normal images (slices) that were used.
        flagged: share of them, unchanged, that is called anomalous; None without a threshold.
        findings: of every kind and size of pseudo-anomaly.
        reactions: to every nuisance.
    """

    images: int
    flagged: float | None
    findings: tuple[Finding, ...]
    reactions: tuple[Reaction, ...]

    @property
    def sizes(self) -> list[float]:
        """Sizes of the pseudo-anomalies, the smallest first."""
        return sorted({finding.size for finding in self.findings})

    @property
    def kinds(self) -> list[str]:
        """Kinds of pseudo-anomalies."""
        return list(dict.fromkeys(finding.kind for finding in self.findings))

    def slice_auroc(self, *, kind: str | None = None, size: float | None = None) -> float:
        """Return the mean AUROC of slice scores over findings of a kind, of a size, or over all.

        Args:
            kind: of the findings; without it, any.
            size: of the findings; without it, any.

        Raises:
            ValueError: when there are none.
        """
        return mean(finding.slice_auroc for finding in self._chosen(kind, size))

    def worst_auroc(self, *, kind: str | None = None, size: float | None = None) -> float:
        """Return the same as :meth:`slice_auroc`, under the nuisance that hurts each finding most."""
        return mean(finding.worst_auroc for finding in self._chosen(kind, size))

    def _chosen(self, kind: str | None, size: float | None) -> Iterator[Finding]:
        for finding in self.findings:
            if kind in (None, finding.kind) and size in (None, finding.size):
                yield finding

    @property
    def near_chance(self) -> bool:
        """Whether even the largest pseudo-anomalies are hardly found."""
        return self.slice_auroc(size=self.sizes[-1]) < NEAR_CHANCE

    @property
    def reacts_to_light(self) -> bool:
        """Whether scores of normal slices rise with a change of light."""
        return any(reaction.reacts for reaction in self.reactions if reaction.light)

    @property
    def summary(self) -> str:
        """Return one sentence: what is found, and what the model reacts to."""
        middle = [size for size in self.sizes if size in (0.02, 0.1)] or self.sizes[-1:]
        found = ", ".join(
            f"of {100 * size:g} %{' of the side' * first} with {'an AUROC of ' * first}"
            f"{self.slice_auroc(size=size):.2f} ({'under the worst change ' * first}"
            f"{self.worst_auroc(size=size):.2f})"
            for size, first in zip(middle, (True, False), strict=False)
        )
        reacts = {"light": self.reacts_to_light}
        reacts |= {r.nuisance: r.reacts for r in self.reactions if not r.light}
        told = ", to ".join(f"{name}: {'yes' if yes else 'no'}" for name, yes in reacts.items())
        return (
            f"Self-test on {self.images} held-out normal image{'s' * (self.images != 1)}: finds "
            f"pseudo-anomalies {found}; "
            f"reacts to {told}."
        )

    def warnings(self) -> Iterator[str]:
        """Yield what should worry the model's user, a sentence or two each."""
        if self.near_chance:
            size = self.sizes[-1]
            yield (
                f"Even pseudo-anomalies of {100 * size:g} % of the side are found with an AUROC of "
                f"{self.slice_auroc(size=size):.2f} only, which is near chance (0.5). Do not trust this "
                "model's verdicts: train longer, on more normal images, or with another preset."
            )
        if self.reacts_to_light:
            strongest = max((r for r in self.reactions if r.light), key=lambda r: r.auroc)
            flags = ""
            if strongest.flagged is not None and self.flagged is not None:
                flags = (
                    f"; {100 * strongest.flagged:.0f} % are called anomalous instead of "
                    f"{100 * self.flagged:.0f} %"
                )
            yield (
                f"The model reacts to light: in the self-test, normal images under the change "
                f"'{strongest.nuisance}' score higher than unchanged ones (AUROC {strongest.auroc:.2f}"
                f"{flags}). Other light can flip verdicts: keep it constant, calibrate anew when it "
                "changes (multiad calibrate), or try other fused stages."
            )

    def as_json(self) -> dict[str, Any]:
        """Return what a model's card keeps."""
        return {
            "images": self.images,
            "flagged": self.flagged,
            "findings": [asdict(finding) for finding in self.findings],
            "reactions": [asdict(reaction) for reaction in self.reactions],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the result that :meth:`as_json` gave."""
        return cls(
            images=content["images"],
            flagged=content["flagged"],
            findings=tuple(Finding(**finding) for finding in content["findings"]),
            reactions=tuple(Reaction(**reaction) for reaction in content["reactions"]),
        )
