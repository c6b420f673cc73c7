"""Two sites train two students together; tau stays at its site."""

from __future__ import annotations

from pathlib import Path

import torch
from monai.fl.utils.exchange_object import ExchangeObject

from multiad_med.networks import NoisyOrLoss
from multiad_med.testing.brains import make_brains
from multiad_med.training.federated import site_client, weighted_mean

SETTINGS = {
    "size": 64,
    "batch_size": 8,
    "device": "$torch.device('cpu')",
    "preset": "dual_lite2",
    "teacher_weights": "random",
}


def test_both_students_travel_and_usual_distances_stay(tmp_path: Path) -> None:
    clients = []
    for name in ("one", "two"):
        folder = tmp_path / name
        settings = {
            **SETTINGS,
            "dataset_dir": str(make_brains(folder)),
            "ckpt_dir": str(folder / "models"),
            "output_dir": str(folder / "logs"),
        }
        clients.append(site_client("multiad_brain_mri", name, settings, rounds=1))
    weights = clients[0].get_weights().weights
    assert {key.split(".")[1] for key in weights} == {"local", "semantic"}
    for client in clients:
        client.train(ExchangeObject(weights=weights))
    sent = [client.get_weights().weights for client in clients]
    assert sent[0].keys() == weights.keys()
    assert not any("tau" in key for key in sent[0])
    for part in ("student.local.", "student.semantic."):
        moved = [
            k for k in weights if k.startswith(part) and not torch.equal(weights[k], sent[0][k])
        ]
        assert moved
    mean = weighted_mean(sent, [1, 1])
    for client in clients:
        found = client.evaluate(ExchangeObject(weights=mean)).metrics["loss_distillation"]
        assert 0 < found < 2
        loss = client.trainer.loss_function
        assert isinstance(loss, NoisyOrLoss)
        assert int(loss.steps) == client.trainer.state.iteration
        assert client.trainer.network.stages == [1, 2, 3, 5]
        assert client.trainer.network.fused == [1, 2, 5]
