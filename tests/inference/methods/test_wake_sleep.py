"""Wake-sleep and Monte Carlo EM: unbiased gradients, the exact maximum of PPCA's likelihood, true posterior draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference.fit import fit, make_method
from inference.guides.named import guide_parameters
from inference.methods.mcem import MonteCarloEM
from inference.methods.wake_sleep import WakeSleep
from inference.particles import draw
from inference.training.loop import Loop
from tests.conftest import FAILURE_RATE
from tests.inference.methods.linear import evidence, truth
from zoo import datasets
from zoo.datasets import Data
from zoo.errors import CapabilityError, OptionError
from zoo.latent.ppca import PPCA
from zoo.latent.vae import VAE
from zoo.program import Implicit, ImplicitProgram, Program

SIGMAS = float(-torch.special.ndtri(torch.tensor(FAILURE_RATE / 2, dtype=torch.float64)))


def with_exact_guide(program: PPCA) -> PPCA:
    """Sets the amortised guide to the exact posterior; W'W must be diagonal."""
    with torch.no_grad():
        variance, w = program.scale**2, program.weight
        m = w.T @ w + variance * torch.eye(program.latent_dim)
        program.encoder.weight.copy_(torch.linalg.solve(m, w.T))
        program.encoder.bias.copy_(-program.encoder.weight @ program.mean)
        program.encoder_scale = (variance / m.diagonal()).sqrt()
    return program


METHODS: list[tuple[str, dict[str, Any], float]] = [
    # Margins in nats per example, twice the largest shortfall at seeds 1 to 5: 0.024 for SVI, whose guide needs W'W to
    # turn to its diagonal form first, 0.005 for the others.
    ("svi", {"steps": 1500}, 0.05),
    ("wake-sleep", {"steps": 1500}, 0.01),
    (
        "wake-sleep",
        {"steps": 400, "lr": 0.02, "compile": "traced", "reweighted": True, "particles": 10, "guide_update": "sleep"},
        0.01,
    ),
    (
        "wake-sleep",
        {"steps": 400, "lr": 0.02, "compile": "traced", "reweighted": True, "particles": 10, "guide_update": "wake"},
        0.01,
    ),
    (
        "wake-sleep",
        {"steps": 400, "lr": 0.02, "compile": "traced", "reweighted": True, "particles": 10, "guide_update": "both"},
        0.01,
    ),
    ("mcem", {"steps": 200, "draws": 0, "leapfrog": 5, "m_steps": 3, "lr": 0.03}, 0.01),
]


@pytest.mark.parametrize(("method", "options", "margin"), METHODS)
def test_reaches_the_maximum_of_the_likelihood(method: str, options: dict[str, Any], margin: float) -> None:
    x, best = truth()
    program = PPCA([6], 2)
    start = evidence(program, x)
    fit(program, x, method, seed=1, **{"batch_size": 300, **options})
    reached = evidence(program, x)
    assert best - start > 1.0
    assert 0 <= best - reached < margin


# Gradients


