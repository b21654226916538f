"""Flows: densities that integrate to one, exact inverses and Jacobians, and honest bounds on the mass of a cell."""

from __future__ import annotations

import copy
import itertools
import math
from functools import partial

import pytest
import scipy.stats as stats
import torch
from pyro import poutine

from inference import fit
from inference.evaluation.estimates import elbo
from inference.evaluation.likelihood import log_likelihood
from tests.conftest import FAILURE_RATE
from zoo.datasets import Data
from zoo.errors import OptionError, ShapeError, UnknownNameError
from zoo.flows.coupling import Univariate, checkerboard, coupling_mlp, squeeze, unsqueeze
from zoo.flows.dequantised import CellGuide, Cells, DequantisedFlow, Rounded
from zoo.flows.maf import MAF
from zoo.flows.nice import NICE
from zoo.flows.realnvp import RealNVP
from zoo.flows.spline import NeuralSpline
from zoo.testing import check_program

CONV = {"network": "conv", "couplings": 2, "hidden": [4, 4]}
PLANE = {
    "nice": lambda: NICE(hidden=[8], activation="tanh"),
    "nice-normal": lambda: NICE(hidden=[8], activation="tanh", prior="normal"),
    "realnvp": lambda: RealNVP(hidden=[8], activation="tanh"),
    "maf": lambda: MAF(hidden=[8], activation="tanh"),
    "spline": lambda: NeuralSpline(layers=2, hidden=[8], activation="tanh"),
    "spline-autoregressive": lambda: NeuralSpline(layers=2, hidden=[8], activation="tanh", kind="autoregressive"),
}
LINE = {
    "maf": lambda: MAF([1]),
    "spline": lambda: NeuralSpline([1], layers=2, kind="autoregressive"),
}
MORE = {
    "nice-5": lambda: NICE([5]),
    "realnvp-5": lambda: RealNVP([5]),
    "realnvp-matrix": lambda: RealNVP([2, 3]),
    "maf-5": lambda: MAF([5], permutation="random"),
    "spline-5": lambda: NeuralSpline([5], permutation="random"),
    "realnvp-4x4": lambda: RealNVP([4, 4], **CONV),
    "realnvp-8x8": lambda: RealNVP([8, 8], scales=3, **CONV),
    "realnvp-1x4x4": lambda: RealNVP([1, 4, 4], **CONV),
    "realnvp-3x4x4": lambda: RealNVP([3, 4, 4], **CONV),
    "realnvp-one-scale": lambda: RealNVP([3, 5], scales=1, **CONV),
}
ALL = {**PLANE, **{f"{name}-1": make for name, make in LINE.items()}, **MORE}


def perturbed(program, size=0.3):
    """Away from the start, where every coupling is the identity; standardised by data that are not standard."""
    with torch.no_grad():
        for parameter in program.parameters():
            parameter.add_(size * torch.randn_like(parameter))
        if not isinstance(program, DequantisedFlow):
            program.initialise(0.7 + 1.3 * torch.randn(100, *program.event_shape))
    return program.eval()


def grid(dims, half, points):
    """Centres of cells of [-half, half]^dims, (points^dims, dims), and the volume of one."""
    edges = torch.linspace(-half, half, points + 1)
    centres = 0.5 * (edges[1:] + edges[:-1])
    return torch.cartesian_prod(*[centres] * dims).reshape(-1, dims), (2 * half / points) ** dims


@torch.no_grad()
def densities(program, x):
    return torch.cat([program.log_prob(part) for part in x.split(20_000)]).exp()


@pytest.mark.parametrize("name", ALL)
def test_contract(name):
    check_program(ALL[name]())


@torch.no_grad()
def reach(program):
    """Half of a square that holds all but nothing of the probability, however far a flow takes it."""
    return max(25.0, 1.6 * float(program.draw(4000).abs().max()))


@pytest.mark.parametrize("name", PLANE)
def test_integrates_to_one_in_the_plane(name):
    program = perturbed(PLANE[name]())
    x, volume = grid(2, reach(program), 1000)
    assert float(densities(program, x).sum() * volume) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("name", LINE)
def test_integrates_to_one_on_the_line(name):
    program = perturbed(LINE[name]())
    x, volume = grid(1, reach(program), 400_000)
    assert float(densities(program, x).sum() * volume) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_inverse(name):
    program = perturbed(ALL[name]())
    x = 2 * torch.randn(20, *program.event_shape)
    with torch.no_grad():
        z, _ = program.encode(x)
        assert z.shape == (20, program.event_shape.numel())
        back = program.decode(z)
        torch.testing.assert_close(program.encode(back)[0], z, rtol=1e-9, atol=1e-9)
        # Where the map is all but flat (singular values of 1e-11 occur) no arithmetic finds x again to many digits:
        # rounding errors of z, 4e-14 at most, count where they come out less than a million times as large.
        steep = (program.decode(z + 1e-12) - back).flatten(1).abs().amax(1) < 1e-6
        assert int(steep.sum()) >= 10
        torch.testing.assert_close(back[steep], x[steep], rtol=1e-7, atol=1e-7)
        assert not torch.allclose(z, x.flatten(1), atol=0.1), "the test is of the identity"


