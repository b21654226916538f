"""StarGAN: the contract, attributes that reach the image, a gallery of sources, and images whose attributes change."""

from __future__ import annotations

import itertools

import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

from inference import fit
from inference.fit import methods_for
from zoo.errors import CapabilityError, OptionError, ShapeError, SupportError, UnknownNameError
from zoo.implicit.stargan import AttributeCritic, Gallery, StarGAN
from zoo.implicit.translators import ResidualTranslator, Translates
from zoo.testing import check_program

SMALL = {"channels": [4, 6], "blocks": 1, "gallery": 9, "critic": {"channels": [4, 4]}}


def small(event_shape: tuple[int, ...] = (8, 8), attributes: int = 3) -> StarGAN:
    return StarGAN(event_shape, [attributes], **SMALL)


def attributes(n: int, k: int = 3) -> Tensor:
    return torch.randint(2, (n, k)).to(torch.get_default_dtype())


@pytest.mark.parametrize("event_shape", [(8, 8), (3, 9, 6)])
def test_contract(event_shape: tuple[int, ...]) -> None:
    program = small(event_shape)
    check_program(program)
    assert isinstance(program, Translates)


@pytest.mark.parametrize("name", StarGAN.presets)
def test_presets_build_and_take_a_step(name: str) -> None:
    preset = StarGAN.presets[name]
    critic = {"channels": [4, 4]} if name == "paper" else {}
    program = StarGAN((32, 32), (3,), **{**preset.program, "channels": [4, 6], "gallery": 4, "critic": critic})
    data = (torch.rand(8, 32, 32), attributes(8))
    fit(program, data, preset.method, **{**preset.fit, "steps": 1, "batch_size": 4, "critic_steps": 1})
    assert program.generate(context=attributes(2)).shape == (2, 32, 32)


def test_layers_are_the_papers() -> None:
    program = StarGAN((3, 128, 128), (5,), gallery=1, **StarGAN.presets["paper"].program)

    def shapes(net: nn.Module) -> list[tuple[int, ...]]:
        return [tuple(m.weight.shape) for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]

    residual = 12 * [(256, 256, 3, 3)]
    assert shapes(program.translator) == [
        (64, 8, 7, 7), (128, 64, 3, 3), (256, 128, 3, 3), *residual, (256, 128, 3, 3), (128, 64, 3, 3), (3, 64, 7, 7)
    ]  # fmt: skip
    critic = program.critic()
    widths = [3, 64, 128, 256, 512, 1024, 2048]
    down = [(after, before, 4, 4) for before, after in itertools.pairwise(widths)]
    assert shapes(critic) == [*down, (1, 2048, 3, 3)]
    assert critic.head.weight.shape == (5, 2048 * 2 * 2)
    assert critic(torch.rand(1, 3, 128, 128)).shape == (1, 4)


def test_the_gallery_is_of_training_images_with_their_attributes() -> None:
    program, x, a = small(), torch.rand(30, 8, 8), attributes(30)
    program.initialise(x, a)
    rows = [int((x == image).flatten(1).all(1).nonzero()[0, 0]) for image in program.images]
    assert len(set(rows)) == 9  # without replacement while there are enough
    assert torch.equal(program.looks, a[rows])
    program.initialise(x[:4], a[:4])
    assert {tuple(image.flatten().tolist()) for image in program.images} == {tuple(i.flatten().tolist()) for i in x[:4]}


def test_draws_of_a_gallery_are_its_images_each_as_likely() -> None:
    images = torch.rand(4, 2, 2)[[0, 1, 2, 2]]
    gallery = Gallery(images)
    drawn = gallery.expand([3]).sample(torch.Size([2000]))
    assert drawn.shape == (2000, 3, 2, 2)
    shares = [float((drawn == image).flatten(2).all(2).double().mean()) for image in images]
    assert shares == pytest.approx([0.25, 0.25, 0.5, 0.5], abs=0.03)  # five standard errors
    found = gallery.log_prob(torch.stack([images[:3], images[1:]]))
    wanted = torch.tensor([[0.25, 0.25, 0.5], [0.25, 0.5, 0.5]]).log()
    torch.testing.assert_close(found, wanted)
    assert float(gallery.log_prob(images[0] + 1e-3)) == -torch.inf
    assert gallery.support.check(torch.stack([images[3], images[3] + 1e-3])).tolist() == [True, False]


