"""Evaluation against programs whose evidence, posterior and gaps are known in closed form."""

from __future__ import annotations

import pytest
import torch

from inference.evaluation.likelihood import log_evidence, log_likelihood
from tests.inference.toys import Mean, Rate, Sampler, linear, within
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, ImplicitDensityError, OptionError


def test_auto_takes_the_exact_density():
    program = linear()
    x = program.generate(300)
    found = log_likelihood(program, Data(x))
    assert (found.how, found.bound, found.monte_carlo_error) == ("exact", False, None)
    torch.testing.assert_close(found.values, program.log_prob(x).detach())


def test_iwae_with_the_exact_posterior_is_exact_for_every_example():
    program = linear()
    x = program.generate(300)
    found = log_likelihood(program, Data(x), guide=program.posterior, how="iwae", particles=3, chunk=256)
    torch.testing.assert_close(found.values, program.log_prob(x).detach())
    assert float(found.monte_carlo_error.max()) < 1e-6


def test_iwae_is_within_its_stated_error_whatever_the_chunk():
    program = Rate()
    x = program.generate(100)
    for chunk in (100, 2**14):
        found = log_likelihood(program, Data(x), particles=2000, chunk=chunk)
        assert found.how == "IWAE-2000"
        assert found.bound
        assert within(found, program.evidence(x))


def test_stated_monte_carlo_error_is_the_spread_over_seeds():
    program = Rate()
    data = Data(program.generate(20))
    runs = [log_likelihood(program, data, particles=500, seed=s) for s in range(60)]
    spread = torch.stack([run.values for run in runs]).std(0).square().mean().sqrt()
    stated = torch.stack([run.monte_carlo_error for run in runs]).square().mean().sqrt()
    # 60 seeds x 20 examples: the spread itself is known to 1 / sqrt(2 * 59 * 20) = 2%.
    assert float(spread / stated) == pytest.approx(1.0, abs=0.1)


def test_same_seed_same_numbers_and_the_callers_randomness_is_untouched():
    program = Rate()
    data = Data(program.generate(5))
    before = torch.get_rng_state()
    first, second = (log_likelihood(program, data, particles=50, seed=3).values for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, log_likelihood(program, data, particles=50, seed=4).values)


def test_a_global_latent_makes_everything_one_unit():
    program = Mean()
    x = program.generate(7)
    found = log_evidence(program, Data(x), guide=program.posterior, particles=5)
    assert found.values.shape == (1,)
    torch.testing.assert_close(found.values[0], program.evidence(x))
    assert within(log_evidence(program, Data(x), particles=4000), program.evidence(x))


def test_training_mode_is_put_back():
    program = linear().train()
    log_likelihood(program, Data(program.generate(3)))
    assert program.training


def test_wrong_requests_say_what_to_do():
    program = Rate()
    x = program.generate(5)
    with pytest.raises(OptionError, match="'iwae'"):
        log_likelihood(program, Data(x), how="guess")
    for wrong in (0, -3, 2.5):  # also where they are not needed
        with pytest.raises(OptionError, match="particles"):
            log_likelihood(linear(), Data(linear().generate(3)), particles=wrong)
    with pytest.raises(CapabilityError, match="how='iwae'"):
        log_likelihood(program, Data(x), how="exact")
    with pytest.raises(ImplicitDensityError, match="parzen"):
        log_likelihood(Sampler(), Data(torch.zeros(3, 2)))
