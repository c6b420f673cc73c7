"""Students that look at no features of the teacher: the paper's, and none at all."""

from typing import Final

import torch
from torch import Tensor, nn

from multiad_med.networks.extractor import takes_stages

__all__ = ["ImageStudent", "NoStudent"]


class ImageStudent(nn.Module):
    """The paper's student: a backbone that reads the image and ignores the teacher's features.

    Every student is called with ``(image, teacher_features)`` and returns features of the
    teacher's shapes, so that a student which decodes the teacher's features fits too. One that takes
    ``stages`` computes those alone (:class:`FeatureExtractor`); the stages of the teacher that it looks
    at are its ``reads``, all where it does not tell.
    """

    chooses: Final[bool]

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.chooses = takes_stages(backbone)
        self.reads: list[int] = []

    def forward(
        self, image: Tensor, teacher_features: list[Tensor], stages: list[int] | None = None
    ) -> list[Tensor]:
        """Return features of an ImageNet-normalised image ``(B, 3, H, W)``.

        Args:
            image: the image.
            teacher_features: of any teacher.
            stages: that are read.
        """
        if self.chooses:
            return self.backbone(image, stages)
        return self.backbone(image)


class NoStudent(nn.Module):
    """Learns nothing: for networks whose experts alone say what is normal."""

    def __init__(self) -> None:
        super().__init__()
        # Optimisers refuse an empty list.
        self.nothing = nn.Parameter(torch.empty(0))
        self.reads: list[int] = []

    def forward(self, image: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """Return no features."""
        return teacher_features[:0]
