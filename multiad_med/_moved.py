"""Old places of modules, for one release: importing from one works and names the new place.

Goes with version 0.3.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["OldPlaces", "install", "moved_name"]

MODULES = {
    "transforms.light": "transforms.brightness",
    "cli.log": "cli.messages",
    "convert": "training.add_card",
    "data.errors": "data.study_errors",
    "data.layouts.bmad": "datasets.bmad",
    "data.layouts.brats": "datasets.brats",
    "data.layouts.files": "datasets.layout_files",
    "data.layouts.hints": "datasets.hints",
    "data.layouts.images": "datasets.plain_images",
    "data.layouts.liver": "datasets.liver",
    "data.layouts.masks": "datasets.mask_names",
    "data.layouts.mvtec": "datasets.mvtec",
    "data.layouts.oct": "datasets.oct",
    "data.layouts.recognise": "datasets.recognise",
    "data.layouts.resc": "datasets.resc",
    "data.layouts.visa": "datasets.visa",
    "data.layouts.volumes": "datasets.volumes",
    "data.store": "data.slice_cache",
    "data.slices": "data.slice_dataset",
    "data.studies": "data.study_dataset",
    "demo.run": "demo.demonstration",
    "engines.best": "training.best",
    "engines.calibration": "training.calibration",
    "engines.distributed": "training.distributed",
    "engines.epochs": "training.epoch_log",
    "engines.evaluator": "training.validation",
    "engines.experts": "training.expert_fitting",
    "engines.handlers": "training.handlers",
    "engines.schedule": "training.schedule",
    "engines.self_testing": "training.self_testing",
    "engines.studies": "inference.study_evaluator",
    "engines.summary": "inference.study_summary",
    "engines.tensorboard": "training.tensorboard",
    "engines.trainer": "training.trainer",
    "evaluation.ablate": "benchmark.ablate",
    "evaluation.command": "evaluation.labelled",
    "evaluation.compare": "benchmark.compare",
    "evaluation.detectors": "benchmark.detectors",
    "evaluation.outcomes": "benchmark.outcomes",
    "evaluation.peers.base": "benchmark.methods.base",
    "evaluation.peers.memory": "benchmark.methods.memory_bank",
    "evaluation.peers.own_teacher": "benchmark.methods.own_teacher",
    "evaluation.peers.trained": "benchmark.methods.trained",
    "evaluation.report.files": "evaluation.report.write",
    "evaluation.results": "evaluation.evaluation",
    "evaluation.shortcuts": "evaluation.baselines",
    "evaluation.tables": "benchmark.outcome_tables",
    "exports": "inference.export_model",
    "federated": "training.federated",
    "inferers": "inference.axial_inferer",
    "io.archives": "readers.archives",
    "io.atomic": "utils.atomic",
    "io.bands": "inference.severity",
    "io.dicom_codestream": "dicom.read.codestream",
    "io.dicom_frames": "dicom.read.frames",
    "io.dicom_geometry": "dicom.read.geometry",
    "io.dicom_header": "dicom.read.header",
    "io.dicom_overlay": "dicom.write.overlay",
    "io.dicom_parametric_map": "dicom.write.parametric_map",
    "io.dicom_pixels": "dicom.read.pixels",
    "io.dicom_reader": "dicom.read.reader",
    "io.dicom_report": "dicom.write.report",
    "io.dicom_result": "dicom.write.instance",
    "io.dicom_results": "dicom.write.results",
    "io.dicom_seg": "dicom.write.segmentation",
    "io.dicom_series": "dicom.read.series",
    "io.dicom_source": "dicom.write.referenced_series",
    "io.from_memory": "inference.from_memory",
    "io.hashes": "data.hashes",
    "io.image_file": "readers.image_file",
    "io.load": "readers.load_volume",
    "io.montage": "visualize.slice_rows",
    "io.nifti": "inference.map_writers",
    "io.nifti_reader": "readers.nifti",
    "io.oct": "readers.bscans",
    "io.overlay": "visualize.colours",
    "io.overlay_file": "visualize.overlay_file",
    "io.picture_maps": "inference.image_maps",
    "io.pictures": "readers.images",
    "io.results": "data.study_results",
    "io.scores": "inference.scores",
    "label.command": "label.launch",
    "label.infer": "label.inference_task",
    "label.options": "label.server_options",
    "label.train": "label.training_task",
    "losses": "networks.losses",
    "metrics.volume": "metrics.overlap",
    "overrides": "utils.overrides",
    "predictor": "inference.predictor",
    "preparation.command": "preparation.prepare_command",
    "preparation.export": "preparation.png_export",
    "preparation.pictures": "preparation.image_splits",
    "preparation.run": "preparation.recipe_run",
    "preparation.studies": "preparation.prepare_study",
    "pretrained_files": "networks.pretrained_files",
    "self_test": "self_test_result",
    "serving.command": "serving.service",
    "serving.errors": "serving.service_errors",
    "serving.log": "serving.json_log",
    "serving.source": "serving.study_source",
    "transforms.memory": "transforms.memory_order",
    "transforms.plug_in": "transforms.plugged",
    "transforms.slices": "transforms.axial_slices",
    "utils.choices": "utils.choose",
    "utils.plug_in": "utils.dotted_name",
    "viewing.command": "visualize.viewer",
    "viewing.contact_sheet": "visualize.contact_sheet",
    "viewing.embedded": "visualize.embedded",
    "viewing.findings": "visualize.findings",
    "viewing.montage": "visualize.montage",
    "viewing.overlay": "visualize.worst_slice",
    "viewing.page": "visualize.viewer_page",
    "viewing.study": "visualize.viewed_study",
}
"""Old module: new module, below ``multiad_med``."""

PACKAGES = {
    "data.layouts": ["datasets"],
    "engines": ["training", "inference"],
    "evaluation.peers": ["benchmark.methods"],
    "io": ["readers", "dicom.read", "inference", "data", "visualize", "utils.atomic", "card"],
    "viewing": ["visualize"],
}
"""Old package: where its names are now."""

RENAMED = {
    "BANDS": "SEVERITY_LEVELS",
    "BAND_COLOURS": "SEVERITY_COLOURS",
    "Band": "SeverityLevel",
    "BandThresholds": "SeverityThresholds",
    "EvenLight": "NormaliseBrightness",
    "EvenLightd": "NormaliseBrightnessd",
    "LoadPictureMasks": "LoadImageMasks",
    "LoadPictureMasksd": "LoadImageMasksd",
    "LoadPictures": "LoadImages",
    "LoadPicturesd": "LoadImagesd",
    "PEERS": "METHODS",
    "Peer": "TeacherMethod",
    "PictureError": "ImageError",
    "PixelFigures": "PixelMetrics",
    "RandLightd": "RandBrightnessd",
    "SavePictureMapd": "SaveTiffMapd",
    "Shortcuts": "Baselines",
    "SliceStore": "SliceCache",
    "StoreError": "CacheError",
    "TrainedPeer": "TrainedMethod",
    "anomaly_bands": "severity_levels",
    "build_peer": "build_method",
    "export_pictures": "export_png",
    "is_store": "is_slice_cache",
    "load_pictures": "load_images",
    "shortcut_note": "baseline_note",
    "shortcuts_of": "baselines_of",
}
"""Old name: new name, wherever it is."""

NAMES = {
    "evaluation.detectors": ["evaluation.predictions"],
    "io.scores": ["scoring", "card"],
    **{room: [room] for room in ("data", "evaluation", "preparation", "transforms")},
    "networks": ["inference"],
    "preparation.sources": ["preparation"],
}
"""Module or package: where else some of its names are now."""


class _OldModule(ModuleType):
    """A module that is no more: it finds each name where it is now."""

    def __init__(self, name: str, places: Sequence[str]) -> None:
        super().__init__(name)
        self._places = [f"multiad_med.{place}" for place in places]
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return moved_name(self.__name__, name, self._places)


def moved_name(old: str, name: str, places: Sequence[str] | None = None) -> Any:
    """Find a name that has left a module, and warn with its new place.

    Args:
        old: the module's full name.
        name: of what is asked for.
        places: modules to look in; without them, those of :data:`NAMES`.

    Raises:
        AttributeError: when it is in none of them.
    """
    if places is None:
        places = [f"multiad_med.{place}" for place in NAMES[old.removeprefix("multiad_med.")]]
    new = RENAMED.get(name, name)
    if not name.startswith("__") and not (new == name and places == [old]):
        for place in places:
            module = import_module(place)
            if hasattr(module, new):
                warnings.warn(
                    f"{old}.{name} is now {place}.{new}; the old place goes with version 0.3.",
                    DeprecationWarning,
                    stacklevel=3,
                )
                return getattr(module, new)
    raise AttributeError(f"module {old!r} has no attribute {name!r}")


class OldPlaces(MetaPathFinder, Loader):
    """Finds modules that have moved, see :data:`MODULES` and :data:`PACKAGES`."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return a spec for an old module; None for every other."""
        name = fullname.removeprefix("multiad_med.")
        if name == fullname or (name not in MODULES and name not in PACKAGES):
            return None
        return ModuleSpec(fullname, self, is_package=name in PACKAGES)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the stand-in of an old module."""
        name = spec.name.removeprefix("multiad_med.")
        places = PACKAGES.get(name) or [MODULES[name]]
        return _OldModule(spec.name, [*places, *NAMES.get(name, [])])

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: names are found when they are asked for."""


def install() -> None:
    """Let old places be imported; last, so that it costs nothing else."""
    if not any(isinstance(finder, OldPlaces) for finder in sys.meta_path):
        sys.meta_path.append(OldPlaces())
