"""ArviZ in either version: export, diagnostics, Pareto smoothing."""

from __future__ import annotations

import pytest
import torch

from inference import fit
from inference.evaluation import arviz_export as az
from inference.fitted import Fit
from tests.inference.toys import Mean, Pair, Rate, Sampler, linear
from zoo.errors import CapabilityError, ShapeError


def fitted(program, guide=None, samples=None, **info):
    return Fit(program=program, method="svi", data="tensor", seed=0, guide=guide, samples=samples, info=info)


def test_export_of_a_guide_has_posterior_likelihood_and_data():
    program = linear(4, 2)
    x = program.generate(5)
    data = az.to_inference_data(fitted(program, program.posterior), x, draws=30)
    assert data.posterior["z"].shape == (1, 30, 5, 2)
    assert data.log_likelihood["x"].shape == (1, 30, 5)
    assert data.observed_data["x"].shape == (5, 4)
    z = torch.as_tensor(data.posterior["z"].values[0])
    loc = z @ program.weight.T + program.mean
    likelihood = torch.distributions.Normal(loc, program.scale).log_prob(x).sum(-1).detach()
    torch.testing.assert_close(torch.as_tensor(data.log_likelihood["x"].values[0]), likelihood)
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum((-1, -2))
    torch.testing.assert_close(torch.as_tensor(data.sample_stats["lp"].values[0]), likelihood.sum(1) + prior)


def test_export_of_global_and_local_sites():
    program = Pair()
    x = program.generate(3)
    samples = {"scale": torch.rand(8) + 0.5, "z": torch.randn(8, 3)}
    data = az.to_inference_data(fitted(program, samples=samples, chains=2), x)
    assert data.posterior["scale"].shape == (2, 4)
    assert data.posterior["z"].shape == (2, 4, 3)
    truth = torch.distributions.Normal(samples["z"], samples["scale"][:, None]).log_prob(x)
    torch.testing.assert_close(torch.as_tensor(data.log_likelihood["x"].values).reshape(8, 3), truth)
    table = az.summary(data)
    assert set(table.index) == {"scale", "z[0]", "z[1]", "z[2]"}


def test_export_of_an_implicit_program_has_no_likelihood():
    program = Sampler()
    data = az.to_inference_data(fitted(program, samples={"z": torch.randn(6, 2, 2)}), torch.rand(2, 2))
    assert data.posterior["z"].shape == (1, 6, 2, 2)
    assert not hasattr(data, "log_likelihood")


def test_a_fit_without_a_posterior_cannot_be_exported():
    with pytest.raises(CapabilityError, match="no posterior"):
        az.to_inference_data(fitted(Mean()), torch.zeros(3))


def test_a_real_fit_goes_through():
    found = fit(Rate(), torch.tensor([1.0, 4.0, 2.0]), "svi", steps=3)
    assert az.to_inference_data(found, torch.tensor([3.0]), draws=10).posterior["rate"].shape == (1, 10, 1)


def test_rhat_and_ess_tell_mixed_chains_from_stuck_ones():
    good = torch.randn(4, 500, 3)
    assert az.rhat(good).shape == (3,)
    assert float(az.rhat(good).max()) < 1.02
    assert bool(((az.ess(good) > 1000) & (az.ess(good, "tail") > 800)).all())
    stuck = good + torch.arange(4.0)[:, None, None]
    assert float(az.rhat(stuck).min()) > 1.3
    assert float(az.ess(stuck).max()) < 50
    assert az.rhat(good[..., 0]).shape == ()


def test_psis_smooths_the_upper_tail_and_normalises():
    log_weights = 2.0 * torch.randn(3000, 2)
    smoothed, khat = az.psis(log_weights)
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
        az.rhat(torch.zeros(5))
    with pytest.raises(ShapeError, match=r"\(S, U\)"):
        az.psis(torch.zeros(5))
