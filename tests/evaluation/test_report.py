"""The report: what it says, that it says it safely, and that it needs nothing else."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multiad_med.evaluation import evaluate_cases
from multiad_med.evaluation.evaluation import Curve, Example, Histogram
from multiad_med.evaluation.report import write_report
from multiad_med.evaluation.report.glossary import metric_names
from multiad_med.evaluation.words import Words
from multiad_med.metrics import Estimate
from multiad_med.self_test_result import SelfTest
from multiad_med.testing.slice_caches import volume_case
from tests.evaluation.reports import (
    NAME,
    NAN,
    Reader,
    empty,
    example,
    full,
    page_of,
    rows_of,
    study,
)
from tests.test_self_test_result import result as self_test_result

SPLITS = [
    "Metrics",
    "Trivial baselines",
    "Curves",
    "Scores",
    "Calibration",
    "Self-test of the model",
    "Best and worst cases",
    "Training",
    "Studies",
    "How the run was made",
]


def test_the_page_says_everything_in_order(tmp_path: Path) -> None:
    page = page_of(full(), tmp_path)
    reader = Reader(page)
    assert [text for tag, text in reader.texts if tag in ("h1", "title")] == ["A title"] * 2
    headings = [text for tag, text in reader.texts if tag == "h2"]
    assert headings == ["Read this first", *SPLITS]
    assert [text for tag, text in reader.texts if tag == "h3"] == [
        "ROC",
        "Precision and recall",
        "FROC",
        "Reliability of the map",
        "Scores of slices",
        "Best",
        "Worst",
        "L_G",
    ]
    for words in (
        "not for diagnostic use",
        "12 patients · 1,234 slices",
        "95 %: 0.881 to 0.969",
        "Upper bound",
        "chance, slices: 0.400",
        "threshold 0.5",
        "normal (3)",
        "$x_{",
        "versions / torch",
        "4e-05",
        "no lesion outlined",
    ):
        assert words in reader.text, words


def test_metrics_have_intervals_units_and_reasons(tmp_path: Path) -> None:
    rows = rows_of(page_of(full(), tmp_path), "metrics")

    def row(start: str) -> list[str]:
        return next(row for row in rows if row[0].startswith(start))

    assert row("AUROC How often")[1:3] == ["0.931", "0.881 to 0.969"]
    assert row("Average precision How many")[1:3] == ["0.800", "–"]
    assert row("Hausdorff distance, 95 %")[1:3] == ["12.3 mm", "9 mm to 20 mm"]
    assert row("AUPRO")[1:3] == ["–", "–"]
    assert "lesion masks and normal pixels" in row("AUPRO")[0]


def test_the_better_of_model_and_baselines_is_bold(tmp_path: Path) -> None:
    page = page_of(full(), tmp_path)
    names, *columns = zip(*rows_of(page, "baselines")[1:], strict=True)
    for name, start in zip(names, ("Model", "Intensity ", "Slice position "), strict=True):
        assert name.startswith(start)
    assert columns == [("0.931", "0.950", "0.600"), ("0.800", "0.700", "–")]
    table = page[page.index('<table class="baselines">') :]
    assert re.findall(r"<strong>([^<]*)</strong>", table[: table.index("</table>")]) == [
        "0.800",
        "0.950",
    ]


def test_a_draw_with_a_baseline_is_bold_on_both_sides(tmp_path: Path) -> None:
    drawn = full(
        metrics={"slices": {"image_auroc": Estimate(0.93121, 0.9, 0.95)}},
        baselines={"intensity": {"image_auroc": 0.93119}},
    )
    assert page_of(drawn, tmp_path).count("<strong>0.931</strong>") == 2


def test_calibration_compares_nominal_and_observed_of_each_level(tmp_path: Path) -> None:
    pixels, volumes = rows_of(page_of(full(), tmp_path), "calibration")[1:]
    assert pixels[1:] == [
        "–",
        "0.500",
        "1.00 %",
        "2.50 % of 1,200, 1.00 % to 4.00 %",
        "– of 8",
    ]
    assert "No verdict: 3 normal volumes." in volumes[0]
    assert f"Approximate: because of {NAME}." in volumes[0]
    assert volumes[1:] == ["3", "–", "1.00 %", "– of 1,200", "– of 8"]


def test_studies_are_listed_worst_first(tmp_path: Path) -> None:
    studies = [
        study(0, anomalous=False, lesion_voxels=0, dice=NAN, score=0.1),
        study(1, dice=0.9),
        study(2, lesion_voxels=0, dice=0.0, score=0.2),
        study(3, anomalous=False, lesion_voxels=0, dice=0.0, score=0.8),
        study(4, dice=0.1),
    ]
    rows = rows_of(page_of(full(studies=studies), tmp_path), "wide")
    assert rows[0] == ["study", "anomalous", "score", "lesion voxels", "dice"]
    assert [row[0] for row in rows[1:]] == ["s4", "s1", "s2", "s3", "s0"]
    assert rows[1] == ["s4", "yes", "0.500", "9", "0.100"]


@pytest.mark.slow
def test_categories_have_a_table_and_a_file_where_there_are_several(tmp_path: Path) -> None:
    categories = {"nut": {"image_auroc": 0.75, "aupro": None}, "mean": {"image_auroc": 0.75}}
    rows = rows_of(page_of(full(categories=categories), tmp_path), "wide")
    assert rows == [
        ["Category", "image auroc", "aupro"],
        ["nut", "0.750", "–"],
        ["mean", "0.750", "–"],
    ]
    assert (tmp_path / "categories.csv").read_text() == (
        "category,image_auroc,aupro\nnut,0.75,\nmean,0.75,\n"
    )
    page_of(full(), tmp_path / "none")
    assert not (tmp_path / "none/categories.csv").exists()


def test_a_long_table_of_studies_points_to_the_file(tmp_path: Path) -> None:
    page = page_of(full(studies=[study(i) for i in range(1300)]), tmp_path)
    assert len(rows_of(page, "wide")) == 201
    assert re.search(r"\b1,100 more\b.*\bstudies\.csv\b", Reader(page).text)
    assert len((tmp_path / "studies.csv").read_text().splitlines()) == 1301


def test_strings_are_escaped(tmp_path: Path) -> None:
    page = page_of(full(), tmp_path, title=NAME)
    reader = Reader(page)
    assert "<script" not in page
    assert (
        reader.text.count(NAME) == 8
    )  # title, h1, remark, figure, calibration, two examples, study


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    page = page_of(full(), tmp_path)
    reader = Reader(page)
    assert not re.search(r"https?://|@import|<script|<link|<iframe", page)
    assert len(reader.values("src")) == 6
    assert all(value.startswith("data:image/jpeg;base64,") for value in reader.values("src"))
    assert not reader.values("srcset")
    ids = reader.values("id")
    assert len(ids) == len(set(ids))
    referred = [*reader.values("href"), *re.findall(r"url\(([^)]*)\)", page)]
    assert referred
    assert {value.removeprefix("#") for value in referred} <= set(ids)


def test_images_tables_and_charts_can_be_read_aloud(tmp_path: Path) -> None:
    reader = Reader(page_of(full(), tmp_path))
    assert len(reader.values("alt")) == 6
    assert all(reader.values("alt"))
    assert any("without any lesion" in text for text in reader.values("alt"))
    tables = sum(tag == "table" for tag, name, _ in reader.attributes if name == "class")
    captions = [text for tag, text in reader.texts if tag == "span" and text.endswith(".")]
    assert tables == 5
    assert len(captions) >= tables
    charts = {
        value for tag, name, value in reader.attributes if (tag, name) == ("svg", "aria-label")
    }
    assert "ROC: slices, $x_{" in charts
    assert len(charts) == 7


def test_an_empty_evaluation_says_what_is_missing(tmp_path: Path) -> None:
    page = page_of(empty(), tmp_path)
    reader = Reader(page)
    assert [text for tag, text in reader.texts if tag == "h2"] == SPLITS
    assert page.count('class="absent"') == 15
    assert re.search("No chart “FROC”: [^.]*masks", reader.text)
    assert not re.search(r"<table|<img|class=\"chart", page)
    assert (tmp_path / "slices.csv").read_text() == "study,subject,slice\n"
    assert (tmp_path / "studies.csv").read_text() == "study,subject\n"


def test_what_is_not_finite_is_left_out(tmp_path: Path) -> None:
    page = page_of(
        full(
            metrics={"slices": {"image_auroc": Estimate(NAN, NAN, NAN)}},
            curves={
                "roc": [Curve("a", [NAN, 1], [0, 1]), Curve("none", [0], [NAN])],
                "froc": [Curve("none", [], [])],
                "other": [],
            },
            histograms={
                "slices": Histogram([NAN, 0.5], [], NAN),
                "patients": Histogram([], [math.inf], 0.5),
            },
            calibration={},
            training=[Curve("L_G", [1], [NAN])],
            examples=[example(best=False)],
        ),
        tmp_path,
    )
    text = Reader(page).text
    for words in (
        "No headline metrics",
        "No chart “FROC”",
        "No chart “other”",
        "No calibration",
        "No self-test",
        "No training curves",
        "No best cases",
        "normal (1)",
    ):
        assert words in text, words
    assert "Scores of patients" not in text
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page).lower().split()


def test_the_smallest_lesion_and_map_are_outlined(tmp_path: Path) -> None:
    from multiad_med.evaluation.report.pictures import example_figure

    label = torch.zeros(1024, 1024)
    label[500, 500] = 1
    large = Example("t", torch.full((1024, 1024), 0.5), label * 0.9, label, True)
    nothing = Example("t", torch.full((8, 8), 0.5), torch.zeros(8, 8), torch.zeros(8, 8), True)
    (_, _, (_, outlined)) = example_figure(large, Words()).images
    assert "outline" in outlined
    (_, (_, below), (_, without)) = example_figure(nothing, Words()).images
    assert "nowhere reaches 0.5" in below
    assert "without any lesion" in without


@pytest.mark.slow
def test_a_real_evaluation_knows_all_its_names(tmp_path: Path) -> None:
    cases = [volume_case(f"p{i}_t1", lesion=i % 2 == 0, seed=i) for i in range(4)]
    evaluation = evaluate_cases(cases, bootstrap=10)
    assert {name for level in evaluation.metrics.values() for name in level} <= set(
        metric_names(Words())
    )
    page = page_of(evaluation, tmp_path)
    for name in ("metrics", "baselines", "calibration", "wide"):
        assert len(rows_of(page, name)) > 2
    Reader(page)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_the_page(tmp_path: Path, scheme: str) -> None:
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((path for name in names if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(names)} is installed")
    write_report(full(), tmp_path, title="t")
    screenshot = tmp_path / "page.png"
    subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=900,3000",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--screenshot={screenshot}",
            *(["--force-dark-mode"] if scheme == "dark" else []),
            (tmp_path / "report.html").as_uri(),
        ],
        check=True,
        timeout=120,
        capture_output=True,
    )
    pixels = np.asarray(Image.open(screenshot).convert("RGB"))
    colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    page = colours[counts.argmax()]
    assert (page > 200).all() if scheme == "light" else (page < 60).all()
    assert len(colours) > 200
    assert counts.max() < 0.95 * counts.sum()


def test_the_models_self_test_is_told_with_its_warnings(tmp_path: Path) -> None:
    found = self_test_result(large=0.55, darker=0.8)
    page = page_of(full(self_test=found), tmp_path)
    text = Reader(page).text
    for words in (found.summary, *found.warnings()):
        assert words in text
    rows = rows_of(page, "findings")
    assert ["Pseudo-anomaly", "2 % of the side", "10 % of the side"] in rows
    assert ["intensity", "0.70", "0.55"] in rows
    assert ["mean", "0.80", "0.55"] in rows
    assert ["mean, under the worst change", "0.50", "0.60"] in rows
    rows = rows_of(page, "reactions")
    assert ["darker", "0.80", "40.0 %", "yes"] in rows
    assert ["brighter", "0.51", "40.0 %", "no"] in rows
    told = json.loads((tmp_path / "metrics.json").read_text())["self_test"]
    assert SelfTest.from_json(told) == found
