"""A program of one line, with twists that make its step hard to trace, and its fits compared bit for bit."""

from __future__ import annotations

import random

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference import fit
from inference.training.loop import Loop
from tests.inference.steps import bounds
from zoo import catalogue
from zoo.datasets import Data
from zoo.program import Program

NAMES = [name for name in catalogue.names() if bounds(name)]
"""The programs that have a bound to climb with their own guide."""


def agree(found: tuple[list[torch.Tensor], list[torch.Tensor]], rtol: float = 1e-8, atol: float = 1e-9) -> None:
    """Rounding is all that may differ; in float64 a step of these programs has a relative error below 1e-10."""
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)


def marked(cases, quick):
    """Cases as parameters; those that are not quick are slow."""
    return [pytest.param(*case, marks=[] if quick(*case) else pytest.mark.slow) for case in cases]


class Line(Program):
    """z ~ N(0, 1), x | z ~ N(w z + b, 1) for three numbers x; what else a step does is up to `twist`."""

    event_shape = torch.Size([3])

    def __init__(self, twist: str = "") -> None:
        super().__init__()
        torch.manual_seed(1)
        self.twist, self.calls = twist, 0
        self.w = nn.Parameter(torch.randn(3))
        self.b = nn.Parameter(torch.zeros(3))
        self.encoder = nn.Linear(3, 2)

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(self.w.new_zeros(()), 1.0))[..., None]
            mean = self.w * z + self.b
            self.calls += 1
            if self.twist == "branch" and self.b.sum() > 0.05:
                mean = mean * 1.1
            if self.twist == "item":
                mean = mean + 0.1 * self.b.sum().item()
            if self.twist == "counter" and self.calls % 2:
                mean = mean + 0.5
            if self.twist == "random" and random.random() < 0.5:
                mean = mean + 0.5
            if self.twist == "poisson":
                mean = mean + 0.1 * torch.poisson(torch.ones(3))
            if self.twist == "number of draws" and self.calls % 2:
                mean = mean + 0.1 * torch.randn(3)
            return pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def log_prob(self, x, context=None):
        cov = torch.outer(self.w, self.w) + torch.eye(3)
        return dist.MultivariateNormal(self.b, cov).log_prob(x)

    def guide(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            # No product of matrices: what needs none a library keeps on the stack; other programs of these tests do.
            numbers = (x[..., None, :] * self.encoder.weight).sum(-1) + self.encoder.bias
            mean, scale = numbers.unbind(-1)
            pyro.sample("z", dist.Normal(mean, scale.exp()))


def line_data(n: int = 100) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    z = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    return z * torch.tensor([1.0, -2.0, 0.5]) + 0.3 * torch.randn(n, 3, generator=generator, dtype=torch.float64)


def fitted(compile: str, seed: int = 0, twist: str = "", data=None, **given):
    given = {"steps": 200, "batch_size": 32, **given}
    return fit(Line(twist), line_data() if data is None else data, "svi", seed=seed, compile=compile, **given)


def numbers(found) -> list:
    """All that a fit ends with, but for times."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in found.history.rows]
    return [rows, *(v.tolist() for v in found.program.state_dict().values())]


def in_float32() -> Data:
    """The data as fits have them by default, where Adam updates all parameters by one operation."""
    return Data(line_data().float())


def keeping(loop: Loop) -> Loop:
    """Its step also keeps what the weights were before and are after it, and lets two buffers change places."""
    program, inner = loop.parts["program"], loop.step
    for name in ("before", "after", "left", "right"):
        program.register_buffer(name, torch.randn_like(program.w))

    def step(batch: Data, now: dict[str, float]) -> dict[str, Tensor]:
        program.before.copy_(program.w.detach())
        metrics = inner(batch, now)
        program.after.copy_(program.w.detach())
        left = program.left.clone()
        program.left.copy_(program.right)
        program.right.copy_(left)
        return metrics

    loop.step = step
    return loop
