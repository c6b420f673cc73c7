"""The main class: learn from normal studies, then show where a new one departs from them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from numpy.typing import ArrayLike

from multiad_med.data import StudyError, StudyStatus
from multiad_med.inference.from_memory import write_image, write_volume
from multiad_med.inference.predictor import CONFIG, StudyPredictor, bundle_kind, result_of
from multiad_med.inference.runtime import Runtime
from multiad_med.preparation.sources import StudyKind
from multiad_med.resources import (
    bundle_of_domain,
    bundle_workflow,
    check_settings,
    run_bundle,
    run_workflow,
)
from multiad_med.result import Result
from multiad_med.utils.choose import choose, usable_device
from multiad_med.utils.errors import InputError

if TYPE_CHECKING:
    import nibabel as nib

    from multiad_med.card import ModelCard
    from multiad_med.networks import MultiAD

__all__ = ["AnomalyDetector", "Study"]

Study: TypeAlias = "str | Path | Sequence[str] | nib.spatialimages.SpatialImage | Any"
"""A file, the folder of a DICOM series, the list of its files, a nibabel image, an array or tensor."""

MODEL = "model.pt"
_OWN = {"bundle_root", "ckpt_dir", "ckpt_path", "dataset_dir", "output_dir"}


class AnomalyDetector:
    """Learn what is normal, and show where a new study departs from it. Not for diagnostic use.

    It runs the configs of the domain's MONAI Bundle: ``python -m monai.bundle run training`` gives the
    same weights, and ``run inference`` the same maps.

    Args:
        domain: what it is for: ``brain_mri``, ``liver_ct``, ``retina_oct``, ``industrial`` or
            ``generalist``.
        device: ``auto`` (a GPU, where there is one), ``cpu``, or such as ``cuda:1``.
        settings: ids of the bundle's ``train.json`` and their values, such as ``size=128`` and
            ``max_epochs=20``. ``preset="paper"`` trains all of the Multi-AD paper (docs/paper.md); see
            :func:`multiad_med.resources.presets`.

    Raises:
        InputError: on an unknown domain, setting, preset or device, with the nearest that exists.

    Attributes:
        bundle: name of the domain's bundle.
        model: the model file; none before :meth:`fit`.
        runtime: what computes the maps, see :meth:`load`.

    Example::

        detector = AnomalyDetector("brain_mri").fit("normal/", output="run")
        result = AnomalyDetector.load("run/model.pt").predict("study.nii.gz")
        result.score, result.p_value, result.verdict
        result.save("maps")
    """

    def __init__(self, domain: str, *, device: str = "auto", **settings: Any) -> None:
        self.bundle = bundle_of_domain(domain)
        self.device = str(usable_device(device))
        _check_own(settings)
        check_settings(self.bundle, "train.json", settings)
        self.model: Path | None = None
        self.runtime = Runtime.TORCH
        self._training = settings
        self._inference: dict[str, Any] = {}

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        device: str = "auto",
        bundle: str | None = None,
        runtime: Runtime | str = Runtime.TORCH,
        **settings: Any,
    ) -> Self:
        """Open a trained model, with the settings on its card.

        Args:
            model: ``model.pt`` of a finished training.
            device: see the class.
            bundle: for a model of an older version, whose card does not name it.
            runtime: what computes the maps: ``torch``, ``openvino``, ``onnxruntime``, or ``auto``, the
                fastest that is installed; see :class:`multiad_med.inference.Runtime`.
            settings: ids of the bundle's ``inference.json`` and their values, such as
                ``sw_batch_size=32``.

        Raises:
            InputError: on an unknown setting, device or run-time.
            CardError: when the bundle or a setting contradicts the model's card.
            WeightsError: when the file is missing or is no model.
            NotCalibratedError: when its training was not finished.
        """
        from multiad_med.card import check_calibrated
        from multiad_med.networks import bundle_of_model, maps_studies, open_model

        _check_own(settings)
        detector = cls(bundle_of_model(model, bundle).removeprefix("multiad_"), device=device)
        detector.model = Path(model)
        detector.runtime = choose(Runtime, runtime, what="runtime")
        detector._inference = settings
        if maps_studies(model, detector.bundle):
            detector._predictor  # noqa: B018 - what is wrong with the model is told now
        else:
            check_calibrated(open_model(model))
        return detector

    @cached_property
    def _predictor(self) -> StudyPredictor:
        return StudyPredictor(
            self._trained,
            bundle=self.bundle,
            device=self.device,
            runtime=self.runtime,
            **self._inference,
        )

    @property
    def _trained(self) -> Path:
        if self.model is None:
            raise InputError(
                "This detector has no model yet. Train it with fit, or open one by "
                "AnomalyDetector.load('run/model.pt')."
            )
        return self.model

    @property
    def domain(self) -> str:
        """What the model is for, such as ``brain_mri``."""
        return self.bundle.removeprefix("multiad_")

    @property
    def network(self) -> MultiAD:
        """The trained network: ``(B, 3, H, W)`` in [0, 1] to maps ``(B, 1 or 2, H, W)`` in [0, 1)."""
        return self._predictor.network

    @property
    def card(self) -> ModelCard:
        """What the model says of itself: network, preparation, training, held-out normal scores."""
        return self.network.card

    def fit(
        self,
        normal: str | Path,
        *,
        output: str | Path,
        **settings: Any,
    ) -> Self:
        """Train on normal studies, and set thresholds on held-out ones.

        Subjects are divided before any slice is made: most train, the others set the thresholds.

        Args:
            normal: folder of volumes, DICOM series or images, a datalist, or prepared slices.
            output: folder for ``model.pt``, checkpoint and TensorBoard log. A training that was
                interrupted there goes on.
            settings: see the class; they come on top of those.

        Returns:
            Itself, ready to predict.

        Raises:
            InputError: on an unknown setting.
            DatalistError: when the folder holds nothing to train on.
            CheckpointError: when the folder holds a training with other settings.
        """
        _check_own(settings)
        run_bundle(
            self.bundle,
            "train.json",
            workflow_type="train",
            dataset_dir=str(normal),
            ckpt_dir=str(output),
            output_dir=str(output),
            **{"device": self.device, **self._training, **settings},
        )
        self.model = Path(output) / MODEL
        self.__dict__.pop("_predictor", None)
        return self

    def predict(
        self, study: Study, *, affine: ArrayLike | None = None, organ: Study | None = None
    ) -> Result:
        """Map and score one study.

        Anything but a file is first written to a temporary one, so that all input is read alike.

        Args:
            study: file of a volume or an image; folder of a DICOM series, or the list of its files;
                nibabel image; array or tensor of a volume ``(X, Y, Z)`` or ``(1, X, Y, Z)``; of an image
                an array ``(rows, columns)`` or ``(rows, columns, 3)``, or a tensor ``(C, rows,
                columns)``, uint8, uint16, or floating-point in [0, 1].
            affine: ``(4, 4)``, of an array: from voxels to RAS+ in mm.
            organ: mask of its organ, where the bundle looks inside one; any of these forms.

        Raises:
            InputError: when the array is not of such a form, or a volume's has no affine.
            StudyError: when the study cannot be read, prepared or mapped.
        """
        predictor = self._predictor
        keep = TemporaryDirectory(prefix="multiad-")
        folder = Path(keep.name)
        image = self._as_path(study, affine, folder / "study")
        first = image if isinstance(image, str) else image[0]
        return replace(
            predictor(
                image,
                source=Path(first).parent,
                output_dir=folder / "results",
                organ=None if organ is None else self._as_path(organ, affine, folder / "organ"),
            ),
            kept=keep,
        )

    def predict_folder(
        self,
        folder: str | Path,
        *,
        output: str | Path | None = None,
        **settings: Any,
    ) -> Iterator[Result]:
        """Map and score every study of a folder.

        A study that fails does not stop the others. Studies that are done are not done again.

        Args:
            folder: of volumes, DICOM series or images; or a datalist, whose split ``test`` is taken.
            output: folder for maps, masks, scores and ``summary.csv``; a temporary one if none.
            settings: ids of the bundle's ``inference.json``, such as ``image_glob``.

        Yields:
            Results in the order of the studies, once all are done.

        Raises:
            StudyError: after the last result, when studies failed; the message lists them.
            DatalistError: when the folder holds no study.
        """
        _check_own(settings)
        keep = TemporaryDirectory(prefix="multiad-") if output is None else None
        workflow = bundle_workflow(
            self.bundle,
            CONFIG,
            workflow_type="infer",
            dataset_dir=str(folder),
            ckpt_path=str(self._trained),
            output_dir=keep.name if keep else str(output),
            **{
                "device": self.device,
                "runtime": str(self.runtime),
                **self._inference,
                **settings,
            },
        )
        failed: StudyError | None = None
        try:
            run_workflow(workflow)
        except StudyError as error:
            failed = error
        dataset, results = (workflow.parser.get_parsed_content(n) for n in ("dataset", "results"))
        bscans = bundle_kind(self.bundle) is StudyKind.OCT
        done = [
            replace(result_of(item["image"], results, bscans=bscans), kept=keep)
            for item, outcome in zip(dataset.data, dataset.outcomes, strict=False)
            if outcome.status is not StudyStatus.FAILED
        ]
        return _then_raise(done, failed)

    def calibrate(
        self,
        good: str | Path,
        *,
        bad: str | Path | None = None,
        rate: float | None = None,
        output: str | Path | None = None,
        **settings: Any,
    ) -> Path:
        """Set thresholds and p-values anew from further normal studies, without training.

        Args:
            good: normal studies that the model was not trained on.
            bad: anomalous ones; the log tells how many of them each threshold finds.
            rate: of false positives, of every level; the model's own if none.
            output: new model file; beside the model if none.
            settings: further ids of the bundle's ``train.json``, such as ``image_glob``.

        Returns:
            The new model file, which this detector uses from now on.

        Raises:
            InputError: as of :func:`multiad_med.recalibration.recalibrate`.
        """
        from multiad_med.recalibration import recalibrate

        self.model = recalibrate(
            self._trained,
            good,
            bad=bad,
            rate=rate,
            output=output,
            device=self.device,
            **settings,
        )
        self.__dict__.pop("_predictor", None)
        return self.model

    def evaluate(
        self,
        data: str | Path,
        *,
        output: str | Path,
        images: str | None = None,
        labels: str | None = None,
        part: str = "all",
        training_logs: str | Path | None = None,
        bootstrap: int = 1000,
        **settings: Any,
    ) -> dict[str, Any]:
        """Measure how good the model is, how certain that is, and where it fails.

        Args:
            data: labelled studies: a folder, a datalist, or prepared slices.
            output: folder for metrics, tables and ``report.html``.
            images: glob of the volumes in a folder.
            labels: glob of their lesion masks.
            part: ``development`` or ``report``, one half of the test subjects each; or ``all``.
            training_logs: folder of the training's TensorBoard log, for its curves in the report.
            bootstrap: number of resamples of the intervals.
            settings: ids of the bundle's ``evaluate.json``; they come on top of those of :meth:`load`.

        Returns:
            The content of ``metrics.json``, which lies in ``output`` beside ``report.html``.

        Raises:
            InputError: when nothing can be evaluated.
        """
        from multiad_med.evaluation.labelled import evaluate_model
        from multiad_med.utils.json_files import read_json

        _check_own(settings)
        evaluate_model(
            data,
            self._trained,
            output,
            bundle=self.bundle,
            part=part,
            images=images,
            labels=labels,
            training_logs=training_logs,
            bootstrap=bootstrap,
            device=self.device,
            **{**self._inference, **settings},
        )
        metrics: dict[str, Any] = read_json(Path(output) / "metrics.json")
        return metrics

    def _as_path(self, study: Study, affine: ArrayLike | None, stem: Path) -> str | list[str]:
        """Return a study as a datalist names it."""
        if isinstance(study, (str, os.PathLike)):
            return os.path.abspath(os.path.expanduser(study))
        if isinstance(study, Sequence):
            return [os.path.abspath(os.path.expanduser(path)) for path in study]
        if bundle_kind(self.bundle) is None:
            return write_image(study, stem)
        return write_volume(study, affine, stem)

    def __repr__(self) -> str:
        about = f"model={str(self.model)!r}" if self.model else "not trained"
        return f"AnomalyDetector({self.domain!r}, {about})"


def _check_own(settings: Mapping[str, Any]) -> None:
    """Refuse settings that the arguments of a method give."""
    if own := sorted(_OWN & settings.keys()):
        raise InputError(f"{own[0]} is no setting here: the method's arguments give it.")


def _then_raise(results: Sequence[Result], error: Exception | None) -> Iterator[Result]:
    yield from results
    if error is not None:
        raise error
