"""The encoder-decoder student of a vision transformer: a noisy bottleneck and linear attention.

Dinomaly (Guo et al., CVPR 2025) is its source, and Dinomaly2 (arXiv 2510.17611) that of the narrow first
layer. The second paper distils averaged patch features of the teacher's middle blocks; how its decoder
is built is not public, so this is our reading.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multiad_med.utils.errors import InputError

__all__ = ["TokenDecoder"]

_BLOCKS = 8
_MLP_RATIO = 4
_NORM_EPS = 1e-8


class _LinearAttention(nn.Module):
    """Attends in time linear in the number of tokens, with features ``elu + 1`` (Katharopoulos, 2020)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.eps = 1e-6  # Dinomaly has none, and is not finite on some data.
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, dim = x.shape
        qkv = self.qkv(x).reshape(batch, count, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = F.elu(q) + 1.0, F.elu(k) + 1.0
        context = k.transpose(-2, -1) @ v
        norm = (q * k.sum(dim=-2, keepdim=True)).sum(dim=-1, keepdim=True)
        x = (q @ context) / (norm + self.eps)
        return self.proj(x.transpose(1, 2).reshape(batch, count, dim))


class _Block(nn.Module):
    """A transformer block with linear attention; LayerNorm comes first."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=_NORM_EPS)
        self.attn = _LinearAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=_NORM_EPS)
        self.mlp = nn.Sequential(
            nn.Linear(dim, _MLP_RATIO * dim), nn.GELU(), nn.Linear(_MLP_RATIO * dim, dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TokenDecoder(nn.Module):
    """Reconstructs two groups of a vision transformer's patch features from behind a bottleneck.

    The decoder reads the mean of the teacher's middle blocks. Its last blocks answer to the teacher's
    first group and its first blocks to the second, each group the mean of its blocks.

    Args:
        dim: channels of the teacher's patches.
        heads: of the attention.
        blocks: of the decoder, an even number.
        narrow: width of a linear layer before the bottleneck (Dinomaly2); None leaves it out (Dinomaly).
        dropout: probability in the bottleneck while it trains: the noise.

    Raises:
        InputError: when ``dim`` is no multiple of ``heads``, or ``blocks`` is odd.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        blocks: int = _BLOCKS,
        narrow: int | None = 256,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if dim % heads or blocks % 2 or blocks < 2:
            raise InputError(
                f"dim must be a multiple of heads and blocks an even number of at least 2, got {dim}, "
                f"{heads} and {blocks}."
            )
        width = dim if narrow is None else narrow
        self.narrow = (
            nn.Identity()
            if narrow is None
            else nn.Sequential(nn.Linear(dim, narrow), nn.Dropout(dropout))
        )
        self.bottleneck = nn.Sequential(
            nn.Dropout(dropout if narrow is None else 0.0),
            nn.Linear(width, _MLP_RATIO * dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(_MLP_RATIO * dim, dim),
            nn.Dropout(dropout),
        )
        self.blocks = nn.ModuleList(_Block(dim, heads) for _ in range(blocks))
        self.middle: int = blocks // 2
        self.reads: list[int] = [4]
        self.apply(_initialise)

    def forward(
        self, image: Tensor, teacher_features: list[Tensor], stages: list[int] | None = None
    ) -> list[Tensor]:
        """Return both groups ``(B, dim, h, w)``; the image is not looked at.

        Args:
            image: ``(B, 3, H, W)``.
            teacher_features: of :class:`multiad_med.networks.DinoFeatures`. The last of them
                ``(B, dim, h, w)`` is read, without gradients.
            stages: that are read; see :class:`multiad_med.networks.FeatureExtractor`. Without the first,
                the last blocks are not computed, and it is ``(B, 0, 1, 1)``.
        """
        source = teacher_features[len(teacher_features) - 1]
        x = self.bottleneck(self.narrow(source.flatten(2).transpose(1, 2)))
        whole = stages is None or 1 in stages
        outputs: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            if whole or i < self.middle:
                x = block(x)
                outputs.append(x)
        deep = _mean_map(outputs[: self.middle], source)
        if not whole:
            return [x.new_zeros([len(x), 0, 1, 1]), deep]
        return [_mean_map(outputs[self.middle :], source), deep]


def _mean_map(group: list[Tensor], source: Tensor) -> Tensor:
    """Mean of tokens ``(B, N, dim)`` as a map of the source's shape."""
    return torch.stack(group).mean(dim=0).transpose(1, 2).reshape(source.shape)


def _initialise(module: nn.Module) -> None:
    """Draw weights as Dinomaly does: normal, of deviation 0.01, cut at three deviations."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.01, a=-0.03, b=0.03)
        nn.init.zeros_(module.bias)
