"""Posteriors of posteriordb: a mixture of two Gaussians, a Gaussian process with counts, Lotka-Volterra.

Each function is the Stan model of the same name (github.com/stan-dev/posteriordb, posterior_database/models/stan),
written in Pyro: its arguments are the data by Stan's names (N,), its sites the parameters. Latents may carry batch
dimensions on the left.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from zoo.distributions import Restricted

__all__ = ["gp_pois_regr", "lotka_volterra", "low_dim_gauss_mix"]


def low_dim_gauss_mix(y: Tensor) -> None:
    """Two Gaussians: mu ~ N(0, 2^2), ordered; sigma ~ half-N(0, 2^2); theta ~ Beta(5, 5) is the weight of the first."""
    prior = dist.Normal(y.new_zeros(2), 2.0).to_event(1)
    mu = pyro.sample("mu", Restricted(prior, dist.constraints.ordered_vector))
    sigma = pyro.sample("sigma", dist.HalfNormal(y.new_full((2,), 2.0)).to_event(1))
    theta = pyro.sample("theta", dist.Beta(y.new_tensor(5.0), 5.0))
    weight = torch.stack([theta, 1 - theta], -1)[..., None, :].expand(*theta.shape, len(y), 2)
    each = dist.Normal(mu[..., None, :].expand_as(weight), sigma[..., None, :])
    pyro.sample("y", dist.MixtureSameFamily(dist.Categorical(weight), each).to_event(1), obs=y)


def gp_pois_regr(x: Tensor, k: Tensor) -> None:
    """Counts k ~ Poisson(e^f) of a Gaussian process f with covariance alpha^2 exp(-(x - x')^2 / (2 rho^2)).

    rho ~ Gamma(25, 4), alpha ~ half-N(0, 2^2), f = L f_tilde with f_tilde ~ N(0, 1), L the factor of the covariance.
    The jitter is Stan's, 1e-10: this is for float64.
    """
    x, k = (value.to(torch.get_default_dtype()) for value in (x, k))
    rho = pyro.sample("rho", dist.Gamma(x.new_tensor(25.0), 4.0))
    alpha = pyro.sample("alpha", dist.HalfNormal(x.new_tensor(2.0)))
    f_tilde = pyro.sample("f_tilde", dist.Normal(torch.zeros_like(x), 1.0).to_event(1))
    off = ((x[:, None] - x) / rho[..., None, None]).square()
    covariance = alpha[..., None, None].square() * (-off / 2).exp() + 1e-10 * torch.eye(len(x)).to(x)
    f = (torch.linalg.cholesky(covariance) * f_tilde[..., None, :]).sum(-1)
    pyro.deterministic("f", f)
    pyro.sample("k", dist.Poisson(f.exp()).to_event(1), obs=k)


STEPS = 10
"""Of the solver from one year of data to the next."""


def _path(speed: Callable[[Tensor], Tensor], start: Tensor, times: Tensor) -> Tensor:
    """Where z of dz/dt = speed(z), start (..., D) at time 0, is at times (T,): (..., T, D), by Runge & Kutta.

    Not by torchdiffeq, which writes into a tensor in place: under vmap, by which many particles take one run, it fails.
    """
    z, found = start, []
    for step in (torch.diff(times, prepend=times.new_zeros(1)) / STEPS).unbind():
        for _ in range(STEPS):
            first = speed(z)
            second = speed(z + step / 2 * first)
            third = speed(z + step / 2 * second)
            z = z + step / 6 * (first + 2 * (second + third) + speed(z + step * third))
        found.append(z)
    return torch.stack(found, -2)


def lotka_volterra(ts: Tensor, y_init: Tensor, y: Tensor) -> None:
    """Pelts y (N, 2) of hares and lynxes at years ts (N,) and y_init (2,) at year 0, around populations z.

    du/dt = (alpha - beta v) u, dv/dt = (-gamma + delta u) v with theta = (alpha, beta, gamma, delta), z(0) = z_init;
    log y ~ N(log z, sigma^2). theta ~ N((1, 0.05, 1, 0.05), (0.5, 0.05, 0.5, 0.05)^2), positive; log z_init ~
    N(log 10, 1), log sigma ~ N(-1, 1).

    Solved by Runge and Kutta's method of fourth order in log z, which keeps populations positive. Stan's solver has a
    relative error of 1e-5; this one's is smaller by far.
    """
    loc = y.new_tensor([1.0, 0.05, 1.0, 0.05])
    scale = y.new_tensor([0.5, 0.05, 0.5, 0.05])
    positive = constraints.independent(constraints.positive, 1)
    theta = pyro.sample("theta", Restricted(dist.Normal(loc, scale).to_event(1), positive))
    z_init = pyro.sample("z_init", dist.LogNormal(y.new_full((2,), math.log(10.0)), 1.0).to_event(1))
    sigma = pyro.sample("sigma", dist.LogNormal(y.new_full((2,), -1.0), 1.0).to_event(1))

    alpha, beta, gamma, delta = theta.unbind(-1)
    alone, other = torch.stack([alpha, -gamma], -1), torch.stack([-beta, delta], -1)
    start = z_init.log()
    path = _path(lambda log_z: alone + other * log_z.flip(-1).exp(), start, ts.to(y))
    pyro.sample("y_init", dist.LogNormal(start, sigma).to_event(1), obs=y_init)
    pyro.sample("y", dist.LogNormal(path, sigma[..., None, :]).to_event(2), obs=y)
