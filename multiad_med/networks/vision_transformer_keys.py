"""DINOv2's weights as timm and transformers name them, brought to Meta's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["has_rotary_positions", "to_meta_keys"]

_TRANSFORMERS = (
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.", ""),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"^layernorm\.", "norm."),
)
# The first of each is in Hugging Face's files, the second in the modules of transformers 5.
_QUERY = re.compile(r"\.attention\.(attention\.query|q_proj)\.(weight|bias)$")
_OF_QKV = (
    ("attention.query", "q_proj"),
    ("attention.key", "k_proj"),
    ("attention.value", "v_proj"),
)


def has_rotary_positions(state: Mapping[str, Tensor]) -> bool:
    """Tell whether a state dict is of a vision transformer without learned positions, as DINOv3's."""
    if any("storage_tokens" in key or "rope" in key for key in state):
        return True
    classes = any(key.endswith("cls_token") for key in state)
    return classes and not any(key.endswith(("pos_embed", "position_embeddings")) for key in state)


def to_meta_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries of a DINOv2 state dict to those of Meta's files.

    The layout is known by its keys; of one that is not known, and of Meta's, keys and values stay as they
    are. The mask token, which pretraining alone needs, is left out.

    Args:
        state: in Meta's, timm's or transformers' layout; keys may share a prefix.
    """
    state = {key: value for key, value in state.items() if not key.endswith("mask_token")}
    if (prefix := _prefix(state, "embeddings.position_embeddings")) is not None:
        return _from_transformers({k.removeprefix(prefix): v for k, v in state.items()})
    if (prefix := _prefix(state, "reg_token")) is not None:
        return _from_timm_with_registers({k.removeprefix(prefix): v for k, v in state.items()})
    return state  # timm's models without registers have Meta's names


def _prefix(state: Mapping[str, Tensor], end: str) -> str | None:
    """What stands before a key that a layout is known by, or None."""
    return next((key.removesuffix(end) for key in state if key.endswith(end)), None)


def _from_timm_with_registers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm adds the class token's position to the class token itself, and has none for it."""
    state["register_tokens"] = state.pop("reg_token")
    if "pos_embed" in state and "cls_token" in state:
        none = torch.zeros_like(state["cls_token"])
        state["pos_embed"] = torch.cat([none, state["pos_embed"]], dim=1)
    return state


def _from_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for key in list(state):
        if found := _QUERY.search(key):
            own = 0 if found[1] == "attention.query" else 1
            names = [key.replace(_OF_QKV[0][own], names[own]) for names in _OF_QKV]
            if all(name in state for name in names):
                target = f"{key[: found.start()]}.attn.qkv.{found[2]}"
                state[target] = torch.cat([state.pop(name) for name in names])
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        for pattern, replacement in _TRANSFORMERS:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed
