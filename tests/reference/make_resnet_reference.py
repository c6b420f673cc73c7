"""Stores activations of torchvision's ResNets, for machines where torchvision does not import.

Run where torchvision can be imported: ``python -m tests.reference.make_resnet_reference``. It writes
``resnet_reference.pt``: per architecture the state-dict keys less the classifier, and 500 values of
each stage's features. Weights and input come from a formula, so that only the results are stored.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn


def fill(network: nn.Module) -> None:
    """Set every parameter and buffer by a formula, in a range that keeps features finite."""
    for number, (name, value) in enumerate(network.state_dict().items()):
        if name.endswith("num_batches_tracked"):
            continue
        position = torch.arange(value.numel(), dtype=torch.float64) + 1000.0 * number
        # A hash of the position, uniform in [-1, 1]: no smooth pattern that would add up.
        noise = 2 * torch.frac(torch.sin(position * 12.9898).abs() * 43758.5453) - 1
        if value.ndim == 4:
            noise *= (6.0 / value[0].numel()) ** 0.5
        elif name.endswith(("running_mean", "bias")):
            noise *= 0.1
        else:
            noise = 1 + 0.3 * noise
        value.copy_(noise.view_as(value))


def probe() -> Tensor:
    """A fixed input ``(1, 3, 64, 64)``."""
    return (
        torch.sin(torch.arange(3 * 64 * 64, dtype=torch.float64) * 0.11).view(1, 3, 64, 64).float()
    )


def stage_features(network: nn.Module, x: Tensor) -> list[Tensor]:
    """Outputs of the four stages of a torchvision ResNet."""
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    features = []
    for name in ("layer1", "layer2", "layer3", "layer4"):
        x = getattr(network, name)(x)
        features.append(x)
    return features


def main() -> None:
    """Write the reference file beside this script."""
    from torchvision import models

    reference = {}
    for name in ("resnet18", "resnet34", "resnet50", "wide_resnet50_2"):
        network = getattr(models, name)(weights=None).eval()
        network.fc = nn.Identity()
        fill(network)
        with torch.no_grad():
            features = stage_features(network, probe())
        reference[name] = {
            "keys": list(network.state_dict()),
            "features": [f.flatten()[:: max(1, f.numel() // 500)][:500].clone() for f in features],
        }
    torch.save(reference, Path(__file__).with_name("resnet_reference.pt"))


if __name__ == "__main__":
    main()
