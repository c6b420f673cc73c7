"""The Gaussian of tokens against NumPy's principal components."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from multiad_med.networks.experts import TokenGaussian
from multiad_med.utils.errors import InputError

CHANNELS = (4, 10)


def features(count: int, seed: int = 0) -> list[Tensor]:
    """Tokens whose variances fall by half from one hidden direction to the next."""
    random = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(10, 10, generator=torch.Generator().manual_seed(9))).Q
    rows = torch.randn(count, 10, generator=random) * 0.5 ** (torch.arange(10) / 2)
    return [torch.randn(count, 4, 8, 8), (rows @ turn + 3).reshape(count, 10, 1, 1)]


def fitted(*parts: list[Tensor]) -> TokenGaussian:
    expert = TokenGaussian(CHANNELS)
    statistics = expert.statistics()
    for part in parts:
        statistics.update(part)
    expert.fit(statistics)
    return expert


@pytest.mark.parametrize("count", [4, 400])
def test_distances_are_numpys_over_components_of_nine_tenths_of_the_variance(count: int) -> None:
    normal, new = features(count), features(6, seed=3)
    x, y = (f[1].flatten(1).double().numpy() for f in (normal, new))
    centred = x - x.mean(axis=0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    variances = sizes**2 / count
    kept = int(np.searchsorted(np.cumsum(variances) / variances.sum(), 0.9)) + 1
    assert 1 < kept < 10
    scores = (y - x.mean(axis=0)) @ directions[:kept].T / np.sqrt(variances[:kept])
    expected = np.sqrt((scores**2).sum(axis=1))
    expert = fitted(normal)
    found = expert(new)
    assert found.shape == (6, 1, 1, 1)
    np.testing.assert_allclose(found.flatten().numpy(), expected, rtol=1e-4)
    assert int((expert.whitening.abs().sum(dim=1) > 0).sum()) == kept


def test_the_mean_square_of_normal_tokens_is_the_number_of_directions() -> None:
    normal = features(500)
    expert = fitted(normal)
    kept = int((expert.whitening.abs().sum(dim=1) > 0).sum())
    assert expert(normal).square().mean().item() == pytest.approx(kept, rel=1e-4)


def test_two_images_have_one_direction() -> None:
    a, b = features(1)[1], features(1, seed=1)[1]
    expert = fitted([a, torch.cat([a, b])])
    found = expert([a, torch.cat([a, b, (a + b) / 2, 2 * b - a])])
    torch.testing.assert_close(
        found.flatten(), torch.tensor([1.0, 1.0, 0.0, 3.0]), atol=1e-4, rtol=0
    )


def test_sums_of_parts_are_those_of_all() -> None:
    a, b = features(30), features(50, seed=1)
    whole, united = fitted(a, b), TokenGaussian(CHANNELS)
    ours, theirs = united.statistics(part=0), united.statistics(part=1)
    ours.update(a)
    theirs.update(b)
    united.fit(ours.merge(theirs.state()))
    new = features(3, seed=5)
    torch.testing.assert_close(united(new), whole(new), rtol=1e-5, atol=1e-5)


def test_a_loaded_expert_measures_as_the_saved_one() -> None:
    expert, other = fitted(features(20)), TokenGaussian(CHANNELS)
    other.load_state_dict(expert.state_dict())
    new = features(2, seed=5)
    assert torch.equal(expert(new), other(new))


def test_one_image_same_tokens_and_no_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="at least 2 normal images"):
        fitted(features(1))
    with pytest.raises(InputError, match="at least 2 normal images"):
        fitted()
    for count in (5, 101):  # of many, sums are not exact
        same = features(1)[1].expand(count, -1, -1, -1)
        with pytest.raises(InputError, match="tokens of all normal images are the same"):
            fitted([same, same])
    bad = features(2)
    bad[1][1, 2] = torch.nan
    with pytest.raises(InputError, match="no numbers"):
        TokenGaussian(CHANNELS).statistics().update(bad)
