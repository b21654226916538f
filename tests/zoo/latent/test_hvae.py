"""The hierarchical VAE: a linear one is Gaussian, with a posterior that both guides contain."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from inference import fit
from inference.evaluation import elbo, log_likelihood
from inference.evaluation.activity import ACTIVE, activity
from inference.methods.bounds import make_objective
from inference.particles import log_weights
from zoo import datasets
from zoo.datasets import Data
from zoo.errors import CapabilityError, OptionError, UnknownNameError
from zoo.latent.hvae import INFERENCE, LEAST, HierarchicalVAE, product
from zoo.testing import checks

PROGRAMS: dict[str, Any] = {
    "ladder": lambda: HierarchicalVAE([3, 4], [3, 2], [8, 6]),
    "bottom-up": lambda: HierarchicalVAE([3, 4], [3, 2], [8, 6], inference="bottom-up"),
    "three linear layers": lambda: HierarchicalVAE([5], [3, 2, 2], [6, 5, 4], depth=0, likelihood="normal"),
    "one layer": lambda: HierarchicalVAE([5], [3], [6], depth=2, likelihood={"name": "levels", "values": 4}),
}


@pytest.mark.parametrize("check", list(checks()), ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", PROGRAMS)
def test_contract(name, check):
    check(PROGRAMS[name]())


@pytest.mark.parametrize("name", HierarchicalVAE.presets)
def test_presets_build_and_fit(name):
    preset, x = HierarchicalVAE.presets[name], (torch.rand(6, 8, 8) < 0.5).double()
    once = {"steps": 1, "epochs": None, "compile": "never"}
    fit(HierarchicalVAE.for_data(x, **preset.program), x, preset.method, **{**preset.fit, **once})


def test_the_product_of_two_gaussians():
    a, b = ((torch.randn(4), torch.rand(4) + 0.1) for _ in range(2))
    found, z = Normal(*product(a, b)), torch.randn(2, 4)
    apart, again = (Normal(*a).log_prob(at) + Normal(*b).log_prob(at) - found.log_prob(at) for at in z)
    torch.testing.assert_close(apart, again)  # a constant in z


# Linear and Gaussian


def free(scale: float) -> float:
    """The number that a program takes for a standard deviation."""
    return math.log(math.expm1(scale - LEAST))


def turned(rows: int, columns: int) -> Tensor:
    """Orthonormal columns."""
    return torch.linalg.qr(torch.randn(rows, columns))[0]


def linear(latents: list[int], inference: str = "ladder") -> HierarchicalVAE:
    """Scaled rotations between layers, constant noise, and the exact posterior for a guide."""
    program = HierarchicalVAE([6], latents, latents, depth=0, likelihood="normal", inference=inference)
    with torch.no_grad():
        program.likelihood.scale = torch.tensor(0.6)
        program.bias.normal_()
        program.decoder[-1].weight.copy_(1.3 * turned(6, latents[0]))
        for net, (below, above) in zip(program.priors, itertools.pairwise(latents), strict=True):
            net[-1].weight.zero_()
            net[-1].weight[:below].copy_(0.8 * turned(below, above))
            net[-1].bias[:below].normal_()
            net[-1].bias[below:].fill_(free(0.7))
        # What x says of a layer is a Gaussian of mean A x + a and one precision: 1.3^2 / 0.6^2 next to the data.
        to, at, precision = program.decoder[-1].weight.T / 1.3**2, None, 1.3**2 / 0.6**2
        at = -to @ program.bias[0]
        if inference == "ladder":
            _set_ladder(program, to, at, precision)
        else:
            _set_bottom_up(program, to, at, precision)
    return program


def _set_ladder(program: HierarchicalVAE, to: Tensor, at: Tensor, precision: float) -> None:
    for layer, head in enumerate(program.heads):
        k, top = len(to), layer == len(program.heads) - 1
        share = precision / (1 + precision) if top else 1.0  # the top's own has to hold N(0, I)
        head.weight.zero_()
        head.weight[:k].copy_(share * to)
        head.bias[:k].copy_(share * at)
        head.bias[k:].fill_(free((precision + (1.0 if top else 0.0)) ** -0.5))
        if not top:
            weight, bias = program.priors[layer][-1].weight[:k], program.priors[layer][-1].bias[:k]
            to, at = weight.T @ to / 0.8**2, weight.T @ (at - bias) / 0.8**2
            precision = 0.8**2 / (1 / precision + 0.7**2)


def _set_bottom_up(program: HierarchicalVAE, to: Tensor, at: Tensor, precision: float) -> None:
    """Two layers of one size: then the prior of the lower one has independent numbers too."""
    first, second = program.encoders[0][-1], program.encoders[1][-1]
    k, weight, bias = len(to), program.priors[0][-1].weight[: len(to)], program.priors[0][-1].bias[: len(to)]
    prior = 1 / (0.8**2 + 0.7**2)
    for layer in (first, second):
        layer.weight.zero_()
    first.weight[:k].copy_(precision / (precision + prior) * to)
    first.bias[:k].copy_((precision * at + prior * bias) / (precision + prior))
    first.bias[k:].fill_(free((precision + prior) ** -0.5))
    told = 0.8**2 / 0.7**2
    second.weight[:k].copy_(told / (1 + told) * weight.T / 0.8**2)
    second.bias[:k].copy_(-told / (1 + told) * weight.T @ bias / 0.8**2)
    second.bias[k:].fill_(free((1 + told) ** -0.5))


def exact(program: HierarchicalVAE) -> MultivariateNormal:
    """p(x) of a linear one: means and covariances from the top layer down."""
    k = program.latents[-1]
    mean, covariance = torch.zeros(k), torch.eye(k)
    for net in reversed(program.priors):
        below = len(net[-1].bias) // 2
        weight, bias = net[-1].weight[:below], net[-1].bias[:below]
        mean = weight @ mean + bias
        noise = torch.nn.functional.softplus(net[-1].bias[below:]) + LEAST
        covariance = weight @ covariance @ weight.T + noise.square().diag()
    weight = program.decoder[-1].weight
    covariance = weight @ covariance @ weight.T + program.likelihood.scale**2 * torch.eye(len(weight))
    return MultivariateNormal(weight @ mean + program.bias[0], covariance)


EXACT = [([4, 3, 2], "ladder"), ([3, 2], "ladder"), ([3], "ladder"), ([3, 3], "bottom-up")]


@pytest.mark.parametrize(("latents", "inference"), EXACT)
@torch.no_grad()
def test_under_the_exact_posterior_the_bound_is_the_evidence_without_variance(latents, inference):
    program = linear(latents, inference)
    x = program.generate(7)
    want = exact(program).log_prob(x)
    torch.testing.assert_close(log_weights(program, program.guide, 5, x)[1].local, want.expand(5, -1))


@pytest.mark.parametrize(("latents", "inference"), [EXACT[0], EXACT[3]])
@torch.no_grad()
def test_under_another_guide_the_bound_is_below_and_particles_tighten_it(latents, inference):
    program = linear(latents, inference)
    x = program.generate(4)
    want = exact(program).log_prob(x)
    for net in program.heads if inference == "ladder" else (encoder[-1] for encoder in program.encoders):
        net.bias.add_(0.3)  # off its place, and wider
    bound, many = elbo(program, None, x, 4000), log_likelihood(program, x, particles=40_000)
    assert bool((bound.values + 5 * bound.monte_carlo_error < want).all())
    assert many.monte_carlo_error.max() < 0.05
    assert bool(((many.values - want).abs() < 5 * many.monte_carlo_error).all())


@torch.no_grad()
def test_divergences_in_closed_form_have_the_same_mean():
    program, x = linear([4, 3, 2]), Data(torch.randn(20, 6))
    for head in program.heads:
        head.bias.add_(0.2 * torch.randn_like(head.bias))
        head.weight.add_(0.1 * torch.randn_like(head.weight))
    found = {
        name: torch.stack([make_objective(name, 20)(program, program.guide, x, 20)[1] for _ in range(100)])
        for name in ("trace", "mean_field")
    }
    error = sum(bounds.var() / 100 for bounds in found.values()) ** 0.5
    assert abs(found["trace"].mean() - found["mean_field"].mean()) < 5 * error


def test_divergences_one_by_one_are_refused_where_the_guide_goes_upward():
    program = PROGRAMS["bottom-up"]()
    with pytest.raises(CapabilityError, match=r"model's order \['z2', 'z1'\], and this guide draws them as \['z1'"):
        fit(program, program.generate(4), "svi", elbo="mean_field", steps=1)


@pytest.mark.parametrize("inference", INFERENCE)
def test_a_fit_comes_near_the_evidence_and_uses_the_layers_that_say_something(inference):
    """Data of a Gaussian: what is left of the gap is the guide's and the fit's."""
    truth = linear([3, 3], "bottom-up")
    with torch.no_grad():
        x = truth.generate(500)
    program = HierarchicalVAE([6], [3, 3], [8, 8], depth=0, likelihood="normal", inference=inference)
    found = fit(program, x, "svi", steps=300, lr=4e-2, batch_size=100, kl_anneal=0.2, compile="never")
    best = float(exact(truth).log_prob(x).detach().mean())
    start = float(MultivariateNormal(x.mean(0), x.var(0).diag()).log_prob(x).mean())
    reached = elbo(found.program, found.guide, x, 50).mean
    assert start + 0.8 * (best - start) < reached < best + 0.1
    used = activity(found, x)
    assert int((used["z1"] > ACTIVE).sum()) == 3


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"latents": [3], "hidden": [4, 5]}, OptionError, "one number for each layer"),
        ({"latents": [], "hidden": []}, OptionError, "one number for each layer"),
        ({"inference": "upward"}, OptionError, "'ladder', 'bottom-up'"),
        ({"activation": "swish"}, UnknownNameError, "silu"),
        ({"depth": -1}, OptionError, "depth"),
    ],
)
def test_options_that_make_no_sense(options, error, says):
    with pytest.raises(error, match=says):
        HierarchicalVAE(**options)


@pytest.mark.slow
def test_the_small_preset_uses_its_top_layer(zoo_data):
    """mnist10k-binary: the bound with both layers beside that of a VAE of as many latents in one."""
    torch.set_default_dtype(torch.float32)
    data, preset = datasets.load("mnist10k-binary"), HierarchicalVAE.presets["small"]
    found = fit("hvae", data, preset="small", seed=0)
    flat = fit("hvae", data, preset="small", seed=0, latents=[32], hidden=[256])
    ours, theirs = (log_likelihood(each, data.test, particles=100).mean for each in (found, flat))
    used = {name: int((value > ACTIVE).sum()) for name, value in activity(found, data.test).items()}
    print(preset, ours, theirs, used)
    assert used["z2"] >= 3
    assert ours > theirs
