"""SVI reaches what is known to be best, and refuses minibatches that a guide cannot see."""

from __future__ import annotations

import pytest
import torch

from inference import fit
from inference.training.convergence import ConvergenceNotice
from tests.inference.factors import data, ppca
from tests.inference.toys import Mean
from zoo import errors


def test_svi_reaches_the_maximum_likelihood():
    x = data()
    found = fit(ppca(), x, "svi", steps=1200, lr=0.04)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    rest = eigenvalues[2:].mean()
    # Tipping & Bishop 1999, eq. 3 at the maximum.
    best = -0.5 * (6 * torch.log(torch.tensor(2 * torch.pi)) + eigenvalues[:2].log().sum() + 4 * rest.log() + 6)
    # The guide contains the posterior, so only optimisation noise is left.
    assert best - 0.02 < found.program.log_prob(x).mean() <= best + 1e-9


def test_autoguide_with_local_latents_refuses_minibatches():
    """A guide with one factor per example must not see another minibatch than its model (pyro#3468)."""
    with pytest.raises(errors.CapabilityError, match="batch_size >= 300"):
        fit(ppca(), data(300), "svi", guide="normal", batch_size=50)


def test_a_fit_that_was_still_under_way_says_so():
    """Four times 12 under N(0, 1): the posterior is N(9.6, 0.447), and 500 steps of 0.01 cannot get there."""
    x = torch.full((4,), 12.0)
    with pytest.warns(ConvergenceNotice, match=r"still under way .* Take more steps \(steps=1000\), a larger lr"):
        found = fit(Mean(), x, "svi", steps=500, compile="never")
    missing = (9.6 - float(found.program.loc.detach())) ** 2 * 5 / 2
    assert found.info["convergence"]["verdict"] == "still improving"
    assert 0.8 * missing < found.info["convergence"]["gain"] * 4 < 1.1 * missing


@pytest.mark.filterwarnings("error")
def test_a_fit_that_has_arrived_is_silent():
    found = fit(Mean(), torch.full((4,), 0.5), "svi", steps=500, lr=0.03, compile="never")
    assert float(found.program.loc.detach()) == pytest.approx(0.4, abs=0.1)
    assert found.info["convergence"]["verdict"] == "converged"
    few = fit(Mean(), torch.full((4,), 12.0), "svi", steps=5, compile="never")
    assert few.info["convergence"] == {"verdict": "too short to tell"}
