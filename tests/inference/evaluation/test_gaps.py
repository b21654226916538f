"""The gaps of a guide, where each is known in closed form."""

from __future__ import annotations

import pytest
import torch

from inference.evaluation.estimates import Estimate
from inference.evaluation.gaps import posterior_gap
from inference.guides.named import build_guide
from tests.inference.toys import SIGMAS, Mean, Rate, linear, posterior_moments
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, ShapeError


def test_gap_of_a_diagonal_guide_is_the_mean_field_gap():
    program = linear()
    x = program.generate(20)
    gap = posterior_gap(program, None, Data(x), program.log_prob(x).detach())
    _, covariance = posterior_moments(program, x)
    precision = torch.linalg.inv(covariance)
    # The best factorised Gaussian has the conditional variances; its KL is half the log-determinant ratio.
    truth = (precision.diagonal().log().sum() - torch.logdet(precision)) / 2
    parts = gap.summary()
    assert parts["approximation"][0] == pytest.approx(float(truth), abs=SIGMAS * parts["approximation"][1] + 2e-3)
    torch.testing.assert_close(gap.total, gap.approximation + gap.amortisation + gap.optimisation)
    assert gap.amortised
    assert float(gap.optimisation.abs().max()) == 0
    assert parts["amortisation"][0] > 1
    assert abs(parts["settling"][0]) < 0.01


def test_a_full_family_leaves_no_approximation_gap():
    program = linear()
    x = program.generate(20)
    gap = posterior_gap(program, None, Data(x), program.log_prob(x).detach(), family="full")
    assert float(gap.approximation.abs().max()) < 1e-3


def test_an_exact_guide_has_no_gap_at_all():
    program = linear()
    x = program.generate(20)
    gap = posterior_gap(program, program.posterior, Data(x), program.log_prob(x).detach())
    assert float(gap.total.abs().max()) < 1e-8
    assert float(gap.approximation.abs().max()) < 1e-4


def test_gap_of_a_guide_of_global_latents_is_optimisation():
    program = Mean()
    x = program.generate(6)
    before = {name: value.clone() for name, value in program.state_dict().items()}
    gap = posterior_gap(program, None, Data(x), program.evidence(x), particles=16)
    assert not gap.amortised
    assert float(gap.amortisation) == 0
    assert float(gap.optimisation) > 0.05
    assert float(gap.approximation) == pytest.approx(0.0, abs=1e-3)
    for name, value in program.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} was changed"


def test_gap_of_an_autoguide_that_is_not_fitted():
    program = linear(4)
    x = program.generate(3)
    guide = build_guide({"kind": "auto", "name": "normal"}, program, Data(x))
    gap = posterior_gap(program, guide, Data(x), program.log_prob(x).detach(), steps=300)
    assert not gap.amortised
    assert float(gap.optimisation.sum()) > 1
    _, covariance = posterior_moments(program, x)
    precision = torch.linalg.inv(covariance)
    truth = float(precision.diagonal().log().sum() - torch.logdet(precision)) / 2
    mean, error = gap.summary()["approximation"]
    assert mean == pytest.approx(truth, abs=SIGMAS * error + 0.02)


def test_a_guide_that_is_not_gaussian_needs_a_family():
    program = Rate()
    x = program.generate(10)
    with pytest.raises(CapabilityError, match="family='diagonal'"):
        posterior_gap(program, None, Data(x), program.evidence(x))
    gap = posterior_gap(program, None, Data(x), program.evidence(x), family="diagonal", steps=200)
    # The best log-normal is better than a Gamma that is too wide, and still not the posterior.
    assert gap.summary()["amortisation"][0] > 0.01
    assert 0 < gap.summary()["approximation"][0] < 0.1


def test_the_evidence_of_every_example_is_wanted():
    program = Rate()
    x = program.generate(5)
    with pytest.raises(ShapeError, match="log_evidence"):
        posterior_gap(program, program.guide, Data(x), torch.zeros(3), family="full")


def test_a_gap_below_an_estimate_says_that_it_is_a_bound():
    program = linear()
    x = program.generate(6)
    exact = program.log_prob(x).detach()
    low = Estimate(exact - 0.5, "AIS-10x2", True, monte_carlo_error=torch.full((6,), 0.3))
    gap = posterior_gap(program, program.posterior, Data(x), low, steps=2)
    assert "AIS-10x2, a lower bound" in gap.caveat
    mean, error = gap.summary()["approximation"]
    assert mean == pytest.approx(-0.5, abs=1e-3)  # below what no gap can be below, and the caveat says why
    assert error == pytest.approx(0.3 / 6**0.5, rel=1e-3)
    assert posterior_gap(program, program.posterior, Data(x), exact, steps=2).caveat is None
