"""A bundle's inference, kept in memory: one study at a time, with the results of a run over a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from monai.bundle import ComponentLocator, ConfigParser

from multiad_med.card import check_calibrated
from multiad_med.data import StudyDataset, StudyError, StudyResults, StudyStatus, state_sha256
from multiad_med.data.datalist import first_path
from multiad_med.data.study_results import SCORES
from multiad_med.inference.runtime import Runtime, RuntimeNetwork
from multiad_med.inference.study_evaluator import StudyEvaluator
from multiad_med.networks import MultiAD, bundle_of_model, load_model
from multiad_med.preparation.sources import StudyKind
from multiad_med.resources import bundle_path, check_settings, read_config
from multiad_med.result import Result
from multiad_med.utils.choose import choose, usable_device
from multiad_med.utils.configs import literal
from multiad_med.utils.errors import unwrapped

__all__ = ["StudyPredictor", "bundle_kind", "made", "study_parser"]

CONFIG = "inference.json"


def bundle_kind(bundle: str) -> StudyKind | None:
    """Return what a bundle's volumes are; None for a bundle of images."""
    kind = read_config(bundle, CONFIG)["datalist"].get("kind")
    return None if kind is None else StudyKind(kind)


def study_parser(
    config: Mapping[str, Any],
    item: Mapping[str, Any],
    *,
    source: str | Path,
    output_dir: str | Path,
) -> ConfigParser:
    """Return the parts of a bundle's inference for one study.

    Args:
        config: of :attr:`StudyPredictor.config`.
        item: of a datalist.
        source: folder above the study; results are named by the path from it.
        output_dir: folder of the results.
    """
    parser = ConfigParser(
        {
            **config,
            "datalist": {"test": [literal(dict(item))]},
            "dataset_dir": literal(str(source)),
            "output_dir": literal(str(output_dir)),
        }
    )
    parser.locator = _locator()
    return parser


@cache
def _locator() -> ComponentLocator:
    """MONAI's table of its classes, which takes long to make."""
    return ComponentLocator()


def made(parser: ConfigParser, name: str) -> Any:
    """Return a part of a config, made with all that it needs.

    Raises:
        MultiADError: on what a user can mend, without the errors that MONAI wraps around it.
    """
    with unwrapped():
        return parser.get_parsed_content(name)


class StudyPredictor:
    """Runs a bundle's ``inference.json`` on one study after another, as they come.

    Preprocessing, inferer, postprocessing and evaluator are the bundle's own; the model stays in memory.
    Calls share nothing but the network and its run-time, so they may come from several threads.

    Args:
        model: ``model.pt`` of a finished training.
        bundle: of a model whose card does not name it.
        device: such as ``cpu``, or ``auto``: a GPU, where there is one.
        file: the bundle's config: ``inference.json`` or ``evaluate.json``.
        runtime: see :class:`multiad_med.inference.Runtime`.
        settings: ids of the config and their values, such as ``sw_batch_size``.

    Raises:
        InputError: when a setting is not one of the config's ids, the device cannot be used, or the
            run-time is not one for the model.
        CardError: when the bundle or a setting contradicts the model's card.
        WeightsError: when the model does not fit.
        NotCalibratedError: when its training was not finished.

    Attributes:
        bundle: its name.
        kind: of its volumes; None for a bundle of images.
        network: the loaded one, calibrated.
        about: what makes the results: bundle, hash of the model, settings.
        config: the bundle's, with the network and how images are prepared; see :func:`study_parser`.
        arguments: what makes an equal one in another process, but for the device.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        bundle: str | None = None,
        device: str = "auto",
        file: str = CONFIG,
        runtime: Runtime | str = Runtime.TORCH,
        **settings: Any,
    ) -> None:
        self.bundle = bundle_of_model(model, bundle)
        self.kind = bundle_kind(self.bundle)
        settings = {**settings, "runtime": str(choose(Runtime, runtime, what="runtime"))}
        check_settings(self.bundle, file, settings)
        self.arguments = {"model": model, "bundle": self.bundle, "file": file, **settings}
        config = read_config(self.bundle, file) | {
            "bundle_root": literal(str(bundle_path(self.bundle))),
            "ckpt_path": literal(str(model)),
            "split": "test",
            "handlers": [],
        }
        parser = ConfigParser(config)
        parser.locator = _locator()
        parser.update(literal(settings, expressions=True))
        parser["device"] = usable_device(device)
        network, prepared = made(parser, "network"), made(parser, "prepared")
        load_model(network, model)
        check_calibrated(network)
        self.network: MultiAD = network
        self.mapper: RuntimeNetwork = made(parser, "mapper")
        # For good: MONAI sets it back after each run, in the middle of another thread's.
        self.mapper.eval()
        parts = {"network": network, "prepared": prepared, "mapper": self.mapper}
        self.config: dict[str, Any] = parser.get() | parts
        model_sha256 = state_sha256(network)  # once, not for each study
        self.config["results"] = {**self.config["results"], "model_sha256": model_sha256}
        trial = self.parser({"image": str(model)}, Path.cwd(), Path.cwd() / "none")
        made(trial, "evaluator")  # so that an impossible setting fails at the start
        self.about = {
            "bundle": self.bundle,
            "model": model_sha256,
            "settings": json.dumps(made(trial, "results").settings, sort_keys=True),
        }

    def parser(self, item: dict[str, Any], source: Path, output_dir: Path) -> ConfigParser:
        """Return the bundle's parts for one study; all but the network are made anew."""
        return study_parser(self.config, item, source=source, output_dir=output_dir)

    def __call__(
        self,
        image: str | Path | Sequence[str],
        *,
        source: str | Path,
        output_dir: str | Path,
        organ: str | Path | Sequence[str] | None = None,
    ) -> Result:
        """Make a study's results.

        Results that are there already and were made from the same files, model and settings are not
        made again.

        Args:
            image: as in a datalist: a file, the folder of a DICOM series, or the list of its files.
            source: folder above the study; results are named by the path from it.
            output_dir: folder of the results.
            organ: its organ's mask, where the bundle looks inside one.

        Raises:
            StudyError: when the study cannot be read or its results cannot be written; the message
                names the file and the reason, and nothing of the study is left behind.
        """
        named = {"image": image} if organ is None else {"image": image, "organ": organ}
        item: dict[str, Any] = {
            key: str(path) if isinstance(path, (str, Path)) else list(path)
            for key, path in named.items()
        }
        parser = self.parser(item, Path(source), Path(output_dir))
        dataset: StudyDataset = made(parser, "dataset")
        results: StudyResults = made(parser, "results")
        evaluator: StudyEvaluator = made(parser, "evaluator")
        evaluator.run()
        outcome = dataset.outcomes[0]
        if outcome.status is StudyStatus.FAILED:
            raise StudyError(outcome.message, kind=outcome.kind)
        return result_of(item["image"], results, bscans=self.kind is StudyKind.OCT)


def result_of(image: str | list[str], results: StudyResults, *, bscans: bool) -> Result:
    """Return the result of a study that is done.

    Args:
        image: as in a datalist.
        results: where its files are.
        bscans: whether the study is an OCT volume.
    """
    first = first_path({"image": image})
    map_end, *others = results.files
    return Result(
        source=image if isinstance(image, str) else tuple(image),
        map_file=results.path(first, map_end),
        scores_file=results.path(first, SCORES),
        other_files=tuple(results.path(first, end) for end in others),
        folder=results.path(first, "anomaly_dicom"),
        bscans=bscans,
    )
