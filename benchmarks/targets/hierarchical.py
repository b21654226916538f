"""Eight schools, the hierarchical target: Gaussian given tau, and a one-dimensional quadrature over tau."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from benchmarks.targets.target import Target
from zoo import datasets
from zoo.bayes.eight_schools import EightSchools, TauPosterior, mu_given_tau

__all__ = ["eight_schools"]


@torch.no_grad()
def eight_schools(centered: bool) -> Target:
    """Effects of coaching in eight schools."""
    what = (
        "Effects of coaching in eight schools (Rubin 1981; Gelman et al., Bayesian Data Analysis, section 5.5) with "
        "the priors of posteriordb's eight_schools; "
        + ("centred: local site theta." if centered else "local site eta.")
    )
    data = datasets.load("eight_schools").train
    program = EightSchools(centered)
    mean, sd = {}, {}
    for site, (first, second) in moments_by_tau(program, data.x, data.context).items():
        mean[site], sd[site] = first, (second - first**2).sqrt()
    name = "eight-schools-centered" if centered else "eight-schools"
    return Target(
        name, what, "quadrature", program=partial(EightSchools, centered), data=data,
        log_evidence=program.log_evidence(*data), posterior=program.posterior,
        mean={s: mean[s] for s in program.sites()}, sd={s: sd[s] for s in program.sites()},
    )  # fmt: skip


def moments_by_tau(program: EightSchools, x: Tensor, sigma: Tensor | None) -> dict[str, tuple[Tensor, Tensor]]:
    """First and second posterior moments of mu, tau, eta and theta: exact given tau, then averaged over it."""
    assert sigma is not None
    q = TauPosterior(x, sigma, program.mu_scale, tau_scale=program.tau_scale)
    m, s = (value[:, None] for value in mu_given_tau(q.tau, x, sigma, program.mu_scale))
    tau = q.tau[:, None]
    # Given mu and tau, eta_i is Gaussian with mean slope (x_i - mu) and variance `noise`; theta_i = mu + tau eta_i.
    noise = 1 / (1 + (tau / sigma) ** 2)
    slope = tau / sigma**2 * noise
    eta = slope * (x - m)
    theta = m + tau * eta
    variance = {
        "mu": s**2,
        "tau": torch.zeros_like(tau),
        "eta": noise + (slope * s) ** 2,
        "theta": tau**2 * noise + ((1 - tau * slope) * s) ** 2,
    }
    centre = {"mu": m, "tau": tau, "eta": eta, "theta": theta}
    found = {}
    for site, value in centre.items():
        first, second = q.moment(value), q.moment(value**2 + variance[site])
        found[site] = (first[0], second[0]) if site in ("mu", "tau") else (first, second)
    return found
