"""The whitened residual against scikit-learn, alone and in a network."""

import pytest
import torch
from sklearn.covariance import EmpiricalCovariance

from multiad_med.networks import MultiAD
from multiad_med.networks.experts import WhitenedResidual
from multiad_med.testing.networks import tiny_multiad
from multiad_med.training import fit_experts
from multiad_med.utils import InputError


def test_distances_are_scikit_learns_mahalanobis() -> None:
    random = torch.Generator().manual_seed(0)
    mixing = torch.randn(5, 5, generator=random)
    normal = torch.einsum("dc,nchw->ndhw", mixing, torch.randn(8, 5, 16, 16, generator=random)) + 2
    expert = WhitenedResidual(5)
    statistics = expert.statistics()
    for part in normal.split(3):
        statistics.update([part])
    expert.fit(statistics)
    new = torch.randn(2, 5, 4, 4, generator=random)
    reference = EmpiricalCovariance().fit(normal.permute(0, 2, 3, 1).flatten(0, 2).numpy())
    squares = reference.mahalanobis(new.permute(0, 2, 3, 1).flatten(0, 2).numpy())
    torch.testing.assert_close(
        expert([new]).flatten(), torch.tensor(squares).sqrt().float(), rtol=0.01, atol=0.01
    )


def test_a_network_with_whitened_residuals_fits_maps_and_compiles() -> None:
    torch.manual_seed(0)
    network: MultiAD = tiny_multiad(residual="whitened").eval()
    x = torch.rand(4, 3, 64, 64)
    fit_experts(network, [{"image": x}])
    assert [bool(w.fitted) for w in network.whitening] == [True] * 4
    with torch.no_grad():
        found = network.distances(x)
        # The mean square of a whitened residual is its number of channels.
        for distance, channels in zip(found[:2], network.channels, strict=False):
            assert float(distance.square().mean()) == pytest.approx(channels, rel=0.02)
        torch.testing.assert_close(torch.jit.script(network)(x), network(x))


def test_residuals_that_never_differ_are_refused() -> None:
    expert = WhitenedResidual(3)
    statistics = expert.statistics()
    statistics.update([torch.ones(2, 3, 4, 4)])
    with pytest.raises(InputError, match="differ everywhere alike"):
        expert.fit(statistics)
