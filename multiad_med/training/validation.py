"""Validation on held-out normal images: the distillation loss, and nothing that needs a lesion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.engines import IterationEvents, SupervisedEvaluator
from monai.utils import CommonKeys
from torch import Tensor, nn
from torch.nn import functional as F

from multiad_med.networks import MultiAD, cosine_distance_maps
from multiad_med.networks.extractor import WHOLE_IMAGE
from multiad_med.networks.losses import FeatureDistillationLoss
from multiad_med.utils.tensors import plain_tensor

__all__ = ["DistillationEvaluator"]


class DistillationEvaluator(SupervisedEvaluator):
    """Computes L_G (Eq. 8) and distance maps on batches of normal images.

    The output has ``loss_distillation`` and ``pred (B, 1, H, W)``: the cosine distance of teacher
    and student (Eq. 13), averaged over the stages, in [0, 2]. Calibration does not change it.

    Args:
        *args: those of MONAI's ``SupervisedEvaluator``.
        **kwargs: those of MONAI's ``SupervisedEvaluator``.
        loss_function: L_G, called with teacher and student features.
    """

    network: MultiAD

    def __init__(
        self,
        *args: Any,
        loss_function: Callable[[list[Tensor], list[Tensor]], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.loss_function = FeatureDistillationLoss() if loss_function is None else loss_function

    def _iteration(
        self, engine: SupervisedEvaluator, batchdata: dict[str, Tensor]
    ) -> dict[str, Any]:
        images, _ = self.prepare_batch(
            batchdata, self.state.device, self.non_blocking, **self.to_kwargs
        )
        images = plain_tensor(images)
        self.network.eval()
        if isinstance(self.loss_function, nn.Module):  # what it counts in training stays
            self.loss_function.eval()
        with (
            torch.no_grad(),
            torch.autocast(self.state.device.type, enabled=self.amp, **self.amp_kwargs),
        ):
            teacher, student = self.network.features(images)
            loss = self.loss_function(teacher, student)
            levels = [
                F.interpolate(level, size=images.shape[2:], mode="bilinear")
                for level, stride in zip(
                    cosine_distance_maps(teacher, student), self.network.strides, strict=True
                )
                if stride != WHOLE_IMAGE  # a token says nothing of places
            ]
        self.state.output = {
            CommonKeys.IMAGE: images,
            CommonKeys.PRED: torch.stack(levels).mean(dim=0),
            "loss_distillation": loss,
        }
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output
