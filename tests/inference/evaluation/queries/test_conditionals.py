"""Exact conditionals against another formula, brute force and enumeration."""

from __future__ import annotations

import itertools

import pytest
import torch
from pyro.distributions import MultivariateNormal
from torch import Tensor

from inference.evaluation.queries.completion import inpaint
from inference.evaluation.queries.restoration import denoise, super_resolve
from inference.evaluation.samples.completion import gaussian_completion
from tests.conftest import FAILURE_RATE
from tests.zoo.test_chains import all_states, chi_square, randomise
from zoo.chains.hmm import HMM
from zoo.errors import CapabilityError
from zoo.latent.cvae import RestoringVAE
from zoo.latent.ppca import PPCA
from zoo.mixtures.bernoulli import BernoulliMixture
from zoo.mixtures.gaussian import GaussianMixture
from zoo.program import Program


def ppca() -> PPCA:
    program = PPCA([4, 4], 3)
    with torch.no_grad():
        program.weight.copy_(torch.randn(16, 3))
        program.mean.copy_(torch.randn(16))
        program.scale = torch.tensor(0.5)
    return program


@torch.no_grad()
def by_precision(program: PPCA, operator: Tensor, y: Tensor, sd: float) -> tuple[Tensor, Tensor]:
    """Mean and covariance of x given y = A x + noise, from precisions, which is another formula than by gains."""
    covariance = program.weight @ program.weight.T + program.scale**2 * torch.eye(16)
    precision = torch.linalg.inv(covariance) + operator.T @ operator / sd**2
    right = torch.linalg.solve(covariance, program.mean) + operator.T @ y / sd**2
    return torch.linalg.solve(precision, right), torch.linalg.inv(precision)


def test_ppca_answers_gaps_as_by_its_latents() -> None:
    program, x = ppca(), torch.randn(5, 4, 4)
    known = torch.rand(5, 4, 4) < 0.5
    known[0], known[1] = False, True
    found = inpaint(program, x, known, draws=20_000)
    assert (found.how, found.exact, found.effective) == ("gaussian", True, None)
    mean, draws = gaussian_completion(program, x, known, draws=20_000)
    torch.testing.assert_close(found.mean, mean)
    assert torch.equal(found.values[:, known], x[known].expand(20_000, -1))
    # Two means of 20,000 draws: six standard errors of their difference; variances likewise.
    spread = found.values.std(0)
    assert ((found.values.mean(0) - draws.mean(0)).abs() <= 6 * spread * (2 / 20_000) ** 0.5 + 1e-9).all()
    assert (spread / draws.std(0) - 1).nan_to_num(0.0).abs().max() < 6 / 20_000**0.5


@pytest.mark.parametrize("query", ["denoise", "super_resolve"])
def test_ppca_answers_noise_and_means_as_by_precisions(query: str) -> None:
    program = ppca()
    if query == "denoise":
        operator, y = torch.eye(16), torch.randn(3, 4, 4)
        found = denoise(program, y, 0.3, draws=20_000)
    else:
        rows = [[2 * i, 2 * j] for i, j in itertools.product(range(2), range(2))]
        operator = torch.zeros(4, 4, 4)
        for k, (i, j) in enumerate(rows):
            operator[k, i : i + 2, j : j + 2] = 0.25
        operator, y = operator.flatten(1), torch.randn(3, 2, 2)
        found = super_resolve(program, y, 2, sd=0.3, draws=20_000)
    assert (found.how, found.exact) == ("gaussian", True)
    for row in range(3):
        mean, covariance = by_precision(program, operator, y[row].flatten(), 0.3)
        torch.testing.assert_close(found.mean[row].flatten(), mean)
        drawn = found.values[:, row].flatten(1)
        assert ((drawn.mean(0) - mean).abs() < 6 * (covariance.diagonal() / 20_000).sqrt()).all()
        assert (torch.cov(drawn.T) - covariance).abs().max() < 6 * float(covariance.diagonal().max()) * 1e-2


def test_without_noise_a_restored_image_has_the_means_that_were_given() -> None:
    program, y = ppca(), torch.randn(3, 2, 2)
    found = super_resolve(program, y, 2, draws=4)
    pooled = torch.nn.functional.avg_pool2d(torch.cat([found.values, found.mean[None]]), 2)
    torch.testing.assert_close(pooled, y.expand(5, -1, -1, -1))


@pytest.mark.parametrize("covariance", ["spherical", "diagonal", "full"])
def test_a_mixture_of_gaussians_is_weighed_by_what_is_known(covariance: str) -> None:
    program = GaussianMixture([3], 2, covariance=covariance)
    with torch.no_grad():
        program.weights = torch.tensor([0.3, 0.7])
        program.means.copy_(torch.tensor([[-1.0, 0.0, 1.0], [1.0, 0.5, -1.0]]))
        if covariance == "full":
            program.scale = torch.tensor([[1.0, 0, 0], [0.5, 0.8, 0], [-0.3, 0.2, 0.6]]).expand(2, 3, 3).clone()
    x, known = torch.tensor([[0.2, 9.0, 9.0]]), torch.tensor([True, False, False])
    found = inpaint(program, x, known, draws=10)
    with torch.no_grad():  # brute force: a fine grid of the two hidden numbers
        at = torch.linspace(-7, 7, 281)
        grid = torch.cartesian_prod(torch.tensor([0.2]), at, at)
        weights = program.log_prob(grid).softmax(0)
    torch.testing.assert_close(found.mean[0], weights @ grid, atol=1e-6, rtol=0)
    assert found.how == "gaussian"
    noisy = denoise(program, x, 0.5, draws=10)
    with torch.no_grad():
        at = torch.linspace(-6, 13, 141)
        grid = torch.cartesian_prod(torch.linspace(-4, 4, 61), at, at)
        weights = (program.log_prob(grid) - ((x - grid) / 0.5).square().sum(-1) / 2).softmax(0)
    torch.testing.assert_close(noisy.mean[0], weights @ grid, atol=1e-3, rtol=0)


