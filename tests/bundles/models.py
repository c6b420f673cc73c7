"""Bundles run in this process, with untrained networks where no training is the matter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from monai.bundle import create_workflow

from multiad_med.data import StudyError
from multiad_med.evaluation.command import root_cause
from multiad_med.networks import TeacherWeights, build_multiad
from multiad_med.resources import bundle_path, run_bundle

CPU = "$torch.device('cpu')"


def save_model(path: Path, *, seed: int = 0) -> Path:
    """An untrained network that says it is calibrated."""
    torch.manual_seed(seed)
    network = build_multiad("efficientnet_lite0_decoder", teacher_weights=TeacherWeights.RANDOM)
    network.calibrated.fill_(True)
    network.pixel_false_positive_rate.fill_(0.01)
    network.image_false_positive_rate.fill_(0.05)
    torch.save(network.state_dict(), path)
    return path


def infer(
    bundle: str,
    data: Path,
    model: Path,
    out: Path,
    *,
    config: str = "inference.json",
    **override: Any,
) -> dict[str, dict[str, Any]]:
    """Run inference or evaluation; the rows of its summary by the image's name."""
    try:
        run_bundle(
            bundle,
            config,
            workflow_type="infer",
            dataset_dir=str(data),
            ckpt_path=str(model),
            output_dir=str(out),
            device=CPU,
            **{"size": 64, **override},
        )
    except RuntimeError as error:
        if not isinstance(root_cause(error), StudyError):
            raise
    content = json.loads((out / "summary.json").read_text())
    return {Path(row["image"]).name: row for row in content["studies"]}


def train(bundle: str, data: Path, models: Path, **override: Any) -> dict[str, torch.Tensor]:
    """Train for one epoch; the state of the model."""
    run_bundle(
        bundle,
        "train.json",
        workflow_type="train",
        dataset_dir=str(data),
        ckpt_dir=str(models),
        output_dir=str(models),
        device=CPU,
        **{"size": 64, "max_epochs": 1, "batch_size": 4, **override},
    )
    state: dict[str, torch.Tensor] = torch.load(models / "model.pt", weights_only=True)
    return state


def wrong_properties(bundle: str, data: Path, out: Path, **training: Any) -> dict[str, Any]:
    """What MONAI's tools miss in each config of a bundle; empty lists where nothing is missed."""
    configs, missed = bundle_path(bundle) / "configs", {}
    for kind, config in (("train", "train"), ("infer", "inference"), ("infer", "evaluate")):
        workflow = create_workflow(
            config_file=str(configs / f"{config}.json"),
            meta_file=str(configs / "metadata.json"),
            logging_file=str(configs / "logging.conf"),
            workflow_type=kind,
            bundle_root=str(bundle_path(bundle)),
            dataset_dir=str(data),
            output_dir=str(out),
            size=64,
            device=CPU,
            **(training if kind == "train" else {}),
        )
        missed[config] = workflow.check_properties()
    return missed
