"""The conditional GAN: the contract, both networks, and that generator and critic heed what is asked."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import pytest
import torch
from pyro import poutine
from torch.nn.functional import one_hot

from inference import fit
from zoo.errors import OptionError, ShapeError, UnknownNameError
from zoo.implicit.cgan import ConditionalCritic, ConditionalGAN
from zoo.testing import check_program

SMALL = {"latent_dim": 4, "hidden": [8, 8, 16], "channels": [4, 4]}
CRITIC = {"mlp": {"hidden": [8, 4, 8]}, "conv": {"channels": [4]}}


def small(network: str, event_shape: Sequence[int] = (5, 4), classes: int = 3) -> ConditionalGAN:
    return ConditionalGAN(event_shape, [classes], network, **SMALL, critic=CRITIC[network])


@pytest.mark.parametrize(
    ("network", "event_shape"), [("mlp", [5]), ("mlp", [2, 3]), ("conv", [9, 6]), ("conv", [3, 8, 8])]
)
def test_contract(network: str, event_shape: list[int]) -> None:
    check_program(small(network, event_shape))


@pytest.mark.parametrize("name", ConditionalGAN.presets)
def test_presets_build_and_fit(name: str) -> None:
    preset = ConditionalGAN.presets[name]
    context = one_hot(torch.arange(10) % 10, 10).to(torch.get_default_dtype())
    program = ConditionalGAN.for_data(torch.rand(10, 8, 8), context, **preset.program)
    found = fit(program, (torch.rand(10, 8, 8), context), preset.method, **{**preset.fit, "steps": 1, "epochs": None})
    assert found.program.generate(context=context[:3]).shape == (3, 8, 8)


def test_the_papers_sizes() -> None:
    program = ConditionalGAN([28, 28], [10], **ConditionalGAN.presets["paper"].program)
    shapes = {name: tuple(p.shape) for name, p in program.named_parameters() if "weight" in name}
    assert shapes == {
        "noise.0.weight": (200, 100), "label.0.weight": (1000, 10), "both.0.weight": (1200, 1200),
        "image.weight": (784, 1200),
    }  # fmt: skip
    critic = {name: tuple(p.shape) for name, p in program.critic().named_parameters() if "weight" in name}
    assert list(critic.values()) == [(240 * 5, 784), (50 * 5, 10), (240 * 4, 290), (1, 240)]


def test_built_for_labelled_data() -> None:
    context = one_hot(torch.arange(4), 7).to(torch.get_default_dtype())
    program = ConditionalGAN.for_data(torch.rand(4, 6, 5), context, **SMALL)
    assert tuple(program.event_shape) == (6, 5)
    assert torch.equal(program.example_context(4), context)


def test_noise_fills_the_unit_cube() -> None:
    program = small("mlp")
    z = poutine.trace(program.model).get_trace(None, program.example_context(2000), None).nodes["z"]["value"]
    assert z.shape == (2000, 4)
    assert float(z.min()) >= 0
    assert float(z.max()) <= 1
    # Standard error of each mean: sqrt(1 / 12 / 2000) = 0.0065; five of them, four times.
    assert float((z.mean(0) - 0.5).abs().max()) < 0.033


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_samples_take_particle_dimensions(network: str) -> None:
    program = small(network)
    with pyro.plate("particles", 7, dim=-2):
        trace = poutine.trace(program.model).get_trace(None, program.example_context(5), None)
    assert trace.nodes["z"]["value"].shape == (7, 5, 4)
    assert trace.nodes["x"]["value"].shape == (7, 5, 5, 4)


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_generator_and_critic_see_the_label(network: str) -> None:
    program = small(network).eval()
    label, other = torch.eye(3)[[0] * 6], torch.eye(3)[[1] * 6]
    torch.manual_seed(0)
    first = program.generate(context=label)
    torch.manual_seed(0)
    assert not torch.allclose(first, program.generate(context=other))
    critic = program.critic().eval()
    assert critic(first, label).shape == (6,)
    assert not torch.allclose(critic(first, label), critic(first, other))


def test_critic_drops_units_only_in_training() -> None:
    critic = ConditionalCritic(torch.Size([6, 6]), torch.Size([3]), hidden=[8, 4, 8])
    x, label = torch.rand(5, 6, 6), torch.eye(3)[[0, 1, 2, 0, 1]]
    assert not torch.equal(critic(x, label), critic(x, label))
    critic.eval()
    assert torch.equal(critic(x, label), critic(x, label))


def test_learns_what_each_class_looks_like() -> None:
    """Two classes, a bright upper and a bright lower half: the plain maxout game, in seconds."""
    labels = torch.arange(400) % 2
    x = 0.1 + 0.1 * torch.rand(400, 4, 4)
    x[labels == 0, :2] += 0.7
    x[labels == 1, 2:] += 0.7
    context = one_hot(labels, 2).to(x)
    torch.manual_seed(0)
    program = ConditionalGAN.for_data(x, context, hidden=[16, 16, 32], critic={"hidden": [16, 8, 16], "dropout": 0.2})
    fit(program, (x, context), "gan", steps=400, batch_size=100, lr=2e-3, compile="never")
    drawn = program.generate(context=context)
    above = drawn[:, :2].mean((1, 2)) > drawn[:, 2:].mean((1, 2))
    assert float((above == (labels == 0)).double().mean()) > 0.95


def test_starts_from_the_mean_of_the_data() -> None:
    program, x = small("mlp").eval(), 0.1 + 0.8 * torch.rand(3, 5, 4)
    with torch.no_grad():
        program.initialise(x)
        for parameter in program.image.parameters():
            parameter.zero_()
    assert torch.allclose(program.generate(context=torch.eye(3)[:1])[0], x.mean(0))


def test_bad_options_and_data() -> None:
    with pytest.raises(OptionError, match=r"'mlp' or 'conv', got 'rnn'"):
        ConditionalGAN(network="rnn")
    with pytest.raises(OptionError, match="critic's hidden must be three numbers"):
        ConditionalGAN(critic={"hidden": [8, 8]})
    with pytest.raises(UnknownNameError, match="network='conv' 'hidden'"):
        ConditionalGAN(network="conv", critic={"hidden": [8, 8, 8]})
    with pytest.raises(ShapeError, match="images"):
        ConditionalGAN([7], network="conv")
    with pytest.raises(ShapeError, match="conditional"):
        fit(small("mlp"), torch.rand(6, 5, 4), "gan")
    with pytest.raises(ShapeError, match="context"):
        fit(small("mlp"), (torch.rand(6, 5, 4), torch.ones(6, 2)), "gan")
