"""The brain bundle, driven as MONAI's tools drive any bundle of the model zoo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import create_workflow

from multiad_med.metrics import auroc
from multiad_med.networks import WeightsError
from multiad_med.resources import bundle_path, config_files
from multiad_med.testing.brains import make_brains

ROOT = bundle_path("multiad_brain_mri")
CONFIGS = ROOT / "configs"
FAST = {
    "max_epochs": 2,
    "batch_size": 4,
    "size": 64,
    "adversarial_weight": 0.01,
    "device": "$torch.device('cpu')",
}


def workflow(kind: str, config: str, **override: Any) -> Any:
    return create_workflow(
        config_file=[str(CONFIGS / file) for file in config_files(config)],
        meta_file=str(CONFIGS / "metadata.json"),
        logging_file=str(CONFIGS / "logging.conf"),
        workflow_type=kind,
        bundle_root=str(ROOT),
        **override,
    )


def run(kind: str, config: str, **override: Any) -> Any:
    flow = workflow(kind, config, **override)
    flow.run()
    flow.finalize()
    return flow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A cohort and the model that two epochs on it give."""
    folder = tmp_path_factory.mktemp("trained")
    data = make_brains(folder)
    paths = {"data": data, "models": folder / "models", "out": folder / "out"}
    run(
        "train",
        "train.json",
        dataset_dir=str(data),
        ckpt_dir=str(paths["models"]),
        output_dir=str(paths["out"]),
        **FAST,
    )
    return paths


def _inference(
    trained: dict[str, Path], out: Path, data: Path | None = None, **override: Any
) -> Any:
    return run(
        "infer",
        override.pop("config", "inference.json"),
        dataset_dir=str(data or trained["data"]),
        ckpt_path=str(trained["models"] / "model.pt"),
        output_dir=str(out),
        size=64,
        device="$torch.device('cpu')",
        **override,
    )


def test_training_writes_model_checkpoint_and_tensorboard(trained: dict[str, Path]) -> None:
    state = torch.load(trained["models"] / "model.pt", weights_only=True)
    assert bool(state["calibrated"])
    assert float(state["pixel_false_positive_rate"]) == pytest.approx(0.001)
    assert sorted(p.name for p in trained["models"].iterdir()) == [
        "best.pt",
        "checkpoint.pt",
        "model.pt",
    ]
    assert state["fusion.weights"].tolist() == [0.0, 0.5, 0.5, 1.0]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags: set[str] = set()
    for file in trained["out"].glob("events.*"):
        events = EventAccumulator(str(file)).Reload()
        tags |= {tag for kind in ("scalars", "images", "histograms") for tag in events.Tags()[kind]}
    assert tags >= {
        "learning_rate",
        "validation_maps",
        "validation_distance",
        "validation_slice_score",
        "weights/bottleneck.reductions.0.0.0.weight",
        "gradients/bottleneck.reductions.0.0.0.weight",
    }
    for scalar in (
        "loss",
        "loss_distillation",
        "loss_adversarial",
        "loss_discriminator",
        "discriminator_accuracy",
    ):
        assert scalar in tags or f"train_{scalar}" in tags, tags


