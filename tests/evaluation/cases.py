"""Cases of an evaluation and thresholds for them, for tests."""

from __future__ import annotations

from multiad_med.evaluation import Case, Thresholds
from multiad_med.scoring import Level, NormalScores
from multiad_med.testing.slice_caches import volume_case

# Of 19 held-out normals none scores above 0.49: what scores more is anomalous at a rate of 5 %.
LEVELS = Thresholds(
    pixel=0.5,
    pixel_rate=0.01,
    levels={level: NormalScores((0.49,) * 19, 0.05) for level in Level},
)


def volume_cases(count: int = 4) -> list[Case]:
    return [
        volume_case(f"p{i}_t1", lesion=i % 2 == 0, seed=i, spacing=(1.0, 2.0, 3.0))
        for i in range(count)
    ]
