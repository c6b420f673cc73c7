"""EfficientAd and Dinomaly: bound to teachers of their own, whose weights must be given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler, StepLR
from torch.utils.data import Dataset

from multiad_med.benchmark.detectors import UnavailableError
from multiad_med.benchmark.methods.base import TrainedMethod
from multiad_med.networks.weights import WeightsError, read_state_dict

__all__ = ["Dinomaly", "EfficientAd"]

# anomalib's Lightning modules, without what only their trainer uses.
_BARE = {"pre_processor": False, "post_processor": False, "evaluator": False, "visualizer": False}


class EfficientAd(TrainedMethod):
    """A student of a small patch network, and an autoencoder (Batzner et al. 2024).

    ``anomalib.models.image.efficient_ad.EfficientAd``, size S, single images of 256 x 256. The
    common teacher is not used. The learning rate falls after 95 % of the steps, as published;
    under anomalib's own trainer, which counts epochs there, it would not.

    Args:
        weights: ``pretrained_teacher_small.pth`` of anomalib's release.
        imagenet: a folder with a folder of ImageNet images per class.

    Raises:
        UnavailableError: without both.
    """

    name = "EfficientAd"
    module = "efficient_ad.lightning_model"
    default_batch_size = 1
    replaces_extractor = False
    input_size = (256, 256)
    normalised = False

    def __init__(
        self,
        *,
        weights: str | Path | None = None,
        imagenet: str | Path | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if weights is None or imagenet is None or not Path(imagenet).is_dir():
            raise UnavailableError(
                "EfficientAd needs its own pretrained teacher and ImageNet images, neither of "
                "which comes with a package: give the files `weights` and the folder `imagenet`."
            )
        self.weights = Path(weights)
        self.imagenet = Path(imagenet)

    def build(self, source: Any) -> nn.Module:
        """Return EfficientAdModel with the teacher's weights."""
        self._whole = source.EfficientAd(imagenet_dir=self.imagenet, **_BARE)
        teacher, state = self._whole.model.teacher, read_state_dict(self.weights)
        try:
            teacher.load_state_dict(state)
        except RuntimeError as error:  # torch's, of the names and shapes that do not fit
            raise WeightsError(
                f"{self.weights} holds no teacher of EfficientAd: {error}"
            ) from error
        return self._whole.to(self.device).model

    def optimizer(self, steps: int) -> tuple[Optimizer, LRScheduler | None]:
        """Return Adam over student and autoencoder."""
        learners = [*self.model.student.parameters(), *self.model.ae.parameters()]
        optimizer = Adam(learners, lr=1e-4, weight_decay=1e-5)
        return optimizer, StepLR(optimizer, max(1, int(0.95 * self.epochs * steps)), gamma=0.1)

    def _imagenet_batches(self) -> Iterator[Tensor]:
        while True:
            for images, _ in self._whole.imagenet_loader:
                yield images.to(self.device)

    def loss(self, images: Tensor) -> Tensor:
        """Return the sum of the student's, the autoencoder's and their common loss."""
        return sum(self.model(batch=images, batch_imagenet=next(self._imagenet)))

    def learn(self, training: Dataset, held_out: Dataset) -> None:
        """Measure the teacher's features, train, and scale the maps on held-out slices."""
        self._whole.prepare_imagenette_data(self.input_size)
        self._imagenet = self._imagenet_batches()
        batches = (SimpleNamespace(image=images) for images in self.loader(training))
        self.model.mean_std.update(self._whole.teacher_channel_mean_std(batches))
        super().learn(training, held_out)
        self.model.eval()
        batches = (
            SimpleNamespace(image=images, gt_label=torch.zeros(len(images)))
            for images in self.loader(held_out)
        )
        self.model.quantiles.update(self._whole.map_norm_quantiles(batches))
        q = {name: float(value) for name, value in self.model.quantiles.items()}
        self.floor = sum(-0.05 * q[f"qa_{m}"] / (q[f"qb_{m}"] - q[f"qa_{m}"]) for m in ("st", "ae"))


class Dinomaly(TrainedMethod):
    """A transformer decodes DINOv2's features through a noisy bottleneck (Guo et al. 2025).

    ``anomalib.models.image.dinomaly.Dinomaly``. The common teacher is not used. Images are resized
    to 392 x 392, of which nothing is cropped; batches of 16. The learning rate warms up for 100
    steps and then falls step by step, as published.

    Args:
        weights: of ``encoder``, in DINOv2's or timm's form.
        encoder: timm's name of a DINOv2 with registers.

    Raises:
        UnavailableError: without weights.
    """

    name = "Dinomaly"
    module = "dinomaly.torch_model"
    default_batch_size = 16
    input_size = (392, 392)
    scored_by_maximum = False
    clip_norm = 0.1

    def __init__(
        self,
        *,
        weights: str | Path | None = None,
        encoder: str = "vit_base_patch14_reg4_dinov2",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if weights is None:
            raise UnavailableError(
                "Dinomaly needs DINOv2's weights, which come with no package: give the file "
                "`weights`."
            )
        self.weights = Path(weights)
        self.encoder = encoder

    def extractor(self, *, layers: Sequence[str], **options: Any) -> nn.Module:
        """Return DINOv2 from the file."""
        from anomalib.models.components import TimmFeatureExtractor
        from timm.models import load_checkpoint
        from timm.models.vision_transformer import checkpoint_filter_fn

        extractor = TimmFeatureExtractor(layers=layers, **options | {"pre_trained": False})
        load_checkpoint(
            extractor.feature_extractor, str(self.weights), filter_fn=checkpoint_filter_fn
        )
        return extractor

    def build(self, source: Any) -> nn.Module:
        """Return DinomalyModel, its decoder and bottleneck initialised."""
        whole = self.anomalib("dinomaly.lightning_model").Dinomaly(
            encoder_name=self.encoder, **_BARE
        )
        self._learners = whole.trainable_modules
        self._step = 0
        return whole.model

    def optimizer(self, steps: int) -> tuple[Optimizer, LRScheduler | None]:
        """Return StableAdamW over decoder and bottleneck, under a cosine schedule with warm-up."""
        source = self.anomalib("dinomaly.lightning_model")
        optimizer = source.StableAdamW(
            [{"params": list(self._learners.parameters())}], **source.TRAINING_CONFIG["optimizer"]
        )
        schedule = source.TRAINING_CONFIG["scheduler"] | {"total_iters": self.epochs * steps}
        return optimizer, source.WarmCosineScheduler(optimizer, **schedule)

    def loss(self, images: Tensor) -> Tensor:
        """CosineHardMiningLoss."""
        self._step += 1
        return self.model(images, global_step=self._step - 1)