def test_inference_writes_maps_masks_and_scores_on_the_sources_grid(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    _inference(trained, tmp_path)
    items = json.loads((trained["data"] / "datalist.json").read_text())["test"]
    assert items
    for item in items:
        source = nib.load(trained["data"] / item["image"])
        name = item["image"].removesuffix(".nii.gz")
        heat = nib.load(tmp_path / f"{name}_anomaly_map.nii.gz")
        mask = nib.load(tmp_path / f"{name}_anomaly_mask.nii.gz")
        for result in (heat, mask):
            assert result.shape == source.shape
            np.testing.assert_allclose(result.affine, source.affine, atol=1e-4)
            assert result.header.get_xyzt_units() == source.header.get_xyzt_units()
        assert heat.get_data_dtype() == np.float32
        assert mask.get_data_dtype() == np.uint8
        values = heat.get_fdata()
        assert values.min() >= 0
        assert values.max() < 1
        np.testing.assert_array_equal(np.asarray(mask.dataobj) > 0, values >= 0.5)
        scores = json.loads((tmp_path / f"{name}_anomaly.json").read_text())
        assert scores["volume_score"] == max(s["score"] for s in scores["slices"])
        skipped = scores["not_scored_slices"]
        assert skipped
        assert not values[..., skipped].any()


def test_evaluation_writes_metrics_equal_to_those_of_the_written_maps(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    _inference(trained, tmp_path, config="evaluate.json")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for key in ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro", "best_dice", "dice"):
        assert 0 <= metrics[key] <= 1
    maps, masks = [], []
    items = json.loads((trained["data"] / "datalist.json").read_text())["test"]
    assert items
    for item in items:
        name = item["image"].removesuffix(".nii.gz")
        scored = [
            s["slice"]
            for s in json.loads((tmp_path / f"{name}_anomaly.json").read_text())["slices"]
        ]
        maps.append(
            nib.load(tmp_path / f"{name}_anomaly_map.nii.gz").get_fdata()[..., scored].ravel()
        )
        masks.append(
            np.asarray(nib.load(trained["data"] / item["label"]).dataobj)[..., scored].ravel()
        )
    expected = auroc(
        torch.from_numpy(np.concatenate(maps)), torch.from_numpy(np.concatenate(masks) > 0)
    )
    assert metrics["pixel_auroc"] == pytest.approx(expected, abs=1e-4)  # counted in bins
    assert [v["subject"] for v in metrics["studies"]] == ["s4", "s5"]
    page = (tmp_path / "report.html").read_text()
    assert all(subject in page for subject in ("s4", "s5"))
    network = metrics["manifest"]["config"]["network"]
    assert network["preset"] == "efficientnet_lite0_decoder"
    assert metrics["baselines"].keys() >= {"intensity", "slice position"}


def test_a_folder_of_volumes_trains_and_infers_without_a_datalist(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    images = trained["data"] / "images"
    run(
        "train",
        "train.json",
        dataset_dir=str(images),
        ckpt_dir=str(tmp_path / "models"),
        output_dir=str(tmp_path / "out"),
        **{**FAST, "max_epochs": 1, "adversarial_weight": 0.0},
    )
    _inference({**trained, "models": tmp_path / "models"}, tmp_path / "maps", data=images)
    assert len(list((tmp_path / "maps").glob("*_anomaly_map.nii.gz"))) == 6


def test_files_of_one_name_in_different_folders_do_not_overwrite_each_other(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    for subject in ("s4", "s5"):
        (tmp_path / "in" / subject).mkdir(parents=True)
        image = trained["data"] / "images" / f"{subject}.nii.gz"
        (tmp_path / "in" / subject / "T1.nii.gz").write_bytes(image.read_bytes())
    _inference(trained, tmp_path / "out", data=tmp_path / "in")
    for subject in ("s4", "s5"):
        scores = json.loads((tmp_path / "out" / subject / "T1_anomaly.json").read_text())
        assert Path(scores["image"]).parent.name == subject
        for end in ("map", "mask"):
            assert (tmp_path / "out" / subject / f"T1_anomaly_{end}.nii.gz").is_file()


def test_a_bad_study_is_passed_over_and_the_run_ends_with_an_error(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    good = (trained["data"] / "images" / "s4.nii.gz").read_bytes()
    (folder / "a_good.nii.gz").write_bytes(good)
    (folder / "b_truncated.nii.gz").write_bytes(good[: len(good) // 2])
    (folder / "c_good.nii.gz").write_bytes(good)
    with pytest.raises(RuntimeError) as error:
        _inference(trained, tmp_path / "out", data=folder)
    chain = str(error.value.__cause__)
    assert "1 of 3 studies failed" in chain
    assert "b_truncated.nii.gz" in chain
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert [n for n in written if n.endswith("map.nii.gz")] == [
        "a_good_anomaly_map.nii.gz",
        "c_good_anomaly_map.nii.gz",
    ]
    assert not [n for n in written if "b_truncated" in n or "partial" in n]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.unlink(), "There is no weights file"),
        (lambda p: p.write_bytes(b"x" * 100), "not a readable"),
        (lambda p: torch.save({"a": torch.ones(1)}, p), "another preset"),
    ],
)
def test_wrong_model_files_are_refused(
    trained: dict[str, Path], tmp_path: Path, damage, message: str
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "model.pt").write_bytes(b"")
    damage(models / "model.pt")
    with pytest.raises(RuntimeError) as error:
        _inference({**trained, "models": models}, tmp_path / "out")
    assert isinstance(error.value.__cause__, WeightsError)
    assert message in str(error.value.__cause__)
    assert not list(tmp_path.glob("out/*.nii.gz"))


def test_uncalibrated_checkpoint_gives_no_maps(trained: dict[str, Path], tmp_path: Path) -> None:
    state = torch.load(trained["models"] / "model.pt", weights_only=True)
    state["calibrated"].fill_(False)
    (tmp_path / "models").mkdir()
    torch.save(state, tmp_path / "models" / "model.pt")
    with pytest.raises(RuntimeError) as error:
        _inference({**trained, "models": tmp_path / "models"}, tmp_path / "out")
    cause: BaseException = error.value
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert "not calibrated" in str(cause)
    assert not list(tmp_path.glob("out/*.nii.gz"))
