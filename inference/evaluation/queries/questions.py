"""What is known of examples, and what comes back: one form for denoising, inpainting and super-resolution.

    y_j = mean of the numbers of x at the sites of block j, plus N(0, sd^2);   blocks do not overlap and cover x

One site a block and no noise is x itself, of which some numbers are missing; with noise it is a noisy x; blocks of
f x f pixels are an image of lower resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.arrays import as_tensor
from zoo.errors import CapabilityError, EmptyDataError, NonFiniteError, OptionError, ShapeError
from zoo.options import Count, check_value
from zoo.program import Program

__all__ = ["Answer", "Question", "Sampling", "Way", "answered", "blocks_of", "observed_values"]


@dataclass(frozen=True)
class Answer:
    """Draws of whole examples given what is known of them, and how they were made."""

    values: Tensor
    """(draws, B, *event_shape)."""
    how: str
    """The way, a key of those that the query names."""
    exact: bool
    """Whether they are independent draws from the program's own conditional; else they come near it with more work."""
    mean: Tensor
    """(B, *event_shape): the conditional mean where `how` is 'gaussian', that of the draws elsewhere."""
    effective: Tensor | None = None
    """(B,), where draws are resampled from weighted ones: the effective sample size. Far below the number of draws,
    these repeat a few states and should not be trusted."""

    @classmethod
    def of(cls, values: Tensor, how: str, exact: bool, effective: Tensor | None = None) -> Answer:
        """Of draws, with their mean."""
        return cls(values, how, exact, mean=values.mean(0), effective=effective)


@dataclass(frozen=True)
class Question:
    """What is known of B examples of D numbers each."""

    kind: str
    """'inpaint', 'denoise' or 'super_resolve'."""
    y: Tensor
    """(B, M); NaN where nothing was observed."""
    sites: Tensor
    """(M, n): which of the D numbers each y is the mean of; all M n are different, and M n = D."""
    sd: float
    """Of the noise; 0 for none."""
    context: Tensor | None = None
    """(B, ...)."""

    @property
    def noiseless(self) -> bool:
        """Whether y is known for certain."""
        return self.sd == 0.0

    @property
    def single(self) -> bool:
        """Whether each y is of one number."""
        return self.sites.shape[1] == 1

    def means(self, x: Tensor) -> Tensor:
        """The means of blocks: (..., D) -> (..., M)."""
        return x[..., self.sites].mean(-1)

    def spread(self, y: Tensor) -> Tensor:
        """To each site what its block has: (..., M) -> (..., D)."""
        found = y.new_empty(*y.shape[:-1], self.sites.numel())
        found[..., self.sites] = y.unsqueeze(-1).expand(*y.shape, self.sites.shape[1])
        return found

    def matrix(self, like: Tensor) -> Tensor:
        """A of y = A x + noise, (M, D)."""
        found = like.new_zeros(len(self.sites), self.sites.numel())
        return found.scatter_(1, self.sites.to(like.device), 1 / self.sites.shape[1])

    def patterns(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows with the same gaps: their places (b,), and which y are observed, booleans (M,)."""
        patterns, of = (~self.y.isnan()).unique(dim=0, return_inverse=True)
        for i, there in enumerate(patterns):
            yield (of == i).nonzero().squeeze(1), there

    def kept(self, values: Tensor) -> Tensor:
        """Draws (..., B, D) with what is known for certain as it is."""
        if not (self.single and self.noiseless):
            return values
        y = self.spread(self.y)
        return torch.where(y.isnan(), values, y)


@dataclass(frozen=True)
class Sampling:
    """How much work the ways that sample may do."""

    draws: Count = 1
    particles: Count = 256
    steps: Count = 100

    def __post_init__(self) -> None:
        for name in ("draws", "particles", "steps"):
            check_value(name, getattr(self, name), Count)


@dataclass(frozen=True)
class Way:
    """One way to an answer."""

    why_not: Callable[[Any, Question], str | None]
    """(program, question) -> why it is not possible, or None."""
    answer: Callable[[Any, Question, Sampling], Answer]
    """Values (draws, B, D), within `evaluating`."""


def answered(program: Program, question: Question, ways: Mapping[str, Way], how: str, sampling: Sampling) -> Answer:
    """The answer by one way, or by the first that is possible.

    Raises: OptionError for a way that there is not; CapabilityError where it, or every way, is not possible.
    """
    if how not in ("auto", *ways):
        raise OptionError(f"how must be one of {', '.join(map(repr, ('auto', *ways)))}, got {how!r}.")
    against: dict[str, str] = {}
    for way in [how] if how != "auto" else ways:
        reason = ways[way].why_not(program, question)
        if reason is None:
            break
        against[way] = reason
    else:
        raise _impossible(program, question, ways, against)
    found = ways[way].answer(program, question, sampling)
    shape = (len(question.y), *program.event_shape)
    values = question.kept(found.values).reshape(-1, *shape)
    mean = question.kept(found.mean).reshape(shape)
    return Answer(values, found.how, found.exact, mean=mean, effective=found.effective)


def _impossible(
    program: Program, question: Question, ways: Mapping[str, Way], against: Mapping[str, str]
) -> CapabilityError:
    """Says why not, and which way there is where only some were tried."""
    others = [way for way in ways if way not in against and ways[way].why_not(program, question) is None]
    if others:
        how, reason = next(iter(against.items()))
        return CapabilityError(f"how={how!r} is not possible here: {reason}. Use how={others[0]!r}.")
    reasons = {way: against.get(way) or str(each.why_not(program, question)) for way, each in ways.items()}
    return CapabilityError(
        f"{type(program).__name__} cannot {question.kind}: {'; '.join(dict.fromkeys(reasons.values()))}."
    )


def blocks_of(shape: tuple[int, int, int], factor: int) -> Tensor:
    """Sites (M, factor^2) of the square blocks of an image (channels, height, width), in the order of its means."""
    channels, height, width = shape
    at = torch.arange(channels * height * width).reshape(channels, height // factor, factor, width // factor, factor)
    return at.permute(0, 1, 3, 2, 4).reshape(-1, factor * factor)


def observed_values(program: Program, y: Any, shape: tuple[int, ...]) -> Tensor:
    """Observations as a tensor (B, *shape) of the program's dtype; NaN for what was not observed.

    Raises: what `as_tensor` raises; EmptyDataError, ShapeError, NonFiniteError.
    """
    name, y = type(program).__name__, as_tensor(y, "y", program.computes_in())
    if y.ndim == 0 or len(y) == 0:
        raise EmptyDataError(
            f"{name} got no observations (shape {tuple(y.shape)}); expected (N, *{shape}) with N >= 1."
        )
    if tuple(y.shape[1:]) != shape:
        raise ShapeError(f"{name} needs observations of shape (N, *{shape}), got {tuple(y.shape)}.")
    if bool(y.isinf().any()):
        raise NonFiniteError(f"{int(y.isinf().sum())} observations are infinite; NaN says that one is missing.")
    return y
