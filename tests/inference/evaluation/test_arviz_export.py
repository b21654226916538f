"""ArviZ in either version: export, diagnostics, Pareto smoothing."""

from __future__ import annotations

import pytest
import torch

from inference import fit
from inference.evaluation import arviz_export as az
from inference.fitted import Fit
from tests.inference.toys import Mean, Pair, Rate, Sampler, linear
from zoo.errors import CapabilityError


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
