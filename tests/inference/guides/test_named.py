"""Flow guides: densities, supports, compiled steps, and the gap that they close beside a Gaussian."""

from __future__ import annotations

from functools import cache

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from inference import Fit, fit
from inference.evaluation.estimates import density, elbo
from inference.evaluation.gaps import posterior_gap
from inference.guides.grid import GridGuide
from inference.guides.named import build_guide, guide_parameters
from inference.particles import draw
from tests.inference.scalar import Scalar, X
from tests.inference.steps import both, ready, small
from tests.inference.toys import Mean, Pair
from zoo import catalogue, datasets
from zoo.bayes.banana import Banana
from zoo.bayes.eight_schools import EightSchools
from zoo.bayes.regression import BayesianLinearRegression
from zoo.datasets import Data
from zoo.errors import UnknownNameError
from zoo.guide_flows import FLOWS, flow_layers
from zoo.program import Program

every_flow = pytest.mark.parametrize("kind", FLOWS)


class Funnel(Program):
    """v ~ N(0, 1.5^2), z ~ N(0, exp(v)^2), x_i ~ N(z, 1): a bent posterior over two global latents."""

    event_shape = torch.Size([])

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        v = pyro.sample("v", dist.Normal(torch.tensor(0.0), 1.5))
        z = pyro.sample("z", dist.Normal(torch.zeros_like(v), v.exp()))
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide_of(kind: str, program: Program, x: Tensor, spread: float = 0.0):
    """A flow guide; its parameters moved at random, so that nothing stands at its start."""
    guide = build_guide({"kind": "auto", "name": kind}, program, Data(x))
    with torch.no_grad():
        for p in guide.parameters():
            p.add_(spread * torch.randn_like(p))
    return guide


@every_flow
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("context", [0, 4])
def test_log_determinants_are_those_of_autograd_and_inverses_undo(kind, size, context):
    layers = flow_layers(kind, size, 3, 8, context)
    with torch.no_grad():
        for p in layers.parameters():
            p.add_(0.5 * torch.randn_like(p))
    given = torch.randn(context)
    steps = [layer.condition(given) if context else layer for layer in layers]
    for e in (torch.randn(size), 6 * torch.randn(size)):  # inside the box of the splines, and partly outside
        for step in steps:
            z = step(e).detach()
            jacobian = torch.autograd.functional.jacobian(step, e)
            step(torch.zeros(size))  # forgets what it has cached
            torch.testing.assert_close(
                step.log_abs_det_jacobian(e, step(e)), torch.linalg.slogdet(jacobian.reshape(size, size)).logabsdet
            )
            step(torch.zeros(size))
            torch.testing.assert_close(step.inv(z.clone()), e, atol=1e-6, rtol=1e-6)
            e = z


def test_a_spline_starts_near_the_identity_and_is_it_outside_the_box():
    (layer,) = flow_layers("spline", 2, 1, 16)
    with torch.no_grad():
        inside = torch.randn(50, 2).clamp(-3, 3)
        assert float((layer(inside) - inside).abs().max()) < 0.5
        for p in layer.parameters():
            p.add_(torch.randn_like(p))
        outside = torch.tensor([[5.0, -7.0]])
        assert torch.equal(layer(outside), outside)
        assert not torch.equal(layer(inside), inside)


@every_flow
def test_the_density_of_the_guide_integrates_to_one(kind):
    """On a grid over both sites, in the coordinates of the model: scale > 0 has its Jacobian."""
    x = torch.tensor([0.5])
    guide = guide_of(kind, Pair(), x, 0.1)
    with torch.no_grad():
        guide.scale = torch.tensor([0.5, 0.7])
        u, v = torch.linspace(-4, 6, 500), torch.linspace(-5, 5, 500)
        log_scale, z = (t.reshape(-1, 1) for t in torch.meshgrid(u, v, indexing="ij"))
        found = density(guide, {"scale": log_scale.exp(), "z": z}, x).total + log_scale[:, 0]
    mass = found.logsumexp(0).exp() * (u[1] - u[0]) * (v[1] - v[0])
    assert float(mass) == pytest.approx(1.0, abs=5e-3)  # the grid's own error: a spline has kinks in its slope


