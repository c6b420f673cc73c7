"""Handlers: resume, whole files, failures told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader

from multiad_med.card import ModelCard
from multiad_med.data import StudyDataset, StudyError, state_sha256
from multiad_med.inference import StudyFailureHandler
from multiad_med.scoring import Level, NormalScores
from multiad_med.testing.networks import TinyFeatures, tiny_multiad
from multiad_med.training import (
    CheckpointError,
    DistillationTrainer,
    EpochSeedHandler,
    ModelSaver,
    ResumableTraining,
)
from multiad_med.training.handlers import next_steps
from multiad_med.utils.errors import InputError


class KilledError(Exception):
    """Stands for the end of the process."""


def _kill(engine: Engine) -> None:
    raise KilledError


def _other_teacher() -> TinyFeatures:
    torch.manual_seed(1)
    return TinyFeatures()


def _train(
    folder: Path,
    epochs: int,
    *,
    resume: bool = True,
    killed_in: int | None = None,
    settings: dict[str, Any] | None = None,
    fused: tuple[int, ...] = (1, 2, 3, 4),
    teacher: TinyFeatures | None = None,
) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = tiny_multiad()
    if teacher is not None:
        network.teacher.load_state_dict(teacher.state_dict())
    network.card.network = {"fused": fused}
    optimizer = torch.optim.Adam(network.student.parameters(), 1e-3)
    data = [{"image": torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))}]
    trainer = DistillationTrainer(
        "cpu",
        epochs,
        data,
        network,
        optimizer,
        train_handlers=[
            EpochSeedHandler(0),
            ResumableTraining(
                folder / "checkpoint.pt",
                {"network": network, "optimizer": optimizer},
                settings=settings,
                resume=resume,
            ),
            ModelSaver(folder / "model.pt", network),
        ],
    )
    if killed_in is not None:
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=killed_in), _kill)
    trainer.run()
    return network.state_dict()


def test_resumed_training_equals_the_undisturbed_one(tmp_path: Path) -> None:
    undisturbed = _train(tmp_path / "a", 4)
    with pytest.raises(KilledError):
        _train(tmp_path / "b", 4, killed_in=3)
    assert torch.load(tmp_path / "b" / "checkpoint.pt", weights_only=True)["trainer"]["epoch"] == 2
    resumed = _train(tmp_path / "b", 4)
    saved = torch.load(tmp_path / "b" / "model.pt", weights_only=True)
    for key, value in undisturbed.items():
        for other in (resumed[key], saved[key]):
            assert torch.equal(value.nan_to_num(), other.nan_to_num()), key
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["checkpoint.pt", "model.pt"]


def test_a_checkpoint_has_a_hash_in_place_of_the_teacher(tmp_path: Path) -> None:
    state = _train(tmp_path, 1)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert set(state) - set(saved["network"]) == {k for k in state if k.startswith("teacher.")}
    torch.manual_seed(0)
    assert saved["teacher_sha256"] == state_sha256(tiny_multiad().teacher)
    model = torch.load(tmp_path / "model.pt", weights_only=True)
    assert model.keys() == state.keys()


def test_training_is_not_resumed_with_another_teacher(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        _train(tmp_path, 3, killed_in=2)
    before = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    other = state_sha256(_other_teacher())
    with pytest.raises(
        CheckpointError, match=f"SHA-256 {before['teacher_sha256']}.*{other}.*teacher_weights"
    ):
        _train(tmp_path, 3, teacher=_other_teacher())
    _train(tmp_path, 3)


def test_a_checkpoint_of_an_older_version_brings_its_teacher(tmp_path: Path) -> None:
    undisturbed = _train(tmp_path / "a", 3)
    with pytest.raises(KilledError):
        _train(tmp_path / "b", 3, killed_in=2)
    path = tmp_path / "b" / "checkpoint.pt"
    older = torch.load(path, weights_only=True)
    del older["teacher_sha256"]
    older["network"] |= {k: v for k, v in undisturbed.items() if k.startswith("teacher.")}
    torch.save(older, path)
    resumed = _train(tmp_path / "b", 3, teacher=_other_teacher())
    for key, value in undisturbed.items():
        assert torch.equal(value.nan_to_num(), resumed[key].nan_to_num()), key


SETTINGS = {"preparation": {"size": 64}, "training": {"learning_rate": 1e-3, "data": {"sha": "a"}}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**SETTINGS, "preparation": {"size": 96}}, r"preparation\.size\b.*\b64\b.*\b96\b"),
        (
            {**SETTINGS, "training": {"learning_rate": 2e-3, "data": {"sha": "b"}}},
            r'learning_rate\b.*0\.001.*0\.002; training\.data\.sha\b.*"a".*"b"',
        ),
    ],
)
def test_training_is_not_resumed_with_other_settings(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(KilledError):
        _train(tmp_path, 3, killed_in=2, settings=SETTINGS)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(CheckpointError, match=f"{message}.*resume to false"):
        _train(tmp_path, 3, settings=settings)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    _train(tmp_path, 3, settings=SETTINGS)
    _train(tmp_path, 3, settings=settings, resume=False)


def test_training_is_not_resumed_with_another_network(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        _train(tmp_path, 3, killed_in=2)
    with pytest.raises(CheckpointError, match=r"network\.fused\b.*\[1, 2, 3, 4\].*\[1, 2\]"):
        _train(tmp_path, 3, fused=(1, 2))


def test_a_finished_training_says_that_nothing_is_trained(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _train(tmp_path, 1)
    assert "nothing is trained" not in caplog.text
    _train(tmp_path, 1)
    assert "nothing is trained" in caplog.text


@pytest.mark.parametrize("content", [b"", b"half a checkp"])
def test_unreadable_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"resume\b.*checkpoint\.pt"):
        _train(tmp_path, 1)
    _train(tmp_path, 1, resume=False)


def test_checkpoint_of_another_training_names_the_key(tmp_path: Path) -> None:
    _train(tmp_path, 1)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["network"]["student.backbone.stem.weight"]
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"student\.backbone\.stem\.weight"):
        _train(tmp_path, 1)


def test_checkpoint_for_another_number_of_epochs_is_refused(tmp_path: Path) -> None:
    _train(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"\b1 epochs\b.*\b2\b"):
        _train(tmp_path, 2)


def test_epoch_seed_depends_on_seed_and_epoch_alone() -> None:
    engine = Engine(lambda e, b: None)
    draws = {}
    for seed, epoch in [(0, 1), (0, 2), (1, 1), (0, 1)]:
        torch.rand(3)
        engine.state.epoch = epoch
        EpochSeedHandler(seed)(engine)
        draws.setdefault((seed, epoch), []).append(float(torch.rand(1)))
    assert draws[0, 1][0] == draws[0, 1][1]
    assert len({values[0] for values in draws.values()}) == 3


def test_failed_studies_end_the_run_with_a_list() -> None:
    def transform(item: dict[str, str]) -> dict[str, str]:
        if "bad" in item["image"]:
            raise InputError("truncated")
        return item

    dataset = StudyDataset(
        [{"image": "a.nii"}, {"image": "bad.nii"}, {"image": "c.nii"}], transform
    )
    for batch in DataLoader(dataset):
        with dataset.at_work(batch):
            pass
    assert [o.status for o in dataset.outcomes] == ["done", "failed", "done"]
    engine = Engine(lambda e, b: None)
    with pytest.raises(StudyError, match=r"1 of 3 studies failed:\n  bad\.nii: truncated"):
        StudyFailureHandler(dataset)(engine)


def test_training_ends_with_the_model_what_it_rests_on_and_the_next_command() -> None:
    few, enough = NormalScores((0.5,) * 8, 0.05), NormalScores((0.5,) * 19, 0.05)
    card = ModelCard(levels={Level.SLICE: enough, Level.VOLUME: few, Level.PATIENT: enough})
    facts = (
        r"\ba run/model\.pt\b",
        r"\b19 slices, 8 volumes, 19 patients\b",
        r"few volumes\b.*\b0\.05\b.*\b19\b",
        r"multiad predict NEW -m 'a run/model\.pt' -o MAPS$",
    )
    for line, fact in zip(next_steps(card, Path("a run/model.pt")), facts, strict=True):
        assert re.search(fact, line)
