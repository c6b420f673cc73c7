"""The slice cache: what is written is what is read, and nothing else is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from multiad_med.data import (
    CacheError,
    SliceCache,
    is_slice_cache,
    open_slices,
    read_study,
    write_study,
)
from multiad_med.data.slice_cache import index_rows, study_path, write_index
from multiad_med.transforms import SliceState


def _prepared(count: int = 5, channels: int = 1, size: int = 8) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(count)
    return {
        "image": torch.rand(count, channels, size, size, generator=generator),
        "foreground": (torch.rand(count, 1, size, size, generator=generator) > 0.3).to(torch.uint8),
        "label": (torch.rand(count, 1, size, size, generator=generator) > 0.8).to(torch.uint8) * 4,
        "slices": torch.arange(10, 10 + count),
        "state": torch.tensor([0, 1, -1, 0, 0][:count]),
        "affine": torch.eye(4),
    }


def make_cache(folder: Path, *, bits: int = 16, channels: int = 1) -> dict[str, dict[str, Any]]:
    """A cache of three studies; returns what each was made from."""
    studies = {
        "a/1": _prepared(5, channels),
        "b": _prepared(4, channels),
        "c": _prepared(3, channels),
    }
    items = []
    for name, split in (("a/1", "training"), ("b", "training"), ("c", "test")):
        path = study_path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_study(path, studies[name], bits=bits, about={"source_sha256": "0"})
        items.append({"split": split, "subject": name, "study": name})
    write_index(folder / "index.csv", index_rows(folder, items))
    (folder / "cache.json").write_text(
        json.dumps({"bits": bits, "channels": channels, "size": [8, 8], "upright": True})
    )
    return studies


@pytest.mark.parametrize("bits", [8, 16])
def test_slices_come_back_to_half_a_step(tmp_path: Path, bits: int) -> None:
    prepared = _prepared()
    write_study(tmp_path / "s.safetensors", prepared, bits=bits, about={"x": 1})
    read = read_study(tmp_path / "s.safetensors")
    top = 2**bits - 1
    assert read["image"].dtype == (np.uint8 if bits == 8 else np.uint16)
    np.testing.assert_allclose(read["image"] / top, prepared["image"], atol=0.501 / top)
    np.testing.assert_array_equal(read["foreground"], prepared["foreground"] > 0)
    np.testing.assert_array_equal(read["label"], prepared["label"] > 0)
    np.testing.assert_array_equal(read["slices"], prepared["slices"])
    np.testing.assert_array_equal(read["state"], prepared["state"])
    assert read["about"] == {"x": 1, "affine": np.eye(4).tolist()}


@pytest.mark.parametrize("key", ["foreground", "slices", "state"])
def test_arrays_that_do_not_belong_together_are_refused(tmp_path: Path, key: str) -> None:
    prepared = _prepared()
    prepared[key] = prepared[key][:-1]
    with pytest.raises(ValueError, match="expected"):
        write_study(tmp_path / "s.safetensors", prepared, bits=16, about={})
    with pytest.raises(ValueError, match=r"bits.*\b8 or 16\b"):
        write_study(tmp_path / "s.safetensors", _prepared(), bits=12, about={})


def test_training_gets_normal_slices_and_test_gets_all(tmp_path: Path) -> None:
    studies = make_cache(tmp_path)
    cache = SliceCache(tmp_path)
    # Of a: slices 10, 13, 14; of b: slices 10 and 13.
    assert [(r["study"], int(r["slice"])) for r in cache.index] == [
        ("a/1", 10), ("a/1", 13), ("a/1", 14), ("b", 10), ("b", 13),
    ]  # fmt: skip
    slice_ = cache[1]
    assert slice_["image"].dtype == torch.float32
    torch.testing.assert_close(slice_["image"], studies["a/1"]["image"][3], atol=1e-5, rtol=0)
    assert torch.equal(slice_["foreground"], studies["a/1"]["foreground"][3] > 0)
    assert "label" not in slice_
    test = SliceCache(tmp_path, split="test", labels=True)
    assert [s["state"] for s in test] == ["normal", "abnormal", "unsure"]
    assert torch.equal(test[1]["label"], studies["c"]["label"][1] > 0)
    only = SliceCache(tmp_path, split="test", states=[SliceState.ABNORMAL])
    assert [s["slice"] for s in only] == [11]


def test_index_counts_areas(tmp_path: Path) -> None:
    studies = make_cache(tmp_path)
    rows = SliceCache(tmp_path, split="test").index
    assert len(rows) == 3
    for row in rows:
        position = int(row["position"])
        assert int(row["foreground_area"]) == int(studies["c"]["foreground"][position].sum())
        assert int(row["lesion_area"]) == int((studies["c"]["label"][position] > 0).sum())


def test_batches_of_a_loader_equal_single_slices(tmp_path: Path) -> None:
    make_cache(tmp_path)
    cache = SliceCache(tmp_path)
    batch = next(iter(DataLoader(cache, batch_size=5)))
    assert torch.equal(batch["image"], torch.stack([cache[i]["image"] for i in range(5)]))
    assert batch["slice"].tolist() == [10, 13, 14, 10, 13]


def test_channels_are_picked_in_order(tmp_path: Path) -> None:
    studies = make_cache(tmp_path, channels=4)
    image = SliceCache(tmp_path, channels=[3, 0, 1])[0]["image"]
    torch.testing.assert_close(image, studies["a/1"]["image"][0][[3, 0, 1]], atol=1e-5, rtol=0)
    with pytest.raises(CacheError, match="has 4"):
        SliceCache(tmp_path, channels=[4])


def test_slices_of_another_size_than_inference_takes_are_refused(tmp_path: Path) -> None:
    make_cache(tmp_path)
    options = {"split": "training", "data": [], "transform": dict}
    assert len(open_slices(tmp_path, size=8, **options)) == 5
    with pytest.raises(CacheError, match=r"\[8, 8\].*\b16\b"):
        open_slices(tmp_path, size=16, **options)


def test_rows_and_columns_of_a_rectangle_are_not_interchanged(tmp_path: Path) -> None:
    make_cache(tmp_path)
    about = json.loads((tmp_path / "cache.json").read_text()) | {"size": [8, 16]}
    (tmp_path / "cache.json").write_text(json.dumps(about))
    options = {"split": "training", "data": [], "transform": dict}
    assert len(open_slices(tmp_path, size=[8, 16], **options)) == 5
    for size, typed in (([16, 8], '"size=[16,8]"'), (8, "size=8")):
        with pytest.raises(CacheError, match=re.escape(f"--set {typed}")):
            open_slices(tmp_path, size=size, **options)


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    assert not is_slice_cache(tmp_path)
    with pytest.raises(CacheError, match="`multiad prepare`"):
        SliceCache(tmp_path)
    make_cache(tmp_path)
    with pytest.raises(CacheError, match="no slice of split 'validation'"):
        SliceCache(tmp_path, split="validation")
    with pytest.raises(CacheError, match="choose one of"):
        SliceCache(tmp_path, split="train")
    broken = study_path(tmp_path, "c")
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(CacheError, match=r"c\.safetensors: not a readable"):
        read_study(broken)


def test_a_cache_is_not_held_in_memory(tmp_path: Path) -> None:
    """Reading one slice of a large study allocates about that slice."""
    import tracemalloc

    path = study_path(tmp_path, "big")
    path.parent.mkdir(parents=True)
    count, size = 200, 256
    prepared = {
        "image": torch.zeros(count, 1, size, size),
        "slices": torch.arange(count),
        "state": torch.zeros(count, dtype=torch.int8),
    }
    write_study(path, prepared, bits=16, about={"source_sha256": "0"})
    items = [{"split": "training", "subject": "s", "study": "big"}]
    write_index(tmp_path / "index.csv", index_rows(tmp_path, items))
    about = {"bits": 16, "channels": 1, "size": [size, size], "upright": True}
    (tmp_path / "cache.json").write_text(json.dumps(about))
    cache = SliceCache(tmp_path)
    tracemalloc.start()
    cache[100]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6  # a slice is 0.13 MB stored and 0.26 MB read, the study 26 MB


def test_what_version_01_prepared_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text("{}")
    with pytest.raises(CacheError, match=r"multiad-med 0\.1\b.*[Pp]repare it again"):
        is_slice_cache(tmp_path)
