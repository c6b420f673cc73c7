"""Held-out subjects in two groups, and what a card says of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from multiad_med.data import (
    HeldOutPart,
    SliceCache,
    SliceDataset,
    describe_training,
    held_out_part,
    held_out_subjects,
)
from multiad_med.testing.brains import head, write_nifti
from multiad_med.testing.slice_caches import make_cache


@pytest.mark.parametrize(
    ("count", "rate", "fit", "thresholds"),
    [
        (6, 0.05, 6, 6),  # 19 are needed: all do both
        (23, 0.05, 23, 23),  # four to spare
        (24, 0.05, 5, 19),
        (25, 0.05, 6, 19),  # the demonstration's
        (40, 0.05, 10, 30),  # a quarter fits
        (14, 0.1, 5, 9),
    ],
)
def test_two_groups_are_made_where_there_are_enough(
    count: int, rate: float, fit: int, thresholds: int
) -> None:
    subjects = [f"s{i}" for i in range(count)]
    groups = held_out_subjects(subjects * 2, rate=rate)
    assert {part: len(own) for part, own in groups.items()} == {
        HeldOutPart.FIT: fit,
        HeldOutPart.THRESHOLDS: thresholds,
    }
    assert groups[HeldOutPart.FIT] | groups[HeldOutPart.THRESHOLDS] == set(subjects)
    shared = groups[HeldOutPart.FIT] & groups[HeldOutPart.THRESHOLDS]
    assert len(shared) == (count if fit == count else 0)
    assert held_out_subjects(reversed(subjects), rate=rate) == groups


class _Slices(Dataset):
    subjects = [f"s{i // 3}" for i in range(90)]  # noqa: RUF012

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"subject": self.subjects[index], "index": index}

    def __len__(self) -> int:
        return len(self.subjects)


def test_all_slices_of_a_subject_are_in_one_group() -> None:
    parts = [held_out_part(_Slices(), part, rate=0.05) for part in HeldOutPart]
    loaded = [
        [s for b in torch.utils.data.DataLoader(p, batch_size=4) for s in b["subject"]]
        for p in parts
    ]
    assert not set(loaded[0]) & set(loaded[1])
    assert len(loaded[0]) + len(loaded[1]) == 90
    assert len(set(loaded[1])) == 23


def description(dataset: Any, **preparation: Any) -> dict[str, Any]:
    return describe_training(
        domain="industrial",
        preparation=preparation,
        settings={"seed": 3},
        training=dataset,
        held_out=dataset,
    )


def test_prepared_slices_tell_how_they_were_prepared(tmp_path: Path) -> None:
    cache = SliceCache(make_cache(tmp_path / "images"))
    cache.about["settings"] = {"windows": [[0, 80]], "spacing": None}
    card = description(cache, windows=[[-200, 250]], spacing=3, size=32)
    assert card["preparation"] == {"windows": [[0, 80]], "spacing": 3, "size": 32}
    assert card["training"]["recipe_settings"] == cache.about["settings"]
    assert card["training"]["training_data"]["slices"] == len(cache)


def test_other_volumes_are_told_apart(tmp_path: Path) -> None:
    import numpy as np

    def dataset(seed: int, name: str) -> SliceDataset:
        path = write_nifti(tmp_path / name / "v.nii.gz", head(np.random.default_rng(seed)))
        item = {"image": str(path), "subject": "jane"}
        return SliceDataset([item], lambda _: {"image": torch.ones(1, 4, 4, 2)}, progress=False)

    first, same, other = (
        description(dataset(*which))["training"]["training_data"]
        for which in ((0, "a"), (0, "b"), (1, "c"))
    )
    assert first == same
    assert first["studies_sha256"] != other["studies_sha256"]
    assert (first["subjects"], first["slices"]) == (1, 2)
