"""CIFAR's and Fashion-MNIST's arrays of images, read without trust and written as PNG files."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from multiad_med.datasets.layout_files import study_name
from multiad_med.readers.archives import ArchiveError
from multiad_med.utils.atomic import atomic_path
from multiad_med.utils.errors import reader_errors

__all__ = ["FASHION_CLASSES", "find_arrays", "unpack_arrays"]

FASHION_CLASSES = (
    "t-shirt_top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle_boot",
)
"""Fashion-MNIST's classes in the order of its labels, which the files have as numbers only."""

_CIFAR10, _CIFAR100, _FASHION = "batches.meta", "meta", "train-images-idx3-ubyte"
_CIFAR_SIDE = 32
_IDX_UINT8 = 8
_MOST_PIXELS = 10**9

_Part = tuple[NDArray[np.uint8], list[str]]
"""Images ``(N, H, W)`` or ``(N, H, W, 3)``, and each one's folder below that of the part."""


def find_arrays(folder: Path) -> Path | None:
    """Return the folder that holds arrays of images, itself or at most two levels below; else None.

    Known are CIFAR-10's and CIFAR-100's Python versions and Fashion-MNIST's ``idx`` files.
    """
    for place in (folder, *sorted(folder.glob("*/")), *sorted(folder.glob("*/*/"))):
        if _reader(place) is not None:
            return place
    return None


def unpack_arrays(source: Path, folder: Path) -> Path:
    """Write arrays of images as ``train/<class>/00000.png`` and ``test/<class>/00000.png``.

    Files are numbered as in the arrays. CIFAR-100's lie in ``<superclass>/<class>``. It is done
    wholly or not at all.

    Args:
        source: of :func:`find_arrays`.
        folder: is made; must not exist.

    Returns:
        The folder.

    Raises:
        ArchiveError: when a file is missing, damaged, truncated, or asks for more than arrays and
            plain values.
        FileError: when a file cannot be read or written.
    """
    read = _reader(source)
    if read is None:
        raise ArchiveError(f"{source} holds neither CIFAR's batches nor Fashion-MNIST's idx files.")
    with atomic_path(folder) as partial:
        for part, (images, places) in read(source):
            for place in dict.fromkeys(places):
                (partial / part / place).mkdir(parents=True)
            for index, (image, place) in enumerate(zip(images, places, strict=True)):
                Image.fromarray(image).save(partial / part / place / f"{index:05d}.png")
    return folder


def _reader(folder: Path) -> Callable[[Path], Iterator[tuple[str, _Part]]] | None:
    if (folder / _CIFAR10).is_file():
        return _cifar10
    if (folder / _CIFAR100).is_file() and (folder / "train").is_file():
        return _cifar100
    if any((folder / f"{_FASHION}{end}").is_file() for end in ("", ".gz")):
        return _fashion
    return None


def _cifar10(folder: Path) -> Iterator[tuple[str, _Part]]:
    names = _names(folder / _CIFAR10, "label_names")
    batches = [_batch(folder / f"data_batch_{n}", "labels", names) for n in range(1, 6)]
    images = np.concatenate([images for images, _ in batches])
    yield "train", (images, [name for _, labels in batches for name in labels])
    yield "test", _batch(folder / "test_batch", "labels", names)


def _cifar100(folder: Path) -> Iterator[tuple[str, _Part]]:
    coarse = _names(folder / _CIFAR100, "coarse_label_names")
    fine = _names(folder / _CIFAR100, "fine_label_names")
    for part in ("train", "test"):
        images, groups = _batch(folder / part, "coarse_labels", coarse)
        _, kinds = _batch(folder / part, "fine_labels", fine)
        yield part, (images, [f"{a}/{b}" for a, b in zip(groups, kinds, strict=True)])


def _fashion(folder: Path) -> Iterator[tuple[str, _Part]]:
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images = _idx(folder / f"{prefix}-images-idx3-ubyte", axes=3)
        path = folder / f"{prefix}-labels-idx1-ubyte"
        labels = _idx(path, axes=1).tolist()
        yield part, (images, _named(path, labels, FASHION_CLASSES, count=len(images)))


