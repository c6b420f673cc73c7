"""Vision transformers: tokens of timm's and transformers', files of all layouts, and exports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.utils import convert_to_onnx
from torch import Tensor
from torch.nn import functional as F

from multiad_med.networks import (
    VISION_TRANSFORMERS,
    VisionTransformer,
    VisionTransformerSize,
    WeightsError,
    build_extractor,
    load_pretrained,
)
from multiad_med.networks.position_embedding import resample_positions
from multiad_med.networks.vision_transformer_keys import to_meta_keys
from multiad_med.testing.networks import tiny_dino
from multiad_med.utils.errors import InputError
from tests.reference.make_vision_transformer_reference import (
    DEPTH,
    DIM,
    GRID,
    HEADS,
    PATCH,
    PEERS,
    REFERENCE,
    SIZES,
    formula_state,
    image,
    sampled,
)

EVERY = list(range(1, DEPTH + 1))
STORED = torch.load(REFERENCE, weights_only=True)


def _network(state: dict[str, Tensor], case: str) -> VisionTransformer:
    """Ours, with a peer's weights, and with that peer's way to resample positions."""
    peer, registers = case.split("-")
    size = VisionTransformerSize(DIM, DEPTH, HEADS, int(registers), PATCH, GRID)
    network = VisionTransformer(size).eval()
    network.load_state_dict(to_meta_keys(state))
    network.antialias, network.offset = peer == "timm" or registers == "4", 0.0
    return network


@torch.no_grad()
def _tokens(network: VisionTransformer, x: Tensor) -> list[Tensor]:
    tokens = network.forward_tokens(x, EVERY)
    return [*tokens, network.norm(tokens[-1])]


@pytest.mark.parametrize("case", STORED)
def test_tokens_equal_stored_ones_of_timm_and_transformers(case: str) -> None:
    """Weights and images come from formulas of tests/reference/make_vision_transformer_reference.py."""
    network = _network(formula_state(STORED[case]["shapes"]), case)
    for size, expected in STORED[case]["tokens"].items():
        assert expected.std() > 0.5
        torch.testing.assert_close(
            sampled(_tokens(network, image(size))), expected, atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("case", STORED)
def test_tokens_equal_those_of_timm_and_transformers_here(case: str) -> None:
    peer, registers = case.split("-")
    try:
        model, tokens = PEERS[peer](int(registers))
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{peer} cannot be imported: {error}")
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    model.load_state_dict(formula_state(shapes))
    network = _network(formula_state(shapes), case)
    for size in SIZES:
        with torch.no_grad():
            expected = tokens(image(size))
        for ours, theirs in zip(_tokens(network, image(size)), expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("rows", "columns"), [(20, 28), (5, 50), (37, 36), (1, 1)])
@pytest.mark.parametrize("registers", [0, 4])
def test_positions_are_resampled_as_metas_hub_does(rows: int, columns: int, registers: int) -> None:
    """By size and antialiased with registers; with an offset of 0.1 in the scale without."""
    size = VisionTransformerSize(8, 1, 1, registers=registers)
    network = VisionTransformer(size)
    positions = network.pos_embed.detach()
    how = (
        {"size": (rows, columns), "antialias": True}
        if registers
        else {"scale_factor": ((rows + 0.1) / 37, (columns + 0.1) / 37)}
    )
    grid = positions[:, 1:].reshape(1, 37, 37, 8).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, mode="bicubic", **how).flatten(2).transpose(1, 2)
    found = resample_positions(positions, 37, rows, columns, network.antialias, network.offset)
    assert torch.equal(found[:, :1], positions[:, :1])
    torch.testing.assert_close(found[:, 1:], expected, atol=1e-6, rtol=0)


def test_positions_of_the_grid_that_was_trained_stay_as_they_are() -> None:
    positions = torch.randn(1, 17, 8)
    assert resample_positions(positions, 4, 4, 4, False, 0.1) is positions


def test_registers_stand_between_the_class_token_and_the_patches_without_positions() -> None:
    network = tiny_dino(registers=4)
    with torch.no_grad():
        network.pos_embed.fill_(100.0)
        for block in network.blocks:  # which then change nothing
            block.ls1.gamma.zero_()
            block.ls2.gamma.zero_()
        (tokens,) = network.forward_tokens(torch.zeros(2, 3, 56, 56), [1])
    assert tokens.shape == (2, 1 + 4 + 16, 32)
    assert torch.equal(tokens[1, 1:5], network.register_tokens[0])
    assert tokens[:, 0].min() > 99
    assert tokens[:, 5:].min() > 99


def test_tokens_are_those_of_the_blocks_that_were_asked_for() -> None:
    network = tiny_dino()
    x = torch.randn(1, 3, 56, 56)
    every = network.forward_tokens(x, [1, 2, 3, 4])
    for block, tokens in zip((1, 3), network.forward_tokens(x, [1, 3]), strict=True):
        assert torch.equal(tokens, every[block - 1])


def test_an_image_is_continued_by_reflection_to_whole_patches() -> None:
    network = tiny_dino()
    x = torch.randn(1, 3, 45, 56)
    whole = torch.cat([x, x[:, :, -12:-1].flip(2)], dim=2)  # rows 43, 42 ... 33 below row 44
    assert whole.shape[2:] == (56, 56)
    for ours, expected in zip(network(x), network(whole), strict=True):
        assert torch.equal(ours, expected)
    assert network(torch.randn(1, 3, 14, 57))[0].shape == (1, 32, 1, 5)


def test_an_image_smaller_than_a_patch_is_refused() -> None:
    with pytest.raises(InputError, match=r"at least one patch, 14x14 pixels; got 13x20"):
        tiny_dino()(torch.zeros(1, 3, 13, 20))


def test_heads_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(InputError, match="dim must be a multiple of heads, got 10 and 4"):
        VisionTransformer(VisionTransformerSize(10, 4, 4))


PARAMETERS = {"s": 22_056_192, "b": 86_579_712, "l": 304_367_616}


@pytest.mark.parametrize("name", VISION_TRANSFORMERS)
def test_sizes_are_the_published_ones(name: str) -> None:
    """Counts of timm's vit_{small,base,large}_patch14_dinov2, which has no mask token."""
    with torch.device("meta"):
        network = build_extractor(name)
    dim = network.channels[0]
    registers = 4 * dim if name.endswith("_reg") else 0
    expected = PARAMETERS[name[10]] + registers
    assert sum(p.numel() for p in network.parameters()) == expected
    assert network.channels == (dim, dim, 3 * dim, dim)
    assert network.strides == (14, 14, 0, 14)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"se": True}, "dinov2_vits14 has no squeeze-and-excitation of ours: give se=False"),
        ({"output_stride": 8}, "dinov2_vits14 has no other, got 8: leave it out"),
    ],
)
def test_what_a_vision_transformer_has_not_is_refused(
    choices: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build_extractor("dinov2_vits14", **choices)


# Files.


def _small(registers: int) -> VisionTransformer:
    return VisionTransformer(VisionTransformerSize(DIM, DEPTH, HEADS, registers, PATCH, GRID))


@pytest.mark.parametrize("registers", [0, 4])
def test_a_file_of_metas_loads_without_its_mask_token(tmp_path: Path, registers: int) -> None:
    source, target = _small(registers), _small(registers)
    state = source.state_dict()
    assert ("register_tokens" in state) is (registers > 0)
    torch.save({**state, "mask_token": torch.zeros(1, DIM)}, tmp_path / "w.pth")
    load_pretrained(target, "dinov2", file=tmp_path / "w.pth")
    for key, value in target.state_dict().items():
        assert torch.equal(value, state[key])


@pytest.mark.parametrize("case", STORED)
def test_files_of_timm_and_transformers_load_under_any_prefix(tmp_path: Path, case: str) -> None:
    state = formula_state(STORED[case]["shapes"])
    torch.save({f"module.{k}": v for k, v in state.items()}, tmp_path / "w.pth")
    target = _small(int(case[-1]))
    load_pretrained(target, "dinov2", file=tmp_path / "w.pth")
    for key, value in _network(state, case).state_dict().items():
        assert torch.equal(target.state_dict()[key], value)


def test_names_of_hugging_faces_files_are_known_too() -> None:
    """transformers 5 has other names for attention in memory than in the files there are."""
    state = formula_state(STORED["transformers-4"]["shapes"])
    filed = {}
    for key, value in state.items():
        for short, name in (("q", "query"), ("k", "key"), ("v", "value")):
            key = key.replace(f"attention.{short}_proj", f"attention.attention.{name}")
        filed[key.replace("attention.o_proj", "attention.output.dense")] = value
    assert "encoder.layer.0.attention.attention.query.weight" in filed
    ours, expected = to_meta_keys(filed), to_meta_keys(state)
    assert ours.keys() == expected.keys() == _small(4).state_dict().keys()
    assert all(torch.equal(ours[key], value) for key, value in expected.items())


def test_the_three_parts_of_attention_are_joined_as_query_key_value() -> None:
    names = [f"encoder.layer.0.attention.{p}_proj.bias" for p in "qkv"]
    parts = {name: torch.full((2,), float(i)) for i, name in enumerate(names)}
    state = to_meta_keys({"embeddings.position_embeddings": torch.zeros(1), **parts})
    assert state["blocks.0.attn.qkv.bias"].tolist() == [0, 0, 1, 1, 2, 2]


def test_an_unknown_layout_is_left_as_it_is_and_named(tmp_path: Path) -> None:
    state = {"conv_proj.weight": torch.zeros(2)}
    assert to_meta_keys(state) == state
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(
        WeightsError, match=r"weights of dinov2_vits14: missing.*\['conv_proj\.weight'"
    ):
        load_pretrained(_small(0), "dinov2_vits14", file=tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("file", "network", "reason"),
    [
        (_small(4), _small(0), r"unexpected keys \['register_tokens'\]"),
        (
            VisionTransformer(VisionTransformerSize(16, DEPTH, HEADS, 0, PATCH, GRID)),
            _small(0),
            r"other shapes \['cls_token \(1, 1, 16\) instead of \(1, 1, 32\)'",
        ),
    ],
)
def test_weights_of_another_size_are_refused_and_change_nothing(
    tmp_path: Path, file: VisionTransformer, network: VisionTransformer, reason: str
) -> None:
    torch.save(file.state_dict(), tmp_path / "w.pth")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match=reason):
        load_pretrained(network, "dinov2_vits14", file=tmp_path / "w.pth")
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize(
    "keys",
    [
        ("cls_token", "storage_tokens", "rope_embed.periods", "blocks.0.norm1.weight"),
        ("embeddings.cls_token", "embeddings.register_tokens", "layer.0.attention.q_proj.weight"),
        ("cls_token", "reg_token", "blocks.0.gamma_1"),
    ],
    ids=["meta", "transformers", "timm"],
)
def test_a_file_of_dinov3_is_refused_as_what_it_is(tmp_path: Path, keys: tuple[str, ...]) -> None:
    torch.save({key: torch.zeros(1) for key in keys}, tmp_path / "w.pth")
    with pytest.raises(
        WeightsError, match=r"w\.pth holds .*rotary positions, such as DINOv3; dino"
    ):
        load_pretrained(_small(4), "dinov2_vits14_reg", file=tmp_path / "w.pth")


