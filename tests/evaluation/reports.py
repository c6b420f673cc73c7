"""A small evaluation that has everything, and a reader of the page that reports it."""

from __future__ import annotations

import math
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import torch

from multiad_med.evaluation import Evaluation
from multiad_med.evaluation.evaluation import Curve, Example, Histogram, LevelRates
from multiad_med.evaluation.report import write_report
from multiad_med.metrics import Estimate

NAN = math.nan
NAME = """<script>alert("1")</script> & 'quoted'"""
VOID = {"br", "img", "link", "meta"}


def example(*, best: bool, shape: tuple[int, int] = (40, 30), lesion: bool = True) -> Example:
    generator = torch.Generator().manual_seed(0)
    label = torch.zeros(shape, dtype=torch.bool)
    label[5:12, 6:14] = lesion
    return Example(
        title=f"{NAME}, slice 3",
        image=torch.rand(shape, generator=generator),
        anomaly_map=0.3 + 0.4 * label,
        label=label,
        best=best,
    )


def study(number: int, **values: Any) -> dict[str, Any]:
    row = {"study": f"s{number}", "category": "", "anomalous": True, "score": 0.5}
    return row | {"lesion_voxels": 9, "dice": 0.123456789} | values


def rates(**changes: Any) -> LevelRates:
    content: dict[str, Any] = {
        "nominal": 0.01,
        "threshold": 0.5,
        "no_verdict": "",
        "held_out": 3,
        "approximate": "",
        "normal": 1200,
        "observed": Estimate(0.025, 0.02, 0.03),
        "anomalous": 8,
        "sensitivity": Estimate(NAN, NAN, NAN),
    }
    return LevelRates(**content | changes)


def full(**changes: Any) -> Evaluation:
    content: dict[str, Any] = {
        "metrics": {
            "slices": {
                "image_auroc": Estimate(0.9312, 0.881, 0.9689),
                "image_ap": Estimate(0.8, NAN, NAN),
            },
            "pixels": {"best_dice": Estimate(0.5, 0.4, 0.6), "aupro": Estimate(NAN, NAN, NAN)},
            "studies": {"hd95": Estimate(12.34, 9.0, 20.0)},
            "patients": {f"own {NAME}": Estimate(0.25, 0.2, 0.3)},
        },
        "baselines": {
            "intensity": {"image_auroc": 0.95, "image_ap": 0.7},
            "slice position": {"image_auroc": 0.6, "image_ap": NAN},
        },
        "remarks": [f"A baseline does as well: {NAME}."],
        "counts": {"patients": 12, "slices": 1234},
        "calibration": {
            "pixel": rates(held_out=None, observed=Estimate(0.025, 0.01, 0.04)),
            "volume": rates(
                threshold=None,
                no_verdict="no verdict: 3 normal volumes",
                approximate=f"because of {NAME}",
                observed=Estimate(NAN, NAN, NAN),
            ),
        },
        "slices": [{"study": NAME, "slice": 3, "score": 0.1234567}],
        "studies": [study(0, study=NAME), study(1, hd95_mm=NAN), study(2, dice=NAN)],
        "curves": {
            "roc": [Curve("slices", [0, 0, 1], [0, 0.8, 1]), Curve("$x_{", [0, 1], [0, 1])],
            "precision_recall": [Curve("slices", [0, 1], [1, 0.4])],
            "froc": [Curve("lesions", [0, 0.5, 12], [0.2, 0.5, 0.9])],
            "reliability": [Curve("share", [0.1, 0.9], [0.0, 0.7])],
        },
        "histograms": {"slices": Histogram([0.1, 0.2, 0.2], [0.6, 0.9], 0.5)},
        "examples": [example(best=True), example(best=False, lesion=False)],
        "training": [Curve("L_G", [1, 2, 3], [1.0, 0.1, 0.01])],
        "manifest": {"versions": {"torch": "2.8"}, "rate": 4e-5, "stages": [1, 2], "model": None},
    }
    return Evaluation(**(content | changes))


def empty() -> Evaluation:
    return Evaluation({}, {}, [], {}, {}, [], [], {}, {}, [])


def page_of(evaluation: Evaluation, folder: Path, title: str = "A title") -> str:
    write_report(evaluation, folder, title=title)
    return (folder / "report.html").read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Text, attributes, and whether every tag is closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.page = page
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), tag
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", " ".join(data.split())))

    @property
    def text(self) -> str:
        return " ".join(text for tag, text in self.texts if tag != "style")

    def values(self, name: str) -> list[str]:
        return [value for _, its, value in self.attributes if its == name]


def rows_of(page: str, table: str) -> list[list[str]]:
    """Text of the cells of the first table of a class, by row."""
    found = re.search(rf'<table class="{table}">(.*?)</table>', page, re.S)
    assert found is not None, table
    rows = re.findall(r"<tr.*?</tr>", found.group(1), re.S)
    cells = [re.findall(r"<t[hd].*?</t[hd]>", row, re.S) for row in rows]
    return [[" ".join(unescape(re.sub(r"<[^>]*>", " ", c)).split()) for c in row] for row in cells]
