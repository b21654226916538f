"""The annealed likelihood of decoders, where it is known: linear generators, and mixtures of them."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from inference.environment import seeded
from inference.evaluation.annealing import bidirectional
from inference.evaluation.noisy_decoder import NoisyDecoder, choose_sigma, decoder_likelihood
from tests.inference.toys import linear
from zoo import datasets
from zoo.datasets import Data
from zoo.errors import CapabilityError, OptionError
from zoo.implicit.gan import GAN
from zoo.latent.ppca import PPCA
from zoo.program import Implicit, ImplicitProgram

SIGMA = 0.3


class Line(ImplicitProgram):
    """G(a, b) = A a + B b + m of two latents: with noise around it, probabilistic PCA."""

    def __init__(self, weight: Tensor, mean: Tensor, split: int):
        super().__init__()
        self.event_shape, self.split = torch.Size(mean.shape), split
        self.weight, self.mean = torch.nn.Parameter(weight.clone()), torch.nn.Parameter(mean.clone())

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        with self.plate(x, context, size):
            sizes = (self.split, self.weight.shape[1] - self.split)
            parts = [
                pyro.sample(name, dist.Normal(self.mean.new_zeros(k), 1.0).to_event(1))
                for name, k in zip("ab", sizes, strict=True)
            ]
            value = torch.cat(parts, -1) @ self.weight.T + self.mean
            return pyro.sample("x", Implicit(value, 1), obs=x)


class Kinds(ImplicitProgram):
    """G(c, z) = A z + m_c of a code and a latent: with noise around it, a mixture of Gaussians."""

    def __init__(self, weight: Tensor, means: Tensor, one_hot: bool = True):
        super().__init__()
        self.event_shape, self.one_hot = torch.Size([len(weight)]), one_hot
        self.register_buffer("weight", weight)
        self.register_buffer("means", means)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        with self.plate(x, context, size):
            kind: Any = dist.OneHotCategorical if self.one_hot else dist.Categorical
            c = pyro.sample("c", kind(torch.arange(1.0, 4.0) / 6))
            z = pyro.sample("z", dist.Normal(self.weight.new_zeros(self.weight.shape[1]), 1.0).to_event(1))
            # Set beside each other, as networks do, so that both must have the same batch shape.
            mean = torch.cat([c, z], -1)[..., :3] @ self.means if self.one_hot else self.means[c.long()]
            return pyro.sample("x", Implicit(z @ self.weight.T + mean, 1), obs=x)


class Poisson(Kinds):
    """A code with infinitely many values."""

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        with self.plate(x, context, size):
            c = pyro.sample("c", dist.Poisson(torch.tensor(1.0)))
            return pyro.sample("x", Implicit(c[..., None] * self.weight[:, 0], 1), obs=x)


def generator_of(ppca: PPCA, split: int) -> tuple[Line, float]:
    """The generator inside a PPCA, and its noise."""
    return Line(ppca.weight.detach(), ppca.mean.detach(), split), float(ppca.scale.detach())


def test_ppca_as_a_generator_has_ppcas_likelihood() -> None:
    """On 20 test digits under PPCA at maximum likelihood, 10 components, 16 chains, 200 temperatures."""
    digits = datasets.load("digits")
    ppca = PPCA([64], latent_dim=10)
    ppca.maximum_likelihood(digits.train.x.flatten(1))
    generator, sigma = generator_of(ppca, 4)
    test = Data(digits.test.x.flatten(1)[:20])
    found, _ = decoder_likelihood(generator, test, sigma=sigma, chains=16, steps=200)
    exact = ppca.log_prob(test.x).detach()
    assert found.how == "AIS-200x16"
    assert found.bound
    assert abs(found.mean - float(exact.mean())) < 0.5
    # Nothing but Monte Carlo noise separates them, on any example: the worst of 20 at six standard errors.
    assert float(((found.values - exact).abs() - 6 * found.monte_carlo_error).max()) < 0.1


def test_the_bracket_of_simulated_data_holds_the_truth() -> None:
    ppca = linear(6, 3)
    generator, sigma = generator_of(ppca, 1)
    found = bidirectional(NoisyDecoder(generator, sigma), 10, chains=16, steps=60)
    exact = float(ppca.log_prob(found.data.x).detach().mean())
    slack = 4.3 * (found.lower.mean_error + found.upper.mean_error)
    assert found.lower.mean - slack < exact < found.upper.mean + slack
    assert found.width < 0.5


def test_too_few_temperatures_bound_from_below() -> None:
    ppca = linear(6, 3)
    generator, sigma = generator_of(ppca, 1)
    data = Data(ppca.generate(40))
    rough, _ = decoder_likelihood(generator, data, sigma=sigma, chains=1, steps=3)
    assert rough.mean < float(ppca.log_prob(data.x).detach().mean()) - 0.1


@pytest.mark.parametrize("one_hot", [True, False])
def test_codes_are_summed_out(one_hot: bool) -> None:
    with seeded(3):
        weight, means = torch.randn(4, 2), 2 * torch.randn(3, 4)
    program = Kinds(weight, means, one_hot)
    covariance = weight @ weight.T + SIGMA**2 * torch.eye(4)
    parts = torch.distributions.MultivariateNormal(means, covariance)
    with seeded(4):
        x = parts.sample((5,)).flatten(0, 1)
    exact = (parts.log_prob(x[:, None]) + (torch.arange(1.0, 4.0) / 6).log()).logsumexp(1)
    found, _ = decoder_likelihood(program, Data(x), sigma=SIGMA, chains=16, steps=30)
    assert abs(found.mean - float(exact.mean())) < max(0.1, 4.3 * found.mean_error)


def test_the_sigma_under_which_data_are_likeliest_is_chosen() -> None:
    ppca = linear(6, 2)
    generator, sigma = generator_of(ppca, 1)
    data = Data(ppca.generate(200))
    choices = (sigma / 3, sigma, 3 * sigma)
    assert choose_sigma(generator, data, choices, examples=50, chains=4, steps=8) == sigma
    found, chosen = decoder_likelihood(generator, data.rows(slice(0, 2)), data, sigmas=choices[1:], chains=4, steps=10)
    assert chosen == sigma
    assert found.values.shape == (2,)


def test_the_generator_is_left_as_it_was() -> None:
    gan = GAN([4], latent_dim=2, hidden=[3], support="real").train()
    before = gan.state_dict()["last.weight"].clone()
    decoder_likelihood(gan, Data(torch.randn(3, 4)), sigma=SIGMA, chains=2, steps=3)
    assert gan.training
    assert all(p.requires_grad and p.grad is None for p in gan.parameters())
    assert torch.equal(before, gan.last.weight)


def test_what_cannot_be_had_is_refused() -> None:
    gan, x = GAN([4], latent_dim=2, hidden=[]), Data(torch.rand(3, 4))
    with pytest.raises(CapabilityError, match="density of its own"):
        decoder_likelihood(PPCA([4]), x, sigma=SIGMA)
    with pytest.raises(CapabilityError, match="finitely many"):
        decoder_likelihood(Poisson(torch.ones(4, 1), torch.ones(1, 4)), x, sigma=SIGMA)
    with pytest.raises(OptionError, match="Give sigma"):
        decoder_likelihood(gan, x)
    for sigma in (0.0, math.nan):
        with pytest.raises(OptionError, match=r"sigma must be (positive|a finite number)"):
            decoder_likelihood(gan, x, sigma=sigma)
    with pytest.raises(OptionError, match="empty"):
        choose_sigma(gan, x, [])
