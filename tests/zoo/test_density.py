"""A network's density as a distribution: shapes, contexts of every row, the estimate that is for training alone."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from zoo.density import DensityProgram, NetworkDensity


class Shift(DensityProgram):
    """x | c ~ N(c, 1) for two numbers; the density in training is told apart by a constant."""

    event_shape = torch.Size([2])

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        assert x.ndim == 2
        centre = torch.zeros(()) if context is None else context
        return torch.distributions.Normal(centre, 1.0).log_prob(x).sum(-1)

    def draw(self, n: int, context: Tensor | None = None) -> Tensor:
        centre = torch.zeros(()) if context is None else context
        return centre + torch.randn(n, 2)

    def training_log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.log_prob(x, context) - 100


class Around(Shift):
    """The same, given c."""

    def example_context(self, n: int) -> Tensor:
        return torch.zeros(n, 2)


def normal(x: Tensor, centre: Tensor) -> Tensor:
    return torch.distributions.Normal(centre, 1.0).log_prob(x).sum(-1)


def test_every_row_has_its_own_context():
    program, context = Around().eval(), 10 * torch.randn(3, 2)
    density = NetworkDensity(program, context)
    assert (density.batch_shape, density.event_shape) == ((3,), (2,))
    x = torch.randn(5, 3, 2)
    torch.testing.assert_close(density.log_prob(x), normal(x, context))
    torch.testing.assert_close(density.log_prob(x[0, 0]), normal(x[0, 0], context))
    wide = density.expand(torch.Size([4, 3]))
    assert wide.batch_shape == (4, 3)
    torch.testing.assert_close(wide.log_prob(x[0]), normal(x[0], context).expand(4, 3))
    drawn = wide.sample(torch.Size([1000]))
    assert drawn.shape == (1000, 4, 3, 2)
    # 4,000 draws of each: five standard errors of their mean.
    assert float((drawn.mean((0, 1)) - context).abs().max()) < 5 / 4000**0.5


def test_without_a_context_all_rows_are_alike():
    density = NetworkDensity(Shift().eval()).expand(torch.Size([6]))
    x = torch.randn(6, 2)
    torch.testing.assert_close(density.log_prob(x), normal(x, torch.zeros(2)))
    assert density.sample().shape == (6, 2)
    assert not density.sample().requires_grad


def test_the_estimate_is_for_training_alone():
    program, x = Shift(), torch.randn(4, 2)
    density = NetworkDensity(program)
    program.train()
    torch.testing.assert_close(density.log_prob(x), normal(x, torch.zeros(2)) - 100)
    program.eval()
    torch.testing.assert_close(density.log_prob(x), normal(x, torch.zeros(2)))


class Latent(Shift):
    """With a model of its own, which has a latent."""

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            centre = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(centre, 1.0).to_event(1), obs=x)


def test_nothing_is_drawn_to_know_that_there_are_no_latents(monkeypatch):
    monkeypatch.setattr(Shift, "draw", None)
    assert Shift().sites() == {}
    assert list(Latent().sites()) == ["z"]


def test_what_a_subclass_must_give():
    class Half(DensityProgram):
        event_shape = torch.Size([2])

    for ask in (lambda: Half().log_prob(torch.zeros(1, 2)), lambda: Half().draw(3)):
        with pytest.raises(NotImplementedError, match="Half must define"):
            ask()
