"""Pyro's latent examples beside ours: the judge of both, and the page; the examples themselves need a checkout."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from benchmarks.scripts import pyro_latent
from benchmarks.scripts.pyro_latent import Row, Task, importance
from zoo.errors import OptionError, UnknownNameError


@pytest.mark.parametrize("sites", ["one", "a step each"])
def test_both_sides_are_judged_by_the_likelihood(sites):
    """z ~ N(0, I), x | z ~ N(z, I), by a guide that is somewhat off; sites of two kinds of writing."""
    x = torch.tensor([[0.3, -1.2], [2.0, 0.1], [-0.5, 0.4]])

    def model():
        with pyro.plate("data", 3):
            if sites == "one":
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
                return
            for t in range(2):
                z = pyro.sample(f"z_{t}", dist.Normal(0.0, 1.0))
                pyro.sample(f"x_{t}", dist.Normal(z, 1.0), obs=x[:, t])

    def guide():
        with pyro.plate("data", 3):
            if sites == "one":
                pyro.sample("z", dist.Normal(x / 2 + 0.1, 0.8).to_event(1))
                return
            for t in range(2):
                pyro.sample(f"z_{t}", dist.Normal(x[:, t] / 2 + 0.1, 0.8))

    exact = torch.tensor(stats.norm.logpdf(x.numpy(), 0, math.sqrt(2)).sum(1))
    found = importance(model, guide, 2000)
    assert found.shape == (3,)
    assert torch.allclose(found, exact, atol=0.03)  # the weights' relative deviation is below 0.3
    assert not torch.allclose(importance(model, guide, 1), exact, atol=1e-3)


def test_the_page_has_a_line_for_each_side():
    rows = [Row("cvae, 1 given", side, -60.25, error=0.5, seconds=7.0, parameters=1234) for side in ("Pyro", "zoo")]
    page = pyro_latent.record(rows, Task(epochs=3), "abc")
    assert "| cvae, 1 given | zoo | -60.250 | 0.500 | 7 | 1,234 |" in page
    assert "3 epochs" in page
    assert "Pyro's files abc" in page


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(OptionError, match="no checkout"):
        pyro_latent.main([str(tmp_path)])
    (tmp_path / "examples").mkdir()
    with pytest.raises(UnknownNameError, match="cvae-1"):
        pyro_latent.main([str(tmp_path), "--only", "cvae-4"])
