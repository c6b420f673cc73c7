"""Evaluation of a run over labelled studies, on the grid of their files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.utils import CommonKeys, ImageMetaKey
from torch import Tensor

from multiad_med.data import StudyDataset, StudyError, StudyStatus
from multiad_med.data.study_results import study_path
from multiad_med.evaluation.cases import Case
from multiad_med.evaluation.categories import note_categories
from multiad_med.evaluation.collected import Thresholds
from multiad_med.evaluation.curves import training_curves
from multiad_med.evaluation.evaluate import RunningEvaluation
from multiad_med.evaluation.manifest import data_manifest, run_manifest
from multiad_med.evaluation.report import write_report
from multiad_med.evaluation.saturated_overlap import SaturatedOverlap
from multiad_med.evaluation.seen_images import hashes_of, note_seen_images
from multiad_med.inference.scores import SCORE_PARTS
from multiad_med.networks import MultiAD
from multiad_med.utils.tensors import plain_tensor

__all__ = ["EvaluationHandler"]


class EvaluationHandler:
    """Compute every metric over an evaluator's studies, and write the report.

    A slice is an axial slice that was scored (the occupied ones); pixels are all those of such
    slices, at the source's resolution. The files are ``metrics.json``, ``slices.csv``, ``studies.csv``
    and ``report.html``; see :func:`multiad_med.evaluation.evaluate_cases`. Each study is reduced to its
    metrics when it comes.

    The evaluator's batches must have ``label`` and ``foreground``, its output ``pred`` and ``image``,
    all ``(1, X, Y, Z)`` in RAS+ (or depth, width, B-scan) on the source's grid (``image`` may have
    several channels), and ``slice_scores (Z,)``, NaN where skipped; ``score_parts (2, Z)`` where the
    network looks at whole slices too. Images ``(C, H, W, 1)`` have no
    unit of length. Their ``label`` may be missing; ``anomalous`` in their item marks them as abnormal.

    Args:
        output_dir: folder for the files.
        network: the calibrated network, whose thresholds are used.
        model: its file, whose hash goes into the manifest.
        data: what was evaluated, for the manifest.
        title: of the report.
        upright: whether slices are B-scans, rows and columns of an image; else axial ones in RAS.
        dataset: the studies that are run, whose failures are reported.
        config: settings of the run, for the manifest.
        training_logs: folder of the training's TensorBoard log, for its curves.
        bootstrap: number of resamples.
        images: whether the studies are images.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        network: MultiAD,
        model: str | Path,
        data: str | Path,
        title: str = "Evaluation",
        upright: bool = False,
        dataset: StudyDataset | None = None,
        config: Mapping[str, Any] | None = None,
        training_logs: str | Path | None = None,
        bootstrap: int = 1000,
        images: bool = False,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.network = network
        self.model = model
        self.data = data
        self.title = title
        self.upright = upright
        self.dataset = dataset
        self.config = config
        self.training = [] if training_logs is None else training_curves(training_logs)
        self.bootstrap = bootstrap
        self.images = images

    def attach(self, engine: Engine) -> None:
        """Register for the start, every study, and the end."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        # Before the summary and the failures, which are reported when the run is completed: wherever
        # an overlay puts this handler, the report is written even if a study failed.
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        # Thresholds are read with the first study, when the model has been loaded.
        self._running: RunningEvaluation | None = None

    def _collect(self, engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            scores = output["slice_scores"]
            scored = (~scores.isnan()).nonzero().flatten()
            if not len(scored):
                continue

            def slices(volume: Tensor, chosen: Tensor = scored) -> Tensor:
                plain = plain_tensor(volume)[0].cpu()
                return plain[..., chosen].permute(2, 0, 1)

            prediction: MetaTensor = output[CommonKeys.PRED]
            x, y, z = (float(s) for s in affine_to_spacing(prediction.affine))
            source = str(prediction.meta[ImageMetaKey.FILENAME_OR_OBJ])
            study = study_path(source).name
            about: dict[str, Any] = {"spacing": (x, y, z), "upright": self.upright}
            anomaly_map = slices(prediction).float()
            if CommonKeys.LABEL in item:
                label = slices(item[CommonKeys.LABEL]) > 0
            elif self.images:
                label = torch.zeros_like(anomaly_map, dtype=torch.bool)
            else:
                raise StudyError(f"{source}: there is no lesion mask (`label`) to evaluate it by.")
            abnormal = label.flatten(1).any(dim=1)
            if self.images:
                study = str(item.get("study") or study)
                about = {"upright": True}
                about |= {name: str(item.get(name, "")) for name in ("category", "kind")}
                abnormal |= bool(item.get("anomalous"))
            parts = output.get(SCORE_PARTS)
            grey = torch.as_tensor(output[CommonKeys.IMAGE]).float().mean(dim=0, keepdim=True)
            if self._running is None:
                items = self.dataset.data if self.images and self.dataset is not None else ()
                self._running = RunningEvaluation(
                    Thresholds.of(self.network), saturated=SaturatedOverlap(items)
                )
            self._running.update(
                Case(
                    study=study,
                    subject=str(item.get("subject") or study),
                    image=slices(grey).clamp(0, 1),
                    anomaly_map=anomaly_map,
                    label=label,
                    foreground=slices(item["foreground"]) > 0.5,
                    numbers=scored,
                    scores=scores[scored].float(),
                    abnormal=abnormal,
                    whole_scores=None if parts is None else parts[1, scored].float(),
                    **about,
                )
            )

    def _finish(self, engine: Engine) -> None:
        outcomes = [] if self.dataset is None else self.dataset.outcomes
        if skipped := sum(o.status is StudyStatus.SKIPPED for o in outcomes):
            raise StudyError(
                f"{skipped} of {len(outcomes)} studies were skipped as finished, and metrics would be "
                "of the others only. Evaluate with overwrite."
            )
        if self._running is None:
            return
        failures = [] if self.dataset is None else self.dataset.failures
        total = len(self._running) + len(failures)
        evaluation = self._running.result(
            remarks=[f"{len(failures)} of {total} studies failed and are left out."]
            if failures
            else [],
            bootstrap=self.bootstrap,
            training=self.training,
            manifest=run_manifest(
                data=data_manifest(self.data),
                model=self.model,
                config={**(self.config or {}), "network": self.network.card.network},
                seed=0,
                device=next(self.network.parameters()).device,
            ),
        )
        evaluation.self_test = self.network.card.self_test
        note_categories(evaluation, self.network.card)
        if self.dataset is not None:
            note_seen_images(evaluation, self.network.card, hashes_of(self.dataset.data))
        engine.state.metrics.update(
            {k: e.value for level in evaluation.metrics.values() for k, e in level.items()}
        )
        write_report(evaluation, self.output_dir, title=self.title)