def average_gradients(
    method: WakeSleep, program: Program, names: list[str], batch: Data, rounds: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and standard error of minus the gradients over independent rounds."""
    recognition = guide_parameters(program.guide, program, batch)
    generative = [p for p in program.parameters() if all(p is not q for q in recognition)]
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    for _ in range(rounds):
        program.zero_grad()
        method.gradients(program, generative, recognition, batch)
        for name in names:
            rows[name].append(-program.get_parameter(name).grad.clone())
    stacked = {name: torch.stack(values) for name, values in rows.items()}
    return {name: (v.mean(0), v.std(0) / rounds**0.5) for name, v in stacked.items()}


def assert_unbiased(found: dict[str, tuple[Tensor, Tensor]], expected: dict[str, Tensor]) -> None:
    for name, (mean, error) in found.items():
        assert expected[name].abs().max() > SIGMAS * error.min(), f"{name}: the test could not see a zero gradient"
        assert ((mean - expected[name]).abs() / error).max() < SIGMAS, name


@pytest.mark.parametrize("options", [{}, {"reweighted": True, "particles": 4}])
def test_wake_gradient_under_the_exact_posterior_is_that_of_the_evidence(options: dict[str, Any]) -> None:
    # Fisher's identity: E_{p(z|x)} grad log p(x, z) = grad log p(x). All importance weights are equal then.
    x, _ = truth()
    program = PPCA([6], 2)
    program.maximum_likelihood(x)
    with_exact_guide(program)
    other = Data(truth(400)[0] + 0.3)
    names = ["weight", "mean", "scale_unconstrained"]
    gradients = torch.autograd.grad(program.log_prob(other.x).mean(), [program.get_parameter(n) for n in names])
    assert_unbiased(
        average_gradients(WakeSleep(**options), program, names, other, 200), dict(zip(names, gradients, strict=True))
    )


def test_sleep_gradient_is_that_of_the_expected_guide_density() -> None:
    # E_{p(x, z)} log q(z | x) in closed form for jointly Gaussian x and z and a linear guide, then differentiated.
    program = PPCA([4], 2)
    with torch.no_grad():
        program.mean.normal_()
        program.encoder.weight.normal_()
    w, mean, sd = program.weight.detach(), program.mean.detach(), program.encoder_scale
    a = program.encoder.weight
    offset = a @ mean + program.encoder.bias
    covariance = w @ w.T + program.scale.detach() ** 2 * torch.eye(4)
    error = torch.eye(2) - a @ w - w.T @ a.T + a @ covariance @ a.T
    expected_log_q = -(sd.log() + (error.diagonal() + offset**2) / (2 * sd**2)).sum()
    names = ["encoder.weight", "encoder.bias", "encoder_scale_unconstrained"]
    gradients = torch.autograd.grad(expected_log_q, [program.get_parameter(n) for n in names])
    assert_unbiased(
        average_gradients(WakeSleep(), program, names, Data(torch.randn(200, 4)), 200),
        dict(zip(names, gradients, strict=True)),
    )


def test_reweighted_gradients_approach_the_evidence_with_more_particles() -> None:
    # With any guide the self-normalised gradient is biased by O(1/K): with many particles it is that of log p(x).
    program, batch = PPCA([4], 2), Data(truth()[0][:50, :4])
    exact = torch.autograd.grad(program.log_prob(batch.x).mean(), [program.weight])[0]

    def distance(particles: int) -> float:
        method = WakeSleep(reweighted=True, particles=particles)
        return float((average_gradients(method, program, ["weight"], batch, 100)["weight"][0] - exact).norm())

    few, many = distance(2), distance(200)
    assert many < few / 10


@pytest.mark.parametrize("guide_update", ["sleep", "wake", "both"])
@pytest.mark.parametrize("guide", ["diagonal", "full", "iaf"])
def test_each_phase_teaches_its_own_parameters(guide_update: str, guide: str) -> None:
    program = VAE([3, 2], 2, [5], guide={"name": "iaf", "hidden": 6} if guide == "iaf" else guide)
    batch = Data(program.generate(5))
    recognition = guide_parameters(program.guide, program, batch)
    names = {n for n, p in program.named_parameters() if any(p is q for q in recognition)}
    assert names == {n for n, _ in program.named_parameters() if n.startswith(("encoder", "head"))}
    generative = [p for n, p in program.named_parameters() if n not in names]
    method = WakeSleep(reweighted=True, particles=3, guide_update=guide_update)
    metrics = method.gradients(program, generative, recognition, batch)
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in program.parameters())
    assert ("sleep_loss" in metrics) == (guide_update != "wake")


# Monte Carlo EM


# Both


class Halt(Exception):
    pass


@pytest.mark.parametrize("method", ["wake-sleep", "mcem"])
def test_a_killed_run_goes_on_where_it_was(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = truth(40)[0]

    options = {"steps": 10, "batch_size": 16} | ({"draws": 1} if method == "mcem" else {})

    def program() -> PPCA:
        torch.manual_seed(5)
        return PPCA([6], 2)

    whole = program()
    fit(whole, x, method, **options)
    batch, count = Loop.batch, 0

    def stop_at_seven(loop: Loop) -> Data:
        nonlocal count
        if loop.done == 6 and count == 0:
            count = 1
            loop.save()
            raise Halt
        return batch(loop)

    monkeypatch.setattr(Loop, "batch", stop_at_seven)
    with pytest.raises(Halt):
        fit(program(), x, method, out=tmp_path, **options)
    resumed = program()
    fit(resumed, x, method, out=tmp_path, **options)
    for (name, p), q in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q), name


@pytest.mark.parametrize("method", ["wake-sleep", "mcem"])
@pytest.mark.parametrize("likelihood", ["categorical", "logistic"])
def test_fits_vaes(method: str, likelihood: str) -> None:
    program = VAE([3, 2], 2, [8], {"name": likelihood, "values": 4}, network="conv")
    x = VAE([3, 2], 2, [8], {"name": likelihood, "values": 4}).generate(60)
    options = {"draws": 3, "leapfrog": 3, "m_steps": 2} if method == "mcem" else {}
    found = fit(program, x, method, steps=60, batch_size=30, lr=1e-2, **options)
    losses = found.history.series("loss")[1]
    assert sum(losses[-10:]) < sum(losses[:10])
    if method == "wake-sleep":
        assert found.draw(3, x)["z"].shape == (3, 60, 2)
        assert found.guide_spec == {"kind": "own"}


def test_wake_sleep_validates() -> None:
    x = truth(60)[0]
    card = datasets.card("coin")
    data = datasets.Dataset(card, Data(x[:40]), Data(x[40:]), Data(x[40:]))
    found = fit(PPCA([6], 2), data, "wake-sleep", steps=20, validate_every=5)
    assert len(found.history.series("validation_loss")[1]) == 4


class GlobalMean(Program):
    event_shape = torch.Size()

    def model(self, x: Any = None, context: Any = None, size: Any = None) -> Tensor:
        mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


class Mixture(Program):
    event_shape = torch.Size()

    def model(self, x: Any = None, context: Any = None, size: Any = None) -> Tensor:
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)), infer={"enumerate": "parallel"})
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x)


class NoLatents(Program):
    event_shape = torch.Size()

    def model(self, x: Any = None, context: Any = None, size: Any = None) -> Tensor:
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Normal(torch.zeros(()), 1.0), obs=x)


class Generator(ImplicitProgram):
    event_shape = torch.Size()

    def model(self, x: Any = None, context: Any = None, size: Any = None) -> Tensor:
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            return pyro.sample("x", Implicit(z))


class PositiveLatent(Program):
    event_shape = torch.Size()

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.3))

    def model(self, x: Any = None, context: Any = None, size: Any = None) -> Tensor:
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Gamma(torch.tensor(2.0), 1.0))
            return pyro.sample("x", dist.Normal(z * self.rate, 1.0), obs=x)


@pytest.mark.parametrize("method", ["wake-sleep", "mcem"])
@pytest.mark.parametrize(
    ("program", "reason"),
    [(GlobalMean, "global"), (Mixture, "discrete"), (NoLatents, "no latents"), (Generator, "implicit")],
)
def test_refuses_before_compute(method: str, program: type[Program], reason: str) -> None:
    assert reason in str(make_method(method).why_not(program()))
    with pytest.raises(CapabilityError, match=reason):
        fit(program(), torch.zeros(3), method)


def test_refuses_what_only_one_of_them_cannot() -> None:
    assert "unconstrained" in str(MonteCarloEM().why_not(PositiveLatent()))
    assert WakeSleep().why_not(PositiveLatent()) is None
    with pytest.raises(CapabilityError, match="leaves out"):  # its guide is empty
        fit(PositiveLatent(), torch.zeros(3), "wake-sleep")


@pytest.mark.parametrize(
    ("method", "options", "says"),
    [
        ("wake-sleep", {"lr": 0.0}, "lr"),
        ("wake-sleep", {"decay": "linear"}, "cosine"),
        ("wake-sleep", {"particles": 0}, "particles"),
        ("wake-sleep", {"reweighted": True}, "at least 2"),
        ("wake-sleep", {"guide_update": "dream"}, "sleep"),
        ("wake-sleep", {"guide_update": "wake"}, "reweighted=True"),
        ("mcem", {"acceptance": 1.0}, "acceptance"),
        ("mcem", {"leapfrog": 0}, "leapfrog"),
        ("mcem", {"draws": -1}, "draws"),
        ("mcem", {"particles": 0}, "particles"),
    ],
)
def test_options_that_make_no_sense(method: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        make_method(method, **options)


def test_guide_draws_of_wake_sleep_are_near_the_posterior() -> None:
    x, _ = truth()
    program = PPCA([6], 2)
    program.maximum_likelihood(x)
    program.weight.requires_grad_(False)
    found = fit(program, x, "wake-sleep", steps=300, lr=0.02, batch_size=300, initialise=False)
    exact = draw(program.posterior, 2000, x[:50]).values["z"]
    learnt = found.draw(2000, x[:50])["z"]
    sd = exact.std(0)
    assert ((learnt.mean(0) - exact.mean(0)) / sd).abs().mean() < 0.2
    assert (learnt.std(0) / sd - 1).abs().max() < 0.2
