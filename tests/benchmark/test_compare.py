"""Comparison and ablation: the same slices for all, and tables whose numbers are right."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from sklearn.metrics import roc_auc_score

from multiad_med.benchmark import ablate as ablation
from multiad_med.benchmark import compare as comparison
from multiad_med.benchmark.detectors import MultiADDetector, Settings
from multiad_med.benchmark.outcome_tables import average_over_sets, mean_and_deviation
from multiad_med.benchmark.outcomes import Job, Outcome, execute
from multiad_med.resources import bundles_dir, read_config
from multiad_med.testing.slice_caches import make_cache


def _outcome(method: str, value: float, *, dataset: str = "a", seed: int = 0) -> Outcome:
    metrics = dict.fromkeys(("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro"), value)
    scores = [
        (f"study{i}", f"patient{i // 2}", 0, i % 2 == 0, value * (i % 2 == 0) + 0.01 * i)
        for i in range(60)
    ]
    return Outcome(method, dataset, "", seed, metrics, scores, 1.0, 2.0, 3.0, 4.0)  # type: ignore[arg-type]


def test_mean_and_deviation_by_hand() -> None:
    assert mean_and_deviation([0.5, 0.7, None]) == "0.600 ± 0.141"
    assert mean_and_deviation([0.5]) == "0.500"
    assert mean_and_deviation([None]) == "–"


def test_average_is_per_seed_and_over_sets_that_all_have() -> None:
    outcomes = [
        _outcome("m", 0.2, dataset="a", seed=0),
        _outcome("m", 0.4, dataset="b", seed=0),
        _outcome("m", 0.6, dataset="a", seed=1),
        _outcome("m", 1.0, dataset="b", seed=1),
        _outcome("m", 0.9, dataset="a", seed=2),  # not run on b
    ]
    assert average_over_sets(outcomes, "image_auroc", sets=2) == pytest.approx([0.3, 0.8])
    assert average_over_sets(outcomes, "image_auroc", sets=3) == []


def test_comparison_table_has_averages_differences_and_reasons() -> None:
    outcomes = [
        _outcome("ours", 1.0),
        _outcome("ours", 0.8, dataset="b"),
        _outcome("theirs", -1.0),
        _outcome("theirs", 0.4, dataset="b"),
        Outcome("mkd", "a", "", 0, note="no kept package"),
        Outcome("mkd", "b", "", 0, note="no kept package"),
    ]
    table = comparison.comparison_table(outcomes)
    first = next(line for line in table.splitlines() if line.startswith("| theirs"))
    assert "+1.000 (p 0.002)" in first
    assert "not run: no kept package" in table
    average = table[table.index("Average of 2 sets") :]
    assert "| ours | 0.900" in average
    assert "| mkd | – |" in average


def test_difference_is_of_the_mean_over_seeds_and_keeps_studies_of_a_patient_apart() -> None:
    def run(seed: int, order: list[float]) -> Outcome:
        scores = [(f"s{i}", "p", 0, i < 2, value) for i, value in enumerate(order)]
        scores += [(f"t{i}", "q", 0, i < 2, value) for i, value in enumerate(order)]
        return Outcome("m", "a", "", seed, {}, scores)

    # AUROC 1 and 0.5: mean 0.75; two patients of four studies each. The other: 0.5 and 0.5.
    ours = [run(0, [0.9, 0.8, 0.1, 0.2]), run(1, [0.9, 0.1, 0.5, 0.4])]
    theirs = [run(0, [0.9, 0.1, 0.5, 0.4]), run(1, [0.9, 0.1, 0.5, 0.4])]
    assert comparison._image_difference(ours, theirs).startswith("+0.250")
    assert comparison._image_difference(ours, theirs[:1]).startswith("+0.500")  # seed 0 only
    theirs[0].seed = 7
    assert comparison._image_difference(ours, theirs[:1]) == "–"


def test_a_single_patient_gets_a_difference_and_no_p() -> None:
    scores = [(f"s{i}", "p", 0, i < 2, 1.0 - i) for i in range(4)]
    other = [(*rest, -score) for *rest, score in scores]
    first, second = (Outcome("m", "a", "", 0, {}, s) for s in (scores, other))  # type: ignore[arg-type]
    assert comparison._image_difference([first], [second]) == "+1.000"


def test_caches_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="different names"):
        comparison.sets_of([tmp_path / "a" / "screw", tmp_path / "b" / "screw"])


def test_the_size_of_a_cache_is_its_rows_and_columns(tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "strips")
    about = json.loads((cache / "cache.json").read_text()) | {"size": [32, 96]}
    (cache / "cache.json").write_text(json.dumps(about))
    assert comparison.sets_of([cache]) == [(str(cache), "", (32, 96))]


def test_files_of_methods_are_parsed_and_checked(tmp_path: Path) -> None:
    weights = tmp_path / "w.pth"
    weights.touch()
    parsed = comparison.parse_files([f"dinomaly.weights={weights}"])
    assert parsed == {"dinomaly": {"weights": str(weights)}}
    with pytest.raises(ValueError, match=r"METHOD\.NAME=PATH"):
        comparison.parse_files(["dinomaly.weights=nothing"])


def test_unknown_method_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"methods \['padimm'\].*padim"):
        comparison.compare([tmp_path], tmp_path, methods=["padimm"])


def test_studies_are_those_of_table_4() -> None:
    assert list(ablation.STUDIES) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert ablation.STUDIES[1] == (True, True, True)
    assert ablation.STUDIES[4] == (True, False, False)
    assert ablation.STUDIES[6] == (False, True, False)
    assert ablation.STUDIES[8] == (False, False, False)


def _here(job: Job, folder: Path) -> list[Outcome]:
    return execute(job)


@pytest.mark.slow
def test_ablation_trains_four_networks_for_eight_studies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Job] = []

    def run(job: Job, folder: Path) -> list[Outcome]:
        jobs.append(job)
        return execute(job)

    monkeypatch.setattr("multiad_med.benchmark.outcomes.run_job", run)
    cache = make_cache(tmp_path / "images")
    outcomes = ablation.ablate(
        [cache],
        tmp_path / "out",
        settings=Settings("efficientnet_lite0", teacher_weights="random", epochs=2),
        adversarial_weight=1.0,  # so that a single step tells
    )
    assert len(jobs) == 4
    assert sorted(o.method for o in outcomes) == [str(n) for n in range(1, 9)]
    by_study = {o.method: o for o in outcomes}
    for number in (1, 3, 5, 7):  # the fused and the summed map of one network differ
        assert by_study[str(number)].scores != by_study[str(number + 1)].scores
    assert by_study["1"].scores != by_study["3"].scores
    assert by_study["3"].scores != by_study["7"].scores
    table = (tmp_path / "out" / "ablation.md").read_text()
    assert len([line for line in table.splitlines() if line.startswith("|")]) == 10
    assert "rivial baselines" in table
    assert "intensity 1.000, 1.000" in table
    assert "| 4 | ✓ | – | – |" in table


@pytest.mark.slow
def test_comparison_writes_a_row_per_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiad_med.benchmark.outcomes.run_job", _here)
    cache = make_cache(tmp_path / "images", categories=("nut", "screw"))
    outcomes = comparison.compare(
        [cache],
        tmp_path / "out",
        methods=["multiad", "mkd"],
        seeds=[0, 1],
        teacher_weights="random",
        epochs=1,
        part="report",
    )
    assert len(outcomes) == 8
    assert (tmp_path / "out" / "comparison.md").read_text().count("intensity 1.000, 1.000") == 2
    with (tmp_path / "out" / "comparison.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [r["category"] for r in rows] == ["nut"] * 4 + ["screw"] * 4
    assert {r["note"] != "" for r in rows if r["method"] == "mkd"} == {True}
    ours = [r for r in rows if r["method"] == "multiad"]
    for row, outcome in zip(ours, (o for o in outcomes if o.method == "multiad"), strict=True):
        _, _, _, abnormal, scores = zip(*outcome.scores, strict=True)
        assert float(row["image_auroc"]) == pytest.approx(roc_auc_score(abnormal, scores))
    assert all(len(o.scores) == 4 for o in outcomes if o.method == "multiad")


@pytest.mark.parametrize(
    ("bundle", "fused", "fraction"),
    [
        (None, [1, 2, 3], 0.0),
        ("multiad_brain_mri", [2, 3], 0.01),
        ("multiad_industrial", [1, 2], 0),
    ],
)
def test_multiad_makes_the_choices_of_a_bundle(
    bundle: str | None, fused: list[int], fraction: float
) -> None:
    settings = comparison.multiad_settings(
        "multiad", teacher="efficientnet_lite0", teacher_weights="random", epochs=1, bundle=bundle
    )
    network = MultiADDetector(settings).build()
    assert (network.stages, network.fused) == ([1, 2, 3], fused)
    assert settings.score_fraction == fraction


@pytest.mark.parametrize("bundle", sorted(p.parent.name for p in bundles_dir().glob("*/configs")))
def test_the_default_method_is_trained_with_the_loss_of_the_bundles(bundle: str) -> None:
    settings = comparison.multiad_settings(
        "multiad", teacher="efficientnet_lite0", teacher_weights="imagenet", epochs=1, bundle=bundle
    )
    loss = MultiADDetector(settings).loss()
    options = {
        k: v for k, v in read_config(bundle, "train.json")["loss"].items() if k != "_target_"
    }
    assert {name: getattr(loss, name) for name in options} == options
