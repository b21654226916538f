"""PixelRNN: who sees whom, densities that sum to one, the layers by their definition, sampling from memory."""

from __future__ import annotations

import itertools

import pytest
import scipy.stats as stats
import torch
from torch.nn.functional import conv1d, softplus

from inference import fit
from tests.conftest import FAILURE_RATE
from tests.inference.steps import both, ready, small
from tests.zoo.autoregressive.test_pixelcnn import SCALE, before, influence
from tests.zoo.densities import perturbed, states
from zoo.autoregressive.image_lstm import DiagonalBiLSTM, RowLSTM, skew, unskew
from zoo.autoregressive.incremental import Whole
from zoo.autoregressive.pixelrnn import CELLS, PixelRNN
from zoo.datasets import Data
from zoo.errors import OptionError, ShapeError, UnknownNameError
from zoo.testing import check_program

RGB = {"event_shape": [3, 4, 4], "likelihood": {"name": "levels", "values": 4}}
CASES = {
    "plain": {"event_shape": [4, 4]},
    "deep": {"event_shape": [3, 6], "layers": 3, "first_kernel": 3},
    "tall": {"event_shape": [5, 2], "layers": 2, "hidden": 5},
    "rgb": {**RGB, "layers": 2},
    "rgb uneven groups": {**RGB, "hidden": 4, "head_hidden": 31},
    "two channels of bits": {"event_shape": [2, 3, 3], "layers": 2},
    "mixture": {**RGB, "likelihood": {"name": "logistic-mixture", "values": 4, "components": 2}},
}
BOTH = [(cell, name) for cell in CELLS for name in CASES]


def build(cell, name, **options):
    """A program of CASES, away from its start so that nothing is zero by chance."""
    return perturbed(PixelRNN(**{**CASES[name], "cell": cell, **options}), SCALE)


# Who sees whom.


@pytest.mark.parametrize(("cell", "name"), BOTH)
def test_no_site_sees_itself_or_what_comes_after(cell, name):
    program = build(cell, name)
    moves = influence(program)
    assert moves.sum() > 0
    assert bool((moves[~before(program)] == 0).all())


@pytest.fixture
def _smooth(monkeypatch):
    """A rectified unit may be zero for all examples of a test, and pass no gradient."""
    monkeypatch.setattr("zoo.autoregressive.incremental.relu", softplus)


@pytest.mark.usefixtures("_smooth")
@pytest.mark.parametrize("name", CASES)
def test_diagonals_see_every_site_before(name):
    program = build("diagonal", name)
    assert bool((influence(program)[before(program)] > 0).all())


@pytest.mark.usefixtures("_smooth")
def test_one_diagonal_layer_and_the_least_first_kernel_see_every_pixel_before():
    """The last pixel of the row above too, which no map within the image sees in time."""
    program = build("diagonal", "plain", event_shape=[5, 6], first_kernel=3)
    assert bool((influence(program)[before(program)] > 0).all())


@pytest.mark.usefixtures("_smooth")
@pytest.mark.parametrize(("layers", "kernel"), [(1, 3), (2, 3), (1, 5), (3, 5)])
def test_rows_see_a_triangle(layers, kernel):
    """d rows up: d - 1 columns to the right and d + 1 for each layer's own row to the left, beyond the first kernel."""
    program = build("row", "plain", event_shape=[5, 9], layers=layers, first_kernel=kernel)
    half, sites = kernel // 2, list(itertools.product(range(5), range(9)))

    def sees(a, b):
        up, right = a[0] - b[0], b[1] - a[1]
        return -(up + layers + half) <= right <= (up - 1 + half if up else -1) and up >= 0

    expected = torch.tensor([[sees(a, b) for b in sites] for a in sites])
    assert bool((expected < before(program)).any()), "this image shows no limit of the triangle"
    assert torch.equal(influence(program, 8) > 0, expected)


