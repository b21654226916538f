"""The comparison of EM with scikit-learn: both sides do the same, and the memory of a fit is seen."""

from __future__ import annotations

import pytest
import torch

from benchmarks.speed.resources import extra_memory
from benchmarks.speed.workloads import em
from zoo.errors import OptionError

SMALL = em.Problem(n=600, dim=3, components=4, iterations=5)


@pytest.mark.parametrize("covariance", ["spherical", "diagonal", "full"])
def test_both_sides_find_the_same(covariance: str) -> None:
    problem = em.replace(SMALL, covariance=covariance)
    x = problem.data()
    mine, theirs = em.ours(problem, x), em.sklearns(problem, x)
    assert mine.log_likelihood == pytest.approx(theirs.log_likelihood, rel=1e-12)
    assert min(mine.seconds, theirs.seconds) > 0
    # Not because nothing happened: one iteration less is somewhere else.
    fewer = em.ours(em.replace(problem, iterations=4), x)
    assert mine.log_likelihood > fewer.log_likelihood + 1e-6


def test_data_follow_from_the_seed() -> None:
    assert torch.equal(SMALL.data(), SMALL.data())
    assert not torch.equal(SMALL.data(), em.replace(SMALL, seed=1).data())
    assert em.replace(SMALL, dtype="float32").data().dtype == torch.float32
    for options in ({"n": 3}, {"dtype": "int8"}):
        with pytest.raises(OptionError, match=next(iter(options))):
            em.replace(SMALL, **options)


def test_memory_of_scikit_learns_responsibilities_is_seen() -> None:
    problem = em.Problem(n=100_000, dim=2, components=32, iterations=1)
    ours, theirs = (extra_memory("em", problem, side) for side in em.SIDES)
    assert theirs > 8 * problem.n * problem.components / 2**20  # it holds them for all rows at once
    assert ours < theirs


def test_comparison_of_medians() -> None:
    found = em.compare(em.replace(SMALL, iterations=1), repeats=2, threads=1)
    assert found.least_ratio <= found.ratio <= found.largest_ratio
    assert abs(found.difference) < 1e-9
