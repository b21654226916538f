"""Enumeration against the sum by hand, and what has no exact guide."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference.guides.exact import EnumeratedGuide, exact_guide, exact_log_evidence
from inference.particles import log_weights
from tests.inference.exact_toys import Unanswerable
from zoo.errors import CapabilityError
from zoo.program import Program


class Coins(Program):
    """Which of three coins was thrown: one enumerable latent, no closed form declared."""

    family, paper = "mixtures", "enumeration"

    def __init__(self):
        super().__init__()
        self.register_buffer("weights", torch.tensor([0.2, 0.5, 0.3]))
        self.register_buffer("loc", torch.tensor([-1.0, 0.0, 3.0]))

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Categorical(self.weights), infer={"enumerate": "parallel"})
            return pyro.sample("x", dist.Normal(self.loc[z], 1.0), obs=x)


def test_enumeration_equals_the_sum_by_hand():
    program, x = Coins(), torch.tensor([-2.0, 0.5, 4.0, 1.0])
    terms = program.weights.log() + dist.Normal(program.loc, 1.0).log_prob(x[:, None])
    guide = exact_guide(program)
    assert isinstance(guide, EnumeratedGuide)
    torch.testing.assert_close(exact_log_evidence(program, x), terms.logsumexp(-1))
    draws, weights = log_weights(program, guide, 50, x)
    torch.testing.assert_close(weights.local, terms.logsumexp(-1).expand(50, -1))
    assert draws.values["z"].shape == (50, 4)


def test_exact_guide_refuses_and_says_why():
    with pytest.raises(CapabilityError, match="dimensions"):
        exact_guide(Unanswerable())
