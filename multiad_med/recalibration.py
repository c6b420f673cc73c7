"""Thresholds set anew from further normal images, without training."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader

from multiad_med.card import ModelCard, check_calibrated
from multiad_med.data import (
    DATALIST_NAME,
    JoinedSlices,
    SliceCache,
    SliceDataset,
    file_sha256,
    is_slice_cache,
    slice_caches,
)
from multiad_med.data.description import describe_data
from multiad_med.data.image_hashes import hashes_by_name
from multiad_med.datasets.layout_files import first
from multiad_med.evaluation.threshold_table import threshold_rows, threshold_text
from multiad_med.inference.int8 import note_int8
from multiad_med.networks import open_model, read_card
from multiad_med.networks.model_file import CACHES
from multiad_med.resources import bundle_path, read_config
from multiad_med.scoring import Level
from multiad_med.training import save_model, score_units, set_thresholds
from multiad_med.training.self_testing import Slices, sample_slices
from multiad_med.utils.choose import usable_device
from multiad_med.utils.configs import literal
from multiad_med.utils.errors import InputError

__all__ = ["calibration_text", "export_int8", "normal_slices", "recalibrate"]

_logger = logging.getLogger(__name__)

Items = list[dict[str, Any]]


class _Source:
    """Images of a folder, a datalist or prepared slices, as the model's bundle reads them.

    Args:
        path: of the images.
        card: of the model.
        settings: further ids of the bundle's train.json.
    """

    def __init__(self, path: str | Path, card: ModelCard, settings: Mapping[str, Any]) -> None:
        self.path = Path(path).expanduser().absolute()
        if not self.path.exists():
            raise InputError(f"{path} does not exist; give a folder of images, or a datalist.")
        self.card = card
        bundle = f"multiad_{card.domain}"
        known = read_config(bundle, "train.json")
        own = card.settings(known) | dict(settings)
        paths = {"bundle_root": str(bundle_path(bundle)), "dataset_dir": str(self.path)}
        self._config = known | literal(own, expressions=True) | literal(paths)
        self._prepared = is_slice_cache(self.path) or bool(slice_caches(self.path))
        if CACHES in card.preparation:  # each was prepared in its own way
            of_this = card.preparation[CACHES].get(self.path.name, {})
            self._config["validate"]["held_out"]["settings"] = literal(of_this)

    def _listed(self) -> Items:
        """Return a datalist's held-out studies, or else its test ones; all studies of a folder."""
        splits: dict[str, Items] = ConfigParser(self._config).get_parsed_content("datalist")
        is_list = self.path.is_file() or (self.path / DATALIST_NAME).is_file()
        return (splits["validation"] if is_list else []) or splits["test"]

    def _slices(self, items: Items) -> SliceCache | JoinedSlices | SliceDataset:
        config = {**self._config, "datalist": literal({"training": [], "validation": items})}
        slices: SliceCache | JoinedSlices | SliceDataset = ConfigParser(config).get_parsed_content(
            "validate#held_out"
        )
        return slices

    def normal(self) -> SliceCache | JoinedSlices | SliceDataset:
        """Return normal slices; images labelled anomalous are left out with a warning."""
        if self._prepared:
            return self._slices([])
        items = self._listed()
        normal = [item for item in items if not item.get("anomalous")]
        if not normal:
            raise InputError(f"{self.path} holds no normal images; thresholds come from such only.")
        if left_out := len(items) - len(normal):
            warnings.warn(
                f"{left_out} of {len(items)} images of {self.path} are called anomalous and left out.",
                stacklevel=3,
            )
        return self._slices(normal)

    def anomalous(self) -> SliceCache | JoinedSlices | SliceDataset:
        """Return all slices of the images labelled anomalous, or of all images where none is."""
        if self._prepared:
            raise InputError(f"{self.path} holds prepared slices; give the anomalous images.")
        items = self._listed()
        chosen = [item for item in items if item.get("anomalous")] or items
        return self._slices([{k: v for k, v in i.items() if k != "label"} for i in chosen])


def _check_unseen(
    card: ModelCard, good: SliceCache | JoinedSlices | SliceDataset, hashes: Mapping[str, str]
) -> bool:
    """Refuse images that the model was trained on; return whether its training held some out."""
    trained = set(card.image_hashes.get("training", ()))
    names = [name for name, own in hashes.items() if own in trained]
    told = card.training.get("training_data", {}).get("studies_sha256")
    if not names and told == describe_data(good)["studies_sha256"]:
        names = list(hashes)
    if names:
        raise InputError(
            f"{len(names)} of {len(hashes)} images are among those that the model was trained on: "
            f"{first(Path(name).name for name in names)}. Their scores are too low for thresholds. Give "
            "normal images that it has not seen."
        )
    return bool(set(card.image_hashes.get("held_out", ())) & set(hashes.values()))


def _target(model: Path, output: str | Path | None) -> Path:
    if output is not None:
        return Path(output)
    target = model.with_name(f"{model.stem}-calibrated{model.suffix}")
    if target.exists():
        raise InputError(
            f"{target} exists. Name another output, or the same one to have it replaced."
        )
    return target


