"""Foreground by HU and by label, holes filled slice by slice, and exact quantiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.data import MetaTensor
from scipy import ndimage

from multiad_med.transforms import (
    ForegroundByHounsfield,
    ForegroundByHounsfieldd,
    ForegroundByIntensity,
    ForegroundByLabel,
    ForegroundByLabeld,
)
from multiad_med.transforms.foreground import _fill_holes_in_plane
from multiad_med.transforms.quantiles import quantiles


def disc(radius: float, shape: tuple[int, int] = (40, 40)) -> np.ndarray:
    x, y = np.ogrid[: shape[0], : shape[1]]
    return (x - 20) ** 2 + (y - 18) ** 2 <= radius**2


def ct() -> tuple[torch.Tensor, np.ndarray]:
    """A body with lungs, on a table, in air; and the body."""
    body = np.repeat(disc(14)[..., None], 5, axis=-1)
    volume = np.where(body, 40.0, -1000.0)
    volume[14:18, 12:20, 1:4] = -800  # lungs, open to no slice's border
    volume[22:26, 12:20, 1:4] = -850
    volume[5:35, 36:38] = 200  # the table, 4 pixels below
    volume[2, 2] = 3000  # a wire
    return torch.from_numpy(volume.astype(np.int16))[None], body


def test_body_is_kept_without_table_wire_and_air_but_with_its_lungs() -> None:
    volume, body = ct()
    mask = ForegroundByHounsfield()(volume)
    assert mask.dtype == torch.uint8
    np.testing.assert_array_equal(mask[0] > 0, body)


def test_threshold_lies_between_lung_and_fat() -> None:
    volume, body = ct()
    fat = torch.where(torch.from_numpy(body)[None], -120, volume).to(torch.int16)
    np.testing.assert_array_equal(ForegroundByHounsfield()(fat)[0] > 0, body)
    # Above -100 nothing of the fatty body is left, and the table is the largest part.
    table = ForegroundByHounsfield(threshold=-100)(fat)[0] > 0
    np.testing.assert_array_equal(table, volume[0] == 200)


def test_a_lung_open_to_the_air_of_its_slice_is_not_filled() -> None:
    volume, body = ct()
    volume[0, 20, :, 2] = -1000  # a cut through the slice
    mask = ForegroundByHounsfield()(volume)[0].numpy() > 0
    assert not mask[20, :, 2].any()
    np.testing.assert_array_equal(mask[..., 0], body[..., 0])


def test_a_ct_of_air_has_no_foreground() -> None:
    assert ForegroundByHounsfield()(torch.full((1, 8, 8, 3), -1000.0)).sum() == 0


def test_masks_keep_the_affine_of_their_volume() -> None:
    volume, _ = ct()
    affine = torch.diag(torch.tensor([0.7, 0.7, 5, 1], dtype=torch.float64))
    data = ForegroundByHounsfieldd("image", mask_key="body")(
        {"image": MetaTensor(volume, affine=affine)}
    )
    assert set(data) == {"image", "body"}
    assert isinstance(data["body"], MetaTensor)
    torch.testing.assert_close(data["body"].affine, affine)
    with pytest.raises(ValueError, match="one key"):
        ForegroundByHounsfieldd(["a", "b"])


@pytest.mark.parametrize(
    ("labels", "expected"), [(None, [1, 1, 1, 0]), ([6], [0, 1, 0, 0]), ([1, 2], [1, 0, 1, 0])]
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float32])
def test_organ_is_where_its_labels_are(
    labels: list[int] | None, expected: list[int], dtype: torch.dtype
) -> None:
    segmentation = torch.tensor([1, 6, 2, 0]).to(dtype).reshape(1, 4, 1, 1)
    mask = ForegroundByLabel(labels=labels)(segmentation)
    assert mask.dtype == torch.uint8
    assert mask.flatten().tolist() == expected


def test_an_absent_organ_is_an_error_that_tells_what_the_mask_holds() -> None:
    segmentation = torch.tensor([0, 3, 5]).reshape(1, 3, 1, 1)
    with pytest.raises(ValueError, match=r"\[6\].*holds.*\[0, 3, 5\]"):
        ForegroundByLabel(labels=[6])(segmentation)
    with pytest.raises(ValueError, match=r"above 0 in the organ mask.*\[0\]"):
        ForegroundByLabel()(segmentation * 0)


def test_an_items_own_labels_win() -> None:
    segmentation = torch.tensor([1, 6, 2, 0]).reshape(1, 4, 1, 1)
    transform = ForegroundByLabeld("organ", labels=[1, 2])
    alone = transform({"organ": segmentation})
    assert alone["foreground"].flatten().tolist() == [1, 0, 1, 0]
    own = transform({"organ": segmentation, "organ_labels": [6]})
    assert own["foreground"].flatten().tolist() == [0, 1, 0, 0]
    other = ForegroundByLabeld("organ", mask_key="m", labels=[1], labels_key="values")
    named = other({"organ": segmentation, "values": [2], "organ_labels": [6]})
    assert named["m"].flatten().tolist() == [0, 0, 1, 0]
    assert torch.equal(named["organ"], segmentation)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    mask=hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, max_side=9)),
    order=st.sampled_from("CF"),
)
def test_filled_holes_are_scipys_slice_by_slice(mask: np.ndarray, order: str) -> None:
    stored = np.array(mask, order=order)  # type: ignore[call-overload]
    filled = _fill_holes_in_plane(stored)
    for z in range(mask.shape[-1]):
        np.testing.assert_array_equal(filled[..., z], ndimage.binary_fill_holes(mask[..., z]))
    np.testing.assert_array_equal(stored, mask)


def test_a_hole_connected_by_a_corner_only_is_filled() -> None:
    ring = np.ones((5, 5, 1), bool)
    ring[1:4, 1:4] = False
    ring[0, 0] = False
    filled = _fill_holes_in_plane(ring)
    assert not filled[0, 0, 0]
    assert int(filled.sum()) == 24


def test_a_voxel_is_foreground_where_any_channel_says_so() -> None:
    channels = torch.zeros(2, 12, 12, 3)
    channels[0, 2:5, 2:5] = 100
    channels[1, 6:9, 6:9] = 1  # its own range counts, not the first channel's
    mask = ForegroundByIntensity()(channels)
    assert mask.shape == (1, 12, 12, 3)
    assert torch.equal(mask[0] > 0, (channels > 0).any(dim=0))


def test_holes_are_filled_in_the_union_of_channels() -> None:
    channels = torch.zeros(2, 12, 12, 1)
    channels[0, 3:9, 3] = channels[0, 3:9, 8] = 1  # two bars of a frame
    channels[1, 3, 3:9] = channels[1, 8, 3:9] = 1  # and the other two
    assert int(ForegroundByIntensity()(channels).sum()) == 36


VALUES = {
    "int8": st.integers(-128, 127),
    "uint8": st.integers(0, 255),
    "int16": st.integers(-32768, 32767),
    "int32": st.integers(-(2**24), 2**24),
    "float32": st.floats(-1e6, 1e6, width=32),
    "float64": st.floats(-1e6, 1e6),
}


@pytest.mark.parametrize("dtype", list(VALUES))
@given(data=st.data())
def test_quantiles_equal_sorting(dtype: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(VALUES[dtype], min_size=1, max_size=40))
    fractions = data.draw(st.lists(st.floats(0, 1), min_size=1, max_size=4))
    ordered = np.sort(np.array(values, dtype))
    ranks = [max(1, round(q * len(values))) for q in fractions]
    expected = [float(ordered[rank - 1]) for rank in ranks]
    assert quantiles(torch.from_numpy(np.array(values, dtype)), fractions) == expected


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.float32])
def test_quantiles_by_hand(dtype: torch.dtype) -> None:
    values = torch.tensor([5, -3, 100, 0, -128, 7, 7, 2, 1, 4], dtype=dtype)
    assert quantiles(values, (0, 0.1, 0.5, 0.8, 1)) == [-128, -128, 2, 7, 100]
    assert quantiles(values[:1], (0.0, 0.5, 1.0)) == [5, 5, 5]


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32])
def test_quantiles_do_not_depend_on_the_memorys_order(dtype: torch.dtype) -> None:
    seeded = torch.Generator().manual_seed(0)
    volume = torch.randint(-900, 900, (6, 7, 8), generator=seeded).to(dtype)
    ordered = volume.flatten().sort().values
    expected = [float(ordered[33]), float(ordered[301])]  # ranks 34 and 302 of 336
    views = [volume, volume.permute(2, 0, 1), MetaTensor(volume[None])]
    for view in views:
        assert quantiles(view, (0.1, 0.9)) == expected
    strided = torch.stack([volume, volume + 5000], dim=-1)[..., 0]
    assert quantiles(strided, (0.1, 0.9)) == expected


def test_quantiles_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="the foreground is empty"):
        quantiles(torch.zeros(0), (0.5,))
