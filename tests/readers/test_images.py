"""Images of every common kind become values in [0, 1]; masks become 0 and 1, or keep labels."""

from __future__ import annotations

import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import ExifTags, Image

from multiad_med.readers import ImageError, LoadImageMasks, LoadImages, LoadImagesd
from multiad_med.readers.image_file import image_size
from multiad_med.utils import FileError
from tests.readers.image_files import GREY, palette, upright, write

FIFTHS = np.arange(6).reshape(2, 3) / 5


RGB = np.stack([GREY, 255 - GREY, np.full_like(GREY, 51)], axis=-1)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
@pytest.mark.parametrize("orientation", [None, 1, 3, 5, 6, 8])
def test_the_size_of_a_file_is_that_of_what_is_read(
    tmp_path: Path, suffix: str, orientation: int | None
) -> None:
    image, exif = Image.fromarray(np.zeros((20, 30, 3), np.uint8)), Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"p{suffix}"
    image.save(path, **({} if suffix == ".bmp" else {"exif": exif}))
    assert image_size(path) == tuple(LoadImages()(path).shape[1:3])


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_eight_bits_become_0_to_1_upright(tmp_path: Path, suffix: str) -> None:
    result = LoadImages()(write(tmp_path / f"p{suffix}", GREY))
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result, upright(FIFTHS), atol=1e-7)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_become_0_to_1_by_their_own_range(tmp_path: Path, suffix: str) -> None:
    values = (FIFTHS * 65535).round().astype(np.uint16)
    values[0, 1] = 1  # finer than 8 bits can tell
    result = LoadImages()(write(tmp_path / f"p{suffix}", values))
    np.testing.assert_allclose(result, upright(values / 65535), rtol=1e-6)


def test_big_endian_tiff_is_the_same_image(tmp_path: Path) -> None:
    values = (FIFTHS * 65535).round().astype(np.uint16)
    image = Image.frombytes("I;16B", (3, 2), values.astype(">u2").tobytes())
    image.save(tmp_path / "p.tif")
    np.testing.assert_allclose(LoadImages()(tmp_path / "p.tif"), upright(FIFTHS), atol=1e-6)


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    bits = np.array([[True, False, True], [False, False, True]])
    path = write(tmp_path / "p.png", bits)
    assert Image.open(path).mode == "1"
    np.testing.assert_array_equal(LoadImages()(path), upright(bits))
    np.testing.assert_array_equal(LoadImageMasks()(path), upright(bits))


def test_colour_has_three_channels(tmp_path: Path) -> None:
    result = LoadImages()(write(tmp_path / "p.png", RGB))
    np.testing.assert_allclose(result, upright(RGB / 255), atol=1e-7)


@pytest.mark.parametrize("base", [GREY, RGB], ids=["grey", "colour"])
def test_transparency_is_dropped_not_blended(tmp_path: Path, base: np.ndarray) -> None:
    alpha = np.array([[0, 10, 100], [255, 255, 0]], np.uint8)
    path = write(tmp_path / "p.png", np.dstack([base, alpha]))
    assert Image.open(path).mode in ("LA", "RGBA")
    np.testing.assert_allclose(LoadImages()(path), upright(base / 255), atol=1e-7)


def test_palettes_are_resolved(tmp_path: Path) -> None:
    indices = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    colours = [(255, 0, 0), (0, 255, 51), (0, 0, 102)]
    path = palette(tmp_path / "p.png", indices, colours)
    expected = np.array(colours, float)[indices] / 255
    np.testing.assert_allclose(LoadImages()(path), upright(expected), atol=1e-7)


