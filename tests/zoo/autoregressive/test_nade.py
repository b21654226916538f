"""FVSBN, NADE and RNADE: the papers' loops, total mass, who sees whom, draws, completion."""

from __future__ import annotations

import math

import pytest
import scipy.stats as stats
import torch

from inference import fit
from inference.fit import make_method
from tests.conftest import FAILURE_RATE
from tests.zoo.densities import agrees, perturbed, states
from zoo.autoregressive.fvsbn import FVSBN
from zoo.autoregressive.nade import BLOCK, NADE, RNADE
from zoo.autoregressive.pixelrnn import PixelRNN
from zoo.chains.ar import Autoregression
from zoo.errors import OptionError, ShapeError, UnknownNameError
from zoo.testing import check_program


def gaussians(components):
    return {"name": "gaussian-mixture", "components": components}


BINARY = {
    "fvsbn": lambda: FVSBN([3, 4]),
    "fvsbn-random": lambda: FVSBN([12], "random", seed=3),
    "nade": lambda: NADE([12], 10),
    "nade-random": lambda: NADE([3, 4], 10, order="random", activation="tanh"),
    "nade-channels": lambda: NADE([3, 2, 2], 10),
}
OTHERS = {
    "nade-levels": lambda: NADE([2, 3], 10, likelihood={"name": "levels", "values": 3}),
    "nade-categorical": lambda: NADE([2, 3], 10, likelihood={"name": "categorical", "values": 3}),
    "nade-normal": lambda: NADE([2, 3], 10, likelihood="normal"),
    "nade-scale-of-each": lambda: NADE([2, 3], 10, "random", likelihood={"name": "normal", "scale": "pixel"}),
    "nade-logistic": lambda: NADE([2, 3], 10, likelihood={"name": "logistic", "values": 5}),
    "nade-companded": lambda: NADE([5], 10, likelihood={"name": "companded-mixture", "values": 8}),
    "nade-long": lambda: NADE([2 * BLOCK + 3], 10, order="random"),
    "rnade": lambda: RNADE([5], 10, activation="tanh", likelihood=gaussians(3)),
    "rnade-relu": lambda: RNADE([5], 20, "random", likelihood=gaussians(2)),
    "rnade-grey": lambda: RNADE(
        [2, 2], 10, activation="tanh", likelihood={"name": "logistic-mixture", "values": 8, "components": 2}
    ),
}
ALL = {**BINARY, **OTHERS}


@pytest.fixture(params=BINARY, name="binary")
def _binary(request):
    return perturbed(BINARY[request.param]())


@pytest.fixture(params=ALL, name="program")
def _program(request):
    # Rectified sums and exponentials of them have no bound: kept small, lest draws overflow.
    return perturbed(ALL[request.param](), 0.1 if request.param == "rnade-relu" else 0.5)


# Density.


def test_probabilities_of_all_states_sum_to_one(binary):
    total = binary.log_prob(states(binary.event_shape)).exp().sum()
    torch.testing.assert_close(total, torch.tensor(1.0), atol=1e-10, rtol=0)


