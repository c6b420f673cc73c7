"""The whole paper by one word: every bundle's ``paper.json``, as a command, in Python and by MONAI."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest
import torch
from torch.optim.lr_scheduler import ConstantLR

from multiad_med import AnomalyDetector
from multiad_med.cross_calibration import cross_calibrate
from multiad_med.networks import PRESETS, Preset, ResNetFeatures, read_card
from multiad_med.networks.model_file import open_model
from multiad_med.resources import bundle_path, bundle_workflow, presets, read_config
from multiad_med.testing.cohorts import COHORTS, one_bundle_per_input
from multiad_med.training import CheckpointError, ResumableTraining
from multiad_med.utils.configs import unknown_id
from multiad_med.utils.errors import InputError
from tests.cli.runs import multiad
from tests.test_detector import run_monai

FAST = {
    "size": 64,
    "batch_size": 2,
    "max_epochs": 1,
    "teacher_weights": "random",
    "self_test": False,  # hundreds of passes, which tests of its own look at
}
TWO_STEPS = {**FAST, "train#trainer#epoch_length": 2}
SMALL = {**FAST, "network_def#preset": "resnet18", "device": "cpu"}
"""The paper's training of a small network, where it is the training that is tested."""


def thin(data: Path) -> Path:
    """Leave two slices of every volume of a cohort."""
    for path in data.rglob("*.nii.gz"):
        volume: Any = nib.load(path)
        middle = volume.shape[2] // 2
        nib.save(
            nib.Nifti1Image(
                volume.slicer[..., middle - 1 : middle + 1].get_fdata(), None, volume.header
            ),
            path,
        )
    return data


def train_paper(bundle: str, folder: Path) -> tuple[Path, Path]:
    """The data and the run of ``multiad train … --preset paper``, two steps at 64²."""
    data = thin(COHORTS[bundle](folder))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pairs = [word for k, v in TWO_STEPS.items() for word in ("--set", f"{k}={v}")]
    domain = bundle.removeprefix("multiad_")
    words = ("train", domain, data, "-o", folder / "run", "--preset", "paper", "--device", "cpu")
    result = multiad(*words, *pairs)
    torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output
    return data, folder / "run"


@pytest.fixture(scope="module")
def industrial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """What :func:`train_paper` leaves; two gigabytes, most of them of Adam."""
    folder = tmp_path_factory.mktemp("paper")
    yield train_paper("multiad_industrial", folder)
    shutil.rmtree(folder)


@pytest.mark.parametrize("bundle", one_bundle_per_input())
def test_two_steps_of_the_paper_give_a_model_whose_card_tells_it(
    bundle: str, industrial: tuple[Path, Path], tmp_path: Path
) -> None:
    shared = bundle == "multiad_industrial"
    _, run = industrial if shared else train_paper(bundle, tmp_path)
    card = read_card(run / "model.pt")
    assert card is not None
    assert card.network == {
        "preset": "literal",
        "output_stride": 4,
        "se": True,
        "student": "image",
        "stages": [1, 2, 3, 4],
        "fused": [1, 2, 3, 4],
        "experts": [],
        "residual": "cosine",
        "fusion": "zscore",
        "sigma": 4.0,
    }
    told = {name: card.training[name] for name in ("preset", "adversarial_weight", "batch_size")}
    assert told == {"preset": "paper", "adversarial_weight": 0.01, "batch_size": 2}
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    assert state["trainer"]["iteration"] == 2
    # Eq. 5 before D, and after D's last convolution all 16 x 16 locations of stage 3.
    assert state["discriminator"]["fusion.conv.weight"].shape == (2048, 1024 + 2048, 1, 1)
    linear = [v for k, v in state["discriminator"].items() if v.ndim == 2]
    assert [tuple(weight.shape) for weight in linear] == [(1, 1024 * 16 * 16)]
    assert state["optimizer"]["param_groups"][0]["lr"] == 0.001
    assert state["discriminator_optimizer"]["param_groups"][0]["lr"] == 0.001
    if not shared:
        shutil.rmtree(run)


def test_the_command_and_monai_give_the_same_weights_and_inference_needs_no_option(
    industrial: tuple[Path, Path], tmp_path: Path
) -> None:
    data, run = industrial
    configs = bundle_path("multiad_industrial") / "configs"
    run_monai(
        "multiad_industrial",
        "training",
        "train.json",
        tmp_path,
        config_file=f"['{configs / 'train.json'}','{configs / 'paper.json'}']",
        dataset_dir=data,
        ckpt_dir=tmp_path / "monai",
        output_dir=tmp_path / "monai",
        **TWO_STEPS,
    )
    ours, theirs = (
        torch.load(f / "model.pt", weights_only=True) for f in (run, tmp_path / "monai")
    )
    assert set(ours) == set(theirs)
    for name in set(theirs) - {"_extra_state"}:
        assert torch.equal(ours[name], theirs[name]), name
    shutil.rmtree(tmp_path / "monai")

    teacher = open_model(run / "model.pt").teacher
    assert isinstance(teacher, ResNetFeatures)
    assert teacher.strides == (4, 4, 4, 4)
    detector = AnomalyDetector.load(run / "model.pt", device="cpu")
    image = next(data.rglob("test/*/*.png"))
    assert 0 <= detector.predict(image).score < 1


