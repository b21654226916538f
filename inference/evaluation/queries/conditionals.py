r"""Exact conditionals: of Gaussians and their mixtures, of mixtures of independent numbers, of programs whose latents
have an exact posterior under gaps, and of programs that were made for the question.

    x ~ N(mu, S), y = A x + e   =>   x | y ~ N(mu + K (y - A mu), S - K A S),   K = S A' (A S A' + sd^2 I)^-1
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical

from inference.evaluation.queries.pixels import numbers_of, why_no_numbers
from inference.evaluation.queries.questions import Answer, Question, Sampling, Way
from inference.particles import draw
from inference.prediction import predicted
from zoo.latent.ppca import PPCA
from zoo.mixtures.gaussian import GaussianMixture
from zoo.mixtures.mixture import Mixture
from zoo.nets import image_shape
from zoo.program import ExactPosterior, Program
from zoo.puzzles import LowResolution, Noisy, Parts, Solves, parts_of

__all__ = ["GAUSSIAN", "MIXTURE", "OWN", "POSTERIOR"]


# Gaussians


@dataclass(frozen=True)
class _Component:
    """One Gaussian, in double precision."""

    log_weight: Tensor
    mean: Tensor
    """(D,)."""
    covariance: Tensor
    """(D, D)."""
    factor: Tensor
    """(D, r): draws are mean + factor e + noise e'."""
    noise: Tensor | float
    """Of each number besides, (D,) or a number."""

    def sample(self, n: int) -> Tensor:
        """(n, D)."""
        low = torch.randn(n, self.factor.shape[1], dtype=self.mean.dtype, device=self.mean.device) @ self.factor.T
        return self.mean + low + self.noise * torch.randn_like(low)


def _components(program: Program) -> Iterator[_Component]:
    if isinstance(program, PPCA):
        weight, scale = program.weight.double(), program.scale.double()
        covariance = weight @ weight.T + scale.square() * torch.eye(len(weight)).to(weight)
        yield _Component(scale.new_zeros(()), program.mean.double(), covariance, factor=weight, noise=scale)
        return
    assert isinstance(program, GaussianMixture)
    logs, scales = program.weight_logits.double().log_softmax(-1), program.scale.double()
    for log_weight, mean, scale in zip(logs, program.means.double(), scales, strict=True):
        if program.covariance == "full":
            yield _Component(log_weight, mean, scale @ scale.T, factor=scale, noise=0.0)
        else:
            sd = scale.expand_as(mean)
            yield _Component(log_weight, mean, sd.square().diag(), factor=mean.new_zeros(len(mean), 1), noise=sd)


def _why_no_gaussian(program: Program, question: Question) -> str | None:
    return None if isinstance(program, PPCA | GaussianMixture) else "it is no Gaussian, nor a mixture of these"


def _gaussian(program: Program, question: Question, sampling: Sampling) -> Answer:
    """Rows with the same gaps together, one component after the other."""
    y = question.y.double()
    size = question.sites.numel()
    mean, values = y.new_zeros(len(y), size), y.new_zeros(sampling.draws, len(y), size)
    for rows, there in question.patterns():
        operator, seen = question.matrix(y)[there], y[rows][:, there]
        logs, means, draws = [], [], []
        for each in _components(program):
            shared = each.covariance @ operator.T
            square = operator @ shared + question.sd**2 * torch.eye(len(operator)).to(y)
            factor = torch.linalg.cholesky(square)
            gain = torch.cholesky_solve(shared.T, factor).T
            residual = seen - operator @ each.mean
            white = torch.linalg.solve_triangular(factor, residual.T, upper=False)
            logs.append(each.log_weight - factor.diagonal().log().sum() - white.square().sum(0) / 2)
            means.append(each.mean + residual @ gain.T)
            x = each.sample(sampling.draws * len(rows)).reshape(sampling.draws, len(rows), size)
            made = x @ operator.T
            draws.append(x + (seen - made - question.sd * torch.randn_like(made)) @ gain.T)
        shares = torch.stack(logs, -1).softmax(-1)
        mean[rows] = torch.einsum("bk,kbd->bd", shares, torch.stack(means))
        chosen = Categorical(shares).sample(torch.Size([sampling.draws]))
        values[:, rows] = _picked(torch.stack(draws), chosen)
    return Answer(values.to(question.y), "gaussian", True, mean=mean.to(question.y))


