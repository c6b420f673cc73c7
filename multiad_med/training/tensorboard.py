"""What a training shows in TensorBoard beside its scalars: maps, histograms, the learning rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.handlers import TensorBoardHandler
from monai.utils import CommonKeys
from monai.visualize import blend_images
from numpy.typing import NDArray
from torch import Tensor

from multiad_med.scoring import image_scores
from multiad_med.training.trainer import DistillationTrainer
from multiad_med.transforms import radiological_view

__all__ = ["TensorBoardMapHandler", "TensorBoardStudentHandler"]

_PIXELS_PER_SLICE = 256
_OPACITY = 0.7
_BINS = 64  # per tensor and epoch; torch would write some 1500


class TensorBoardMapHandler(TensorBoardHandler):
    """Shows distance maps of a few held-out slices after each validation, and histograms of all.

    MONAI's ``TensorBoardImageHandler`` shows one item of the last batch, each image scaled by
    itself. This one shows slices spread over the whole validation set, always the same ones, each
    above its overlay inside the foreground, on one scale from 0 to their highest distance.
    Distances are uncalibrated (``pred`` of
    :class:`multiad_med.training.DistillationEvaluator`), so that epochs, and rounds of federated
    training, can be compared.

    Tags: image ``validation_maps``; histograms ``validation_distance`` (up to 256 foreground pixels
    of each slice) and ``validation_slice_score`` (each slice's maximum in the foreground).

    Args:
        log_dir: folder of the event file.
        slices: how many are shown.
        radiological: turn axial slices ``(X, Y)`` in RAS+ as radiologists look at them, anterior
            above, the patient's right on the left. False shows images ``(H, W)`` as they are.
    """

    def __init__(self, log_dir: str, *, slices: int = 6, radiological: bool = True) -> None:
        super().__init__(log_dir=log_dir)
        self.slices = slices
        self.radiological = radiological

    def attach(self, engine: Engine) -> None:
        """Register for the batches and the end of every validation."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def start(self) -> None:
        """Forget the last validation."""
        self.seen = 0
        self.shown: list[tuple[Tensor, Tensor]] = []
        self.distances: list[Tensor] = []
        self.scores: list[Tensor] = []

    def collect(self, engine: Engine) -> None:
        """Collect what is needed from a batch, which MONAI has decollated."""
        state: Any = engine.state
        items, outputs = state.batch, state.output
        if self.seen == 0:
            # The last batch, whose size is not known yet, has at least one slice.
            total = max(len(outputs), (state.epoch_length - 1) * len(outputs) + 1)
            self.positions = {int((i + 0.5) * total / self.slices) for i in range(self.slices)}
        for item, output in zip(items, outputs, strict=True):
            distance = output[CommonKeys.PRED].float().cpu()
            foreground = torch.as_tensor(item.get("foreground", torch.ones_like(distance)))
            foreground = foreground.as_subclass(Tensor).cpu() > 0
            values = distance[foreground]
            self.distances.append(values[:: max(1, len(values) // _PIXELS_PER_SLICE)])
            self.scores.append(image_scores(distance[None], foreground[None]))
            if self.seen in self.positions:
                image = output[CommonKeys.IMAGE].float().cpu()
                self.shown.append((image, distance * foreground))
            self.seen += 1

    def write(self, engine: Engine) -> None:
        """Write the image and the histograms, at the training's epoch."""
        epoch = engine.state.epoch
        highest = max(float(distance.max()) for _, distance in self.shown)
        columns = [self._column(image, d / max(highest, 1e-6)) for image, d in self.shown]
        self._writer.add_image("validation_maps", np.concatenate(columns, axis=2), epoch)
        self._writer.add_histogram("validation_distance", torch.cat(self.distances), epoch)
        self._writer.add_histogram("validation_slice_score", torch.cat(self.scores), epoch)
        self._writer.flush()

    def _column(self, image: Tensor, heat: Tensor) -> NDArray[np.float32]:
        """Return slice ``(1 or 3, H, W)`` above its overlay, ``(3, 2H, W)``, all in [0, 1]."""
        overlay = blend_images(
            image, heat, alpha=_OPACITY * heat, cmap="inferno", rescale_arrays=False
        )
        column = [
            radiological_view(np.asarray(part), upright=not self.radiological)
            for part in (image.expand(3, -1, -1), overlay)
        ]
        return np.concatenate(column, axis=1).clip(0, 1)


class TensorBoardStudentHandler(TensorBoardHandler):
    """Writes the learning rate of every iteration, and the student's weights and gradients by epoch.

    Histograms are of each weight of two dimensions and more (``weights/NAME``) and of its gradient
    in the epoch's last iteration (``gradients/NAME``). Attach it before the handler that moves the
    learning rate, so that ``learning_rate`` is the one with which the iteration was made.

    Args:
        log_dir: folder of the event file.
    """

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir=log_dir)

    def attach(self, engine: Engine) -> None:
        """Register for every iteration and every epoch."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write_learning_rate)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write_histograms)

    def write_learning_rate(self, engine: DistillationTrainer) -> None:
        """Write the first parameter group's learning rate."""
        group: dict[str, Any] = engine.optimizer.param_groups[0]
        self._writer.add_scalar("learning_rate", group["lr"], engine.state.iteration)

    def write_histograms(self, engine: DistillationTrainer) -> None:
        """Write the histograms."""
        for name, weight in engine.network.student.named_parameters():
            if weight.dim() < 2:
                continue
            epoch = engine.state.epoch
            self._writer.add_histogram(f"weights/{name}", weight.detach(), epoch, bins=_BINS)
            if weight.grad is not None:
                self._writer.add_histogram(f"gradients/{name}", weight.grad, epoch, bins=_BINS)
        self._writer.flush()
