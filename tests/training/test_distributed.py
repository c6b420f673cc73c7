"""Two processes train as one process on the whole batch does."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from multiad_med.card import ModelCard
from multiad_med.networks import FeatureDiscriminator
from multiad_med.scoring import Level
from multiad_med.testing.networks import tiny_multiad
from multiad_med.training import DistillationTrainer, calibrate
from multiad_med.training.distributed import (
    SyncBatchNorm2d,
    _synchronise,
    gathered,
    is_main_process,
)

SCALARS = ("loss", "loss_adversarial", "loss_discriminator", "discriminator_accuracy")


def _images() -> Tensor:
    return torch.rand(12, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def _train(rank: int, size: int) -> dict[str, Any]:
    """Three iterations over a share of each batch of four, with D, then calibration."""
    torch.manual_seed(0)
    network = tiny_multiad()
    discriminator = FeatureDiscriminator(network.channels, input_size=4, dropout=0.0)
    batches = [{"image": batch[rank::size]} for batch in _images().split(4)]
    trainer = DistillationTrainer(
        "cpu",
        1,
        batches,
        network,
        torch.optim.SGD(network.student.parameters(), lr=0.1),
        discriminator=discriminator,
        discriminator_optimizer=torch.optim.SGD(discriminator.parameters(), lr=0.1),
        adversarial_weight=0.1,
        adversarial_warmup=0,
        decollate=False,
    )
    scalars: list[list[float]] = []
    from ignite.engine import Events

    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda: scalars.append([float(trainer.state.output[name]) for name in SCALARS]),
    )
    trainer.run()
    # Shares of different size: one image more in the first.
    held_out = _images()[:5]
    calibrate(network, [{"image": held_out[rank::size]}], pixel_false_positive_rate=0.05)
    return {"scalars": scalars, "state": network.state_dict()}


def _worker(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    values = gathered(torch.arange(rank + 1.0), device="cpu")
    result = _train(rank, 2) | {"gathered": values, "main": is_main_process()}
    torch.save(result, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes got."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_worker, args=(port, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.slow
def test_losses_equal_those_of_one_process_on_the_whole_batch(results) -> None:
    alone = torch.tensor(_train(0, 1)["scalars"])
    assert alone.shape == (3, 4)
    for result in results:
        assert torch.allclose(torch.tensor(result["scalars"]), alone, atol=1e-5)


def test_weights_statistics_and_thresholds_equal_those_of_one_process(results) -> None:
    alone = _train(0, 1)["state"]
    untrained = tiny_multiad().state_dict()
    for result in results:
        for key, value in alone.items():
            if key != "_extra_state":  # the card, whose numbers are text
                assert torch.allclose(result["state"][key], value, atol=1e-5), key
        cards = [ModelCard.from_tensor(s["_extra_state"]) for s in (alone, result["state"])]
        for level in Level:
            expected, found = (card.level(level).scores for card in cards)
            assert found == pytest.approx(expected, abs=1e-5)
    assert not torch.equal(
        alone["student.backbone.stem.weight"], untrained["student.backbone.stem.weight"]
    )


def test_values_of_all_processes_are_gathered_in_order_though_they_differ_in_number(
    results,
) -> None:
    for result in results:
        assert result["gathered"].tolist() == [0.0, 0.0, 1.0]
    assert [r["main"] for r in results] == [True, False]


def test_in_one_process_batch_norm_is_torchs() -> None:
    torch.manual_seed(0)
    ours, torchs = SyncBatchNorm2d(3), torch.nn.BatchNorm2d(3)
    x = torch.rand(4, 3, 8, 8)
    assert torch.equal(ours(x), torchs(x))
    assert torch.equal(ours.running_var, torchs.running_var)


@pytest.mark.parametrize(
    ("device", "expected"), [("cpu", SyncBatchNorm2d), ("cuda", torch.nn.SyncBatchNorm)]
)
def test_batch_norm_is_torchs_on_a_gpu_and_ours_on_a_cpu(device: str, expected: type) -> None:
    module = torch.nn.Sequential(
        torch.nn.Sequential(torch.nn.BatchNorm2d(3, eps=0.1, momentum=0.2))
    )
    before = dict(module.named_parameters()) | dict(module.named_buffers())
    _synchronise(module, torch.device(device))
    norm = module[0][0]
    assert type(norm) is expected
    assert (norm.eps, norm.momentum) == (0.1, 0.2)
    after = dict(module.named_parameters()) | dict(module.named_buffers())
    assert list(after) == list(before)
    assert all(after[name] is tensor for name, tensor in before.items())
