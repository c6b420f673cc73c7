"""The teacher's features on disk: what they are, what they spare, and when they are made anew."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.data import DataLoader

from multiad_med.networks import MultiAD, build_multiad
from multiad_med.training import cached_features
from multiad_med.utils.errors import InputError


@pytest.fixture
def network() -> MultiAD:
    torch.manual_seed(0)
    return build_multiad("resnet18", teacher_weights="random", student="decoder")


def _slices(count: int = 5) -> list[dict[str, Any]]:
    random = torch.Generator().manual_seed(1)
    return [
        {"image": torch.rand(1, 32, 32, generator=random), "study": f"s{i}"} for i in range(count)
    ]


def _runs(network: MultiAD, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batch sizes of the teacher's passes from now on."""
    seen: list[int] = []
    teach = network.teacher_features

    def counted(x: torch.Tensor) -> list[torch.Tensor]:
        seen.append(len(x))
        return teach(x)

    monkeypatch.setattr(network, "teacher_features", counted)
    return seen


def test_features_are_the_teachers_in_half_precision(network: MultiAD, tmp_path: Path) -> None:
    slices = _slices()
    cached = cached_features(slices, network, tmp_path / "features", batch_size=2)
    assert len(cached) == 5
    for item, plain in zip((cached[i] for i in range(5)), slices, strict=True):
        expected = network.eval().teacher_features(plain["image"][None])
        assert item["study"] == plain["study"]
        assert len(item["features"]) == len(expected) == 4
        for found, own in zip(item["features"], expected, strict=True):
            assert found.dtype == torch.float32
            assert torch.equal(found, own[0].half().float()) or torch.allclose(
                found, own[0], rtol=2e-3, atol=1e-3
            )


def test_a_batch_with_features_needs_no_teacher_and_gives_nearly_the_same_loss(
    network: MultiAD, tmp_path: Path
) -> None:
    cached = cached_features(_slices(4), network, tmp_path / "features")
    batch = next(iter(DataLoader(cached, batch_size=4)))
    network.eval()
    own, theirs = network.features(batch["image"])
    network.teacher.forward = None  # type: ignore[assignment,method-assign]
    cached_own, cached_theirs = network.features(batch["image"], batch["features"])
    for first, second in zip([*own, *theirs], [*cached_own, *cached_theirs], strict=True):
        torch.testing.assert_close(first, second, rtol=2e-2, atol=5e-3)


def test_they_are_made_once_and_anew_for_other_slices_or_another_teacher(
    network: MultiAD, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "features"
    runs = _runs(network, monkeypatch)
    cached_features(_slices(), network, folder, batch_size=5)
    cached_features(_slices(), network, folder, batch_size=5)
    assert runs == [1, 5]  # one slice tells how much room is needed
    cached_features(_slices(3), network, folder, batch_size=5)
    assert runs == [1, 5, 1, 3]
    with torch.no_grad():
        next(network.teacher.parameters()).add_(1)
    cached_features(_slices(3), network, folder, batch_size=5)
    assert runs == [1, 5, 1, 3, 1, 3]
    turned = [{**item, "image": item["image"].flip(-1)} for item in _slices(3)]  # of the same sums
    cached_features(turned, network, folder, batch_size=5)
    assert runs[6:] == [1, 3]
    (folder / "features.json").unlink()  # a run that was killed while it wrote
    cached_features(_slices(3), network, folder, batch_size=5)
    assert runs[8:] == [1, 3]


def test_slices_that_change_are_refused_and_nothing_is_written_when_it_is_off(
    network: MultiAD, tmp_path: Path
) -> None:
    slices = _slices()
    assert cached_features(slices, network, tmp_path / "f", enabled=False) is slices
    with pytest.raises(InputError, match="light_augmentation"):
        cached_features(slices, network, tmp_path / "f", augmented=True)
    assert not (tmp_path / "f").exists()


def test_a_disk_that_is_too_full_is_told_before_anything_is_written(
    network: MultiAD, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "multiad_med.training.feature_cache.shutil.disk_usage", lambda path: SimpleNamespace(free=9)
    )
    with pytest.raises(InputError, match=r"cache_features needs .* GB"):
        cached_features(_slices(), network, tmp_path / "f")
    assert not list((tmp_path / "f").iterdir())


def test_features_beyond_half_precision_are_refused(network: MultiAD, tmp_path: Path) -> None:
    slices = _slices()
    slices[3]["image"] = torch.full((1, 32, 32), float("nan"))
    with pytest.raises(InputError, match="half precision"):
        cached_features(slices, network, tmp_path / "f")
    assert not (tmp_path / "f" / "features.json").exists()
