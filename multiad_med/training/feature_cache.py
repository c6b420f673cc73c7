"""The teacher's features of all training slices on disk, so that it runs once and not every epoch."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import DataLoader
from monai.utils import CommonKeys
from torch.utils.data import Dataset
from tqdm import tqdm

from multiad_med.data import state_sha256
from multiad_med.networks import MultiAD
from multiad_med.training.distributed import is_distributed
from multiad_med.utils.atomic import write_json
from multiad_med.utils.errors import InputError, file_errors
from multiad_med.utils.json_files import read_json
from multiad_med.utils.tensors import plain_tensor

__all__ = ["FEATURES", "CachedFeatures", "cached_features"]

FEATURES = "features"
"""Key of the teacher's features in a batch: ``(B, C_i, h_i, w_i)`` up to the deepest stage read."""

_ABOUT = "features.json"


class CachedFeatures(Dataset):
    """Slices with the features that the teacher has of them, in half precision and memory-mapped.

    Args:
        dataset: slices with ``image (C, H, W)``.
        folder: of the files, one ``(N, C, h, w)`` a stage.
        stages: how many there are.
    """

    def __init__(self, dataset: Any, folder: Path, stages: int) -> None:
        self.dataset = dataset
        self.files = [folder / f"stage_{stage}.npy" for stage in range(1, stages + 1)]
        self._maps: list[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a slice and ``features``, a list of float32 maps."""
        if self._maps is None:  # in each worker anew
            self._maps = [np.load(file, mmap_mode="r") for file in self.files]
        features = [torch.from_numpy(np.asarray(m[index], np.float32)) for m in self._maps]
        return {**self.dataset[index], FEATURES: features}


def cached_features(
    dataset: Any,
    network: MultiAD,
    folder: str | Path,
    *,
    enabled: bool = True,
    augmented: bool = False,
    device: str | torch.device = "cpu",
    batch_size: int = 16,
) -> Any:
    """Run the teacher over all slices once, and return them with its features.

    Features of the same teacher and the same slices, in the folder already, are used again.

    Args:
        dataset: slices ``image (C, H, W)`` in [0, 1], the same at each access.
        network: whose teacher it is.
        folder: for the features: 0.4 MB a slice of 256² with EfficientNet-Lite2, 3.6 MB of 392² with
            DINOv2 B/14.
        enabled: if not, or where no student learns, the slices are returned as they are.
        augmented: whether slices change from epoch to epoch.
        device: where the network is.
        batch_size: slices at once.

    Raises:
        InputError: when the slices are augmented, several processes train, or the disk is too full.
        FileError: when the features cannot be written.
    """
    if not enabled or not network.stages:  # experts alone look at each slice once
        return dataset
    if augmented:
        raise InputError(
            "cache_features needs slices that stay the same; switch light_augmentation off."
        )
    if is_distributed():
        raise InputError("cache_features is for one process; leave it out in a group of several.")
    folder = Path(folder)
    about = {
        "teacher": state_sha256(network.teacher),
        "network": json.loads(json.dumps(network.card.network)),
        "slices": len(dataset),
        "images": _images_sha256(dataset),
    }
    deepest = max(network.stages + network.student_reads)
    cached = CachedFeatures(dataset, folder, deepest)
    if not (folder / _ABOUT).is_file() or read_json(folder / _ABOUT) != about:
        shutil.rmtree(folder, ignore_errors=True)
        with file_errors(folder, "written"):
            folder.mkdir(parents=True)
            _check_space(folder, dataset, network, device=device)
            _write(cached, network, device=device, batch_size=batch_size)
            write_json(folder / _ABOUT, about)
    return cached


def _images_sha256(dataset: Any) -> str:
    """Return a hash of all images, so that features are of these and no others."""
    digest = hashlib.sha256()
    for index in range(len(dataset)):
        image = plain_tensor(dataset[index][CommonKeys.IMAGE])
        digest.update(image.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def _check_space(
    folder: Path, dataset: Any, network: MultiAD, *, device: str | torch.device
) -> None:
    image = plain_tensor(dataset[0][CommonKeys.IMAGE])[None].to(device)
    needed = 2 * len(dataset) * sum(f.numel() for f in network.eval().teacher_features(image))
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"cache_features needs {needed / 1e9:.1f} GB in {folder}, and {free / 1e9:.1f} GB are free. "
            "Make room, or leave it out."
        )


@torch.no_grad()
def _write(
    cached: CachedFeatures, network: MultiAD, *, device: str | torch.device, batch_size: int
) -> None:
    loader = DataLoader(cached.dataset, batch_size=batch_size)
    network.eval()
    maps: list[Any] = []
    start = 0
    for batch in tqdm(loader, desc="teacher's features"):
        images = plain_tensor(batch[CommonKeys.IMAGE]).to(device)
        features = [f.to(torch.float16).cpu().numpy() for f in network.teacher_features(images)]
        if not all(np.isfinite(of_batch).all() for of_batch in features):
            raise InputError(
                "The teacher has features beyond half precision, or no numbers. Check "
                "the images, or leave cache_features out."
            )
        if not maps:
            maps = [
                np.lib.format.open_memmap(
                    file, "w+", dtype=np.float16, shape=(len(cached), *of_batch.shape[1:])
                )
                for file, of_batch in zip(cached.files, features, strict=True)
            ]
        for of_stage, of_batch in zip(maps, features, strict=True):
            of_stage[start : start + len(of_batch)] = of_batch
        start += len(images)
    for of_stage in maps:
        of_stage.flush()
