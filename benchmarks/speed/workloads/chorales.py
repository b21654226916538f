"""A hidden Markov model of the Bach chorales by gradient, the path summed out, by every contender."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from benchmarks.speed.contender import (
    Contender,
    Work,
    at_hand,
    numpyro_contenders,
    pyro_contender,
    torch_contenders,
    zoo_contenders,
)
from zoo.chains.hmm import HMM
from zoo.program import Program

__all__ = ["contenders", "work"]

ROWS = 224
"""Of the 229 training chorales, so that batches of 32 come out even."""


def work(device: str = "cpu", seed: int = 0, k: int = 16, batch_size: int = 32, lr: float = 0.01) -> Work:
    """Sequences of up to 160 steps of 88 bits, padded; the context is their lengths.

    Raises: Unavailable when the data are not on this machine.
    """
    data = at_hand("jsb").train.rows(slice(0, ROWS)).to(torch.device(device), torch.float32)
    return Work(data, batch_size, lr, seed=seed, facts={"k": k, "estimator": "exact log-likelihood"})


def contenders(job: Work) -> list[Contender]:
    """Everyone."""
    return [
        *zoo_contenders(lambda: by_zoo(job), job),
        pyro_contender(
            lambda: by_pyro(job),
            job,
            job.batch_size,
            "pyro.distributions.DiscreteHMM (a parallel scan), Trace_ELBO, Adam",
        ),
        *torch_contenders(lambda: by_torch(job), job, "forward algorithm, a loop over steps"),
        *numpyro_contenders(
            lambda: by_numpyro(job), job, job.batch_size, "forward algorithm in lax.scan as numpyro.factor, Trace_ELBO"
        ),
    ]


def start(job: Work) -> list[Tensor]:
    """Logits of the first state (K,), of transitions (K, K) and of notes (K, D), drawn from the seed."""
    assert job.data.x.ndim == 3
    generator, k, d = torch.Generator().manual_seed(job.seed), job.facts["k"], job.data.x.shape[2]
    shapes = ((k,), (k, k), (k, d))
    drawn = [0.5 * torch.randn(shape, generator=generator, dtype=torch.float32) for shape in shapes]
    drawn[2] -= 3.0  # few notes sound at a time
    return [t.to(job.device) for t in drawn]


def by_zoo(job: Work) -> tuple[Program, Mapping[str, Any]]:
    """The program of the zoo, by its exact likelihood."""
    program = HMM(list(job.data.x.shape[1:]), job.facts["k"], lengths=True).to(job.device)
    targets = (program.initial_logits, program.transition_logits, program.emission.logits)
    with torch.no_grad():
        for parameter, value in zip(targets, start(job), strict=True):
            parameter.copy_(value)
    return program, {"elbo": "exact"}


def by_pyro(job: Work) -> tuple[Any, Any, Trace_ELBO]:
    """Plain Pyro: its own distribution of sequences; padded steps are masked.

    DiscreteHMM makes a transition before the first observation. So that the model is the one of the others, it starts
    from p(z_1 | x_1), and the factor p(x_1) stands apart.
    """
    values = start(job)

    def model(x: Tensor, context: Tensor) -> None:
        named = zip(("initial", "transition", "notes"), values, strict=True)
        initial, transition, notes = (pyro.param(name, value.clone) for name, value in named)
        mask = torch.arange(x.shape[1], device=x.device) < context[:, None]
        emission = dist.Bernoulli(logits=notes).to_event(1)
        first = initial.log_softmax(-1) + emission.log_prob(x[:, :1])
        later = emission.expand([len(x), x.shape[1] - 1, len(initial)]).mask(mask[:, 1:, None])
        with pyro.plate("data", len(x)):
            pyro.factor("x_first", first.logsumexp(-1))
            pyro.sample("x", dist.DiscreteHMM(first, transition, later), obs=x[:, 1:])

    return model, lambda x, context: None, Trace_ELBO()


def by_torch(job: Work) -> tuple[list[nn.Parameter], Any]:
    """The forward algorithm; messages are shifted by their maximum and multiplied by the matrix of probabilities."""
    initial, transition, notes = (nn.Parameter(value) for value in start(job))

    def loss(x: Tensor, context: Tensor | None) -> Tensor:
        assert context is not None
        mask = torch.arange(x.shape[1], device=x.device) < context[:, None]
        emission = x @ F.logsigmoid(notes).T + (1 - x) @ F.logsigmoid(-notes).T
        terms = torch.where(mask[..., None], emission, 0.0).unbind(1)
        probabilities = transition.softmax(-1)
        message = initial.log_softmax(-1) + terms[0]
        for term in terms[1:]:
            top = message.amax(-1, keepdim=True).detach()
            message = ((message - top).exp() @ probabilities).log() + top + term
        return -message.logsumexp(-1).mean()

    return [initial, transition, notes], loss


def by_numpyro(job: Work) -> tuple[Any, Any, Any]:
    """Plain NumPyro."""
    import jax
    import jax.numpy as jnp
    import numpyro
    from numpyro.infer import Trace_ELBO as Elbo

    values = [jnp.asarray(t.cpu().numpy()) for t in start(job)]

    def model(x: Any, context: Any) -> None:
        named = zip(("initial", "transition", "notes"), values, strict=True)
        initial, transition, notes = (numpyro.param(name, value) for name, value in named)
        mask = jnp.arange(x.shape[1]) < context[:, None]
        emission = x @ jax.nn.log_sigmoid(notes).T + (1 - x) @ jax.nn.log_sigmoid(-notes).T
        emission = jnp.where(mask[..., None], emission, 0.0).swapaxes(0, 1)
        probabilities = jax.nn.softmax(transition, -1)

        def step(message: Any, term: Any) -> tuple[Any, None]:
            top = jax.lax.stop_gradient(message.max(-1, keepdims=True))
            return jnp.log(jnp.exp(message - top) @ probabilities) + top + term, None

        message, _ = jax.lax.scan(step, jax.nn.log_softmax(initial) + emission[0], emission[1:])
        numpyro.factor("x", jax.scipy.special.logsumexp(message, -1).sum())

    return model, lambda x, context: None, Elbo()
