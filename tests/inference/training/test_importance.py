"""What importance weights say of themselves, where their tail and their mean are known."""

from __future__ import annotations

import math

import pytest
import torch

from inference.training.importance import Weighed


def normal_weights(sd: float, n: int = 4000) -> torch.Tensor:
    """Of draws of N(0, sd) for a standard normal times e^3."""
    z = sd * torch.randn(n)
    return torch.distributions.Normal(0.0, 1.0).log_prob(z) - torch.distributions.Normal(0.0, sd).log_prob(z) + 3


def test_weights_of_a_wide_proposal_tell_the_evidence() -> None:
    found = Weighed(normal_weights(1.5))
    assert found.log_evidence == pytest.approx(3.0, abs=0.05)
    assert found.k_hat < 0.5
    assert found.doubt is None
    smoothed = found.smoothed()
    assert float(smoothed.sum()) == pytest.approx(1.0)
    assert float(smoothed.min()) >= 0


def test_a_heavy_tail_is_doubted_and_smoothed() -> None:
    """Powers of a uniform number have a Pareto tail, whose shape is the power."""
    found = Weighed(-0.9 * torch.rand(4000).log())
    assert found.k_hat == pytest.approx(0.9, abs=0.15)
    assert "k-hat is" in found.doubt
    assert not torch.equal(found.smoothed().sort().values[-5:], found.log_weights.softmax(0).sort().values[-5:])


def test_equal_weights_have_no_tail() -> None:
    found = Weighed(torch.full((100,), -2.0))
    assert (found.k_hat, found.doubt) == (0.0, None)
    assert found.log_evidence == pytest.approx(-2.0)
    torch.testing.assert_close(found.smoothed(), torch.full((100,), 0.01))


def test_what_is_impossible_has_no_weight() -> None:
    weights = normal_weights(1.2, 400)
    weights[::2] = -math.inf
    smoothed = Weighed(weights).smoothed()
    assert float(smoothed[::2].sum()) == 0.0
    assert float(smoothed.sum()) == pytest.approx(1.0)
