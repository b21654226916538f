"""Sampling from autoregressive networks: reusing what earlier sites computed, beside a whole pass for every site.

    zoo bench speed --only sampling --out runs/speed

All ways are given the same noise and must draw the same. One pass of `log_prob` over the same batch stands beside them:
it is what a draw costs where every site costs only its own share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed import duel
from benchmarks.speed.duel import Comparison
from benchmarks.speed.resources import limited
from zoo import catalogue
from zoo.autoregressive.base import Autoregressive
from zoo.errors import OptionError

__all__ = ["SIDES", "Problem", "Result", "compare", "warm_up"]


@dataclass(frozen=True)
class Problem:
    """A batch to be drawn from a network at its random start.

    Args:
        program: Name in the catalogue, of an autoregressive program.
        options: Of its constructor.
        n: Draws.
        seed: Of weights and noise.
    """

    program: str
    options: Mapping[str, Any] = field(default_factory=dict)
    n: int = 16
    seed: int = 0

    def model(self) -> Autoregressive:
        """The network, float32, its biases moved so that draws are not all alike."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            program = catalogue.create(self.program, **self.options)
            if not isinstance(program, Autoregressive):
                raise OptionError(f"{self.program!r} is not autoregressive: nothing to draw site by site.")
            with torch.no_grad():
                for parameter in program.parameters():
                    parameter += 0.05 * torch.randn_like(parameter)
        return program.float().eval()

    def data(self) -> Tensor:
        """The noise (n, D, noise numbers a site)."""
        program, generator = self.model(), torch.Generator().manual_seed(self.seed)
        shape = (self.n, program.event_shape.numel(), program.likelihood.noise)
        return torch.rand(shape, generator=generator, dtype=torch.float32)


@dataclass(frozen=True)
class Result:
    """What one way took and gave."""

    seconds: float
    answer: Tensor
    """The draws (n, *event_shape), or their log-density (n,)."""


def _timed(problem: Problem, noise: Tensor, way: Callable[[Autoregressive, Tensor, Tensor | None], Tensor]) -> Result:
    program = problem.model()
    blank, context = noise.new_zeros(problem.n, *program.event_shape), program.example_context(problem.n)
    with torch.no_grad():
        started = time.perf_counter()
        answer = way(program, blank, context)
        return Result(time.perf_counter() - started, answer)


def ours(problem: Problem, x: Tensor, score: bool = True) -> Result:
    """The program's own sampling; x is the noise."""
    return _timed(problem, x, lambda p, blank, c: p.complete(blank, 0, c, x))


def naive(problem: Problem, x: Tensor, score: bool = True) -> Result:
    """A pass through the network for each site."""
    return _timed(problem, x, lambda p, blank, c: p.continue_naively(blank, 0, c, x))


def one_pass(problem: Problem, x: Tensor, score: bool = True) -> Result:
    """The log-density of a batch as large."""
    return _timed(problem, x, lambda p, blank, c: p.log_prob(blank, c))


SIDES: dict[str, Callable[..., Result]] = {"ours": ours, "naive": naive, "log_prob": one_pass}


def warm_up(problem: Problem, sides: tuple[str, ...] = tuple(SIDES)) -> None:
    """One pass, for imports and buffers that a first call makes."""
    one_pass(problem, problem.data())


def compare(problem: Problem, repeats: int = 3, threads: int = 2) -> Comparison:
    """Draws the same batch each way in turn; the difference is the largest of a drawn number.

    Raises: OptionError when the ways do not draw the same.
    """
    with limited(threads):
        warm_up(problem)
    return duel.compare(problem, SIDES, ("naive",), _difference, repeats, threads)


def _difference(found: Mapping[str, Result]) -> float:
    # Rounding may turn a draw that lies on the edge, and with it those after it: few, or the ways differ.
    apart = (found["ours"].answer - found["naive"].answer).abs()
    if float((apart > 1e-3).float().mean()) > 0.01:
        raise OptionError("The two ways of sampling draw different numbers from the same noise.")
    return float(apart.max())
