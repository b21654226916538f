r"""Eight schools: effects of coaching, partially pooled. Centred or not, and exact up to a one-dimensional quadrature.

Rubin, "Estimation in parallel randomized experiments", 1981; Gelman et al., "Bayesian Data Analysis", section 5.5; the
priors are those of posteriordb's eight_schools.

    mu ~ N(0, 5^2),   tau ~ HalfCauchy(5),   theta_i ~ N(mu, tau^2),   x_i ~ N(theta_i, sigma_i^2)

    mu, tau --> theta_i --> x_i <-- sigma_i      sites: mu, tau () global; theta () local; x (); context sigma ()

Not centred, the local site is eta_i ~ N(0, 1), and theta_i = mu + tau eta_i.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from numpy.polynomial.legendre import leggauss
from pyro.nn import PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.options import Positive
from zoo.program import Program

__all__ = ["EightSchools", "TauPosterior"]


class EightSchools(Program):
    """Normal means with known standard errors and a hierarchical prior.

    The guide is q(mu) q(tau) p(theta | mu, tau, x): the schools are conjugate given mu and tau, so it has no parameters
    for them and takes any number of schools.

    Args:
        centered: Samples theta itself; else eta = (theta - mu) / tau, on which samplers do better.
        mu_scale: Prior standard deviation of mu.
        tau_scale: Prior scale of tau.
    """

    family = "bayes"
    paper = "Rubin, Estimation in parallel randomized experiments, 1981"
    dataset = "eight_schools"
    context_support = constraints.positive
    mu_scale: Tensor
    tau_scale: Tensor

    def __init__(self, centered: bool = False, mu_scale: Positive = 5.0, tau_scale: Positive = 5.0):
        super().__init__()
        self.centered = centered
        self.register_buffer("mu_scale", torch.tensor(float(mu_scale)))
        self.register_buffer("tau_scale", torch.tensor(float(tau_scale)))
        self.mu_loc = nn.Parameter(torch.tensor(0.0))
        self.mu_sd = PyroParam(torch.tensor(float(mu_scale)), constraint=constraints.positive)
        self.log_tau_loc = nn.Parameter(torch.tensor(0.0))
        self.log_tau_sd = PyroParam(torch.tensor(1.0), constraint=constraints.positive)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """The hierarchical prior, and x with known standard errors."""
        assert context is not None
        mu = pyro.sample("mu", dist.Normal(torch.zeros_like(self.mu_scale), self.mu_scale))
        tau = pyro.sample("tau", dist.HalfCauchy(self.tau_scale))
        with self.plate(x, context, size):
            if self.centered:
                theta = pyro.sample("theta", dist.Normal(mu, tau))
            else:
                theta = mu + tau * pyro.sample("eta", dist.Normal(torch.zeros_like(mu), 1.0))
            return pyro.sample("x", dist.Normal(theta, context), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(mu) q(tau) p(theta | mu, tau, x), Normal and LogNormal."""
        mu = pyro.sample("mu", dist.Normal(self.mu_loc, self.mu_sd))
        tau = pyro.sample("tau", dist.LogNormal(self.log_tau_loc, self.log_tau_sd))
        self._schools(mu, tau, x, context, size)

    def _schools(self, mu: Tensor, tau: Tensor, x: Tensor | None, sigma: Tensor | None, size: int | None) -> None:
        assert x is not None
        assert sigma is not None
        with self.plate(x, sigma, size):
            loc, scale = eta_given_globals(mu, tau, x, sigma)
            if self.centered:
                pyro.sample("theta", dist.Normal(mu + tau * loc, tau * scale))
            else:
                pyro.sample("eta", dist.Normal(loc, scale))

    def posterior(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """p(tau | x) p(mu | tau, x) p(theta | mu, tau, x): by quadrature, Normal, Normal."""
        assert x is not None
        assert context is not None
        tau = pyro.sample("tau", TauPosterior(x, context, mu_scale=self.mu_scale, tau_scale=self.tau_scale))
        mu = pyro.sample("mu", dist.Normal(*mu_given_tau(tau, x, context, self.mu_scale)))
        self._schools(mu, tau, x, context, size)

    def log_evidence(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x | sigma), by Gauss-Legendre quadrature over tau; the rest is Gaussian."""
        assert context is not None
        return TauPosterior(x, context, mu_scale=self.mu_scale, tau_scale=self.tau_scale).log_evidence

    def transformed(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The schools' effects {'theta'} from latent values, in either parametrisation.

        Args:
            values: Sites as `inference.particles.draw` gives them: local (S, B), global (S, 1).
        """
        return {"theta": values["theta"] if self.centered else values["mu"] + values["tau"] * values["eta"]}

    def example_context(self, n: int) -> Tensor:
        """Standard errors between 9 and 18, as in the original data."""
        return torch.linspace(9.0, 18.0, n).to(self.mu_scale)


def eta_given_globals(mu: Tensor, tau: Tensor, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of p(eta_i | mu, tau, x_i); in eta, nothing is singular at tau = 0."""
    precision = 1 + (tau / sigma) ** 2
    return tau * (x - mu) / sigma**2 / precision, precision.rsqrt()


def mu_given_tau(tau: Tensor, x: Tensor, sigma: Tensor, mu_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of p(mu | tau, x) (BDA, eq. 5.20, with a proper prior), in the shape of tau."""
    weights = 1 / (sigma**2 + tau[..., None] ** 2)
    precision = weights.sum(-1) + mu_scale**-2
    return (weights * x).sum(-1) / precision, precision.rsqrt()


class TauPosterior(dist.TorchDistribution):
    """p(tau | x): its density is exact, its draws invert the distribution function on a grid.

    In u = F(tau), F the prior's distribution function, the prior is uniform on [0, 1], and the posterior density is the
    likelihood over the evidence: smooth, and integrated by Gauss-Legendre to rounding error.

    Args:
        x: Effects (B,).
        sigma: Standard errors (B,).
        mu_scale: Prior standard deviation of mu, ().
        tau_scale: Prior scale of tau, ().
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.positive
    nodes: ClassVar[int] = 200
    cells: ClassVar[int] = 10_000

    def __init__(self, x: Tensor, sigma: Tensor, mu_scale: Tensor, tau_scale: Tensor):
        self.x, self.sigma, self.mu_scale, self.tau_scale = x, sigma, mu_scale, tau_scale
        self.prior = dist.HalfCauchy(tau_scale, validate_args=False)
        self.tau, self.log_weight = self._quadrature()
        self.log_evidence = (self.log_weight + self.log_likelihood(self.tau)).logsumexp(0)
        super().__init__(validate_args=False)

    def log_likelihood(self, tau: Tensor) -> Tensor:
        """log p(x | tau) = log N(x; 0, diag(sigma^2 + tau^2) + mu_scale^2 1 1'), in the shape of tau."""
        factor = self.mu_scale * torch.ones_like(self.x)[:, None]
        diagonal = self.sigma**2 + tau[..., None] ** 2
        return dist.LowRankMultivariateNormal(torch.zeros_like(self.x), factor, diagonal).log_prob(self.x)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(tau) + log p(x | tau) - log p(x)."""
        return self.prior.log_prob(value) + self.log_likelihood(value) - self.log_evidence

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Inverts the distribution function; inside a cell of width 1e-4 in u, the density is taken as constant."""
        with torch.no_grad():
            middle = (torch.arange(self.cells).to(self.x) + 0.5) / self.cells
            mass = (self.log_likelihood(self._tau(middle)) - self.log_evidence).exp()
            cell = torch.multinomial(mass, max(1, math.prod(sample_shape)), replacement=True).to(self.x)
            u = (cell + torch.rand_like(cell)) / self.cells
            return self._tau(u).reshape(sample_shape)

    def moment(self, values: Tensor) -> Tensor:
        """E[f(tau) | x] from the values of f at `self.tau`, (nodes, ...) -> (...)."""
        weight = (self.log_weight + self.log_likelihood(self.tau) - self.log_evidence).exp()
        return torch.tensordot(weight, values, 1)

    def _tau(self, u: Tensor) -> Tensor:
        return self.tau_scale * torch.tan(0.5 * math.pi * u)

    def _quadrature(self) -> tuple[Tensor, Tensor]:
        points, weights = (torch.from_numpy(a).to(self.x) for a in leggauss(self.nodes))
        return self._tau(0.5 * (points + 1)), (0.5 * weights).log()
