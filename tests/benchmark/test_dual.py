"""The second paper's tables: which models a protocol has, and what is scored of one training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from multiad_med.benchmark.dual import DUAL_SETS, dual, dual_table, prepare_runs
from multiad_med.benchmark.dual_detector import DualDetector, DualPart
from multiad_med.benchmark.outcomes import Outcome
from multiad_med.preparation import recipe_names
from multiad_med.preparation.recipe_run import PreparationError
from multiad_med.testing.layouts import make_mvtec
from multiad_med.testing.slice_caches import make_cache
from multiad_med.utils.errors import InputError


def test_a_protocol_has_a_model_for_each_class_or_half() -> None:
    classes = DUAL_SETS["fashion_mnist"]
    assert classes.runs("one_vs_rest", [3]) == {"normal_3": {"normal": 3}}
    assert len(classes.runs("one_vs_rest")) == 10
    assert classes.runs("leave_one_out", [9]) == {"anomalous_9": {"anomalous": 9}}
    assert [own["normal"] for own in classes.runs("halves").values()] == [
        "first",
        "second",
        "even",
        "odd",
    ]
    assert DUAL_SETS["visa"].runs("categories") == {"all": {}}


def test_every_set_has_a_recipe() -> None:
    assert {chosen.recipe for chosen in DUAL_SETS.values()} <= set(recipe_names())


def test_an_image_that_cannot_be_prepared_ends_the_run(tmp_path: Path) -> None:
    make_mvtec(tmp_path / "source", rng=np.random.default_rng(0))
    broken = next((tmp_path / "source").rglob("test/good/*.png"))
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(PreparationError, match=r"1 images"):
        prepare_runs(
            "mvtec_ad", tmp_path / "source", tmp_path / "out", protocol="categories", size=32
        )


@pytest.mark.parametrize(
    ("data_set", "protocol", "classes"),
    [
        ("fashion_mnist", "categories", []),
        ("visa", "one_vs_rest", []),
        ("intel_scenes", "one_vs_rest", [6]),
    ],
)
def test_what_a_set_has_not_is_refused(data_set: str, protocol: str, classes: list[int]) -> None:
    with pytest.raises(InputError, match=r"categories|protocol|from 0 to 5"):
        DUAL_SETS[data_set].runs(protocol, classes)


def test_only_presets_with_two_students_are_compared(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dual_lite2"):
        dual([], tmp_path, preset="resnet18")


def test_a_table_has_a_row_for_each_part_and_the_mean_over_sets() -> None:
    outcomes = [
        Outcome("joint, likelihood", name, "", 0, metrics={"image_auroc": value})
        for name, value in (("a", 0.5), ("b", 0.75))
    ]
    lines = dual_table(outcomes).splitlines()
    assert lines[0] == "| image AUROC | a | b | mean |"
    assert lines[2] == "| joint, likelihood | 0.500 | 0.750 | 0.625 |"


@pytest.mark.slow
def test_one_training_gives_every_part(tmp_path: Path) -> None:
    caches = make_cache(tmp_path / "slices")
    outcomes = dual([caches], tmp_path / "out", teacher_weights="random", epochs=1)
    assert [o.note for o in outcomes] == [""] * len(DualPart)
    assert [o.method.partition(",")[0] for o in outcomes] == [str(p) for p in DualPart]
    maps = {o.metrics["pixel_auroc"] for o in outcomes}
    assert len(maps) == 1  # no part changes the map
    scores = {o.method.partition(",")[0]: [s for *_, s in o.scores] for o in outcomes}
    for joint, local, semantic in zip(
        scores["joint"], scores["local"], scores["semantic"], strict=True
    ):
        assert joint >= max(local, semantic) - 1e-6
    assert scores["neighbours"] != scores["gaussian"]


@pytest.mark.slow
def test_one_model_of_several_categories_is_told_by_category_and_pooled(tmp_path: Path) -> None:
    folder = make_cache(tmp_path / "slices", categories=("nut", "screw"))
    outcomes = dual([folder], tmp_path / "out", teacher_weights="random", epochs=1, together=True)
    joint = {o.category: o for o in outcomes if o.method == "joint, likelihood"}
    assert list(joint) == ["nut", "screw", "pooled"]
    assert len(joint["pooled"].scores) == len(joint["nut"].scores) + len(joint["screw"].scores)
    assert {s[0].partition("/")[0] for s in joint["nut"].scores} == {"nut"}
    row = (tmp_path / "out" / "dual.md").read_text().splitlines()[2].strip("| ").split(" | ")
    each = [joint[name].metrics["image_auroc"] for name in ("nut", "screw")]
    assert float(row[-1]) == pytest.approx(sum(v for v in each if v is not None) / 2, abs=6e-4)


@pytest.mark.slow
def test_joint_scores_are_those_of_the_network(tmp_path: Path) -> None:
    from multiad_med.data import SliceCache
    from multiad_med.scoring import image_scores

    folder = make_cache(tmp_path / "slices")
    detector = DualDetector("dual_lite2", name="x", teacher_weights="random", epochs=1)
    detector.fit(
        SliceCache(folder, split="training"), SliceCache(folder, split="validation"), seed=0
    )
    network = detector.network
    for number, whole in enumerate(network.fusion.whole):
        if whole and number != len(network.stages) - 1:
            network.fusion.weights[number] = 0.0  # the baselines
    images = torch.stack([item["image"] for item in SliceCache(folder, split="validation")])[:3]
    everywhere = torch.ones(len(images), 1, *images.shape[2:])
    maps, scores = detector.predict(images, everywhere)
    with torch.no_grad():
        expected = network(images)
    torch.testing.assert_close(maps, expected[:, :1])
    torch.testing.assert_close(scores, image_scores(expected, everywhere))
