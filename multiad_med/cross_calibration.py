"""Verdicts from few subjects: each training subject is scored by a model that has not seen it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.data import partition_dataset

from multiad_med.card import ModelCard
from multiad_med.data import is_slice_cache, slice_caches
from multiad_med.data.datalist import rank_subjects
from multiad_med.data.description import studies_sha256
from multiad_med.detector import AnomalyDetector
from multiad_med.networks import open_model
from multiad_med.resources import bundle_path, read_config, with_preset
from multiad_med.scoring import Level, NormalScores
from multiad_med.training import save_model
from multiad_med.utils.configs import literal
from multiad_med.utils.errors import InputError

__all__ = ["cross_calibrate"]

Items = list[dict[str, Any]]


def _splits(bundle: str, settings: Mapping[str, Any]) -> dict[str, Items]:
    root = {"bundle_root": str(bundle_path(bundle))}
    config = read_config(bundle, "train.json") | literal(root | dict(settings), expressions=True)
    splits: dict[str, Items] = ConfigParser(config).get_parsed_content("datalist")
    return splits


def _check_splits(splits: Mapping[str, Items], card: ModelCard, dataset_dir: Path) -> None:
    training = splits["training"]
    told = card.training.get("training_data", {}).get("studies_sha256")
    if told is None or studies_sha256(training) != told:
        raise InputError(
            f"{dataset_dir} does not give the studies that the model was trained on. Give the folder, or "
            "datalist, of its training, unchanged, and the same globs."
        )
    if labelled := [item for item in training if "label" in item]:
        raise InputError(
            f"{labelled[0]['image']} has a lesion mask. Cross-calibration scores whole volumes of normal "
            "subjects; use held-out ones instead."
        )


def cross_calibrate(
    model: str | Path,
    dataset_dir: str | Path,
    output_dir: str | Path,
    *,
    folds: int = 4,
    **settings: Any,
) -> Path:
    """Set a model's thresholds from its training subjects, by cross-validation (k folds).

    The training subjects are divided into folds. For each, a model is trained as the model was, but on
    the other folds, and scores the fold's subjects; held-out subjects fit the fusion's scale as usual.
    The scores of all folds become the model's normal scores. They are called approximate: the folds'
    models are not the final one, and have seen fewer subjects. This costs ``folds`` trainings. An
    interrupted run goes on when it is started again.

    Args:
        model: ``model.pt`` of a finished training.
        dataset_dir: data that it was trained on: a folder or a datalist, not prepared slices.
        output_dir: folder for the folds, and for the model with the new scores.
        folds: number of folds, at least 2.
        settings: ids of the bundle's train.json that the training was given besides those on the card,
            such as ``image_glob`` and ``device``.

    Returns:
        The new model file, ``output_dir/model.pt``.

    Raises:
        InputError: when the data are not the model's, are prepared slices or have lesion masks, or
            there are fewer subjects than folds.
    """
    model, output, source = Path(model), Path(output_dir), Path(dataset_dir).absolute()
    network = open_model(model)
    card = network.card
    if not card.domain:
        raise InputError(f"{model} does not tell its domain. Train it anew with this version.")
    target = output / "model.pt"
    if target.resolve() == model.resolve():
        raise InputError(f"{target} would replace the model itself; choose another output folder.")
    if is_slice_cache(source) or slice_caches(source):
        raise InputError(f"{source} holds prepared slices. Give the volumes that they come from.")
    bundle = f"multiad_{card.domain}"
    files, _ = with_preset(bundle, "train.json", {"preset": card.training.get("preset")})
    own = card.settings({name for file in files for name in read_config(bundle, file)})
    # What the scores depend on besides the card.
    own["score_fraction"] = float(network.score_fraction)
    own["pixel_false_positive_rate"] = float(network.pixel_false_positive_rate)
    common = {**own, **settings}
    splits = _splits(bundle, {"dataset_dir": str(source), **common})
    _check_splits(splits, card, source)
    subjects = rank_subjects([str(i["subject"]) for i in splits["training"]], seed=own["seed"])
    if not 2 <= folds <= len(subjects):
        raise InputError(
            f"folds must lie between 2 and the number of training subjects, {len(subjects)}, got {folds}."
        )
    slices: list[float] = []
    volumes: list[float] = []
    patients: dict[str, float] = {}
    for number, held_out in enumerate(partition_dataset(subjects, num_partitions=folds)):
        folder = output / f"fold{number}"
        for subject, volume, of_slices in _run_fold(
            source, folder, set(held_out), splits, card=card, common=common
        ):
            volumes.append(volume)
            slices += of_slices
            patients[subject] = max(volume, patients.get(subject, 0.0))
    why = f"{folds}-fold cross-calibration: the folds' models are not the final one"
    for level, scores in (
        (Level.SLICE, slices),
        (Level.VOLUME, volumes),
        (Level.PATIENT, list(patients.values())),
    ):
        rate = card.level(level).rate
        card.levels[level] = NormalScores(tuple(scores), rate, why)
    save_model(network, target, card={})
    return target


def _run_fold(
    source: Path,
    folder: Path,
    held_out: set[str],
    splits: Mapping[str, Items],
    *,
    card: ModelCard,
    common: Mapping[str, Any],
) -> list[tuple[str, float, list[float]]]:
    """Train without a fold's subjects; return each one's name, volume score and slice scores."""
    training = [i for i in splits["training"] if str(i["subject"]) not in held_out]
    rest = [i for i in splits["training"] if str(i["subject"]) in held_out]
    given = {
        **common,
        "self_test": False,
        "datalist": literal(
            {"training": training, "validation": splits["validation"], "test": rest}
        ),
        "network_def": {
            "_target_": "multiad_med.networks.build_multiad",
            **card.network,
            "teacher_weights": card.training["teacher_weights"],
        },
    }
    detector = AnomalyDetector(card.domain).fit(source, output=folder, **given)
    inference = read_config(detector.bundle, "inference.json")
    on_card = {"preset", *card.preparation}
    passed = {k: v for k, v in common.items() if k in inference and k not in on_card}
    passed["datalist"] = literal({"test": rest})
    results = detector.predict_folder(source, output=folder / "maps", **passed)
    return [
        (str(item["subject"]), result.score, [one["score"] for one in result.slices])
        for item, result in zip(rest, results, strict=True)
    ]
