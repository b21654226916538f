"""Posteriors of posteriordb: autoregression, ARMA(1, 1), GARCH(1, 1) and hidden Markov models with two states.

Each function is the Stan model of the same name (github.com/stan-dev/posteriordb, posterior_database/models/stan),
written in Pyro: its arguments are the data by Stan's names (T,), its sites the parameters. Latents may carry batch
dimensions on the left.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import linear, pad

from zoo.chains.forward_backward import log_evidence
from zoo.distributions import Restricted

__all__ = ["arK", "arma11", "garch11", "hmm_drive_1", "hmm_example"]


def arK(y: Tensor, K: int) -> None:
    """An autoregression of order K given the first K values: alpha, beta ~ N(0, 10^2), sigma ~ half-Cauchy(2.5)."""
    alpha = pyro.sample("alpha", dist.Normal(y.new_zeros(()), 10.0))
    beta = pyro.sample("beta", dist.Normal(y.new_zeros(int(K)), 10.0).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfCauchy(y.new_tensor(2.5)))
    lags = y.unfold(0, int(K), 1)[:-1].flip(-1)  # (T - K, K), the latest first
    loc = alpha[..., None] + linear(beta, lags)
    pyro.sample("y", dist.Normal(loc, sigma[..., None]).to_event(1), obs=y[int(K) :])


def _recursion(drive: Tensor, coefficient: Tensor) -> Tensor:
    """e_1 = drive_1, e_t = drive_t + c e_t-1, in log2 T steps.

    With L the lag, e = sum_k c^k L^k drive, and that sum is (1 + c L) (1 + c^2 L^2) (1 + c^4 L^4) ...

    Args:
        drive: (..., T).
        coefficient: c, (...).
    """
    found, power, lag = drive, coefficient[..., None], 1
    while lag < drive.shape[-1]:
        found = found + power * pad(found[..., :-lag], (lag, 0))
        power, lag = power.square(), 2 * lag
    return found


def arma11(y: Tensor) -> None:
    """ARMA(1, 1): errors e_t = y_t - mu - phi y_t-1 - theta e_t-1 ~ N(0, sigma^2), where y_0 = mu and e_0 = 0.

    mu ~ N(0, 10^2), phi, theta ~ N(0, 2^2), sigma ~ half-Cauchy(2.5).
    """
    mu = pyro.sample("mu", dist.Normal(y.new_zeros(()), 10.0))
    phi = pyro.sample("phi", dist.Normal(y.new_zeros(()), 2.0))
    theta = pyro.sample("theta", dist.Normal(y.new_zeros(()), 2.0))
    sigma = pyro.sample("sigma", dist.HalfCauchy(y.new_tensor(2.5)))
    mean, before = mu[..., None], y[:-1].expand(*mu.shape, -1)
    error = _recursion(y - mean - phi[..., None] * torch.cat([mean, before], -1), -theta)
    # y_t given the past is normal around y_t - e_t.
    pyro.sample("y", dist.Normal(y - error, sigma[..., None]).to_event(1), obs=y)


def garch11(y: Tensor, sigma1: float) -> None:
    """GARCH(1, 1): y_t ~ N(mu, s_t^2), s_t^2 = alpha0 + alpha1 (y_t-1 - mu)^2 + beta1 s_t-1^2, s_1 = sigma1.

    mu and alpha0 > 0 are flat; alpha1, beta1 > 0 are so on alpha1 + beta1 < 1, which is a flat Dirichlet of both and
    what is left.
    """
    mu = pyro.sample("mu", dist.ImproperUniform(constraints.real, (), ()))
    alpha0 = pyro.sample("alpha0", dist.ImproperUniform(constraints.positive, (), ()))
    shares = pyro.sample("shares", dist.Dirichlet(y.new_ones(3)))
    alpha1, beta1, _ = shares.unbind(-1)
    pyro.deterministic("alpha1", alpha1)
    pyro.deterministic("beta1", beta1)
    off = (y[:-1] - mu[..., None]).square()
    first = y.new_tensor(float(sigma1) ** 2).expand(*mu.shape, 1)
    variance = _recursion(torch.cat([first, alpha0[..., None] + alpha1[..., None] * off], -1), beta1)
    pyro.sample("y", dist.Normal(mu[..., None], variance.sqrt()).to_event(1), obs=y)


def _hidden_path(rows: list[Tensor], emission: Tensor) -> None:
    """The factor log p(data), the path summed out; the first state is uniform.

    Args:
        rows: Of the transition matrix, (..., K) each.
        emission: Log densities (..., T, K).
    """
    transition = torch.stack(rows, -2).log()
    states, batch = transition.shape[-1], transition.shape[:-2]
    initial = emission.new_full((states,), 1 / states).log()
    if batch:
        flat = torch.vmap(lambda a, b: log_evidence(initial, a, b[None])[0])
        found = flat(transition.flatten(0, -3), emission.flatten(0, -3)).reshape(batch)
    else:
        found = log_evidence(initial, transition, emission[None])[0]
    pyro.factor("path", found)


def _rows(alpha: Tensor) -> list[Tensor]:
    """The two rows of the transition matrix, theta1 and theta2, from Dirichlet priors with parameters alpha (2, 2)."""
    return [pyro.sample(f"theta{k + 1}", dist.Dirichlet(alpha[k])) for k in range(2)]


def hmm_example(y: Tensor) -> None:
    """Two states with Gaussian emissions of variance 1 around mu: mu_1 ~ N(3, 1), mu_2 ~ N(10, 1), 0 < mu_1 < mu_2."""
    rows = _rows(y.new_ones(2, 2))
    prior = dist.Normal(y.new_tensor([3.0, 10.0]), 1.0).to_event(1)
    mu = pyro.sample("mu", Restricted(prior, dist.constraints.positive_ordered_vector))
    _hidden_path(rows, dist.Normal(mu[..., None, :], 1.0).log_prob(y[:, None]))


def hmm_drive_1(u: Tensor, v: Tensor, alpha: Tensor, tau: float, rho: float) -> None:
    """A basketball player's drives: u ~ N(phi, tau^2) is 1 / speed, v ~ N(lambda, rho^2) the distance to the hoop.

    phi and lambda ~ N((0, 3), 1), both ordered; the rows of the transition matrix ~ Dirichlet(alpha).
    """
    rows = _rows(alpha.to(u))
    prior = dist.Normal(u.new_tensor([0.0, 3.0]), 1.0).to_event(1)
    phi, lambda_ = (pyro.sample(name, Restricted(prior, dist.constraints.ordered_vector)) for name in ("phi", "lambda"))
    speed = dist.Normal(phi[..., None, :], float(tau)).log_prob(u[:, None])
    _hidden_path(rows, speed + dist.Normal(lambda_[..., None, :], float(rho)).log_prob(v[:, None]))
