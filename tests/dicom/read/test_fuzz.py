"""Damaged DICOM files: a named error or a volume, never anything else."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import FileDataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from multiad_med.dicom.read.geometry import DicomSeriesError
from multiad_med.dicom.read.reader import DicomSeriesReader
from multiad_med.dicom.read.series import find_series
from tests.dicom_files import compressed, ct_slices, multiframe, random_volume, save

resource = pytest.importorskip("resource", reason="memory is measured on POSIX only")

SECONDS = 20
MEGABYTES = 256


def single(syntax: str | None = None) -> FileDataset:
    slices = ct_slices(random_volume(shape=(1, 32, 40)))
    return compressed(slices, syntax)[0] if syntax else slices[0]


def several(syntax: str | None = None) -> FileDataset:
    positions = [(0.0, 0.0, 5.0 * k) for k in range(4)]
    dataset = multiframe(random_volume(shape=(4, 32, 40)), positions=positions)
    return compressed([dataset], syntax)[0] if syntax else dataset


@contextmanager
def within_memory() -> Iterator[None]:
    """Decoders allocate outside Python, so the process's peak is what counts."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MEGABYTES * 1024


def damage(data: bytes, rng: random.Random) -> bytes:
    """Flip one to eight bytes, mostly in the header, or cut the end off."""
    if rng.random() < 0.2:
        return data[: rng.randrange(len(data))]
    damaged = bytearray(data)
    reach = len(data) if rng.random() < 0.3 else min(len(data), 1200)
    for _ in range(rng.randint(1, 8)):
        damaged[rng.randrange(reach)] = rng.randrange(256)
    return bytes(damaged)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "syntax", "rounds"),
    [
        (single, None, 1000),
        (several, None, 300),
        (single, RLELossless, 200),
        (single, JPEGLSLossless, 200),
        (single, JPEG2000Lossless, 200),
        (several, RLELossless, 100),
        (several, JPEGLSLossless, 100),
        (several, JPEG2000Lossless, 100),
    ],
)
def test_damaged_files_give_a_named_error_or_a_volume(
    tmp_path: Path, make: Callable[..., FileDataset], syntax: str | None, rounds: int
) -> None:
    path = save([make(syntax)], tmp_path) / "im000.dcm"
    data, rng, reader = path.read_bytes(), random.Random(0), DicomSeriesReader()
    outcomes: Counter[str] = Counter()
    start = time.monotonic()
    with within_memory():
        for _ in range(rounds):
            path.write_bytes(damage(data, rng))
            find_series(tmp_path)
            try:
                outcomes[str(reader.get_data(reader.read(path))[0].ndim)] += 1
            except DicomSeriesError as error:
                outcomes["named" if str(path) in str(error) else str(error)] += 1
    assert set(outcomes) == {"3", "named"}
    assert time.monotonic() - start < SECONDS


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize(
    ("keyword", "value"),
    [("Rows", 65535), ("Columns", 65535), ("NumberOfFrames", 10**11), ("NumberOfFrames", -1)],
)
def test_absurd_sizes_are_refused_before_anything_is_allocated(
    tmp_path: Path, syntax: str | None, keyword: str, value: int
) -> None:
    dataset = single(syntax)
    setattr(dataset, keyword, value)
    if keyword == "Rows":
        dataset.Columns = 65535
    path = save([dataset], tmp_path) / "im000.dcm"
    reader = DicomSeriesReader()
    with within_memory(), pytest.raises(DicomSeriesError, match=r"im000\.dcm"):
        reader.get_data(reader.read(path))


@pytest.mark.parametrize(
    ("syntax", "marker", "offset"),
    [(JPEGLSLossless, b"\xff\xf7", 5), (JPEG2000Lossless, b"\xff\x4f\xff\x51", 8)],
)
def test_absurd_sizes_in_the_compressed_frame_are_refused_before_decoding(
    tmp_path: Path, syntax: str, marker: bytes, offset: int
) -> None:
    path = save([single(syntax)], tmp_path) / "im000.dcm"
    data = bytearray(path.read_bytes())
    place = data.index(marker) + offset
    data[place : place + 4] = b"\x7f\xff\x7f\xff"
    path.write_bytes(data)
    reader = DicomSeriesReader()
    with within_memory(), pytest.raises(DicomSeriesError, match="frame 1 is compressed with shape"):
        reader.get_data(reader.read(path))
