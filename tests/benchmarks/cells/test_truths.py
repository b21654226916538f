"""The truth of a comparison: exact where it can be, else a chain, and its sentence says which; bad ones are refused."""

from __future__ import annotations

import copy

import pytest
import torch

from benchmarks import targets
from benchmarks.cells.truths import find_truth
from inference import fit
from zoo.errors import OptionError, ShapeError, UnknownNameError


def test_an_exact_posterior_has_the_evidence_and_the_right_moments() -> None:
    coin = targets.load("coin")
    found = find_truth("auto", coin.program(), coin.data, seed=0)
    assert found.is_exact
    assert found.reference is None
    assert "exact posterior" in found.sentence
    assert found.truth.total_log_evidence == pytest.approx(coin.total_log_evidence, rel=1e-10)
    # 10,000 draws: five standard errors of mean and sd.
    assert abs(float(found.truth.mean["p"] - coin.mean["p"])) < 5 * float(coin.sd["p"]) / 10_000**0.5
    assert abs(float(found.truth.sd["p"] / coin.sd["p"] - 1)) < 5 / 20_000**0.5
    given = find_truth(coin, coin.program(), coin.data, seed=0)
    assert given.truth is coin
    assert given.draws["p"].shape == (4000,)


def test_a_chain_says_how_far_it_can_be_trusted() -> None:
    coin = targets.load("coin")
    few = {"warmup": 20, "draws": 20, "chains": 2}
    found = find_truth("nuts", coin.program(), coin.data, seed=0, options=few)
    assert not found.is_exact
    assert found.reference is not None
    for words in (
        "reference is NUTS: 2 chain(s), 40 draws",
        "R-hat is at most",
        "effective sample size",
        "not to be trusted",
    ):
        assert words in found.sentence, found.sentence
    again = find_truth(found.reference, coin.program(), coin.data, seed=0)
    assert "a given fit by nuts" in again.sentence
    torch.testing.assert_close(again.draws["p"], found.draws["p"])
    torch.testing.assert_close(found.draws["p"].sort().values, found.reference.samples["p"].sort().values)


def test_draws_and_fits_of_guides_are_truths_too() -> None:
    coin = targets.load("coin")
    program = coin.program()
    found = find_truth({"p": [0.1, 0.2, 0.3, 0.4]}, program, coin.data, seed=0)
    assert "4 draws that were given" in found.sentence
    assert float(found.truth.mean["p"]) == pytest.approx(0.25)
    guide = fit(copy.deepcopy(program), coin.data, "svi", steps=2, compile="never")
    assert "fit by svi, of which there are 4,000 draws" in find_truth(guide, program, coin.data, seed=0).sentence
    for truth, error, words in (
        ({"q": [0.1] * 4}, UnknownNameError, "latent site"),
        ({"p": [[0.1]] * 4}, ShapeError, "must have shape"),
        ({}, OptionError, "no draws"),
        ("exakt", UnknownNameError, "Did you mean 'exact'"),
    ):
        with pytest.raises(error, match=words):
            find_truth(truth, program, coin.data, seed=0)
