"""Two students of different kinds side by side: one for places, one for the whole image."""

from torch import Tensor, nn

__all__ = ["DualStudent"]


class DualStudent(nn.Module):
    """Joins a student of local features and one of the image's token (second paper).

    The local one decodes the teacher's features and ignores the image; the semantic one reads the image
    and ignores the features. Neither sees the other; the loss joins them.

    Args:
        local: called with ``(image, teacher_features)``; returns the teacher's feature maps, shallow to
            deep.
        semantic: called alike; returns a list of the token ``(B, C, 1, 1)`` alone.
    """

    def __init__(self, local: nn.Module, semantic: nn.Module) -> None:
        super().__init__()
        self.local = local
        self.semantic = semantic

    def forward(self, image: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """Return the local student's features of an image ``(B, 3, H, W)``, then the token."""
        features: list[Tensor] = self.local(image, teacher_features)
        token: list[Tensor] = self.semantic(image, teacher_features)
        features.append(token[0])
        return features
