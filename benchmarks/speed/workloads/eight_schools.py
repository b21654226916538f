"""Eight schools, not centred, with a mean-field normal guide over (mu, log tau, eta), by every contender.

Ours and Pyro's take AutoNormal, NumPyro its own: all three hold softplus scales and start from the same values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal, init_to_value
from torch import Tensor, nn

from benchmarks.speed.contender import (
    Contender,
    Work,
    numpyro_contenders,
    pyro_contender,
    torch_contenders,
    zoo_contenders,
)
from zoo import datasets
from zoo.bayes.eight_schools import EightSchools
from zoo.program import Program

__all__ = ["contenders", "work"]

INIT_SCALE = 0.1


def work(device: str = "cpu", seed: int = 0, lr: float = 0.01) -> Work:
    """All eight rows a step."""
    data = datasets.load("eight_schools").train.to(torch.device(device), torch.float32)
    return Work(data, 8, lr, seed=seed, facts={"estimator": "one draw of the ELBO"})


def contenders(job: Work) -> list[Contender]:
    """Everyone."""
    return [
        *zoo_contenders(lambda: by_zoo(job), job),
        pyro_contender(by_pyro_of(job), job, job.data.size, "AutoNormal, Trace_ELBO, Adam"),
        *torch_contenders(lambda: by_torch(job), job),
        *numpyro_contenders(by_numpyro, job, job.data.size, "AutoNormal, Trace_ELBO"),
    ]


def start(like: Tensor) -> dict[str, Tensor]:
    """The medians that guides start from."""
    return {"mu": like.new_zeros(()), "tau": like.new_ones(()), "eta": like.new_zeros(8)}


def by_zoo(job: Work) -> tuple[Program, Mapping[str, Any]]:
    """The program of the zoo under AutoNormal."""
    program = EightSchools().to(job.device)
    guide = AutoNormal(program.model, init_loc_fn=init_to_value(values=start(job.data.x)), init_scale=INIT_SCALE)
    guide(*job.data, None)
    return program, {"guide": guide, "elbo": "trace"}


def by_pyro_of(job: Work) -> Any:
    """Plain Pyro."""

    def model(x: Tensor, context: Tensor) -> None:
        zero = x.new_zeros(())
        mu = pyro.sample("mu", dist.Normal(zero, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(zero + 5.0))
        with pyro.plate("schools", 8):
            eta = pyro.sample("eta", dist.Normal(zero, 1.0))
            pyro.sample("y", dist.Normal(mu + tau * eta, context), obs=x)

    def make() -> tuple[Any, Any, Trace_ELBO]:
        guide = AutoNormal(model, init_loc_fn=init_to_value(values=start(job.data.x)), init_scale=INIT_SCALE)
        return model, guide, Trace_ELBO()

    return make


def by_torch(job: Work) -> tuple[list[nn.Parameter], Any]:
    """Ten numbers and their scales."""
    loc = nn.Parameter(job.data.x.new_zeros(10))
    raw = nn.Parameter(torch.full_like(loc, math.log(math.expm1(INIT_SCALE))))
    # Constants of the densities: eight likelihoods, a half-Cauchy, and as many normal priors as guides, which cancel.
    constant = -4 * math.log(2 * math.pi) - math.log(5.0) + math.log(2 / math.pi) - math.log(5.0)

    def loss(x: Tensor, context: Tensor | None) -> Tensor:
        assert context is not None
        scale, noise = F.softplus(raw), torch.randn(10, device=x.device)
        z = loc + scale * noise
        mu, log_tau, eta = z[0], z[1], z[2:]
        tau = log_tau.exp()
        prior = -0.5 * (mu / 5.0) ** 2 - torch.log1p((tau / 5.0) ** 2) + log_tau - 0.5 * (eta * eta).sum()
        # One normal density less in the prior than in the guide: tau has none.
        entropy = scale.log().sum() + 0.5 * (noise * noise).sum() + 0.5 * math.log(2 * math.pi)
        residual = (x - mu - tau * eta) / context
        likelihood = -0.5 * (residual * residual).sum() - context.log().sum()
        return -(prior + likelihood + entropy + constant) / 8

    return [loc, raw], loss


def by_numpyro() -> tuple[Any, Any, Any]:
    """Plain NumPyro."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as npd
    from numpyro.infer import Trace_ELBO as Elbo
    from numpyro.infer import autoguide
    from numpyro.infer import init_to_value as start_at

    def model(x: Any, context: Any) -> None:
        mu = numpyro.sample("mu", npd.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", npd.HalfCauchy(5.0))
        with numpyro.plate("schools", 8):
            eta = numpyro.sample("eta", npd.Normal(0.0, 1.0))
            numpyro.sample("y", npd.Normal(mu + tau * eta, context), obs=x)

    values = {"mu": jnp.zeros(()), "tau": jnp.ones(()), "eta": jnp.zeros(8)}
    return model, autoguide.AutoNormal(model, init_loc_fn=start_at(values=values), init_scale=INIT_SCALE), Elbo()
