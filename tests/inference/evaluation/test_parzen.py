"""Parzen windows are the mixture density, in any chunking, with the best bandwidth."""

from __future__ import annotations

import math

import pytest
import torch

from inference.evaluation.parzen import parzen
from zoo.errors import EmptyDataError, NonFiniteError, OptionError, ShapeError


def test_parzen_is_the_mixture_density_in_any_chunking():
    samples, x = torch.rand(50, 2, 2), torch.rand(9, 2, 2)
    found, sigma = parzen(samples, x, torch.rand(8, 2, 2), [0.3])
    kernel = torch.distributions.Normal(samples.flatten(1), 0.3)
    truth = kernel.log_prob(x.flatten(1)[:, None]).sum(-1).logsumexp(1) - math.log(50)
    torch.testing.assert_close(found.values, truth)
    assert (sigma, found.how, found.bound) == (0.3, "Parzen-50", False)
    torch.testing.assert_close(parzen(samples, x, x, [0.3], chunk=60)[0].values, truth)


def test_parzen_chooses_its_bandwidth_on_validation_data():
    samples, x, valid = (torch.randn(2000, 1) for _ in range(3))
    _, sigma = parzen(samples, x, valid, [0.01, 0.2, 5.0])
    assert sigma == 0.2


def test_a_bandwidth_is_positive():
    with pytest.raises(OptionError, match="positive"):
        parzen(torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(3, 2), [0.0])


def test_data_of_another_shape_or_none_have_no_score():
    samples = torch.rand(20, 3)
    with pytest.raises(ShapeError, match="3, 1 and 3"):
        parzen(samples, torch.rand(5, 1), samples)
    with pytest.raises(NonFiniteError):
        parzen(samples, samples, samples.log().log())
    with pytest.raises(EmptyDataError):
        parzen(samples[:0], samples, samples)
