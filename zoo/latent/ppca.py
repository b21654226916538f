r"""Probabilistic PCA: the linear variational autoencoder, whose posterior and evidence are exact.

Tipping & Bishop, "Probabilistic principal component analysis", JRSS B 61(3), 1999.

    z ~ N(0, I_k),   x | z ~ N(W z + mu, sigma^2 I_d)   =>   x ~ N(mu, W W' + sigma^2 I)

    z --> x      sites: z (k,) local; x (d,)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.program import Preset, Program

__all__ = ["PPCA"]


class PPCA(Program):
    """Probabilistic PCA with an amortised linear-Gaussian guide (which contains the exact posterior).

    Args:
        event_shape: Shape of one example; flattened to d.
        latent_dim: Number k of components.
    """

    family = "latent"
    paper = "Tipping & Bishop, Probabilistic principal component analysis, 1999"
    presets: ClassVar[Mapping[str, Preset]] = {"small": Preset({"latent_dim": 16}, "svi", {"steps": 2000})}

    def __init__(self, event_shape: list[int] = [8, 8], latent_dim: int = 2):  # noqa: B006 (JSON-like, never changed)
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.latent_dim = latent_dim
        d = self.event_shape.numel()
        self.weight = nn.Parameter(torch.randn(d, latent_dim) / d**0.5)
        self.mean = nn.Parameter(torch.zeros(d))
        self.scale = PyroParam(torch.tensor(1.0), constraint=constraints.positive)
        self.encoder = nn.Linear(d, latent_dim)
        self.encoder_scale = PyroParam(torch.ones(latent_dim), constraint=constraints.positive)

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Starts from the data's mean."""
        self.mean.copy_(x.flatten(1).mean(0))

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """The linear-Gaussian generative program."""
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(self.mean.new_zeros(self.latent_dim), 1.0).to_event(1))
            loc = (z @ self.weight.T + self.mean).unflatten(-1, self.event_shape)
            return pyro.sample("x", dist.Normal(loc, self.scale).to_event(len(self.event_shape)), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(z | x) = N(A x + b, diag(s^2))."""
        assert x is not None
        with self.plate(x, context, size):
            pyro.sample("z", dist.Normal(self.encoder(x.flatten(1)), self.encoder_scale).to_event(1))

    def posterior(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """p(z | x) = N(M^-1 W'(x - mu), sigma^2 M^-1), M = W'W + sigma^2 I (Tipping & Bishop, eq. 9)."""
        assert x is not None
        precision = self.weight.T @ self.weight / self.scale**2 + torch.eye(self.latent_dim).to(self.weight)
        loc = torch.linalg.solve(precision, self.weight.T @ (x.flatten(1) - self.mean).T / self.scale**2).T
        with self.plate(x, context, size):
            pyro.sample("z", dist.MultivariateNormal(loc, precision_matrix=precision))

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log N(x; mu, W W' + sigma^2 I), in O(d k^2)."""
        d = dist.LowRankMultivariateNormal(self.mean, self.weight, (self.scale**2).expand_as(self.mean))
        return d.log_prob(x.flatten(1))
