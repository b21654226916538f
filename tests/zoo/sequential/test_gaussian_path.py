"""The path of a linear Gaussian chain is the multivariate normal that its equations define, in either direction."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import MultivariateNormal

from tests.conftest import FAILURE_RATE
from zoo.sequential.gaussian_path import GaussianPath

STEPS, SIZE = 4, 2


def path(*batch: int, backward: bool = False) -> GaussianPath:
    factors = torch.eye(SIZE) + 0.3 * torch.randn(*batch, STEPS, SIZE, SIZE)  # not triangular
    matrices = torch.randn(*batch, STEPS - 1, SIZE, SIZE)
    return GaussianPath(torch.randn(*batch, STEPS, SIZE), matrices, factors, backward=backward)


def dense(found: GaussianPath) -> MultivariateNormal:
    """Over the numbers of one path, in the order of the chain: (I - S) v = b + F e, the matrices below S's diagonal."""
    shift = torch.zeros(STEPS * SIZE, STEPS * SIZE)
    for t, matrix in enumerate(found.matrices):
        shift[(t + 1) * SIZE : (t + 2) * SIZE, t * SIZE : (t + 1) * SIZE] = matrix
    inverse = torch.linalg.inv(torch.eye(STEPS * SIZE) - shift)
    factor = inverse @ torch.block_diag(*found.factors)
    return MultivariateNormal(inverse @ found.offsets.flatten(), factor @ factor.T)


def ordered(value: Tensor, backward: bool) -> Tensor:
    return (value.flip(-2) if backward else value).flatten(-2)


@pytest.mark.parametrize("backward", [False, True])
def test_density_and_marginals_are_those_of_the_dense_normal(backward):
    found = path(backward=backward)
    expected, value = dense(found), torch.randn(5, STEPS, SIZE)
    torch.testing.assert_close(found.log_prob(value), expected.log_prob(ordered(value, backward)))
    means, covariances = found.marginals()
    torch.testing.assert_close(ordered(means, backward), expected.mean)
    blocks = [expected.covariance_matrix[i : i + SIZE, i : i + SIZE] for i in range(0, STEPS * SIZE, SIZE)]
    torch.testing.assert_close(covariances, torch.stack(blocks[::-1] if backward else blocks))


@pytest.mark.parametrize("backward", [False, True])
def test_draws_agree_with_the_density(backward):
    found, n = path(backward=backward), 20_000
    draws = found.sample(torch.Size([n]))
    assert draws.shape == (n, STEPS, SIZE)
    expected = dense(found)
    white = torch.linalg.solve_triangular(
        expected.scale_tril, (ordered(draws, backward) - expected.mean).T, upper=False
    )
    assert stats.kstest(white.flatten().numpy(), "norm").pvalue > FAILURE_RATE
    correlation = torch.triu(white @ white.T / n, diagonal=1)
    pairs = STEPS * SIZE * (STEPS * SIZE - 1) / 2
    assert stats.chi2(pairs).sf(n * correlation.square().sum().item()) > FAILURE_RATE


def test_batches_are_each_their_own_and_expand():
    found = path(3)
    value = torch.randn(5, 3, STEPS, SIZE)
    alone = [GaussianPath(found.offsets[i], found.matrices[i], found.factors[i]) for i in range(3)]
    expected = torch.stack([each.log_prob(value[:, i]) for i, each in enumerate(alone)], -1)
    torch.testing.assert_close(found.log_prob(value), expected)
    wide = found.expand(torch.Size([5, 3]))
    assert (wide.batch_shape, wide.event_shape, wide.rsample().shape) == ((5, 3), (STEPS, SIZE), value.shape)
    torch.testing.assert_close(wide.log_prob(value), expected)


def test_gradients_reach_all_parts_through_a_draw():
    found = path()
    for part in (found.offsets, found.matrices, found.factors):
        part.requires_grad_()
    found.rsample().square().sum().backward()
    assert all(part.grad.abs().max() > 0 for part in (found.offsets, found.matrices, found.factors))
