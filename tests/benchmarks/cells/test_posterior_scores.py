"""The scores of posteriors: divergences from draws alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmarks.cells import posterior_scores
from benchmarks.cells.posterior_scores import Answer
from benchmarks.suite import Cell, MethodSpec, ProgramSpec
from benchmarks.targets import Reference
from inference import Fit
from tests.inference.toys import Mean
from zoo.datasets import Data


def test_nearest_neighbours_know_the_entropy_of_a_gaussian() -> None:
    z = np.random.RandomState(0).randn(4000, 2) * [1.0, 3.0]
    terms = posterior_scores._entropy_terms(z)
    exact = math.log(2 * math.pi * math.e) + math.log(3.0)
    assert (
        abs(terms.mean() - exact) < 4 * terms.std() / math.sqrt(len(z)) + 0.01
    )  # 0.01: bias of 5 neighbours at the rim


def test_the_distance_of_shifted_draws_in_true_deviations() -> None:
    chains = {"a": 10 * torch.randn(4, 1000) + 50, "b": 0.1 * torch.randn(4, 1000, 2)}
    known = {"name": "made", "description": "", "how": "draws", "program": Mean, "data": Data(torch.zeros(2))}
    target = Reference.of(chains, **known)
    fit = Fit(program=Mean(), method="exact", data="made", seed=0)
    exact = target.draw(4000)
    draws = {"a": exact["a"] + 3 * target.sd["a"], "b": exact["b"]}
    answer = Answer(fit, target, draws=draws, exact=exact)
    cell = Cell("t", "posterior", ProgramSpec("made"), MethodSpec("m", "exact"), "", "test", metrics=(), seed=0)
    found = posterior_scores.transport(cell, answer)
    # Three deviations along one of three coordinates: over directions the mean square is 9 / 3.
    assert found.value == pytest.approx(math.sqrt(3), rel=0.1)
    moments = {m.metric: m.value for m in posterior_scores.moments(answer)}
    assert moments["mean_worst"] == pytest.approx(3.0, rel=1e-3)
    assert moments["mean_error"] == pytest.approx(math.sqrt(3), rel=1e-3)
    assert moments["sd_worst"] == pytest.approx(1.0, rel=1e-3)
