"""Resizing within the slice: aspect, antialiasing, labels, and any order of memory."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd
from PIL import Image

from multiad_med.transforms import FitInPlane, FitInPlaned


def volume(*shape: int, seed: int = 0, spacing: tuple[float, ...] = (1, 1, 1)) -> MetaTensor:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return MetaTensor(values, affine=torch.diag(torch.tensor([*spacing, 1], dtype=torch.float64)))


def plain(image: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(image).as_subclass(torch.Tensor)


@pytest.mark.parametrize("shape", [(20, 80), (80, 20), (7, 64), (1, 30)])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.2, 3, 1)])
def test_without_aspect_both_sides_are_filled(
    shape: tuple[int, int], spacing: tuple[float, ...]
) -> None:
    image = volume(1, *shape, 3, spacing=spacing)
    image += 1
    fitted = FitInPlane(64, keep_aspect=False)(image)
    assert fitted.shape == (1, 64, 64, 3)
    assert float(plain(fitted).min()) >= 1 - 1e-6  # nowhere padding, which is 0
    fitted_spacing = np.linalg.norm(np.asarray(fitted.affine)[:3, :3], axis=0)
    expected = [shape[0] * spacing[0] / 64, shape[1] * spacing[1] / 64, 1]
    np.testing.assert_allclose(fitted_spacing, expected)


def test_with_aspect_the_rest_is_padding_shared_by_both_sides() -> None:
    fitted = plain(FitInPlane(64)(volume(1, 20, 80, 2) + 1))
    assert torch.equal((fitted > 0).all(dim=2)[0, :, 0].nonzero().flatten(), torch.arange(24, 40))


def test_without_aspect_the_way_back_leads_to_the_source_grid() -> None:
    image = volume(1, 20, 50, 3, spacing=(0.5, 2, 3))
    transform = Compose([FitInPlaned("image", size=64, keep_aspect=False)])
    data = transform({"image": image})
    data["pred"] = data["image"].clone()
    post = Invertd("pred", transform, orig_keys="image", nearest_interp=False, to_tensor=True)
    restored = post(data)["pred"]
    assert restored.shape == image.shape
    np.testing.assert_allclose(restored.affine, image.affine)


def test_a_slice_of_the_right_size_is_not_touched() -> None:
    image = volume(1, 32, 32, 2)
    for keep_aspect in (True, False):
        assert torch.equal(plain(FitInPlane(32, keep_aspect=keep_aspect)(image)), plain(image))


def test_shrinking_does_not_alias() -> None:
    # One bright column of four: every pixel of a quarter of the size covers 1/4 of brightness.
    # Without a filter the samples lie between the second and third column, where all is dark.
    stripes = torch.zeros(1, 128, 128, 2)
    stripes[:, ::4] = 1
    fitted = FitInPlane(32)(stripes)
    inner = fitted[:, 2:-2]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.25), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [16, 33, 50])
@pytest.mark.parametrize("shape", [(100, 100), (100, 60), (60, 100)])
def test_shrinking_keeps_the_mean(shape: tuple[int, int], size: int) -> None:
    image = volume(2, *shape, 3)
    fitted = plain(FitInPlane(size, keep_aspect=False)(image))
    # The border's pixels weigh a little more, so the mean moves by their share of the noise.
    torch.testing.assert_close(
        fitted.mean(dim=(1, 2)), plain(image).mean(dim=(1, 2)), atol=0.02, rtol=0
    )
    assert float(fitted.std()) < 0.6 * float(image.std())


def test_a_constant_slice_stays_constant() -> None:
    for size in (16, 200):
        fitted = FitInPlane(size)(torch.full((1, 48, 48, 2), 0.3))
        torch.testing.assert_close(fitted, torch.full_like(fitted, 0.3))


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("shape", [(30, 44), (44, 30), (40, 40)])
@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("channels", [1, 2])
def test_memory_order_does_not_matter(
    mode: str, shape: tuple[int, int], size: int, channels: int
) -> None:
    c_ordered = plain(volume(channels, *shape, 5))
    f_ordered = torch.from_numpy(np.asfortranarray(c_ordered.numpy()))
    assert c_ordered.stride() != f_ordered.stride()
    fit = FitInPlane(size, mode=mode)
    torch.testing.assert_close(fit(f_ordered), fit(c_ordered), atol=1e-6, rtol=0)


def test_slices_and_channels_are_fitted_each_by_itself() -> None:
    image = plain(volume(2, 30, 44, 3))
    fit = FitInPlane(20)
    together = fit(image)
    for channel in range(2):
        for z in range(3):
            alone = fit(image[channel : channel + 1, :, :, z : z + 1])
            torch.testing.assert_close(together[channel, :, :, z], alone[0, :, :, 0])


@pytest.mark.parametrize("size", [17, 90])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_nearest_keeps_labels_and_their_type(size: int, dtype: torch.dtype) -> None:
    labels = (torch.tensor([0, 3, 7, 200])[torch.randint(0, 4, (1, 40, 50, 3))]).to(dtype)
    fitted = FitInPlane(size, mode="nearest")(labels)
    assert fitted.dtype == dtype
    assert set(fitted.unique().tolist()) <= {0, 3, 7, 200}
    assert {3, 7, 200} <= set(fitted.unique().tolist())


def test_nearest_takes_the_pixel_whose_middle_is_nearest() -> None:
    ramp = torch.arange(12.0).reshape(1, 12, 1, 1).expand(1, 12, 12, 1).contiguous()
    fitted = FitInPlane(4, mode="nearest")(ramp)
    assert fitted[0, :, 0, 0].tolist() == [1, 4, 7, 10]  # the middle of each three


@pytest.mark.parametrize(("shape", "size"), [((24, 31), 256), ((240, 200), 256), ((90, 70), 33)])
def test_nearest_is_torchs_nearest_exact(shape: tuple[int, int], size: int) -> None:
    mask = torch.randint(0, 5, (1, *shape, 3), generator=torch.Generator().manual_seed(0))
    fitted = FitInPlane(size, mode="nearest", keep_aspect=False)(mask.to(torch.uint8))
    slices = mask.to(torch.uint8).permute(3, 0, 1, 2)
    expected = torch.nn.functional.interpolate(slices, (size, size), mode="nearest-exact")
    assert torch.equal(plain(fitted), expected.permute(1, 2, 3, 0))


def test_image_and_mask_stay_in_register() -> None:
    image = torch.zeros(1, 64, 48, 1)
    image[0, 16:32, 12:36] = 1
    data = FitInPlaned(["image", "label"], size=32, mode=["bilinear", "nearest"])(
        {"image": image, "label": image.to(torch.uint8)}
    )
    assert torch.equal(data["label"] > 0, data["image"] > 0.5)
    assert int(data["label"].sum()) == 8 * 12


@pytest.mark.parametrize("size", [11, 28, 64])
def test_bicubic_is_pillows(size: int) -> None:
    image = volume(1, 28, 28, 1)[0, :, :, 0].numpy().astype(np.float32)
    expected = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    fitted = FitInPlane(size, mode="bicubic")(torch.from_numpy(image)[None, ..., None])
    np.testing.assert_allclose(fitted[0, :, :, 0], np.asarray(expected), atol=1e-4)


def test_the_inverse_of_bicubic_does_not_leave_the_range_of_a_map() -> None:
    fit = FitInPlane(32, mode="bicubic")
    fitted = fit(volume(1, 8, 8, 1))
    assert isinstance(fitted, MetaTensor)
    anomaly_map = MetaTensor(torch.zeros(1, 32, 32, 1)).copy_meta_from(fitted)
    anomaly_map[0, 12:20, 12:20] = 1
    restored = fit.inverse(anomaly_map)
    assert restored.shape == (1, 8, 8, 1)
    assert (float(restored.min()), float(restored.max())) == (0, 1)


@pytest.mark.parametrize("mode", ["trilinear", "", "nearest-exact"])
def test_unknown_modes_are_refused(mode: str) -> None:
    with pytest.raises(ValueError, match=r"one of \['bilinear', 'bicubic', 'nearest'\]"):
        FitInPlane(32, mode=mode)


def test_absent_keys_are_passed_over_only_where_allowed() -> None:
    item = {"image": torch.rand(1, 8, 8, 1)}
    allowed = FitInPlaned(["image", "label"], size=4, allow_missing_keys=True)(item)
    assert set(allowed) == {"image"}
    with pytest.raises(KeyError, match="label"):
        FitInPlaned(["image", "label"], size=4)(item)


# --- rectangles: rows first, as the axes of an image (C, H, W, 1) are

CORNERS = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
"""A pattern of 3 rows and 2 columns, no two of whose turns or reflections are alike."""


def blocks(rows: int, columns: int) -> MetaTensor:
    """:data:`CORNERS` with each value a block of pixels."""
    values = CORNERS.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    return MetaTensor(values[None, ..., None])


@pytest.mark.parametrize("size", [(96, 32), (36, 96), (60, 60)])
def test_rows_and_columns_stay_where_they_are_in_a_rectangle_and_on_the_way_back(
    size: tuple[int, int],
) -> None:
    image = blocks(20, 60)  # 60 rows, 120 columns
    transform = Compose([FitInPlaned("image", size=size, keep_aspect=False, mode="nearest")])
    data = transform({"image": image})
    fitted = plain(data["image"])
    assert fitted.shape == (1, *size, 1)
    middles = [round(size[0] * (2 * i + 1) / 6) for i in range(3)]
    assert torch.equal(fitted[0, middles][:, [size[1] // 4, 3 * size[1] // 4], 0], CORNERS)
    data["pred"] = data["image"].clone()
    back = Invertd("pred", transform, orig_keys="image", nearest_interp=True, to_tensor=True)
    assert torch.equal(plain(back(data)["pred"]), plain(image))


@pytest.mark.parametrize(
    ("shape", "place"),
    [
        ((40, 40), (slice(None), slice(16, 48))),  # the rows fill 32, and so do 32 of 64 columns
        ((20, 80), (slice(8, 24), slice(None))),
        ((20, 40), (slice(None), slice(None))),
    ],
)
def test_with_aspect_one_side_of_a_rectangle_is_filled(
    shape: tuple[int, int], place: tuple[slice, slice]
) -> None:
    fitted = plain(FitInPlane((32, 64))(volume(1, *shape, 2) + 1))
    assert fitted.shape == (1, 32, 64, 2)
    expected = torch.zeros(32, 64, dtype=torch.bool)
    expected[place] = True
    assert torch.equal(fitted[0, ..., 0] > 0, expected)


def test_a_volume_padded_to_a_rectangle_comes_back_to_its_own_grid() -> None:
    image = volume(1, 30, 44, 3, spacing=(2, 1, 3))  # 60 mm along X, 44 along Y
    transform = Compose([FitInPlaned("image", size=[48, 64])])
    data = transform({"image": image})
    assert data["image"].shape == (1, 48, 64, 3)
    data["pred"] = data["image"].clone()
    data["pred"][0, 22:27, 30:35, 1] = 7
    post = Invertd("pred", transform, orig_keys="image", nearest_interp=False, to_tensor=True)
    restored = post(data)["pred"]
    assert restored.shape == image.shape
    np.testing.assert_allclose(restored.affine, image.affine)
    # 1.25 mm a pixel: X fills 48, Y 35 of 64, after 14 of padding. Middles of pixels are at 0.5.
    middle = (plain(restored)[0] > 3.5).nonzero().double().mean(dim=0)
    expected = [24.5 * 1.25 / 2 - 0.5, (32.5 - 14) / 35 * 44 - 0.5, 1]
    np.testing.assert_allclose(middle, expected, atol=0.5)


@pytest.mark.parametrize("wrong", [0, [64], [64, 0], [64, 64, 64], "64", [64.0, 32]])
def test_a_size_is_one_or_two_positive_numbers(wrong: object) -> None:
    with pytest.raises(ValueError, match="positive number of pixels, got"):
        FitInPlane(wrong)


@pytest.mark.parametrize(
    ("shape", "told"), [((40, 100), False), ((40, 80), False), ((100, 40), True), ((40, 60), True)]
)
def test_an_image_of_a_shape_that_training_had_not_is_told_by_its_name(
    shape: tuple[int, int], told: bool
) -> None:
    image = MetaTensor(torch.rand(1, *shape, 1), meta={"filename_or_obj": "a.png"})
    fit = FitInPlane((32, 64), keep_aspect=False, aspects=(2.0, 2.2))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(image)
    assert [str(w.message).startswith("a.png: ") for w in caught] == [True] * told