# Exports.


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("size", [(56, 56), (50, 84)])
def test_torchscript_gives_the_same_stages_at_any_size(
    registers: int, size: tuple[int, int], tmp_path: Path
) -> None:
    network = tiny_dino(registers=registers)
    torch.jit.script(network).save(str(tmp_path / "network.ts"))
    scripted = torch.jit.load(str(tmp_path / "network.ts"))
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        for ours, expected in zip(scripted(x), network(x), strict=True):
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    with pytest.raises(torch.jit.Error, match="at least one patch"):
        scripted(torch.zeros(1, 3, 10, 56))


@pytest.mark.slow
@pytest.mark.parametrize("registers", [0, 4])
def test_onnx_and_openvino_give_the_same_stages_for_any_batch(
    tmp_path: Path, registers: int
) -> None:
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    ort = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    openvino = pytest.importorskip("openvino", reason="the extra `export` is not installed")
    network = tiny_dino(registers=registers)
    file = tmp_path / "network.onnx"
    convert_to_onnx(
        network,
        [torch.rand(1, 3, 50, 84)],
        input_names=["image"],
        output_names=["early", "late", "semantic", "input"],
        dynamic_axes={"image": {0: "batch"}},
        filename=file,
        external_data=False,
    )
    x = torch.randn(3, 3, 50, 84)
    with torch.no_grad():
        expected = [stage.numpy() for stage in network(x)]
    found = ort.InferenceSession(file).run(None, {"image": x.numpy()})
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(openvino.convert_model(file), "CPU", hint)
    for onnx, vino, stage in zip(found, compiled(x.numpy()).values(), expected, strict=True):
        np.testing.assert_allclose(onnx, stage, atol=1e-5)
        np.testing.assert_allclose(vino, stage, atol=1e-5)
