"""Batch norms folded into the convolutions before them, while the state dict stays as it is."""

from collections.abc import Iterator
from typing import Any

import torch
from monai.networks.blocks import ChannelSELayer
from torch import Tensor, nn
from torch.fx import Node, Tracer
from torch.nn.utils.fusion import fuse_conv_bn_weights

from multiad_med.networks.extractor import takes_stages

__all__ = ["FoldedConv2d", "FoldedNorm2d", "fold_batch_norms", "folded_only"]


def _shape(conv: nn.Conv2d) -> dict[str, Any]:
    """What a convolution is built with, its bias apart."""
    names = (
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
    )
    return {name: getattr(conv, name) for name in (*names, "padding_mode")}


def _exact(values: Tensor | None) -> Any:
    """In float64, on the CPU, as not every device has it."""
    return None if values is None else values.cpu().double()


class FoldedNorm2d(nn.BatchNorm2d):
    """Holds the parameters of a batch norm that is part of the convolution before it, and does nothing.

    Args:
        norm: the batch norm, whose parameters are shared.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, eps=norm.eps, device="meta")
        self._parameters, self._buffers = norm._parameters, norm._buffers
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``."""
        return x


class FoldedConv2d(nn.Conv2d):
    """Convolves and normalises in one step, as convolution and batch norm do in evaluation mode.

    ``weight`` and ``bias`` stay the convolution's own, and are what is saved. What convolves is made of
    them, and is no part of the state dict.

    Args:
        conv: the convolution, whose parameters are shared.
        norm: the batch norm after it.
    """

    folded_weight: Tensor
    folded_bias: Tensor

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__(**_shape(conv), bias=conv.bias is not None, device="meta")
        self._parameters = conv._parameters
        # In a tuple, so that it is no submodule: it is one of another module already.
        self._norm = (norm,)
        self.register_buffer("folded_weight", torch.empty_like(conv.weight), persistent=False)
        self.register_buffer(
            "folded_bias", conv.weight.new_empty(len(conv.weight)), persistent=False
        )
        self.fold()
        self.eval()

    @torch.jit.unused
    @torch.no_grad()
    def fold(self) -> None:
        """Take in the parameters of convolution and batch norm, in float64."""
        norm = self._norm[0]
        weight, bias = fuse_conv_bn_weights(
            _exact(self.weight),
            _exact(self.bias),
            _exact(norm.running_mean),
            _exact(norm.running_var),
            norm.eps,
            _exact(norm.weight),
            _exact(norm.bias),
        )
        self.folded_weight.copy_(weight)
        self.folded_bias.copy_(bias)

    @torch.jit.unused
    def plain(self) -> nn.Conv2d:
        """Return a convolution that does the same and has nothing else."""
        conv = nn.Conv2d(**_shape(self), device="meta")
        conv.weight = nn.Parameter(self.folded_weight, requires_grad=False)
        conv.bias = nn.Parameter(self.folded_bias, requires_grad=False)
        return conv

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and normalise ``(B, C, H, W)``."""
        return self._conv_forward(x, self.folded_weight, self.folded_bias)


class _Tracer(Tracer):
    """Does not look into squeeze-and-excitation, which asks for shapes."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, ChannelSELayer) or super().is_leaf_module(m, module_qualified_name)


def _pairs(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module, str]]:
    """Yield each convolution that a batch norm follows, and nothing else: parent and name of both.

    Of a module that cannot be traced as a whole, those of the parts that can.
    """
    if not any(isinstance(part, nn.BatchNorm2d) for part in module.modules()):
        return
    try:
        graph = _Tracer().trace(module, {"stages": None} if takes_stages(module) else None)
    except Exception:  # whatever a module's own code makes of a stand-in for a tensor
        for child in module.children():
            yield from _pairs(child)
        return
    calls = [node for node in graph.nodes if node.op == "call_module"]
    targets = [str(node.target) for node in calls]
    for norm in calls:
        conv = norm.args[0]
        if (
            isinstance(conv, Node)
            and conv.op == "call_module"
            and len(conv.users) == 1
            and type(module.get_submodule(str(conv.target))) is nn.Conv2d
            and _folds(module.get_submodule(str(norm.target)))
            and targets.count(str(conv.target)) == targets.count(str(norm.target)) == 1
        ):
            yield (*_place(module, str(conv.target)), *_place(module, str(norm.target)))


def _folds(norm: nn.Module) -> bool:
    """Whether it is a batch norm that has statistics of its own, and is not some other's subclass."""
    return type(norm) is nn.BatchNorm2d and norm.running_mean is not None


def _place(root: nn.Module, path: str) -> tuple[nn.Module, str]:
    parent, _, name = path.rpartition(".")
    return root.get_submodule(parent), name


def _refold(module: nn.Module, incompatible_keys: Any) -> None:
    for part in module.modules():
        if isinstance(part, FoldedConv2d):
            part.fold()


def fold_batch_norms(module: nn.Module) -> None:
    """Fold the batch norms of a module that no longer trains into its convolutions.

    Features stay the same but for rounding, and so do the names and values of the state dict. Loading one
    folds again. Batch norms that do not follow a convolution alone stay as they are.

    Args:
        module: frozen and set to evaluation mode, changed in place.
    """
    module.requires_grad_(False).eval()
    for conv_parent, conv_name, norm_parent, norm_name in list(_pairs(module)):
        conv, norm = getattr(conv_parent, conv_name), getattr(norm_parent, norm_name)
        held = FoldedNorm2d(norm)
        setattr(conv_parent, conv_name, FoldedConv2d(conv, held))
        setattr(norm_parent, norm_name, held)
    module.register_load_state_dict_post_hook(_refold)


def folded_only(module: nn.Module) -> None:
    """Leave of folded convolutions and batch norms what computes, for export.

    Args:
        module: changed in place; its state dict is another afterwards.
    """
    for name, part in list(module.named_children()):
        if isinstance(part, FoldedConv2d):
            setattr(module, name, part.plain())
        elif isinstance(part, FoldedNorm2d):
            setattr(module, name, nn.Identity())
        else:
            folded_only(part)
