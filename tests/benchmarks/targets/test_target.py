"""The truth set: exact guides without variance, draws that have the moments stated, files that others can read."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from benchmarks import targets
from benchmarks.targets.target import Target
from inference.particles import log_weights, unit_log_weights
from tests.conftest import FAILURE_RATE

NAMES = targets.names()
DRAWS = 4000


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Target:
    if request.param == "kidiq":
        request.getfixturevalue("zoo_data")
    return targets.load(request.param)


every_target = pytest.mark.parametrize("target", NAMES, indirect=True)


@every_target
def test_exact_guide_has_the_evidence_as_its_bound_without_variance(target):
    weights = unit_log_weights(log_weights(target.program(), target.posterior, 50, *target.data)[1])
    torch.testing.assert_close(weights, target.log_evidence.reshape(1, -1).expand_as(weights), rtol=1e-10, atol=1e-10)


@every_target
def test_draws_have_the_stated_moments(target):
    draws = target.draw(DRAWS)
    assert draws.keys() == target.mean.keys() == target.sd.keys()
    for site, values in draws.items():
        mean, sd = target.mean[site], target.sd[site]
        assert values.shape == (DRAWS, *mean.shape)
        values = values.to(mean)
        # z-scores of means and second moments. A category that is all but certain may have drawn no exception: then
        # the count is Poisson and not normal, so only sites with at least ten expected exceptions are scored.
        usual = sd.square() * DRAWS > 10 if target.program().sites()[site].is_discrete else torch.ones_like(sd) > 0
        assert usual.any()
        z = ((values.mean(0) - mean) / sd * DRAWS**0.5)[usual]
        squares = (values - mean).square()
        w = ((squares.mean(0) - sd**2) / squares.std(0).clamp(min=1e-12) * DRAWS**0.5)[usual]
        limit = stats.norm.isf(FAILURE_RATE / 2 / (2 * z.numel()))
        assert z.abs().max() < limit
        if not target.program().sites()[site].is_discrete:
            assert w.abs().max() < limit


@every_target
def test_factory_builds_a_fresh_program_with_the_same_parameters(target):
    a, b = target.program(), target.program()
    assert a is not b
    weights = [log_weights(p, target.posterior, 2, *target.data)[1].total for p in (a, b)]
    torch.testing.assert_close(*weights)
    assert set(target.mean) == set(a.sites())
    a.check(*target.data)


@every_target
def test_seed_decides_the_draws(target):
    first, again, other = target.draw(5, seed=1), target.draw(5, seed=1), target.draw(5, seed=2)
    assert all(torch.equal(first[site], again[site]) for site in first)
    assert any(not torch.equal(first[site], other[site]) for site in first)


def test_the_set_has_discrete_and_multimodal_members():
    hows = {targets.load(name).how for name in NAMES if name != "kidiq"}
    assert hows == {"conjugate", "quadrature", "enumeration", "forward-backward", "linear-Gaussian", "grid"}
