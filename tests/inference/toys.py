"""Small programs with everything known, on which the estimators are judged."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from inference.evaluation.estimates import Estimate
from zoo.latent.ppca import PPCA
from zoo.program import Implicit, ImplicitProgram, Program


def linear(d: int = 5, k: int = 2, noise: float = 0.7) -> PPCA:
    """PPCA with correlated latents; its guide is off, as an unfitted one is."""
    program = PPCA([d], k)
    with torch.no_grad():
        program.weight.copy_(torch.randn(d, k))
        program.mean.copy_(torch.randn(d))
        program.encoder.weight.mul_(0.3)
    program.scale = torch.tensor(noise)
    program.encoder_scale = torch.full((k,), 0.6)
    return program


def posterior_moments(program: PPCA, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, k) and covariance (k, k) of p(z | x), from the textbook."""
    w, variance = program.weight.detach(), program.scale.detach() ** 2
    m = w.T @ w + variance * torch.eye(w.shape[1])
    return torch.linalg.solve(m, w.T @ (x - program.mean.detach()).T).T, variance * torch.linalg.inv(m)


class Rate(Program):
    """rate ~ Gamma(2, 1), x | rate ~ Poisson(rate): a local latent on the half-line."""

    event_shape = torch.Size([])
    support = constraints.nonnegative_integer

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.6))

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        with self.plate(x, context, size):
            rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0), torch.tensor(1.0)))
            return pyro.sample("x", dist.Poisson(rate), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        assert x is not None
        with self.plate(x, context, size):
            # Wider than the posterior, Gamma(x + 2, 2), so that importance weights are bounded and have a variance.
            pyro.sample("rate", dist.Gamma((x + 2) * self.weight, 2 * self.weight))

    def posterior(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        assert x is not None
        with self.plate(x, context, size):
            pyro.sample("rate", dist.Gamma(x + 2, torch.tensor(2.0)))

    def evidence(self, x: Tensor) -> Tensor:
        """Negative binomial; not called log_prob, so that the estimators have to work."""
        return dist.GammaPoisson(torch.tensor(2.0), torch.tensor(1.0)).log_prob(x)


class Mean(Program):
    """mu ~ N(0, 1), x_i | mu ~ N(mu, 1): a global latent ties the examples."""

    event_shape = torch.Size([])

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(0.3))
        self.log_scale = nn.Parameter(torch.tensor(-0.5))

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        mu = pyro.sample("mu", dist.Normal(torch.tensor(0.0), 1.0))
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        pyro.sample("mu", dist.Normal(self.loc, self.log_scale.exp()))

    def posterior(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        assert x is not None
        n = len(x)
        pyro.sample("mu", dist.Normal(x.sum() / (n + 1), torch.tensor(1.0 / (n + 1)).sqrt()))

    def evidence(self, x: Tensor) -> Tensor:
        n = len(x)
        return dist.MultivariateNormal(torch.zeros(n), torch.eye(n) + 1).log_prob(x)


class Pair(Program):
    """z ~ N(0, 1), scale ~ Gamma(3, 1), x | z ~ N(z, scale): a global and a local site together."""

    event_shape = torch.Size([])

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        scale = pyro.sample("scale", dist.Gamma(torch.tensor(3.0), torch.tensor(1.0)))
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))
            return pyro.sample("x", dist.Normal(z, scale), obs=x)


class Sampler(ImplicitProgram):
    """A generator without a density."""

    event_shape = torch.Size([2])

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            return pyro.sample("x", Implicit(z**2, 1), obs=x)


SIGMAS = 4.3  # two-sided failure rate 2e-5, the suite's


def gaussian_kl(loc, scale, mean, covariance):
    """KL(N(loc, diag scale^2) || N(mean, covariance)) by row."""
    q = torch.distributions.MultivariateNormal(loc, torch.diag_embed(scale.square().expand_as(loc)))
    p = torch.distributions.MultivariateNormal(mean, covariance)
    return torch.distributions.kl_divergence(q, p), torch.distributions.kl_divergence(p, q)


def within(estimate: Estimate, truth: torch.Tensor, units: float = SIGMAS) -> bool:
    """Whether the mean over units is within its Monte Carlo error."""
    return abs(estimate.mean - float(truth.mean())) < units * estimate.mean_error
