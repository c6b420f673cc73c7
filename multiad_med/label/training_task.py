"""Training of a bundle as a task of MONAI Label, on the studies that a reader found normal."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.tasks.train.bundle import BundleTrainTask
from monailabel.utils.others.generic import device_list

from multiad_med.data import split_subjects
from multiad_med.label.datastores import FolderDatastore, SeriesDatastore, normal_studies
from multiad_med.label.server_options import check_device
from multiad_med.networks import TeacherWeights, read_card
from multiad_med.utils.atomic import atomic_path

__all__ = ["NormalOnlyTrainTask"]

_AUTO = "auto"
"""The bundle's own number of steps for the number of images."""


class NormalOnlyTrainTask(BundleTrainTask):
    """Train a bundle by MONAI Label on studies whose final label is empty.

    Patients are divided into training and calibration. The finished model takes the place of
    ``models/model.pt``, which stays as ``models/previous.pt``. Other files are in ``training`` in the
    bundle's folder.
    """

    def config(self) -> dict[str, Any]:
        """Return what clients show in their options."""
        return {
            "device": device_list(),
            "steps": _AUTO,
            "val_split": 0.2,
            "pretrained": True,
        }

    def __call__(
        self, request: dict[str, Any], datastore: FolderDatastore | SeriesDatastore
    ) -> dict[str, Any]:
        """Train.

        Raises:
            HTTPException: 400 on a wrong option, 422 when fewer than two patients have a normal
                study.
        """
        task = copy.copy(self)
        task.bundle_config = self._load_bundle_config(self.bundle_path, self.bundle_config_path)
        super(NormalOnlyTrainTask, task).__call__(task._checked(request), datastore)
        root = Path(self.bundle_path)
        model = root / "models" / self.const.model_pytorch()
        for source, target in ((model, model.with_name("previous.pt")), (task._made, model)):
            if source.is_file():
                with atomic_path(target) as temporary:
                    shutil.copyfile(source, temporary)
        return {"model": model.name, "studies": task._count}

    def _checked(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the known options of a request. They become a config, in which text can be code.

        Clients always send ``steps``, so ``max_epochs`` decides where it is given too.
        """
        options = {**self.config(), **request}
        length = "max_epochs" if "max_epochs" in request else "steps"
        try:
            given = {} if options[length] == _AUTO else {length: int(options[length])}
            checked = {**given, "val_split": float(options["val_split"])}
        except (TypeError, ValueError) as error:
            raise HTTPException(400, f"{length} and val_split are numbers: {error}.") from error
        if min(given.values(), default=1) < 1 or not 0 < checked["val_split"] < 1:
            raise HTTPException(
                400, f"{length} must be at least 1, and val_split in (0, 1); got {checked}."
            )
        self._length = given
        return {
            **checked,
            "device": check_device(options["device"]),
            "pretrained": options["pretrained"] is True,
            "model": Path(self.bundle_path).name,
            "multi_gpu": False,
        }

    def _fetch_datalist(
        self, request: dict[str, Any], datastore: FolderDatastore | SeriesDatastore
    ) -> list[dict[str, str]]:
        studies = normal_studies(datastore)
        if len({item["subject"] for item in studies}) < 2:
            raise HTTPException(
                422,
                f"{len(studies)} studies have a final label that is empty. Training takes normal "
                "studies only, of at least two patients: submit empty labels for them.",
            )
        self._count = len(studies)
        return studies

    def _partition_datalist(
        self, datalist: Sequence[dict[str, str]], request: dict[str, Any], shuffle: bool = False
    ) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        training, validation = split_subjects(
            (item["subject"] for item in datalist),
            validation_fraction=request["val_split"],
        )
        return (
            [item for item in datalist if item["subject"] in training],
            [item for item in datalist if item["subject"] in validation],
        )

    def _load_checkpoint(
        self, model_pytorch: str, pretrained: bool, train_handlers: list[dict[str, Any]]
    ) -> None:
        self._network: dict[str, Any] = {}
        if pretrained and Path(model_pytorch).is_file():
            loader = "multiad_med.training.ModelLoader"
            card = read_card(model_pytorch)
            if card is not None and card.network:  # it goes on as the network that it is
                self._network = {
                    "network_def": {
                        "_target_": "multiad_med.networks.build_multiad",
                        **card.network,
                        "teacher_weights": TeacherWeights.CHECKPOINT.value,
                    }
                }
            train_handlers.insert(
                0,
                {"_target_": loader, "path": model_pytorch, "network": "@network", "trains": True},
            )

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        folder = Path(self.bundle_path) / "training"
        self._made = folder / self.const.model_pytorch()
        self._made.unlink(missing_ok=True)
        held_out = overrides.pop(self.const.key_validate_dataset_data())
        del overrides[self.const.key_train_trainer_max_epochs()]  # which follows from the length
        overrides |= {
            "validate#held_out#data": held_out,  # of which the bundle makes two groups
            **self._length,
            **self._network,
            "device": f"$torch.device('{overrides['device']}')",
            "dataset_dir": self.bundle_path,  # of volumes, which are given
            "ckpt_dir": str(folder),
            "output_dir": str(folder),
            "resume": False,
        }
        return overrides
