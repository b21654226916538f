"""The adversarial autoencoder's program: priors against integrals and moments, guides with and without density."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints

from inference import fit
from inference.evaluation.likelihood import log_likelihood
from inference.evaluation.two_samples import mmd
from inference.particles import draw
from tests.conftest import FAILURE_RATE
from zoo.datasets import Data
from zoo.distributions import Sampler
from zoo.errors import ImplicitDensityError, OptionError, UnknownNameError
from zoo.latent.aae import AAE
from zoo.latent.priors import PRIORS, flower, swiss_roll
from zoo.latent.vae import VAE
from zoo.testing import check_program, check_save, check_seed, check_shapes

SIGMAS = float(-torch.special.ndtri(torch.tensor(FAILURE_RATE / 2, dtype=torch.float64)))
GUIDES = ("deterministic", "universal", "diagonal", "full")


def small(**options) -> AAE:
    return AAE(**{"event_shape": [3, 3], "hidden": [12, 8], **options})


def prior_draws(program: AAE, n: int) -> Tensor:
    with torch.no_grad():
        return poutine.trace(program.model).get_trace(None, None, n).nodes["z"]["value"]


@pytest.mark.parametrize("name", AAE.presets)
def test_presets_build_and_fit(name: str) -> None:
    preset = AAE.presets[name]
    program, x = AAE(**preset.program), torch.rand(10, 8, 8).round()
    found = fit(program, x, preset.method, **{**preset.fit, "steps": 1, "epochs": None})
    assert found.program.generate(2).shape == (2, 8, 8)


@pytest.mark.parametrize("prior", ["gaussian", "mixture"])
@pytest.mark.parametrize("guide", ["diagonal", "full"])
def test_contract_where_all_has_a_density(prior: str, guide: str) -> None:
    check_program(small(prior=prior, guide=guide, latent_dim=3))


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("guide", ["deterministic", "universal"])
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_programs_without_a_density_generate_encode_and_are_saved(prior: str, guide: str, network: str) -> None:
    program = small(prior=prior, guide=guide, network=network, latent_dim=3)
    for check in (check_shapes, check_save, check_seed):
        check(program)
    x = program.generate(5)
    codes = draw(program.guide, 4, x, density=False).values["z"]
    assert codes.shape == (4, 5, 3)
    again = program.encode(x).sample()
    assert again.shape == (5, 3)
    # A function of x, or of x and noise that is fresh for each example and particle.
    assert bool((codes == codes[0]).all()) == (guide == "deterministic")
    assert torch.equal(codes[0], again) == (guide == "deterministic")
    same = program.encode(x[:1].expand(5, *x.shape[1:])).sample()
    assert (len(same.round(decimals=9).unique(dim=0)) == 1) == (guide == "deterministic")


def test_gradients_reach_every_parameter_through_a_code() -> None:
    for guide in ("deterministic", "universal"):
        program = small(guide=guide)
        x = program.generate(20)
        program.decode(program.encode(x).rsample()).log_prob(x).sum().backward()
        for name, parameter in program.named_parameters():
            assert parameter.grad is not None, name
            assert float(parameter.grad.abs().sum()) > 0, name


# Priors


@pytest.mark.parametrize("components", [5, 10])
def test_density_of_the_flower_integrates_to_one_and_is_that_of_its_draws(components: int) -> None:
    program = small(prior={"name": "mixture", "scale": 1.5, "components": components})
    line = torch.linspace(-6, 6, 601)
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        density = program.prior().log_prob(grid).exp()
    step = float(line[1] - line[0])
    assert float(density.sum()) * step**2 == pytest.approx(1.0, abs=1e-6)
    # Probability of a disc, from the grid and from draws.
    inside = float(density[grid.norm(dim=-1) < 1.8].sum()) * step**2
    n = 20_000
    share = float((prior_draws(program, n).norm(dim=-1) < 1.8).double().mean())
    assert abs(share - inside) < SIGMAS * math.sqrt(inside * (1 - inside) / n) + 1e-3


def test_inference_in_unconstrained_space_takes_the_mixture() -> None:
    program = small(latent_dim=2)
    x = program.generate(6)
    found = fit(program, x, "svi", guide="multivariate_normal", steps=1)
    assert found.draw(3, x)["z"].shape == (3, 6, 2)
    wide = program.prior().expand(torch.Size([4]))
    assert wide.support is constraints.real_vector
    assert wide.log_prob(wide.sample()).shape == (4,)


def test_petals_in_the_plane() -> None:
    means, factors = flower(2, 10)
    assert torch.allclose(means.norm(dim=-1), torch.tensor(1.4))
    angles = torch.atan2(means[:, 1], means[:, 0]) % (2 * math.pi)
    assert torch.allclose(angles, 2 * math.pi * torch.arange(10) / 10)
    for mean, factor in zip(means, factors, strict=True):
        variances, axes = torch.linalg.eigh(factor @ factor.T)
        assert torch.allclose(variances.sqrt(), torch.tensor([0.1, 0.5]))
        assert float((axes[:, 1] @ mean).abs()) == pytest.approx(1.4)  # the long axis points to the centre


@pytest.mark.parametrize("dim", [3, 8, 9, 12])
def test_petals_in_more_dimensions_lie_apart_and_on_a_simplex_in_the_end(dim: int) -> None:
    means, factors = flower(dim, 10)
    distances = torch.pdist(means)
    across = torch.linalg.eigvalsh(factors[0] @ factors[0].T)[0].sqrt()
    assert float(distances.min()) / float(across) == pytest.approx(8.65, abs=0.01)  # as in the plane
    variance = (means.var(0, correction=0) + (factors @ factors.mT).mean(0).diagonal()).mean()
    assert 1.0 < float(variance) < 1.5
    if dim >= 9:
        assert float(distances.max() - distances.min()) < 1e-9


def test_swiss_roll_is_a_spiral_of_unit_variance_without_density() -> None:
    program = small(prior={"name": "swiss-roll", "scale": 2.0}, latent_dim=4)
    z = prior_draws(program, 20_000) / 2
    radius, angle = z[:, :2].norm(dim=-1), torch.atan2(z[:, 1], z[:, 0])
    turns = (2 * math.pi * radius - angle) / (2 * math.pi)
    assert float((turns - turns.round()).abs().max()) < 1e-9  # angle = 2 pi radius, up to whole turns
    # radius^2 is uniform on [0, 4]; the other two are standard normal.
    for values, law in ((radius**2 / 4, dist.Uniform(0.0, 1.0)), (z[:, 2], dist.Normal(0.0, 1.0)),
                        (z[:, 3], dist.Normal(0.0, 1.0))):  # fmt: skip
        gaps = (law.cdf(values.sort().values) - (torch.arange(20_000) + 0.5) / 20_000).abs().max()
        assert float(gaps) < math.sqrt(math.log(2 / FAILURE_RATE) / (2 * 20_000)) + 1e-4  # Dvoretzky-Kiefer-Wolfowitz
    assert abs(float(z[:, :2].var(0).mean()) - 1) < 0.05
    with pytest.raises(ImplicitDensityError):
        poutine.trace(program.model).get_trace(program.generate(3)).log_prob_sum()
    assert swiss_roll(torch.zeros(3)).shape == (3, 2)


def test_prior_gaussian_is_the_vae() -> None:
    torch.manual_seed(0)
    ours = AAE([3, 3], 2, [8], prior="gaussian", activation="tanh")
    torch.manual_seed(0)
    theirs = VAE([3, 3], 2, [8], activation="tanh")
    theirs.load_state_dict(ours.state_dict())
    x = theirs.generate(50)
    bounds = [log_likelihood(each, Data(x), particles=50, seed=1).values for each in (ours, theirs)]
    assert torch.equal(*bounds)


def test_priors_differ() -> None:
    draws = [prior_draws(small(prior=prior), 1000) for prior in PRIORS]
    for i in range(3):
        assert mmd(draws[i], draws[i - 1], permutations=199).p_value < 0.01


def test_without_a_density_of_the_guide_there_is_no_bound() -> None:
    program = small(guide="deterministic")
    with pytest.raises(ImplicitDensityError):
        fit(program, program.generate(10), "svi", steps=1)


def test_a_sampler_draws_afresh_and_differentiably() -> None:
    scale = torch.tensor(2.0, requires_grad=True)
    found = Sampler(lambda shape: scale * torch.randn(*shape, 3), torch.Size([4]), torch.Size([3]))
    assert found.rsample().shape == (4, 3)
    assert not torch.equal(found.rsample(), found.rsample())
    wide = found.expand(torch.Size([2, 4]))
    assert wide.batch_shape == (2, 4)
    value = wide.rsample(torch.Size([5]))
    assert value.shape == (5, 2, 4, 3)
    value.square().sum().backward()
    assert scale.grad is not None
    with pytest.raises(ImplicitDensityError):
        found.log_prob(value)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"prior": "flower"}, UnknownNameError, "prior"),
        ({"guide": "gauss"}, UnknownNameError, "guide"),
        ({"prior": {"name": "gaussian", "scale": 0.0}}, OptionError, "positive"),
        ({"guide": {"name": "universal", "noise": 0}}, OptionError, "at least 1"),
        ({"guide": {"name": "deterministic", "noise": 3}}, UnknownNameError, "option of deterministic"),
        ({"latent_dim": 1}, OptionError, "at least 2 dimensions"),
        ({"prior": {"name": "mixture", "components": 1}}, OptionError, "2 components"),
        ({"prior": {"name": "gaussian", "components": 3}}, UnknownNameError, "option of gaussian"),
        ({"latent_dim": 1, "prior": "swiss-roll"}, OptionError, "swiss roll"),
    ],
)
def test_options_are_checked(options: dict, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        small(**options)