@pytest.mark.usefixtures("_smooth")
@pytest.mark.parametrize("cell", CELLS)
def test_channels_of_a_pixel_follow_each_other(cell):
    """Pixel by pixel, as counted by hand: G sees R, B sees both, and all see all channels of the pixel before."""
    seen = influence(build(cell, "rgb", event_shape=[3, 1, 2])).reshape(3, 2, 3, 2) > 0  # (channel, pixel) by the same
    within = torch.tensor([[False, False, False], [True, False, False], [True, True, False]])
    for pixel in range(2):
        assert torch.equal(seen[:, pixel, :, pixel], within)
    assert bool(seen[:, 1, :, 0].all())
    assert not bool(seen[:, 0, :, 1].any())


# Densities.


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain", {"event_shape": [3, 4]}),
        ("deep", {"event_shape": [4, 3]}),
        ("plain", {"event_shape": [12, 1]}),
        ("deep", {"event_shape": [1, 12]}),
        ("two channels of bits", {"event_shape": [3, 2, 2]}),
        ("rgb", {"event_shape": [3, 1, 2]}),
        ("rgb", {"event_shape": [3, 2, 1]}),
        ("mixture", {"event_shape": [3, 1, 2]}),
    ],
)
def test_probabilities_sum_to_one(cell, name, options):
    program = build(cell, name, **options)
    x = states(program.event_shape, getattr(program.likelihood, "values", 2))
    assert len(x) == 4096
    assert float(program.log_prob(x).detach().logsumexp(0)) == pytest.approx(0.0, abs=1e-10)


def test_reals_integrate_to_one():
    line = torch.linspace(-12, 12, 241)
    x = torch.cartesian_prod(line, line).reshape(-1, 1, 2)
    for cell in CELLS:
        program = perturbed(PixelRNN([1, 2], cell, likelihood={"name": "gaussian-mixture", "components": 2}), SCALE)
        mass = program.log_prob(x).exp().sum() * (line[1] - line[0]) ** 2
        assert float(mass.detach()) == pytest.approx(1.0, abs=1e-6)


# The layers by their definition.


def lstm(gates, cell):
    out, forget, take, content = gates.chunk(4, 1)
    cell = forget.sigmoid() * cell + take.sigmoid() * content.tanh()
    return out.sigmoid() * cell.tanh(), cell


def test_row_lstm_is_a_convolution_along_the_row_above():
    layer, x = perturbed(RowLSTM(6, 4), SCALE), torch.randn(2, 6, 4, 5)
    weight = layer.state.weight.unflatten(1, (3, 4)).mT  # (4 h, h, 3)
    hidden = cell = torch.zeros(2, 4, 5)
    rows = []
    for row in layer.look(x).unbind(2):
        hidden, cell = lstm(row + conv1d(hidden, weight, padding=1), cell)
        rows.append(hidden)
    torch.testing.assert_close(layer(Whole(x), x), x + layer.widen(torch.stack(rows, 2)), rtol=1e-10, atol=1e-12)


def test_diagonal_lstm_goes_from_pixel_to_pixel():
    """Two plain LSTMs over a grid, one from each side; what the second says of the row above is added."""
    layer, x = perturbed(DiagonalBiLSTM(6, 4), SCALE), torch.randn(2, 6, 4, 5)
    nothing = torch.zeros(2, 4)
    total = torch.zeros(2, 4, 4, 5)
    halves = layer.look(x).chunk(2, 1)
    for direction, gates, sign in ((layer.left, halves[0], 1), (layer.right, halves[1], -1)):
        found = {}
        for row, column in itertools.product(range(4), range(5)[::sign]):
            above, _ = found.get((row - 1, column), (nothing, nothing))
            beside, cell = found.get((row, column - sign), (nothing, nothing))
            passed = direction(torch.cat([above, beside], 1))
            found[row, column] = lstm(gates[:, :, row, column] + passed, cell)
        for (row, column), (hidden, _) in found.items():
            lower = row if sign == 1 else row + 1
            if lower < 4:
                total[:, :, lower, column] += hidden
    torch.testing.assert_close(layer(Whole(x), x), x + layer.widen(total), rtol=1e-10, atol=1e-12)


def test_skewing():
    x = torch.arange(1.0, 7.0).reshape(2, 3, 1)
    assert skew(x)[..., 0].tolist() == [[1, 2, 3, 0], [0, 4, 5, 6]]
    for shape in ((2, 5, 3, 4), (1, 1, 7, 2), (6, 1, 1)):
        x = torch.randn(shape)
        assert torch.equal(unskew(skew(x)), x)


