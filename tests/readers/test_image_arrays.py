"""CIFAR's and Fashion-MNIST's arrays: every pixel at its place, and nothing run or half-read."""

from __future__ import annotations

import gzip
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multiad_med.readers import ArchiveError
from multiad_med.readers.image_arrays import FASHION_CLASSES, find_arrays, unpack_arrays
from multiad_med.testing.layouts import (
    CIFAR10_CLASSES,
    make_cifar10,
    make_cifar100,
    make_fashion_mnist,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def unpack(source: Path) -> Path:
    arrays = find_arrays(source)
    assert arrays is not None
    return unpack_arrays(arrays, source.parent / "images")


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_fashion_mnist_keeps_pixels_and_numbers(tmp_path: Path, rng: np.random.Generator) -> None:
    make_fashion_mnist(tmp_path / "in", rng=rng, train=12, test=10)
    images = unpack(tmp_path / "in")
    stored = gzip.decompress((tmp_path / "in/train-images-idx3-ubyte.gz").read_bytes())
    first = np.frombuffer(stored, np.uint8)[16 : 16 + 784].reshape(28, 28)
    np.testing.assert_array_equal(read(images / "train/t-shirt_top/00000.png"), first)
    assert sorted(path.name for path in (images / "train/trouser").iterdir()) == [
        "00001.png",
        "00011.png",
    ]
    assert {path.name for path in (images / "test").iterdir()} == set(FASHION_CLASSES)


def test_idx_files_may_be_unpacked_already(tmp_path: Path, rng: np.random.Generator) -> None:
    make_fashion_mnist(tmp_path / "in/FashionMNIST/raw", rng=rng)
    for path in list((tmp_path / "in/FashionMNIST/raw").iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert len(list(unpack(tmp_path / "in").rglob("*.png"))) == 60


def test_cifar10_has_its_channels_as_planes(tmp_path: Path, rng: np.random.Generator) -> None:
    expected = np.random.default_rng(0).integers(0, 256, (10, 3072)).astype(np.uint8)
    make_cifar10(tmp_path / "in", rng=rng)
    images = unpack(tmp_path / "in")
    bird = read(images / "train/bird/00002.png")
    np.testing.assert_array_equal(bird.transpose(2, 0, 1).ravel(), expected[2])
    # Five batches of ten, numbered on.
    assert [path.name for path in sorted((images / "train/bird").iterdir())] == [
        "00002.png", "00012.png", "00022.png", "00032.png", "00042.png",
    ]  # fmt: skip
    assert {path.name for path in (images / "test").iterdir()} == set(CIFAR10_CLASSES)


def test_cifar100_lies_in_superclasses(tmp_path: Path, rng: np.random.Generator) -> None:
    make_cifar100(tmp_path / "in", rng=rng)
    images = unpack(tmp_path / "in")
    assert {path.relative_to(images).as_posix() for path in images.glob("test/*/*/*")} == {
        f"test/{place}.png"
        for place in (
            "fish/fish_0/00000", "fish/fish_1/00001", "people/people_0/00002", "people/people_1/00003",
            "fish/fish_0/00004", "fish/fish_1/00005", "people/people_0/00006", "people/people_1/00007",
        )
    }  # fmt: skip


def test_an_array_pickled_by_python_3_is_read_too(tmp_path: Path, rng: np.random.Generator) -> None:
    make_cifar10(tmp_path / "in", rng=rng)
    data = np.full((1, 3072), 7, np.uint8)
    with (tmp_path / "in/cifar-10-batches-py/test_batch").open("wb") as file:
        pickle.dump({"data": data, "labels": [3]}, file, protocol=4)
    assert (read(unpack(tmp_path / "in") / "test/cat/00000.png") == 7).all()


class Evil:
    """Would make a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.path,))


def test_a_pickle_runs_no_code(tmp_path: Path, rng: np.random.Generator) -> None:
    make_cifar10(tmp_path / "in", rng=rng)
    bad = tmp_path / "in/cifar-10-batches-py/data_batch_3"
    bad.write_bytes(pickle.dumps({"data": Evil(tmp_path / "run")}))
    with pytest.raises(ArchiveError, match=r"data_batch_3: .* asks for .*, which no array"):
        unpack(tmp_path / "in")
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize(
    "array", [np.array([object()]), np.zeros(1, "U3"), np.zeros((2, 3072), np.float32)]
)
def test_arrays_of_anything_but_bytes_are_refused(
    tmp_path: Path, rng: np.random.Generator, array: np.ndarray
) -> None:
    make_cifar10(tmp_path / "in", rng=rng)
    bad = tmp_path / "in/cifar-10-batches-py/test_batch"
    bad.write_bytes(pickle.dumps({"data": array, "labels": [0, 1]}))
    with pytest.raises(ArchiveError, match="test_batch"):
        unpack(tmp_path / "in")


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
@pytest.mark.parametrize("name", ["batches.meta", "data_batch_1", "test_batch"])
def test_truncated_cifar_is_named(
    tmp_path: Path, rng: np.random.Generator, name: str, keep: int
) -> None:
    make_cifar10(tmp_path / "in", rng=rng)
    bad = tmp_path / "in/cifar-10-batches-py" / name
    bad.write_bytes(bad.read_bytes()[:keep])
    with pytest.raises(ArchiveError, match=f"{name}: damaged"):
        unpack(tmp_path / "in")


def test_a_missing_batch_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    make_cifar10(tmp_path / "in", rng=rng)
    (tmp_path / "in/cifar-10-batches-py/data_batch_4").unlink()
    with pytest.raises(OSError, match="data_batch_4 cannot be read"):
        unpack(tmp_path / "in")


@pytest.mark.parametrize("labels", [[0], [0, 10], [0, -1], [0, 1.0], None])
def test_labels_that_fit_no_images_are_refused(
    tmp_path: Path, rng: np.random.Generator, labels: object
) -> None:
    make_cifar10(tmp_path / "in", rng=rng)
    bad = tmp_path / "in/cifar-10-batches-py/test_batch"
    bad.write_bytes(pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": labels}))
    with pytest.raises(ArchiveError, match="expected 2 labels from 0 to 9"):
        unpack(tmp_path / "in")


class _Addresses:
    """What a pickle could make of NumPy's array: objects whose addresses are bytes of the file."""

    def __reduce__(self) -> Any:
        return np.ndarray, ((1,), "O", b"A" * 8)


def test_a_pickle_makes_no_array_of_objects(tmp_path: Path, rng: np.random.Generator) -> None:
    make_cifar10(tmp_path / "in", rng=rng)
    meta = next((tmp_path / "in").rglob("batches.meta"))
    meta.write_bytes(pickle.dumps({"label_names": [_Addresses()]}))
    with pytest.raises(ArchiveError, match=r"batches\.meta"):
        unpack(tmp_path / "in")


def idx(*shape: int, values: int, kind: int = 8) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, kind, len(shape), *shape) + bytes(values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip", "damaged or truncated"),
        (gzip.compress(idx(2, 28, 28, values=1568))[:-9], "damaged or truncated"),
        (gzip.compress(idx(2, 28, 28, values=1567)), "it holds 1567 of 1568 values"),
        (gzip.compress(idx(2, 28, 28, values=1569)), "it holds more than 1568 values"),
        (gzip.compress(idx(2**31, 2**31, 28, values=9)), "claims an array"),
        (gzip.compress(idx(2, 784, values=1568)), "no idx file of bytes with 3 axes"),
        (gzip.compress(idx(2, 28, 28, values=1568, kind=13)), "no idx file of bytes"),
        (gzip.compress(b"\0"), "damaged or truncated"),
    ],
    ids=["text", "cut", "few", "many", "huge", "axes", "type", "short"],  # gzip writes the time
)
def test_faulty_idx_files_are_named(
    tmp_path: Path, rng: np.random.Generator, content: bytes, message: str
) -> None:
    make_fashion_mnist(tmp_path / "in", rng=rng)
    (tmp_path / "in/t10k-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(ArchiveError, match=rf"t10k-images-idx3-ubyte\.gz: .*{message}"):
        unpack(tmp_path / "in")


def test_folders_without_arrays_have_none(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    assert find_arrays(tmp_path) is None
    with pytest.raises(ArchiveError, match="neither CIFAR's"):
        unpack_arrays(tmp_path, tmp_path / "images")
