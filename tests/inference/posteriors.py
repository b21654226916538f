"""Posteriors for approximations: Gaussians whose every number is known, one with two modes, one that is neither."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from zoo.bayes.regression import BayesianLinearRegression
from zoo.datasets import Data


def far(y: Tensor) -> None:
    """m ~ N(0, 1), y ~ N(m, 0.5)."""
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(m, 0.5), obs=y)


FAR = {"y": torch.tensor(12.0, dtype=torch.float64)}
FAR_MEAN, FAR_SD = 9.6, 0.2**0.5
FAR_EVIDENCE = float(dist.Normal(torch.tensor(0.0, dtype=torch.float64), 1.25**0.5).log_prob(FAR["y"]))


def flat(y: Tensor) -> None:
    """Only a + b is known, and the prior of neither can be drawn from."""
    a = pyro.sample("a", dist.ImproperUniform(dist.constraints.real, (), ()))
    b = pyro.sample("b", dist.ImproperUniform(dist.constraints.real, (), ()))
    pyro.sample("y", dist.Normal(a + b, 1.0), obs=y)


def square(y: Tensor) -> None:
    """z ~ N(0, 3), y ~ N(z^2, 0.5): two modes, one for each sign, near the roots of y."""
    z = pyro.sample("z", dist.Normal(0.0, 3.0))
    pyro.sample("y", dist.Normal(z**2, 0.5), obs=y)


def correlated(y: Tensor) -> None:
    """z ~ N(0, 0.2) and a factor 1 - z^2 by the decomposition of a matrix, which has none where |z| > 1."""
    z = pyro.sample("z", dist.Normal(0.0, 0.2))
    one = torch.ones_like(z)
    factor = torch.linalg.cholesky(torch.stack([torch.stack([one, z], -1), torch.stack([z, one], -1)], -2))
    pyro.factor("determinant", 2 * factor[..., 1, 1].log() + 0 * y)


def square_evidence(y: float) -> float:
    """Its log evidence, on a grid."""
    grid = torch.linspace(-15, 15, 30_001, dtype=torch.float64)
    density = dist.Normal(0.0, 3.0).log_prob(grid) + dist.Normal(grid**2, 0.5).log_prob(torch.tensor(y))
    return float(density.logsumexp(0)) - math.log(1000)


def dense(seed: int = 0, features: int = 4) -> tuple[BayesianLinearRegression, Data]:
    """A regression with correlated features of units that differ a hundredfold; weights are Gaussian a posteriori."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(30, features, generator=generator, dtype=torch.float64)
    rows[:, -1] += 2 * rows[:, 0]
    rows[:, 1] *= 0.1
    x = rows @ torch.arange(1.0, features + 1.0, dtype=torch.float64)
    x = x + 0.5 * torch.randn(30, generator=generator, dtype=torch.float64)
    return BayesianLinearRegression(features, prior_scale=10.0, noise_scale=0.5), Data(x, rows)


@contextmanager
def slopes_counted(monkeypatch) -> Iterator[list[int]]:
    """How many vectors the density of a target was differentiated at, seen from outside; one number for each call.

    A slope of each of D numbers counts as D.
    """
    seen: list[int] = []
    grad = torch.autograd.grad

    def spy(outputs, inputs, *args, **options):
        rows = inputs if isinstance(inputs, Tensor) else inputs[0]
        many = len(args[0][0]) if options.get("is_grads_batched") else 1
        seen.append(many * len(rows))
        return grad(outputs, inputs, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.autograd, "grad", spy)
        yield seen