def _named(path: Path, labels: Any, names: tuple[str, ...], *, count: int) -> list[str]:
    """Names of labels, once it is sure that they are as many as the images, and known numbers."""
    good = isinstance(labels, list) and all(
        isinstance(label, int) and 0 <= label < len(names) for label in labels
    )
    if not good or len(labels) != count:
        raise ArchiveError(
            f"{path}: damaged: expected {count} labels from 0 to {len(names) - 1}, one per image. Take "
            "the published file."
        )
    return [names[label] for label in labels]


def _idx(path: Path, *, axes: int) -> NDArray[np.uint8]:
    """The array of an idx file, packed by gzip or not."""
    packed = path.with_name(f"{path.name}.gz")
    if packed.is_file():
        path = packed
    with reader_errors(path, ArchiveError, "damaged or truncated; take the published file"):
        with gzip.open(path) if path == packed else path.open("rb") as stream:
            zero, kind, found = struct.unpack(">HBB", stream.read(4))
            if (zero, kind, found) != (0, _IDX_UINT8, axes):
                raise ArchiveError(f"{path}: no idx file of bytes with {axes} axes.")
            shape = struct.unpack(f">{axes}I", stream.read(4 * axes))
            size = int(np.prod(shape, dtype=object))
            if size > _MOST_PIXELS:
                raise ArchiveError(f"{path}: damaged: it claims an array of {shape}.")
            content = stream.read(size + 1)
        if len(content) != size:
            more = "more than" if len(content) > size else f"{len(content)} of"
            raise ArchiveError(f"{path}: damaged or truncated: it holds {more} {size} values.")
        return np.frombuffer(content, np.uint8).reshape(shape)


def _batch(path: Path, key: str, names: tuple[str, ...]) -> _Part:
    """Images ``(N, 32, 32, 3)`` of one of CIFAR's files, and the names of their labels."""
    content = _unpickle(path)
    data = content.get("data")
    size = 3 * _CIFAR_SIDE**2
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (size,):
        raise ArchiveError(f"{path}: damaged: it has no `data` of bytes (N, {size}).")
    images = data.reshape(-1, 3, _CIFAR_SIDE, _CIFAR_SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), _named(path, content.get(key), names, count=len(images))


def _names(path: Path, key: str) -> tuple[str, ...]:
    """Names of classes as names of folders."""
    names = _unpickle(path).get(key)
    if not isinstance(names, list) or not names:
        raise ArchiveError(f"{path}: damaged: it has no `{key}`.")
    clean = [_text(name) for name in names]
    if not all(isinstance(name, str) for name in clean):
        raise ArchiveError(f"{path}: damaged: its `{key}` are no names.")
    return tuple(study_name(name.replace("/", "_")) for name in clean)


def _text(value: Any) -> Any:
    return value.decode("latin1") if isinstance(value, bytes) else value


def _unpickle(path: Path) -> dict[Any, Any]:
    with reader_errors(path, ArchiveError, "damaged or truncated; take the published file"):
        content = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        if not isinstance(content, dict):
            raise ArchiveError(f"{path}: damaged: it holds a {type(content).__name__}, no table.")
        return {_text(key): value for key, value in content.items()}


_NDARRAY = object()
"""Stands for NumPy's array, which a pickle must not call: it would read any bytes as addresses."""


class _ArraysOnly(pickle.Unpickler):
    """Reads containers, numbers, texts and NumPy's arrays; whatever else is named is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what rebuilds an array; a pickle could name any function there is."""
        module = module.replace("numpy._core", "numpy.core")
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): _empty_array,
            ("numpy", "ndarray"): _NDARRAY,
            ("numpy", "dtype"): _number_type,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which no array of images needs"
            )
        return allowed[module, name]


def _empty_array(kind: Any, shape: Any, code: Any) -> NDArray[Any]:
    """The empty array that NumPy's pickles begin with."""
    if kind is not _NDARRAY or shape != (0,) or _text(code) != "b":
        raise pickle.UnpicklingError("its array is built in no known way")
    return np.ndarray((0,), np.int8)


def _number_type(code: Any, *_: Any) -> np.dtype[Any]:
    """The type of an array, of numbers only."""
    kind = np.dtype(_text(code))
    if kind.kind not in "iuf":
        raise pickle.UnpicklingError(f"it has values of type {kind}, no numbers")
    return kind
