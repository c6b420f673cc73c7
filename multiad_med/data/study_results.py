"""Where a study's results go, and whether an earlier run has made them already."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from multiad_med.data.datalist import first_path
from multiad_med.data.hashes import file_sha256, state_sha256
from multiad_med.utils.errors import InputError, MultiADError
from multiad_med.utils.json_files import read_json

__all__ = ["StudyResults", "beside_map", "study_of_map", "study_path"]

MAP = "anomaly_map.nii.gz"
MASK = "anomaly_mask.nii.gz"
SCORES = "anomaly.json"
"""Ends of the names of a study's files; the scores are written last."""

OVERLAY = "anomaly.png"
VIEWER = "anomaly_viewer.html"
"""Ends of the files made from them for people; they are removed when the study is done again."""

TORCH = "torch"
"""The run-time of results that name none."""

_FORMAT = re.compile(
    r"\.((nii|img|hdr)(\.gz)?|npy|dcm|dicom|ima|vol|e2e|nrrd|nhdr|mha|mhd|png|jpe?g|bmp|tiff?)$",
    re.IGNORECASE,
)
_INPUTS = ("image", "organ")


def study_path(image: str | Path) -> Path:
    """Return the absolute path that names a study: its image without the suffix of its format."""
    path = Path(os.path.abspath(Path(image).expanduser()))
    return path.with_name(_FORMAT.sub("", path.name))


def study_of_map(anomaly_map: Path) -> str:
    """Return the name of the study whose map this is.

    Args:
        anomaly_map: ``<name>_anomaly_map.nii.gz``, or ``<name>.tiff`` for an image.
    """
    name = anomaly_map.name.removesuffix(f"_{MAP}")
    return study_path(anomaly_map).name if name == anomaly_map.name else name


def beside_map(anomaly_map: Path, end: str) -> Path:
    """Return another file of the study whose map this is, by the end of its name."""
    return anomaly_map.with_name(f"{study_of_map(anomaly_map)}_{end}")


class NamedRuntime(Protocol):
    """What computes the maps; see :class:`multiad_med.inference.RuntimeNetwork`."""

    @property
    def name(self) -> str: ...


