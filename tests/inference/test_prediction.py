"""What a program makes of given latents: each site once, of the right shape, under the right latents."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import zoo
from inference.particles import draw
from inference.prediction import draw_given, fill_discrete, observed, predicted
from tests.inference.toys import SIGMAS, Mean, Pair
from zoo import catalogue
from zoo.errors import CapabilityError
from zoo.program import Program


class Told(Program):
    """Two deterministic sites, one in the plate and one outside, a factor, and a vector for each example."""

    event_shape = torch.Size([3])

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.deterministic("length", w.norm(dim=-1))
        pyro.factor("pull", -w.square().sum(-1))
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))
            loc = pyro.deterministic("loc", w * z[..., None])
            return pyro.sample("x", dist.Normal(loc, 1e-6).to_event(1), obs=x)


def test_observed_and_deterministic_sites_follow_their_latents() -> None:
    w, z = torch.randn(5, 1, 3), torch.randn(5, 4)
    found = predicted(Told(), {"w": w, "z": z}, 5, 4)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "length": (5,), "loc": (5, 4, 3), "x": (5, 4, 3),
    }  # fmt: skip
    torch.testing.assert_close(found["length"], w.norm(dim=-1)[:, 0])
    torch.testing.assert_close(found["loc"], w * z[..., None])
    torch.testing.assert_close(found["x"], found["loc"], atol=1e-4, rtol=0)


def test_examples_of_a_draw_share_global_latents_and_have_local_ones_of_their_own() -> None:
    mu = 100.0 * torch.arange(6.0)[:, None]
    x = predicted(Mean(), {"mu": mu}, 6, 5)["x"]
    assert x.shape == (6, 5)
    assert bool(((x - mu).abs() < 10).all())
    assert len(x.unique()) == 30


@pytest.mark.parametrize("name", ["nade", "hmm", "ppca", "gaussian-mixture", "gan", "dequantised-flow", "made"])
def test_draws_are_independent_whatever_the_density_is_made_of(name: str) -> None:
    program = catalogue.create(name)
    x = predicted(program, {}, 4, 3, None)["x"]
    assert x.shape == (4, 3, *program.event_shape)
    assert len(x.flatten(0, 1).unique(dim=0)) > 6


def test_chunks_change_nothing_but_the_order_of_noise(monkeypatch) -> None:
    mu = torch.arange(7.0)[:, None]
    monkeypatch.setattr("inference.prediction.CHUNK", 4)
    x = predicted(Mean(), {"mu": 100 * mu}, 7, 2)["x"]
    assert x.shape == (7, 2)
    assert bool(((x - 100 * mu).abs() < 10).all())


def test_the_rest_of_a_guide_is_drawn_given_a_part() -> None:
    program = catalogue.create("eight-schools", centered=True)
    x, sigma = torch.tensor([30.0, -10.0]), torch.tensor([10.0, 5.0])
    n = 20_000
    drawn = draw_given(
        program.guide, {"mu": torch.full((n, 1), 5.0), "tau": torch.full((n, 1), 10.0)}, x, sigma
    )  # BDA, eq. 5.17
    precision = 1 / sigma**2 + 1 / 100
    loc = (x / sigma**2 + 5 / 100) / precision
    theta = drawn.values["theta"]
    assert bool(((theta.mean(0) - loc).abs() < SIGMAS / (n * precision).sqrt()).all())
    truth = dist.Normal(loc, precision.rsqrt()).log_prob(theta)
    torch.testing.assert_close(drawn.log_prob.local, truth, rtol=1e-4, atol=1e-4)


def test_an_auxiliary_guide_cannot_be_given_a_part() -> None:
    from inference.guides.named import build_guide
    from zoo.datasets import Data

    program = Pair()
    guide = build_guide({"kind": "auto", "name": "normal"}, program, Data(torch.zeros(3)))
    with pytest.raises(CapabilityError, match="auxiliary"):
        draw_given(guide, {"scale": torch.ones(2, 1)}, torch.zeros(3))


def test_discrete_latents_that_are_left_out_are_drawn_from_their_posterior() -> None:
    program = catalogue.create("bayesian-gaussian-mixture", event_shape=[1], components=2)
    n, x = 20_000, torch.tensor([[0.2], [3.0]])
    given = {
        "weights": torch.tensor([0.25, 0.75]).expand(n, 1, 2),
        "means": torch.tensor([[0.0], [2.0]]).expand(n, 1, 2, 1),
        "precisions": torch.ones(n, 1, 2, 1),
    }
    z = fill_discrete(program, given, n, x)["z"]
    assert z.shape == (n, 2)
    joint = torch.tensor([0.25, 0.75]) * dist.Normal(torch.tensor([0.0, 2.0]), 1.0).log_prob(x).exp()
    second = joint[:, 1] / joint.sum(1)
    error = (second * (1 - second) / n).sqrt()
    assert bool(((z.to(second).mean(0) - second).abs() < SIGMAS * error).all())
    with pytest.raises(CapabilityError, match="'z', which cannot be enumerated"):
        fill_discrete(Pair(), {"scale": torch.ones(2, 1)}, 2, torch.zeros(3))


def test_adopted_code_is_run_once_a_draw_and_tells_all_its_sites() -> None:
    def model(X, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        mu = pyro.deterministic("mu", X @ w)
        with pyro.plate("rows", len(X)):
            pyro.sample("y", dist.Normal(mu, 1e-6), obs=y)
            pyro.sample("late", dist.Poisson(torch.tensor(50.0)), obs=None if y is None else 0 * y)

    X, y = torch.randn(6, 2), torch.randn(6)
    for examples in (None, "rows"):
        program = zoo.adopt(model, examples=examples)
        x, arguments = program.accept({"X": X, "y": y})
        assert torch.equal(observed(program, x, arguments)["y"], y)
        w = torch.randn(4, 1, 2)
        found = predicted(program, {"w": w}, 4, len(x), arguments)
        assert set(found) == {"mu", "y", "late"}
        torch.testing.assert_close(found["mu"], w[:, 0] @ X.T)
        torch.testing.assert_close(found["y"], found["mu"], atol=1e-4, rtol=0)
        assert found["late"].shape == (4, 6)
        assert abs(float(found["late"].mean()) - 50) < SIGMAS * math.sqrt(50 / 24)
    draws = draw(program.model, 2, x, arguments, density=False).values
    assert draws["w"].shape == (2, 1, 2)


def test_what_adopted_code_summed_out_is_drawn_given_the_data() -> None:
    def mixture(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(2 * z, 1.0), obs=x)

    x, n = torch.tensor([-1.0, 1.0, 2.5]), 500
    odds = 0.3 / 0.7 * (dist.Normal(2.0, 1.0).log_prob(x) - dist.Normal(0.0, 1.0).log_prob(x)).exp()
    want = odds / (1 + odds)
    for examples in (None, "rows"):
        program = zoo.adopt(mixture, examples=examples)
        data = program.take(x)
        torch.manual_seed(0)
        drawn = fill_discrete(program, {}, n, *data)["z"].reshape(n, 3)
        assert bool(((drawn.mean(0) - want).abs() < 5 * (want * (1 - want) / n).sqrt()).all())  # standard errors
