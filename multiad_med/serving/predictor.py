"""A bundle's inference, kept in memory: one study at a time, with the results of a run over a folder."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from multiad_med.data import StudyDataset, StudyError, StudyStatus
from multiad_med.data.datalist import first_path
from multiad_med.engines import StudyEvaluator
from multiad_med.io import StudyResults, check_calibrated, state_sha256
from multiad_med.io.results import MAP, MASK, SCORES
from multiad_med.networks import bundle_of_model, load_model
from multiad_med.preparation.sources import StudyKind
from multiad_med.resources import bundle_path, read_config
from multiad_med.serving.errors import ServingError
from multiad_med.utils.choices import usable_device
from multiad_med.utils.configs import literal
from multiad_med.utils.errors import InputError, user_error

__all__ = ["BundlePredictor", "Prediction", "bundle_kind"]


def bundle_kind(bundle: str) -> StudyKind:
    """What a bundle's volumes are.

    Raises:
        ServingError: when it is unknown, or a bundle of pictures.
    """
    try:
        return StudyKind(read_config(bundle, "inference.json")["datalist"]["kind"])
    except KeyError:
        raise ServingError(
            f"{bundle} is a bundle of pictures; volumes only are served, as by multiad_brain_mri."
        ) from None
    except InputError as error:
        raise ServingError(str(error)) from error


@dataclass(frozen=True)
class Prediction:
    """The files of a study's results, named and made as the bundle's inference does.

    Attributes:
        map: float32 NIfTI in [0, 1) on the study's grid.
        mask: uint8 NIfTI, the map thresholded.
        scores: JSON.
        folder: for other results of the study; not made yet.
    """

    map: Path
    mask: Path
    scores: Path
    folder: Path

    def read_scores(self) -> dict[str, Any]:
        """The scores as they were written."""
        content: dict[str, Any] = json.loads(self.scores.read_text(encoding="utf-8"))
        return content


def _made(parser: ConfigParser, name: str) -> Any:
    """A part of a bundle; MONAI wraps what is wrong with it once for every level of the config.

    Raises:
        ServingError: with the reason, where a user can mend it.
    """
    try:
        return parser.get_parsed_content(name)
    except RuntimeError as error:
        known = user_error(error)
        if known is None:
            raise
        raise ServingError(
            f"The bundle's {name} cannot be made with these settings: {known}"
        ) from error


class BundlePredictor:
    """Runs a bundle's ``inference.json`` on studies that are not known beforehand.

    Preprocessing, inferer, postprocessing and evaluator are the bundle's own; the model stays in memory.
    Results that are there already and were made from the same files, model and
    settings are not made again.

    Args:
        model: ``model.pt`` of a finished training.
        bundle: of a model whose card does not tell it.
        source: folder that the studies lie below; results are named by where.
        output_dir: folder of the results.
        device: such as ``cpu``; the bundle's choice if none.
        settings: ids of the config and their values, such as ``preset`` and ``size``.

    Raises:
        ServingError: when the bundle is of pictures or a setting is not one of its ids, or contradicts
            the model's card.
        CardError: when the bundle does.
        WeightsError: when the model does not fit.
        NotCalibratedError: when its training was not finished.

    Attributes:
        about: what makes the results: bundle, hash of the model, settings.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        bundle: str | None = None,
        source: str | Path,
        output_dir: str | Path,
        device: str | None = None,
        **settings: Any,
    ) -> None:
        bundle = bundle_of_model(model, bundle)
        self.kind = bundle_kind(bundle)
        config = read_config(bundle, "inference.json")
        for name in settings:
            if name not in config:
                near = difflib.get_close_matches(name, config, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise ServingError(f"{bundle} has no setting {name}.{hint}")
        config |= {
            "bundle_root": literal(str(bundle_path(bundle))),
            "ckpt_path": literal(str(model)),
            "dataset_dir": literal(str(source)),
            "output_dir": literal(str(output_dir)),
            "datalist": {"test": [{}]},  # one study, which each call puts in
            "section": "test",
            "handlers": [],
            **({} if device is None else {"device": usable_device(device)}),
            **literal(settings, expressions=True),
        }
        parser = ConfigParser(config)
        network, prepared = _made(parser, "network"), _made(parser, "prepared")
        load_model(network, model)
        check_calibrated(network)
        self._config = config | {"network": network, "prepared": prepared}
        _made(self._parse(), "evaluator")  # so that an impossible setting is told at the start
        results: StudyResults = _made(self._parse(), "results")
        self.about = {
            "bundle": bundle,
            "model": state_sha256(network),
            "settings": json.dumps(results.settings, sort_keys=True),
        }

    def _parse(self) -> ConfigParser:
        """The bundle's parts, made anew but for the network: each study has an account of its own."""
        return ConfigParser(dict(self._config))

    def __call__(self, image: str | Sequence[str]) -> Prediction:
        """Make a study's results.

        Args:
            image: as in a datalist: a file, the folder of a DICOM series, or the list of its files.

        Raises:
            StudyError: when the study cannot be read or its results not be written; the message
                names the file and the reason, and nothing of the study is left behind.
        """
        item = {"image": image if isinstance(image, str) else list(image)}
        parser = self._parse()
        dataset: StudyDataset = parser.get_parsed_content("dataset")
        results: StudyResults = parser.get_parsed_content("results")
        evaluator: StudyEvaluator = parser.get_parsed_content("evaluator")
        dataset.data = [item]
        evaluator.run()
        outcome = dataset.outcomes[0]
        if outcome.status is StudyStatus.FAILED:
            raise StudyError(outcome.message, kind=outcome.kind)
        first = first_path(item)
        files = [results.path(first, end) for end in (MAP, MASK, SCORES, "anomaly_dicom")]
        return Prediction(*files)
