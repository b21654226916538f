"""One method beside the truth: what is measured of it, and why something is not."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from benchmarks import targets
from benchmarks.cells.beside import Beside, bounds_of, chains_of, gap_of, judged, predictions_of
from benchmarks.cells.posterior_scores import Answer
from benchmarks.cells.truths import find_truth
from benchmarks.suite import Cell, MethodSpec, ProgramSpec
from inference import Fit, fit
from zoo.bayes.coin import BetaBernoulli

CELL = Cell(
    "compare", "posterior", ProgramSpec("coin"), method=MethodSpec("m", "svi"), dataset="coin", split="train",
    metrics=(), seed=0, evaluation={"particles": 200},
)  # fmt: skip


@pytest.fixture(scope="module")
def chain() -> Fit:
    torch.set_default_dtype(torch.float64)
    return fit(BetaBernoulli(), targets.load("coin").data, "nuts", warmup=30, draws=30, chains=2)


def numbers(row: Beside) -> dict[str, float | None]:
    return {m.metric: m.value for m in row.measured}


def test_an_exact_answer_has_no_distance_and_no_gap_but_predictions() -> None:
    coin = targets.load("coin")
    truth = find_truth("auto", coin.program(), coin.data, seed=0)
    exact = fit(coin.program(), coin.data, "exact")
    row = gap_of(judged("exact", CELL, exact, truth), truth)
    found = numbers(row)
    assert found["kl_reverse"] == pytest.approx(0, abs=1e-9)
    assert found["kl_forward"] == pytest.approx(0, abs=1e-9)
    assert "seconds" not in found
    assert (row.gap, row.gap_note) == ({}, "it is exact")
    assert row.off(["p"])[0] < 0.06
    checks = predictions_of(row, 0).checks
    # Beta-binomial with 9 of 12 seen: the mean of new data is below as often as above, but for ties.
    assert list(checks) == ["mean", "sd", "least", "largest"]
    assert 0.3 < checks["mean"].p_value < 0.6
    assert checks["mean"].observed == pytest.approx(0.75)


def test_gaps_are_per_unit_and_bounds_are_minus_the_loss() -> None:
    coin = targets.load("coin")
    truth = find_truth("auto", coin.program(), coin.data, seed=0)
    found = fit(copy.deepcopy(coin.program()), coin.data, "svi", guide="normal", steps=20, compile="never", lr=0.1)
    row = gap_of(judged("normal", CELL, found, truth), truth)
    assert row.gap["total"][0] == pytest.approx(numbers(row)["kl_reverse"], abs=5 * row.gap["total"][1] + 0.1)
    assert row.gap["amortisation"] == (0, 0)
    steps, bound = bounds_of(row)
    assert (list(steps), list(-bound)) == found.history.series("loss")


def test_without_evidence_the_bound_is_left_and_the_reference_is_not_compared_with_itself(chain: Fit) -> None:
    coin = targets.load("coin")
    truth = find_truth(chain, coin.program(), coin.data, seed=0)
    itself = judged("nuts", CELL, chain, truth)
    assert itself.is_reference
    assert numbers(itself)["mean_error"] is None
    assert bounds_of(itself) is None
    exact = gap_of(judged("exact", CELL, fit(coin.program(), coin.data, "exact"), truth), truth)
    found = numbers(exact)
    assert found["elbo"] == pytest.approx(coin.total_log_evidence)
    assert found["kl_reverse"] is None
    assert exact.gap_note == "the evidence is not known"


def test_chains_come_with_the_worst_first(chain: Fit) -> None:
    coin = targets.load("coin")
    row = judged("nuts", CELL, chain, find_truth("auto", coin.program(), coin.data, seed=0))
    ((name, values),) = chains_of(row, ["p"])
    assert name == "p"
    np.testing.assert_allclose(values.flatten(), chain.samples["p"])
    apart = torch.stack([torch.randn(60), torch.randn(60) + 3 * (torch.arange(60) >= 30)], 1)
    stuck = Fit(
        program=coin.program(), method="nuts", data="coin", seed=0, samples={"p": apart}, info={"chains": 2},
    )  # fmt: skip
    answer = Answer(stuck, coin, draws=row.answer.draws, exact=row.answer.exact)
    assert [name for name, _ in chains_of(Beside("stuck", CELL, answer, measured=()), ["p"])] == ["p[1]", "p[0]"]
