"""The cosine of two features, that losses and maps are made of."""

import torch
from torch import Tensor

__all__ = ["cosine_similarity"]


def cosine_similarity(a: Tensor, b: Tensor, *, dim: int) -> Tensor:
    """Return the cosine of the angle between vectors along a dimension, in float32.

    ``torch.nn.functional.cosine_similarity`` divides both vectors by their lengths before it multiplies.
    Here the product is divided: fewer passes over memory, and OpenVINO knows all the operations.

    Args:
        a: of any precision: under autocast on a CPU features are bfloat16, whose cosine has two digits.
        b: of the same shape.
        dim: along which the vectors are.

    Returns:
        In [-1, 1], without the dimension; 0 where a vector is zero.
    """
    a, b = a.float(), b.float()
    shortest = 1e-8
    lengths = torch.linalg.vector_norm(a, dim=dim).clamp_min(shortest)
    lengths = lengths * torch.linalg.vector_norm(b, dim=dim).clamp_min(shortest)
    return (a * b).sum(dim) / lengths
