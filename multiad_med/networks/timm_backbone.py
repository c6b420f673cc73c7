"""Any backbone of timm as a teacher (the extra ``timm``); nothing of timm is imported before."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multiad_med.networks.multiad import IMAGENET_MEAN, IMAGENET_STD
from multiad_med.networks.plug_in import check_features
from multiad_med.networks.weights import WeightsError, check_keys, read_state_dict
from multiad_med.utils.errors import InputError, missing_package

__all__ = ["TIMM", "TimmFeatures"]

TIMM = "timm/"
"""What an architecture of timm begins with, such as ``timm/resnet18.a1_in1k``."""

_STAGES = 4  # as many as a decoder student takes


class TimmFeatures(nn.Module):
    """A backbone of timm that returns features at strides of 4 and more.

    Where there are more than four such levels, as in a vision transformer, four of them are taken, at
    even distances and with the last. An image normalised as ImageNet's is normalised anew where the
    backbone wants another mean and standard deviation.

    Args:
        name: ``timm/`` and timm's name of a model, as ``timm/resnet18.a1_in1k``; its weights are random.

    Raises:
        InputError: on a name that timm has not, or a model that gives no feature maps.
        MissingPackageError: when timm is not installed.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        if ":" in name:  # a model's card tells such names, and shall not make timm go anywhere
            raise InputError(f"{name}: give timm's name of a model, no address.")
        self.name = name
        try:
            whole = self._whole()
            levels = [int(level["reduction"]) for level in whole.feature_info]
            self.levels = _spread([i for i, stride in enumerate(levels) if stride >= 4])
            self.network = self._features()
        except (AttributeError, RuntimeError, ZeroDivisionError) as error:
            raise InputError(
                f"{name}: timm has no such model with feature maps at strides of 4 and more ({error}). "
                "timm.list_pretrained() lists its models with weights."
            ) from error
        info = self.network.feature_info
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(info.reduction())
        self.channels_last = str(getattr(self.network, "output_fmt", "NCHW")).endswith("NHWC")
        mean, std = (torch.tensor(whole.pretrained_cfg[key]) for key in ("mean", "std"))
        # ((x * own std + own mean) - mean) / std, with ImageNet's as own.
        self.register_buffer("scale", (torch.tensor(IMAGENET_STD) / std).view(1, 3, 1, 1))
        self.register_buffer("shift", ((torch.tensor(IMAGENET_MEAN) - mean) / std).view(1, 3, 1, 1))
        check_features(self, name)

    def _whole(self, **options: Any) -> Any:
        """The model as timm builds it."""
        timm = _timm()
        model = self.name.removeprefix(TIMM)
        try:
            # A vision transformer takes one size of images, if not asked; others know no such option.
            return timm.create_model(model, dynamic_img_size=True, **options)
        except TypeError:
            return timm.create_model(model, **options)

    def _features(self, **options: Any) -> Any:
        """The part of it that gives the features, under timm's names of that part."""
        return self._whole(features_only=True, out_indices=self.levels, **options)

    def load(self, file: str | Path | None = None) -> None:
        """Load pretrained weights.

        Args:
            file: a state dict of timm's whole model; without it timm finds or downloads the weights.

        Raises:
            WeightsError: when they cannot be had, or do not fit.
        """
        if file is not None:
            state = read_state_dict(Path(file))
            check_keys(Path(file), self.name, self._whole().state_dict(), state)
            loaded = self._features(pretrained=True, pretrained_cfg_overlay={"state_dict": state})
        else:
            loaded = self._downloaded()
        self.network.load_state_dict(loaded.state_dict())

    def _downloaded(self) -> Any:
        try:
            return self._features(pretrained=True)
        except Exception as error:  # each library that downloads for timm has errors of its own
            model = self.name.removeprefix(TIMM)
            raise WeightsError(
                f"timm cannot get the weights of {model} ({error}). Where there is a network run "
                f"`torch.save(timm.create_model({model!r}, pretrained=True).state_dict(), 'w.pth')`, "
                "and give that file as teacher_weights."
            ) from error

    def forward(self, x: Tensor) -> list[Tensor]:
        """Stage features, shallow to deep, of an ImageNet-normalised image ``(B, 3, H, W)``."""
        features: list[Tensor] = self.network(x * self.scale + self.shift)
        if self.channels_last:
            features = [f.permute(0, 3, 1, 2) for f in features]
        return features


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise missing_package("timm") from error
    except RuntimeError as error:  # of a torchvision that was built for another torch
        raise InputError(
            f"timm cannot be imported: {error}. Install a torchvision that fits torch."
        ) from error
    return timm


def _spread(levels: list[int]) -> tuple[int, ...]:
    """At most four of the levels, at even distances, with the last."""
    count = min(len(levels), _STAGES)
    return tuple(levels[len(levels) * (i + 1) // count - 1] for i in range(count))
