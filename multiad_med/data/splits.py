"""Splits by subject into training, calibration and test, and the datalist that lists them."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from multiad_med.data.datalist import SPLITS, DatalistError, rank_subjects, shared_subjects
from multiad_med.utils.errors import InputError
from multiad_med.utils.json_files import read_json

__all__ = ["BmadBrainSplit", "BmadLiverSlices", "SubjectSplit", "datalist_content", "splits_hash"]

_logger = logging.getLogger(__name__)

Item = Mapping[str, Any]
Splits = dict[str, list[dict[str, Any]]]


def _shares(count: int, fractions: Sequence[float]) -> list[int]:
    """Return whole numbers that sum to ``count``, at least 1 for a positive fraction if possible."""
    exact = [count * f / sum(fractions) for f in fractions]
    shares = [int(e) for e in exact]
    for index in sorted(range(len(exact)), key=lambda i: shares[i] - exact[i]):
        if sum(shares) < count:
            shares[index] += 1
    for index, fraction in enumerate(fractions):
        if fraction > 0 and shares[index] == 0 and max(shares) > 1:
            shares[shares.index(max(shares))] -= 1
            shares[index] = 1
    return shares


def _in_order(splits: Splits) -> Splits:
    return {split: splits.get(split, []) for split in SPLITS}


class SubjectSplit:
    """Divide studies into splits so that every subject is in one only.

    Splits that a data set publishes are kept. Where none is published, subjects are divided by
    the three fractions. Where training and test are published but no validation, a share of the
    training subjects is held out for calibration. A subject with an anomalous study without a
    mask, which would show its normal slices, goes to the test. The choice depends only on the seed and
    each subject's identifier: file order does not matter, and further subjects move few others.

    Args:
        training: share of the subjects that train; the shares need not add up to 1.
        validation: share that calibrates.
        test: share that is kept for the test.
        seed: of the ranking.
        stratify: key of the items, such as ``category``; each of its values is divided on its own.
        published: new names of published splits, such as ``{validation: test}`` where others test
            on the validation set.
        needs: keys without which a study is left out, such as ``[organ]``.
        allow_shared_subjects: whether a published split may put a subject into several splits.
            Some releases have this fault, a leak; it is then reported instead of refused.
    """

    def __init__(
        self,
        *,
        training: float = 0.6,
        validation: float = 0.1,
        test: float = 0.3,
        seed: int = 0,
        stratify: str | None = None,
        published: Mapping[str, str] | None = None,
        needs: Sequence[str] = (),
        allow_shared_subjects: bool = False,
    ) -> None:
        fractions = (training, validation, test)
        if min(fractions) < 0 or training <= 0:
            raise InputError(
                f"Fractions must not be negative, and training must be positive: {fractions}."
            )
        self.fractions = fractions
        self.seed = seed
        self.stratify = stratify
        self.published = dict(published or {})
        self.needs = tuple(needs)
        self.allow_shared_subjects = allow_shared_subjects

    def _divide(self, items: Iterable[Item], fractions: Sequence[float]) -> dict[str, int]:
        strata: dict[str, set[str]] = defaultdict(set)
        stratum_of: dict[str, str] = {}
        for item in items:
            subject = str(item["subject"])
            stratum = str(item.get(self.stratify, "")) if self.stratify else ""
            strata[stratum_of.setdefault(subject, stratum)].add(subject)
        part: dict[str, int] = {}
        for subjects in strata.values():
            ranked = rank_subjects(subjects, seed=self.seed)
            start = 0
            for index, share in enumerate(_shares(len(ranked), fractions)):
                part.update(dict.fromkeys(ranked[start : start + share], index))
                start += share
        return part

    def __call__(self, items: Sequence[Item]) -> Splits:
        """Return the items by split, each with its ``split``.

        Raises:
            DatalistError: when a subject is in two splits, or no study is left for training.
        """
        splits: Splits = defaultdict(list)
        listed = len(items)
        items = [item for item in items if all(key in item for key in self.needs)]
        published = [
            {**item, "split": self.published.get(item["split"], item["split"])}
            for item in items
            if "split" in item
        ]
        free = [item for item in items if "split" not in item]
        abnormal = {
            str(item["subject"]) for item in free if item.get("anomalous") and "label" not in item
        }
        part = self._divide((i for i in free if str(i["subject"]) not in abnormal), self.fractions)
        for item in free:
            split = SPLITS[part.get(str(item["subject"]), 2)]
            splits[split].append({**item, "split": split})
        held_out: dict[str, int] = {}
        training, validation, _ = self.fractions
        if validation > 0 and not any(item["split"] == "validation" for item in published):
            normal = [item for item in published if item["split"] == "training"]
            held_out = self._divide(normal, (training, validation)) if not free else {}
        for item in published:
            split = str(item["split"])
            if split == "training" and held_out.get(str(item["subject"])) == 1:
                split = "validation"
            splits[split].append({**item, "split": split})
        result = _in_order(splits)
        subjects = {str(item["subject"]) for item in items}
        if not result["training"] and items and abnormal == subjects:
            _logger.warning(
                "None of %d studies is for training: all are anomalous, and no mask tells their normal "
                "slices. They are all for the test.",
                len(items),
            )
        elif not result["training"]:
            needs = f" {listed - len(items)} more lack {list(self.needs)}." if self.needs else ""
            raise DatalistError(
                f"None of {len(items)} studies is left for training.{needs} Normal studies are needed, "
                f"and the fraction for training must reach one subject: {self.fractions}."
            )
        wrong = [
            str(item["image"])
            for item in published
            if item["split"] == "training" and item.get("anomalous") and "label" not in item
        ]
        if wrong:
            raise DatalistError(
                f"{len(wrong)} studies for training are marked anomalous and have no lesion mask that "
                f"tells their normal slices, first {wrong[:3]}. Training takes normal images only."
            )
        clashes = shared_subjects(result)
        if clashes and not self.allow_shared_subjects:
            raise DatalistError(
                f"{len(clashes)} subjects in two splits, first: {', '.join(clashes[:5])}."
            )
        return result


class BmadBrainSplit:
    """The split of BMAD's brain data, from its lists of patients, for BraTS 2021 volumes.

    Training, normal validation and normal test patients give their tumour-free slices 60 to 99;
    all other patients are abnormal and give slices 60, 70, 80, 90 (validation, 11 patients) or 60,
    68, 76, 84, 92 (test). BMAD took those 11 from Python's set order, which no one can repeat: here
    they are the 11 with the lowest numbers.

    Args:
        ids: JSON file with ``training``, ``validation_normal`` and ``test_normal``: five digits.
        spacing: must be none, since BMAD's slice numbers are those of the volumes as published.
    """

    VALIDATION_ABNORMAL = 11

    def __init__(self, ids: str | Path, *, spacing: Sequence[float] | None = None) -> None:
        self.resampled = spacing is not None
        lists = read_json(ids)
        self.split_of = {
            **dict.fromkeys(lists["training"], "training"),
            **dict.fromkeys(lists["validation_normal"], "validation"),
            **dict.fromkeys(lists["test_normal"], "test"),
        }

    def __call__(self, items: Sequence[Item]) -> Splits:
        """Return the items by split, with the slices that each gives.

        Raises:
            DatalistError: when a subject's name does not end in BraTS 2021's number.
        """
        if self.resampled:
            raise DatalistError(
                "BMAD's slice numbers are of volumes as published: set spacing=null."
            )
        splits: Splits = defaultdict(list)
        abnormal: list[Item] = []
        for item in items:
            number = str(item["subject"]).rsplit("_", 1)[-1]
            if len(number) != 5 or not number.isdigit():
                raise DatalistError(
                    f"BMAD's split names patients of BraTS 2021, such as BraTS2021_00003; got "
                    f"{item['subject']!r}. Use `split=patient`."
                )
            if number in self.split_of:
                split = self.split_of[number]
                rule = {"wanted_slices": list(range(60, 100)), "normal_only": True}
                splits[split].append({**item, **rule, "split": split})
            else:
                abnormal.append(item)
        for index, item in enumerate(sorted(abnormal, key=lambda i: str(i["subject"]))):
            first = index < self.VALIDATION_ABNORMAL
            split = "validation" if first else "test"
            rule = {"wanted_slices": list(range(60, 100, 10 if first else 8))}
            splits[split].append({**item, **rule, "split": split})
        if not splits["training"]:
            raise DatalistError(
                f"None of {len(items)} studies is one of BMAD's 424 training patients. Use "
                "`split=patient`."
            )
        return _in_order(splits)


class BmadLiverSlices:
    """BMAD's division of its LiTS slices: by slices, not by patients.

    Of the test slices in the order of their file names (``liver_<number>_<slice>``), the first 73
    abnormal and the first 93 normal ones validate, so that patients are on both sides.

    Args:
        abnormal: how many abnormal ones validate.
        normal: how many normal ones validate.
    """

    def __init__(self, *, abnormal: int = 73, normal: int = 93) -> None:
        self.count = {"abnormal": abnormal, "normal": normal}

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows of a cache's index, some of ``test`` moved to ``validation``."""
        left = dict(self.count)
        moved: set[int] = set()

        def name(index: int) -> str:
            return (
                f"liver_{str(rows[index]['subject']).rsplit('-', 1)[-1]}_{rows[index]['slice']}.png"
            )

        test = [i for i, row in enumerate(rows) if row["split"] == "test"]
        for index in sorted(test, key=name):
            state = str(rows[index]["state"])
            if left.get(state, 0) > 0:
                left[state] -= 1
                moved.add(index)
        return [
            {**row, "split": "validation"} if index in moved else dict(row)
            for index, row in enumerate(rows)
        ]