def _picked(each: Tensor, chosen: Tensor) -> Tensor:
    """Of (K, S, B, D) those of numbers (S, B): (S, B, D)."""
    return each.gather(0, chosen[None, ..., None].expand(1, *each.shape[1:])).squeeze(0)


# Mixtures of independent numbers


def _why_no_mixture(program: Program, question: Question) -> str | None:
    if not isinstance(program, Mixture):
        return "it is no mixture"
    return why_no_numbers(program, question)


def _mixture(program: Program, question: Question, sampling: Sampling) -> Answer:
    """The component given y, then its numbers given both."""
    assert isinstance(program, Mixture)

    def given(components: Tensor) -> Any:
        found = numbers_of(program.component(components), question)
        assert found is not None
        return found

    each = torch.arange(program.components, device=question.y.device)
    logs = program.weight_logits.log_softmax(-1)[:, None] + given(each[:, None]).log_likelihood()
    chosen = Categorical(logits=logs.T).sample(torch.Size([sampling.draws]))
    return Answer.of(given(chosen).draw(), "mixture", True)


# An exact posterior


def _why_no_posterior(program: Program, question: Question) -> str | None:
    if question.kind != "inpaint":
        return "an exact posterior answers gaps, not noise or means"
    if not program.takes_missing:
        return "it takes no missing values"
    if not isinstance(program, ExactPosterior):
        return "it has no exact posterior of its latents"
    return "its latents are global" if any(site.is_global for site in program.sites().values()) else None


def _posterior(program: Program, question: Question, sampling: Sampling) -> Answer:
    """Latents given what is known, then x given these."""
    assert isinstance(program, ExactPosterior)
    x = question.y.reshape(-1, *program.event_shape)
    latents = draw(program.posterior, sampling.draws, x, question.context, density=False).values
    made = predicted(program, latents, sampling.draws, len(x), question.context)["x"]
    return Answer.of(made.reshape(sampling.draws, len(x), -1), "posterior", True)


# Programs that were made for it


def _why_not_own(program: Program, question: Question) -> str | None:
    task = program.task if isinstance(program, Solves) else None
    if task is None:
        return "it was not made to restore images"
    if question.kind == "inpaint":
        shared = question.y.isnan().reshape(len(question.y), *image_shape(program.event_shape))
        if bool((shared != shared[:, :1]).any()):
            return "its contexts tell pixels with all their colours"
        fits = isinstance(task, Parts)
    elif question.kind == "denoise":
        fits = isinstance(task, Noisy) and abs(task.sd - question.sd) < 1e-6
    else:
        fits = isinstance(task, LowResolution) and question.noiseless and task.factor**2 == question.sites.shape[1]
    if not fits:
        return f"it was made for another task, {type(task).__name__.lower()}"
    gaps = question.kind != "inpaint" and bool(question.y.isnan().any())
    return "its contexts have no missing numbers" if gaps else None


def _own(program: Program, question: Question, sampling: Sampling) -> Answer:
    """Draws of the program given the context that the observation is."""
    assert isinstance(program, Solves)
    y, shape = question.y, image_shape(program.event_shape)
    if question.kind == "inpaint":
        images = y.reshape(-1, *shape)
        context = parts_of(images.nan_to_num(), ~images.isnan().any(1, keepdim=True))
    else:
        context = y.reshape(len(y), *program.task.context_shape)
    made: Any = program
    drawn = made.generate(context=context.repeat(sampling.draws, 1, 1, 1))
    return Answer.of(drawn.reshape(sampling.draws, len(y), -1), "own", True)


GAUSSIAN = Way(_why_no_gaussian, _gaussian)
MIXTURE = Way(_why_no_mixture, _mixture)
POSTERIOR = Way(_why_no_posterior, _posterior)
OWN = Way(_why_not_own, _own)
