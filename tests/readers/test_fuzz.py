"""Whatever is wrong with a file, the answer is an error that names it, at once and in little memory."""

from __future__ import annotations

import gzip
import io
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from multiad_med.data import StudyError, study_errors
from multiad_med.readers import LoadImageMasks, LoadImages, LoadVolume

pytestmark = pytest.mark.slow

TRIES = 1000
SLOWEST = 2.0  # seconds; a whole file takes about 1 ms
LARGEST = 32 << 20  # bytes


def volume() -> bytes:
    rng = np.random.default_rng(0)
    return nib.Nifti1Image(
        rng.integers(-99, 99, (9, 8, 7)).astype(np.int16), np.diag([1, 2, 3, 1])
    ).to_bytes()


def png(mode: str) -> bytes:
    rng = np.random.default_rng(0)
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (16, 12, 3)).astype(np.uint8)).convert(mode).save(
        stream, "PNG"
    )
    return stream.getvalue()


def damaged(content: bytes, seed: int) -> Iterator[bytes]:
    """Flipped bytes (one to four, half of them among the first 400), and truncations."""
    rng = np.random.default_rng(seed)
    for index in range(TRIES):
        broken = bytearray(content)
        for _ in range(rng.integers(1, 5)):
            end = min(400, len(broken)) if index % 2 else len(broken)
            broken[rng.integers(end)] ^= int(rng.integers(1, 256))
        yield bytes(broken)
    for length in rng.integers(0, len(content), TRIES):
        yield content[:length]


def outcome(load: Callable[[Path], torch.Tensor], path: Path) -> str:
    """Read a file; it is either read, or refused by an error of ours that names it."""
    refusal = None
    try:
        with study_errors({"image": str(path)}):
            result = load(path)
    except StudyError as error:
        refusal = error.__cause__
    if refusal is not None:
        assert isinstance(refusal, ValueError), repr(refusal)
        assert str(path) in str(refusal), f"does not name the file: {refusal!r}"
        return "refused"
    assert result.numel() * result.element_size() <= LARGEST
    return "read"


@pytest.mark.parametrize(
    ("name", "content", "load"),
    [
        ("v.nii", volume(), LoadVolume()),
        ("v.nii.gz", gzip.compress(volume(), mtime=0), LoadVolume()),
        ("grey.png", png("L"), LoadImages()),
        ("colour.png", png("RGB"), LoadImages()),
        ("palette.png", png("P"), LoadImageMasks()),
    ],
)
def test_damaged_files_are_refused_by_name(
    tmp_path: Path, name: str, content: bytes, load: Callable[[Path], torch.Tensor]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert outcome(load, path) == "read"
    results, slowest = [], 0.0
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for broken in damaged(content, seed=1):
            path.write_bytes(broken)
            started = time.perf_counter()
            results.append(outcome(load, path))
            slowest = max(slowest, time.perf_counter() - started)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(results) == 2 * TRIES
    # A PNG can spare its end (IEND), the others no byte.
    cut = results[TRIES:].count("refused")
    assert cut >= 0.8 * TRIES if name.endswith("png") else cut == TRIES
    assert results.count("refused") > TRIES
    assert slowest < SLOWEST
    assert peak < LARGEST
