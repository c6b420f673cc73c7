"""Slices are axial whatever the axes of the file; neighbours are what lies above and below."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor

from multiad_med.transforms import AxialSlices, AxialSlicesd, NeighbourSlices, NeighbourSlicesd
from tests.transforms.test_geometry import OBLIQUE, ORIENTATIONS, reoriented

AFFINE = np.diag([1.5, 0.8, 4.0, 1.0])


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    """A volume in which no two voxels are equal."""
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def loaded(image: nib.Nifti1Image) -> MetaTensor:
    array = np.asarray(image.dataobj)
    return MetaTensor(torch.from_numpy(array.copy())[None], affine=torch.from_numpy(image.affine))


@pytest.mark.slow
@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_slices_and_affine_are_those_of_the_ras_volume(axcodes: str, affine: np.ndarray) -> None:
    image = nib.Nifti1Image(numbered((4, 5, 3)), affine)
    data = AxialSlicesd("image")({"image": loaded(reoriented(image, axcodes))})
    expected = np.moveaxis(numbered((4, 5, 3)), -1, 0)[:, None]
    np.testing.assert_array_equal(data["image"], expected)
    np.testing.assert_allclose(data["affine"], affine, atol=1e-6)


def test_channels_stay_and_slices_come_in_front() -> None:
    volume = torch.from_numpy(numbered((2, 4, 5, 3)))
    slices = AxialSlices()(volume)
    assert slices.shape == (3, 2, 4, 5)
    for z in range(3):
        assert torch.equal(slices[z], volume[..., z])


def test_b_scans_are_not_turned() -> None:
    image = reoriented(nib.Nifti1Image(numbered((4, 5, 3)), AFFINE), "LPS")
    data = AxialSlicesd("image", orient=False)({"image": loaded(image)})
    np.testing.assert_array_equal(
        data["image"], np.moveaxis(np.asarray(image.dataobj), -1, 0)[:, None]
    )
    np.testing.assert_allclose(data["affine"], image.affine)


def test_result_carries_no_metadata_that_no_longer_holds() -> None:
    slices = AxialSlices()(loaded(nib.Nifti1Image(numbered((4, 5, 3)), AFFINE)))
    assert not isinstance(slices, MetaTensor)


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5), (1, 1, 4, 5, 3)])
def test_what_is_no_volume_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(C, X, Y, Z\), got"):
        AxialSlices()(torch.zeros(shape))


def test_affine_is_the_first_volumes_and_masks_follow_their_image() -> None:
    image = reoriented(nib.Nifti1Image(numbered((4, 5, 3)), AFFINE), "PIR")
    label = reoriented(nib.Nifti1Image(numbered((4, 5, 3)) % 2, AFFINE), "PIR")
    transform = AxialSlicesd(["image", "label"], affine_key="where")
    data = transform({"image": loaded(image), "label": loaded(label)})
    np.testing.assert_array_equal(data["label"], data["image"] % 2)
    np.testing.assert_allclose(data["where"], AFFINE, atol=1e-6)


def test_absent_keys_are_passed_over_only_where_allowed() -> None:
    item = {"image": torch.zeros(1, 4, 5, 3)}
    allowed = AxialSlicesd(["image", "label"], allow_missing_keys=True)(item)
    assert set(allowed) == {"image"}  # a plain tensor has no affine either
    with pytest.raises(KeyError, match="label"):
        AxialSlicesd(["image", "label"])(item)


def test_neighbours_repeat_the_last_slice_at_the_ends() -> None:
    volume = torch.arange(4.0).reshape(1, 1, 1, 4)
    below, here, above = NeighbourSlices()(volume)[:, 0, 0].tolist()
    assert below == [0, 0, 1, 2]
    assert here == [0, 1, 2, 3]
    assert above == [1, 2, 3, 3]


def test_neighbours_lie_one_step_apart() -> None:
    volume = torch.arange(6.0).reshape(1, 1, 1, 6)
    assert NeighbourSlices(5, step=2)(volume)[:, 0, 0].tolist() == [
        [0, 0, 0, 0, 0, 1],
        [0, 0, 0, 1, 2, 3],
        [0, 1, 2, 3, 4, 5],
        [2, 3, 4, 5, 5, 5],
        [4, 5, 5, 5, 5, 5],
    ]


@given(
    depth=st.integers(1, 9),
    count=st.sampled_from([1, 3, 5, 7]),
    step=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_neighbours_equal_a_loop(depth: int, count: int, step: int, seed: int) -> None:
    volume = torch.rand(1, 3, 2, depth, generator=torch.Generator().manual_seed(seed))
    result = NeighbourSlices(count, step=step)(volume)
    assert result.shape == (count, 3, 2, depth)
    for channel in range(count):
        for z in range(depth):
            source = min(max(z + (channel - count // 2) * step, 0), depth - 1)
            assert torch.equal(result[channel, ..., z], volume[0, ..., source])


@pytest.mark.parametrize(
    ("count", "step", "message"),
    [(0, 1, "odd"), (2, 1, "odd"), (-1, 1, "odd"), (3, 0, "at least one slice")],
)
def test_impossible_neighbours_are_refused(count: int, step: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NeighbourSlices(count, step=step)


@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (4, 4, 3)])
def test_neighbours_are_taken_from_one_channel_only(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"from a volume \(1, X, Y, Z\)"):
        NeighbourSlices()(torch.zeros(shape))


def test_neighbours_keep_affine_and_type() -> None:
    volume = MetaTensor(torch.ones(1, 4, 4, 3, dtype=torch.uint8), affine=torch.from_numpy(AFFINE))
    result = NeighbourSlices()(volume)
    assert isinstance(result, MetaTensor)
    assert result.dtype == torch.uint8
    np.testing.assert_allclose(result.affine, AFFINE)


def test_neighbours_dictionary_form_takes_each_key() -> None:
    data = {"a": torch.rand(1, 2, 2, 4), "b": torch.rand(1, 2, 2, 5), "c": torch.rand(1, 2, 2, 6)}
    result = NeighbourSlicesd(["a", "b"], count=5, step=2)(data)
    for key in ("a", "b"):
        assert torch.equal(result[key], NeighbourSlices(5, step=2)(data[key]))
    assert torch.equal(result["c"], data["c"])
