"""What a network says of whole slices: from its second channel to the report."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import Tensor

from multiad_med.evaluation import Case, evaluate_cases
from multiad_med.evaluation.predictions import predicted_cases
from multiad_med.evaluation.report import write_report
from multiad_med.testing.slice_caches import make_cache, volume_case

TITLE = "What whole slices show"


class TwoChannels:
    """Maps an image to itself; of the whole image it says its mean."""

    def predict(self, images: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
        maps = images.mean(dim=1, keepdim=True)
        whole = maps.mean(dim=(2, 3), keepdim=True).expand_as(maps)
        return torch.cat([maps, whole], dim=1), maps.amax(dim=(1, 2, 3))


def _volume(name: str, highest: float) -> Case:
    case = volume_case(name, lesion=name == "a")
    case.whole_scores = torch.linspace(0, highest, 6)
    return case


def test_the_second_channel_is_kept_beside_the_map(tmp_path: Path) -> None:
    cases = list(predicted_cases(TwoChannels(), make_cache(tmp_path)))
    assert cases
    for case in cases:
        assert case.anomaly_map.shape == case.image.shape
        assert case.whole_scores is not None
        torch.testing.assert_close(case.whole_scores, case.image.mean(dim=(1, 2)))


def test_the_report_draws_the_volumes_with_the_most_unusual_slices(tmp_path: Path) -> None:
    highest = {"a": 0.5, "b": 0.9, "c": 0.3, "d": 0.8, "e": 0.7}
    evaluation = evaluate_cases([_volume(*pair) for pair in highest.items()], bootstrap=2)
    curves = evaluation.curves["whole_slices"]
    assert [curve.name for curve in curves] == ["b", "d", "e", "a"]
    assert curves[0].x == [10, 11, 12, 13, 14, 15]
    assert curves[0].y == pytest.approx([0, 0.18, 0.36, 0.54, 0.72, 0.9])
    write_report(evaluation, tmp_path, title="Volumes")
    assert TITLE in (tmp_path / "report.html").read_text()
    with (tmp_path / "slices.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["whole_score"]) for row in rows[:6]] == pytest.approx(
        [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    )


def test_a_report_of_places_alone_does_not_speak_of_whole_slices(tmp_path: Path) -> None:
    evaluation = evaluate_cases([volume_case("a", lesion=True)], bootstrap=2)
    assert "whole_slices" not in evaluation.curves
    write_report(evaluation, tmp_path, title="Volumes")
    assert TITLE not in (tmp_path / "report.html").read_text()
    assert "whole_score" not in (tmp_path / "slices.csv").read_text()
