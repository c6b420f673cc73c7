"""Two sites train the brain bundle together by MONAI's MonaiAlgo, as docs/examples/federated.py does."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, FlStatistics, ModelType
from monai.fl.utils.exchange_object import ExchangeObject
from torch import Tensor

from multiad_med.testing.brains import make_brains
from multiad_med.training.federated import site_client, weighted_mean

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "federated.py"
SETTINGS = {"size": 64, "batch_size": 4, "device": "$torch.device('cpu')"}
ROUNDS = 2


def _example() -> Any:
    spec = importlib.util.spec_from_file_location("federated_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_sites(folder: Path) -> dict[str, Path]:
    """A site with three training subjects, and one with a single one that is another's."""
    sites = {name: make_brains(folder / name) for name in ("large", "small")}
    datalist = sites["small"] / "datalist.json"
    splits = json.loads(datalist.read_text())
    splits["training"], splits["validation"] = splits["test"][:1], splits["training"][:1]
    del splits["test"], splits["training"][0]["label"]
    datalist.write_text(json.dumps(splits))
    return sites


@dataclass
class Federation:
    """What two rounds of two sites left behind."""

    clients: list[MonaiAlgo] = field(default_factory=list)
    before: list[dict[str, Tensor]] = field(default_factory=list)
    sent: list[list[ExchangeObject]] = field(default_factory=list)
    means: list[dict[str, Tensor]] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)


def _state(network: torch.nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in network.state_dict().items()}


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    folder = tmp_path_factory.mktemp("federation")
    result = Federation()
    for name, data in make_sites(folder).items():
        settings = {
            **SETTINGS,
            "dataset_dir": str(data),
            "ckpt_dir": str(folder / name / "models"),
            "output_dir": str(folder / name / "logs"),
        }
        result.clients.append(site_client("multiad_brain_mri", name, settings, rounds=ROUNDS))
    result.before = [_state(client.trainer.network) for client in result.clients]
    weights = result.clients[0].get_weights().weights
    for _ in range(ROUNDS):
        for client in result.clients:
            client.train(ExchangeObject(weights=weights))
        result.sent.append([client.get_weights() for client in result.clients])
        weights = weighted_mean([s.weights for s in result.sent[-1]], _iterations(result.sent[-1]))
        result.means.append(weights)
        result.losses.append(
            [
                client.evaluate(ExchangeObject(weights=weights)).metrics["loss_distillation"]
                for client in result.clients
            ]
        )
    return result


def _iterations(sent: list[ExchangeObject]) -> list[int]:
    return [s.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS] for s in sent]


def test_all_sites_start_from_the_same_network(federation: Federation) -> None:
    first, second = federation.before
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value.nan_to_num(), second[key].nan_to_num()), key


def test_a_round_is_the_mean_of_the_students_weighted_by_iterations(federation: Federation) -> None:
    for sent, mean in zip(federation.sent, federation.means, strict=True):
        large, small = _iterations(sent)
        assert large == len(federation.clients[0].trainer.data_loader)
        assert large > small > 0
        share = large / (large + small)
        moved = 0
        for key, value in mean.items():
            a, b = (s.weights[key] for s in sent)
            assert torch.allclose(value, share * a + (1 - share) * b, atol=1e-6), key
            moved += not torch.equal(a, b)
        assert moved > 0.9 * len(mean)
        assert any(key.endswith("running_var") for key in mean)


def test_sites_evaluate_the_global_student_with_their_own_teacher(federation: Federation) -> None:
    for client, before in zip(federation.clients, federation.before, strict=True):
        evaluated = client.evaluator.network.state_dict()
        for key, value in federation.means[-1].items():
            assert torch.equal(evaluated[key], value), key
        for key, value in evaluated.items():
            if key.startswith("teacher."):
                assert torch.equal(value, before[key]), key
        assert not bool(evaluated["calibrated"])
    for first, last in zip(federation.losses[0], federation.losses[-1], strict=True):
        assert last < first


def test_the_learning_rate_makes_one_cycle_over_all_rounds(federation: Federation) -> None:
    for client in federation.clients:
        scheduler = client.train_workflow.parser.get_parsed_content("lr_scheduler")
        assert client.trainer.state.epoch == ROUNDS
        assert scheduler.last_epoch == scheduler.total_steps == client.trainer.state.iteration


def test_the_best_local_model_is_the_one_its_site_wrote(federation: Federation) -> None:
    for client, sent in zip(federation.clients, federation.sent[-1], strict=True):
        best = client.get_weights({ExtraItems.MODEL_TYPE: ModelType.BEST_MODEL}).weights
        assert best.keys() == sent.weights.keys()
        for key, value in best.items():
            assert torch.equal(value, sent.weights[key]), key


def test_the_example_leaves_one_student_and_thresholds_of_each_site(tmp_path: Path) -> None:
    losses = _example().federate(
        tmp_path / "out", make_sites(tmp_path), rounds=ROUNDS, settings=SETTINGS
    )
    assert losses[1] < losses[0]
    common, large, small = (
        torch.load(tmp_path / "out" / f, weights_only=True)
        for f in ("global.pt", "large/models/model.pt", "small/models/model.pt")
    )
    assert not bool(common["calibrated"])
    assert bool(large["calibrated"])
    assert bool(small["calibrated"])
    for key, value in common.items():
        if key.startswith(("student.", "teacher.")):
            assert torch.equal(large[key], value), key
            assert torch.equal(small[key], value), key
    assert not torch.equal(large["pixel_threshold"], small["pixel_threshold"])


def test_two_students_travel_together(tmp_path: Path) -> None:
    clients = []
    for name, data in make_sites(tmp_path).items():
        settings = {
            **SETTINGS,
            "preset": "dual_lite2",
            "network_def#teacher": "multiad_med.testing.networks.TinyFeatures",
            "teacher_weights": "random",
            "dataset_dir": str(data),
            "ckpt_dir": str(tmp_path / name / "models"),
            "output_dir": str(tmp_path / name / "logs"),
        }
        clients.append(site_client("multiad_brain_mri", name, settings, rounds=1))
    start = clients[0].get_weights().weights
    for client in clients:
        client.train(ExchangeObject(weights=start))
    sent = [client.get_weights() for client in clients]
    mean = weighted_mean([s.weights for s in sent], _iterations(sent))
    for student in ("local", "semantic"):
        names = [key for key in mean if key.startswith(f"student.{student}.")]
        moved = [key for key in names if not torch.equal(mean[key], start[key])]
        assert len(moved) > 0.9 * len(names) > 0
    for client in clients:
        loss = client.evaluate(ExchangeObject(weights=mean)).metrics["loss_distillation"]
        assert loss > 0
