"""Stores tokens of timm's and transformers' DINOv2 models, for machines that have neither.

Run where both can be imported: ``python -m tests.reference.make_vision_transformer_reference``. It writes
``vision_transformer_reference.pt``: per model the names and shapes of its weights, and 40 values of the
tokens after each block and after the final norm, at several sizes of image. Weights and images come from
formulas, so that only the results are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

REFERENCE = Path(__file__).with_name("vision_transformer_reference.pt")
DIM, DEPTH, HEADS, GRID, PATCH = 32, 4, 2, 4, 14
SIZES = ((56, 56), (28, 84), (70, 42))


def formula_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights by a formula, in a range that lets every one of them matter."""
    state = {}
    for number, (name, shape) in enumerate(shapes.items()):
        position = torch.arange(torch.Size(shape).numel(), dtype=torch.float64) + 1000.0 * number
        # A hash of the position, uniform in [-1, 1]: no smooth pattern that would add up.
        noise = 2 * torch.frac(torch.sin(position * 12.9898).abs() * 43758.5453) - 1
        if "token" in name or "pos" in name or name.endswith("bias"):
            noise *= 0.5
        elif len(shape) == 1:
            noise = 1 + 0.3 * noise
        else:
            noise *= (3.0 / torch.Size(shape[1:]).numel()) ** 0.5
        state[name] = noise.view(shape).float()
    return state


def image(size: tuple[int, int]) -> Tensor:
    """A fixed input ``(1, 3, H, W)``."""
    height, width = size
    values = torch.arange(3 * height * width, dtype=torch.float64) * 0.11
    return torch.sin(values).view(1, 3, height, width).float()


def sampled(tokens: list[Tensor]) -> Tensor:
    """40 values of each, evenly taken."""
    return torch.stack([t.flatten()[:: t.numel() // 40][:40] for t in tokens])


def timm_model(registers: int) -> tuple[Any, Callable[[Tensor], list[Tensor]]]:
    """A small DINOv2 of timm, and what gives its tokens after each block and the norm."""
    import timm

    name = "vit_small_patch14_reg4_dinov2" if registers else "vit_small_patch14_dinov2"
    small = {"embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS, "img_size": GRID * PATCH}
    model = timm.create_model(name, dynamic_img_size=True, num_classes=0, **small).eval()

    def tokens(x: Tensor) -> list[Tensor]:
        after = model.forward_intermediates(
            x, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
        raw = [torch.cat([prefix, patches], dim=1) for patches, prefix in after]
        return [*raw, model.forward_features(x)]

    return model, tokens


def transformers_model(registers: int) -> tuple[Any, Callable[[Tensor], list[Tensor]]]:
    """A small DINOv2 of transformers, and what gives its tokens after each block and the norm."""
    import transformers

    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    small = {
        "hidden_size": DIM,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "image_size": GRID * PATCH,
        "patch_size": PATCH,
    }
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**small))
    model.eval()

    def tokens(x: Tensor) -> list[Tensor]:
        output = model(x, output_hidden_states=True)
        return [*output.hidden_states[1:], output.last_hidden_state]

    return model, tokens


PEERS = {"timm": timm_model, "transformers": transformers_model}


def main() -> None:
    """Write the reference file beside this script."""
    reference = {}
    for peer, build in PEERS.items():
        for registers in (0, 4):
            model, tokens = build(registers)
            shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
            model.load_state_dict(formula_state(shapes))
            with torch.no_grad():
                found = {size: sampled(tokens(image(size))) for size in SIZES}
            reference[f"{peer}-{registers}"] = {"shapes": shapes, "tokens": found}
    torch.save(reference, REFERENCE)


if __name__ == "__main__":
    main()
