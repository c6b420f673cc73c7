"""What Multi-AD compares of a DINOv2 teacher: groups of patch tokens, and class tokens."""

import torch
from torch import Tensor
from torch.nn import functional as F

from multiad_med.networks.vision_transformer import VisionTransformer, VisionTransformerSize
from multiad_med.utils.errors import InputError

__all__ = ["DinoFeatures"]


class DinoFeatures(VisionTransformer):
    """A vision transformer as a feature extractor of four stages.

    With P the patch tokens and c the class token after a block, and LN a layer norm over channels without
    parameters, its stages are

    1. and 2. the mean of P over the blocks of a group, for an earlier and a later group. Recentred, it is
       LN(mean P - mean c): what an image has everywhere, such as its scanner's look, is taken off
       (Dinomaly2, Guo et al., arXiv 2510.17611). If not, these are the targets of Dinomaly (CVPR 2025).
    3. LN(c) of three blocks, one after the other: what the whole image shows. The last block's c is
       taken after the final norm.
    4. the mean of P over both groups, never recentred: what a student that decodes features reads.

    Of 12 blocks the groups are blocks 3 to 6 and 7 to 10, and the class tokens those of 6, 9 and 12; of
    24 blocks they are 5, 7, 9, 11 and 13, 15, 17, 19, and 12, 18 and 24; of other depths in proportion.
    Sides that are no multiples of a patch are rounded up: see :class:`VisionTransformer`.

    Args:
        size: a value of :data:`VISION_TRANSFORMERS`, or one of your own.
        recentred: whether stages 1 and 2 are.

    Raises:
        InputError: when there are fewer than four blocks.
    """

    def __init__(self, size: VisionTransformerSize, *, recentred: bool = True) -> None:
        super().__init__(size)
        depth = size.depth
        if depth < 4:
            raise InputError(f"depth must be at least 4 blocks, got {depth}.")
        early = sorted({(2 + i) * depth // 12 + 1 for i in range(4)})
        late = sorted({(6 + i) * depth // 12 + 1 for i in range(4)} - set(early))
        self.recentred = recentred
        self.groups = [early, late]
        self.semantic = [depth // 2, depth * 3 // 4, depth]
        self.used = sorted({*early, *late, *self.semantic})
        self.channels: tuple[int, ...] = (size.dim, size.dim, 3 * size.dim, size.dim)
        self.strides: tuple[int, ...] = (size.patch, size.patch, 0, size.patch)

    def forward(self, x: Tensor, stages: list[int] | None = None) -> list[Tensor]:
        """Return the four stages of an ImageNet-normalised image ``(B, 3, H, W)``.

        Args:
            x: the image.
            stages: that are read. Without the third the blocks after the later group are not computed.

        Returns:
            ``(B, C, h, w)`` twice, ``(B, 3 * C, 1, 1)`` and ``(B, C, h, w)``; h and w are the sides
            divided by the patch's, rounded up. The third is ``(B, 0, 1, 1)`` if it is not read.
        """
        whole_image = stages is None or 3 in stages
        grouped = self.groups[0] + self.groups[1]
        used = self.used if whole_image else grouped
        tokens = self.forward_tokens(x, used)
        means = [_mean(tokens, used, group) for group in self.groups]
        features: list[Tensor] = []
        for mean in means:
            patches = mean[:, 1 + self.registers :]
            if self.recentred:
                patches = _normalised(patches - mean[:, :1])
            features.append(self._as_map(patches, x))
        features.append(self._classes(tokens) if whole_image else x.new_zeros([len(x), 0, 1, 1]))
        every = _mean(tokens, used, grouped)
        features.append(self._as_map(every[:, 1 + self.registers :], x))
        return features

    def _classes(self, tokens: list[Tensor]) -> Tensor:
        """The class tokens of three blocks, out of the tokens of all that are used."""
        classes: list[Tensor] = []
        for block in self.semantic:
            after = tokens[self.used.index(block)][:, 0]
            if block == self.semantic[-1]:
                after = self.norm(after)
            classes.append(_normalised(after))
        return torch.cat(classes, dim=1).unsqueeze(2).unsqueeze(3)

    def _as_map(self, patches: Tensor, x: Tensor) -> Tensor:
        rows, columns = self.grid_of(x)
        return patches.transpose(1, 2).reshape(x.shape[0], -1, rows, columns)


def _mean(tokens: list[Tensor], used: list[int], blocks: list[int]) -> Tensor:
    """Mean of the tokens of some of the blocks that are used."""
    return torch.stack([tokens[used.index(block)] for block in blocks]).mean(dim=0)


def _normalised(x: Tensor) -> Tensor:
    """Layer norm over channels ``(..., C)``, without parameters."""
    return F.layer_norm(x, [x.shape[-1]], eps=1e-6)
