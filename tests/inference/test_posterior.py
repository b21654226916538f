"""Posterior draws given the training data, and given other examples besides, against closed forms."""

from __future__ import annotations

import pytest
import torch

from inference.guides.named import build_guide
from inference.posterior import Posterior
from tests.inference.toys import SIGMAS, Mean, Pair, linear, posterior_moments
from zoo import catalogue
from zoo.datasets import Data
from zoo.errors import CapabilityError

N = 20_000


def of(program, guide=None, samples=None, train=None) -> Posterior:
    return Posterior(program=program, guide=guide, samples=samples, train=train)


def test_global_latents_are_given_the_training_data_whatever_is_asked() -> None:
    program, x = Mean(), torch.tensor([1.0, 2.0, 3.0])
    posterior = of(program, program.posterior, train=Data(x))
    for mu in (posterior.globals(N)["mu"], posterior.given(N, torch.tensor([-50.0]))["mu"]):
        assert mu.shape == (N, 1)
        assert abs(float(mu.mean()) - 1.5) < SIGMAS * 0.5 / N**0.5
        assert float(mu.std()) == pytest.approx(0.5, rel=0.03)


def test_local_latents_are_given_the_examples_and_the_global_ones() -> None:
    program = catalogue.create("eight-schools", centered=True)
    train = Data(torch.randn(8) * 10, torch.full((8,), 10.0))
    x, sigma = torch.tensor([30.0]), torch.tensor([5.0])
    values = of(program, program.posterior, train=train).given(N, x, sigma)
    mu, tau = values["mu"][:, 0], values["tau"][:, 0]
    precision = 1 / 25 + tau**-2
    expected = (30 / 25 + mu / tau**2) / precision
    assert values["theta"].shape == (N, 1)
    noise = (values["theta"][:, 0] - expected) * precision.sqrt()
    assert abs(float(noise.mean())) < SIGMAS / N**0.5
    assert float(noise.std()) == pytest.approx(1.0, rel=0.03)


def test_an_amortised_guide_without_global_latents_needs_no_training_data() -> None:
    program = linear()
    x = program.generate(3)
    z = of(program, program.posterior).given(N, x)["z"]
    loc, covariance = posterior_moments(program, x)
    assert bool(((z.mean(0) - loc).abs() < SIGMAS * covariance.diagonal().sqrt() / N**0.5).all())


def test_samples_of_a_chain_keep_their_rows_together() -> None:
    program, x = Pair(), torch.zeros(3)
    samples = {"scale": torch.arange(1.0, 6.0), "z": torch.arange(1.0, 6.0)[:, None].expand(5, 3)}
    posterior = of(program, samples=samples, train=Data(x))
    for n in (5, 40):
        values = posterior.given(n, x)
        assert values["scale"].shape == (n, 1)
        assert torch.equal(values["scale"].expand(n, 3), values["z"])
    assert set(posterior.globals(40)) == {"scale"}
    with pytest.raises(CapabilityError, match="those of its training data, and x are other examples"):
        posterior.given(5, torch.ones(3))


def test_an_autoguide_of_local_latents_knows_its_rows_alone() -> None:
    program, x = Pair(), torch.randn(3)
    guide = build_guide({"kind": "auto", "name": "normal"}, program, Data(x))
    posterior = of(program, guide, train=Data(x))
    assert posterior.given(4, x)["z"].shape == (4, 3)
    with pytest.raises(CapabilityError, match="give no x to generate new ones"):
        posterior.given(4, x + 1)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(CapabilityError, match="no posterior to draw from"):
        of(Mean(), train=Data(torch.zeros(2))).globals(3)
    with pytest.raises(CapabilityError, match=r"set Fit\.train"):
        of(Mean(), Mean().posterior).globals(3)
    with pytest.raises(CapabilityError, match=r"no draws of the global latent sites \['scale'\]"):
        of(Pair(), samples={"z": torch.zeros(4, 3)}, train=Data(torch.zeros(3))).globals(3)
