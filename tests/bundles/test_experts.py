"""Presets without a student, and experts beside one, through the front door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from multiad_med import AnomalyDetector
from multiad_med.inference.export_model import export_onnx
from multiad_med.networks import read_card
from multiad_med.testing.cohorts import COHORTS

TINY: dict[str, Any] = {"size": 64, "teacher_weights": "random", "batch_size": 4, "max_epochs": 1}


@pytest.mark.parametrize("domain", ["brain_mri", "industrial"])
@pytest.mark.parametrize(
    ("preset", "expert"), [("gaussian", "position_gaussian"), ("neighbours", "nearest_normal")]
)
def test_an_expert_alone_is_a_model_in_one_pass(
    domain: str, preset: str, expert: str, tmp_path: Path
) -> None:
    data = COHORTS[f"multiad_{domain}"](tmp_path)
    detector = AnomalyDetector(domain, preset=preset, **TINY).fit(data, output=tmp_path / "run")
    card = read_card(tmp_path / "run" / "model.pt")
    assert card is not None
    assert card.network["experts"] == [expert]
    assert card.network["student"] == "none"
    assert card.network["stages"] == []
    weights = detector.network.state_dict()
    assert not any(weights[key].numel() for key in weights if key.startswith("student."))
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    result = next(iter(detector.predict_folder(data, output=tmp_path / "maps")))
    assert 0 <= result.score < 1


def test_experts_beside_a_student_survive_a_stop_and_an_export(tmp_path: Path) -> None:
    data = COHORTS["multiad_industrial"](tmp_path)
    given = {
        **TINY,
        "max_epochs": 2,
        "experts": ["position_gaussian", "nearest_normal"],
        "fusion": "hazard",
        "fused": [2],
    }
    states = []
    for name in ("whole", "again"):
        AnomalyDetector("industrial", **given).fit(data, output=tmp_path / name)
        if name == "again":  # calibrates once more from the checkpoint of a finished training
            (tmp_path / name / "model.pt").unlink()
            AnomalyDetector("industrial", **given).fit(data, output=tmp_path / name)
        states.append(torch.load(tmp_path / name / "model.pt", weights_only=True))
    for key, value in states[0].items():
        if key != "_extra_state":
            assert torch.equal(value, states[1][key]), key
    assert states[0]["fusion.weights"].tolist() == [0, 1, 0, 1, 1]

    import onnxruntime

    network = AnomalyDetector.load(tmp_path / "whole" / "model.pt").network.eval()
    file = export_onnx(tmp_path / "whole" / "model.pt", tmp_path / "model.onnx")
    x = torch.rand(2, 3, 64, 64)
    session = onnxruntime.InferenceSession(file)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.as_tensor(found), network(x), atol=1e-4, rtol=1e-3)
