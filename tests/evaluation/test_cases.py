"""Cases: what belongs together is checked, and slices find their places in the volume."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from multiad_med.evaluation import Case
from multiad_med.testing.slice_caches import SIZE, volume_case


def _fields(case: Case) -> dict[str, object]:
    return {name: getattr(case, name) for name in Case.__dataclass_fields__ if name != "masked"}


def test_slices_are_put_at_their_numbers_and_missing_ones_are_zero() -> None:
    case = volume_case("a", lesion=True)
    numbers = torch.tensor([3, 4, 5, 6, 7, 9])
    volume = Case(**{**_fields(case), "numbers": numbers}).volume("anomaly_map")  # type: ignore[arg-type]
    assert volume.shape == (SIZE, SIZE, 7)
    torch.testing.assert_close(volume[..., 0], case.anomaly_map[0])
    torch.testing.assert_close(volume[..., 6], case.anomaly_map[5])
    assert not volume[..., 5].any()


def test_an_abnormal_slice_without_mask_has_no_known_pixels() -> None:
    case = volume_case("a", lesion=True)
    abnormal = case.abnormal.clone()
    abnormal[0] = True
    changed = Case(**{**_fields(case), "abnormal": abnormal})  # type: ignore[arg-type]
    assert changed.masked.tolist() == [False, True, True, True, True, True]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("label", torch.zeros(6, SIZE, SIZE + 1), r"label.*\(6, 32, 33\)"),
        ("foreground", torch.ones(5, SIZE, SIZE), r"foreground.*\(5, 32, 32\)"),
        ("scores", torch.zeros(5), r"scores.*\(5,\).*\(6,\)"),
        ("anomaly_map", torch.zeros(0, SIZE, SIZE), "at least one slice"),
        ("anomaly_map", torch.full((6, SIZE, SIZE), torch.nan), "6144 values of anomaly_map.*NaN"),
        ("scores", torch.tensor([0, 1, 2, 3, 4, torch.inf]), "1 values of scores.*infinite"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(name: str, value: torch.Tensor, message: str) -> None:
    case = volume_case("brain7", lesion=True)
    with pytest.raises(ValueError, match=f"brain7: .*{message}"):
        Case(**{**_fields(case), name: value})  # type: ignore[arg-type]


def test_score_of_a_study_is_its_highest_slice() -> None:
    case = volume_case("a", lesion=True)
    assert case.score == pytest.approx(0.8)
    assert case.anomalous
    assert not volume_case("b", lesion=False).anomalous
    assert replace(case, scores=torch.arange(6.0)).score == 5
