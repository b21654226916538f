"""PPCA against its closed forms and scikit-learn; the VAE against sums, integrals, Jacobians and PPCA."""

from __future__ import annotations

import copy
import itertools
import math
from inspect import signature
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from sklearn.decomposition import PCA
from torch import Tensor
from torch.distributions import kl_divergence

from inference import fit
from inference.guides.named import guided_sites
from inference.methods.bounds import make_objective
from inference.particles import draw, guide_log_prob, log_joint, log_weights
from tests.conftest import FAILURE_RATE
from zoo import catalogue
from zoo.datasets import Data
from zoo.errors import DivergenceError, OptionError, ShapeError, SupportError, UnknownNameError
from zoo.latent.coders import NETWORKS
from zoo.latent.heads import HEADS
from zoo.latent.ppca import PPCA
from zoo.latent.vae import VAE
from zoo.likelihoods import LIKELIHOODS
from zoo.program import ClosedFormEM, ExactDensity, ExactPosterior

# Two-sided normal quantile of the suite's failure rate: how many standard errors a Monte Carlo estimate may be off.
SIGMAS = float(-torch.special.ndtri(torch.tensor(FAILURE_RATE / 2, dtype=torch.float64)))


def ppca_data(n: int = 300, d: int = 6, k: int = 2) -> Tensor:
    return torch.randn(n, k) @ torch.randn(k, d) * 2 + torch.randn(d) + 0.5 * torch.randn(n, d)


def spec(name: str, **options: Any) -> dict[str, Any]:
    """A likelihood or a guide, small: five values, two components, flows of eight units."""
    made = {**LIKELIHOODS, **HEADS}[name]
    small = {"values": 5, "components": 2, "hidden": 8} | options
    return {"name": name, **{key: value for key, value in small.items() if key in signature(made).parameters}}


def vae(likelihood: str, network: str = "mlp", guide: str = "diagonal", values: int = 5, **options: Any) -> VAE:
    options = {"event_shape": [5, 4], "latent_dim": 3, "hidden": [6, 5]} | options
    return VAE(likelihood=spec(likelihood, values=values), network=network, guide=spec(guide), **options)


CLASSIC = ("bernoulli", "categorical", "normal", "logistic")
every_vae = pytest.mark.parametrize(
    ("likelihood", "network", "guide"),
    [
        *itertools.product(CLASSIC, NETWORKS, HEADS),
        *itertools.product(sorted(set(LIKELIHOODS) - set(CLASSIC)), NETWORKS, ("diagonal",)),
    ],
)


# PPCA


def test_ppca_density_is_the_integral_over_its_latent() -> None:
    program = PPCA([3], 1)
    x = program.generate(7)
    z = torch.linspace(-12, 12, 4001)
    grid = log_joint(program, {"z": z[:, None, None]}, x).local.logsumexp(0) + math.log(float(z[1] - z[0]))
    torch.testing.assert_close(program.log_prob(x), grid, atol=1e-10, rtol=0)


def test_ppca_elbo_under_the_exact_posterior_is_the_evidence_without_variance() -> None:
    program = PPCA([6], 2)
    x = ppca_data()
    weights = log_weights(program, program.posterior, 3, x)[1].local
    torch.testing.assert_close(weights, program.log_prob(x).expand(3, -1), atol=1e-9, rtol=0)


def test_ppca_promises_what_it_has() -> None:
    program = PPCA([6], 2)
    assert isinstance(program, ExactDensity)
    assert isinstance(program, ExactPosterior)
    assert isinstance(program, ClosedFormEM)


def test_ppca_maximum_likelihood_equals_scikit_learn() -> None:
    x = ppca_data()
    n = len(x)
    program = PPCA([6], 2)
    program.maximum_likelihood(x)
    best = program.log_prob(x).mean().detach()
    peer = PCA(n_components=2).fit(x.numpy())
    # scikit-learn divides the covariance by n - 1, the maximum of the likelihood by n: the same model but for a factor.
    with torch.no_grad():
        program.weight.mul_((n / (n - 1)) ** 0.5)
        program.scale = program.scale * (n / (n - 1)) ** 0.5
    torch.testing.assert_close(program.log_prob(x), torch.as_tensor(peer.score_samples(x.numpy())), atol=1e-6, rtol=0)
    assert best > peer.score(x.numpy())


