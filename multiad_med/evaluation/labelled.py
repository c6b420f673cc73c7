"""The work of ``multiad evaluate``: a trained model on labelled data, and the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from multiad_med.card import ModelCard, NotCalibratedError, check_given
from multiad_med.data import SliceCache, is_slice_cache, slice_caches
from multiad_med.data.image_hashes import study_hash
from multiad_med.evaluation.categories import note_categories
from multiad_med.evaluation.collected import Thresholds
from multiad_med.evaluation.curves import training_curves
from multiad_med.evaluation.evaluate import evaluate_cases
from multiad_med.evaluation.evaluation import Evaluation
from multiad_med.evaluation.manifest import data_manifest, run_manifest
from multiad_med.evaluation.parts import Part
from multiad_med.evaluation.predictions import joined_cases, map_slices, predicted_cases
from multiad_med.evaluation.report import write_report
from multiad_med.evaluation.saturated_overlap import SaturatedOverlap
from multiad_med.evaluation.seen_images import note_seen_images
from multiad_med.inference.int8 import is_int8
from multiad_med.networks import MultiAD, bundle_of_model, open_model
from multiad_med.networks.model_file import CACHES
from multiad_med.resources import run_bundle
from multiad_med.utils.choose import usable_device
from multiad_med.utils.errors import InputError
from multiad_med.utils.sizes import shortest

__all__ = ["TrainedDetector", "evaluate_model"]


class TrainedDetector:
    """A trained Multi-AD as a :class:`multiad_med.evaluation.predictions.Predictor`.

    Args:
        network: a calibrated one.
        device: where it is.

    Raises:
        NotCalibratedError: when it was never calibrated.
    """

    def __init__(self, network: MultiAD, *, device: str | torch.device = "cpu") -> None:
        if not bool(network.calibrated):
            raise NotCalibratedError(
                "The model is not calibrated: give the model.pt that a finished training wrote."
            )
        self.network = network
        self.device = torch.device(device)

    def predict(self, images: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
        """Return calibrated maps and scores; see :func:`map_slices`."""
        return map_slices(self.network, images.to(self.device), foreground)


def evaluate_model(
    data: str | Path,
    model: str | Path,
    output: str | Path,
    *,
    bundle: str | None = None,
    part: Part | str = Part.ALL,
    images: str | None = None,
    labels: str | None = None,
    training_logs: str | Path | None = None,
    bootstrap: int = 1000,
    device: str | torch.device = "cpu",
    **settings: Any,
) -> Path:
    """Evaluate a trained model on labelled data and write the report.

    Args:
        data: folder of prepared slices, or one that holds several such folders, evaluated at their
            size; or volumes or a datalist with lesion masks, which the bundle's own evaluation brings
            back to the grids of their files.
        model: ``model.pt`` of a finished training.
        output: folder for ``metrics.json``, ``slices.csv``, ``studies.csv`` and ``report.html``.
        bundle: for a model whose card does not name it.
        part: of a cache's test split; see :class:`Part`.
        images: glob of the images in a folder of volumes, such as ``**/*_flair.nii.gz``.
        labels: glob of the lesion masks in a folder of volumes, such as ``**/*_seg.nii.gz``. Every
            volume needs one; that of a healthy subject is empty.
        training_logs: folder of the training's TensorBoard log, for its curves.
        bootstrap: number of resamples.
        device: where to run.
        settings: further ids of the bundle's ``evaluate.json``, of volumes and images.

    Returns:
        The report.

    Raises:
        InputError: when nothing can be evaluated, ``part`` is given for volumes, globs or settings for
            prepared slices, or these and a model whose thresholds were set for its INT8 export.
        CardError: when the model's card contradicts the bundle, or how the slices were prepared.
        WeightsError: when the model cannot be read.
    """
    output, device = Path(output), usable_device(device)
    globs = {"image_glob": images, "label_glob": labels}
    chosen = {**settings, **{key: glob for key, glob in globs.items() if glob is not None}}
    curves = [] if training_logs is None else training_curves(training_logs)
    caches = slice_caches(data)
    if not caches and not is_slice_cache(data):
        if part != Part.ALL:
            raise InputError("Only prepared slices have parts; volumes are all evaluated.")
        run_bundle(
            bundle_of_model(model, bundle),
            "evaluate.json",
            workflow_type="infer",
            dataset_dir=str(data),
            ckpt_path=str(model),
            output_dir=str(output),
            training_logs=None if training_logs is None else str(training_logs),
            bootstrap=bootstrap,
            device=device,
            **chosen,
        )
        return output / "report.html"
    if chosen:
        raise InputError(
            f"{data} holds prepared slices, which {sorted(chosen)[0]} cannot change any more. Leave it "
            "out."
        )
    network = open_model(model)
    if is_int8(network.card):
        raise InputError(
            f"The thresholds of {model} were set for its INT8 export, and prepared slices are mapped by "
            "PyTorch. Evaluate the model that it was made of, or give studies and --set runtime=openvino."
        )
    for folder in caches.values() or [Path(data)]:
        _check_prepared(network.card, folder, model=model)
    detector = TrainedDetector(network.to(device), device=device)
    evaluation = evaluate_cases(
        joined_cases(detector, caches, part=part)
        if caches
        else predicted_cases(detector, data, part=part),
        thresholds=Thresholds.of(network),
        saturated=None if caches else SaturatedOverlap.of_cache(data),
        bootstrap=bootstrap,
        training=curves,
        manifest=run_manifest(
            data=data_manifest(data),
            model=model,
            config={"network": network.card.network, "part": str(part), "bootstrap": bootstrap},
            seed=0,
            device=device,
        ),
    )
    evaluation.self_test = network.card.self_test
    note_categories(evaluation, network.card)
    note_seen_images(evaluation, network.card, _hashes(evaluation, caches, data))
    write_report(evaluation, output, title=f"{Path(model).name} on {Path(data).name}")
    return output / "report.html"


def _check_prepared(card: ModelCard, folder: Path, *, model: str | Path) -> None:
    """Refuse slices that were prepared otherwise than those that the model was trained on."""
    told = dict(card.preparation)
    told |= told.pop(CACHES, {}).get(folder.name, {})
    if "size" in card.preparation:  # of tiles, their own
        told["size"] = shortest(told.get("tile") or card.preparation["size"])
    about = SliceCache(folder, split="test").about
    check_given(told, {**about["settings"], "size": shortest(about["size"])}, of=str(model))


def _hashes(evaluation: Evaluation, caches: Mapping[str, Path], data: str | Path) -> dict[str, str]:
    """Return the hash of each evaluated image, by its study."""
    studies = [row["study"] for row in evaluation.studies]
    if not caches:
        return {study: study_hash(data, study) for study in studies}
    parts = {study: PurePosixPath(study).parts for study in studies}
    return {s: study_hash(caches[name], "/".join(own)) for s, (name, *own) in parts.items()}
