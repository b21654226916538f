"""PixelCNN, gated PixelCNN, PixelCNN++: who sees whom, densities that sum to one, sampling from memory."""

from __future__ import annotations

import itertools

import pytest
import scipy.stats as stats
import torch
from torch.nn.functional import conv2d

from tests.conftest import FAILURE_RATE
from tests.zoo.densities import perturbed, states
from zoo.autoregressive.gated_pixelcnn import GatedPixelCNN
from zoo.autoregressive.incremental import Whole
from zoo.autoregressive.masked_conv import MaskedConv2d, channel_mask
from zoo.autoregressive.pixelcnn import PixelCNN
from zoo.autoregressive.pixelcnn_plus import PixelCNNPlusPlus
from zoo.distributions import DiscretizedLogistic
from zoo.errors import OptionError, ShapeError, UnknownNameError
from zoo.testing import check_program

RGB = {"event_shape": [3, 4, 4], "likelihood": {"name": "levels", "values": 4}}
LOGISTIC = {"event_shape": [3, 4, 4], "likelihood": {"name": "logistic-mixture", "values": 4, "components": 3}}
CASES = {
    "pixelcnn": (PixelCNN, {"event_shape": [4, 4]}),
    "pixelcnn small kernels": (PixelCNN, {"event_shape": [3, 6], "first_kernel": 3, "blocks": 7}),
    "pixelcnn rgb": (PixelCNN, {**RGB, "hidden": 10}),
    "pixelcnn rgb bits": (PixelCNN, {"event_shape": [3, 4, 4]}),
    "gated": (GatedPixelCNN, {"event_shape": [4, 4]}),
    "gated small kernels": (GatedPixelCNN, {"event_shape": [3, 6], "first_kernel": 3, "layers": 6}),
    "gated rgb": (GatedPixelCNN, {**RGB, "features": 20}),
    "gated rgb logistic": (GatedPixelCNN, {**LOGISTIC, "kernel": 5}),
    "gated rgb classes": (GatedPixelCNN, {**RGB, "classes": 3, "features": 18}),
    "gated categories": (
        GatedPixelCNN,
        {"event_shape": [2, 3, 4], "features": 12, "likelihood": {"name": "categorical", "values": 3}},
    ),
    "plus": (PixelCNNPlusPlus, {"event_shape": [4, 6], "features": 4}),
    "plus odd": (PixelCNNPlusPlus, {"event_shape": [5, 7], "features": 4, "scales": 3}),
    "plus one scale": (PixelCNNPlusPlus, {"event_shape": [4, 4], "features": 4, "scales": 1, "blocks": 2}),
    "plus levels": (
        PixelCNNPlusPlus,
        {"event_shape": [4, 4], "features": 4, "likelihood": {"name": "levels", "values": 5}},
    ),
    "plus rgb": (PixelCNNPlusPlus, {**LOGISTIC, "features": 4}),
}


SCALE = 0.1
"""Units that rectify are off, or probabilities all but certain, further from the start."""


def build(name, **options):
    """A program of CASES, away from its start so that nothing is zero by chance."""
    cls, given = CASES[name]
    return perturbed(cls(**{**given, **options}), SCALE)


def before(program):
    """[i, j]: whether site j comes before site i."""
    rank = program.order.argsort()
    return rank[None, :] < rank[:, None]


def influence(program, rows=6):
    """[i, j]: how much the conditional of site i moves with the value of site j."""
    context = program.example_context(rows)
    fixed = program.generate(rows, context)
    x = (fixed + 0.1 * torch.rand_like(fixed)).requires_grad_()
    found = program.conditionals(x, context).log_prob(fixed).reshape(rows, -1).sum(0)
    grads = [torch.autograd.grad(each, x, retain_graph=True)[0].abs().sum(0).flatten() for each in found]
    return torch.stack(grads)


@pytest.mark.parametrize("name", [name for name in CASES if name != "gated categories"])
def test_no_site_sees_itself_or_what_comes_after(name):
    program = build(name)
    moves = influence(program)
    assert moves.sum() > 0
    assert bool((moves[~before(program)] == 0).all())


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("pixelcnn small kernels", "gated categories")])
def test_every_site_before_is_seen(name):
    """The gated PixelCNN and PixelCNN++ have no blind spot; PixelCNN has none within its first kernel."""
    program = build(name)
    assert bool((influence(program)[before(program)] > 0).all())


