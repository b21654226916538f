"""Annealed importance sampling against exact evidence, from below and from above."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import zoo
from inference.evaluation import annealing
from inference.evaluation.annealing import Path, _run, ais, anneal, bidirectional, sigmoid_schedule
from tests.inference.toys import Mean, Pair, Rate, Sampler, linear
from tests.zoo.readings import Nudged, Pulled, TwoReadings
from zoo import catalogue, datasets
from zoo.errors import CapabilityError, ImplicitDensityError, OptionError
from zoo.mixtures.bernoulli import BernoulliMixture

SIGMAS = 4.3


def close(estimate, truth, tolerance: float = 0.05) -> bool:
    """Mean over units within 0.05 nats or the stated Monte Carlo error, whichever is larger."""
    return abs(estimate.mean - float(truth.mean())) < max(tolerance, SIGMAS * estimate.mean_error)


def test_schedule_rises_from_zero_to_one():
    betas = sigmoid_schedule(20)
    assert betas.shape == (21,)
    assert (float(betas[0]), float(betas[-1])) == (0.0, 1.0)
    assert bool((betas.diff() > 0).all())


def test_ais_on_ppca_is_the_exact_evidence():
    program = linear(6, 3)
    x = program.generate(20)
    truth = program.log_prob(x).detach()
    found = ais(program, x, steps=200)
    assert found.how == "AIS-200x16"
    assert close(found, truth)
    pulls = (found.values - truth) / found.monte_carlo_error
    assert float(pulls.square().mean()) < 4  # the stated errors are of the right size


def test_ais_on_a_constrained_latent():
    program = Rate()
    x = program.generate(20)
    assert close(ais(program, x, steps=60), program.evidence(x))


def test_ais_on_a_global_latent_is_one_unit():
    program = Mean()
    x = program.generate(8)
    found = ais(program, x, steps=60, chains=32)
    assert found.values.shape == (1,)
    assert close(found, program.evidence(x))


def test_ais_from_a_guide():
    program = linear(6, 3)
    x = program.generate(10)
    truth = program.log_prob(x).detach()
    torch.testing.assert_close(ais(program, x, start=program.posterior, steps=3).values, truth)
    assert close(ais(program, x, start=program.guide, steps=60), truth)


def test_ais_on_global_and_local_sites_together():
    program = Pair()
    x = program.generate(3)
    # z sums out in closed form; scale is integrated on a fine grid.
    scale = torch.linspace(1e-4, 40, 200_001)
    prior = torch.distributions.Gamma(torch.tensor(3.0), torch.tensor(1.0)).log_prob(scale)
    marginal = torch.distributions.Normal(0.0, (1 + scale**2).sqrt()).log_prob(x[:, None]).sum(0)
    truth = (prior + marginal).logsumexp(0) + math.log(float(scale[1] - scale[0]))
    assert close(ais(program, x, steps=50, chains=32), truth)


@pytest.mark.parametrize("make", [linear, Mean])
def test_bidirectional_bounds_bracket_the_truth(make):
    program = make()
    found = bidirectional(program, 10, steps=50)
    x = found.data.x
    truth = program.log_prob(x).detach() if make is linear else program.evidence(x)
    assert found.lower.mean < float(truth.mean()) + SIGMAS * found.lower.mean_error
    assert found.upper.mean > float(truth.mean()) - SIGMAS * found.upper.mean_error
    assert found.width < 1.0
    assert found.lower.bound
    assert not found.upper.bound


def test_forward_weights_are_unbiased_even_on_a_bad_path():
    """E[w] is the evidence for any frozen path: three steps, sizes too large, many chains."""
    normal = torch.distributions.Normal(0.0, 1.0)

    def pair(z):
        return normal.log_prob(z).sum(-1), torch.distributions.Normal(z[..., 0], 0.8).log_prob(torch.tensor(1.5))

    path = Path(torch.linspace(0, 1, 4), torch.full((3, 1), 1.7), 2)
    found = anneal(pair, lambda s: torch.randn(s, 1, 1), chains=20_000, path=path)
    weights = found.log_weights.exp()
    truth = float(torch.distributions.Normal(0.0, math.sqrt(1 + 0.64)).log_prob(torch.tensor(1.5)).exp())
    assert float(weights.mean()) == pytest.approx(truth, abs=SIGMAS * float(weights.std()) / math.sqrt(20_000))
    assert 0 < float(found.acceptance) < 1
    # Backwards, from exact posterior draws, the weights average to the inverse of the evidence.
    variance = 1 / (1 + 1 / 0.64)
    exact = variance * 1.5 / 0.64 + math.sqrt(variance) * torch.randn(20_000, 1, 1)
    inverse = _run(pair, exact, path, backwards=True).log_weights.exp()
    assert float(inverse.mean()) == pytest.approx(1 / truth, abs=SIGMAS * float(inverse.std()) / math.sqrt(20_000))


def test_a_decoder_with_an_observation_model_is_a_pair_of_callables():
    weight, sigma, x = torch.randn(4, 2), 0.5, torch.randn(6, 4)

    def pair(z):
        prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
        return prior, torch.distributions.Normal(z @ weight.T, sigma).log_prob(x).sum(-1)

    found = anneal(pair, lambda s: torch.randn(s, 6, 2), chains=32, steps=100).log_weights
    noise = torch.full((4,), sigma**2)
    truth = torch.distributions.LowRankMultivariateNormal(torch.zeros(4), weight, noise).log_prob(x)
    error = found.exp().std(0) / found.exp().mean(0) / math.sqrt(32)
    mean = (found.logsumexp(0) - math.log(32) - truth).mean()
    assert abs(float(mean)) < max(0.05, SIGMAS * float(error.square().sum().sqrt()) / 6)


def test_refusals():
    with pytest.raises(ImplicitDensityError, match="observation model"):
        ais(Sampler(), torch.zeros(2, 2))
    with pytest.raises(CapabilityError, match="discrete"):
        ais(BernoulliMixture([3], 2), torch.zeros(2, 3))
    with pytest.raises(OptionError, match="at least 1"):
        ais(Rate(), torch.ones(2), chains=0)


@pytest.mark.parametrize("kind", [TwoReadings, Pulled])
def test_a_second_reading_counts_once(kind):
    program = kind()
    context = program.example_context(20)
    x = program.generate(20, context)
    assert close(ais(program, x, context, steps=200), program.log_prob(x, context))


def test_a_factor_of_a_global_latent_counts_once():
    x = torch.tensor([0.3, -1.2, 0.8])
    assert close(ais(Nudged(), x, steps=150), Nudged().evidence(x))


def test_what_is_generated_heeds_no_second_reading_so_that_it_brackets_nothing():
    with pytest.raises(CapabilityError, match="bidirectional cannot bracket TwoReadings: it observes 'y' besides x"):
        bidirectional(TwoReadings(), 3, TwoReadings().example_context(3))


@pytest.mark.parametrize(("name", "data"), [("vae", "digits-binary"), ("eight-schools", "eight_schools")])
def test_a_long_run_leaves_python_and_gives_the_same_numbers(monkeypatch, name, data):
    loaded = datasets.load(data)
    program = catalogue.create_for(name, loaded.train)
    few = loaded.train.rows(slice(0, 8))
    made = []
    original = annealing.without_python
    monkeypatch.setattr(annealing, "TRACED_FROM", 90)
    monkeypatch.setattr(annealing, "without_python", lambda *given: made.append(original(*given)) or made[-1])
    traced = ais(program, *few, chains=2, steps=annealing.TRACED_FROM // 6 + 1, leapfrog=5)
    assert [each is not None for each in made] == [True, True]  # to find step sizes, and the run that counts
    monkeypatch.setattr(annealing, "TRACED_FROM", 10**9)
    eager = ais(program, *few, chains=2, steps=90 // 6 + 1, leapfrog=5)
    assert len(made) == 2
    torch.testing.assert_close(traced.values, eager.values, rtol=1e-8, atol=1e-8)


def test_densities_that_look_at_values_stay_in_python():
    def looks(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        start = -z.square().sum(-1) / 2
        return start, -start if float(z.sum()) > 0 else start

    assert annealing.without_python(looks, torch.randn(2, 3, 1)) is None


def test_adopted_code_may_go_another_way_at_every_place(monkeypatch):
    def model(y):
        mean = pyro.sample("mean", dist.Normal(y.new_zeros(()), 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    monkeypatch.setattr(annealing, "TRACED_FROM", 1)
    monkeypatch.setattr(annealing, "without_python", lambda *given: pytest.fail("it was traced"))
    y = torch.tensor([0.3, -0.2, 1.0])
    found = ais(zoo.adopt(model), y, chains=4, steps=2)
    assert bool(torch.isfinite(found.values).all())
