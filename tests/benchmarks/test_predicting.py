"""What `zoo sample` draws and `zoo score` says, by the distribution that it is from."""

from __future__ import annotations

import re

import pytest
import torch

from benchmarks.predicting import QUANTITIES, draw_examples, score_examples
from inference import fit
from tests.inference.toys import SIGMAS
from zoo.datasets import Data
from zoo.errors import OptionError


def test_samples_come_after_the_training_data_unless_the_prior_is_asked_for() -> None:
    found = fit("coin", torch.ones(98), "exact")  # the next is heads with 99/100, under the prior with 1/2
    n = 4000
    for prior, p in ((False, 0.99), (True, 0.5)):
        x, where = draw_examples(found, n, prior=prior)
        assert x.shape == (n,)
        assert abs(float(x.mean()) - p) < SIGMAS * (p * (1 - p) / n) ** 0.5
        assert where == f"the {'prior' if prior else 'posterior'} predictive distribution"


def test_each_context_has_latents_of_its_own() -> None:
    c = torch.eye(2).repeat(3, 1)
    found = fit("linear-regression", (torch.zeros(6), c), "exact")
    context = torch.tensor([100.0, 0.0]).repeat(200, 1)
    x, _ = draw_examples(found, 200, context)
    assert x.shape == (200,)
    # w_1 | x ~ N(0, 1 / (1 + 3 / 0.49)), a hundredfold; one draw for all would leave the noise alone, 0.7
    assert float(x.std()) == pytest.approx(100 / (1 + 3 / 0.49) ** 0.5, rel=0.2)


def test_a_program_without_global_latents_is_as_it_was_fitted() -> None:
    found = fit("gaussian-mixture", torch.randn(50, 2), "em", components=2)
    x, where = draw_examples(found, 10)
    assert (x.shape, where) == ((10, 2), "the fitted program")
    for ask in (lambda: draw_examples(found, 3, prior=True), lambda: score_examples(found, Data(x), evidence=True)):
        with pytest.raises(OptionError, match=r"no global latents.*leave out"):
            ask()
    name, estimate = score_examples(found, Data(x))
    assert (name, estimate.how) == ("log_likelihood", "exact")


def test_draws_of_chains_say_how_these_mix() -> None:
    found = fit("rbm", torch.tensor([[0.0, 1.0], [1.0, 1.0]]), "cd", steps=2)
    x, where = draw_examples(found, 5)
    assert x.shape == (5, 2)
    assert re.fullmatch(
        r"the fitted program, by chains of 100 transitions, R-hat 1\.0\d, [01]\.\d\d of them moved", where
    )


def test_scores_have_their_names() -> None:
    found = fit("coin", torch.ones(3), "exact")
    name, predictive = score_examples(found, Data(torch.ones(2)))
    assert name == "log_predictive_density"
    assert float(predictive.values[0]) == pytest.approx(float(torch.tensor(0.8).log()), abs=0.03)
    name, evidence = score_examples(found, Data(torch.ones(2)), evidence=True)
    assert name == "log_evidence"
    assert float(evidence.values) == pytest.approx(float(torch.tensor(1 / 3).log()))
    with pytest.raises(OptionError, match="add --evidence"):
        score_examples(found, Data(torch.ones(2)), how="iwae")
    assert {"log_likelihood", "log_predictive_density", "log_evidence"} == set(QUANTITIES)