def test_levels_sum_to_one():
    for program, values in ((OTHERS["nade-levels"](), 3), (OTHERS["rnade-grey"](), 8)):
        total = perturbed(program).log_prob(states(program.event_shape, values)).exp().sum()
        torch.testing.assert_close(total, torch.tensor(1.0), atol=1e-10, rtol=0)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_rnade_integrates_to_one(activation):
    at = torch.linspace(-25, 25, 2501)
    line = (
        perturbed(RNADE([1], 10, activation=activation, likelihood=gaussians(3)), 0.2).log_prob(at.unsqueeze(-1)).exp()
    )
    torch.testing.assert_close(torch.trapezoid(line, at), torch.tensor(1.0), atol=1e-6, rtol=0)
    at = torch.linspace(-25, 25, 1251)
    plane = perturbed(RNADE([2], 10, activation=activation, likelihood=gaussians(3)), 0.2)
    density = plane.log_prob(torch.cartesian_prod(at, at)).exp().reshape(len(at), len(at))
    torch.testing.assert_close(torch.trapezoid(torch.trapezoid(density, at), at), torch.tensor(1.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("order", ["raster", "random"])
@pytest.mark.parametrize("sites", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_nade_is_the_loop_of_the_paper(sites, order):
    program = perturbed(NADE([sites], 7, order))
    x = torch.randint(0, 2, (5, sites)).double()
    w, c = program.first.weight, program.first.bias
    v, b = program.last.weight, program.last.bias
    a, total = c.expand(5, -1), torch.zeros(5)
    for i in program.order.tolist():
        p = torch.sigmoid(b[i] + torch.sigmoid(a) @ v[i])
        total = total + torch.where(x[:, i] == 1, p, 1 - p).log()
        a = a + x[:, i, None] * w[:, i]
    torch.testing.assert_close(program.log_prob(x), total)


@pytest.mark.parametrize("order", ["raster", "random"])
def test_rnade_is_the_loop_of_the_paper(order):
    program = perturbed(RNADE([BLOCK + 3], 7, order, likelihood=gaussians(3)))
    x = torch.randn(5, BLOCK + 3)
    w, c = program.first.weight, program.first.bias
    v, b = program.last.weight.unflatten(0, (-1, 9)), program.last.bias.unflatten(0, (-1, 9))
    a, total = c.expand(5, -1), torch.zeros(5)
    for rank, i in enumerate(program.order.tolist()):
        outputs = b[i] + torch.relu(program.rescaling[rank] * a) @ v[i].t()
        alpha, mu = outputs[:, :3].softmax(-1), outputs[:, 3:6]
        sigma = outputs[:, 6:].exp() + program.likelihood.floor
        normal = torch.exp(-0.5 * ((x[:, i, None] - mu) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
        total = total + (alpha * normal).sum(-1).log()
        a = a + x[:, i, None] * w[:, i]
    torch.testing.assert_close(program.log_prob(x), total)


def test_fvsbn_is_the_autoregression_of_all_predecessors():
    program = perturbed(FVSBN([7]))
    x = torch.randint(0, 2, (20, 7)).double()
    windows = torch.zeros(7, 6)
    for i in range(7):
        windows[i, 6 - i :] = program.weight[i, :i]
    expected = Autoregression(program.bias, windows).log_prob(x)
    torch.testing.assert_close(program.log_prob(x), expected)
    assert program.parameter_count() == 7 + 21
    used = torch.autograd.grad(program.log_prob(x).sum(), program.weight)[0].count_nonzero()
    assert int(used) == 21


# Causality.


def influence(program):
    """(D, D) in the order of the program: how much the conditional of the row's site changes with the column's site."""
    order, x = program.order, program.generate(4)
    moved = (x + 0.1 * torch.rand_like(x)).requires_grad_()
    terms = program.conditionals(moved).log_prob(x).reshape(4, -1)
    rows = []
    for site in order.tolist():
        (gradient,) = torch.autograd.grad(terms[:, site].sum(), moved, retain_graph=True)
        rows.append(gradient.reshape(4, -1)[:, order].abs().sum(0))
    return torch.stack(rows)


def test_a_conditional_sees_all_earlier_sites_and_no_others(program):
    found = influence(program)
    assert found.triu().count_nonzero() == 0
    assert bool((found[torch.ones_like(found).tril(-1).bool()] > 0).all())


def test_orders():
    for cls in (FVSBN, NADE, RNADE):
        assert cls([3, 2, 2]).order.tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
        drawn = cls([12], order="random", seed=1).order
        assert sorted(drawn.tolist()) == list(range(12))
        assert torch.equal(drawn, cls([12], order="random", seed=1).order)
        assert not torch.equal(drawn, cls([12], order="random", seed=2).order)


# Draws.


@pytest.mark.parametrize("known", [0, 1, 0.5, 1.0])
def test_fast_completion_is_the_naive_one(program, known):
    sites = program.event_shape.numel()
    known = int(known * sites) if isinstance(known, float) else known
    noise = torch.rand(8, sites, program.likelihood.noise)
    x = program.generate(8)
    kept = torch.zeros(sites, dtype=torch.bool)
    kept[program.order[:known]] = True
    start = (x.reshape(8, -1) * kept).reshape(x.shape)
    fast = program.continue_from(start, known, None, noise)
    torch.testing.assert_close(fast, program.continue_naively(start, known, None, noise))
    torch.testing.assert_close(fast.reshape(8, -1)[:, kept], x.reshape(8, -1)[:, kept], atol=0, rtol=0)
    with pytest.raises(ShapeError, match="between 0"):
        program.complete(x, sites + 1)


@pytest.mark.parametrize(
    "build",
    [lambda: FVSBN([5]), lambda: NADE([5], 10), lambda: NADE([5], 10, order="random", seed=1)],
    ids=["fvsbn", "nade", "nade-random"],
)
def test_draws_follow_the_density(build):
    program = perturbed(build(), 1.0)
    powers = 2 ** torch.arange(4, -1, -1).double()
    counts = torch.bincount((program.generate(20_000) @ powers).long(), minlength=32).double()
    assert agrees(counts, program.log_prob(states(program.event_shape)).exp().detach())
    # The test would notice another program of the same kind.
    other = perturbed(build(), 1.0)
    assert not agrees(counts, other.log_prob(states(other.event_shape)).exp().detach())


def test_draws_of_rnade_follow_the_density():
    """Each coordinate through its conditional distribution function is uniform."""
    program = perturbed(RNADE([3], 10, likelihood=gaussians(3)), 0.3)
    x = program.generate(5000)
    with torch.no_grad():
        log_weights, loc, scale = program.likelihood.parts(program.outputs(x))
        levels = (log_weights.exp() * torch.special.ndtr((x.unsqueeze(-1) - loc) / scale)).sum(-1)
    for i in range(3):
        assert stats.kstest(levels[:, i].numpy(), "uniform").pvalue > FAILURE_RATE / 3


# Training.


@pytest.mark.parametrize("name", ["fvsbn-random", "nade-random", "nade-levels", "rnade", "rnade-grey"])
def test_contract(name):
    check_program(ALL[name]())


@pytest.mark.parametrize("make", [lambda: FVSBN([6]), lambda: NADE([6], 20, order="random")], ids=["fvsbn", "nade"])
def test_training_starts_at_independent_sites_and_finds_structure(make):
    """Copies of two fair bits: 2 log 2 nats, where independent sites need 6 log 2."""
    x = torch.randint(0, 2, (400, 2)).double().repeat(1, 3)
    program = make()
    with torch.no_grad():
        program.initialise(x)
        independent = torch.distributions.Bernoulli((x.sum(0) + 0.5) / 401).log_prob(x).sum(-1)
        torch.testing.assert_close(program.log_prob(x), independent)
    result = fit(program, x, "svi", lr=1e-1, steps=400, batch_size=100, compile="never")
    with torch.no_grad():
        assert -float(result.program.log_prob(x).mean()) < 1.7


def test_rnade_learns_a_dependence():
    x = torch.randn(1000, 1)
    x = torch.cat([x, x + 0.1 * torch.randn(1000, 1)], -1)
    result = fit(
        RNADE([2], 20, likelihood=gaussians(2)).double(), x, "svi", lr=1e-2, steps=400, batch_size=100, compile="never"
    )
    with torch.no_grad():
        nats = -float(result.program.log_prob(x).mean())
    independent = 2 * (0.5 * math.log(2 * math.pi) + 0.5)
    assert nats < independent - 1.5  # the two share log 10 = 2.3 nats


@pytest.mark.parametrize("cls", [FVSBN, NADE, RNADE])
def test_presets_build_and_their_fits_have_known_options(cls):
    for preset in cls.presets.values():
        assert cls([3], **preset.program).event_shape == (3,)
        make_method(preset.method, **preset.fit)


def test_wrong_options_are_refused():
    for cls in (NADE, RNADE):
        with pytest.raises(OptionError, match="hidden"):
            cls(hidden=0)
        with pytest.raises(UnknownNameError, match="relu"):
            cls(activation="relo")
        with pytest.raises(UnknownNameError, match="bernoulli"):
            cls(likelihood="bernouli")
    with pytest.raises(OptionError, match="components"):
        RNADE(likelihood=gaussians(0))
    with pytest.raises(OptionError, match="weights for each site"):
        PixelRNN(likelihood={"name": "normal", "scale": "pixel"})
    for cls in (FVSBN, NADE, RNADE):
        with pytest.raises(UnknownNameError, match="raster"):
            cls(order="rastor")
