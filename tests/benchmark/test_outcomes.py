"""A method's run: metrics, costs, its own process, and what happens when it cannot run."""

from __future__ import annotations

import gc
import json
import weakref
from functools import partial
from pathlib import Path

import pytest

from multiad_med.benchmark.detectors import UnavailableError
from multiad_med.benchmark.outcomes import Job, execute, run_job
from multiad_med.data import SliceCache
from multiad_med.evaluation.named_metrics import METRICS
from multiad_med.evaluation.parts import Part
from multiad_med.evaluation.predictions import predicted_cases
from multiad_med.testing.slice_caches import Brightness, make_cache


def _unavailable() -> Brightness:
    raise UnavailableError("no weights at hand")


def _crash() -> Brightness:
    raise SystemExit(3)


def _upside_down(detector: Brightness, held_out: SliceCache) -> None:
    detector.sign = -1.0


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(make_cache(tmp_path / "images"))


def test_a_cache_yields_its_studies_one_by_one_and_keeps_none(cache: str) -> None:
    cases = predicted_cases(Brightness(), cache)
    first = next(cases)
    maps = weakref.ref(first.anomaly_map)
    del first
    gc.collect()
    assert maps() is None
    assert len([case.study for case in cases]) == 7


def test_metrics_of_bright_defects_are_perfect_for_brightness(cache: str) -> None:
    (outcome,) = execute(Job("bright", Brightness, cache, "", 0))
    assert outcome.metrics == pytest.approx(dict.fromkeys(METRICS, 1.0))
    assert len(outcome.scores) == 8
    assert sum(abnormal for *_, abnormal, _ in outcome.scores) == 4
    assert outcome.train_seconds >= 0
    assert outcome.latency_ms > 0
    assert outcome.peak_mb > 10


def test_a_variant_is_tested_without_training_again(cache: str) -> None:
    job = Job("up", Brightness, cache, "", 0, variants=(("down", _upside_down),))
    up, down = execute(job)
    assert (up.method, down.method) == ("up", "down")
    assert down.metrics["pixel_auroc"] == pytest.approx(0)
    assert down.train_seconds == up.train_seconds


def test_an_unavailable_method_is_an_outcome_with_its_reason(cache: str) -> None:
    outcomes = execute(
        Job("method", _unavailable, cache, "", 0, variants=(("other", _upside_down),))
    )
    assert [o.note for o in outcomes] == ["no weights at hand"] * 2
    assert not outcomes[0].metrics


@pytest.mark.slow
def test_a_process_of_its_own_keeps_its_outcome_and_is_not_run_twice(
    cache: str, tmp_path: Path
) -> None:
    job = Job("bright", Brightness, cache, "", 0, part=Part.REPORT)
    (outcome,) = run_job(job, tmp_path / "outcomes")
    assert outcome.metrics["image_auroc"] == 1
    assert len(outcome.scores) == 4
    (file,) = (tmp_path / "outcomes").iterdir()
    content = json.loads(file.read_text())
    content[0]["metrics"]["image_auroc"] = 0.25
    file.write_text(json.dumps(content))
    assert run_job(job, tmp_path / "outcomes")[0].metrics["image_auroc"] == 0.25


def test_other_settings_or_data_are_another_job(cache: str, tmp_path: Path) -> None:
    def job(**settings: object) -> Job:
        return Job("b", partial(Brightness, **settings), cache, "", 0)  # type: ignore[arg-type]

    assert job(sign=1.0).identifier == job(sign=1.0).identifier != job(sign=2.0).identifier
    before = job().identifier
    (Path(cache) / "index.csv").open("a").write("\n")
    assert job().identifier != before


@pytest.mark.slow
def test_what_is_unavailable_is_tried_again(cache: str, tmp_path: Path) -> None:
    job = Job("method", _unavailable, cache, "", 0)
    assert run_job(job, tmp_path)[0].note == "no weights at hand"
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.slow
def test_a_process_that_dies_leaves_a_note_and_is_run_again(cache: str, tmp_path: Path) -> None:
    job = Job("crash", _crash, cache, "", 0, variants=(("twin", _upside_down),))
    outcomes = run_job(job, tmp_path)
    assert [o.method for o in outcomes] == ["crash", "twin"]
    assert all("exit status 3" in o.note for o in outcomes)
    assert not list(tmp_path.glob("*crash*"))


def test_one_category_alone(tmp_path: Path) -> None:
    cache = str(make_cache(tmp_path / "both", categories=("nut", "screw")))
    (one,) = execute(Job("b", partial(Brightness), cache, "nut", 0))
    assert {study.split("/")[0] for study, *_ in one.scores} == {"nut"}
    (both,) = execute(Job("b", partial(Brightness), cache, "", 0))
    assert len(both.scores) == 2 * len(one.scores)
