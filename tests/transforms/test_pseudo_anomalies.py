"""Pseudo-anomalies lie inside the foreground, have their size, and change nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from multiad_med.transforms import PseudoAnomaly, put_pseudo_anomalies

SIDE = 100


def random_images(count: int = 3, channels: int = 3) -> tuple[Tensor, Tensor]:
    """Random grey images, and a foreground that is a band of 40 rows."""
    images = torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    foreground = torch.zeros(count, 1, SIDE, SIDE, dtype=torch.bool)
    foreground[..., 30:70, :] = True
    return images.expand(-1, channels, -1, -1), foreground


def put(
    kind: PseudoAnomaly, size: float, *, seed: int = 0, count: int = 3
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return put_pseudo_anomalies(*random_images(count), kind=kind, size=size, generator=generator)


@pytest.mark.slow
@pytest.mark.parametrize("size", [0.01, 0.02, 0.05, 0.1, 0.25])
@pytest.mark.parametrize("kind", PseudoAnomaly)
def test_masks_hold_all_that_changed_and_lie_inside_the_foreground(
    kind: PseudoAnomaly, size: float
) -> None:
    images, foreground = random_images()
    for seed in range(5):
        changed, masks = put(kind, size, seed=seed)
        assert not (masks & ~foreground).any()
        assert masks.flatten(1).any(dim=1).all()
        assert torch.equal((changed != images) & masks, changed != images)
        assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
        assert torch.equal(changed[:, 0], changed[:, 2])  # grey stays grey


@pytest.mark.slow
@pytest.mark.parametrize(("size", "side"), [(0.01, 1), (0.05, 5), (0.25, 25)])
@pytest.mark.parametrize("kind", PseudoAnomaly)
def test_no_anomaly_is_wider_than_its_size_and_whole_shapes_are_as_wide(
    kind: PseudoAnomaly, size: float, side: int
) -> None:
    widths = []
    for seed in range(10):
        for mask in put(kind, size, seed=seed)[1]:
            _, rows, columns = mask.nonzero().T
            widths += [int(axis.max() - axis.min()) + 1 for axis in (rows, columns)]
    assert max(widths) == side
    if kind is not PseudoAnomaly.PERLIN_BLEND:  # ragged
        assert sorted(widths)[len(widths) // 2] == side


@pytest.mark.parametrize("kind", PseudoAnomaly)
def test_the_generator_alone_decides(kind: PseudoAnomaly) -> None:
    torch.manual_seed(5)
    first = put(kind, 0.1)
    torch.manual_seed(6)
    again, other = put(kind, 0.1), put(kind, 0.1, seed=1)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


def test_foreign_content_is_of_the_next_image() -> None:
    images = torch.stack([torch.full((1, SIDE, SIDE), v) for v in (0.2, 0.9)])
    foreground = torch.ones_like(images, dtype=torch.bool)
    changed, masks = put_pseudo_anomalies(
        images,
        foreground,
        kind="foreign patch",
        size=0.1,
        generator=torch.Generator().manual_seed(0),
    )
    assert changed[0][masks[0]].unique().tolist() == pytest.approx([0.9])
    assert changed[1][masks[1]].unique().tolist() == pytest.approx([0.2])
    assert int(masks[0].sum()) == 100


def test_a_change_of_intensity_is_of_0_15_to_0_4_and_is_not_clipped_away() -> None:
    for value in (0.0, 0.5, 1.0):
        images = torch.full((20, 1, SIDE, SIDE), value)
        changed, masks = put_pseudo_anomalies(
            images,
            torch.ones_like(images),
            kind=PseudoAnomaly.INTENSITY,
            size=0.1,
            generator=torch.Generator().manual_seed(0),
        )
        strength = (changed - value).abs()[masks]
        assert 0.15 - 1e-6 <= float(strength.min()) <= float(strength.max()) <= 0.4 + 1e-6


def test_even_a_smear_of_one_pixel_takes_up_its_surroundings() -> None:
    images = torch.zeros(1, 1, 9, 9)
    images[..., 4, 4] = 1
    foreground = images > 0
    changed, masks = put_pseudo_anomalies(
        images, foreground, kind="blur", size=0.1, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(masks, foreground)
    # A Gaussian of 1 pixel has 0.15 to 0.16 of its mass on its middle pixel.
    assert 0.1 < float(changed[..., 4, 4]) < 0.2


def test_a_image_without_foreground_stays_and_a_lone_one_is_its_own_source() -> None:
    images, foreground = random_images(1)
    empty = torch.zeros_like(foreground)
    generator = torch.Generator().manual_seed(0)
    changed, masks = put_pseudo_anomalies(
        images, empty, kind="foreign patch", size=0.1, generator=generator
    )
    assert torch.equal(changed, images)
    assert not masks.any()
    changed, masks = put_pseudo_anomalies(
        images, foreground, kind="foreign patch", size=0.1, generator=generator
    )
    assert (changed != images).any()


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [("rust", 0.1, "kind is one of"), ("blur", 0, "size must lie in"), ("blur", 1.1, "size must")],
)
def test_what_does_not_exist_is_refused(kind: str, size: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        put(kind, size)  # type: ignore[arg-type]


def test_a_foreground_of_another_shape_is_refused() -> None:
    images, foreground = random_images()
    with pytest.raises(ValueError, match=r"foreground \(B, 1, H, W\)"):
        put_pseudo_anomalies(
            images, foreground[:2], kind="blur", size=0.1, generator=torch.Generator()
        )
