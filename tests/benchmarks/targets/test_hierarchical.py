"""Eight schools against the reference draws of Stan."""

from __future__ import annotations

import pytest

from benchmarks import targets
from zoo import datasets


def test_eight_schools_agrees_with_the_reference_draws(zoo_data):
    # Ten chains of Stan's NUTS, 10,000 draws in all, whose own Monte Carlo error is about 0.01 sd (0.02 for sd of tau).
    reference = datasets.reference_posterior("eight_schools")
    target = targets.load("eight-schools-centered")
    for site in ("mu", "tau"):
        assert abs(float(target.mean[site]) - reference.mean[site]) < 0.05 * reference.sd[site]
        assert float(target.sd[site]) == pytest.approx(reference.sd[site], rel=0.05)
    for i in range(8):
        name = f"theta[{i + 1}]"
        assert abs(float(target.mean["theta"][i]) - reference.mean[name]) < 0.05 * reference.sd[name]
        assert float(target.sd["theta"][i]) == pytest.approx(reference.sd[name], rel=0.05)
