"""The comparison with hmmlearn: all sides do the same, and what each holds in memory is seen."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from benchmarks.speed.resources import extra_memory
from benchmarks.speed.workloads import hmm
from zoo.errors import OptionError

SMALL = hmm.Problem(sequences=20, steps=15, states=4, values=5, dim=2, iterations=4)


@pytest.mark.parametrize("emission", ["categorical", "normal"])
@pytest.mark.parametrize("task", hmm.TASKS)
def test_all_sides_find_the_same(task: str, emission: str) -> None:
    problem = replace(SMALL, task=task, emission=emission)
    x = problem.data()
    mine = hmm.ours(problem, x)
    for side in ("scaling", "log"):
        theirs = hmm.SIDES[side](problem, x)
        assert mine.log_likelihood == pytest.approx(theirs.log_likelihood, rel=1e-9)
        torch.testing.assert_close(mine.answer, theirs.answer, rtol=0, atol=1e-9)
    # Not because nothing happened.
    if task == "baum-welch":
        fewer = hmm.ours(replace(problem, iterations=3), x)
        assert mine.log_likelihood > fewer.log_likelihood + 1e-3
    else:
        other = hmm.ours(replace(problem, seed=1), x)
        assert (mine.answer - other.answer).abs().max() > 0.1


def test_data_follow_from_the_seed_and_leave_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    assert torch.equal(SMALL.data(), SMALL.data())
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(SMALL.data(), replace(SMALL, seed=1).data())
    assert replace(SMALL, dtype="float32").data().dtype == torch.float32
    for options in ({"task": "viterbi"}, {"emission": "poisson"}, {"dtype": "int8"}, {"steps": 0}):
        with pytest.raises(OptionError, match=next(iter(options))):
            replace(SMALL, **options)


def test_memory_of_hmmlearns_posteriors_is_seen() -> None:
    problem = hmm.Problem("posteriors", sequences=800, steps=100, states=32)
    ours, theirs = (extra_memory("hmm", problem, side) for side in ("ours", "scaling"))
    answer = 8 * 800 * 100 * 32 / 2**20
    # A piece for each sequence, then all of them once more; less what the process had free.
    assert theirs > 1.6 * answer
    assert 0.6 * answer < ours < theirs


def test_without_hmmlearn_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hmmlearn.hmm", None)
    with pytest.raises(OptionError, match="pip install hmmlearn"):
        hmm.hmmlearns(SMALL, SMALL.data())


@pytest.mark.parametrize("task", hmm.TASKS)
def test_comparison_of_medians(task: str) -> None:
    found = hmm.compare(hmm.Problem(task, sequences=12, steps=8, states=4), repeats=2, threads=1)
    assert 0 < found.least_ratio <= found.ratio <= found.largest_ratio
    assert found.difference < 1e-6