def test_categories_are_seen_one_by_one_and_never_from_behind():
    """They carry no gradients, so each site is set to each value in turn: what moves is what comes after it."""
    program = build("gated categories")
    x = program.generate(4)
    assert program.see(x).shape == (4, 6, 3, 4)
    outputs, order = program.outputs(x).detach().flatten(1, 3), program.order.tolist()
    for at, site in enumerate(order):
        other = x.clone().flatten(1)
        other[:, site] = (other[:, site] + 1) % 3
        moved = (program.outputs(other.reshape(x.shape)).detach().flatten(1, 3) - outputs).abs().amax((0, 2))
        assert bool((moved[order[: at + 1]] == 0).all())
        assert bool((moved[order[at + 1 :]] > 0).all())
    flat = build("gated categories", event_shape=[2, 2])
    every = torch.cartesian_prod(*[torch.arange(3.0)] * 4).reshape(-1, 2, 2)
    assert float(flat.log_prob(every).logsumexp(0).detach()) == pytest.approx(0.0, abs=1e-10)


def test_blind_spot_of_pixelcnn():
    """A layer goes one up and one right, or left: a rows up, at most a - 1 columns beyond the first kernel's half."""
    program = build("pixelcnn small kernels")
    sites = list(itertools.product(range(3), range(6)))
    sees = [
        [(b[0] < a[0] and b[1] - a[1] <= 1 + (a[0] - b[0] - 1)) or (b[0] == a[0] and b[1] < a[1]) for b in sites]
        for a in sites
    ]
    expected = torch.tensor(sees)
    assert bool((expected < before(program)).any()), "this image shows no blind spot"
    assert torch.equal(influence(program) > 0, expected)


@pytest.mark.parametrize("kind", ["A", "B"])
@pytest.mark.parametrize("groups", [1, 3])
def test_channel_mask(kind, groups):
    mask = channel_mask(kind, 2 * groups, 5 * groups, groups, (3, 5))
    assert mask.shape == (2 * groups, 5 * groups, 3, 5)
    assert bool(mask[:, :, 0].all())
    assert not bool(mask[:, :, 2].any())
    assert bool(mask[:, :, 1, :2].all())
    assert not bool(mask[:, :, 1, 3:].any())
    for out, seen in itertools.product(range(groups), range(groups)):
        block = mask[2 * out : 2 * out + 2, 5 * seen : 5 * seen + 5, 1, 2]
        assert bool((block == (seen < out if kind == "A" else seen <= out)).all())


