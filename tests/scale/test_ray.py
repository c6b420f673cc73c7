"""Studies through Ray in local mode: results, resuming, bad studies, killed workers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from multiad_med.preparation import load_recipe, prepare
from multiad_med.scale import pipeline, predict_studies
from multiad_med.scale import predict as predicting
from multiad_med.scale.evaluate import evaluate_studies
from multiad_med.scale.pipeline import Stages, run_stages
from multiad_med.scale.prepare import spread_by_ray
from multiad_med.scale.sources import ListedStudy
from multiad_med.scale.travelling_study import TravellingStudy, studies_of
from multiad_med.testing.cohorts import FAST
from tests.bundles import models
from tests.bundles.test_folder_inference import nifti_head
from tests.scale import light
from tests.scale.test_stages import assert_same_results

pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra scale")
pytestmark = pytest.mark.usefixtures("local_ray")

SIZE = {"size": FAST["size"]}


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five heads, one file that is none."""
    folder = tmp_path_factory.mktemp("ray")
    for number in range(5):
        nifti_head(folder / f"in/clinic/s{number}.nii.gz", seed=number)
    (folder / "in/bad.nii.gz").write_bytes(b"no image")
    return folder


def run(studies: Path, model: Path, out: Path, **options: Any) -> list[dict[str, Any]]:
    return predict_studies(studies / "in", model, output=out, **{"actors": 1, **SIZE, **options})


def made(out: Path) -> dict[Path, int]:
    """When each file of results was written."""
    found = [path for path in out.rglob("*_anomaly*") if path.suffix in (".gz", ".json")]
    return {path: path.stat().st_mtime_ns for path in found}


def test_results_are_those_of_the_plain_loop_and_are_not_made_twice(
    studies: Path, model: Path, tmp_path: Path
) -> None:
    plain, out = tmp_path / "plain", tmp_path / "out"
    expected = models.infer("multiad_brain_mri", studies / "in", model, plain)
    rows = run(studies, model, out)
    assert_same_results(out, plain)
    assert [Path(row["image"]).name for row in rows] == list(expected)
    for row in rows:
        other = expected[Path(row["image"]).name]
        same = ("image", "status", "decision", "message", "map")
        assert {key: row[key] for key in same} == {key: other[key] for key in same}
        assert row["score"] == pytest.approx(other["score"], abs=1e-5)
    assert [row["status"] for row in rows] == ["failed", *["done"] * 5]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["counts"] == {"done": 5, "skipped": 0, "failed": 1}
    assert summary["studies"] == rows
    assert (out / "summary.html").is_file()

    table = pq.read_table(out / "scores").to_pylist()
    assert sorted(row["image"] for row in table) == sorted(row["image"] for row in rows)
    done = next(row for row in table if row["status"] == "done")
    scores = json.loads((out / done["map"].replace("_map.nii.gz", ".json")).read_text())
    assert done["score"] == scores["volume_score"]
    assert done["image_sha256"] == scores["image_sha256"]
    assert min(done[f"{stage}_seconds"] for stage in ("read", "network", "write")) > 0

    before = made(out)
    for path in list(before)[:2]:  # what a driver that was killed had not finished
        if path.suffix == ".json":
            path.unlink()
    again = run(studies, model, out)
    redone = {path for path, when in made(out).items() if before[path] != when}
    names = {path.name.partition("_")[0] for path in redone}
    assert sum(row["status"] == "done" for row in again) == len(names) <= 2
    assert sum(row["status"] == "skipped" for row in again) == 5 - len(names)
    assert len(pq.read_table(out / "scores")) == 6


def test_what_a_killed_worker_had_is_done_again_and_what_kills_is_given_up(tmp_path: Path) -> None:
    names = ["a", "b", "poison", "c"]
    studies = [TravellingStudy(i, ListedStudy({"image": n}), n) for i, n in enumerate(names)]
    stages = Stages(read=light.read, network=light.Mortal, network_arguments={"folder": tmp_path})
    found = [study.owner for table in run_stages(studies, stages) for study in studies_of(table)]
    # What waits at the same actor as the poison may be given up with it.
    assert {"a", "b"} <= set(found) <= {"a", "b", "c"}
    assert len(found) == len(set(found))
    deaths = (tmp_path / "deaths").read_text().split()
    assert deaths.count("once") <= 1
    assert deaths.count("poison") == 4
    tables = run_stages(studies[2:3], stages)
    (row,) = predicting.collected(tables, [replace(studies[2], index=0)], tmp_path)
    assert row["status"] == "failed"
    assert row["message"].startswith("poison: its worker was ended several times")


def test_a_long_run_is_several_data_sets_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "TASKS", 2)
    studies = [TravellingStudy(i, ListedStudy({"image": f"{i}"}), f"{i}") for i in range(9)]
    stages = Stages(read=light.read, network=light.Same, per_task=2)
    found = [study.index for table in run_stages(studies, stages) for study in studies_of(table)]
    assert found == list(range(9))


def test_prepared_slices_are_those_without_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multiad_med.scale.prepare.TASKS", 3)  # of four
    source = tmp_path / "in"
    for number in range(3):
        nifti_head(source / f"s{number}.nii.gz", seed=number)
    (source / "bad.nii.gz").write_bytes(b"no image")
    recipe = load_recipe("volumes", {"size": 32, "kind": "mr"})
    plain = prepare(recipe, source, tmp_path / "plain", workers=0, progress=False)
    spread = prepare(
        recipe, source, tmp_path / "ray", progress=False, spread=spread_by_ray("local")
    )
    assert (spread.written, len(spread.failures)) == (plain.written, 1) == (3, 1)
    assert spread.slices == plain.slices
    for path in (tmp_path / "plain/studies").rglob("*.safetensors"):
        other = load_file(tmp_path / "ray" / path.relative_to(tmp_path / "plain"))
        for key, values in load_file(path).items():
            np.testing.assert_array_equal(values, other[key])
    again = prepare(recipe, source, tmp_path / "ray", progress=False, spread=spread_by_ray("local"))
    assert (again.written, again.unchanged) == (0, 3)


def test_an_evaluation_has_the_metrics_of_one_without_ray(
    model: Path, cohort: Path, tmp_path: Path
) -> None:
    models.infer("multiad_brain_mri", cohort, model, tmp_path / "plain", config="evaluate.json")
    evaluate_studies(
        cohort, model, tmp_path / "ray", bundle="multiad_brain_mri", actors=1, device="cpu", **SIZE
    )
    plain, spread = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("plain", "ray")
    )
    assert spread.pop("manifest")["config"] == plain.pop("manifest")["config"]
    numbers = {key for key, value in plain.items() if isinstance(value, float)}
    assert {"image_auroc", "pixel_ap", "aupro"} <= numbers
    for key in numbers:
        assert spread[key] == pytest.approx(plain[key], abs=1e-4), key
    names = [[study["study"] for study in told["studies"]] for told in (spread, plain)]
    assert names[0] == names[1]
    assert (tmp_path / "ray/report.html").is_file()