def test_ppca_maximum_likelihood_is_a_stationary_point_and_takes_images() -> None:
    x = ppca_data().reshape(-1, 3, 2)
    program = PPCA([3, 2], 2)
    program.maximum_likelihood(x)
    program.log_prob(x).mean().backward()
    for name in ("weight", "mean", "scale_unconstrained"):
        assert getattr(program, name).grad.abs().max() < 1e-12, name


@pytest.mark.parametrize(("n", "d", "k"), [(50, 2, 2), (3, 6, 2)])
def test_ppca_maximum_likelihood_needs_variance_for_the_noise(n: int, d: int, k: int) -> None:
    with pytest.raises(ShapeError, match="no maximum"):
        PPCA([d], k).maximum_likelihood(torch.randn(n, d))


@pytest.mark.parametrize("start_at_mean", [True, False])
def test_ppca_em_rises_to_the_maximum(start_at_mean: bool) -> None:
    x = ppca_data()
    program, exact = PPCA([6], 2), PPCA([6], 2)
    exact.maximum_likelihood(x)
    if start_at_mean:
        with torch.no_grad():
            program.initialise(x)
    history = []
    for _ in range(1500 if start_at_mean else 3000):  # EM takes its time to find the mean
        value, statistics = program.e_step(x)
        history.append(value)
        program.m_step(statistics)
    rises = torch.stack(history).diff()
    assert rises.min() > -1e-9 * history[-1].abs()
    torch.testing.assert_close(program.log_prob(x).sum(), exact.log_prob(x).sum(), atol=1e-6, rtol=0)
    torch.testing.assert_close(program.mean, exact.mean, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("shift", "noise"), [(0.0, 3e-3), (1e5, 1.0)])
def test_ppca_in_float32_is_that_of_float64(shift: float, noise: float) -> None:
    x = (torch.randn(200, 2) @ torch.randn(2, 6) * 2 + noise * torch.randn(200, 6) + shift).float()
    program, truth = PPCA([6], 2).float(), PPCA([6], 2).double()
    program.maximum_likelihood(x)
    truth.maximum_likelihood(x.double())
    assert program.scale.item() == pytest.approx(truth.scale.item(), rel=0.01)
    assert torch.allclose(program.mean.double(), truth.mean, atol=1e-7 * shift + 1e-6)
    assert torch.allclose(program.weight.abs().double(), truth.weight.abs(), rtol=1e-2, atol=1e-2)
    same = copy.deepcopy(program).double()
    want, got = same.log_prob(x.double()), program.log_prob(x).double()
    # A difference of squares would be off by (3 / noise)^2 of float32's eps times d, a hundred times as much.
    assert (got - want).abs().max() < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ppca_says_that_data_without_noise_have_no_maximum(dtype: torch.dtype) -> None:
    x = (torch.randn(100, 2) @ torch.randn(2, 6) + 3.0).to(dtype)
    program = PPCA([6], 2).to(dtype)
    before = copy.deepcopy(program.state_dict())
    with pytest.raises(DivergenceError, match="leaves no noise"):
        program.maximum_likelihood(x)
    assert all(torch.equal(value, before[name]) for name, value in program.state_dict().items())
    with torch.no_grad():  # where EM comes to in the end
        program.mean.copy_(x.mean(0))
        values, vectors = torch.linalg.eigh(torch.cov(x.T))
        program.weight.copy_(vectors[:, -2:] * values[-2:].sqrt())
        program.scale = torch.tensor(1e-9, dtype=dtype)
    with pytest.raises(DivergenceError, match="leaves no noise"):
        program.m_step(program.e_step(x)[1])
    PPCA([6], 1).to(dtype).maximum_likelihood(x)


def test_ppca_statistics_add_over_minibatches() -> None:
    x = ppca_data()
    program = PPCA([6], 2)
    value, whole = program.e_step(x)
    parts = [program.e_step(part) for part in x.split(130)]
    torch.testing.assert_close(value, torch.stack([p[0] for p in parts]).sum())
    for name, statistic in whole.items():
        torch.testing.assert_close(statistic, torch.stack([p[1][name] for p in parts]).sum(0))