@pytest.mark.parametrize("kernel", [1, 5, (1, 5), (5, 3)])
def test_masked_convolution_is_the_convolution_with_a_masked_kernel(kernel):
    layer = MaskedConv2d(3, 12, kernel, "B", groups=3, copies=2)
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    weight = torch.zeros(12, 3, height, width)
    weight[:, :, : layer.weight.shape[2], : layer.weight.shape[3]] = layer.weight.detach()
    weight *= channel_mask("B", 6, 3, 3, kernel).repeat(2, 1, 1, 1)
    x = torch.randn(2, 3, 6, 7)
    torch.testing.assert_close(
        layer(x), conv2d(x, weight, layer.bias, padding=(height // 2, width // 2)), rtol=1e-10, atol=1e-12
    )


SUMS = [
    ("pixelcnn", {"event_shape": [3, 4]}),
    ("pixelcnn", {"event_shape": [3, 2, 2]}),
    ("pixelcnn", {"event_shape": [3, 4], "likelihood": {"name": "logistic-mixture", "values": 2}}),
    ("gated", {"event_shape": [3, 4]}),
    ("gated", {"event_shape": [3, 2, 2]}),
    ("gated", {"event_shape": [12, 1], "classes": 3}),
    ("plus", {"event_shape": [3, 4]}),
    ("plus", {"event_shape": [1, 12], "scales": 3}),
    ("pixelcnn rgb", {"event_shape": [3, 1, 2]}),
    ("gated rgb", {"event_shape": [3, 2, 1]}),
    ("gated rgb logistic", {"event_shape": [3, 1, 2]}),
    ("gated rgb classes", {"event_shape": [3, 1, 2]}),
    ("plus rgb", {"event_shape": [3, 1, 2]}),
    ("plus rgb", {"event_shape": [2, 3, 1]}),
]


@pytest.mark.parametrize(("name", "options"), SUMS)
def test_probabilities_sum_to_one(name, options):
    program = build(name, **options)
    values = getattr(program.likelihood, "values", 2)
    x = states(program.event_shape, values)
    assert len(x) == 4096
    contexts = program.example_context(3)
    for context in [None] if contexts is None else contexts:
        rows = None if context is None else context.expand(len(x), -1)
        assert float(program.log_prob(x, rows).logsumexp(0).detach()) == pytest.approx(0.0, abs=1e-10)
    if contexts is not None:
        one, other = (program.log_prob(x[:5], context.expand(5, -1)) for context in contexts[:2])
        assert not torch.allclose(one, other)


def test_reals_integrate_to_one():
    program = perturbed(PixelCNN([1, 2], likelihood={"name": "gaussian-mixture", "components": 2}), SCALE)
    line = torch.linspace(-12, 12, 241)
    x = torch.cartesian_prod(line, line).reshape(-1, 1, 2)
    mass = program.log_prob(x).exp().sum() * (line[1] - line[0]) ** 2
    assert float(mass.detach()) == pytest.approx(1.0, abs=1e-6)


def test_plus_is_one_mixture_for_all_channels():
    """The product of the channels' conditionals is the paper's joint mixture, written down directly."""
    program = build("plus rgb")
    x = program.generate(5)
    run = Whole(program.see(x))
    program.above(run, None)
    logits, own, coefficients = program.beside(run, None).movedim(1, -1).split([3, 18, 9], -1)
    r, g, b = (2 * x.unsqueeze(-1) - 1).unbind(1)
    (mr, sr), (mg, sg), (mb, sb) = (part.chunk(2, -1) for part in own.chunk(3, -1))
    on_r, on_r2, on_g = coefficients.tanh().chunk(3, -1)
    total = logits.log_softmax(-1)
    for value, mean, scale in ((r, mr, sr), (g, mg + on_r * r, sg), (b, mb + on_r2 * r + on_g * g, sb)):
        scale = scale.clamp(min=-7).exp()
        logistic = DiscretizedLogistic((mean + 1) / 2, scale / 2, 4, validate_args=False)
        total = total + logistic.log_prob((value + 1) / 2)
    expected = total.logsumexp(-1).sum((1, 2))
    torch.testing.assert_close(program.log_prob(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_sampling_from_memory_is_sampling_by_whole_passes(name):
    program = build(name)
    sites = program.event_shape.numel()
    context = program.example_context(3)
    noise = torch.rand(3, sites, program.likelihood.noise)
    x = program.generate(3, context)
    for known in (0, 1, sites // 2, sites // 2 + 2, sites - 1, sites):
        start = torch.zeros(3, sites)
        start[:, program.order[:known]] = x.reshape(3, -1)[:, program.order[:known]]
        with torch.no_grad():
            fast = program.continue_from(start.reshape(x.shape), known, context, noise)
            naive = program.continue_naively(start.reshape(x.shape), known, context, noise)
        torch.testing.assert_close(fast, naive, rtol=0, atol=1e-12)
        assert torch.equal(program.complete(x, known, context, noise), fast)
    assert torch.equal(program.complete(x, sites, context, noise), x)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pixelcnn", {"event_shape": [2, 2]}),
        ("gated", {"event_shape": [2, 2], "classes": 2}),
        ("plus", {"event_shape": [2, 2]}),
        ("plus rgb", {"event_shape": [3, 1, 1], "likelihood": {**LOGISTIC["likelihood"], "values": 3}}),
        ("gated rgb", {"event_shape": [3, 1, 1], "likelihood": {"name": "levels", "values": 3}}),
    ],
)
def test_samples_follow_the_density(name, options):
    """Chi-square over all states, of expected counts of 5 and more; the rare ones together."""
    program = build(name, **options)
    x, n = states(program.event_shape, getattr(program.likelihood, "values", 2)), 20_000
    context = program.example_context(2)
    label = None if context is None else context[1]
    expected = n * program.log_prob(x, None if label is None else label.expand(len(x), -1)).exp().detach()
    drawn = program.generate(n, None if label is None else label.expand(n, -1)).flatten(1)
    observed = torch.stack([(drawn == state).all(1).sum() for state in x.flatten(1)]).to(expected)
    assert observed.sum() == n
    many = expected >= 5
    observed, expected = (torch.cat([each[many], each[~many].sum(0, keepdim=True)]) for each in (observed, expected))
    if expected[-1] < 5:
        observed, expected = observed[:-1], expected[:-1]
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert len(expected) > 2
    assert stats.chi2.sf(float(statistic), len(expected) - 1) > FAILURE_RATE


@pytest.mark.parametrize(
    "name", ["pixelcnn rgb", "gated rgb logistic", "gated rgb classes", "plus odd", "plus rgb", "plus levels"]
)
def test_contract_of_what_the_catalogue_does_not_build(name):
    cls, options = CASES[name]
    check_program(cls(**options))


@pytest.mark.parametrize("name", CASES)
def test_starts_at_independent_pixels(name):
    """With a head of no weight, the first channel is what fits the data at an average position."""
    program = build(name)
    context = program.example_context(50)
    x = program.generate(50, context)
    with torch.no_grad():
        program.initialise(x, context)
        program.head.weight.zero_()
        found = program.outputs(x, context).reshape(50, program.image[0], -1, program.likelihood.size)[:, 0]
        wanted = program.likelihood.initial(x).reshape(program.image[0], -1, program.likelihood.size)[0].mean(0)
    mixture = getattr(program.likelihood, "components", 0)
    size = slice(mixture, None)  # a mixture's equal weights may have another constant
    torch.testing.assert_close(found[..., size], wanted[size].expand_as(found[..., size]))
    for column in range(1, mixture):
        torch.testing.assert_close(found[..., column], found[..., 0])


def test_parameters_are_counted_without_the_masked_ones():
    """By hand: each group has twice one feature map between blocks, one inside; four pixels lie in a 3x3 mask."""
    program = PixelCNN([3, 4, 4], hidden=3, blocks=1, head_hidden=3, first_kernel=3)
    start = 6 * 3 * 4 + 2 * (0 + 1 + 2) + 6
    narrow, look, widen = 2 * (1 + 2 + 3) + 3, 3 * 3 * 4 + (1 + 2 + 3) + 3, 2 * (1 + 2 + 3) + 6
    mix, head = 2 * (1 + 2 + 3) + 3, (1 + 2 + 3) + 3
    assert program.parameter_count() == start + narrow + look + widen + mix + head


def test_dropout_is_for_training_alone():
    program = build("plus", dropout=0.5)
    x = program.generate(4)
    torch.testing.assert_close(program.train().log_prob(x), program.eval().log_prob(x), rtol=0, atol=0)
    assert not torch.allclose(program.training_log_prob(x), program.training_log_prob(x))
    assert not torch.allclose(program.training_log_prob(x), program.log_prob(x))
    still = build("plus", dropout=0.0)
    assert torch.equal(still.training_log_prob(x), still.log_prob(x))


def test_for_data_reads_the_classes():
    labels = torch.eye(5)[torch.arange(10) % 5]
    program = GatedPixelCNN.for_data(torch.zeros(10, 4, 4), labels)
    assert program.classes == 5
    program.check(torch.zeros(10, 4, 4), labels)
    assert GatedPixelCNN.for_data(torch.zeros(10, 4, 4)).example_context(2) is None


@pytest.mark.parametrize("cls", [PixelCNN, GatedPixelCNN, PixelCNNPlusPlus])
def test_wrong_options(cls):
    with pytest.raises(ShapeError, match="needs images"):
        cls([12])
    with pytest.raises(UnknownNameError, match="levels"):
        cls([4, 4], likelihood="level")
    with pytest.raises(OptionError, match="values must be at least 2"):
        cls([4, 4], likelihood={"name": "levels", "values": 1})


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (PixelCNN, {"blocks": 0}, "blocks must be at least 1"),
        (PixelCNN, {"first_kernel": 4}, "must be odd"),
        (PixelCNN, {"event_shape": [3, 4, 4], "hidden": 2}, "at least as many feature maps"),
        (GatedPixelCNN, {"layers": 0}, "layers must be at least 1"),
        (GatedPixelCNN, {"classes": -1}, "classes must be at least 0"),
        (GatedPixelCNN, {"first_kernel": 1}, "at least 3"),
        (GatedPixelCNN, {"kernel": 2}, "must be odd"),
        (PixelCNNPlusPlus, {"scales": 0}, "scales must be at least 1"),
        (PixelCNNPlusPlus, {"dropout": 1.0}, r"in \[0, 1\)"),
        (PixelCNNPlusPlus, {"event_shape": [3, 4, 4]}, "need likelihood='logistic-mixture'"),
    ],
)
def test_options_that_make_no_network(cls, options, message):
    with pytest.raises(OptionError, match=message):
        cls(**options)


def test_unknown_mask():
    with pytest.raises(UnknownNameError, match="mask"):
        channel_mask("C", 1, 1)
    with pytest.raises(OptionError, match="equal sets"):
        MaskedConv2d(3, 7, 3, "A", 3, copies=2)
