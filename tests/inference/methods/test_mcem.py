"""Monte Carlo EM: its chains draw from the posterior, example by example, and its draws are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scipy.stats import kstest

from inference.fit import fit
from inference.fitted import Fit
from tests.conftest import FAILURE_RATE
from tests.inference.methods.linear import truth
from zoo.errors import CapabilityError
from zoo.latent.ppca import PPCA


@pytest.mark.parametrize(("acceptance", "leapfrog"), [(0.9, 5), (0.5, 10)])  # at 0.5 many proposals must be rejected
def test_chains_draw_from_the_posterior(acceptance: float, leapfrog: int) -> None:
    x, _ = truth()
    program = PPCA([6], 2)
    program.maximum_likelihood(x)
    program.requires_grad_(False)
    program.mean.requires_grad_()  # something to fit, at a rate that does not move it
    options = {"lr": 1e-12, "steps": 120, "batch_size": 150, "draws": 10, "m_steps": 1, "leapfrog": leapfrog}
    outcome = fit(program, x, "mcem", initialise=False, acceptance=acceptance, **options)
    draws = outcome.samples["z"]
    assert draws.shape == (10, 300, 2)
    assert outcome.guide is None
    assert abs(outcome.history.last("acceptance") - acceptance) < 0.05
    m = program.weight.T @ program.weight + program.scale**2 * torch.eye(2)
    mean = torch.linalg.solve(m, program.weight.T @ (x - program.mean).T).T.detach()
    standard = (draws[-1] - mean) @ torch.linalg.cholesky(m) / program.scale
    # Chains of different examples are independent: 600 standard normal numbers.
    assert kstest(standard.detach().flatten(), "norm").pvalue > FAILURE_RATE


@pytest.mark.parametrize("particles", [1, 3])
def test_chains_keep_to_their_examples(particles: int) -> None:
    # Well separated examples: a chain that lost its row would be far from its posterior.
    x = torch.arange(12.0)[:, None] * 10 + torch.zeros(12, 2)
    program = PPCA([2], 1)
    with torch.no_grad():
        program.weight.fill_(100.0)
    program.requires_grad_(False)
    program.mean.requires_grad_()
    options = {"lr": 1e-12, "steps": 150, "batch_size": 4, "draws": 6, "m_steps": 1, "leapfrog": 5}
    found = fit(program, x, "mcem", initialise=False, particles=particles, **options)
    mean = x.mean(1) / 100
    assert found.samples["z"].shape == (6, 12, 1)
    assert (found.samples["z"][..., 0] - mean).abs().max() < 0.05


def test_mcem_says_what_it_has_and_saves_it(tmp_path: Path) -> None:
    x = truth(30)[0]
    few = fit(PPCA([6], 2), x, "mcem", steps=3, draws=5, out=tmp_path)
    assert few.samples["z"].shape == (5, 30, 2)
    assert "training examples" in few.info["posterior"]
    assert torch.equal(Fit.load(tmp_path).samples["z"], few.samples["z"])
    none = fit(PPCA([6], 2), x, "mcem", steps=3, draws=0)
    assert none.samples is None
    assert "no draws" in none.info["posterior"]
    with pytest.raises(CapabilityError, match="no posterior"):
        none.draw(2, x)
