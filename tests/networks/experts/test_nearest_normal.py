"""Nearest neighbours against scikit-learn, and the coreset and sample that they are."""

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from multiad_med.networks.experts import NearestNormal, Reservoir
from multiad_med.networks.experts.nearest_normal import greedy_coreset, patches
from multiad_med.utils.errors import InputError

CHANNELS = (4, 40, 60)


def features(count, seed=0):
    random = torch.Generator().manual_seed(seed)
    sizes = (32, 16, 8)
    return [
        torch.randn(count, c, s, s, generator=random) for c, s in zip(CHANNELS, sizes, strict=True)
    ]


def fitted(normal, foreground=None):
    expert = NearestNormal(CHANNELS)
    statistics = expert.statistics()
    statistics.update(normal, foreground)
    expert.fit(statistics)
    return expert


def test_distances_are_scikit_learns_to_the_nearest_row():
    expert, new = fitted(features(6)), features(2, seed=4)
    rows = patches(new, [2, 3]).permute(0, 2, 3, 1).flatten(0, 2) @ expert.projection
    nearest = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(expert.bank.numpy())
    expected, _ = nearest.kneighbors(rows.numpy())
    torch.testing.assert_close(
        expert(new).flatten(), torch.tensor(expected).flatten().float(), rtol=1e-4, atol=1e-3
    )


def test_fewer_patches_than_rows_are_all_kept():
    normal = features(1)
    expert = fitted(normal)
    assert expert(normal).max() < 5e-3  # every patch of it is in the bank; float32 of squares


def test_the_coreset_takes_the_farthest_row_each_time():
    rows = torch.tensor([[0.0], [1.0], [10.0], [4.0], [9.0]])
    # From 0 the farthest is 10, then 4 (4 from 0, 6 from 10), then 1 or 9, which are equally far.
    assert greedy_coreset(rows, 3).flatten().tolist() == [0.0, 10.0, 4.0]
    assert set(greedy_coreset(rows, 5).flatten().tolist()) == set(rows.flatten().tolist())


def test_patches_outside_the_foreground_are_no_normal_patches():
    normal = features(2)
    normal[1][..., 8:, :] += 100.0
    normal[2][..., 4:, :] += 100.0
    foreground = torch.zeros(2, 1, 64, 64, dtype=torch.bool)
    foreground[:, :, :24] = True
    expert = fitted(normal, foreground)
    found = expert(normal)
    assert found[:, :, :5].max() < 5e-3
    assert found[:, :, 10:].min() > 50


def test_nothing_in_the_foreground_is_refused():
    with pytest.raises(InputError, match="there is none"):
        fitted(features(1), torch.zeros(1, 1, 64, 64, dtype=torch.bool))


def test_the_sample_of_united_parts_is_uniform_over_all_and_repeats():
    def sample(seed, start, stop):
        reservoir = Reservoir(500, columns=1, seed=seed)
        for part in torch.arange(start, stop).float()[:, None].split(97):
            reservoir.update(part)
        return reservoir

    united = sample(0, 0, 10_000).merge(sample(1, 10_000, 40_000).state()).rows()
    again = sample(0, 0, 10_000).merge(sample(1, 10_000, 40_000).state()).rows()
    assert torch.equal(united, again)
    assert len(united.unique()) == 500
    # A quarter is of the first part: 125 of 500, standard deviation 9.7.
    assert 86 < int((united < 10_000).sum()) < 164


def test_the_sample_of_a_long_stream_stays_small():
    reservoir = Reservoir(100, columns=2)
    for _ in range(300):
        reservoir.update(torch.rand(50, 2))
        assert len(reservoir._rows) <= 2 * 100 + 50
    assert reservoir.rows().shape == (100, 2)