def test_methods_that_can_fit_it() -> None:
    assert methods_for(small()) == ["gan", "star"]


def test_model_and_guide_are_one_translator() -> None:
    program, c = small(), attributes(5)
    with pyro.plate("particles", 4, dim=-2):
        trace = poutine.trace(program.model).get_trace(None, c, 5)
    source, x = (trace.nodes[name]["value"] for name in ("source", "x"))
    assert source.shape == x.shape == (4, 5, 8, 8)
    assert len({tuple(image.flatten().tolist()) for image in source.reshape(20, 8, 8)}) > 5  # particles have their own
    for s, made in zip(source, x, strict=True):
        torch.testing.assert_close(program.translate(s, c), made)
    # Back: with attributes of the gallery.
    program.looks[:] = torch.tensor([1.0, 0.0, 1.0])
    back = poutine.trace(program.guide).get_trace(x[0], c, None).nodes["source"]["value"]
    torch.testing.assert_close(back, program.translate(x[0], [1.0, 0.0, 1.0]))


def test_attributes_reach_every_part_of_the_image() -> None:
    """Behind an instance norm they would not: it takes away what is the same all over the image."""
    program, s = small((24, 24)), torch.rand(2, 24, 24)
    with torch.no_grad():
        changed = (program.translate(s, [1.0, 0.0, 0.0]) - program.translate(s, [0.0, 0.0, 0.0])).abs()
    assert float(changed[:, 10:14, 10:14].min()) > 0
    normed = ResidualTranslator((4, 24, 24), 1, [4, 6], blocks=1)
    planes = torch.zeros(2, 3, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(
            normed(torch.cat([s[:, None], planes], 1)), normed(torch.cat([s[:, None], planes + 0.3], 1))
        )


def test_gradients_reach_every_parameter() -> None:
    program = small()
    critic = program.critic()
    made = program.model(None, attributes(6), 6)
    (critic(made).square().sum() + critic.attributes(made).square().sum()).backward()
    for player in (program, critic):
        for name, p in player.named_parameters():
            assert p.grad is not None, name
            assert bool(p.grad.any()), name


@pytest.mark.parametrize("event_shape", [(8, 8), (3, 9, 6)])
def test_the_critic_judges_patches_and_reads_attributes(event_shape: tuple[int, ...]) -> None:
    critic, x = AttributeCritic(event_shape, 3, channels=[4, 4]), torch.rand(5, *event_shape)
    patches = 4 if event_shape == (8, 8) else 6
    assert critic(x).shape == (5, patches)
    assert critic.attributes(x).shape == (5, 3)
    torch.testing.assert_close(critic(x)[:1], critic(x[:1]))  # each image alone


def test_bad_options_and_data() -> None:
    program = small()
    with pytest.raises(ShapeError, match="attributes"):
        StarGAN((8, 8), (3, 2))
    with pytest.raises(UnknownNameError, match="critic"):
        StarGAN((8, 8), (3,), critic={"widths": [4]})
    with pytest.raises(OptionError, match="to=None"):
        program.translate(torch.rand(2, 8, 8))
    with pytest.raises(ShapeError):
        program.translate(torch.rand(2, 8, 8), attributes(2, 4))
    with pytest.raises(SupportError):
        program.translate(torch.rand(2, 8, 8), [2.0, 0.0, 0.0])
    with pytest.raises(CapabilityError, match="attributes"):
        fit(program, (torch.rand(4, 8, 8), attributes(4)), "star", critic=nn.Flatten())