@every_flow
@pytest.mark.parametrize("make", [Mean, Pair, Funnel])
def test_draws_and_density_agree_and_stay_in_the_support(kind, make):
    program = make()
    x = program.generate(3)
    guide = guide_of(kind, program, x, 0.3)
    with torch.no_grad():
        draws = draw(guide, 50, x)
        again = density(guide, {name: value.clone() for name, value in draws.values.items()}, x)
    torch.testing.assert_close(again.total, draws.log_prob.total, atol=1e-5, rtol=1e-6)
    for name, site in program.sites().items():
        assert bool(site.support.check(draws.values[name]).all())


def test_the_flow_holds_the_gaussian():
    """With flows that do nothing, the guide is the full-rank Gaussian of the same parameters."""
    program, x = Pair(), Pair().generate(3)
    guide, gaussian = guide_of("spline", program, x), guide_of("multivariate_normal", program, x, 0.2)
    with torch.no_grad():
        guide.loc.copy_(gaussian.loc)
        guide.scale, guide.scale_tril = gaussian.scale, gaussian.scale_tril
        for layer in guide.flows:
            layer.arn.layers[-1].weight.zero_()
        values = draw(gaussian, 20, x, density=False).values
        found, expected = density(guide, values, x).total, density(gaussian, values, x).total
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)  # Pyro's slope at the rim of the box is 0.999


@every_flow
@pytest.mark.parametrize("name", ["eight-schools", pytest.param("vae", marks=pytest.mark.slow)])
def test_a_compiled_step_is_the_step(kind, name):
    program, data = small(name, **({"guide": kind} if name == "vae" else {"centered": True}))
    options = {"batch_size": 5} if name == "vae" else {"guide": kind, "batch_size": 50, "particles": 2}
    for ours, theirs in zip(*both(ready(program, data, **options), n=2), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8)


@pytest.mark.slow
@every_flow
def test_a_fit_is_compiled(kind):
    """Steps of its library must equal Python's before it is used; else a notice says so, an error in these tests."""
    found = fit(Funnel(), Funnel().generate(5), "svi", seed=1, guide=kind, steps=60, lr=0.01, compile="always")
    assert found.info["compile_seconds"] > 0


@every_flow
def test_flows_survive_a_checkpoint(kind, tmp_path):
    x = Funnel().generate(5)
    program = EightSchools(centered=True)
    data = (x, program.example_context(5))
    found = fit(program, data, "svi", guide=kind, steps=5, out=tmp_path)
    again = Fit.load(tmp_path)
    assert torch.equal(found.draw(3, *data)["theta"], again.draw(3, *data)["theta"])


@cache
def gap_on_a_banana(guide):
    """After few steps, of one example, so that the autoguide's two numbers are all there is."""
    x = torch.tensor([[0.0, 1.0]])
    truth = float(GridGuide(Banana()).grid(x).log_evidence.sum())
    found = fit(Banana(), x, "svi", guide=guide, steps=250, lr=0.04, particles=8, compile="traced")
    return truth - elbo(found.program, found.guide, Data(x), 4000).mean


@every_flow
def test_a_flow_bends_where_a_gaussian_cannot(kind):
    assert gap_on_a_banana(kind) < 0.85 * gap_on_a_banana("multivariate_normal")


def test_an_unknown_flow_is_named():
    with pytest.raises(UnknownNameError, match="spline"):
        flow_layers("splines", 2, 1, 8)


# The criterion: at least half of the approximation gap of a Gaussian, the full-rank one included, is closed.


