"""Two students of different kinds side by side: one for places, one for the whole image."""

from torch import Tensor, nn

__all__ = ["DualStudent"]


class DualStudent(nn.Module):
    """Joins a student of local features and one of the image's token (second paper).

    The local one decodes the teacher's features and ignores the image; the semantic one reads the image
    and ignores the features. Neither sees the other; the loss joins them.

    Args:
        local: called with ``(image, teacher_features, stages)``; returns the teacher's feature maps,
            shallow to deep.
        semantic: called with ``(image, teacher_features)``; returns a list of the token ``(B, C, 1, 1)``
            alone.

    Both tell which of the teacher's stages they look at, ``reads``.
    """

    def __init__(self, local: nn.Module, semantic: nn.Module) -> None:
        super().__init__()
        reads: list[int] = [*local.reads, *semantic.reads]  # type: ignore[misc]
        self.reads = sorted(set(reads))
        self.local = local
        self.semantic = semantic

    def forward(
        self, image: Tensor, teacher_features: list[Tensor], stages: list[int] | None = None
    ) -> list[Tensor]:
        """Return the local student's features of an image ``(B, 3, H, W)``, then the token.

        Args:
            image: the image.
            teacher_features: of all stages that the local student reads.
            stages: that are read; see :class:`multiad_med.networks.FeatureExtractor`.
        """
        features: list[Tensor] = self.local(image, teacher_features, stages)
        if stages is None or len(features) + 1 in stages:
            token: list[Tensor] = self.semantic(image, teacher_features)
            features.append(token[0])
        return features
