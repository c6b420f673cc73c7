"""States of slices by hand, and which slices of a study are kept."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor

from multiad_med.transforms import KeepSlicesd, SliceLabels, SliceLabelsd, SliceState

UNSURE, NORMAL, ABNORMAL = int(SliceState.UNSURE), int(SliceState.NORMAL), int(SliceState.ABNORMAL)


def lesions(*areas: int, value: int = 1) -> torch.Tensor:
    """A mask of 10 x 10 pixels whose slices have lesions of these areas in pixels."""
    mask = torch.zeros(1, 10, 10, len(areas))
    for index, area in enumerate(areas):
        mask[0, :, :, index].view(-1)[:area] = value
    return mask


def spaced(volume: torch.Tensor, *spacing: float) -> MetaTensor:
    return MetaTensor(volume, affine=torch.diag(torch.tensor([*spacing, 1], dtype=torch.float64)))


def test_any_lesion_is_abnormal_by_default() -> None:
    states = SliceLabels()(lesions(0, 1, 100))
    assert states.dtype == torch.int8
    assert states.tolist() == [NORMAL, ABNORMAL, ABNORMAL]


def test_smallest_area_is_in_square_millimetres_of_the_slice() -> None:
    # A pixel is 0.5 x 2 = 1 mm² whatever the slice distance; turned, or finer, it is not.
    mask = lesions(0, 4, 5, 6)
    rule = SliceLabels(min_area=5)
    assert rule(spaced(mask, 0.5, 2, 7)).tolist() == [NORMAL, UNSURE, ABNORMAL, ABNORMAL]
    assert rule(spaced(mask, 0.5, 1, 7)).tolist() == [NORMAL, UNSURE, UNSURE, UNSURE]
    assert rule(spaced(mask, 2, 2, 0.1)).tolist() == [NORMAL, ABNORMAL, ABNORMAL, ABNORMAL]
    assert rule(mask).tolist() == [NORMAL, UNSURE, ABNORMAL, ABNORMAL]


def test_normals_near_an_abnormal_slice_are_unsure() -> None:
    mask = lesions(0, 0, 0, 9, 0, 0, 0, 0)
    expected = {
        0: [0, 0, 0, 1, 0, 0, 0, 0],
        1: [0, 0, -1, 1, -1, 0, 0, 0],
        2: [0, -1, -1, 1, -1, -1, 0, 0],
        20: [-1, -1, -1, 1, -1, -1, -1, -1],
    }
    for margin, states in expected.items():
        assert SliceLabels(margin=margin)(mask).tolist() == states


def test_a_lesion_too_small_to_count_makes_no_neighbour_unsure() -> None:
    assert SliceLabels(min_area=5, margin=1)(lesions(0, 2, 0, 7)).tolist() == [0, -1, -1, 1]


def test_abnormal_slices_side_by_side_stay_abnormal() -> None:
    assert SliceLabels(margin=1)(lesions(0, 3, 3, 0)).tolist() == [-1, 1, 1, -1]


def test_only_the_labels_of_a_lesion_count() -> None:
    liver_and_tumour = lesions(50, 50, 0) + lesions(0, 10, 0)  # the tumour is 2
    assert SliceLabels(labels=[2])(liver_and_tumour).tolist() == [0, 1, 0]
    assert SliceLabels(labels=[1, 2])(liver_and_tumour).tolist() == [1, 1, 0]
    assert SliceLabels(labels=[3])(liver_and_tumour).tolist() == [0, 0, 0]
    assert SliceLabels()(liver_and_tumour).tolist() == [1, 1, 0]


@pytest.mark.parametrize("kwargs", [{"min_area": -1}, {"margin": -1}])
def test_negative_thresholds_are_refused(kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        SliceLabels(**kwargs)


@given(
    areas=st.lists(st.integers(0, 12), min_size=1, max_size=9),
    min_area=st.integers(0, 10),
    margin=st.integers(0, 4),
)
def test_states_equal_the_definition(areas: list[int], min_area: int, margin: int) -> None:
    counts = [area > 0 and area >= min_area for area in areas]
    expected = []
    for z, area in enumerate(areas):
        near = any(counts[max(0, z - margin) : z + margin + 1])
        expected.append(1 if counts[z] else -1 if area > 0 or near else 0)
    assert SliceLabels(min_area=min_area, margin=margin)(lesions(*areas)).tolist() == expected


def test_dictionary_form_adds_states_and_makes_the_mask_binary() -> None:
    mask = spaced(lesions(0, 4, value=1) + lesions(0, 0) + lesions(0, 2, value=1), 1, 1, 5)
    data = {"image": torch.zeros(1, 10, 10, 2), "label": mask}
    result = SliceLabelsd("label", labels=[2], min_area=2)(data)
    assert result["state"].tolist() == [0, 1]
    assert result["label"].dtype == torch.uint8
    assert int(result["label"].sum()) == 2
    assert float(result["label"].affine[2, 2]) == 5
    assert float(data["label"].max()) == 2


@pytest.mark.parametrize(
    ("depth", "anomalous", "state"),
    [
        (3, None, NORMAL),
        (3, False, NORMAL),
        (3, True, UNSURE),  # some slice is abnormal, but nobody says which
        (1, None, NORMAL),
        (1, False, NORMAL),
        (1, True, ABNORMAL),
    ],
)
def test_without_a_mask_the_item_decides(depth: int, anomalous: bool | None, state: int) -> None:
    item: dict[Hashable, Any] = {"image": torch.zeros(1, 4, 4, depth)}
    if anomalous is not None:
        item["anomalous"] = anomalous
    result = SliceLabelsd("label")(item)
    assert result["state"].tolist() == [state] * depth
    assert result["state"].dtype == torch.int8


def test_a_mask_counts_more_than_the_word_for_a_whole_volume() -> None:
    item = {"image": torch.zeros(1, 10, 10, 3), "label": lesions(0, 5, 0), "anomalous": True}
    assert SliceLabelsd("label")(item)["state"].tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("area", "anomalous", "state"),
    [(0, True, 1), (2, True, 1), (9, True, 1), (9, False, 1), (0, False, 0)],
)
def test_a_single_image_is_abnormal_where_its_item_says_so(
    area: int, anomalous: bool, state: int
) -> None:
    item = {"image": torch.zeros(1, 10, 10, 1), "label": lesions(area), "anomalous": anomalous}
    assert SliceLabelsd("label", min_area=5)(item)["state"].tolist() == [state]


def study(**more: Any) -> dict[Hashable, Any]:
    """Six slices, numbered by their values; of states N A N U N N, the first hardly occupied."""
    image = torch.arange(6.0).expand(1, 10, 10, 6).contiguous()
    return {
        "image": spaced(image, 1, 2, 3),
        "foreground": lesions(1, 50, 60, 60, 60, 0).to(torch.uint8),
        "state": torch.tensor([0, 1, 0, -1, 0, 0], dtype=torch.int8),
        **more,
    }


def numbers(result: dict) -> list[int]:
    """The kept slices, checked to be the same in every key."""
    kept = result["slices"].tolist()
    assert torch.as_tensor(result["image"])[0, 3, 4].tolist() == kept
    states = [0, 1, 0, -1, 0, 0]
    assert result["state"].tolist() == [states[z] for z in kept]
    return kept


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        ({}, [1, 2, 3, 4]),
        ({"split": "test"}, [1, 2, 3, 4]),
        ({"split": "validation"}, [1, 2, 3, 4]),
        ({"split": "training"}, [2, 4]),
        ({"normal_only": True}, [2, 4]),
        ({"normal_only": True, "split": "test"}, [2, 4]),
        ({"wanted_slices": [0, 1, 4, 99]}, [1, 4]),
        ({"wanted_slices": [0, 1, 4], "split": "training"}, [4]),
        ({"wanted_slices": []}, []),
    ],
)
def test_slices_are_kept_by_foreground_and_split(more: dict[str, Any], kept: list[int]) -> None:
    assert numbers(KeepSlicesd("image")(study(**more))) == kept


def test_split_rule_and_fraction_are_options() -> None:
    keep = KeepSlicesd("image", normal_splits=["training", "validation"], min_fraction=0)
    assert numbers(keep(study(split="validation"))) == [0, 2, 4]
    keep = KeepSlicesd("image", normal_splits=[])
    assert numbers(keep(study(split="training"))) == [1, 2, 3, 4]
    # 50 of 60 pixels are 0.83 of the largest area.
    assert numbers(KeepSlicesd("image", min_fraction=0.9)(study())) == [2, 3, 4]


def test_without_foreground_every_slice_counts_as_occupied() -> None:
    data = study()
    del data["foreground"]
    assert numbers(KeepSlicesd("image")(data)) == [0, 1, 2, 3, 4, 5]


def test_every_key_is_cut_and_absent_ones_are_passed_over() -> None:
    keep = KeepSlicesd(["image", "foreground", "label"], slice_key="z")
    data = study()
    result = keep(data)
    assert set(result) == {*data, "z"}
    assert result["foreground"].shape == (1, 10, 10, 4)
    assert result["foreground"].sum(dim=(0, 1, 2)).tolist() == [50, 60, 60, 60]
    assert torch.as_tensor(data["image"]).shape[-1] == 6


def test_affine_and_file_name_stay() -> None:
    data = study()
    data["image"].meta["filename_or_obj"] = "ct.nii"
    image = KeepSlicesd("image")(data)["image"]
    assert isinstance(image, MetaTensor)
    np.testing.assert_allclose(image.affine, np.diag([1, 2, 3, 1]))
    assert image.meta["filename_or_obj"] == "ct.nii"


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_result_does_not_depend_on_the_memorys_order(order: str, dtype: str) -> None:
    volume = np.random.default_rng(0).integers(-999, 999, (2, 5, 7, 6)).astype(dtype)
    data = study(image=torch.from_numpy(np.array(volume, order=order)))  # type: ignore[call-overload]
    result = KeepSlicesd("image")(data)["image"]
    assert result.dtype == data["image"].dtype
    np.testing.assert_array_equal(result, volume[..., 1:5])


def test_a_study_may_keep_nothing() -> None:
    result = KeepSlicesd(["image", "foreground"])(study(foreground=lesions(0, 0, 0, 0, 0, 0)))
    assert numbers(result) == []
    assert result["image"].shape == (1, 10, 10, 0)
