r"""Numbers that are independent of each other given latents: their likelihood under an observation, and draws given it.

Normal ones have closed forms. Bits in a block with an observed mean need the law of their number, which is built up
bit by bit (Howard 1972, for the conditional Bernoulli distribution) and read backwards to draw them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Bernoulli, MaskedDistribution, Normal
from torch import Tensor
from torch.distributions import Categorical, Independent
from torch.nn.functional import logsigmoid

from inference.evaluation.queries.questions import Question
from zoo.chains.raster import Raster
from zoo.program import Program

__all__ = ["Bits", "Normals", "Numbers", "numbers_of", "why_no_numbers"]

NOWHERE = -1e30
"""Stands for log 0, whose gradients are no NaN."""


class Numbers:
    """Independent numbers of any kind, (..., B, D); known ones can be known for certain only."""

    def __init__(self, fn: Any, question: Question):
        self.fn, self.question = fn, question

    @staticmethod
    def why_not(question: Question) -> str | None:
        """What cannot be asked of them."""
        if question.single and question.noiseless:
            return None
        return "its numbers are neither normal nor bits given the latents"

    def log_likelihood(self) -> Tensor:
        """log p(y | latents), (..., B)."""
        y = self.question.spread(self.question.y)
        at = torch.where(y.isnan(), self.fn.sample().to(y), y)
        return torch.where(y.isnan(), 0.0, self.fn.log_prob(at)).sum(-1)

    def draw(self) -> Tensor:
        """x given latents and y, (..., B, D), but for what is known."""
        return self.fn.sample().to(self.question.y)


class Normals(Numbers):
    """Normal ones."""

    @staticmethod
    def why_not(question: Question) -> str | None:
        """Nothing."""
        return None

    def _observation(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of y given latents, (..., B, M)."""
        blocks = self.question.sites.shape[1]
        variance = self.question.means(self.fn.scale.expand_as(self.fn.loc).square()) / blocks + self.question.sd**2
        return self.question.means(self.fn.loc), variance

    def log_likelihood(self) -> Tensor:
        """A product of normals."""
        y, (mean, variance) = self.question.y, self._observation()
        residual = torch.where(y.isnan(), 0.0, y - mean)
        each = -(residual.square() / variance + variance.log() + math.log(2 * math.pi)) / 2
        return torch.where(y.isnan(), 0.0, each).sum(-1)

    def draw(self) -> Tensor:
        """By Matheron's rule: a draw of x and y, and what y is off by, regressed on."""
        y, (_, variance) = self.question.y, self._observation()
        x = self.fn.sample()
        made = self.question.means(x) + self.question.sd * torch.randn_like(self.question.means(x))
        off = torch.where(y.isnan(), 0.0, (y - made) / variance)
        gain = self.fn.scale.expand_as(self.fn.loc).square() / self.question.sites.shape[1]
        return x + gain * self.question.spread(off)


class Bits(Numbers):
    """Bits."""

    @staticmethod
    def why_not(question: Question) -> str | None:
        """Nothing."""
        return None

    def _counts(self) -> list[Tensor]:
        """Log probabilities of how many of the first i bits of each block are 1, (..., B, M, i + 1), i = 0, ..., n."""
        logits = self.fn.logits[..., self.question.sites]
        one, zero = (logsigmoid(part).clamp(min=NOWHERE) for part in (logits, -logits))
        none = logits.new_full((*logits.shape[:-1], 1), NOWHERE)
        found = [logits.new_zeros(*logits.shape[:-1], 1)]
        for i in range(logits.shape[-1]):
            more = torch.cat([none, found[-1] + one[..., i : i + 1]], -1)
            fewer = torch.cat([found[-1] + zero[..., i : i + 1], none], -1)
            found.append(torch.logaddexp(more, fewer))
        return found

    def _seen(self, counts: Tensor) -> Tensor:
        """Log probabilities of counts and y together, (..., B, M, n + 1); of y that is missing, of counts alone."""
        y, n = self.question.y.unsqueeze(-1), self.question.sites.shape[1]
        means = torch.arange(n + 1, device=y.device).to(y) / n
        if self.question.noiseless:
            likelihood = torch.where((y - means).abs() < 1e-3 / n, 0.0, NOWHERE)
        else:
            sd = self.question.sd
            likelihood = -((y - means) / sd).square() / 2 - math.log(sd) - math.log(2 * math.pi) / 2
        return counts + torch.where(y.isnan(), 0.0, likelihood)

    def log_likelihood(self) -> Tensor:
        """The count of each block summed out."""
        if self.question.single and self.question.noiseless:
            return super().log_likelihood()
        return self._seen(self._counts()[-1]).logsumexp(-1).sum(-1)

    def draw(self) -> Tensor:
        """The count of each block, then its bits from the last to the first."""
        counts, logits = self._counts(), self.fn.logits[..., self.question.sites]
        left = Categorical(logits=self._seen(counts[-1])).sample()
        bits = torch.zeros_like(logits)
        for i in reversed(range(logits.shape[-1])):
            before = counts[i].gather(-1, (left - 1).clamp(min=0).unsqueeze(-1)).squeeze(-1)
            now = counts[i + 1].gather(-1, left.unsqueeze(-1)).squeeze(-1)
            log_rate = logsigmoid(logits[..., i]).clamp(min=NOWHERE) + before - now
            drawn = (torch.rand_like(log_rate).log() < log_rate) & (left > 0)
            bits[..., i] = drawn.to(bits)
            left = left - drawn.long()
        found = torch.empty_like(bits).flatten(-2)
        found[..., self.question.sites] = bits
        return found


def numbers_of(fn: Any, question: Question) -> Numbers | None:
    """The numbers of an example as a program's site x has them; None where they depend on each other.

    Args:
        fn: The distribution at x, of any batch shape.
        question: What is known of them.
    """
    batch = fn.batch_shape
    if isinstance(fn, Raster):
        fn = fn.base
    while isinstance(fn, Independent):
        fn = fn.base_dist
    size = question.sites.numel()
    if isinstance(fn, MaskedDistribution) or len(fn.event_shape) or fn.batch_shape.numel() != batch.numel() * size:
        return None
    flat = (*batch, size)
    if type(fn) is Normal:
        return Normals(Normal(fn.loc.reshape(flat), fn.scale.reshape(flat), validate_args=False), question)
    if type(fn) is Bernoulli:
        return Bits(Bernoulli(logits=fn.logits.reshape(flat), validate_args=False), question)
    return Numbers(_Flat(fn, batch), question)


class _Flat:
    """A distribution of batch shape (*batch, *event), whose sites lie in one row: (*batch, D)."""

    def __init__(self, fn: Any, batch: torch.Size):
        self.fn, self.event = fn, fn.batch_shape[len(batch) :]

    def sample(self) -> Tensor:
        """(*batch, D)."""
        return self.fn.sample().flatten(-len(self.event))

    def log_prob(self, value: Tensor) -> Tensor:
        """Of values whose batch shape broadcasts, (*batch, D)."""
        return self.fn.log_prob(value.reshape(*value.shape[:-1], *self.event)).flatten(-len(self.event))


@torch.no_grad()
def why_no_numbers(program: Program, question: Question) -> str | None:
    """Why an observation of the program's x has no likelihood given its latents, or None."""
    context = None if question.context is None else question.context[:1]
    with torch.random.fork_rng(devices=[]):
        fn = poutine.trace(program.model).get_trace(None, context, 1).nodes["x"]["fn"]
    found = numbers_of(fn, question) if isinstance(fn, Independent | Raster) else None
    if found is None:
        return "its numbers depend on each other given the latents"
    return found.why_not(question)
