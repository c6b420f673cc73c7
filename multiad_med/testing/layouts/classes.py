"""CIFAR, Fashion-MNIST and Intel's scenes: small pictures of classes, as arrays and in folders."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multiad_med.readers.image_arrays import FASHION_CLASSES
from multiad_med.testing.layouts.shapes import save_image

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def make_class_folders(
    folder: Path,
    *,
    rng: np.random.Generator,
    classes: Sequence[str] = ("cat", "dog", "ship"),
    train: int = 4,
    test: int = 2,
    size: int = 32,
) -> None:
    """Folders ``train/<class>`` and ``test/<class>`` of PNG files."""
    for part, count in (("train", train), ("test", test)):
        for name in classes:
            for index in range(count):
                image = rng.integers(0, 256, (size, size, 3))
                save_image(folder / part / name / f"{index:04d}.png", image)


def make_scenes(folder: Path, *, rng: np.random.Generator, size: int = 32) -> None:
    """Intel's scenes: ``seg_train/seg_train/<class>``, ``seg_test`` and ``seg_pred`` without classes."""
    for name in ("buildings", "forest", "glacier", "mountain", "sea", "street"):
        for part, count in (("seg_train", 3), ("seg_test", 1)):
            for index in range(count):
                image = rng.integers(0, 256, (size, size, 3))
                save_image(folder / part / part / name / f"{index}.jpg", image)
    save_image(folder / "seg_pred/seg_pred/3.jpg", rng.integers(0, 256, (size, size, 3)))


def make_cifar10(folder: Path, *, rng: np.random.Generator, images: int = 10) -> None:
    """CIFAR-10: ``batches.meta``, and ``data_batch_1`` to ``5`` and ``test_batch`` of so many images."""
    root = folder / "cifar-10-batches-py"
    _save_pickle(root / "batches.meta", {"label_names": list(CIFAR10_CLASSES)})
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        labels = [n % 10 for n in range(images)]
        _save_pickle(root / name, {"data": _rows(images, rng), "labels": labels})


def make_cifar100(
    folder: Path,
    *,
    rng: np.random.Generator,
    superclasses: Sequence[str] = ("fish", "people"),
    images: int = 8,
) -> None:
    """CIFAR-100: ``train``, ``test`` and ``meta``, two classes to each superclass."""
    root = folder / "cifar-100-python"
    count = len(superclasses)
    fine = [f"{name}_{n}" for name in superclasses for n in range(2)]
    _save_pickle(
        root / "meta", {"fine_label_names": fine, "coarse_label_names": list(superclasses)}
    )
    for part in ("train", "test"):
        labels = [n % (2 * count) for n in range(images)]
        content = {
            "data": _rows(images, rng),
            "fine_labels": labels,
            "coarse_labels": [label // 2 for label in labels],
        }
        _save_pickle(root / part, content)


def make_fashion_mnist(
    folder: Path, *, rng: np.random.Generator, train: int = 40, test: int = 20
) -> None:
    """Fashion-MNIST: four idx files, packed by gzip; labels go round the ten classes."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        labels = (np.arange(count) % len(FASHION_CLASSES)).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            path = folder / f"{prefix}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(header + array.tobytes()))


def _rows(count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (count, 3 * 32 * 32)).astype(np.uint8)


def _save_pickle(path: Path, content: Mapping[str, Any]) -> None:
    """Write a table as Python 2 pickled CIFAR's files, whose texts are bytes (protocol 2)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = b"".join(_pickled(key) + _pickled(value) for key, value in content.items())
    path.write_bytes(b"\x80\x02}(" + entries + b"u.")


def _pickled(value: Any) -> bytes:
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"T" + struct.pack("<I", len(value)) + value
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(_pickled, value)) + b"e"
    kind = b"cnumpy\ndtype\n(T\2\0\0\0u1K\0K\1tR(K\3T\1\0\0\0|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    shape = b"(" + b"".join(map(_pickled, value.shape)) + b"t"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0tT\1\0\0\0btR"
    return empty + b"(K\1" + shape + kind + b"\x89" + _pickled(value.tobytes()) + b"tb"