def splits_hash(splits: Mapping[str, Sequence[Item]]) -> str:
    """Return the SHA-256 of every split, subject and study, whatever the folder they lie in."""
    lines = sorted(
        f"{split}\t{item['subject']}\t{item['study']}"
        for split, items in splits.items()
        for item in items
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def datalist_content(
    splits: Mapping[str, Sequence[Item]], *, name: str, description: str, modality: str
) -> dict[str, Any]:
    """Return a datalist in the Medical Decathlon's form, with counts and the hash of its split.

    ``load_decathlon_datalist`` and Auto3DSeg read its splits ``training``, ``validation`` and
    ``test``.
    """
    counts = {
        split: {
            "studies": len(items),
            "subjects": len({str(item["subject"]) for item in items}),
            **(
                {"categories": dict(Counter(str(item["category"]) for item in items))}
                if any("category" in item for item in items)
                else {}
            ),
        }
        for split, items in splits.items()
    }
    return {
        "name": name,
        "description": description,
        "modality": {"0": modality},
        "labels": {"0": "normal", "1": "anomaly"},
        "numTraining": counts["training"]["studies"],
        "numTest": counts["test"]["studies"],
        "counts": counts,
        "split_sha256": splits_hash(splits),
        **{split: [dict(item) for item in items] for split, items in splits.items()},
    }
