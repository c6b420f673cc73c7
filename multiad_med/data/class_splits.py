"""Protocols that make a classification data set one of anomalies: which classes are normal."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from multiad_med.data.datalist import DatalistError, rank_subjects
from multiad_med.data.splits import SubjectSplit
from multiad_med.utils.choose import choose

__all__ = ["ClassProtocol", "ClassSplit", "Half", "normal_classes"]

Item = Mapping[str, Any]


class ClassProtocol(StrEnum):
    """Which classes are normal.

    ``ONE_VS_REST``: one class. ``LEAVE_ONE_OUT``: all but one. ``HALVES``: half of them, see
    :class:`Half`; with ten classes these are the four 5-vs-5 splits of UniAD (You et al., A Unified
    Model for Multi-class Anomaly Detection, NeurIPS 2022).
    """

    ONE_VS_REST = "one_vs_rest"
    LEAVE_ONE_OUT = "leave_one_out"
    HALVES = "halves"


class Half(StrEnum):
    """Which half of the classes is normal, by their numbers from 0.

    Of ten classes ``FIRST`` is 01234, ``SECOND`` 56789, ``EVEN`` 02468, ``ODD`` 13579.
    """

    FIRST = "first"
    SECOND = "second"
    EVEN = "even"
    ODD = "odd"


def _class_of(wanted: Any, classes: Sequence[str], *, what: str) -> str:
    """A class by its name or its number."""
    if wanted in classes:
        return str(wanted)
    if isinstance(wanted, int) and not isinstance(wanted, bool) and 0 <= wanted < len(classes):
        return classes[wanted]
    names = ", ".join(f"{number} ({name})" for number, name in enumerate(classes))
    raise DatalistError(
        f"{what} is one class, by number or name, got {wanted!r}; there are {names}."
    )


def normal_classes(
    protocol: ClassProtocol | str,
    classes: Sequence[str],
    *,
    normal: int | str | None = None,
    anomalous: int | str | None = None,
) -> list[str]:
    """Return the normal classes of a run of a protocol.

    Args:
        protocol: see :class:`ClassProtocol`.
        classes: all of them, in the order of their numbers.
        normal: the normal class of ``one_vs_rest``, by number or name; of ``halves`` a :class:`Half`.
        anomalous: the anomalous class of ``leave_one_out``, by number or name.

    Raises:
        DatalistError: when there is no such class, or what the protocol needs is not given, or more.
        InputError: when there is no such protocol or half.
    """
    protocol = choose(ClassProtocol, protocol, what="protocol")
    needed, other = ("normal", "anomalous")
    if protocol is ClassProtocol.LEAVE_ONE_OUT:
        needed, other = other, needed
    given = {"normal": normal, "anomalous": anomalous}
    if given[needed] is None or given[other] is not None:
        raise DatalistError(
            f"The protocol {protocol} takes `{needed}` and no `{other}`, got {needed}="
            f"{given[needed]!r} and {other}={given[other]!r}."
        )
    if protocol is ClassProtocol.LEAVE_ONE_OUT:
        left_out = _class_of(anomalous, classes, what="anomalous")
        return [name for name in classes if name != left_out]
    if protocol is ClassProtocol.ONE_VS_REST:
        return [_class_of(normal, classes, what="normal")]
    middle = len(classes) // 2
    return {
        Half.FIRST: list(classes[:middle]),
        Half.SECOND: list(classes[middle:]),
        Half.EVEN: list(classes[::2]),
        Half.ODD: list(classes[1::2]),
    }[choose(Half, normal, what="normal, of the protocol halves,")]


class ClassSplit:
    """Divide images of classes: the normal ones train and calibrate, all are tested.

    Training are the normal classes of the published training part; a share of it is held out for
    calibration by :class:`multiad_med.data.SubjectSplit`. Test is the published test part, in which
    every image of another class is anomalous. Images for training of other classes are left out.

    Args:
        protocol: see :class:`ClassProtocol`.
        normal: see :func:`normal_classes`.
        anomalous: see :func:`normal_classes`.
        classes: names of the classes in the order of their numbers; none means those that are found,
            in the order of their items.
        validation: share of the training images held out for calibration.
        seed: of that share, and of what is drawn.
        training_images: number of images that train and calibrate together, drawn as equally from the
            normal classes as their numbers allow; none means all.
        test_images: number of images that are tested, drawn likewise from all classes.

    Raises:
        InputError: when there is no such protocol.
    """

    def __init__(
        self,
        *,
        protocol: ClassProtocol | str = ClassProtocol.ONE_VS_REST,
        normal: int | str | None = None,
        anomalous: int | str | None = None,
        classes: Sequence[str] | None = None,
        validation: float = 0.1,
        seed: int = 0,
        training_images: int | None = None,
        test_images: int | None = None,
    ) -> None:
        self.protocol = choose(ClassProtocol, protocol, what="protocol")
        self.normal, self.anomalous = normal, anomalous
        self.classes = None if classes is None else [str(name) for name in classes]
        self.seed = seed
        self.training_images, self.test_images = training_images, test_images
        self.hold_out = SubjectSplit(
            training=1 - validation, validation=validation, test=0, seed=seed, stratify="kind"
        )

    def __call__(self, items: Sequence[Item]) -> dict[str, list[dict[str, Any]]]:
        """The items by split, each with ``anomalous``.

        Args:
            items: with ``kind``, their class, and ``split``, training or test.

        Raises:
            DatalistError: when a class is unknown, is missing in the test, or, being normal, in the
                training; when more images are asked for than there are; or as of
                :func:`normal_classes`.
        """
        found = list(dict.fromkeys(str(item["kind"]) for item in items))
        classes = found if self.classes is None else self.classes
        if unknown := [name for name in found if name not in classes]:
            raise DatalistError(
                f"Unknown classes {unknown}; known are {classes}. Rename their folders, remove them, or "
                "set `classes` to the names in the order of their numbers."
            )
        normal = normal_classes(
            self.protocol, classes, normal=self.normal, anomalous=self.anomalous
        )
        training = [i for i in items if i["split"] == "training" and i["kind"] in normal]
        test = [item for item in items if item["split"] == "test"]
        for part, needed, its in (("training", normal, training), ("test", classes, test)):
            if missing := sorted(set(needed) - {str(item["kind"]) for item in its}):
                raise DatalistError(
                    f"No image of the classes {missing} for the {part}. Complete the data set, or set "
                    "`classes` to those that it has."
                )
        training = self._draw(training, self.training_images, what="training_images")
        test = self._draw(test, self.test_images, what="test_images")
        return self.hold_out(
            [{**item, "anomalous": item["kind"] not in normal} for item in (*training, *test)]
        )

    def _draw(self, items: list[Item], count: int | None, *, what: str) -> list[Item]:
        """So many items, equally from each class while it has any."""
        if count is None:
            return items
        if not 0 < count <= len(items):
            raise DatalistError(
                f"{what} is from 1 to {len(items)}, the number of images that there are: "
                f"{dict(Counter(str(item['kind']) for item in items))}; got {count}."
            )
        subjects: dict[str, list[str]] = defaultdict(list)
        for item in items:
            subjects[str(item["kind"])].append(str(item["subject"]))
        rank = {
            subject: place
            for own in subjects.values()
            for place, subject in enumerate(rank_subjects(own, seed=self.seed))
        }
        first = sorted(items, key=lambda item: rank[str(item["subject"])])[:count]
        drawn = {str(item["subject"]) for item in first}
        return [item for item in items if str(item["subject"]) in drawn]