@pytest.mark.slow
def test_flows_close_half_of_the_gap_on_eight_schools_centred():
    data = datasets.load("eight_schools").train
    program = EightSchools(centered=True)
    truth = float(program.log_evidence(*data))
    gaps = {}
    for guide in ("multivariate_normal", "iaf", "spline"):
        found = fit(
            EightSchools(centered=True), data, "svi", device="cpu", guide=guide, train_program=False,
            initialise=False, steps=10_000, lr=0.02, particles=8,
        )  # fmt: skip
        gaps[guide] = truth - elbo(found.program, found.guide, data, 10_000).mean
    assert gaps["iaf"] < gaps["multivariate_normal"] / 2
    assert gaps["spline"] < gaps["multivariate_normal"] / 2


@pytest.mark.slow
def test_a_spline_closes_half_of_the_gap_on_the_vae():
    """Of the best full Gaussian of each digit; the spline's network is fitted to these digits alone."""
    digits = datasets.load("digits-binary")
    preset = catalogue.get("vae").presets["plane"]
    program = fit(catalogue.create("vae", **preset.program), digits, preset.method, device="cpu", **preset.fit).program
    data = digits.test.rows(slice(0, 20))
    data = Data(data.x.to(torch.get_default_dtype()))
    truth = GridGuide(program).grid(*data).log_evidence
    full = posterior_gap(program, None, data, truth, family="full").approximation.mean()
    options = {**program.config(), "guide": "spline"}
    flow = catalogue.create("vae", **options)
    flow.decoder.load_state_dict(program.decoder.state_dict())
    flow.bias.data.copy_(program.bias)
    # Many particles first: their bound looks for all of the mass, the ELBO's draws for the nearest mode.
    alone = {"device": "cpu", "train_program": False, "initialise": False, "lr": 3e-3, "batch_size": 20}
    fit(flow, data, "svi", elbo="iwae", particles=64, steps=1000, **alone)
    fit(flow, data, "svi", particles=8, steps=3000, **alone)
    assert float((truth - elbo(flow, None, data, 5000).values).mean()) < float(full) / 2


def test_guide_parameters_are_found_by_differentiation():
    program = Scalar()
    found = guide_parameters(program.guide, program, Data(X))
    assert {id(p) for p in found} == {id(program.a), id(program.log_s)}


def test_a_low_rank_guide_is_exact_on_a_low_rank_gaussian() -> None:
    """Features that see a plane of four weights, alike from all sides: beside a sphere, the rest has rank two."""
    rows = 3 * torch.linalg.qr(torch.randn(4, 2))[0].T
    program, data = BayesianLinearRegression(4, prior_scale=2.0, noise_scale=0.5), Data(torch.tensor([1.0, -2.0]), rows)
    found = fit(program, data, "svi", guide="low_rank")
    covariance = torch.linalg.inv(rows.T @ rows / 0.25 + torch.eye(4) / 4)
    truth = torch.distributions.MultivariateNormal(covariance @ rows.T @ data.x / 0.25, covariance)
    q = found.guide.get_posterior()
    q = torch.distributions.MultivariateNormal(q.mean.detach(), q.covariance_matrix.detach())
    assert float(torch.distributions.kl_divergence(q, truth)) < 1e-3


class Sum(Program):
    """a, b ~ N(0, 1), x ~ N(a + b, 0.5): what the one has the other lacks."""

    event_shape = torch.Size([])

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        a = pyro.sample("a", dist.Normal(torch.tensor(0.0), 1.0))
        b = pyro.sample("b", dist.Normal(torch.tensor(0.0), 1.0))
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Normal(a + b, 0.5), obs=x)


def test_a_structured_guide_knows_what_sites_have_to_do_with_each_other() -> None:
    x = torch.tensor([1.2, 0.8, 1.0])
    truth = float(dist.MultivariateNormal(torch.zeros(3), 0.25 * torch.eye(3) + 2).log_prob(x))
    bounds = {}
    for guide in ("structured", "normal"):
        found = fit(Sum(), x, "svi", guide=guide, steps=200, lr=0.1, compile="never")
        bounds[guide] = float(elbo(found.program, found.guide, x, 2000).values)
    assert bounds["structured"] == pytest.approx(truth, abs=0.03)
    assert bounds["normal"] < truth - 0.5
