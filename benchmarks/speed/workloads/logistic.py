"""Bayesian logistic regression on generated data, mean-field normal guide, minibatches, by every contender."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.infer import Trace_ELBO
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
from zoo.bayes.logistic import LogisticRegression
from zoo.datasets import Data
from zoo.program import Program

__all__ = ["contenders", "work"]

BIAS_SCALE = 5.0


def work(
    device: str = "cpu", seed: int = 0, n: int = 10_000, d: int = 50, batch_size: int = 1000, lr: float = 0.01
) -> Work:
    """N rows of D standard normal features, labels from weights of norm about 2."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(n, d, generator=generator, dtype=torch.float32)
    weights = 2 * torch.randn(d, generator=generator, dtype=torch.float32) / d**0.5
    x = torch.rand(n, generator=generator, dtype=torch.float32).lt((context @ weights + 0.5).sigmoid()).float()
    data = Data(x, context).to(torch.device(device))
    return Work(data, batch_size, lr, seed=seed, facts={"d": d, "estimator": "one draw of the ELBO"})


def contenders(job: Work) -> list[Contender]:
    """Everyone."""
    n = job.data.size
    return [
        *zoo_contenders(lambda: by_zoo(job), job),
        pyro_contender(
            lambda: by_pyro(job), job, n, "pyro.param, plate over the minibatch scaled to N; Trace_ELBO, Adam"
        ),
        *torch_contenders(lambda: by_torch(job), job),
        *numpyro_contenders(lambda: by_numpyro(job), job, n, "the same model and guide, Trace_ELBO"),
    ]


def by_zoo(job: Work) -> tuple[Program, Mapping[str, Any]]:
    """The program of the zoo under its own guide."""
    assert job.data.context is not None
    return LogisticRegression(job.data.context.shape[1], bias_scale=BIAS_SCALE), {"elbo": "trace"}


def by_pyro(job: Work) -> tuple[Any, Any, Trace_ELBO]:
    """Plain Pyro; the minibatch is handed in, since `pyro.plate(subsample_size=...)` permutes all N rows every step."""
    assert job.data.context is not None
    n, d, zero = job.data.size, job.data.context.shape[1], job.data.x.new_zeros(())

    def model(x: Tensor, context: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(zero.expand(d), 1.0).to_event(1))
        b = pyro.sample("b", dist.Normal(zero, BIAS_SCALE))
        with pyro.poutine.scale(scale=n / len(x)), pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(logits=context @ w + b), obs=x)

    def guide(x: Tensor, context: Tensor) -> None:
        w_loc = pyro.param("w_loc", lambda: torch.zeros_like(zero).repeat(d))
        w_scale = pyro.param("w_scale", lambda: torch.ones_like(zero).repeat(d), constraint=constraints.positive)
        b_loc = pyro.param("b_loc", lambda: torch.zeros_like(zero))
        b_scale = pyro.param("b_scale", lambda: torch.full_like(zero, BIAS_SCALE), constraint=constraints.positive)
        pyro.sample("w", dist.Normal(w_loc, w_scale).to_event(1))
        pyro.sample("b", dist.Normal(b_loc, b_scale))

    return model, guide, Trace_ELBO()


def by_torch(job: Work) -> tuple[list[nn.Parameter], Any]:
    """The four parameters and the bound."""
    assert job.data.context is not None
    n, d, zero = job.data.size, job.data.context.shape[1], job.data.x.new_zeros(())
    w_loc, w_log_scale = nn.Parameter(zero.repeat(d)), nn.Parameter(zero.repeat(d))
    b_loc, b_log_scale = nn.Parameter(zero.clone()), nn.Parameter(torch.full_like(zero, BIAS_SCALE).log())
    log_bias_scale = float(torch.tensor(BIAS_SCALE).log())

    def loss(x: Tensor, context: Tensor | None) -> Tensor:
        assert context is not None
        w_noise, b_noise = torch.randn(d, device=x.device), torch.randn((), device=x.device)
        w, b = w_loc + w_log_scale.exp() * w_noise, b_loc + b_log_scale.exp() * b_noise
        # log p - log q of the weights; the normal densities' constants cancel.
        kl = 0.5 * ((w * w).sum() - (w_noise * w_noise).sum()) - w_log_scale.sum()
        kl = kl + 0.5 * ((b / BIAS_SCALE) ** 2 - b_noise * b_noise) - b_log_scale + log_bias_scale
        return F.binary_cross_entropy_with_logits(torch.addmv(b, context, w), x) + kl / n

    return [w_loc, w_log_scale, b_loc, b_log_scale], loss


def by_numpyro(job: Work) -> tuple[Any, Any, Any]:
    """Plain NumPyro."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as npd
    from numpyro.infer import Trace_ELBO as Elbo

    assert job.data.context is not None
    n, d, positive = job.data.size, job.data.context.shape[1], npd.constraints.positive

    def model(x: Any, context: Any) -> None:
        w = numpyro.sample("w", npd.Normal(jnp.zeros(d), 1.0).to_event(1))
        b = numpyro.sample("b", npd.Normal(0.0, BIAS_SCALE))
        with numpyro.handlers.scale(scale=n / len(x)), numpyro.plate("data", len(x)):
            numpyro.sample("x", npd.Bernoulli(logits=context @ w + b), obs=x)

    def guide(x: Any, context: Any) -> None:
        w_scale = numpyro.param("w_scale", jnp.ones(d), constraint=positive)
        b_scale = numpyro.param("b_scale", jnp.full((), BIAS_SCALE), constraint=positive)
        numpyro.sample("w", npd.Normal(numpyro.param("w_loc", jnp.zeros(d)), w_scale).to_event(1))
        numpyro.sample("b", npd.Normal(numpyro.param("b_loc", jnp.zeros(())), b_scale))

    return model, guide, Elbo()