def _levels(scores: Mapping[Level, Sequence[float]]) -> list[Level]:
    """Return the levels that get a table: images, or volumes and, where they are fewer, patients."""
    slices, volumes, patients = (len(scores[level]) for level in Level)
    if slices == volumes or not volumes:
        return [Level.SLICE]
    return [Level.VOLUME, Level.PATIENT] if patients < volumes else [Level.VOLUME]


class _Recalibration:
    """A model and the further normal images that its thresholds are set from.

    Args:
        model: ``model.pt`` of a finished training.
        good: see :func:`recalibrate`.
        rate: see :func:`recalibrate`.
        device: where to run.
        settings: further ids of the bundle's train.json.
    """

    def __init__(
        self,
        model: Path,
        good: str | Path,
        *,
        rate: float | None,
        device: Any,
        settings: Mapping[str, Any],
    ) -> None:
        if rate is not None and not 0 < rate < 1:
            raise InputError(f"rate must lie in (0, 1), such as 0.05, got {rate}.")
        network = open_model(model)
        check_calibrated(network)
        self.model, self.good = model, good
        self.card = network.card
        if not self.card.domain:
            raise InputError(f"{model} does not tell its domain. Train it anew with this version.")
        self.normal = _Source(good, self.card, settings).normal()
        self.hashes = hashes_by_name(self.normal)
        self.shared = _check_unseen(self.card, self.normal, self.hashes)
        self.rates = {level: rate or self.card.level(level).rate for level in Level}
        self.network = network.to(device).eval()
        self.options: dict[str, Any] = {
            "device": device,
            # The tiles of an image are parts of one.
            "group": "subject" if self.card.preparation.get("tile") else None,
        }

    def batches(self) -> DataLoader:
        """Return the normal images."""
        return DataLoader(self.normal, batch_size=8)

    def set_thresholds(self) -> None:
        """Set the network's thresholds and normal scores."""
        set_thresholds(
            self.network,
            self.batches(),
            fitted=None if self.shared else set(),
            pixel_false_positive_rate=float(self.network.pixel_false_positive_rate),
            image_false_positive_rate=self.rates[Level.SLICE],
            volume_false_positive_rate=self.rates[Level.VOLUME],
            score_fraction=float(self.network.score_fraction),
            **self.options,
        )

    def save(self, target: Path, found: Mapping[Level, Sequence[float]], **about: Any) -> None:
        """Write the model with its new thresholds.

        Args:
            target: the file.
            found: scores of anomalous units of each level, for the tables.
            about: what else the card tells of the calibration.
        """
        levels = _levels({level: self.card.level(level).scores for level in Level})
        tables = {}
        for level in levels:
            scores = torch.tensor([*self.card.level(level).scores, *found.get(level, ())])
            labels = torch.arange(len(scores)) >= self.card.level(level).units
            tables[str(level)] = threshold_rows(self.card.level(level), scores, labels)
        calibration = {
            "data": Path(self.good).name,
            **describe_data(self.normal),
            "of_model_sha256": file_sha256(self.model),
            "units": {str(level): self.card.level(level).units for level in levels},
            "rates": {"pixel": float(self.network.pixel_false_positive_rate)}
            | {str(level): self.rates[level] for level in levels},
            "thresholds_table": tables,
            **about,
        }
        known = {**self.card.image_hashes, "calibration": sorted(set(self.hashes.values()))}
        if target.exists():
            _logger.warning("%s is replaced", target)
        save_model(
            self.network.cpu(), target, card={"calibration": calibration, "image_hashes": known}
        )


def recalibrate(
    model: str | Path,
    good: str | Path,
    *,
    bad: str | Path | None = None,
    rate: float | None = None,
    output: str | Path | None = None,
    device: str | torch.device = "cpu",
    **settings: Any,
) -> Path:
    """Set a model's thresholds and p-values anew from further normal images, without training.

    The pixel threshold and the normal scores of slices (images), volumes and patients are set; weights
    and the fusion's statistics stay. The card tells that they come from a later calibration, from how
    many units, at which rates, and from which data.

    Args:
        model: ``model.pt`` of a finished training.
        good: normal images, or volumes, that it was not trained on: a folder, a datalist (its
            ``validation``, or else its ``test``), or prepared slices (their ``validation``), of one
            category or of several.
        bad: anomalous images, or volumes; they set nothing, but :func:`calibration_text` tells how many
            each rate finds.
        rate: false-positive rate of the verdicts of images, volumes and patients; None keeps the
            model's. That of pixels stays. Where it is out of reach there is no verdict, and the text
            says so.
        output: of the new model; by default beside the model, its name followed by ``-calibrated``,
            if there is no such file. A file that is named here is replaced, the model too.
        device: where to run.
        settings: further ids of the bundle's train.json, such as ``image_glob``.

    Returns:
        The new model file.

    Raises:
        InputError: when the rate is not in (0, 1), the images are among those of the model's training,
            as far as its card tells, or none is normal, or the output's default name is taken.
        NotCalibratedError: when the model's training was not finished.
        WeightsError: when the model cannot be read.
    """
    target = _target(Path(model), output)
    device = usable_device(device)
    work = _Recalibration(Path(model), good, rate=rate, device=device, settings=settings)
    anomalous = None if bad is None else _Source(bad, work.card, settings).anomalous()
    work.set_thresholds()
    found: dict[Level, list[float]] = {}
    if anomalous is not None:
        found = score_units(work.network, DataLoader(anomalous, batch_size=8), **work.options)
    work.save(target, found)
    return target


