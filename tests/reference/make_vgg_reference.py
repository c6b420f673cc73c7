"""Stores activations of torchvision's VGGs, for machines where torchvision does not import.

Run where torchvision can be imported: ``python -m tests.reference.make_vgg_reference``. It writes
``vgg_reference.pt``: per architecture the state-dict keys less the classifier, and 500 values of the
output of each of the last four max poolings. Weights and input are those of ``make_resnet_reference``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tests.reference.make_resnet_reference import fill, probe


def pooled(features: nn.Sequential, x: Tensor) -> list[Tensor]:
    """Outputs of the last four max poolings of a torchvision VGG."""
    found = []
    for layer in features:
        x = layer(x)
        if isinstance(layer, nn.MaxPool2d):
            found.append(x)
    return found[1:]


def main() -> None:
    """Write the reference file beside this script."""
    from torchvision import models

    reference = {}
    for name in ("vgg16", "vgg19"):
        network = getattr(models, name)(weights=None).eval()
        network.classifier = nn.Identity()
        fill(network)
        with torch.no_grad():
            features = pooled(network.features, probe())
        reference[name] = {
            "keys": list(network.state_dict()),
            "features": [f.flatten()[:: max(1, f.numel() // 500)][:500].clone() for f in features],
        }
    torch.save(reference, Path(__file__).with_name("vgg_reference.pt"))


if __name__ == "__main__":
    main()