# Draws.


@pytest.mark.parametrize(("cell", "name"), BOTH)
def test_sampling_from_memory_is_sampling_by_whole_passes(cell, name):
    program = build(cell, name)
    sites = program.event_shape.numel()
    noise = torch.rand(3, sites, program.likelihood.noise)
    x = program.generate(3)
    for known in (0, 1, sites // 2, sites // 2 + 2, sites - 1, sites):
        start = torch.zeros(3, sites)
        start[:, program.order[:known]] = x.reshape(3, -1)[:, program.order[:known]]
        with torch.no_grad():
            fast = program.continue_from(start.reshape(x.shape), known, None, noise)
            naive = program.continue_naively(start.reshape(x.shape), known, None, noise)
        torch.testing.assert_close(fast, naive, rtol=0, atol=1e-12)
        assert torch.equal(program.complete(x, known, None, noise), fast)
    assert torch.equal(program.complete(x, sites, None, noise), x)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain", {"event_shape": [2, 3]}),
        ("rgb", {"event_shape": [3, 1, 1], "likelihood": {"name": "levels", "values": 3}}),
    ],
)
def test_samples_follow_the_density(cell, name, options):
    """Chi-square over all states, of expected counts of 5 and more; the rare ones together."""
    program = build(cell, name, **options)
    x, n = states(program.event_shape, getattr(program.likelihood, "values", 2)), 20_000
    expected = n * program.log_prob(x).exp().detach()
    drawn = program.generate(n).flatten(1)
    observed = torch.stack([(drawn == state).all(1).sum() for state in x.flatten(1)]).to(expected)
    assert observed.sum() == n
    many = expected >= 5
    observed, expected = (torch.cat([each[many], each[~many].sum(0, keepdim=True)]) for each in (observed, expected))
    if expected[-1] < 5:
        observed, expected = observed[:-1], expected[:-1]
    statistic = float(((observed - expected) ** 2 / expected).sum())
    assert len(expected) > 2
    assert stats.chi2.sf(statistic, len(expected) - 1) > FAILURE_RATE


# The program.


@pytest.mark.parametrize(("cell", "name"), [(cell, name) for cell in CELLS for name in ("plain", "rgb", "mixture")])
def test_contract(cell, name):
    check_program(PixelRNN(**{**CASES[name], "cell": cell}))


@pytest.mark.parametrize("cell", CELLS)
def test_learns_that_pixels_are_alike(cell):
    """Images of one value: one bit in all. Independent pixels of probability 1/2 have 16."""
    program = PixelRNN([4, 4], cell)
    x = torch.randint(2, (200, 1, 1)).double().expand(200, 4, 4).clone()
    fit(program, Data(x), "svi", steps=80, batch_size=50, lr=2e-2, seed=0)
    program.eval()
    bits = -program.log_prob(x).mean() / torch.tensor(2.0).log()
    assert 0.9 < float(bits.detach()) < 1.5


def test_traced_steps_are_those_of_python():
    """Of the cell that the catalogue does not build; the other has its turn with all programs."""
    program, data = small("pixelrnn", event_shape=[2, 3], cell="row", layers=2)
    for ours, theirs in zip(*both(ready(program, data, batch_size=5)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"event_shape": [12]}, ShapeError, "needs images"),
        ({"cell": "diagnal"}, UnknownNameError, "diagonal"),
        ({"likelihood": "level"}, UnknownNameError, "levels"),
        ({"likelihood": {"name": "levels", "values": 1}}, OptionError, "values must be at least 2"),
        ({"layers": 0}, OptionError, "layers must be at least 1"),
        ({"hidden": 0}, OptionError, "hidden must be at least 1"),
        ({"first_kernel": 4}, OptionError, "must be odd"),
        ({"first_kernel": 1}, OptionError, "at least 3"),
        ({"event_shape": [3, 4, 4], "hidden": 2}, OptionError, "at least as many feature maps"),
    ],
)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        PixelRNN(**options)
