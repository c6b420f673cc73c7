"""Images of one thing in different light become one image."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from multiad_med.transforms import NormaliseBrightness, NormaliseBrightnessd


def image_of(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows)[None, ..., None]


def test_the_median_becomes_0_7_and_the_rest_follows_up_to_1() -> None:
    result = NormaliseBrightness()(image_of([0.1, 0.2, 0.35], [0.4, 0.35, 0.9]))
    torch.testing.assert_close(result, image_of([0.2, 0.4, 0.7], [0.8, 0.7, 1.0]))


def test_light_no_longer_tells_images_apart() -> None:
    image = torch.rand(3, 8, 9, 1, generator=torch.Generator().manual_seed(0)) * 0.5
    torch.testing.assert_close(
        NormaliseBrightness(median=0.4)(0.6 * image), NormaliseBrightness(median=0.4)(image)
    )


def test_colours_are_kept() -> None:
    colour = torch.tensor([0.2, 0.3, 0.1]).view(3, 1, 1, 1).expand(3, 4, 4, 1)
    result = NormaliseBrightness(median=0.4)(colour)
    torch.testing.assert_close(result, 2 * colour)  # grey 0.2 becomes 0.4


def test_the_median_is_of_the_foreground_where_there_is_one() -> None:
    image, mask = image_of([0.0, 0.0, 0.0, 0.14]), image_of([0.0, 0.0, 0.0, 1.0])
    items = [{"image": image, "foreground": mask}, {"image": image_of([0.14])}]
    assert [
        float(NormaliseBrightnessd("image")(item)["image"].max()) for item in items
    ] == pytest.approx([0.7, 0.7])


def test_a_image_that_is_mostly_black_stays() -> None:
    image = image_of([0.0, 0.0, 0.0, 0.5])
    assert torch.equal(NormaliseBrightness()(image), image)


def test_the_file_is_still_known_afterwards() -> None:
    image = MetaTensor(image_of([0.5]), meta={"filename_or_obj": "a.png"})
    assert NormaliseBrightness()(image).meta["filename_or_obj"] == "a.png"


@pytest.mark.parametrize("median", [0, -1, 1.5])
def test_impossible_medians_are_refused(median: float) -> None:
    with pytest.raises(ValueError, match=r"median must lie in \(0, 1\]"):
        NormaliseBrightness(median=median)
