"""Masks of every common kind of image become 0 and 1, or keep their labels."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multiad_med.readers import ImageError, LoadImageMasks, LoadImageMasksd, LoadImages
from tests.readers.image_files import GREY, palette, upright, write


def test_a_mask_is_where_any_value_is_above_0(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2], [128, 255, 0]], np.uint8)
    expected = upright(np.greater(values, 0))
    one_channel = np.zeros((2, 3, 3), np.uint8)
    one_channel[..., 2] = values  # luma of blue 1 is 0
    masks = {
        "grey": write(tmp_path / "g.png", values),
        "colour": write(tmp_path / "c.png", one_channel),
        "deep": write(tmp_path / "d.png", values.astype(np.uint16)),
        "palette": palette(
            tmp_path / "p.png", (values > 0).astype(np.uint8), [(0, 0, 0), (0, 0, 1)]
        ),
    }
    for kind, path in masks.items():
        mask = LoadImageMasks()(path)
        assert mask.dtype == torch.uint8, kind
        np.testing.assert_array_equal(mask, expected, err_msg=kind)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG"])
def test_jpeg_masks_are_above_half_since_their_blacks_are_not_exact(
    tmp_path: Path, suffix: str
) -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[5:19, 8:23] = 255
    path = tmp_path / f"m{suffix}"
    Image.fromarray(mask).save(path, format="JPEG", quality=60)
    stored = np.asarray(Image.open(path))
    assert ((stored > 0) != (mask > 0)).any()  # the encoder left grey specks
    np.testing.assert_array_equal(LoadImageMasks()(path), upright(mask > 0))


def test_parts_of_a_mask_are_united(tmp_path: Path) -> None:
    parts = np.zeros((3, 4, 5), np.uint8)
    parts[0, 0, 0], parts[1, 1, 1], parts[2, 1, 1:3] = 255, 7, 9
    paths = [write(tmp_path / f"{i}.png", part) for i, part in enumerate(parts)]
    united = LoadImageMasks()(paths)
    np.testing.assert_array_equal(united, upright(parts.any(axis=0)))
    stacked = LoadImageMasks(stack=True)(paths)
    np.testing.assert_array_equal(stacked[0], np.moveaxis(parts > 0, 0, -1))


def test_labels_are_kept_where_asked_for(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2], [3, 128, 255]], np.uint8)
    keep = LoadImageMasks(stack=True, keep_values=True)
    colours = [(9, 9, 9), (0, 0, 0), (255, 255, 255), (1, 2, 3)]
    small = labels.clip(0, 3)
    even = np.repeat(labels[..., None], 3, axis=-1)
    for path, expected in [
        (write(tmp_path / "g.png", labels), labels),
        (write(tmp_path / "d.png", labels.astype(np.uint16)), labels),
        (write(tmp_path / "c.png", even), labels),
        (palette(tmp_path / "p.png", small, colours), small),
    ]:
        result = keep(path)
        assert result.dtype == torch.uint8
        np.testing.assert_array_equal(result, upright(expected))


def test_labels_that_no_byte_holds_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.png", np.array([[0, 256]], np.uint16))
    with pytest.raises(ImageError, match=r"m\.png: .*256"):
        LoadImageMasks(keep_values=True)(path)
    assert LoadImageMasks()(path).flatten().tolist() == [0, 1]


def test_a_mask_must_have_its_images_size(tmp_path: Path) -> None:
    image = LoadImages()(write(tmp_path / "p.png", GREY))
    good = str(write(tmp_path / "good.png", GREY))
    bad = str(write(tmp_path / "bad.png", GREY[:, :2].copy()))
    load = LoadImageMasksd("label")
    data = load({"image": image, "label": [good]})
    np.testing.assert_array_equal(data["label"], upright(GREY > 0))
    with pytest.raises(ImageError, match=r"bad\.png: .*mask.*\(2, 2, 1\).*\(2, 3, 1\)"):
        load({"image": image, "label": bad})
    with pytest.raises(ImageError, match=r"good\.png: .*\(2, 3, 2\).*\(2, 3, 1\)"):
        LoadImageMasksd("label", stack=True)({"image": image, "label": [good, good]})
    assert set(load({"image": image})) == {"image"}


MASK = np.zeros((16, 16), bool)
MASK[4:9, 5:12] = True
ONE = MASK.astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("zero_one.png", ONE),
        ("zero_255.png", ONE * 255),
        ("bool.png", MASK),
        ("sixteen_bits.png", ONE.astype(np.uint16) * 65535),
        ("sixteen_bits_one.tif", ONE.astype(np.uint16)),
        ("int32.tif", ONE.astype(np.int32)),
        ("float.tif", ONE.astype(np.float32)),
        ("red.png", np.dstack([ONE * 255, ONE * 0, ONE * 0])),
        ("dark_blue.png", np.dstack([ONE * 0, ONE * 0, ONE])),
        ("rgba_opaque.png", np.dstack([ONE * 255, ONE * 0, ONE * 0, ONE * 0 + 255])),
        ("rgba_painted.png", np.dstack([ONE * 0 + 255] * 3 + [ONE * 200])),
        ("grey_alpha.png", np.dstack([ONE * 0 + 255, ONE * 255])),
        ("soft.jpg", ONE * 255),
        ("soft_grey.jpg", ONE * 128),
    ],
)
def test_masks_of_any_usual_encoding_mark_the_same(
    tmp_path: Path, name: str, stored: np.ndarray
) -> None:
    path = write(tmp_path / name, stored)
    np.testing.assert_array_equal(LoadImageMasks()(path), upright(MASK))


def test_an_empty_jpeg_mask_stays_empty_in_spite_of_its_noise(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 20, (32, 32)).astype(np.uint8)
    assert not LoadImageMasks()(write(tmp_path / "m.jpg", noise)).any()


@pytest.mark.parametrize(("value", "what"), [(0, "nothing"), (255, "everything")])
def test_an_empty_or_full_mask_of_an_anomalous_image_is_told(
    tmp_path: Path, value: int, what: str
) -> None:
    image = LoadImages()(write(tmp_path / "p.png", GREY))
    mask = str(write(tmp_path / "m.png", np.full_like(GREY, value)))
    load = LoadImageMasksd("label")
    with pytest.warns(UserWarning, match=rf"m\.png: .*mask.*{what}"):
        load({"image": image, "label": mask, "anomalous": True})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load({"image": image, "label": mask, "anomalous": False})
