"""Tiles of training are the windows of inference."""

from __future__ import annotations

import pytest
import torch

from multiad_med.inference.axial_inferer import AxialInferer
from multiad_med.testing.networks import tiny_multiad
from multiad_med.transforms import MarkOccupiedd, Tiles, Tilesd
from multiad_med.utils.errors import InputError


def random_image(height: int, width: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(channels, height, width, 1, generator=generator)


@pytest.mark.parametrize("shape", [(32, 32), (33, 64), (100, 70), (20, 90), (10, 12)])
def test_training_sees_the_very_windows_that_inference_looks_at(shape: tuple[int, int]) -> None:
    image, windows = random_image(*shape), []

    def network(x: torch.Tensor) -> torch.Tensor:
        windows.append(x)
        return x[:, :1].clone()  # which MONAI weights in place

    result = AxialInferer(tile=32)(image[None], network)
    tiles = Tiles(32)(image)
    assert torch.equal(torch.cat(windows), tiles.permute(3, 0, 1, 2))
    # A network that returns its input shows that every tile is put where it came from.
    torch.testing.assert_close(result[0], image[:1])


@pytest.mark.parametrize("shape", [(48, 32), (33, 64), (100, 70), (20, 90)])
def test_rectangular_tiles_are_the_windows_of_inference_too(shape: tuple[int, int]) -> None:
    image, windows = random_image(*shape), []

    def network(x: torch.Tensor) -> torch.Tensor:
        windows.append(x)
        return x[:, :1].clone()

    result = AxialInferer(tile=[48, 32])(image[None], network)
    tiles = Tiles([48, 32])(image)
    assert tiles.shape[1:3] == (48, 32)
    assert torch.equal(torch.cat(windows), tiles.permute(3, 0, 1, 2))
    torch.testing.assert_close(result[0], image[:1])


def test_the_map_of_exactly_one_tile_is_the_map_without_tiles() -> None:
    torch.manual_seed(0)
    network = tiny_multiad().eval()
    image = random_image(64, 64)[None]
    with torch.no_grad():
        whole, tiled = (AxialInferer(tile=tile)(image, network) for tile in (None, 64))
    torch.testing.assert_close(tiled, whole)
    assert whole.std() > 0


def test_edges_of_tiles_do_not_show() -> None:
    """Tiles whose maps are constants between 0 and 1 are blended without steps."""
    generator = torch.Generator().manual_seed(0)

    def network(x: torch.Tensor) -> torch.Tensor:
        values = torch.rand(len(x), 1, 1, 1, generator=generator)
        return values.expand(len(x), 1, *x.shape[2:]).clone()

    blended = AxialInferer(tile=128)(torch.zeros(1, 3, 512, 512, 1), network)
    steps = [blended[0, 0, :, :, 0].diff(dim=dim).abs().max() for dim in (0, 1)]
    # Over an overlap of 32 pixels no blending has steps below 1/32; MONAI's default has 0.35.
    assert max(float(step) for step in steps) < 0.08


def test_tiles_by_hand() -> None:
    image = torch.arange(35.0).view(1, 5, 7, 1)
    tiles = Tiles(4)(image)  # steps of 3: rows from 0 and 1, columns from 0 and 3
    assert tiles.shape == (1, 4, 4, 4)
    assert tiles[0, 0, 0].tolist() == [0, 3, 7, 10]


def test_images_are_padded_by_their_border_and_masks_by_nothing() -> None:
    item = {"image": torch.full((3, 2, 4, 1), 0.5), "label": torch.ones(1, 2, 4, 1)}
    result = Tilesd(["image", "label"], tile=4, mode=["edge", "constant"])(item)
    assert result["image"].unique().tolist() == [0.5]
    assert result["label"][0, :, 0, 0].tolist() == [0, 1, 1, 0]


def test_volumes_and_impossible_tiles_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(C, H, W, 1\).*\(1, 8, 8, 2\)"):
        Tiles(4)(torch.zeros(1, 8, 8, 2))
    with pytest.raises(ValueError, match="positive number of pixels, got 0"):
        Tiles(0)


def test_slices_that_do_not_count_are_not_mapped_whatever_their_values() -> None:
    seen: list[int] = []

    def network(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return x[:, :1] + 1

    image = torch.zeros(1, 8, 8, 3)  # black, as fat is below a window
    foreground = torch.ones(1, 8, 8, 3)
    foreground[..., 0] = 0
    marked = MarkOccupiedd("image")({"image": image, "foreground": foreground})["image"]
    result = AxialInferer()(marked[None], network)
    assert result[0, 0, 0, 0].tolist() == [0, 1, 1]
    assert sum(seen) == 2
    assert AxialInferer()(image[None], network).unique().tolist() == [1]


def test_a_study_in_which_no_slice_counts_is_refused() -> None:
    with pytest.raises(InputError, match="No slice of the study has foreground"):
        MarkOccupiedd("image")(
            {"image": torch.ones(1, 4, 4, 2), "foreground": torch.zeros(1, 4, 4, 2)}
        )
