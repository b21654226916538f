"""The contract suite finds broken programs out: each rule by a program that breaks it."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

from zoo.program import Program
from zoo.testing import ContractError, check_program, draw_data


class Sound(Program):
    """Two numbers around a learnable centre, z ~ N(0, 1) between them."""

    event_shape = torch.Size([2])

    def __init__(self):
        super().__init__()
        self.centre = torch.nn.Parameter(torch.zeros(2))

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(self.centre.new_zeros(()), 1.0))
            return pyro.sample("x", dist.Normal(self.centre + z[..., None], 1.0).to_event(1), obs=x)

    def guide(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            pyro.sample("z", dist.Normal(x.mean(-1) / 2, 1.0))


def test_a_sound_program_passes():
    check_program(Sound())


def test_data_are_drawn_from_the_program_and_are_the_same_each_time():
    x, context = draw_data(Sound(), 5)
    assert x.shape == (5, 2)
    assert context is None
    assert not x.requires_grad
    assert torch.equal(draw_data(Sound(), 5)[0], x)


class Unobserved(Sound):
    """Ignores the data."""

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(self.centre.new_zeros(()), 1.0))
            return pyro.sample("x", dist.Normal(self.centre + z[..., None], 1.0).to_event(1))


class Strange(Sound):
    """Its guide samples what the model does not have."""

    def guide(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            pyro.sample("y", dist.Normal(x.mean(-1), 1.0))


class Wrong(Sound):
    """Its density is right, its posterior too wide: the variance is 1/3."""

    def log_prob(self, x, context=None):
        return dist.MultivariateNormal(self.centre, torch.eye(2) + 1).log_prob(x)

    def posterior(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            pyro.sample("z", dist.Normal((x - self.centre).sum(-1) / 3, 1.0))


class Deaf(Sound):
    """A parameter that nothing depends on."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(3))


@pytest.mark.parametrize("broken", [Unobserved, Strange, Wrong, Deaf])
def test_a_broken_program_is_found_out(broken):
    with pytest.raises(ContractError):
        check_program(broken())