def test_a_run_of_the_paper_is_not_continued_by_the_default(
    industrial: tuple[Path, Path],
) -> None:
    data, run = industrial
    detector = AnomalyDetector("industrial", device="cpu", **TWO_STEPS)
    with pytest.raises(CheckpointError, match=r'network\.preset .*"literal"'):
        detector.fit(data, output=run)


def test_a_run_of_the_paper_that_was_stopped_ends_as_one_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = COHORTS["multiad_industrial"](tmp_path)
    detector = AnomalyDetector("industrial", preset="paper", **SMALL, seed=5)
    detector.fit(data, output=tmp_path / "alone", max_epochs=2)
    save = ResumableTraining.save

    def stop(self: ResumableTraining, engine: Any) -> None:
        save(self, engine)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ResumableTraining, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            detector.fit(data, output=tmp_path / "stopped", max_epochs=2)
    assert not (tmp_path / "stopped" / "model.pt").exists()
    detector.fit(data, output=tmp_path / "stopped", max_epochs=2)
    for file, part in (("model.pt", None), ("checkpoint.pt", "discriminator")):
        first, second = (
            torch.load(tmp_path / name / file, weights_only=True) for name in ("alone", "stopped")
        )
        for name, value in (first[part] if part else first).items():
            assert torch.equal(value, (second[part] if part else second)[name]), name


def test_cross_calibration_trains_its_folds_by_the_paper_too(tmp_path: Path) -> None:
    data = thin(COHORTS["multiad_brain_mri"](tmp_path))
    detector = AnomalyDetector("brain_mri", preset="paper", **SMALL)
    detector.fit(data, output=tmp_path / "run")
    assert detector.model is not None
    cross_calibrate(detector.model, data, tmp_path / "folds", folds=2, device="cpu")
    state = torch.load(tmp_path / "folds" / "fold0" / "checkpoint.pt", weights_only=True)
    assert "fusion.conv.weight" in state["discriminator"]
    card = read_card(tmp_path / "folds" / "fold0" / "model.pt")
    assert card is not None
    assert card.training["preset"] == "paper"
    assert card.network["preset"] == "resnet18"


def test_the_settings_are_those_of_section_4_and_what_is_set_counts_more() -> None:
    workflow = bundle_workflow(
        "multiad_brain_mri", "train.json", workflow_type="train", preset="paper", seed=7
    )
    config = workflow.parser
    assert PRESETS[config.get("preset")] == Preset("wide_resnet50_2", output_stride=4, se=True)
    section_4 = {"size": 256, "max_epochs": 250, "batch_size": 16, "learning_rate": 0.001}
    section_4 |= {"discriminator_learning_rate": 0.001, "score_fraction": 0.0, "seed": 7}
    assert {name: config.get(name) for name in section_4} == section_4
    assert config.get("optimizer")["_target_"] == "torch.optim.Adam"
    assert config.get_parsed_content("loss").hardest == 1.0
    config.update({"network_def#preset": "resnet18", "network_def#teacher_weights": "random"})
    config.parse(reset=True)
    schedule = config.get_parsed_content("lr_scheduler")
    assert isinstance(schedule, ConstantLR)
    assert schedule.get_last_lr() == [0.001]
    other = bundle_workflow(
        "multiad_brain_mri", "train.json", workflow_type="train", preset="paper", max_epochs=3
    )
    assert other.parser.get("max_epochs") == 3


@pytest.mark.parametrize("bundle", one_bundle_per_input())
def test_the_overlay_changes_what_the_training_reads(bundle: str) -> None:
    train, overlay = (read_config(bundle, name) for name in ("train.json", "paper.json"))
    for key in set(overlay) - {"card#settings#preset"}:
        assert unknown_id(key, train) is None, key
    own = ["dinomaly", "dual_dinov2_b", "dual_dinov2_s", "dual_lite2"]
    own += ["gaussian", "neighbours", "paper"]
    assert presets(bundle) == list(dict.fromkeys([*own, *PRESETS]))


def test_a_bundles_own_presets_are_configs_that_name_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = tmp_path / "bundles" / "multiad_mine" / "configs"
    configs.mkdir(parents=True)
    for name, content in {
        "train": {"preset": "resnet18", "size": 64, "card": {"settings": {}}},
        "short": {"card#settings#preset": "short", "max_epochs": 2},
        "other": {"max_epochs": 2},
    }.items():
        (configs / f"{name}.json").write_text(json.dumps(content))
    monkeypatch.setattr("multiad_med.resources.bundles_dir", lambda: tmp_path / "bundles")
    assert presets("multiad_mine") == ["short", *PRESETS]


def test_an_unknown_preset_is_told_with_the_nearest() -> None:
    with pytest.raises(
        InputError,
        match=r"'papr'.*mean paper\?.*\bgaussian\b",
    ):
        AnomalyDetector("brain_mri", preset="papr")
    with pytest.raises(InputError, match=r"mean resnet18\b"):
        AnomalyDetector("brain_mri", preset="resnet19")
    with pytest.raises(InputError, match=r"train\.json.*paper\.json.*multiad_brain_mri"):
        AnomalyDetector("brain_mri", preset="paper", sizes=3)
