"""Diagnostics of chains and of importance weights: mixed ones told from stuck ones, upper tails smoothed."""

from __future__ import annotations

import pytest
import torch

from inference.chains import arviz, ess, psis, rhat
from zoo.errors import ShapeError


def test_rhat_and_ess_tell_mixed_chains_from_stuck_ones():
    good = torch.randn(4, 500, 3)
    assert rhat(good).shape == (3,)
    assert float(rhat(good).max()) < 1.02
    assert bool(((ess(good) > 1000) & (ess(good, "tail") > 800)).all())
    stuck = good + torch.arange(4.0)[:, None, None]
    assert float(rhat(stuck).min()) > 1.3
    assert float(ess(stuck).max()) < 50
    assert rhat(good[..., 0]).shape == ()
    # Of two values in turn all distances from the middle are alike, and only the place can tell.
    turns = torch.tensor([0.0, 1.0]).repeat(50).expand(2, 100)
    assert float(rhat(turns)) < 1.02
    assert float(rhat(torch.tensor([[0.0], [1.0]]).expand(2, 100))) == torch.inf


@pytest.mark.parametrize("n", [4, 5, 300])
def test_rhat_is_that_of_arviz(n):
    draws = torch.randn(3, n, 2) * torch.tensor([1.0, 2.0, 1.0])[:, None, None]
    draws[..., 1] = draws[..., 1].round()  # with ties
    want = arviz().rhat(arviz().convert_to_dataset({"v": draws.numpy()}))["v"].values
    assert rhat(draws).tolist() == pytest.approx(want.tolist())


def test_one_chain_is_split_into_halves():
    mixed, drifting = torch.randn(1, 400), torch.randn(1, 400) + torch.linspace(0, 4, 400)
    assert 0.99 < float(rhat(mixed)) < 1.02
    assert float(rhat(drifting)) > 1.3
    # Two chains that are split are four; the halves of one are two: those that arviz would see without splitting.
    halves = torch.stack([drifting[0, :200], drifting[0, 200:]])
    assert float(rhat(halves)) != pytest.approx(float(rhat(drifting)), abs=1e-3)
    wider = torch.randn(1, 400) * torch.linspace(0.1, 4, 400)
    assert float(rhat(wider)) > 1.1
    assert bool(rhat(torch.zeros(1, 400)).isnan())
    with pytest.raises(ShapeError, match="draws >= 4"):
        rhat(torch.zeros(1, 3))


def test_psis_smooths_the_upper_tail_and_normalises():
    log_weights = 2.0 * torch.randn(3000, 2)
    smoothed, khat = psis(log_weights)
    assert (smoothed.shape, khat.shape) == ((3000, 2), (2,))
    torch.testing.assert_close(smoothed.exp().sum(0), torch.ones(2))
    # Only the tail moves; were the sign of the weights wrong, their order would turn round.
    body = log_weights < log_weights.quantile(0.9, 0)
    shift = (smoothed - log_weights)[body].reshape(-1)
    raw = log_weights - log_weights.logsumexp(0)
    assert float((smoothed - raw).abs().median()) < 0.5
    assert float(torch.corrcoef(torch.stack([smoothed[:, 0], log_weights[:, 0]]))[0, 1]) > 0.99
    assert float(shift.std()) < 1.0


def test_wrong_shapes_are_named():
    with pytest.raises(ShapeError, match="chains"):
        rhat(torch.zeros(5))
    with pytest.raises(ShapeError, match=r"\(S, U\)"):
        psis(torch.zeros(5))
