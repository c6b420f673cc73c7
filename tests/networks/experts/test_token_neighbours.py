"""Nearest tokens against scikit-learn."""

from __future__ import annotations

import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from multiad_med.networks.experts import TokenNeighbours
from multiad_med.networks.experts.token_neighbours import ROWS
from multiad_med.utils.errors import InputError

CHANNELS = (4, 6, 12)


def features(count: int, seed: int = 0) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    token = torch.randn(count, 12, 1, 1, generator=random) + 1
    return [torch.randn(count, 4, 8, 8), torch.randn(count, 6, 4, 4), token]


def fitted(*parts: list[Tensor]) -> TokenNeighbours:
    expert = TokenNeighbours(CHANNELS, stages=(3,))
    statistics = expert.statistics()
    for part in parts:
        statistics.update(part)
    expert.fit(statistics)
    return expert


@pytest.mark.parametrize("count", [2, 3, 300])
def test_distances_are_scikit_learns_means_of_two_cosines(count: int) -> None:
    normal, new = features(count), features(5, seed=4)
    nearest = NearestNeighbors(n_neighbors=2, metric="cosine").fit(normal[2].flatten(1).numpy())
    expected, _ = nearest.kneighbors(new[2].flatten(1).numpy())
    found = fitted(normal)(new)
    assert found.shape == (5, 1, 1, 1)
    torch.testing.assert_close(
        found.flatten(), torch.tensor(expected).mean(dim=1).float(), atol=1e-6, rtol=1e-5
    )


def test_few_normal_tokens_are_not_helped_by_empty_rows_of_the_bank() -> None:
    """Opposite tokens have distance 2, and an empty row would be nearer, at 1."""
    axis = torch.eye(12)[:1].reshape(1, 12, 1, 1)
    expert = fitted([*features(2)[:2], torch.cat([axis, axis])])
    assert expert([-axis, -axis, -axis]).item() == pytest.approx(2.0)
    assert expert([axis, axis, axis]).item() == 0.0


def test_length_does_not_count() -> None:
    expert, new = fitted(features(40)), features(3, seed=2)
    longer = [f * 37 for f in new]
    torch.testing.assert_close(expert(longer), expert(new), atol=1e-6, rtol=0)


def test_united_parts_keep_all_rows_and_measure_alike() -> None:
    a, b = features(10), features(15, seed=1)
    whole, united = fitted(a, b), TokenNeighbours(CHANNELS)
    ours, theirs = united.statistics(part=0), united.statistics(part=1)
    ours.update(a)
    theirs.update(b)
    united.fit(ours.merge(theirs.state()))
    new = features(6, seed=5)
    torch.testing.assert_close(united(new), whole(new))
    assert int((united.bank.abs().sum(dim=1) > 0).sum()) == 25


def test_of_many_images_the_bank_keeps_as_many_as_it_has_rows() -> None:
    expert = fitted(*(features(1000, seed=seed) for seed in range(3)))
    assert expert.bank.shape == (ROWS, 12)
    torch.testing.assert_close(expert.bank.norm(dim=1), torch.ones(ROWS))


def test_a_loaded_expert_measures_as_the_saved_one() -> None:
    expert, other = fitted(features(20)), TokenNeighbours(CHANNELS)
    other.load_state_dict(expert.state_dict())
    assert bool(other.fitted)
    new = features(2, seed=5)
    assert torch.equal(expert(new), other(new))


def test_one_image_and_features_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="at least 2 normal images, got 1"):
        fitted(features(1))
    with pytest.raises(InputError, match="at least 2 normal images, got 0"):
        fitted()
    bad = features(2)
    bad[2][0, 3] = torch.inf
    with pytest.raises(InputError, match="no numbers"):
        TokenNeighbours(CHANNELS).statistics().update(bad)