# Likelihoods


@pytest.mark.parametrize("likelihood", ["bernoulli", "categorical", "logistic"])
@pytest.mark.parametrize("network", NETWORKS)
def test_masses_of_all_images_sum_to_one(likelihood: str, network: str) -> None:
    values = 2 if likelihood == "bernoulli" else 3
    program = vae(likelihood, network, event_shape=[2, 2], hidden=[4], values=values)
    levels = torch.arange(values).double() / (values - 1 if likelihood == "logistic" else 1)
    images = torch.cartesian_prod(*[levels] * 4).reshape(-1, 2, 2)
    z = torch.randn(3, 3)
    mass = program.decode(z[:, None]).log_prob(images).exp().sum(-1)
    torch.testing.assert_close(mass, torch.ones(3), atol=1e-12, rtol=0)


# The VAE's contract


@every_vae
def test_guide_matches_model_and_gradients_reach_every_parameter(likelihood: str, network: str, guide: str) -> None:
    program = vae(likelihood, network, guide)
    x = program.generate(6)
    assert x.dtype == torch.get_default_dtype()
    program.check(x)
    with torch.no_grad():
        program.initialise(x)
    assert guided_sites(program.guide, Data(x)) == set(program.sites()) == {"z"}
    trace = poutine.trace(program.model).get_trace(x, None, None)
    assert trace.nodes["z"]["fn"].event_shape == (3,)
    assert trace.nodes["x"]["fn"].batch_shape == (6,)
    assert trace.nodes["x"]["fn"].event_shape == (5, 4)
    loss, _ = make_objective("trace")(program, program.guide, Data(x), 6)
    loss.backward()
    silent = [name for name, p in program.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    assert not silent


@every_vae
def test_particles_at_once_equal_particles_one_by_one(likelihood: str, network: str, guide: str) -> None:
    program = vae(likelihood, network, guide)
    x = program.generate(4)
    draws = draw(program.guide, 3, x)
    p, q = log_joint(program, draws.values, x).local, guide_log_prob(program.guide, draws.values, x).local
    torch.testing.assert_close(q, draws.log_prob.local)
    for s, b in itertools.product(range(3), range(4)):
        one, rows = {"z": draws.values["z"][s : s + 1, b : b + 1]}, x[b : b + 1]
        torch.testing.assert_close(log_joint(program, one, rows).local[0, 0], p[s, b])
        torch.testing.assert_close(guide_log_prob(program.guide, one, rows).local[0, 0], q[s, b])


def test_the_vae_promises_no_exact_answer() -> None:
    program = vae("bernoulli")
    assert not isinstance(program, (ExactDensity, ExactPosterior, ClosedFormEM))


@every_vae
def test_works_in_either_precision(likelihood: str, network: str, guide: str) -> None:
    program = vae(likelihood, network, guide)
    assert {p.dtype for p in program.parameters()} == {torch.float64}
    x = program.generate(4)
    program.float()
    draws, weights = log_weights(program, program.guide, 2, x.float())
    assert draws.values["z"].dtype == weights.local.dtype == torch.float32
    # The flow is inverted here, from scratch.
    assert guide_log_prob(program.guide, {"z": draws.values["z"].clone()}, x.float()).local.dtype == torch.float32


@pytest.mark.parametrize("guide", HEADS)
def test_saving_reproduces_predictions(guide: str, tmp_path: Any) -> None:
    program = vae("logistic", "conv", guide)
    x = program.generate(4)
    draws = draw(program.guide, 2, x)
    again = catalogue.load(catalogue.save(program, tmp_path))
    for found, expected in (
        (log_joint(again, draws.values, x), log_joint(program, draws.values, x)),
        (guide_log_prob(again.guide, draws.values, x), guide_log_prob(program.guide, draws.values, x)),
    ):
        assert torch.isfinite(expected.local).all()
        assert torch.equal(found.local, expected.local)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"likelihood": "bernouli"}, UnknownNameError, "bernoulli"),
        ({"network": "cnn"}, UnknownNameError, "conv"),
        ({"guide": "iaff"}, UnknownNameError, "iaf"),
        ({"likelihood": {"name": "normal", "scale": "local"}}, UnknownNameError, "global"),
        ({"likelihood": {"name": "normal", "values": 5}}, UnknownNameError, "option of normal"),
        ({"likelihood": {"values": 5}}, UnknownNameError, "levels"),
        ({"likelihood": 5}, OptionError, "likelihood must be a name"),
        ({"guide": {"name": "full", "steps": 2}}, UnknownNameError, "option of full"),
        ({"activation": "swish"}, UnknownNameError, "silu"),
        ({"latent_dim": 0}, OptionError, "latent_dim"),
        ({"hidden": [4, 0]}, OptionError, "hidden"),
        ({"likelihood": {"name": "logistic", "values": 1}}, OptionError, "values"),
        ({"guide": "iaf", "latent_dim": 1}, OptionError, "latent_dim >= 2"),
        ({"guide": {"name": "iaf", "hidden": 8}, "latent_dim": 9}, OptionError, "hidden >= latent_dim"),
        ({"event_shape": [16], "network": "conv"}, ShapeError, "images"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        VAE(**options)


@pytest.mark.parametrize(
    ("likelihood", "bad"), [("bernoulli", 0.5), ("categorical", 5.0), ("categorical", 1.5), ("logistic", 0.3)]
)
def test_data_outside_the_support_are_refused(likelihood: str, bad: float) -> None:
    program = vae(likelihood)
    x = program.generate(3)
    x[1, 2, 3] = bad
    with pytest.raises(SupportError):
        program.check(x)


@pytest.mark.parametrize("network", NETWORKS)
def test_initial_bias_fits_each_pixel(network: str) -> None:
    shape = (20, 5, 4)
    cases = {
        "bernoulli": torch.rand(shape).round(),
        "categorical": torch.randint(5, shape).double(),
        "normal": torch.randn(shape) * 3 + 1,
        "logistic": torch.randint(5, shape) / 4,
    }
    for likelihood, x in cases.items():
        program = vae(likelihood, network)
        for p in program.decoder.parameters():
            torch.nn.init.zeros_(p)
        with torch.no_grad():
            program.initialise(x)
            d = program.decode(torch.zeros(3)).base_dist
        if likelihood == "bernoulli":
            torch.testing.assert_close(d.probs, (x.sum(0) + 0.5) / 21)
        elif likelihood == "categorical":
            counts = torch.stack([(x == v).sum(0) for v in range(5)], -1)
            torch.testing.assert_close(d.probs, (counts + 0.2) / 21)
        else:
            torch.testing.assert_close(d.loc, x.mean(0))
        if likelihood == "normal":
            torch.testing.assert_close(program.likelihood.scale, (x - x.mean(0)).square().mean().sqrt().detach())


# The VAE's densities


@pytest.mark.parametrize("guide", ["full", "iaf"])
def test_guide_density_integrates_to_one(guide: str) -> None:
    program = vae("bernoulli", guide=guide, latent_dim=2)
    x = program.generate(2)
    line = torch.linspace(-25, 25, 401)
    z = torch.cartesian_prod(line, line)[:, None].expand(-1, 2, 2)
    mass = guide_log_prob(program.guide, {"z": z}, x).local.logsumexp(0).exp() * float(line[1] - line[0]) ** 2
    torch.testing.assert_close(mass, torch.ones(2), atol=1e-6, rtol=0)


def test_flow_density_equals_the_jacobian() -> None:
    program = VAE([5, 4], 3, [6, 5], guide={"name": "iaf", "steps": 3, "hidden": 8})
    for p in program.head.flows.parameters():
        torch.nn.init.normal_(p, std=0.5)
    x = program.generate(1)
    q = program.encode(x)
    with torch.no_grad():
        noise = q.base_dist.sample()

    def push(e: Tensor) -> Tensor:
        for transform in program.encode(x).transforms:
            e = transform(e)
        return e

    jacobian = torch.autograd.functional.jacobian(push, noise)[0, :, 0]
    expected = q.base_dist.log_prob(noise) - torch.linalg.slogdet(jacobian).logabsdet
    z = push(noise).detach()
    torch.testing.assert_close(guide_log_prob(program.guide, {"z": z[None]}, x).local[0], expected)
    assert (jacobian - torch.diag(jacobian.diag())).abs().max() > 1e-3  # the flow does couple its dimensions


@pytest.mark.parametrize("network", NETWORKS)
def test_analytic_kl_agrees_with_monte_carlo(network: str) -> None:
    program = vae("bernoulli", network)
    data = Data(program.generate(8))
    n = 20_000
    with torch.no_grad():
        q = program.encode(data.x)
        kl = kl_divergence(q, dist.Normal(torch.zeros(3), 1.0).to_event(1))
        z = q.sample(torch.Size([n]))
        terms = q.log_prob(z) - dist.Normal(torch.zeros(3), 1.0).to_event(1).log_prob(z)
        error = (terms.mean(0) - kl).abs() / (terms.std(0) / n**0.5)
        assert error.max() < SIGMAS
        # The two estimators of the ELBO have one mean.
        bounds = {
            name: torch.stack(
                [make_objective(name, particles=50)(program, program.guide, data, 8)[1] for _ in range(40)]
            )
            for name in ("trace", "mean_field")
        }
        gap = bounds["trace"].mean() - bounds["mean_field"].mean()
        noise = sum(b.var() / len(b) for b in bounds.values()) ** 0.5
    assert gap.abs() < SIGMAS * noise
    assert bounds["mean_field"].std() < bounds["trace"].std()


@pytest.mark.parametrize("guide", HEADS)
def test_more_particles_bound_the_evidence_better(guide: str) -> None:
    program = vae("bernoulli", guide=guide)
    x = program.generate(20)
    with torch.no_grad():
        program.decoder[-1].weight.mul_(3.0)  # a posterior that the untrained guide misses
        weights = log_weights(program, program.guide, 2000, x)[1].local
    elbo = weights.mean(0)
    iwae = weights.reshape(40, 50, 20).logsumexp(1) - math.log(50)
    gap = (iwae.mean(0) - elbo).mean()
    noise = ((weights.var(0) / 2000 + iwae.var(0) / 40).sum() / 20**2).sqrt()
    assert gap > SIGMAS * noise


def test_a_convolutional_vae_of_28x28_trains_with_its_defaults() -> None:
    torch.set_default_dtype(torch.float32)
    x = (torch.rand(64, 28, 28) < torch.linspace(0, 1, 28)[:, None]).float()
    found = fit(VAE([28, 28], network="conv"), x, "svi", steps=12, batch_size=32, compile="never")
    losses = [row["loss"] for row in found.history.rows]
    # The entropy of the bits is 28 * sum H(t) nats, about 390; a diverging fit is beyond 1e9 at its second step.
    assert max(losses) < 450


@pytest.mark.parametrize(("latent_dim", "network"), [(1, "mlp"), (2, "mlp"), (2, "conv")])
def test_linear_vae_is_ppca(latent_dim: int, network: str) -> None:
    linear, ppca = VAE([3, 2], latent_dim, [], "normal", network=network), PPCA([3, 2], latent_dim)
    with torch.no_grad():
        weight = next(m for m in linear.decoder.modules() if isinstance(m, torch.nn.Linear)).weight
        assert [tuple(p.shape) for p in linear.decoder.parameters()] == [(6, latent_dim)]
        ppca.weight.copy_(weight)
        ppca.mean.copy_(linear.bias.normal_().flatten())
        linear.likelihood.scale = ppca.scale = torch.tensor(0.7)
    x = ppca.generate(5)
    line = torch.linspace(-7, 7, 281)
    z = torch.cartesian_prod(*[line] * latent_dim).reshape(-1, 1, latent_dim)
    log_cell = latent_dim * math.log(float(line[1] - line[0]))
    grid = log_joint(linear, {"z": z}, x).local.logsumexp(0) + log_cell
    torch.testing.assert_close(grid, ppca.log_prob(x), atol=1e-6, rtol=0)
