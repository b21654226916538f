"""A Gaussian mixture with diagonal covariances by gradient, the component summed out, by every contender."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import Tensor, nn
from torch.distributions import constraints

from benchmarks.speed.contender import (
    Contender,
    Work,
    numpyro_contenders,
    pyro_contender,
    torch_contenders,
    zoo_contenders,
)
from zoo.datasets import Data
from zoo.mixtures.gaussian import GaussianMixture
from zoo.program import Program

__all__ = ["contenders", "work"]


def work(
    device: str = "cpu",
    seed: int = 0,
    n: int = 10_000,
    d: int = 16,
    k: int = 8,
    batch_size: int = 1000,
    lr: float = 0.01,
) -> Work:
    """N rows around K centres of norm about 2 sqrt(D), with unit noise."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(k, d, generator=generator, dtype=torch.float32)
    member = torch.randint(k, (n,), generator=generator)
    x = centres[member] + torch.randn(n, d, generator=generator, dtype=torch.float32)
    facts = {"d": d, "k": k, "estimator": "exact log-likelihood"}
    return Work(Data(x.to(torch.device(device))), batch_size, lr, seed=seed, facts=facts)


def contenders(job: Work) -> list[Contender]:
    """Everyone."""
    return [
        *zoo_contenders(lambda: by_zoo(job), job),
        pyro_contender(
            lambda: by_pyro(job), job, job.batch_size, "component enumerated in parallel, TraceEnum_ELBO, Adam"
        ),
        *torch_contenders(lambda: by_torch(job), job, "logsumexp over (batch, K, D)"),
        *numpyro_contenders(
            lambda: by_numpyro(job), job, job.batch_size, "MixtureSameFamily (TraceEnum_ELBO needs funsor), Trace_ELBO"
        ),
    ]


def by_zoo(job: Work) -> tuple[Program, Mapping[str, Any]]:
    """The program of the zoo, its component enumerated."""
    program = GaussianMixture([job.data.x.shape[1]], job.facts["k"], "diagonal")
    with torch.no_grad():
        program.means.copy_(job.data.x[: job.facts["k"]])
    return program, {"elbo": "enum"}


def by_pyro(job: Work) -> tuple[Any, Any, TraceEnum_ELBO]:
    """Plain Pyro."""
    start, k = job.data.x[: job.facts["k"]], job.facts["k"]

    @config_enumerate
    def model(x: Tensor, context: None) -> None:
        logits = pyro.param("logits", lambda: start.new_zeros(k))
        means = pyro.param("means", lambda: start.clone())
        scales = pyro.param("scales", lambda: torch.ones_like(start), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(logits=logits))
            pyro.sample("x", dist.Normal(means[z], scales[z]).to_event(1), obs=x)

    return model, lambda x, context: None, TraceEnum_ELBO(max_plate_nesting=1)


def by_torch(job: Work) -> tuple[list[nn.Parameter], Any]:
    """Three parameters and the log-likelihood."""
    start = job.data.x[: job.facts["k"]]
    logits, means = nn.Parameter(start.new_zeros(len(start))), nn.Parameter(start.clone())
    log_scales = nn.Parameter(torch.zeros_like(start))
    constant = start.shape[1] / 2 * math.log(2 * math.pi)

    def loss(x: Tensor, context: Tensor | None) -> Tensor:
        # About differences: the expansion into matrix products cancels in float32.
        squares = ((x[:, None] - means) * (-log_scales).exp()).square().sum(-1)
        joint = logits.log_softmax(-1) - log_scales.sum(-1) - squares / 2
        return constant - joint.logsumexp(-1).mean()

    return [logits, means, log_scales], loss


def by_numpyro(job: Work) -> tuple[Any, Any, Any]:
    """Plain NumPyro."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as npd
    from numpyro.infer import Trace_ELBO as Elbo

    start = jnp.asarray(job.data.x[: job.facts["k"]].cpu().numpy())

    def model(x: Any, context: None = None) -> None:
        logits = numpyro.param("logits", jnp.zeros(len(start)))
        means = numpyro.param("means", start)
        scales = numpyro.param("scales", jnp.ones_like(start), constraint=npd.constraints.positive)
        with numpyro.plate("data", len(x)):
            component = npd.Normal(means, scales).to_event(1)
            numpyro.sample("x", npd.MixtureSameFamily(npd.Categorical(logits=logits), component), obs=x)

    return model, lambda x, context=None: None, Elbo()
