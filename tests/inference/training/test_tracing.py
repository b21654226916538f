"""The traced operations of a step, run one by one: the same numbers as the step in Python."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from inference.training.compiled import State, reference
from inference.training.tracing import trace_step
from tests.inference.steps import FEWER, SUMMED_OUT, both, bounds, ready, small
from tests.inference.training.lines import NAMES, Line, agree, line_data, marked
from zoo import catalogue
from zoo.datasets import Data

BOUNDS = [(name, bound) for name in NAMES for bound in bounds(name)]


# Quick to trace, and between them: global and local sites, contexts, enumeration, networks.
FEW = ("eight-schools", "gaussian-mixture", "hmm", "vae")


def options(name: str, bound: str) -> dict:
    """Options of an SVI step: minibatches, except where the bound does not allow them."""
    tied = any(site.is_global for site in catalogue.create(name).sites().values())
    several = {"particles": 3} if bound in ("iwae", "score") else {}
    # Adam is thirty operations for each parameter, most of the step of a network; plain steps show the gradient itself.
    plain = {} if name in FEW else {"optimizer": "sgd", "lr": 1e-4}
    return {"elbo": bound, "batch_size": 12 if bound == "iwae" and tied else 5, **several, **plain}


@pytest.mark.parametrize(("name", "bound"), marked(BOUNDS, lambda name, bound: bound == "auto" or name in FEW))
def test_every_bound_of_every_program(name, bound):
    program, data = small(name)
    agree(both(ready(program, data, **options(name, bound))))


def test_running_averages_of_batch_normalisation_are_traced():
    """They are buffers, which both ways must leave alike, as torch's kernel would."""
    program, data = small("dcgan")
    layers = [m for m in program.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert layers
    for layer in layers:
        layer.momentum = 0.7  # not the 0.1 that everything has
    before = [layer.running_var.clone() for layer in layers]
    found = both(ready(program, data, "gan", batch_size=5))
    agree(found, rtol=1e-6, atol=1e-8)
    assert all(not torch.equal(layer.running_var, old) for layer, old in zip(layers, before, strict=True))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("pix2pix", "text2image") else pytest.mark.slow)
        for name in catalogue.names()
        if catalogue.get(name).family == "implicit" and name != "progan"  # which grows
    ],
)
def test_the_small_preset_of_every_game(name):
    chosen = catalogue.get(name).presets["small"]
    options = {key: value for key, value in chosen.fit.items() if key not in ("steps", "epochs", "batch_size")}
    read = FEWER.get(name, {})
    program, data = small(name, **chosen.program | read)
    agree(both(ready(program, data, chosen.method, batch_size=4, **options), n=2), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("regulariser", ["gradient-penalty", None])
def test_a_fused_optimizer_finds_slopes_laid_out_as_their_parameters(regulariser):
    """In float32, where Adam is one operation that takes numbers as they lie in memory; by one step, before what is
    rounding to Adam moves the next."""
    torch.set_default_dtype(torch.float32)
    program, data = small("wgan-gp", event_shape=[8, 8], channels=[8, 4])
    loop = ready(program, data, "gan", batch_size=4, critic_steps=1, regulariser=regulariser, game="hinge")
    assert loop.parts["optimizer"].defaults["fused"]
    agree(both(loop, n=1), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "chosen"),
    marked(
        [
            (name, chosen)
            for name in NAMES
            if "score" in bounds(name) and name not in ("bernoulli-mixture", "gaussian-mixture", "hmm")
            for chosen in (
                {"guide": "normal"},
                {"guide": "multivariate_normal"},
                *([] if name in SUMMED_OUT else [{"kl_anneal": 0.5, "clip_norm": 1.0}]),
            )
        ],
        lambda name, chosen: name == "eight-schools" or (name == "vae" and "guide" not in chosen),
    ),
    ids=lambda value: value if isinstance(value, str) else value.get("guide", "anneal and clip"),
)
def test_autoguides_annealing_and_clipping(name, chosen):
    program, data = small(name)
    agree(both(ready(program, data, batch_size=50 if "guide" in chosen else 5, **chosen)))


def named(factory, **settings):
    return pytest.param(functools.partial(factory, **settings), id=f"{factory.__name__} {settings}")