def normal_slices(model: str | Path, good: str | Path, **settings: Any) -> Slices:
    """Return at most 64 normal images and their foreground, as a model's training would hold them out.

    Args:
        model: see :func:`recalibrate`.
        good: see :func:`recalibrate`.
        settings: see :func:`recalibrate`.

    Raises:
        InputError: as of :func:`recalibrate`.
    """
    work = _Recalibration(Path(model), good, rate=None, device="cpu", settings=settings)
    return sample_slices(work.batches())


@torch.no_grad()
def export_int8(model: str | Path, target: str | Path, good: str | Path, **settings: Any) -> Path:
    """Write a model's network in INT8 for OpenVINO, if it finds as much, and a model with its thresholds.

    Features of teacher and student are quantised by NNCF, or those of the student alone, if the first
    costs too much; distances, hazards and fusion stay in float32. The ranges of the INT8 numbers come
    from normal images. It must find pseudo-anomalies nearly as well as the model:
    see :func:`multiad_med.inference.quantisation.accuracy_lost`. Then thresholds and normal scores are
    set for it, from all of the normal images. Beside ``NAME.xml`` and ``NAME.bin`` is written
    ``NAME.pt``, which ``multiad predict`` takes; its maps are those of the export.

    Args:
        model: ``model.pt`` of a finished training.
        target: the ``.xml`` file.
        good: normal images that the model was not trained on, as of :func:`recalibrate`.
        settings: further ids of the bundle's train.json, such as ``image_glob``.

    Returns:
        The model file, ``NAME.pt``.

    Raises:
        AccuracyLostError: when the fall's upper bound is too high, with the figures; nothing is written.
        MissingPackageError: without the extra ``int8``.
        InputError: as of :func:`recalibrate`; when ``target`` does not end in ``.xml``, or its ``.pt`` is
            the model itself.
    """
    from multiad_med.inference.export_model import check_xml, write_openvino
    from multiad_med.inference.quantisation import (
        AccuracyLostError,
        Int8Network,
        Quantised,
        accuracy_lost,
        mapped_by,
    )

    target = check_xml(target)
    written = target.with_suffix(".pt")
    if written.resolve() == Path(model).resolve():
        raise InputError(f"{written} is the model itself. Give the export another name.")
    work = _Recalibration(Path(model), good, rate=None, device="cpu", settings=settings)
    slices = sample_slices(work.batches())
    refused: list[str] = []
    for what in Quantised:
        fast = Int8Network(work.network, slices[0].expand(-1, 3, -1, -1).contiguous(), what=what)
        raw_map = fast.raw_map()
        lost = accuracy_lost(work.network, raw_map, slices)
        if lost.acceptable:
            _logger.info("INT8 of %s is accepted: %s.", what, lost)
            break
        refused.append(f"INT8 of {what} costs too much: {lost}")
        _logger.info("%s.", refused[-1])
    else:
        raise AccuracyLostError(
            f"{'. '.join(refused)}. Nothing is written. Export without --int8, or give more normal "
            "images."
        )
    with mapped_by(work.network, raw_map):
        work.set_thresholds()
    write_openvino(fast.model(calibrated=True), target)
    about = {"quantised": str(what), "accuracy_lost": lost.as_json()}
    work.save(written, {}, **note_int8(written), **about)
    return written


def calibration_text(model: str | Path) -> str:
    """Return what :func:`recalibrate` found, as text: verdicts, and rates to choose from.

    Args:
        model: a file that it wrote.

    Raises:
        InputError: when the model was not calibrated after its training.
        WeightsError: when it cannot be read.
    """
    card = read_card(model)
    if card is None or not card.calibration:
        raise InputError(f"{model} was not calibrated after its training.")
    about = card.calibration
    lines = []
    for name, rows in about["thresholds_table"].items():
        level = Level(name)
        normals, unit = card.level(level), card.unit(level)
        verdict = (
            normals.no_verdict(unit)
            or f"at or above {normals.threshold:.4f} a new {unit} is called anomalous, as are at most "
            f"{100 * normals.rate:.3g} % of the normal ones"
        )
        lines.append(f"{normals.units} normal {unit}s of {about['data']}: {verdict}.")
        if normals.approximate:
            lines.append(f"Approximate: {normals.approximate}.")
        lines += ["  " + line for line in threshold_text(rows)] if rows else []
    return "\n".join(lines)
