"""Random scans with lesions, for tests."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Scan = tuple[Tensor, Tensor]


def random_scan(seed: int, *, levels: int = 8, shape: tuple[int, ...] = (7, 6, 5)) -> Scan:
    """Map with ties and mask with several lesions."""
    rng = np.random.default_rng(seed)
    truth = rng.random(shape) < rng.uniform(0.01, 0.3)
    truth[(0,) * len(shape)] = True
    return torch.from_numpy(rng.integers(0, levels, shape).astype(np.float32)), torch.from_numpy(
        truth
    )
