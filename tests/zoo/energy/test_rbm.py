"""RBMs against sums over all states, and Gaussian ones against integrals."""

from __future__ import annotations

import itertools

import pytest
import torch

from zoo.energy.base import SummableEnergy
from zoo.energy.rbm import RBM
from zoo.errors import CapabilityError, OptionError, SupportError
from zoo.testing import check_program


def random_rbm(units: int = 5, hidden: int = 3, seed: int = 0, size: float = 1.0, **options) -> RBM:
    torch.manual_seed(seed)
    program = RBM([units], hidden, **options).double()
    with torch.no_grad():
        for p in program.parameters():
            p.copy_(size * torch.randn_like(p))
    program.location.copy_(torch.randn(units))
    return program


def states(n: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)), dtype=torch.float64)


@pytest.mark.parametrize("options", [{}, {"visible": "gaussian"}, {"event_shape": [2, 3]}])
def test_contract(options):
    check_program(RBM(**{"event_shape": [4], "hidden": 3, "draw_sweeps": 3, **options}))


@pytest.mark.parametrize(("units", "hidden"), [(5, 3), (3, 6)])
def test_the_constant_is_the_sum_over_both_sides(units, hidden):
    program = random_rbm(units, hidden)
    assert isinstance(program, SummableEnergy)
    v, h = states(units), states(hidden)
    joint = (v @ program.bias)[:, None] + (h @ program.hidden_bias)[None] + v @ program.weight @ h.T
    torch.testing.assert_close(program.log_partition(), joint.logsumexp((0, 1)))
    torch.testing.assert_close(program.unnormalised_log_prob(v), joint.logsumexp(1))
    posterior = torch.einsum("vh,hj->vj", joint.softmax(1), h)
    torch.testing.assert_close(program.encode(v).mean, posterior)


def test_the_constant_of_gaussian_units_is_the_integral():
    program = random_rbm(1, 4, size=0.5, visible="gaussian")
    program.spread.fill_(1.7)
    x = torch.linspace(-25, 25, 20_001, dtype=torch.float64)
    integral = torch.trapezoid(program.unnormalised_log_prob(x[:, None]).exp(), x).log()
    torch.testing.assert_close(program.log_partition(), integral, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_a_sweep_leaves_its_density_as_it_is(beta):
    """Exact: the matrix of the block Gibbs kernel, from its two conditionals."""
    program = random_rbm(4, 3)
    v, h = states(4), states(3)
    target = program.tempered(v, beta).softmax(0)
    up = torch.distributions.Bernoulli(logits=beta * program._inputs(v)).log_prob(h[:, None]).sum(-1).T.exp()
    push = (1 - beta) * program.location + beta * (program.bias + h @ program.weight.T)
    down = torch.distributions.Bernoulli(logits=push).log_prob(v[:, None]).sum(-1).T.exp()
    kernel = up @ down
    torch.testing.assert_close(target @ kernel, target)
    torch.testing.assert_close(target[:, None] * kernel, (target[:, None] * kernel).T)  # reversible
    # The sweep is that kernel: 100,000 draws from one state, each share within 5 standard errors (1 in 100,000 in all).
    torch.manual_seed(1)
    drawn = program.sweep(v[5].expand(100_000, -1), beta)
    share = (drawn[:, None] == v).all(-1).double().mean(0)
    error = (kernel[5] * (1 - kernel[5]) / 100_000).sqrt()
    assert bool(((share - kernel[5]).abs() < 5 * error + 1e-9).all())


def test_gaussian_units_are_drawn_from_their_own_conditional():
    """At every beta the sweep keeps the tempered density: exact draws, moved once, have the same mean and variance."""
    program = random_rbm(2, 3, size=0.7, visible="gaussian")
    torch.manual_seed(0)
    x = program.draw_exactly(40_000)
    moved = program.sweep(x)
    error = x.std(0) * (2 / 40_000) ** 0.5
    assert bool(((x.mean(0) - moved.mean(0)).abs() < 4.5 * error).all())
    assert bool(((x.var(0) / moved.var(0)).log().abs() < 4.5 * (4 * 2 / 40_000) ** 0.5).all())
    # Half way the density is a mixture of Gaussians with known weights: its mean by quadrature, against long chains.
    one = random_rbm(1, 2, size=0.7, visible="gaussian", seed=3)
    one.spread.fill_(1.3)
    grid = torch.linspace(-15, 15, 30_001, dtype=torch.float64)
    weight = one.tempered(grid[:, None], 0.5).exp().detach()
    mean = float((weight * grid).sum() / weight.sum())
    sd = float(((weight * (grid - mean) ** 2).sum() / weight.sum()) ** 0.5)
    chains = torch.zeros(20_000, 1, dtype=torch.float64)
    for _ in range(50):
        chains = one.sweep(chains, 0.5)
    assert abs(float(chains.mean()) - mean) < 4.5 * sd / 20_000**0.5
    assert abs(float(chains.std()) / sd - 1) < 0.05


def test_exact_draws_have_exact_shares():
    """20,000 draws, each of 32 shares within 5 standard errors."""
    for units, hidden in ((5, 3), (3, 5)):
        program = random_rbm(units, hidden)
        torch.manual_seed(0)
        v = states(units)
        share = (program.draw_exactly(20_000)[:, None] == v).all(-1).double().mean(0)
        truth = program.unnormalised_log_prob(v).softmax(0)
        assert bool(((share - truth).abs() < 5 * (truth * (1 - truth) / 20_000).sqrt() + 1e-9).all())


def test_too_many_states_are_refused():
    with pytest.raises(CapabilityError, match=r"2\^21 states"):
        RBM([30], 21).log_partition()


def test_data_decide_what_units_there_are():
    assert RBM.for_data(torch.tensor([[0.0, 1.0]])).visible == "bernoulli"
    assert RBM.for_data(torch.randn(3, 2)).visible == "gaussian"
    with pytest.raises(SupportError):
        RBM([2]).take(torch.randn(3, 2))
    with pytest.raises(OptionError):
        RBM([2], visible="poisson")


def test_it_starts_at_the_mean_of_the_data():
    torch.manual_seed(0)
    x = torch.bernoulli(torch.tensor([0.1, 0.5, 0.9]).expand(2000, 3))
    x[:, 1] = 1.0  # a unit that never changes has a logit all the same
    program = RBM([3], 2)
    program.initialise(x)
    torch.testing.assert_close(program.location.sigmoid(), x.mean(0), atol=1e-3, rtol=0)
    assert bool(torch.isfinite(program.location).all())
    gaussian = RBM([2], 2, "gaussian")
    gaussian.initialise(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    torch.testing.assert_close(gaussian.location, torch.tensor([2.0, 5.0]))
    torch.testing.assert_close(gaussian.spread, torch.tensor([2**0.5, 1e-2]))
    # At its start each unit is on its own, whatever its units: the program is its base.
    many = torch.randn(50, 2) * torch.tensor([1e5, 1e-4]) + torch.tensor([3e6, 0.0])
    gaussian.initialise(many)
    with torch.no_grad():
        gaussian.weight.zero_()
        density = gaussian.unnormalised_log_prob(many) - gaussian.log_partition()
    torch.testing.assert_close(density, gaussian.base().log_prob(many))
