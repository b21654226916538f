"""Evaluation against programs whose evidence, posterior and gaps are known in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from inference.evaluation.divergences import kl_divergences, moment_errors
from inference.evaluation.estimates import Estimate, density, elbo, importance_log_weights
from inference.evaluation.gaps import posterior_gap
from inference.evaluation.likelihood import log_likelihood
from inference.guides.named import AUTOGUIDES, build_guide
from inference.particles import draw
from tests.inference.toys import Mean, Pair, Rate, Sampler, linear, posterior_moments
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, ImplicitDensityError, OptionError, ShapeError

SIGMAS = 4.3  # two-sided failure rate 2e-5, the suite's


def gaussian_kl(loc, scale, mean, covariance):
    """KL(N(loc, diag scale^2) || N(mean, covariance)) by row."""
    q = torch.distributions.MultivariateNormal(loc, torch.diag_embed(scale.square().expand_as(loc)))
    p = torch.distributions.MultivariateNormal(mean, covariance)
    return torch.distributions.kl_divergence(q, p), torch.distributions.kl_divergence(p, q)


def within(estimate: Estimate, truth: torch.Tensor, units: float = SIGMAS) -> bool:
    """Whether the mean over units is within its Monte Carlo error."""
    return abs(estimate.mean - float(truth.mean())) < units * estimate.mean_error


def test_estimate_reports_mean_error_and_bits():
    found = Estimate(torch.tensor([-1.0, -3.0]), "exact", False)
    assert found.mean == -2.0
    assert found.standard_error == pytest.approx(1.0)
    assert found.bits_per_dim(4) == pytest.approx(2 / (4 * math.log(2)))
    assert Estimate(torch.tensor([-1.0]), "exact", False).standard_error is None


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


def test_elbo_is_evidence_minus_closed_form_kl():
    program = linear()
    x = program.generate(50)
    found = elbo(program, None, Data(x), 4000)
    mean, covariance = posterior_moments(program, x)
    kl, _ = gaussian_kl(program.encoder(x).detach(), program.encoder_scale.detach(), mean, covariance)
    assert within(found, program.log_prob(x).detach() - kl)
    assert found.values.shape == (50,)


def test_a_global_latent_makes_everything_one_unit():
    program = Mean()
    x = program.generate(7)
    found = log_likelihood(program, Data(x), guide=program.posterior, particles=5)
    assert found.values.shape == (1,)
    torch.testing.assert_close(found.values[0], program.evidence(x))
    assert within(log_likelihood(program, Data(x), particles=4000), program.evidence(x))


def test_training_mode_is_put_back():
    program = linear().train()
    log_likelihood(program, Data(program.generate(3)))
    assert program.training


# A point has no density, and Pyro's AutoIAFNormal needs two dimensions.
CASES = [(n, m) for n in AUTOGUIDES for m in (Rate, Mean, Pair) if n != "delta" and (n, m) != ("iaf", Mean)]


@pytest.mark.parametrize(("name", "make"), CASES)
def test_density_of_autoguides_agrees_with_their_own_draws(name, make):
    program = make()
    x = program.generate(4)
    guide = build_guide({"kind": "auto", "name": name}, program, Data(x))
    with torch.no_grad():
        draws = draw(guide, 6, x)
        found = density(guide, draws.values, x)
    torch.testing.assert_close(found.total, draws.log_prob.total)
    assert found.joint == draws.log_prob.joint


def test_density_of_a_point_guide_is_refused():
    program = Mean()
    x = program.generate(4)
    guide = build_guide({"kind": "auto", "name": "delta"}, program, Data(x))
    with pytest.raises(CapabilityError, match="point"):
        density(guide, {"mu": torch.zeros(3, 1)}, x)


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


def test_moment_errors_in_units_of_the_true_sd():
    truth = torch.randn(4000, 2)
    shifted = truth * torch.tensor([1.0, 2.0]) + torch.tensor([0.5, 0.0])
    found = moment_errors({"z": shifted}, mean=truth.mean(0), sd=truth.std(0))
    assert found.mean_max == pytest.approx(0.5, abs=0.05)
    assert found.sd_max == pytest.approx(1.0)
    assert found.sd_rms == pytest.approx(1 / math.sqrt(2))
    exact = moment_errors(truth, truth)
    assert (exact.mean_max, exact.sd_max) == (0, 0)


def test_wrong_requests_say_what_to_do():
    program = Rate()
    x = program.generate(5)
    with pytest.raises(OptionError, match="'iwae'"):
        log_likelihood(program, Data(x), how="guess")
    with pytest.raises(CapabilityError, match="how='iwae'"):
        log_likelihood(program, Data(x), how="exact")
    with pytest.raises(OptionError, match="at least 1"):
        elbo(program, None, Data(x), 0)
    with pytest.raises(ShapeError, match="log_evidence"):
        posterior_gap(program, program.guide, Data(x), torch.zeros(3), family="full")
    with pytest.raises(OptionError, match="moment_errors"):
        moment_errors(torch.zeros(3, 1))
    with pytest.raises(ImplicitDensityError, match="parzen"):
        log_likelihood(Sampler(), Data(torch.zeros(3, 2)))
    with pytest.raises(ImplicitDensityError, match="Parzen"):
        importance_log_weights(Sampler(), Sampler().guide, Data(torch.zeros(3, 2)))