@pytest.mark.parametrize(
    "optimizer",
    [
        "adam",
        "adamw",
        "adagrad",
        "adadelta",
        "nadam",
        "rmsprop",
        "sgd",
        named(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=0.1),
        named(torch.optim.RMSprop, momentum=0.9, centered=True),
        named(torch.optim.Adam, amsgrad=True, weight_decay=0.1),
        named(torch.optim.Adam, foreach=True),
    ],
)
def test_optimizers_keep_their_state(optimizer):
    program, data = small("coin")
    agree(both(ready(program, data, batch_size=5, optimizer=optimizer)))


@pytest.mark.parametrize(
    ("name", "method", "chosen"),
    marked(
        [
            ("gan", "gan", {}),
            ("gan", "gan", {"critic_steps": 2}),
            ("gan", "gan", {"critic_steps": 2, "batch_size": 50}),
            ("ppca", "wake-sleep", {}),
            ("vae", "wake-sleep", {}),
            ("coin", "avb", {"hidden": [16], "critic_hidden": [16]}),
            ("vae", "avb", {}),
            ("eight-schools", "avb", {}),
            ("logistic-regression", "avb", {}),
            ("normal", "avb", {}),
        ],
        lambda name, method, chosen: name in ("gan", "ppca", "coin") and "batch_size" not in chosen,
    ),
)
def test_other_methods_through_the_same_loop(name, method, chosen):
    program, data = small(name)
    agree(both(ready(program, data, method, **{"batch_size": 5, **chosen})))


@pytest.mark.parametrize(
    ("name", "method", "chosen"),
    [
        ("rbm", "cd", {"chains": "data"}),
        ("rbm", "cd", {"chains": "persistent"}),
        ("rbm", "cd", {"chains": "exact"}),
        ("deep-energy", "cd", {"chains": "replay", "regularise": 0.1}),
        ("deep-energy", "score-matching", {}),
        ("deep-energy", "score-matching", {"objective": "sliced"}),
        ("deep-energy", "nce", {}),
        ("vae", "svi", {"beta": 2.0}),
        ("vae", "svi", {"tc": 2.0}),
    ],
)
def test_steps_that_build_distributions_outside_of_the_bound(name, method, chosen):
    """Chains, bases and second passes: whose arguments torch looks at in the first step alone."""
    program, data = small(name)
    agree(both(ready(program, data, method, batch_size=5, **chosen)))


@pytest.mark.parametrize(("name", "bound"), [("ppca", "auto"), ("gaussian-mixture", "auto"), ("hmm", "score")])
def test_gradients_when_the_batch_size_changes(name, bound):
    """One step of gradient descent at rate 1 is the gradient."""
    program, data = small(name)
    found = []
    for size in (5, 9):
        given = {**options(name, bound), "batch_size": size, "optimizer": "sgd", "lr": 1.0, "decay": "constant"}
        loop = ready(program, data, **given)
        before = [p.detach().clone() for p in program.parameters()]
        ours, theirs = both(loop, 1)
        n = len(before)
        gradients = [[b - a for a, b in zip(each[:n], before, strict=True)] for each in (ours, theirs)]
        assert any(bool(g.abs().max() > 0) for g in gradients[0])
        agree((gradients[0], gradients[1]))
        found.append(loop.indices(1))
    assert [index.shape[1] for index in found] == [5, 9]


@pytest.mark.parametrize("power", [lambda n: 2**n, lambda n: n**40], ids=["of a number", "of a tensor"])
def test_integer_powers_are_handed_to_the_library_as_tensors(power):
    """As numbers they become float there, and the bits of the result are read as integers, beyond its end."""
    loop = ready(Line(), Data(line_data()), batch_size=32)
    inner = loop.step

    def step(batch, now):
        metrics = inner(batch, now)
        return {**metrics, "power": power(torch.ones(4, dtype=torch.long).cumsum(0)).sum().to(batch.x)}

    loop.step = step
    now = {name: torch.tensor(values[0]) for name, values in loop.scalars(loop.done, 1).items()}
    batch, noise = loop.data.rows(slice(0, 32)), reference(loop).noise[0]
    traced = trace_step(loop.step, State(loop.parts), batch, now, noise)
    powers = [node for node in traced.graph.graph.nodes if "aten.pow" in str(node.target)]
    whole = [node.target for node in powers if node.meta["val"].dtype == torch.long]
    assert whole == [torch.ops.aten.pow.Tensor_Tensor]
