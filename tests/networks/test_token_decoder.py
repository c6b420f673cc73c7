"""The decoder of a vision transformer's patches: its attention and its wiring by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from multiad_med.networks import TokenDecoder
from multiad_med.networks.token_decoder import _LinearAttention
from multiad_med.utils.errors import InputError


@torch.no_grad()
def test_linear_attention_is_the_quadratic_formula() -> None:
    torch.manual_seed(0)
    attention = _LinearAttention(12, 3)
    x = torch.randn(2, 7, 12)
    q, k, v = attention.qkv(x).chunk(3, dim=-1)
    heads = []
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        a, b = F.elu(q[..., part]) + 1, F.elu(k[..., part]) + 1
        weights = torch.einsum("bic,bjc->bij", a, b)
        weights = weights / (weights.sum(dim=2, keepdim=True) + 1e-6)
        heads.append(torch.einsum("bij,bjc->bic", weights, v[..., part]))
    expected = attention.proj(torch.cat(heads, dim=-1))
    torch.testing.assert_close(attention(x), expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_attention_is_finite_where_no_key_counts() -> None:
    """elu + 1 of very negative keys is 0: without an eps this is 0 / 0."""
    attention = _LinearAttention(4, 1)
    attention.qkv.weight.zero_()
    attention.qkv.bias.fill_(-200.0)
    assert attention(torch.randn(1, 5, 4)).isfinite().all()


@pytest.mark.parametrize("narrow", [None, 6])
def test_it_reads_the_last_stage_and_gives_two_groups_of_its_shape(narrow: int | None) -> None:
    torch.manual_seed(0)
    decoder = TokenDecoder(16, 2, blocks=4, narrow=narrow).eval()
    read = torch.randn(2, 16, 3, 5)
    first = decoder(torch.rand(2, 3, 42, 70), [torch.randn(2, 16, 3, 5), read])
    assert [tuple(f.shape) for f in first] == [(2, 16, 3, 5)] * 2
    again = decoder(torch.rand(2, 3, 42, 70), [torch.randn(2, 48, 1, 1), read])
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    other = decoder(torch.rand(2, 3, 42, 70), [read, read + 1])
    assert not torch.equal(first[0], other[0])


@torch.no_grad()
def test_last_blocks_answer_to_the_first_group_and_first_blocks_to_the_second() -> None:
    torch.manual_seed(0)
    decoder = TokenDecoder(8, 2, blocks=4, narrow=None, dropout=0.0).eval()
    read = torch.randn(1, 8, 2, 3)
    x = read.flatten(2).transpose(1, 2)  # row by row
    x = decoder.bottleneck[4](F.gelu(decoder.bottleneck[1](x)))
    after = []
    for block in decoder.blocks:
        x = x + block.attn(block.norm1(x))
        x = x + block.mlp(block.norm2(x))
        after.append(x)
    early, late = decoder(torch.empty(1), [read])
    at = 1 * 3 + 2
    torch.testing.assert_close(early[0, :, 1, 2], ((after[2] + after[3]) / 2)[0, at])
    torch.testing.assert_close(late[0, :, 1, 2], ((after[0] + after[1]) / 2)[0, at])


@pytest.mark.parametrize(("narrow", "count"), [(None, 3), (6, 3)])
def test_the_bottleneck_is_noisy_in_training_alone(narrow: int | None, count: int) -> None:
    torch.manual_seed(0)
    decoder = TokenDecoder(16, 2, blocks=2, narrow=narrow, dropout=0.5)
    active = [m for m in decoder.modules() if isinstance(m, torch.nn.Dropout) and m.p > 0]
    assert len(active) == count
    read = [torch.randn(1, 16, 3, 3)]
    image = torch.empty(1)
    assert not torch.equal(decoder(image, read)[0], decoder(image, read)[0])
    decoder.eval()
    assert torch.equal(decoder(image, read)[0], decoder(image, read)[0])


def test_weights_start_small_and_parameters_are_dinomalys() -> None:
    """61.3 million trained parameters beside a teacher of 768 channels, as counted of Dinomaly."""
    with torch.device("meta"):
        whole = TokenDecoder(768, 12, narrow=None)
    assert sum(p.numel() for p in whole.parameters()) == pytest.approx(61.3e6, abs=0.2e6)
    decoder = TokenDecoder(64, 2, blocks=2)
    weight = decoder.blocks[0].mlp[0].weight
    assert weight.std().item() == pytest.approx(0.01, abs=1e-3)
    assert weight.abs().max() <= 0.03
    assert not decoder.blocks[0].attn.qkv.bias.any()


@pytest.mark.parametrize(
    ("heads", "blocks"), [(3, 4), (2, 3), (2, 0)], ids=["heads", "odd", "none"]
)
def test_sizes_that_do_not_fit_are_refused(heads: int, blocks: int) -> None:
    with pytest.raises(InputError, match="dim must be a multiple of heads and blocks an even"):
        TokenDecoder(16, heads, blocks=blocks)