class StudyResults:
    """Names of the files that a run writes, and what makes a study of an earlier run finished.

    The files are named like the study's image and lie in ``output_dir`` as the image lies in
    ``source``, so that images of one name in different folders do not overwrite each other. A study
    is finished when its scores, which are written last, are there and name the same input files,
    the same model and the same settings.

    Args:
        output_dir: folder of the results.
        source: the folder, or datalist, that the studies come from.
        network: that makes the maps.
        settings: what else decides a map, such as the size; recorded with the scores.
        runtime: that computes the maps; its name is recorded among the settings. Results without a name
            are PyTorch's.
        files: ends of the other files that are written for each study, as :meth:`path` takes them.
        overwrite: whether finished studies are done again.
        model_sha256: hash of the network's state, where it is known; computed if empty.

    Raises:
        InputError: when the studies lie in ``output_dir`` and results that are named like images
            could replace some.

    Attributes:
        inputs: by image, hashes of the study's input files as they were when it was begun.
        addresses: by image, where it comes from, if the file is a copy for the time of its use.
        place: where the results lie, as messages tell it.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        source: str | Path,
        network: nn.Module,
        settings: Mapping[str, Any] | None = None,
        runtime: NamedRuntime | None = None,
        files: Sequence[str] = (MAP, MASK),
        overwrite: bool = False,
        model_sha256: str = "",
    ) -> None:
        self.output_dir = Path(output_dir)
        self.place = str(output_dir)
        folder = Path(source).expanduser().absolute()
        self.source = folder.parent if folder.is_file() else folder
        bare = [end for end in files if end.startswith(".")]
        if bare and self.source.resolve().is_relative_to(self.output_dir.resolve()):
            raise InputError(
                f"{self.output_dir} holds the studies, and results ending in {bare} could replace "
                "them; choose another output_dir."
            )
        self.network = network
        self._settings: dict[str, Any] = json.loads(json.dumps(settings or {}))
        self.runtime = runtime
        self.files = tuple(files)
        self.overwrite = overwrite
        self._model_sha256 = model_sha256
        self.inputs: dict[str, dict[str, str]] = {}
        self.addresses: dict[str, str] = {}
        self._images: dict[Path, str] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """What decides a map besides the study and the model, as it is recorded."""
        name = TORCH if self.runtime is None else str(self.runtime.name)
        return {**self._settings, "runtime": name}

    def path(self, image: str | Path, end: str) -> Path:
        """Return the file of a study's results whose name has a given end.

        Args:
            image: the study's image; of several files the first.
            end: such as ``anomaly.json``, joined by an underscore, or a suffix such as ``.tiff``.
        """
        full = study_path(image)
        inside = Path(os.path.relpath(full, self.source))
        parts = [part for part in inside.parts if part != os.pardir] or [full.name]
        name = parts[-1] + (end if end.startswith(".") else f"_{end}")
        return self.output_dir.joinpath(*parts[:-1], name)

    def origin(self, image: str) -> str:
        """Return what the results call a study's image: its address, or its path."""
        return self.addresses.get(image, image)

    def provenance(self, image: str | Path) -> dict[str, Any]:
        """Return what a study's results are made from: hashes of its files and model, settings."""
        self._hash_model()
        inputs = self.inputs.get(str(image)) or {"image_sha256": file_sha256(image)}
        return {**inputs, "model_sha256": self._model_sha256, "settings": self.settings}

    def _hash_model(self) -> None:
        if not self._model_sha256:
            self._model_sha256 = state_sha256(self.network)

    def expect(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Note the studies of a run, before workers share them.

        A result name that two studies would have then belongs to the first of them, whichever is read
        first. And no worker needs the network, which may be on a GPU that only this process can use.
        """
        self._hash_model()
        for item in items:
            if item.get("image"):
                self.owner(item)

    def scores(self, image: str | Path) -> dict[str, Any]:
        """Return the scores that are there; empty where there are none, or none that can be read."""
        try:
            content = read_json(self.path(image, SCORES))
        except MultiADError:
            return {}
        return content if isinstance(content, dict) else {}

    def owner(self, item: Mapping[str, Any]) -> str:
        """Return the image of this run that has the names of a study's results: the first that asked."""
        image = first_path(item)
        return self._images.setdefault(self.path(image, SCORES), image)

    def begin(self, item: Mapping[str, Any]) -> bool:
        """Tell whether a study has to be done; if so, remove what an earlier run left of it.

        Raises:
            InputError: when another study, of this run or an earlier one, has results of the same
                name.
        """
        image = first_path(item)
        self.inputs.pop(image, None)
        other = self.owner(item)
        if other != image:
            raise InputError(
                f"{image}: its results would overwrite those of {other}. Rename one of the two."
            )
        self.inputs[image] = {f"{k}_sha256": file_sha256(item[k]) for k in _INPUTS if k in item}
        wanted, found = self.provenance(image), self.scores(image)
        made_from = {k: found[k] for k in found if k.endswith("_sha256")}
        made_from["settings"] = {"runtime": TORCH, **found.get("settings", {})}
        if made_from == wanted and not self.overwrite:
            return False
        if self._are_of_another(image, found):
            raise InputError(
                f"{image}: its results would replace those of {found['image']}, which an earlier run "
                f"wrote to {self.place}. Choose another output_dir, or set overwrite."
            )
        self.discard(item)
        return True

    def discard(self, item: Mapping[str, Any]) -> None:
        """Remove a study's results, so that there are all of them or none, and none of another model.

        Those of another study stay, of this run or, unless they are overwritten, of an earlier one. So do
        those of a study whose files could not be read: nothing says that they are out of date.
        """
        image = first_path(item)
        if image in self.inputs and not self._are_of_another(image, self.scores(image)):
            for path in self.own_paths(image):
                self.remove(path)

    def _are_of_another(self, image: str, found: Mapping[str, Any]) -> bool:
        now = self.origin(image)
        earlier = found.get("image", now)
        return not self.overwrite and Path(earlier).resolve() != Path(now).resolve()

    def own_paths(self, image: str) -> list[Path]:
        """Return all files that a study may have, the scores first; none if they are another's."""
        if self._images.get(self.path(image, SCORES)) != image:
            return []
        ends = dict.fromkeys((SCORES, *self.files, OVERLAY, VIEWER))
        return [self.path(image, end) for end in ends]

    def remove(self, path: Path) -> None:
        """Remove a file of a study, if it is there."""
        path.unlink(missing_ok=True)
