"""The handler of a run over labelled studies: each is reduced when it comes."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.data import MetaTensor

from multiad_med.card import ModelCard
from multiad_med.data import StudyError
from multiad_med.evaluation import EvaluationHandler
from multiad_med.scoring import Level, NormalScores
from multiad_med.testing.slice_caches import volume_case


class _Network(torch.nn.Linear):
    """What the handler asks of a calibrated network."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        normal = NormalScores((0.45,) * 19, 0.05)
        self.card = ModelCard(levels=dict.fromkeys(Level, normal))
        self.pixel_false_positive_rate = torch.tensor(0.01)


def _study(name: str, *, lesion: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    case = volume_case(name, lesion=lesion)
    volumes = {
        key: getattr(case, attribute).permute(1, 2, 0)[None].float()
        for key, attribute in (
            ("pred", "anomaly_map"),
            ("image", "image"),
            ("label", "label"),
            ("foreground", "foreground"),
        )
    }
    meta = {"filename_or_obj": f"{name}.nii.gz"}
    output = {
        "pred": MetaTensor(volumes["pred"], affine=torch.eye(4), meta=meta),
        "image": volumes["image"],
        "slice_scores": case.scores,
    }
    return {"label": volumes["label"], "foreground": volumes["foreground"]}, output


def test_each_study_is_reduced_when_it_comes_and_the_report_has_all(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"model")
    handler = EvaluationHandler(
        tmp_path / "out",
        network=_Network(),  # type: ignore[arg-type]
        model=tmp_path / "model.pt",
        data=tmp_path,
        bootstrap=5,
    )
    engine = SimpleNamespace(state=SimpleNamespace(batch=[], output=[], metrics={}))
    handler._start(engine)  # type: ignore[arg-type]
    for name, lesion in (("a", True), ("b", False)):
        item, output = _study(name, lesion=lesion)
        seen = weakref.ref(output["pred"])
        engine.state.batch, engine.state.output = [item], [output]
        handler._collect(engine)
        del item, output
        engine.state.batch, engine.state.output = [], []
        assert seen() is None
    handler._finish(engine)  # type: ignore[arg-type]
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["counts"]["studies"] == 2
    assert [row["verdict"] for row in metrics["studies"]] == ["anomalous", "normal"]
    assert metrics["calibration"]["volume"]["observed_rate"] == 0.0
    assert engine.state.metrics["image_auroc"] == 1


def test_a_study_without_a_mask_is_an_error(tmp_path: Path) -> None:
    handler = EvaluationHandler(
        tmp_path,
        network=_Network(),  # type: ignore[arg-type]
        model=tmp_path / "model.pt",
        data=tmp_path,
    )
    item, output = _study("a", lesion=True)
    del item["label"]
    engine = SimpleNamespace(state=SimpleNamespace(batch=[item], output=[output]))
    handler._start(engine)  # type: ignore[arg-type]
    with pytest.raises(StudyError, match=r"a\.nii\.gz: there is no lesion mask"):
        handler._collect(engine)
