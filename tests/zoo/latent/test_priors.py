"""Learned priors of the VAE against what they are written as; the VampPrior beside the standard normal on digits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from inference import fit
from inference.evaluation import log_likelihood
from inference.methods.bounds import make_objective
from zoo import datasets
from zoo.datasets import Data
from zoo.errors import OptionError, UnknownNameError
from zoo.latent.priors import LEARNED
from zoo.latent.vae import VAE
from zoo.testing import check_program

HEADS: dict[str, Any] = {
    "diagonal": "diagonal",
    "full": "full",
    "iaf": {"name": "iaf", "hidden": 8},
    "spline": {"name": "spline", "hidden": 8},
}


def vae(prior: Any, guide: str = "diagonal", **options: Any) -> VAE:
    made = {"event_shape": [3, 4], "latent_dim": 3, "hidden": [6], **options}
    return VAE(guide=HEADS[guide], prior=prior, **made)


@pytest.mark.parametrize("guide", HEADS)
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_contract_of_a_vamp_prior(guide, network):
    check_program(vae({"name": "vamp", "components": 4}, guide, network=network))


@pytest.mark.parametrize("likelihood", ["normal", {"name": "categorical", "values": 3}])
def test_contract_of_a_learned_mixture_and_other_data(likelihood):
    check_program(vae({"name": "learned-mixture", "components": 4}, likelihood=likelihood))
    check_program(vae({"name": "vamp", "components": 4}, likelihood=likelihood))


@pytest.mark.parametrize("guide", HEADS)
@torch.no_grad()
def test_of_one_pseudo_input_it_is_the_posterior_and_of_several_their_mean(guide):
    z = torch.randn(7, 3)
    one = vae({"name": "vamp", "components": 1}, guide)
    torch.testing.assert_close(one.prior().log_prob(z), one.encode(one.code_prior.inputs[0]).log_prob(z))
    several = vae({"name": "vamp", "components": 5}, guide)
    by_hand = torch.stack([several.encode(u).log_prob(z) for u in several.code_prior.inputs])
    torch.testing.assert_close(several.prior().log_prob(z), by_hand.logsumexp(0) - math.log(5))


@torch.no_grad()
def test_a_learned_mixture_is_the_mean_of_its_gaussians():
    program, z = vae({"name": "learned-mixture", "components": 4}), torch.randn(7, 3)
    program.code_prior.log_scale.normal_()
    prior = program.code_prior
    each = torch.distributions.Normal(prior.loc, prior.log_scale.exp()).log_prob(z[:, None]).sum(-1)
    torch.testing.assert_close(program.prior().log_prob(z), each.logsumexp(-1) - math.log(4))


def test_pseudo_inputs_start_at_examples_or_at_their_mean():
    x = torch.arange(10.0)[:, None, None].expand(-1, 3, 4) + torch.rand(3, 4)
    program = vae({"name": "vamp", "components": 10}, likelihood="normal")
    with torch.no_grad():
        program.initialise(x)
    assert torch.equal(program.code_prior.inputs.flatten(1).sort(0).values, x.flatten(1).sort(0).values)
    more = vae({"name": "vamp", "components": 13}, likelihood="normal")
    noise = vae({"name": "vamp", "components": 13, "start": "noise"}, likelihood="normal")
    with torch.no_grad():
        for each in (more, noise):
            each.initialise(x)
    # Three are met again, near themselves and apart from them: equal ones would stay equal.
    assert len(more.code_prior.inputs.flatten(1).unique(dim=0)) == 13
    assert torch.equal(more.code_prior.inputs[:10].flatten(1).sort(0).values, x.flatten(1).sort(0).values)
    assert float(torch.cdist(more.code_prior.inputs[10:].detach().flatten(1), x.flatten(1)).amin(1).max()) < 0.5
    assert 0 < float((noise.code_prior.inputs.detach() - x.mean(0)).abs().max()) < 0.2  # of a spread of 2.9


def test_the_bound_moves_the_pseudo_inputs_and_a_fit_raises_it():
    program = vae({"name": "vamp", "components": 5})
    x = (torch.rand(40, 3, 4) < torch.linspace(0.1, 0.9, 4)).double()
    make_objective("mean_field")(program, program.guide, Data(x), 40)[0].backward()
    assert bool((program.code_prior.inputs.grad != 0).any(-1).all())
    before = program.code_prior.inputs.detach().clone()
    fit(program, x, "svi", elbo="mean_field", steps=20, compile="never", initialise=False)
    assert not torch.equal(program.code_prior.inputs, before)


@pytest.mark.parametrize(
    ("prior", "error", "says"),
    [
        ("swiss-roll", UnknownNameError, "prior 'swiss-roll'"),
        ({"name": "vamp", "components": 0}, OptionError, "components"),
        ({"name": "vamp", "start": "zeros"}, OptionError, "'data', 'noise'"),
        ({"name": "gaussian", "components": 3}, UnknownNameError, "option of gaussian"),
    ],
)
def test_options_that_make_no_sense(prior, error, says):
    with pytest.raises(error, match=says):
        vae(prior)
    assert set(LEARNED) == {"learned-mixture", "vamp"}


@pytest.mark.slow
def test_a_vamp_prior_is_better_than_a_standard_normal_on_digits(zoo_data):
    """The preset with both priors, stopped by validation data."""
    torch.set_default_dtype(torch.float32)
    data = datasets.load("mnist10k-binary")
    found = {
        prior: fit("vae", data, preset="vamp", seed=0, **options)
        for prior, options in (("vamp", {}), ("gaussian", {"prior": "gaussian"}))
    }
    scores = {name: log_likelihood(each, data.test, particles=100).mean for name, each in found.items()}
    print(scores)
    assert scores["vamp"] > scores["gaussian"]
