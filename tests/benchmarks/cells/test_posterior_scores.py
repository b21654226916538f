"""The scores of posteriors: divergences from draws alone."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.cells import posterior_scores


def test_nearest_neighbours_know_the_entropy_of_a_gaussian() -> None:
    z = np.random.RandomState(0).randn(4000, 2) * [1.0, 3.0]
    terms = posterior_scores._entropy_terms(z)
    exact = math.log(2 * math.pi * math.e) + math.log(3.0)
    assert (
        abs(terms.mean() - exact) < 4 * terms.std() / math.sqrt(len(z)) + 0.01
    )  # 0.01: bias of 5 neighbours at the rim
