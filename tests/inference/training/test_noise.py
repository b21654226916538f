"""Random numbers as an input: what is drawn under `Noise` is right in law, and the same again from the same numbers."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import scipy.stats as stats
import torch
from torch import nn

from inference.training.noise import REPLACEMENTS, Noise
from tests.conftest import FAILURE_RATE

N = 20000
CATEGORIES = torch.tensor([0.0, 0.2, 0.0, 0.5, 0.3, 0.0], dtype=torch.float64)


def full(value: float, n: int = N) -> torch.Tensor:
    return torch.full((n,), value)


# What is drawn, and its law.
CONTINUOUS = {
    "randn": (lambda: torch.randn(N), stats.norm()),
    "rand": (lambda: torch.rand(N), stats.uniform()),
    "randn_like": (lambda: torch.randn_like(full(9.0)), stats.norm()),
    "rand_like": (lambda: torch.rand_like(full(9.0)), stats.uniform()),
    "normal of tensors": (lambda: torch.normal(full(2.0), full(3.0)), stats.norm(2, 3)),
    "normal of a mean": (lambda: torch.normal(full(2.0), 3.0), stats.norm(2, 3)),
    "normal of a scale": (lambda: torch.normal(2.0, full(3.0)), stats.norm(2, 3)),
    "normal of a size": (lambda: torch.normal(2.0, 3.0, size=(N,)), stats.norm(2, 3)),
    "normal_": (lambda: torch.empty(N).normal_(2.0, 3.0), stats.norm(2, 3)),
    "uniform_": (lambda: torch.empty(N).uniform_(-2.0, 3.0), stats.uniform(-2, 5)),
    "uniform_ by name": (lambda: torch.empty(N).uniform_(**{"from": -2.0, "to": 3.0}), stats.uniform(-2, 5)),
    "exponential_": (lambda: torch.empty(N).exponential_(2.0), stats.expon(scale=0.5)),
    "cauchy_": (lambda: torch.empty(N).cauchy_(1.0, 2.0), stats.cauchy(1, 2)),
    "dirichlet": (
        lambda: torch._sample_dirichlet(torch.tensor([0.4, 2.0, 1.5]).expand(N, 3))[:, 1],
        stats.beta(2.0, 1.9),
    ),
    **{
        f"gamma {alpha}": (lambda alpha=alpha: torch._standard_gamma(full(alpha)), stats.gamma(alpha))
        for alpha in (0.05, 0.5, 1.0, 3.0, 100.0)
    },
}
DISCRETE = {
    "bernoulli": (lambda: torch.bernoulli(full(0.3)), [0.7, 0.3]),
    "bernoulli of p": (lambda: torch.bernoulli(full(0.9), 0.3), [0.7, 0.3]),
    "bernoulli method": (lambda: full(0.3).bernoulli(), [0.7, 0.3]),
    "bernoulli_": (lambda: torch.empty(N).bernoulli_(0.3), [0.7, 0.3]),
    "bernoulli_ of a tensor": (lambda: torch.empty(N).bernoulli_(full(0.3)), [0.7, 0.3]),
    "multinomial": (lambda: torch.multinomial(5 * CATEGORIES.expand(N, 6), 1), CATEGORIES.tolist()),
    "multinomial method": (lambda: CATEGORIES.multinomial(N, True), CATEGORIES.tolist()),
    "randperm": (lambda: torch.stack([torch.randperm(3)[0] for _ in range(N)]), [1 / 3, 1 / 3, 1 / 3]),
    "randint": (lambda: torch.randint(3, (N,)), [1 / 3, 1 / 3, 1 / 3]),
    "randint from": (lambda: torch.randint(1, 3, (N,)), [0.0, 0.5, 0.5]),
    "randint by name": (lambda: torch.randint(low=1, high=3, size=(N,)), [0.0, 0.5, 0.5]),
    "dropout": (lambda: nn.functional.dropout(full(0.75), 0.25), [0.25, 0.75]),
    "dropout in place": (lambda: nn.functional.dropout(full(0.75), 0.25, inplace=True), [0.25, 0.75]),
    "torch.dropout": (lambda: torch.dropout(full(0.75), 0.25, True), [0.25, 0.75]),
}
CASES = {name: draw for name, (draw, _) in {**CONTINUOUS, **DISCRETE}.items()}


class Called(torch.overrides.TorchFunctionMode):
    """Notes what is called."""

    def __init__(self) -> None:
        super().__init__()
        self.functions: set = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.functions.add(func)
        return func(*args, **(kwargs or {}))


def test_every_replaced_function_is_tested():
    with Called() as called:
        for draw in CASES.values():
            draw()
    assert set(REPLACEMENTS) <= called.functions


@pytest.mark.parametrize("name", CASES)
def test_the_same_numbers_give_the_same_draws_and_none_else_are_drawn(name):
    with Noise() as recording:
        first = CASES[name]()
    normals, uniforms = recording.recorded(torch.empty(0))
    assert len(normals) + len(uniforms) >= N
    state = torch.get_rng_state()
    with Noise(normals, uniforms) as replay:
        again = CASES[name]()
    assert torch.equal(first, again)
    assert first.dtype == again.dtype
    assert torch.equal(state, torch.get_rng_state())
    assert replay._used == {"normal": len(normals), "uniform": len(uniforms)}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_law_of_continuous_draws(name):
    draw, law = CONTINUOUS[name]
    with Noise():
        value = draw()
    assert stats.kstest(value.numpy(), law.cdf).pvalue > FAILURE_RATE


def test_sparse_shares_are_positive_and_follow_their_law_in_single_precision():
    """Their gamma variates are smaller than any number, and a share of zero would have no density and no gradient."""
    with Noise():
        shares = torch._sample_dirichlet(torch.full((N, 4), 0.01, dtype=torch.float32))
    assert float(shares.min()) >= torch.finfo(torch.float32).tiny
    torch.testing.assert_close(shares.sum(-1), torch.ones(N, dtype=torch.float32))
    large = int((shares[:, 0] > 0.5).sum())
    assert stats.binomtest(large, N, stats.beta(0.01, 0.03).sf(0.5)).pvalue > FAILURE_RATE
    # A share of 1 and three of 0 nearly always: squares sum to (alpha + 1) / (4 alpha + 1) on average.
    squares = shares.square().sum(-1).double()
    assert abs(float(squares.mean()) - 1.01 / 1.04) < Z * float(squares.std()) / math.sqrt(N)


@pytest.mark.parametrize("name", DISCRETE)
def test_the_law_of_discrete_draws(name):
    draw, probabilities = DISCRETE[name]
    with Noise():
        counts = torch.bincount(draw().long().flatten(), minlength=len(probabilities))
    law = torch.tensor(probabilities)
    assert len(counts) == len(law)
    assert int(counts[law == 0].sum()) == 0
    assert stats.chisquare(counts[law > 0], N * law[law > 0]).pvalue > FAILURE_RATE


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_categories_of_probability_zero_are_never_chosen_at_the_edges(dtype):
    """u = 0, and u so near 1 that rounding puts it at the sum."""
    probs = torch.tensor([0.0, 0.1, 0.0, 0.2, 0.7, 0.0, 0.0], dtype=dtype).expand(2, 7)
    edges = torch.tensor([0.0, 1 - torch.finfo(dtype).eps / 2], dtype=dtype)
    with Noise(edges[:0], edges):
        assert torch.multinomial(probs, 1).flatten().tolist() == [1, 4]


@pytest.mark.parametrize("alpha", [0.05, 0.5, 1.0, 3.0, 100.0])
def test_the_gradient_of_gamma_draws_is_torchs(alpha):
    concentration = full(alpha, 500).requires_grad_()
    with Noise():
        value = torch._standard_gamma(concentration)
    (gradient,) = torch.autograd.grad(value.sum(), concentration)
    assert torch.equal(gradient, torch._standard_gamma_grad(concentration.detach(), value.detach()))


def test_gamma_draws_keep_their_law_in_float32_and_stay_positive():
    with Noise():
        value = torch._standard_gamma(torch.full((N,), 0.05, dtype=torch.float32))
    assert bool((value > 0).all())
    # The float32 draws below the smallest normal number are moved up to it.
    kept = value[value > 1e-37].double()
    law = stats.gamma(0.05)
    floor = law.cdf(1e-37)
    assert stats.kstest(kept.numpy(), lambda t: (law.cdf(t) - floor) / (1 - floor)).pvalue > FAILURE_RATE


# Distributions, with the mean and variance of a statistic of theirs where they have no moments of their own.
DISTRIBUTIONS = {
    "Normal": dist.Normal(1.0, 2.0),
    "LogNormal": dist.LogNormal(0.1, 0.3),
    "HalfNormal": dist.HalfNormal(2.0),
    "Bernoulli": dist.Bernoulli(torch.tensor(0.2, dtype=torch.float64)),
    "Categorical": dist.Categorical(CATEGORIES),
    "OneHotCategorical": dist.OneHotCategorical(CATEGORIES),
    "Gamma": dist.Gamma(torch.tensor(0.7, dtype=torch.float64), 2.0),
    "InverseGamma": dist.InverseGamma(torch.tensor(7.0, dtype=torch.float64), 2.0),
    "Chi2": dist.Chi2(torch.tensor(3.0, dtype=torch.float64)),
    "Beta": dist.Beta(torch.tensor(0.5, dtype=torch.float64), 2.0),
    "Dirichlet": dist.Dirichlet(torch.tensor([0.4, 2.0, 1.5], dtype=torch.float64)),
    "Exponential": dist.Exponential(torch.tensor(3.0, dtype=torch.float64)),
    "Laplace": dist.Laplace(1.0, 2.0),
    "Gumbel": dist.Gumbel(1.0, 2.0),
    "Uniform": dist.Uniform(-1.0, 2.0),
    "StudentT": dist.StudentT(torch.tensor(9.0, dtype=torch.float64), 1.0, 2.0),
    "HalfCauchy": dist.HalfCauchy(torch.tensor(2.0, dtype=torch.float64)),
    "Cauchy": dist.Cauchy(torch.tensor(1.0, dtype=torch.float64), 2.0),
    "MultivariateNormal": dist.MultivariateNormal(
        torch.tensor([1.0, -1.0], dtype=torch.float64), torch.tensor([[2.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    ),
}
Z = stats.norm.isf(FAILURE_RATE / 20)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions_draw_from_their_law(name):
    law = DISTRIBUTIONS[name]
    with Noise() as recording:
        value = law.sample((N,)).double()
    assert len(torch.cat(recording.recorded(torch.empty(0)))) >= N, "it did not draw from the noise"
    if name in ("HalfCauchy", "Cauchy"):
        known = stats.halfcauchy(0, 2) if name == "HalfCauchy" else stats.cauchy(1, 2)
        assert stats.kstest(value.numpy(), known.cdf).pvalue > FAILURE_RATE
        return
    if name == "Categorical":
        value, law = nn.functional.one_hot(value.long(), 6).double(), DISTRIBUTIONS["OneHotCategorical"]
    value = value.reshape(N, -1)
    mean, variance = law.mean.double().reshape(-1), law.variance.double().reshape(-1)
    error = (variance / N).sqrt()
    assert bool(((value.mean(0) - mean).abs() <= Z * error).all())
    # The standard error of a variance is that of the mean of squares.
    squares = (value - mean) ** 2
    assert bool(((squares.mean(0) - variance).abs() <= Z * squares.std(0) / math.sqrt(N)).all())


def test_multivariate_draws_are_correlated():
    with Noise():
        value = DISTRIBUTIONS["MultivariateNormal"].sample((N,))
    product = (value[:, 0] - 1) * (value[:, 1] + 1)
    assert abs(product.mean() - 0.6) < Z * product.std() / math.sqrt(N)


def test_other_functions_and_generators_of_their_own_are_left_alone():
    expected = {}
    for key in ("plain", "under"):
        torch.manual_seed(3)
        own = torch.Generator().manual_seed(4)
        with Noise(torch.empty(0), torch.empty(0)) if key == "under" else torch.no_grad():
            expected[key] = [
                torch.poisson(torch.full((5,), 3.0)),
                torch.randperm(7, generator=own),
                torch.randint(9, (5,), generator=own),
                torch.randint_like(torch.ones(5), 9),
                torch.multinomial(torch.ones(6), 3),
                torch.rand(5, generator=own),
                torch.randn(5, generator=own),
                torch.empty(5).normal_(generator=own),
                torch.empty(5).uniform_(generator=own),
                torch.bernoulli(torch.full((5,), 0.5), generator=own),
                torch.multinomial(torch.ones(6), 1, generator=own),
                torch.normal(torch.zeros(5), 1.0, generator=own),
            ]
    assert all(torch.equal(a, b) for a, b in zip(expected["plain"], expected["under"], strict=True))


def test_dropout_that_does_nothing_draws_nothing():
    x = torch.randn(5)
    with Noise(torch.empty(0), torch.empty(0)):
        assert nn.functional.dropout(x, 0.5, training=False) is x
        assert nn.Dropout(0.5).eval()(x) is x


def test_draws_keep_dtype_device_and_gradients():
    with Noise():
        assert torch.randn(3, dtype=torch.float32).dtype == torch.float32
        assert torch.rand((2, 3)).shape == (2, 3)
        assert torch.randn(2, 3, requires_grad=True).requires_grad
        scale = torch.ones(3, requires_grad=True)
        assert not torch.normal(torch.zeros(3), scale).requires_grad  # as torch.normal
        (gradient,) = torch.autograd.grad(dist.Normal(0.0, scale).rsample().sum(), scale)
        assert bool((gradient != 0).all())
