"""The encoder-encoder student: a vision transformer from scratch that imitates a token of the image."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multiad_med.networks.vision_transformer import VisionTransformer, VisionTransformerSize
from multiad_med.utils.errors import InputError

__all__ = ["SemanticStudent"]

_LAYER_SCALE = 1e-5


class SemanticStudent(nn.Module):
    """Predicts the teacher's token of the whole image from the image alone (second paper, our reading).

    The image is resized to a square of its own size. The class tokens at half, three quarters and all of
    the depth are read together by one linear layer.

    Args:
        channels: of the teacher's token.
        image_size: side of the square in pixels.
        dim: channels of a token of its own.
        depth: its blocks, at least 2.
        heads: of its attention.
        patch: side of its patches in pixels.

    Raises:
        InputError: when the sizes do not fit each other.
    """

    def __init__(
        self,
        channels: int,
        *,
        image_size: int = 64,
        dim: int = 192,
        depth: int = 4,
        heads: int = 3,
        patch: int = 8,
    ) -> None:
        super().__init__()
        if image_size < patch or image_size % patch or depth < 2:
            raise InputError(
                f"image_size must be a multiple of patch and depth at least 2, got {image_size}, "
                f"{patch} and {depth}."
            )
        self.image_size = image_size
        self.encoder = VisionTransformer(
            VisionTransformerSize(dim, depth, heads, patch=patch, grid=image_size // patch)
        )
        for name, gamma in self.encoder.named_parameters():
            if name.endswith(".gamma"):
                nn.init.constant_(gamma, _LAYER_SCALE)
        self.blocks: list[int] = sorted({-(-depth // 2), -(-3 * depth // 4), depth})
        self.reads: list[int] = []
        self.head = nn.Linear(len(self.blocks) * dim, channels)

    def forward(self, image: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        """Return the token ``(B, channels, 1, 1)``; the teacher's features are not looked at.

        Args:
            image: ImageNet-normalised ``(B, 3, H, W)``.
            teacher_features: of any teacher.
        """
        tokens = self.encoder.forward_tokens(self._resized(image), self.blocks)
        parts: list[Tensor] = []
        for i, x in enumerate(tokens):
            last = i == len(tokens) - 1
            parts.append((self.encoder.norm(x) if last else F.layer_norm(x, [x.shape[2]]))[:, 0])
        return [self.head(torch.cat(parts, dim=1))[:, :, None, None]]

    def _resized(self, image: Tensor) -> Tensor:
        """Average whole pixels first, so that nothing is skipped, then resize to the square."""
        down = [
            max(1, image.shape[2] // self.image_size),
            max(1, image.shape[3] // self.image_size),
        ]
        if down[0] > 1 or down[1] > 1:
            image = F.avg_pool2d(image, down)
        size = [self.image_size, self.image_size]
        return F.interpolate(image, size=size, mode="bilinear", align_corners=False)
