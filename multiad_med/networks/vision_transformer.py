"""Vision transformers with DINOv2's state-dict keys, in the sizes that Meta published.

Written here because torch.hub would run code of its own, timm needs torchvision, and neither MONAI's
nor torchvision's vision transformer has registers or LayerScale. Sources: DINOv2 (Oquab et al., TMLR
2024), Vision Transformers Need Registers (Darcet et al., ICLR 2024), Meta's code (Apache-2.0).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multiad_med.networks.position_embedding import resample_positions
from multiad_med.utils.errors import InputError

__all__ = ["VISION_TRANSFORMERS", "VisionTransformer", "VisionTransformerSize"]

_EPS = 1e-6


@dataclass(frozen=True)
class VisionTransformerSize:
    """The size of a vision transformer.

    Attributes:
        dim: channels of a token.
        depth: transformer blocks.
        heads: attention heads.
        registers: register tokens.
        patch: side of a patch, in pixels.
        grid: patches along each side of the images that it was pretrained on.
    """

    dim: int
    depth: int
    heads: int
    registers: int = 0
    patch: int = 14
    grid: int = 37


VISION_TRANSFORMERS: dict[str, VisionTransformerSize] = {
    "dinov2_vits14": VisionTransformerSize(384, 12, 6),
    "dinov2_vits14_reg": VisionTransformerSize(384, 12, 6, registers=4),
    "dinov2_vitb14": VisionTransformerSize(768, 12, 12),
    "dinov2_vitb14_reg": VisionTransformerSize(768, 12, 12, registers=4),
    "dinov2_vitl14": VisionTransformerSize(1024, 24, 16),
    "dinov2_vitl14_reg": VisionTransformerSize(1024, 24, 16, registers=4),
}
"""DINOv2's models by the names that Meta's hub has for them, ``_reg`` with registers."""


class _PatchEmbedding(nn.Module):
    """One token per patch."""

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens ``(B, N, C)`` of an image ``(B, 3, H, W)``, row by row."""
        return self.proj(x).flatten(2).transpose(1, 2)


class _Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, dim = x.shape
        qkv = self.qkv(x).reshape(batch, count, 3, self.heads, dim // self.heads)
        qkv = qkv.permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        return self.proj(x.transpose(1, 2).reshape(batch, count, dim))


class _LayerScale(nn.Module):
    """A factor per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _MLP(nn.Module):
    """Two layers with GELU between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=_EPS)
        self.attn = _Attention(dim, heads)
        self.ls1 = _LayerScale(dim)
        self.norm2 = nn.LayerNorm(dim, eps=_EPS)
        self.mlp = _MLP(dim)
        self.ls2 = _LayerScale(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """A vision transformer that returns the tokens of its blocks; its weights are random.

    Any image of at least one patch will do: it is continued at the bottom and the right by reflection to
    whole patches, and the learned positions are resampled to its grid as Meta's hub does: of models with
    registers by size and antialiased, of the others with an offset in the scale and not antialiased.

    ``norm(tokens)[:, 0]`` of the last block's tokens is the class token that DINOv2 gives.

    Args:
        size: a value of :data:`VISION_TRANSFORMERS`, or one of your own.

    Raises:
        InputError: when the heads do not divide the channels.
    """

    def __init__(self, size: VisionTransformerSize) -> None:
        super().__init__()
        if size.dim % size.heads:
            raise InputError(f"dim must be a multiple of heads, got {size.dim} and {size.heads}.")
        self.patch = size.patch
        self.depth = size.depth
        self.heads = size.heads
        self.grid = size.grid
        self.registers = size.registers
        self.antialias = size.registers > 0
        self.offset = 0.0 if size.registers else 0.1
        self.cls_token = nn.Parameter(torch.empty(1, 1, size.dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + size.grid**2, size.dim))
        if size.registers:
            self.register_tokens = nn.Parameter(torch.empty(1, size.registers, size.dim))
        else:
            self.register_parameter("register_tokens", None)
        self.patch_embed = _PatchEmbedding(size.dim, size.patch)
        self.blocks = nn.ModuleList(_Block(size.dim, size.heads) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.dim, eps=_EPS)
        for token in (self.cls_token, self.pos_embed, self.register_tokens):
            if token is not None:
                nn.init.trunc_normal_(token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    @torch.jit.export
    def grid_of(self, x: Tensor) -> tuple[int, int]:
        """Return rows and columns of the patches of an image ``(B, 3, H, W)``, cut ones included."""
        return -(-x.shape[2] // self.patch), -(-x.shape[3] // self.patch)

    @torch.jit.export
    def forward_tokens(self, x: Tensor, blocks: list[int]) -> list[Tensor]:
        """Return the tokens after some of the blocks, before any norm.

        Args:
            x: ImageNet-normalised image ``(B, 3, H, W)``.
            blocks: increasing numbers, counted from 1. Those after the last of them are not computed.

        Returns:
            ``(B, 1 + registers + N, C)`` for each of ``blocks``: the class token, the registers, and the
            patches row by row.

        Raises:
            InputError: when the image is smaller than a patch.
        """
        x = self._embedded(x)
        tokens: list[Tensor] = []
        for number, block in enumerate(self.blocks, start=1):
            if number <= blocks[-1]:
                x = block(x)
                if number in blocks:
                    tokens.append(x)
        return tokens

    def _embedded(self, x: Tensor) -> Tensor:
        """What the first block reads."""
        height, width = x.shape[2], x.shape[3]
        if height < self.patch or width < self.patch:
            raise InputError(
                f"An image must have at least one patch, {self.patch}x{self.patch} pixels; got "
                f"{height}x{width}. Resize it."
            )
        rows, columns = self.grid_of(x)
        below, right = rows * self.patch - height, columns * self.patch - width
        if below > 0 or right > 0:
            x = F.pad(x, [0, right, 0, below], mode="reflect")
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = x + resample_positions(
            self.pos_embed, self.grid, rows, columns, self.antialias, self.offset
        )
        if self.register_tokens is not None:
            registers = self.register_tokens.expand(x.shape[0], -1, -1)
            x = torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)
        return x
