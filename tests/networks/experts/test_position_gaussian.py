"""A Gaussian for each position against a slow loop and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.covariance import EmpiricalCovariance

from multiad_med.networks.experts import PositionGaussian
from multiad_med.networks.experts.position_gaussian import by_cell
from multiad_med.utils.errors import InputError

CHANNELS = (3, 4)


def features(count, seed=0, channels=CHANNELS):
    """Correlated features whose mean depends on the position."""
    random = torch.Generator().manual_seed(seed)
    place = torch.linspace(0, 3, 32)[None, None, :, None]
    first = torch.randn(count, channels[0], 32, 32, generator=random) + place
    second = torch.randn(count, channels[1], 16, 16, generator=random) * 2
    return [first.cumsum(dim=1), second]


def fitted(*parts):
    expert = PositionGaussian(CHANNELS, stages=(1, 2))
    statistics = expert.statistics()
    for part in parts:
        statistics.update(part)
    expert.fit(statistics)
    return expert


def grid(x):
    up = torch.nn.functional.interpolate(x[1], size=(32, 32), mode="bilinear")
    return torch.cat([x[0], up], dim=1)


def test_distances_are_those_of_scikit_learns_covariance_in_a_loop():
    normal, new = features(400), features(3, seed=9)
    expert = fitted(normal)
    x, y = by_cell(grid(normal)).double().numpy(), by_cell(grid(new)).double().numpy()
    _, count, places, d = x.shape
    means = x.mean(axis=1, keepdims=True)
    variance = (x - means).reshape(-1, d).var(axis=0) + means.reshape(-1, d).var(axis=0)
    scale = np.sqrt(variance)
    prior = np.diag(np.maximum((x - means).reshape(-1, d).var(axis=0) / variance, 0.01))
    found = expert(new)
    for cell in (0, 77, 255):
        sample = ((x[cell] - means[cell]) / scale).reshape(-1, d)
        empirical = EmpiricalCovariance(assume_centered=True).fit(sample).covariance_
        n = count * places
        covariance = (n * empirical + d * prior) / (n + d)
        rest = (y[cell] - means[cell]) / scale  # (images, places, d)
        squares = np.einsum("ipc,cd,ipd->ip", rest, np.linalg.inv(covariance), rest)
        row, column = 2 * (cell // 16), 2 * (cell % 16)
        here = found[:, 0, row : row + 2, column : column + 2].reshape(3, 4)
        # The inverse is kept in half precision.
        np.testing.assert_allclose(here.numpy(), np.sqrt(squares), rtol=2e-3)


def test_sums_of_parts_are_those_of_all_to_a_millionth():
    a, b = features(30), features(50, seed=1)
    whole = fitted([torch.cat(pair) for pair in zip(a, b, strict=True)])
    ours, theirs = whole.statistics(), whole.statistics()
    ours.update(a)
    theirs.update(b)
    ours.merge(theirs.state())
    united = PositionGaussian(CHANNELS, stages=(1, 2))
    united.fit(ours)
    for name in ("mean", "scale"):
        torch.testing.assert_close(
            getattr(united, name), getattr(whole, name), rtol=1e-6, atol=1e-6
        )
    new = features(2, seed=5)
    torch.testing.assert_close(united(new), whole(new), rtol=1e-3, atol=1e-3)


def test_a_loaded_expert_measures_as_the_saved_one():
    expert, other = fitted(features(20)), PositionGaussian(CHANNELS, stages=(1, 2))
    other.load_state_dict(expert.state_dict())
    new = features(2, seed=5)
    assert torch.equal(expert(new), other(new))


def test_the_state_takes_at_most_ten_megabytes_at_lite2s_channels():
    expert = PositionGaussian((24, 48, 120, 352))
    assert sum(v.numel() * v.element_size() for v in expert.state_dict().values()) < 11e6
    packed = expert.state_dict()["packed"]
    assert packed.numel() * packed.element_size() < 10e6


def test_many_channels_are_projected():
    expert = PositionGaussian((256, 512, 1024))
    assert expert.projection.shape == (1792, 192)
    torch.testing.assert_close(
        expert.projection.t() @ expert.projection, torch.eye(192), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_images_give_finite_distances(count):
    expert = fitted(features(count))
    found = expert(features(3, seed=7))
    assert found.isfinite().all()
    assert expert(features(count)).mean() < found.mean()


def test_no_image_constant_features_and_nan_are_refused():
    expert = PositionGaussian(CHANNELS, stages=(1, 2))
    with pytest.raises(InputError, match="one normal image at least"):
        expert.fit(expert.statistics())
    same = expert.statistics()
    same.update([torch.ones(4, 3, 32, 32), torch.zeros(4, 4, 16, 16)])
    with pytest.raises(InputError, match="same everywhere"):
        expert.fit(same)
    bad = features(2)
    bad[1][0, 0, 3, 3] = torch.nan
    with pytest.raises(InputError, match="no numbers"):
        expert.statistics().update(bad)


def test_a_region_that_never_varies_does_not_dominate():
    normal = features(40)
    for x in normal:
        x[..., : x.shape[2] // 2, :] = 0.0  # background, which is exactly constant
    expert = fitted(normal)
    new = features(2, seed=3)
    for x in new:
        x[..., : x.shape[2] // 2, :] = 0.0
    found = expert(new)
    assert found[:, :, :15].max() < 1e-3
    assert found.isfinite().all()
