"""Posteriors of posteriordb: linear regressions, flat or weakly informed, and the eight schools.

Each function is the Stan model of the same name (github.com/stan-dev/posteriordb, posterior_database/models/stan),
written in Pyro: its arguments are the data by Stan's names (N,), its sites the parameters. Weights (D,), sigma ().
Latents may carry batch dimensions on the left.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import linear

__all__ = [
    "blr", "diamonds", "eight_schools_noncentered", "kidscore_interaction", "kidscore_momhs", "kilpisjarvi",
    "logearn_interaction_z", "logmesquite", "mesquite", "nes",
]  # fmt: skip


def _design(*columns: Tensor) -> Tensor:
    """An intercept and the columns (N,), side by side (N, D), in floating point."""
    columns = tuple(column.to(torch.get_default_dtype()) for column in columns)
    return torch.stack([torch.ones_like(columns[0]), *columns], -1)


def _observe(name: str, y: Tensor, design: Tensor, beta: Tensor, sigma: Tensor) -> None:
    """y ~ N(design beta, sigma^2)."""
    pyro.sample(name, dist.Normal(linear(beta, design), sigma[..., None]).to_event(1), obs=y.to(design))


def _flat_regression(name: str, y: Tensor, design: Tensor) -> None:
    """Flat weights and a flat positive sigma."""
    beta = pyro.sample("beta", dist.ImproperUniform(constraints.real_vector, (), design.shape[-1:]))
    sigma = pyro.sample("sigma", dist.ImproperUniform(constraints.positive, (), ()))
    _observe(name, y, design, beta, sigma)


def blr(X: Tensor, y: Tensor) -> None:
    """beta ~ N(0, 10^2), sigma ~ half-N(0, 10^2), y ~ N(X beta, sigma^2)."""
    beta = pyro.sample("beta", dist.Normal(X.new_zeros(X.shape[-1]), 10.0).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(X.new_tensor(10.0)))
    _observe("y", y, X, beta, sigma)


def _cauchy_regression(kid_score: Tensor, design: Tensor) -> None:
    """Flat weights, sigma ~ half-Cauchy(2.5)."""
    beta = pyro.sample("beta", dist.ImproperUniform(constraints.real_vector, (), design.shape[-1:]))
    sigma = pyro.sample("sigma", dist.HalfCauchy(design.new_tensor(2.5)))
    _observe("kid_score", kid_score, design, beta, sigma)


def kidscore_momhs(kid_score: Tensor, mom_hs: Tensor) -> None:
    """Test scores of children by whether the mother finished high school (Gelman & Hill 2006)."""
    _cauchy_regression(kid_score, _design(mom_hs))


def kidscore_interaction(kid_score: Tensor, mom_hs: Tensor, mom_iq: Tensor) -> None:
    """Test scores of children by the mother's high school and IQ, with their product (Gelman & Hill 2006)."""
    _cauchy_regression(kid_score, _design(mom_hs, mom_iq, mom_hs * mom_iq))


def kilpisjarvi(x: Tensor, y: Tensor, pmualpha: float, psalpha: float, pmubeta: float, psbeta: float) -> None:
    """Summer temperatures by year: alpha ~ N(pmualpha, psalpha^2), beta ~ N(pmubeta, psbeta^2), sigma flat.

    The years are not centred, so alpha and beta are almost one number.
    """
    design = _design(x)
    alpha = pyro.sample("alpha", dist.Normal(design.new_tensor(float(pmualpha)), float(psalpha)))
    beta = pyro.sample("beta", dist.Normal(design.new_tensor(float(pmubeta)), float(psbeta)))
    sigma = pyro.sample("sigma", dist.ImproperUniform(constraints.positive, (), ()))
    _observe("y", y, design, torch.stack([alpha, beta], -1), sigma)


def logearn_interaction_z(earn: Tensor, height: Tensor, male: Tensor) -> None:
    """Log earnings by standardised height and sex, with their product (Gelman & Hill 2006)."""
    z = _design(height)[:, 1]
    z = (z - z.mean()) / z.std()
    _flat_regression("log_earn", earn.log(), _design(z, male, z * male))


def mesquite(
    weight: Tensor, diam1: Tensor, diam2: Tensor, canopy_height: Tensor, total_height: Tensor, density: Tensor,
    group: Tensor,
) -> None:  # fmt: skip
    """Leaf weights of mesquite bushes by their measures (Gelman & Hill 2006)."""
    _flat_regression("weight", weight, _design(diam1, diam2, canopy_height, total_height, density, group))


def logmesquite(
    weight: Tensor, diam1: Tensor, diam2: Tensor, canopy_height: Tensor, total_height: Tensor, density: Tensor,
    group: Tensor,
) -> None:  # fmt: skip
    """The same on logarithms."""
    logs = [column.log() for column in (diam1, diam2, canopy_height, total_height, density)]
    _flat_regression("log_weight", weight.log(), _design(*logs, group))


def nes(
    partyid7: Tensor, real_ideo: Tensor, race_adj: Tensor, educ1: Tensor, gender: Tensor, income: Tensor,
    age_discrete: Tensor,
) -> None:  # fmt: skip
    """Party identification by ideology, race, age group, education, gender and income (National Election Study)."""
    ages = [age_discrete == group for group in (2, 3, 4)]
    _flat_regression("partyid7", partyid7, _design(real_ideo, race_adj, *ages, educ1, gender, income))


def diamonds(Y: Tensor, X: Tensor) -> None:
    """Log prices of diamonds by 24 covariates, which are centred here; X has the intercept as its first column (brms).

    b ~ N(0, 1), Intercept ~ t_3(8, 10), sigma ~ half-t_3(0, 10).
    """
    centred = X[:, 1:] - X[:, 1:].mean(0)
    b = pyro.sample("b", dist.Normal(torch.zeros_like(centred[0]), 1.0).to_event(1))
    intercept = pyro.sample("Intercept", dist.StudentT(X.new_tensor(3.0), 8.0, 10.0))
    folded = dist.FoldedDistribution(dist.StudentT(X.new_tensor(3.0), 0.0, 10.0))
    sigma = pyro.sample("sigma", folded)
    design = torch.cat([torch.ones_like(centred[:, :1]), centred], -1)
    _observe("Y", Y, design, torch.cat([intercept[..., None], b], -1), sigma)


def eight_schools_noncentered(y: Tensor, sigma: Tensor) -> None:
    """Effects of coaching in eight schools, theta = mu + tau theta_trans (Rubin 1981)."""
    y, sigma = (value.to(torch.get_default_dtype()) for value in (y, sigma))
    mu = pyro.sample("mu", dist.Normal(sigma.new_zeros(()), 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(sigma.new_tensor(5.0)))
    theta_trans = pyro.sample("theta_trans", dist.Normal(torch.zeros_like(sigma), 1.0).to_event(1))
    theta = pyro.deterministic("theta", mu[..., None] + tau[..., None] * theta_trans)
    pyro.sample("y", dist.Normal(theta, sigma).to_event(1), obs=y)
