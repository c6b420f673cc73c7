"""What is promised of verdicts, on simulated cohorts of normals through scoring alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from multiad_med.card import ModelCard
from multiad_med.inference import study_scores
from multiad_med.scoring import Level, NormalScores
from multiad_med.testing.networks import tiny_multiad

VOLUMES, SLICES, DRAWS, RATE = 100, 100, 200, 0.05


def scores_of_normals(
    volumes: int, correlation: float, generator: torch.Generator, *, slices: int = SLICES
) -> Tensor:
    """Slice scores ``(volumes, slices)`` in (0, 1) whose normal deviates correlate within a volume."""
    common = torch.randn(volumes, 1, generator=generator)
    own = torch.randn(volumes, slices, generator=generator)
    return torch.special.ndtr(math.sqrt(correlation) * common + math.sqrt(1 - correlation) * own)


def observed_rates(
    correlation: float, *, volumes: int = VOLUMES, draws: int = DRAWS
) -> dict[Level, tuple[float, float]]:
    """Mean false-positive rate over draws of calibration and test units, and its standard error."""
    generator = torch.Generator().manual_seed(round(10 * correlation))
    found: dict[Level, list[float]] = {Level.SLICE: [], Level.VOLUME: []}
    for _ in range(draws):
        held_out, new = (
            scores_of_normals(count, correlation, generator) for count in (volumes, VOLUMES)
        )
        for level, normals, units in (
            (Level.SLICE, held_out.flatten(), new.flatten()),
            (Level.VOLUME, held_out.amax(dim=1), new.amax(dim=1)),
        ):
            flagged = NormalScores(tuple(normals.tolist()), RATE).flagged(units)
            found[level].append(float(flagged.float().mean()))
    return {
        level: (float(np.mean(rates)), float(np.std(rates, ddof=1) / math.sqrt(draws)))
        for level, rates in found.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_normals_are_called_anomalous_as_often_as_promised(correlation: float) -> None:
    """Volumes by the volumes' own threshold, however alike their slices are."""
    for level, (mean, error) in observed_rates(correlation).items():
        units = VOLUMES * (SLICES if level is Level.SLICE else 1)
        nominal = math.floor(RATE * (units + 1)) / (units + 1)
        print(f"correlation {correlation}, {level}: {mean:.4f} ± {1.96 * error:.4f}, {nominal:.4f}")
        assert abs(mean - nominal) < 2.58 * error


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_a_threshold_of_slices_would_call_far_more_volumes_anomalous(correlation: float) -> None:
    """The fault that the levels mend: its size depends on how alike a volume's slices are."""
    generator = torch.Generator().manual_seed(0)
    held_out, new = (scores_of_normals(VOLUMES, correlation, generator) for _ in range(2))
    flagged = NormalScores(tuple(held_out.flatten().tolist()), RATE).flagged(new.amax(dim=1))
    assert float(flagged.float().mean()) > 0.2


def test_the_json_of_a_study_has_the_verdicts_of_its_levels() -> None:
    generator = torch.Generator().manual_seed(0)
    held_out, new = (scores_of_normals(VOLUMES, 0.5, generator) for _ in range(2))
    network = tiny_multiad()
    levels = {
        Level.SLICE: NormalScores(tuple(held_out.flatten().tolist()), RATE),
        Level.VOLUME: NormalScores(tuple(held_out.amax(dim=1).tolist()), RATE),
    }
    network.card = ModelCard(levels=levels)
    studies = [study_scores(volume, np.eye(4), network=network) for volume in new]
    volumes, slices = levels[Level.VOLUME], levels[Level.SLICE]
    assert [s["volume_flagged"] for s in studies] == volumes.flagged(new.amax(dim=1)).tolist()
    assert [s["volume_p_value"] for s in studies] == volumes.p_values(new.amax(dim=1)).tolist()
    assert [[one["flagged"] for one in s["slices"]] for s in studies] == [
        slices.flagged(volume).tolist() for volume in new
    ]
    assert 0 < sum(s["volume_flagged"] for s in studies) < 15
