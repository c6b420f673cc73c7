"""Bundles run in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from multiad_med.data import StudyError
from multiad_med.resources import run_bundle
from multiad_med.testing.cohorts import FAST
from multiad_med.utils.errors import user_error


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
            **{**FAST, **override},
        )
    except Exception as error:
        if not isinstance(user_error(error), StudyError):
            raise
    content = json.loads((out / "summary.json").read_text())
    return {Path(row["image"]).name: row for row in content["studies"]}


def train(bundle: str, data: Path, models: Path, **override: Any) -> dict[str, torch.Tensor]:
    """Train for one epoch, without self-test; the state of the model."""
    run_bundle(
        bundle,
        "train.json",
        workflow_type="train",
        dataset_dir=str(data),
        ckpt_dir=str(models),
        output_dir=str(models),
        **{**FAST, "max_epochs": 1, "batch_size": 4, "self_test": False, **override},
    )
    state: dict[str, torch.Tensor] = torch.load(models / "model.pt", weights_only=True)
    return state
