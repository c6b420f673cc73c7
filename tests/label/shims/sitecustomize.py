"""Lets a torchvision that is linked to CUDA be imported beside a torch without it.

Python imports this module by its name when the folder is on ``PYTHONPATH``. Where the plain import of
torchvision works, nothing happens. MONAI Label imports torchvision, but what is tested here calls none
of its operators.
"""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_OPERATORS = [
    name
    for operator in ("nms", "roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool", "deform_conv2d")
    for name in (operator, f"q{operator}", f"_{operator}_backward")
]
_KEPT: list[Any] = []


class _Before(importlib.abc.MetaPathFinder):
    """Declares the operators when torchvision is about to be imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if torch.version.cuda is None and not hasattr(torch.ops.torchvision, "nms"):
                library = torch.library.Library("torchvision", "DEF")
                for operator in _OPERATORS:
                    library.define(f"{operator}() -> ()")  # nobody calls them
                _KEPT.append(library)


if not any(type(finder).__name__ == "_Before" for finder in sys.meta_path):
    sys.meta_path.insert(0, _Before())
