"""Training in several processes, with the result of one process on the whole batch."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

import torch
import torch.distributed as dist
from monai.utils import evenly_divisible_all_gather
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from multiad_med.utils.errors import InputError

__all__ = [
    "SyncBatchNorm2d",
    "check_shares",
    "distribute",
    "gathered",
    "gathered_items",
    "is_distributed",
    "is_main_process",
    "mean_over_processes",
]


def is_distributed() -> bool:
    """Tell whether this process is one of several of a process group."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_main_process() -> bool:
    """Tell whether this process is the one that writes files."""
    return not is_distributed() or dist.get_rank() == 0


def check_shares(*datasets: Sized) -> None:
    """Refuse data sets too small for all processes, since the others would wait for an idle one.

    Raises:
        InputError: when a data set has fewer items than there are processes.
    """
    processes = dist.get_world_size() if is_distributed() else 1
    smallest = min(len(dataset) for dataset in datasets)
    if smallest < processes:
        raise InputError(
            f"{processes} processes cannot share {smallest} slices: start as many as there are "
            "training and held-out slices, or fewer."
        )


def gathered(values: Tensor, *, device: torch.device | str) -> Tensor:
    """Return values ``(N, ...)`` of all processes, in the order of their ranks; N may differ.

    Args:
        values: of this process.
        device: on which the process group exchanges, the GPU under NCCL.
    """
    if not is_distributed():
        return values
    everywhere = evenly_divisible_all_gather(values.to(device), concat=True)
    return everywhere.to(values.device)


def gathered_items(items: list[Any]) -> list[Any]:
    """Return the picklable items of all processes, in the order of their ranks."""
    if not is_distributed():
        return items
    everywhere: list[list[Any]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(everywhere, items)
    return [item for part in everywhere for item in part]


def mean_over_processes(values: Tensor) -> Tensor:
    """Return the mean of all processes' values, without gradients."""
    if is_distributed():
        values = values.detach().clone()
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values


class _Sum(torch.autograd.Function):
    """The sum over processes, through which each loss depends on the values of all."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batches of all processes on a CPU, where torch has none."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(B, C, H, W)``."""
        if not (self.training and is_distributed()):
            return super().forward(x)
        values = x.float()
        dims = (0, 2, 3)
        count = _Sum.apply(values.new_tensor(float(values[:, 0].numel())))
        mean = _Sum.apply(values.sum(dims)) / count
        centred = values - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum(dims)) / count
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def _synchronise(module: nn.Module, device: torch.device) -> None:
    """Let every batch norm below a module see all processes; parameters and keys stay the same."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            norm = SyncBatchNorm2d(child.num_features, eps=child.eps, momentum=child.momentum)
            norm.weight, norm.bias = child.weight, child.bias
            for buffer, value in child.named_buffers():
                norm.register_buffer(buffer, value)
            norm.train(child.training)
            setattr(module, name, norm)
        else:
            _synchronise(child, device)


class _Call(nn.Module):
    """A module's method as a ``forward``, since torch distributes nothing else."""

    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        self.module = module
        self.method = method

    def forward(self, *args: Any) -> Any:
        return getattr(self.module, self.method)(*args)


def distribute(
    module: nn.Module, trained: nn.Module, *, method: str = "forward"
) -> DistributedDataParallel:
    """Return a module whose gradients are averaged over all processes; its state dict stays its own.

    Args:
        module: where it trains.
        trained: the part of it whose batch norms learn: they see the batches of all processes.
        method: what is called.
    """
    device = next(module.parameters()).device
    _synchronise(trained, device)
    return DistributedDataParallel(
        _Call(module, method),
        device_ids=None if device.type == "cpu" else [device],
        # All processes have the same: batch norms see the batches of all, and nothing else trains.
        broadcast_buffers=False,
        # Stages that are not distilled have no gradient.
        find_unused_parameters=True,
    )