@pytest.mark.parametrize(("colour", "channels"), [(None, 1), (False, 1), (True, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_may_be_asked_for_as_colour(
    tmp_path: Path, colour: bool | None, channels: int, dtype: type
) -> None:
    values = (FIFTHS * np.iinfo(dtype).max).round().astype(dtype)
    result = LoadImages(colour=colour)(write(tmp_path / "p.png", values))
    np.testing.assert_allclose(result, np.repeat(upright(FIFTHS), channels, axis=0), atol=1e-6)


def test_colour_may_be_asked_for_as_grey(tmp_path: Path) -> None:
    even = np.repeat(GREY[..., None], 3, axis=-1)  # equal channels have their own value as luma
    result = LoadImages(colour=False)(write(tmp_path / "p.png", even))
    np.testing.assert_allclose(result, upright(FIFTHS), atol=1e-7)


def test_floating_point_images_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "p.tif", FIFTHS.astype(np.float32))
    with pytest.raises(ImageError, match=r"p\.tif: floating-point"):
        LoadImages()(path)


def test_several_images_are_slices_in_their_order(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.png", np.full((4, 6), i, np.uint8)) for i in (3, 1, 2)]
    result = LoadImages()(paths)
    assert result.shape == (1, 4, 6, 3)
    torch.testing.assert_close(result[0, 0, 0] * 255, torch.tensor([3.0, 1, 2]))


def test_the_first_image_decides_on_colour(tmp_path: Path) -> None:
    grey, colour = write(tmp_path / "g.png", GREY), write(tmp_path / "c.png", RGB)
    assert LoadImages()([grey, colour]).shape == (1, 2, 3, 2)
    both = LoadImages()([colour, grey])
    assert both.shape == (3, 2, 3, 2)
    np.testing.assert_allclose(both[..., 1:], np.repeat(upright(FIFTHS), 3, axis=0), atol=1e-7)


def test_slices_of_two_sizes_are_refused(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.png", GREY), write(tmp_path / "b.png", GREY.T.copy())
    with pytest.raises(ImageError, match=r"b\.png: 3x2\b.*\bslice\b.*\b2x3\b"):
        LoadImages()([first, second])
    with pytest.raises(ImageError, match=r"b\.png: 3x2\b.*\bmask\b.*\b2x3\b"):
        LoadImageMasks(stack=True)([first, second])


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(50)])
@pytest.mark.parametrize("load", [LoadImages(), LoadImageMasks()])
def test_what_is_no_image_is_refused_by_name(
    tmp_path: Path, load: LoadImages | LoadImageMasks, content: bytes
) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"x\.png: not a readable"):
        load(tmp_path / "x.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_truncated_images_are_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)
    path = write(tmp_path / f"p{suffix}", noise)
    content = path.read_bytes()
    for length in (10, len(content) // 3, len(content) // 2):
        path.write_bytes(content[:length])
        with pytest.raises(ImageError, match=rf"p\{suffix}: not a readable"):
            LoadImages()(path)


def test_absent_images_are_told(tmp_path: Path) -> None:
    for load in (LoadImages(), LoadImageMasks()):
        with pytest.raises(FileError, match=r"none\.png"):
            load(tmp_path / "none.png")


def test_dictionary_form_reads_each_key(tmp_path: Path) -> None:
    path = str(write(tmp_path / "p.png", GREY))
    data = LoadImagesd(["image", "prior"], colour=True)({"image": path, "prior": [path, path]})
    assert data["image"].shape == (3, 2, 3, 1)
    assert data["prior"].shape == (3, 2, 3, 2)


def test_several_pages_are_refused(tmp_path: Path) -> None:
    page = Image.new("L", (4, 4))
    page.save(tmp_path / "p.tif", save_all=True, append_images=[page])
    with pytest.raises(ImageError, match=r"p\.tif: 2 pages"):
        LoadImages()(tmp_path / "p.tif")


# By hand: 8 signed bits reach from -128 to 127, 16 from -32768 to 32767; the lowest is 0, the highest 1.
@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (np.int8, [-128, -1, 127], [0, 127 / 255, 1]),
        (np.int16, [-32768, -1, 32767], [0, 32767 / 65535, 1]),
        (np.int16, [0, 5, 300], [32768 / 65535, 32773 / 65535, 33068 / 65535]),
    ],
)
@pytest.mark.parametrize("colour", [False, True])
def test_signed_tiff_has_the_full_range_of_its_type(
    tmp_path: Path, dtype: type, values: list[int], expected: list[float], colour: bool
) -> None:
    tifffile.imwrite(tmp_path / "p.tif", np.array([values], dtype))
    result = LoadImages(colour=colour)(tmp_path / "p.tif")
    for channel in result[:, 0, :, 0]:
        np.testing.assert_allclose(channel, expected, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.float32])
