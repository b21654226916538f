"""SVI reaches what is known to be best, and refuses minibatches that a guide cannot see."""

from __future__ import annotations

import pytest
import torch

from inference import fit
from tests.inference.factors import data, ppca
from zoo import errors


def test_svi_reaches_the_maximum_likelihood():
    x = data()
    found = fit(ppca(), x, "svi", steps=2500, lr=0.02)
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
