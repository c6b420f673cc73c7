"""Teachers, and backbones of students, by name."""

from __future__ import annotations

from multiad_med.networks.dino_features import DinoFeatures
from multiad_med.networks.efficientnet_lite import EFFICIENTNET_LITES, EfficientNetLiteFeatures
from multiad_med.networks.resnet import RESNETS, ResNetFeatures
from multiad_med.networks.timm_backbone import TIMM, TimmFeatures
from multiad_med.networks.vgg import VGGS, VGGFeatures
from multiad_med.networks.vision_transformer import VISION_TRANSFORMERS
from multiad_med.utils.errors import InputError

__all__ = ["ARCHITECTURES", "build_extractor"]

ARCHITECTURES = (*EFFICIENTNET_LITES, *RESNETS, *VGGS, *VISION_TRANSFORMERS)
"""Teachers by name, beside those of timm."""


def build_extractor(
    architecture: str, *, output_stride: int = 32, se: bool = False
) -> ResNetFeatures | EfficientNetLiteFeatures | VGGFeatures | DinoFeatures | TimmFeatures:
    """Build a feature extractor with random weights by name.

    Args:
        architecture: a key of :data:`multiad_med.networks.RESNETS`, ``EFFICIENTNET_LITES``, ``VGGS`` or
            ``VISION_TRANSFORMERS``, or ``timm/NAME``.
        output_stride: 32, or, of a ResNet, 16, 8 or 4 too. A vision transformer's is its patch's side.
        se: squeeze-and-excitation in every block, identity at the start; vision transformers and timm's
            models have none.

    Raises:
        InputError: on an unknown name, or what the architecture has not.
        MissingPackageError: when timm is asked for and not installed.
    """
    if architecture in RESNETS:
        return ResNetFeatures(architecture, output_stride=output_stride, se=se)
    timm = architecture.startswith(TIMM)
    if architecture not in ARCHITECTURES and not timm:
        raise InputError(
            f"Unknown architecture {architecture!r}; choose one of {list(ARCHITECTURES)}, timm/NAME, or, "
            "as a teacher, the dotted name of a class of your own, such as my_package.MyClass."
        )
    if output_stride != 32:
        raise InputError(
            f"Another output stride than 32 is a ResNet's; {architecture} has no other, got "
            f"{output_stride}: leave it out."
        )
    if se and (timm or architecture in VISION_TRANSFORMERS):
        raise InputError(f"{architecture} has no squeeze-and-excitation of ours: give se=False.")
    if timm:
        return TimmFeatures(architecture)
    if architecture in VISION_TRANSFORMERS:
        return DinoFeatures(VISION_TRANSFORMERS[architecture])
    if architecture in VGGS:
        return VGGFeatures(architecture, se=se)
    return EfficientNetLiteFeatures(architecture, se=se)
