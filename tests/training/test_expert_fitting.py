"""Experts are fitted in one pass, alike in one process, in several, and over sites."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from multiad_med.networks import FusionMode, MultiAD, NoStudent
from multiad_med.networks.experts import NearestNormal, PositionGaussian
from multiad_med.testing.networks import TinyFeatures
from multiad_med.training import calibrate, expert_statistics, fit_experts, unite_experts
from multiad_med.utils import InputError


def network(**kwargs: Any) -> MultiAD:
    torch.manual_seed(0)
    teacher = TinyFeatures()
    experts = [PositionGaussian(teacher.channels), NearestNormal(teacher.channels)]
    return MultiAD(
        teacher, NoStudent(), experts=experts, stages=(), fusion=FusionMode.HAZARD, **kwargs
    )


def batches(start: int = 0, stop: int = 6, step: int = 1) -> list[dict[str, Any]]:
    random = torch.Generator().manual_seed(1)
    images = torch.rand(6, 3, 64, 64, generator=random)[start:stop:step]
    foreground = torch.ones(len(images), 1, 64, 64, dtype=torch.bool)
    return [
        {"image": image, "foreground": inside, "subject": [str(i)] * len(image)}
        for i, (image, inside) in enumerate(zip(images.split(2), foreground.split(2), strict=True))
    ]


def test_after_one_pass_and_calibration_the_network_maps() -> None:
    model = network()
    fit_experts(model, batches())
    calibrate(model, batches(), pixel_false_positive_rate=0.02)
    assert all(bool(expert.fitted) for expert in model.experts)
    new = torch.rand(2, 3, 64, 64) + 1.0
    with torch.no_grad():
        assert model(new).mean() > model(batches()[0]["image"]).mean()
        assert model(batches()[0]["image"]).shape == (2, 1, 64, 64)


def test_united_sites_fit_the_gaussian_of_all_images_to_a_millionth() -> None:
    whole, united = network(), network()
    fit_experts(whole, batches())
    parts = [expert_statistics(united, batches(0, 4), part=0)]
    parts.append(expert_statistics(united, batches(4, 6), part=1))
    unite_experts(united, parts)
    for name in ("mean", "scale"):
        torch.testing.assert_close(
            getattr(united.experts[0], name), getattr(whole.experts[0], name), rtol=1e-6, atol=1e-6
        )
    again = network()
    unite_experts(again, parts)
    assert torch.equal(again.experts[1].bank, united.experts[1].bank)


def _process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    model = network()
    fit_experts(model, batches(rank, 6, 2))
    torch.save(model.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_fit_what_one_does(tmp_path: Path) -> None:
    mp.spawn(_process, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1))
    alone = network()
    fit_experts(alone, batches())
    for key, value in first.items():
        if key.startswith("experts."):
            assert torch.equal(value, second[key]), key
    for name in ("mean", "scale"):
        torch.testing.assert_close(
            first[f"experts.0.{name}"], getattr(alone.experts[0], name), rtol=1e-6, atol=1e-6
        )


def test_nan_reaches_no_covariance() -> None:
    bad = batches()
    bad[1]["image"][0, 0, 3, 3] = torch.nan
    model = network()
    with pytest.raises(InputError, match="no numbers"):
        fit_experts(model, bad)
    assert not bool(model.experts[0].fitted)


def test_one_single_image_fits() -> None:
    model = network()
    fit_experts(model, batches(0, 1))
    with torch.no_grad():
        assert all(d.isfinite().all() for d in model.distances(torch.rand(1, 3, 64, 64)))


def test_what_is_collected_does_not_grow_with_the_number_of_images() -> None:
    model = network()
    sizes = []
    for count in (3, 300):
        stream = ({"image": torch.rand(2, 3, 64, 64)} for _ in range(count))
        states = expert_statistics(model, stream)
        sizes.append([sum(v.numel() for v in state.values()) for state in states])
    assert sizes[0][0] == sizes[1][0]
    assert sizes[1][1] <= 50_000 * (1 + model.experts[1].projection.shape[1])