@pytest.mark.parametrize("colour", [False, True])
def test_values_without_a_known_range_are_refused(
    tmp_path: Path, dtype: type, colour: bool
) -> None:
    tifffile.imwrite(tmp_path / "p.tif", np.array([[0, 1, 70000]], dtype))
    with pytest.raises(ImageError, match=r"p\.tif: (32-bit|floating-point)"):
        LoadImages(colour=colour)(tmp_path / "p.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16])
def test_white_is_zero_is_turned_round_at_any_depth(
    tmp_path: Path, dtype: type, compression: str | None
) -> None:
    top = 1 if dtype is bool else np.iinfo(dtype).max
    stored = np.array([[0, top, 0, top, 0, 0, top, top]]).astype(dtype)
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, stored, photometric="miniswhite", compression=compression)
    expected = upright(1.0 - stored.astype(float) / float(top))
    np.testing.assert_array_equal(LoadImages()(path), expected)
    np.testing.assert_array_equal(LoadImageMasks()(path), expected)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_ten_or_twelve_bits_in_sixteen_are_warned_of_once(
    tmp_path: Path, suffix: str, colour: bool
) -> None:
    values = np.array([[0, 1000, 4095]], np.uint16)
    for name in "ab":
        if suffix == ".tif" and colour:
            tifffile.imwrite(tmp_path / f"{name}.tif", np.dstack([values] * 3), photometric="rgb")
        else:
            write(tmp_path / f"{name}{suffix}", values)
    load = LoadImages(colour=colour)
    with pytest.warns(UserWarning, match=rf"a\{suffix}: 16 bits") as told:
        load([tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"])
    assert len(told) == 1
    write(tmp_path / "bright.png", values * np.uint16(16))  # the warning's own advice
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert LoadImages()(tmp_path / "bright.png").max() > 0.99


def test_a_dark_image_of_eight_bits_is_not_warned_of(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for suffix in (".png", ".bmp", ".tif"):
            write(
                tmp_path / f"dark{suffix}", np.arange(7680, dtype=np.uint8).reshape(16, 160, 3) % 4
            )
            LoadImages()(tmp_path / f"dark{suffix}")


@pytest.mark.slow
def test_images_of_any_size_are_read(tmp_path: Path) -> None:
    # More than Pillow's limit of 179 megapixels; one bit, so that the test needs little memory.
    Image.new("1", (8192, 30000), 1).save(tmp_path / "p.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert LoadImageMasks()(tmp_path / "p.png").shape == (1, 30000, 8192, 1)
    assert Image.MAX_IMAGE_PIXELS is not None  # of whoever else uses Pillow


def test_a_small_file_that_claims_a_huge_image_is_refused(tmp_path: Path) -> None:
    content = bytearray(write(tmp_path / "p.png", GREY).read_bytes())
    content[16:24] = (60000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "p.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"p\.png: .*\b60000x60000\b.*\b\d+ bytes"):
        LoadImages()(tmp_path / "p.png")


def test_a_telephones_jpeg_is_its_first_image(tmp_path: Path) -> None:
    first, preview = Image.new("L", (6, 4), 255), Image.new("L", (3, 2))
    first.save(tmp_path / "p.jpg", format="MPO", save_all=True, append_images=[preview])
    assert Image.open(tmp_path / "p.jpg").n_frames == 2
    assert LoadImages(colour=False)(tmp_path / "p.jpg").shape == (1, 4, 6, 1)