def bit_shares(program: Program, log_noise: Tensor) -> Tensor:
    """p(state | y) of all states of 8 bits, (256,)."""
    with torch.no_grad():
        return (program.log_prob(all_states([*program.event_shape])) + log_noise).softmax(0)  # type: ignore[operator]


def follows(drawn: Tensor, share: Tensor) -> bool:
    index = (drawn.flatten(1).long() * 2 ** torch.arange(7, -1, -1)).sum(-1)
    counts = torch.bincount(index, minlength=256)
    likely = share * len(drawn) > 1  # the others together
    rest = torch.tensor([float(share[~likely].sum())])
    pooled = torch.cat([share[likely], rest]), torch.cat([counts[likely], counts[~likely].sum()[None]])
    some = pooled[0] > 0
    assert int(pooled[1][~some].sum()) == 0
    return bool(chi_square(pooled[0][some], pooled[1][some]) > FAILURE_RATE / 3)


def test_a_mixture_of_bits_answers_as_by_enumeration() -> None:
    program, states = randomise(BernoulliMixture([2, 4], 3)), all_states([2, 4])
    x, known = (torch.rand(1, 2, 4) < 0.5).double(), torch.rand(2, 4) < 0.5
    found = inpaint(program, x, known, draws=4000)
    assert (found.how, found.exact) == ("mixture", True)
    agrees = (states[:, known] == x[:, known]).all(-1)
    assert follows(found.values[:, 0], bit_shares(program, torch.where(agrees, 0.0, -torch.inf)))
    y = x + 0.6 * torch.randn(1, 2, 4)
    noise = -((y - states) / 0.6).square().sum((1, 2)) / 2
    assert follows(denoise(program, y, 0.6, draws=4000).values[:, 0], bit_shares(program, noise))
    small = torch.nn.functional.avg_pool2d(x, 2)
    agrees = (torch.nn.functional.avg_pool2d(states, 2) == small).flatten(1).all(-1)
    share = bit_shares(program, torch.where(agrees, 0.0, -torch.inf))
    assert follows(super_resolve(program, small, 2, draws=4000).values[:, 0], share)


def test_a_chain_that_is_hidden_is_completed_as_by_enumeration() -> None:
    program, states = randomise(HMM([4, 2], 3)), all_states([4, 2])
    x, known = (torch.rand(2, 4, 2) < 0.5).double(), torch.rand(2, 4, 2) < 0.4
    found = inpaint(program, x, known, draws=4000)
    assert (found.how, found.exact) == ("posterior", True)
    for row in range(2):
        agrees = (states[:, known[row]] == x[row, known[row]]).all(-1)
        assert follows(found.values[:, row], bit_shares(program, torch.where(agrees, 0.0, -torch.inf)))
    with pytest.raises(CapabilityError, match="HMM cannot denoise"):
        denoise(HMM([20, 2], 3), torch.zeros(1, 20, 2), 0.1)


def test_a_gaussian_means_what_it_says_in_single_precision() -> None:
    program = ppca()
    x, known = torch.randn(2, 4, 4), torch.rand(4, 4) < 0.5
    double = inpaint(program, x, known).mean
    single = inpaint(program.float(), x.float(), known).mean
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("task", "query"),
    [
        ("quadrants", lambda p, x: inpaint(p, x, torch.arange(4) < 2 * torch.ones(4, 1), draws=3)),
        ({"name": "noisy", "sd": 0.3}, lambda p, x: denoise(p, x + 0.3, 0.3, draws=3)),
        ({"name": "low-resolution", "factor": 2}, lambda p, x: super_resolve(p, torch.zeros(2, 2, 2), 2, draws=3)),
    ],
)
def test_programs_that_were_made_for_it_answer_by_themselves(task, query) -> None:
    program, x = RestoringVAE([4, 4], task, hidden=[4]).eval(), (torch.rand(2, 4, 4) < 0.5).double()
    found = query(program, x)
    assert (found.how, found.exact, found.values.shape) == ("own", True, (3, 2, 4, 4))
    if task == "quadrants":
        assert torch.equal(found.values[..., :2], x[..., :2].expand(3, -1, -1, -1))
    with pytest.raises(CapabilityError, match="another task"):
        (denoise(program, x, 0.2) if task != {"name": "noisy", "sd": 0.3} else inpaint(program, x, x[0] > 0))


def test_the_prior_of_a_gaussian_answers_where_nothing_is_known() -> None:
    program = ppca()
    found = inpaint(program, torch.zeros(1, 4, 4), torch.zeros(4, 4).bool(), draws=5)
    torch.testing.assert_close(found.mean[0].flatten(), program.mean.detach())
    assert MultivariateNormal(program.mean, torch.eye(16)).log_prob(found.values.flatten(1)).isfinite().all()
