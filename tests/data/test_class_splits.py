"""Protocols of classes: who is normal, who trains, and what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from multiad_med.data import ClassSplit, DatalistError, normal_classes
from multiad_med.utils.errors import InputError

DIGITS = [str(n) for n in range(10)]


def items(classes: list[str], *, train: int = 10, test: int = 5) -> list[dict[str, Any]]:
    """So many images of each class in each part."""
    return [
        {
            "image": f"{name}.png",
            "subject": (study := f"{split}/{name}/{n}"),
            "study": study,
            "kind": name,
            "split": split,
        }
        for name in classes
        for split, count in (("training", train), ("test", test))
        for n in range(count)
    ]


def counts(part: list[dict[str, Any]]) -> Counter[str]:
    return Counter(item["kind"] for item in part)


@pytest.mark.parametrize(
    ("half", "expected"),
    [("first", "01234"), ("second", "56789"), ("even", "02468"), ("odd", "13579")],
)
def test_halves_of_ten_are_uniads_splits(half: str, expected: str) -> None:
    assert normal_classes("halves", DIGITS, normal=half) == list(expected)


def test_halves_of_twenty_are_ten_and_of_six_three() -> None:
    twenty = [str(n) for n in range(20)]
    assert normal_classes("halves", twenty, normal="second") == twenty[10:]
    assert normal_classes("halves", twenty[:6], normal="odd") == ["1", "3", "5"]


def test_one_class_is_chosen_by_number_or_name() -> None:
    classes = ["cat", "dog", "ship"]
    assert normal_classes("one_vs_rest", classes, normal=1) == ["dog"]
    assert normal_classes("one_vs_rest", classes, normal="ship") == ["ship"]
    assert normal_classes("leave_one_out", classes, anomalous="dog") == ["cat", "ship"]


@pytest.mark.parametrize(
    ("protocol", "choice", "message"),
    [
        ("one_vs_rest", {"normal": 3}, r"got 3; there are 0 \(cat\), 1 \(dog\), 2 \(ship\)"),
        ("one_vs_rest", {"normal": -1}, "got -1"),
        ("one_vs_rest", {"normal": True}, "got True"),
        ("one_vs_rest", {"normal": "cow"}, "got 'cow'"),
        ("one_vs_rest", {}, "takes `normal` and no `anomalous`, got normal=None"),
        ("leave_one_out", {"normal": 0}, "takes `anomalous` and no `normal`"),
        ("halves", {"normal": "first", "anomalous": 1}, "takes `normal` and no `anomalous`"),
        ("halves", {"normal": 0}, r"one of \['first', 'second', 'even', 'odd'\], got 0"),
        ("all", {"normal": 0}, "protocol is one of"),
    ],
)
def test_a_choice_that_there_is_not_is_refused(
    protocol: str, choice: dict[str, Any], message: str
) -> None:
    with pytest.raises((DatalistError, InputError), match=message):
        normal_classes(protocol, ["cat", "dog", "ship"], **choice)


def test_normal_classes_train_and_all_are_tested() -> None:
    splits = ClassSplit(protocol="halves", normal="even", validation=0.2)(items(DIGITS[:4]))
    assert counts(splits["training"]) == {"0": 8, "2": 8}
    assert counts(splits["validation"]) == {"0": 2, "2": 2}
    assert counts(splits["test"]) == dict.fromkeys(DIGITS[:4], 5)
    assert {i["kind"] for i in splits["test"] if i["anomalous"]} == {"1", "3"}
    assert not any(i["anomalous"] for i in splits["training"] + splits["validation"])


def test_numbers_are_those_of_the_classes_given() -> None:
    split = ClassSplit(normal=0, classes=["ship", "cat"])
    assert counts(split(items(["cat", "ship"]))["training"]) == {"ship": 9}


def test_draws_are_equal_seeded_and_do_not_depend_on_order() -> None:
    found = items(DIGITS[:3])

    def run(seed: int, order: int = 1) -> tuple[list[str], ...]:
        split = ClassSplit(
            protocol="leave_one_out", anomalous=2, seed=seed, training_images=7, test_images=9
        )
        splits = split(found[::order])
        assert sorted(counts(splits["training"] + splits["validation"]).values()) == [3, 4]
        assert counts(splits["test"]) == dict.fromkeys(DIGITS[:3], 3)
        return tuple(sorted(item["study"] for item in splits[name]) for name in splits)

    assert run(0) == run(0)
    assert run(0)[2] == run(0, order=-1)[2]
    assert run(0) != run(1)


def test_a_class_with_too_few_gives_all_it_has() -> None:
    found = items(["a"], test=2) + items(["b"], test=8)
    assert counts(ClassSplit(normal="a", test_images=8)(found)["test"]) == {"a": 2, "b": 6}


def test_five_images_train_and_calibrate() -> None:
    splits = ClassSplit(normal="a")(items(["a", "b"], train=5))
    assert [len(splits[name]) for name in ("training", "validation", "test")] == [4, 1, 10]


@pytest.mark.parametrize("count", [0, -1, 11])
def test_more_than_there_are_cannot_be_drawn(count: int) -> None:
    with pytest.raises(DatalistError, match=r"training_images is from 1 to 10, .*\{'a': 10\}"):
        ClassSplit(normal="a", training_images=count)(items(["a", "b"]))


def test_missing_and_unknown_classes_are_named() -> None:
    found = [i for i in items(["a", "b", "c"]) if i["split"] == "training" or i["kind"] == "a"]
    with pytest.raises(DatalistError, match=r"classes \['b', 'c'\] for the test"):
        ClassSplit(normal="a")(found)
    only_tested = [i for i in items(["a", "b"]) if i["split"] == "test" or i["kind"] == "b"]
    with pytest.raises(DatalistError, match=r"classes \['a'\] for the training"):
        ClassSplit(normal="a")(only_tested)
    with pytest.raises(DatalistError, match=r"Unknown classes \['b'\]; known are \['a', 'c'\]"):
        ClassSplit(normal="a", classes=["a", "c"])(items(["a", "b"]))
