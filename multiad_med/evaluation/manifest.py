"""What a run was made with: versions, machine, hashes of model, configuration and data."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from multiad_med.data import file_sha256, is_slice_cache, slice_caches
from multiad_med.data.datalist import CACHE_NAME
from multiad_med.utils.json_files import read_json

__all__ = ["data_manifest", "run_manifest"]

_PACKAGES = ("multiad-med", "torch", "monai", "numpy", "scikit-image", "nibabel", "anomalib")


def data_manifest(source: str | Path) -> dict[str, Any]:
    """Return what identifies a data set: a cache's recipe, split and index hashes, or a file's hash.

    Of several caches, that of each, by name.
    """
    path = Path(source)
    if caches := slice_caches(path):
        each = {name: data_manifest(folder) for name, folder in caches.items()}
        return {"folder": path.name, "caches": each}
    if is_slice_cache(path):
        about = read_json(path / CACHE_NAME)
        return {
            "folder": path.name,
            **{
                key: about.get(key)
                for key in ("recipe", "recipe_sha256", "settings", "split_sha256")
            },
            "index_sha256": file_sha256(path / "index.csv"),
        }
    lists = [path, path / "datalist.json"]
    hashed = [p for p in lists if p.is_file()]
    return {"source": path.name} | ({"datalist_sha256": file_sha256(hashed[0])} if hashed else {})


def run_manifest(
    *,
    data: Mapping[str, Any],
    model: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
    seed: int | None = None,
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    """Return everything needed to repeat a run, ready for JSON.

    Args:
        data: of :func:`data_manifest`.
        model: file that was evaluated; its SHA-256 is taken.
        config: settings of the run; they and their SHA-256 are kept.
        seed: of the run.
        device: where it ran.
    """
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    device = torch.device(device)
    manifest: dict[str, Any] = {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "data": dict(data),
    }
    if model is not None:
        manifest["model"] = {"file": Path(model).name, "sha256": file_sha256(model)}
    if config is not None:
        content = json.dumps(config, sort_keys=True, default=str)
        manifest["config"] = json.loads(content)
        manifest["config_sha256"] = hashlib.sha256(content.encode()).hexdigest()
    if seed is not None:
        manifest["seed"] = seed
    return manifest
