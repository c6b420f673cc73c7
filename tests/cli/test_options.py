"""What is checked before work begins: settings, model, output folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiad_med.cli.options import check_model, check_output, parse_checked
from multiad_med.utils import InputError
from tests.cli.runs import mistake

BRAIN = {"bundle": "multiad_brain_mri", "config": "train.json"}


@pytest.mark.parametrize("verb", [("train", "brain_mri", "in"), ("evaluate", "in"), ("demo",)])
def test_an_output_that_is_an_address_is_refused_before_work_begins(verb: tuple[str, ...]) -> None:
    told = mistake(*verb, "-o", "s3://b/run")
    assert "--output s3://b/run: only `multiad predict --ray` writes to object storage." in told


def test_settings_are_ids_of_the_bundles_config() -> None:
    given = ["size=128", "optimizer#_target_=torch.optim.AdamW", "fused=[2]", "loss#hardest=0.2"]
    assert parse_checked(given, **BRAIN) == {
        "size": 128,
        "optimizer#_target_": "torch.optim.AdamW",
        "fused": [2],
        "loss#hardest": 0.2,
    }


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("max_epoch=3", "max_epochs"),
        ("sizes=3", "size"),
        ("train#sampelr#seed=3", "train#sampler"),
        ("device=cpu", "--device"),
        ("output_dir=x", "--output"),
        ("size", "takes NAME=VALUE"),
    ],
)
def test_an_unknown_setting_is_told_with_the_nearest_one(pair: str, message: str) -> None:
    with pytest.raises(InputError, match=f"--set .*{message}") as told:
        parse_checked([pair], **BRAIN)
    assert "\n" not in str(told.value)


def test_globs_of_images_and_labels_are_settings_where_the_bundle_has_them() -> None:
    chosen = parse_checked(None, **BRAIN, image_glob="*T1*", label_glob="*seg*", seed=None)
    assert chosen == {"image_glob": "*T1*", "label_glob": "*seg*"}
    with pytest.raises(InputError, match=r"--images: .*multiad_industrial"):
        parse_checked(None, bundle="multiad_industrial", config="train.json", image_glob="*.png")
    with pytest.raises(InputError, match=r"--smallest: .*multiad_brain_mri"):
        parse_checked(None, **BRAIN, smallest=8)
    assert parse_checked(["image_glob=*T2*"], **BRAIN) == {"image_glob": "*T2*"}
    with pytest.raises(InputError, match=r"--set image_glob=\*T2\*: .*--images \*T1"):
        parse_checked(["image_glob=*T2*"], **BRAIN, image_glob="*T1*")


def test_a_missing_model_is_told_with_what_writes_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no model file .*x\.pt.*`multiad train`"):
        check_model(tmp_path / "x.pt")
    (tmp_path / "model.pt").touch()
    with pytest.raises(InputError, match=rf"mean {tmp_path}/model\.pt\?"):
        check_model(tmp_path)


def test_an_output_folder_is_new_empty_or_of_an_earlier_run(tmp_path: Path) -> None:
    own = ("model.pt", "**/*_anomaly.json")
    assert check_output(tmp_path / "new", own=own) == tmp_path / "new"
    (tmp_path / ".hidden").touch()
    check_output(tmp_path, own=own)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"other files.*\bnotes\.txt"):
        check_output(tmp_path, own=own)
    (tmp_path / "p1").mkdir()
    (tmp_path / "p1" / "x_anomaly.json").touch()
    check_output(tmp_path, own=own)
    with pytest.raises(InputError, match="is a file"):
        check_output(tmp_path / "notes.txt", own=own)