@pytest.mark.parametrize("name", ALL)
def test_jacobian(name):
    program = perturbed(ALL[name]())
    for x in torch.randn(3, *program.event_shape):
        _, log_det = program.encode(x[None])
        jacobian = torch.autograd.functional.jacobian(lambda x: program.encode(x[None])[0][0], x)
        exact = jacobian.reshape(x.numel(), x.numel()).slogdet().logabsdet
        torch.testing.assert_close(log_det[0], exact, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", PLANE)
def test_draws_follow_the_density(name):
    """Chi-square over the 8 x 8 parts of a square and what lies outside of it."""
    program, n = perturbed(PLANE[name]()), 20_000
    x, volume = grid(2, 4.0, 400)
    mass = densities(program, x).reshape(8, 50, 8, 50).sum((1, 3)).flatten() * volume
    draws = program.draw(n)
    inside = (draws.abs() < 4.0).all(-1)
    part = ((draws[inside] + 4.0).floor().clamp(0, 7) @ torch.tensor([8.0, 1.0])).long()
    observed = torch.cat([torch.bincount(part, minlength=64), (~inside).sum()[None]]).double()
    expected = n * torch.cat([mass, 1 - mass.sum()[None]])
    large = expected >= 5
    assert int(large.sum()) > 20
    observed = torch.cat([observed[large], observed[~large].sum()[None]])
    expected = torch.cat([expected[large], expected[~large].sum()[None]])
    statistic = ((observed - expected).square() / expected.clamp(min=1e-9))[expected > 1].sum()
    assert stats.chi2.sf(float(statistic), int((expected > 1).sum()) - 1) > FAILURE_RATE


def test_what_passes_a_coupling():
    coupling = coupling_mlp(Univariate("affine"), 5, [8])
    with torch.no_grad():
        for parameter in coupling.parameters():
            parameter.add_(torch.randn_like(parameter))
    x = torch.randn(4, 5)
    z, _ = coupling(x)
    assert torch.equal(z[:, :2], x[:, :2])
    assert bool((z[:, 2:] != x[:, 2:]).all())


def test_checkerboard_and_squeeze():
    assert checkerboard(2, 3, 0).int().tolist() == [[1, 0, 1], [0, 1, 0]]
    assert bool((checkerboard(4, 4, 0) ^ checkerboard(4, 4, 1)).all())
    x = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    y = squeeze(x)
    assert y.shape == (2, 12, 2, 3)
    assert torch.equal(y[:, :3], x[:, :, ::2, ::2])  # the first corner of every channel, then the second
    assert torch.equal(y[:, 3:6], x[:, :, ::2, 1::2])
    assert torch.equal(unsqueeze(y), x)


def test_every_pixel_reaches_the_coarsest_noise_and_none_is_left_as_it_was():
    program = perturbed(RealNVP([4, 4], **CONV))
    jacobian = torch.autograd.functional.jacobian(lambda x: program.encode(x)[0][0], torch.randn(1, 4, 4))
    by_noise = jacobian.reshape(16, 16) != 0
    assert bool(by_noise[8:].all())  # what is left at the last scale, a 2x2 image, sees all
    assert bool((by_noise.sum(1) > 1).all())


def test_a_program_that_was_used_can_be_copied():
    program = NeuralSpline()
    program.log_prob(torch.randn(3, 2)).sum().backward()
    again = copy.deepcopy(program)
    x = torch.randn(5, 2)
    assert torch.equal(program.log_prob(x), again.log_prob(x))


def test_data_set_the_scale():
    x = 100 + 20 * torch.randn(500, 2)
    one, other = NeuralSpline(), NeuralSpline()
    other.load_state_dict(one.state_dict())
    one.initialise(x)
    other.initialise((x - 100) / 20)
    torch.testing.assert_close(one.log_prob(x), other.log_prob((x - 100) / 20) - 2 * math.log(20))
    z = (x - one.loc) / one.scale
    torch.testing.assert_close(torch.stack([z.mean(0), z.std(0, correction=0)]), torch.tensor([[0.0] * 2, [1.0] * 2]))


@pytest.mark.parametrize("name", ["nice", "realnvp", "maf", "spline"])
def test_fits_two_clusters(name):
    """A single Gaussian has 0.5 log(2 pi e) + 0.5 log(2 pi e (1 + 9)) = 3.99 nats; the truth has 2.2."""
    torch.manual_seed(3)
    x = 0.5 * torch.randn(600, 2)
    x[:, 0] += 3 * torch.sign(torch.randn(600))
    program = {"nice": NICE, "realnvp": RealNVP, "maf": MAF, "spline": partial(NeuralSpline, layers=2)}[name]()
    fit(program, Data(x), "svi", steps=150, batch_size=100, lr=1e-2, compile="never")
    assert float(log_likelihood(program, Data(x)).values.mean()) > -2.9


# Dequantisation.

SMALL = {"guide_hidden": [8], "guide_couplings": 2}


def on_the_line(**options):
    chosen = {"flow": "neural-spline", "flow_options": {"layers": 2, "kind": "autoregressive"}, "values": 5, **SMALL}
    return perturbed(DequantisedFlow([1], **{**chosen, **options}))


def in_the_plane(**options):
    chosen = {"flow_options": {"couplings": 2, "hidden": [8], "activation": "tanh"}, "values": 3, **SMALL}
    return perturbed(DequantisedFlow([2], **{**chosen, **options}))


def exact_masses(program):
    """States (S, D) and their log masses by integration over the cells, in logit space."""
    d, values = program.event_shape.numel(), program.cells.values
    level = torch.arange(values) / (values - 1)
    nodes, weights = [], []
    for lower, upper in zip(*program.cells.edges(level), strict=True):
        ends = torch.logit(torch.stack([lower, upper])).clamp(-30, 30)
        points = 20_000 if d == 1 else 300
        edges = torch.linspace(float(ends[0]), float(ends[1]), points + 1)
        nodes.append(0.5 * (edges[1:] + edges[:-1]))
        weights.append((ends[1] - ends[0]) / points)
    states, masses = [], []
    for levels in itertools.product(range(values), repeat=d):
        u = torch.cartesian_prod(*[nodes[k] for k in levels]).reshape(-1, d)
        volume = math.prod(float(weights[k]) for k in levels)
        states.append([k / (values - 1) for k in levels])
        masses.append(densities(program.flow, u).sum() * volume)
    return torch.tensor(states), torch.stack(masses)


@pytest.mark.parametrize("how", ["uniform", "variational"])
@pytest.mark.parametrize(
    "options",
    [
        {"event_shape": [3, 4]},
        {"event_shape": [4, 4], "values": 256, "flow_options": CONV},
        {"event_shape": [1], "flow": "maf", "values": 5},
        {"event_shape": [4], "flow": "nice", "alpha": 0.0},
        {"event_shape": [3], "flow": "neural-spline", "values": 4},
    ],
    ids=str,
)
def test_contract_of_dequantised(how, options):
    check_program(DequantisedFlow(dequantisation=how, **{**SMALL, **options}))


@pytest.mark.parametrize("how", ["uniform", "variational"])
@pytest.mark.parametrize("make", [on_the_line, in_the_plane])
def test_bound_is_below_the_mass_and_importance_sampling_reaches_it(make, how):
    program = make(dequantisation=how)
    states, mass = exact_masses(program)
    assert float(mass.sum()) == pytest.approx(1.0, abs=1e-3)
    exact = mass.log()
    bound = elbo(program, program.guide, Data(states), 2000)
    error = bound.monte_carlo_error
    assert bool((bound.values < exact + 5 * error + 1e-3).all())
    assert float((exact - bound.values).mean()) > 1e-3
    sharp = log_likelihood(program, Data(states), particles=20_000)
    assert sharp.values.shape == exact.shape
    far = (sharp.values - exact).abs() > 5 * sharp.monte_carlo_error + 2e-3
    assert not bool(far.any()), (sharp.values, exact)


@pytest.mark.parametrize("make", [on_the_line, in_the_plane])
def test_generated_levels_follow_the_masses(make):
    program, n = make(), 20_000
    states, mass = exact_masses(program)
    x = program.generate(n)
    assert bool(program.support.check(x).all())
    observed = torch.stack([(x == state).all(-1).sum() for state in states])
    assert int(observed.sum()) == n
    expected = n * mass / mass.sum()
    kept = expected > 5
    assert int(kept.sum()) > 3
    statistic = ((observed - expected).square() / expected)[kept].sum()
    assert stats.chi2.sf(float(statistic), int(kept.sum()) - 1) > FAILURE_RATE


@pytest.mark.parametrize("how", ["uniform", "variational"])
def test_the_guide_integrates_to_one_in_its_cell(how):
    program = on_the_line(dequantisation=how)
    for level in torch.arange(5) / 4:
        lower, upper = (torch.logit(edge).clamp(-30, 30) for edge in program.cells.edges(level))
        edges = torch.linspace(float(lower), float(upper), 40_001)
        u = 0.5 * (edges[1:] + edges[:-1])[:, None]
        guide = CellGuide(level.expand(len(u), 1), program.cells, 1, flow=program.within)
        mass = guide.log_prob(u).detach().exp().sum() * (edges[1] - edges[0])
        assert float(mass) == pytest.approx(1.0, abs=1e-3)


def test_variational_guide_starts_uniform_and_its_density_is_that_of_its_draws():
    program = DequantisedFlow([3, 2], values=4)
    x = program.generate(7)
    uniform, variational = (CellGuide(x, program.cells, 2, flow=within) for within in (None, program.within))
    u = uniform.rsample()
    torch.testing.assert_close(uniform.log_prob(u), variational.log_prob(u))
    perturbed(program)
    with torch.no_grad():
        draws = CellGuide(x[:1].expand(20_000, 3, 2), program.cells, 2, flow=program.within).rsample()
        # E_q[q_uniform / q] = 1 where q covers the cell.
        one = CellGuide(x[:1], program.cells, 2, flow=program.within)
        ratio = (CellGuide(x[:1], program.cells, 2).log_prob(draws) - one.log_prob(draws)).exp()
    error = ratio.std() / len(ratio) ** 0.5
    assert abs(float(ratio.mean()) - 1.0) < 5 * float(error)
    assert float(ratio.std()) > 0.1


@pytest.mark.parametrize("alpha", [0.05, 1e-6, 0.0])
def test_no_draw_of_the_guide_leaves_its_cell_in_float32(alpha):
    x = torch.arange(256, dtype=torch.float32).repeat(400)[:, None] / 255
    for within in (None, perturbed(DequantisedFlow([1], flow="maf", **SMALL), 2.0).within.float()):
        with torch.no_grad():
            u = CellGuide(x, Cells(256, alpha), 1, flow=within).rsample()
        assert u.dtype == torch.float32
        assert bool(torch.isfinite(u).all())
        assert bool((Rounded(u, Cells(256, alpha), 1).log_prob(x) == 0).all())


def test_rounding_has_no_mass_outside_of_the_cell():
    u = torch.logit(torch.tensor([[0.2, 0.8]]))
    assert Rounded(u, Cells(2, 0.05), 1).sample().tolist() == [[0.0, 1.0]]
    rows = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    assert Rounded(u, Cells(2, 0.05), 1).log_prob(rows).tolist() == [0.0, -math.inf, -math.inf]


def test_training_raises_the_bound():
    torch.manual_seed(2)
    x = (torch.rand(200, 1) < 0.3).double().expand(200, 6).clone()  # all alike in a row: 0.61 nats; apart 3.67
    program = DequantisedFlow([6], flow_options={"hidden": [32]}, guide_hidden=[16], guide_couplings=1)
    fit(program, Data(x), "svi", steps=60, batch_size=50, lr=2e-2, compile="never")
    assert float(log_likelihood(program, Data(x[:50]), particles=200).values.mean()) > -2.5


def test_guide_sees_its_own_trace():
    program = DequantisedFlow([4])
    x = program.generate(5)
    trace = poutine.trace(program.guide).get_trace(x, None, None)
    model = poutine.trace(poutine.replay(program.model, trace=trace)).get_trace(x, None, None)
    assert float(model.nodes["x"]["fn"].log_prob(x).sum()) == 0.0
    assert trace.nodes["u"]["value"].shape == (5, 4)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: NICE([1]), ShapeError),
        (lambda: RealNVP([1]), ShapeError),
        (lambda: NeuralSpline([1]), ShapeError),
        (lambda: RealNVP([5, 4], **CONV), ShapeError),
        (lambda: RealNVP([4], **CONV), ShapeError),
        (lambda: RealNVP([4, 4], network="conv", hidden=[]), ShapeError),
        (lambda: RealNVP(couplings=0), OptionError),
        (lambda: MAF(hidden=[0]), OptionError),
        (lambda: NeuralSpline(bins=1), OptionError),
        (lambda: NeuralSpline(kind="linear"), UnknownNameError),
        (lambda: NICE(prior="cauchy"), UnknownNameError),
        (lambda: MAF(activation="sine"), UnknownNameError),
        (lambda: MAF(permutation="odd"), UnknownNameError),
        (lambda: RealNVP(network="rnn"), UnknownNameError),
        (lambda: DequantisedFlow(flow="glow"), UnknownNameError),
        (lambda: DequantisedFlow(flow_options={"coupling": 2}), UnknownNameError),
        (lambda: DequantisedFlow(dequantisation="gaussian"), UnknownNameError),
        (lambda: DequantisedFlow(values=1), OptionError),
        (lambda: DequantisedFlow(alpha=0.5), OptionError),
    ],
)
def test_wrong_options(make, error):
    with pytest.raises(error):
        make()
