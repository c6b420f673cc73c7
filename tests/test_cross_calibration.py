"""Thresholds from training subjects: every subject is scored by a model that has not seen it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from multiad_med.cross_calibration import cross_calibrate
from multiad_med.networks import open_model
from multiad_med.scoring import Level
from multiad_med.testing.brains import head, write_nifti
from multiad_med.testing.cohorts import FAST
from multiad_med.utils.errors import InputError
from tests.bundles.models import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of seven normal subjects, one of them held out, and a model of it."""
    folder = tmp_path_factory.mktemp("cross")
    for index in range(7):
        volume = head(np.random.default_rng(index), (40, 48, 6))
        write_nifti(folder / "data" / f"s{index}.nii.gz", volume, np.diag([4.0, 4, 8, 1]))
    train("multiad_brain_mri", folder / "data", folder / "models")
    return folder / "data", folder / "models" / "model.pt"


@pytest.mark.slow
def test_each_training_subject_is_scored_by_the_model_of_another_fold(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    data, model = trained
    before = open_model(model)
    target = cross_calibrate(model, data, tmp_path, folds=3, device=FAST["device"])
    after = open_model(target)
    normals = after.card.level(Level.VOLUME)
    assert normals.units == 6
    assert after.card.level(Level.PATIENT).units == 6
    assert normals.approximate.startswith("3-fold cross-calibration")
    scores: dict[str, float] = {}
    for fold in range(3):
        seen = {
            Path(item["image"]).name: item
            for item in json.loads(
                (tmp_path / f"fold{fold}" / "maps" / "summary.json").read_text()
            )["studies"]
        }
        assert len(seen) == 2
        assert not seen.keys() & scores.keys()
        scores |= {name: row["score"] for name, row in seen.items()}
    assert sorted(normals.scores) == pytest.approx(sorted(scores.values()), abs=1e-6)
    for name, value in before.state_dict().items():
        if name != "_extra_state":
            assert torch.equal(value, after.state_dict()[name])
    assert after.card.network == before.card.network
    assert after.card.preparation == before.card.preparation


def test_other_data_than_the_models_are_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, model = trained
    other = tmp_path / "other"
    shutil.copytree(data, other)
    write_nifti(other / "s9.nii.gz", head(np.random.default_rng(9)))
    with pytest.raises(InputError, match="model was trained on"):
        cross_calibrate(model, other, tmp_path / "out", device=FAST["device"])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_folds_score_by_the_rule_of_the_model(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    data, _ = trained
    other = tmp_path / "run#1"  # a sign that configs take for their own
    shutil.copytree(data, other)
    train("multiad_brain_mri", other, tmp_path / "models", score_fraction=0.0)
    model = tmp_path / "models" / "model.pt"
    cross_calibrate(model, other, tmp_path / "cross", folds=2, device=FAST["device"])
    for fold in ("fold0", "fold1"):
        assert float(open_model(tmp_path / "cross" / fold / "model.pt").score_fraction) == 0
    with pytest.raises(InputError, match="replace the model"):
        cross_calibrate(model, other, model.parent, folds=2, device=FAST["device"])


@pytest.mark.parametrize("folds", [1, 7])
def test_impossible_numbers_of_folds_are_refused(
    folds: int, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    data, model = trained
    with pytest.raises(InputError, match=rf"\b2\b.*\b6\b.*got {folds}"):
        cross_calibrate(model, data, tmp_path / "out", folds=folds, device=FAST["device"])
