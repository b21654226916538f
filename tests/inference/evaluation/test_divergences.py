"""Divergences of guides in both directions against closed forms, and errors of moments in units of the truth."""

from __future__ import annotations

import math

import pytest
import torch

from inference.evaluation.divergences import kl_divergences, moment_errors
from inference.evaluation.estimates import Estimate
from inference.guides.named import build_guide
from tests.inference.toys import Mean, gaussian_kl, linear, posterior_moments, within
from zoo.datasets.data import Data
from zoo.errors import OptionError


def test_kl_in_both_directions_is_the_closed_form():
    program = linear()
    program.encoder_scale = torch.full((2,), 0.8)
    x = program.generate(10)
    mean, covariance = posterior_moments(program, x)
    with torch.no_grad():
        program.encoder.weight.copy_(torch.linalg.lstsq(x - x.mean(0), mean - mean.mean(0)).solution.T)
        program.encoder.bias.copy_(mean.mean(0) - program.encoder.weight @ x.mean(0) + 0.1)
    reverse, forward = kl_divergences(program, None, program.posterior, x, particles=4000)
    kl, lk = gaussian_kl(program.encoder(x).detach(), program.encoder_scale.detach(), mean, covariance)
    assert within(reverse, kl)
    assert within(forward, lk)
    given, _ = kl_divergences(
        program, None, program.posterior, x, particles=4000, log_evidence=program.log_prob(x).detach()
    )
    torch.testing.assert_close(given.values, reverse.values)


def test_kl_of_an_autoguide_over_a_global_latent():
    program = Mean()
    x = program.generate(6)
    guide = build_guide({"kind": "auto", "name": "multivariate_normal"}, program, Data(x))
    with torch.no_grad():
        guide.loc.fill_(0.2)
        guide.scale = torch.tensor([0.5])
        guide.scale_tril = torch.tensor([[1.0]])
    reverse, forward = kl_divergences(program, guide, program.posterior, x, particles=4000)
    mean, variance = (x.sum() / 7).reshape(1, 1), torch.tensor([[1 / 7]])
    kl, lk = gaussian_kl(torch.tensor([[0.2]]), torch.tensor([0.5]), mean, variance)
    assert within(reverse, kl)
    assert within(forward, lk)


def test_moment_errors_in_units_of_the_true_sd():
    truth = torch.randn(4000, 2)
    shifted = truth * torch.tensor([1.0, 2.0]) + torch.tensor([0.5, 0.0])
    found = moment_errors({"z": shifted}, mean=truth.mean(0), sd=truth.std(0))
    assert found.mean_max == pytest.approx(0.5, abs=0.05)
    assert found.sd_max == pytest.approx(1.0)
    assert found.sd_ratio == pytest.approx(2.0)
    narrow = moment_errors(truth * torch.tensor([1.0, 0.25]), truth)
    assert narrow.sd_ratio == pytest.approx(4.0)  # a deviation too small counts as one too large
    assert found.sd_rms == pytest.approx(1 / math.sqrt(2))
    exact = moment_errors(truth, truth)
    assert (exact.mean_max, exact.sd_max) == (0, 0)


def test_moments_are_wanted_of_something():
    with pytest.raises(OptionError, match="moment_errors"):
        moment_errors(torch.zeros(3, 1))


def test_kl_from_a_bound_on_the_evidence_says_so():
    program = linear()
    x = program.generate(4)
    low = Estimate(program.log_prob(x).detach() - 0.5, "AIS-10x2", True, monte_carlo_error=torch.full((4,), 0.3))
    reverse, forward = kl_divergences(program, program.posterior, program.posterior, x, log_evidence=low)
    torch.testing.assert_close(reverse.values, torch.full((4,), -0.5))
    torch.testing.assert_close(forward.values, torch.full((4,), 0.5))
    assert (reverse.bound, forward.bound) == (True, False)
    assert ", at least: log p(x) by AIS-10x2" in reverse.how
    assert ", at most: log p(x) by AIS-10x2" in forward.how
    torch.testing.assert_close(reverse.monte_carlo_error, torch.full((4,), 0.3))
