"""DCGAN, WGAN, WGAN-GP and SNGAN: layers and start of the papers, images of any size, critics fit for their games."""

from __future__ import annotations

import pyro
import pytest
import torch
from pyro import poutine
from scipy import stats
from torch import nn

from inference import fit
from tests.conftest import FAILURE_RATE
from zoo.errors import OptionError, ShapeError, UnknownNameError
from zoo.implicit.base import ConvolutionalGAN
from zoo.implicit.dcgan import DCGAN
from zoo.implicit.gan import GAN
from zoo.implicit.networks import ConvCritic, conv_generator
from zoo.implicit.sngan import SNGAN
from zoo.implicit.wgan import WGAN, WGANGP
from zoo.testing import check_program

PROGRAMS = [DCGAN, WGAN, WGANGP, SNGAN]

# Sides that are halved evenly, that are not, and that cannot be.
SHAPES = [(8, 8), (28, 28), (3, 9, 14), (7, 5), (1, 1)]


def kinds(net: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in net.modules() if not list(layer.children())]


@pytest.mark.parametrize("cls", PROGRAMS)
@pytest.mark.parametrize("options", [{"event_shape": [3, 7, 5]}, {"event_shape": [3], "hidden": [16]}])
def test_contract(cls: type[ConvolutionalGAN], options: dict) -> None:
    check_program(cls(latent_dim=4, channels=[8, 4], **options))


@pytest.mark.parametrize(("cls", "name"), [(cls, name) for cls in PROGRAMS for name in cls.presets])
def test_presets_build_and_take_a_step(cls: type[ConvolutionalGAN], name: str) -> None:
    preset = cls.presets[name]
    channels = [max(c // 64, 2) for c in preset.program.get("channels", [4])]
    shape = preset.program.get("event_shape", [8, 8])
    program = cls(**{**preset.program, "event_shape": shape, "channels": channels, "critic_channels": [4]})
    options = {**preset.fit, "steps": 1, "epochs": None, "compile": "never"}
    found = fit(program, torch.rand(10, *shape), preset.method, **options)
    assert found.program.generate(2).shape == (2, *shape)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("kernel", [3, 4, 5, 6])
@pytest.mark.parametrize("shape", SHAPES)
def test_images_of_any_size(shape: tuple[int, ...], kernel: int, smooth: bool) -> None:
    whole = (1, *shape)[-3:]
    generator = conv_generator(3, [6, 4, 2], whole, kernel=kernel, smooth=smooth)
    assert generator(torch.randn(5, 2, 3)).shape == (5, 2, *whole)
    critic = ConvCritic(shape, [2, 4, 6], kernel=kernel, smooth=smooth)
    assert critic(torch.rand(5, *shape)).shape == (5,)


def test_layers_of_the_generator_are_the_papers() -> None:
    net = DCGAN(event_shape=[3, 64, 64], **DCGAN.presets["paper"].program).net
    block = ["BatchNorm2d", "ReLU", "ConvTranspose2d"]
    assert kinds(net) == ["Linear", "Unflatten", *4 * block]
    up = [layer for layer in net.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.in_channels for layer in up] == [1024, 512, 256, 128]
    assert next(layer for layer in net.modules() if isinstance(layer, nn.Linear)).out_features == 1024 * 4 * 4


def test_layers_of_the_spectrally_normalised_networks_are_those_of_table_3() -> None:
    program = SNGAN(event_shape=[3, 32, 32], **SNGAN.presets["paper"].program)
    critic = program.critic()
    down = [layer for layer in critic.modules() if isinstance(layer, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size[0], c.stride[0]) for c in down] == [
        (64, 3, 1), (64, 4, 2), (128, 3, 1), (128, 4, 2), (256, 3, 1), (256, 4, 2), (512, 3, 1)
    ]  # fmt: skip
    assert not [kind for kind in kinds(critic) if "Norm" in kind]
    up = [layer for layer in program.net.modules() if isinstance(layer, nn.ConvTranspose2d | nn.Conv2d)]
    assert [(type(c).__name__, c.out_channels) for c in up] == [
        ("ConvTranspose2d", 256), ("ConvTranspose2d", 128), ("ConvTranspose2d", 64), ("Conv2d", 3)
    ]  # fmt: skip


@pytest.mark.parametrize(("cls", "norm"), [(DCGAN, "BatchNorm2d"), (WGAN, "BatchNorm2d"), (WGANGP, "GroupNorm")])
def test_critics_normalise_everywhere_but_at_the_input(cls: type[ConvolutionalGAN], norm: str) -> None:
    found = kinds(cls(event_shape=[28, 28], channels=[8, 4, 2]).critic())
    assert found == [
        "Conv2d", "LeakyReLU", "Conv2d", norm, "LeakyReLU", "Conv2d", norm, "LeakyReLU", "Flatten", "Linear"
    ]  # fmt: skip


@pytest.mark.parametrize("cls", [WGANGP, SNGAN])
def test_critics_without_batch_norm_judge_each_image_alone(cls: type[ConvolutionalGAN]) -> None:
    critic, x = cls(event_shape=[9, 6]).critic().train(), torch.rand(5, 9, 6)
    assert torch.allclose(critic(x)[:1], critic(x[:1]))


def test_critic_sees_images_centred() -> None:
    seen = []
    critic = ConvCritic((4, 4), [2])
    critic.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.rand(3, 4, 4)
    critic(x)
    assert torch.allclose(seen[0][:, 0], 2 * x - 1)


def test_weights_start_from_the_papers_normals() -> None:
    program = DCGAN(event_shape=[28, 28], channels=[64, 32])
    for net in (program.net, program.critic()):
        weights = [m.weight for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
        gains = [m.weight for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        for mean, tensors in ((0.0, weights), (1.0, gains)):
            standard = (torch.cat([t.detach().flatten() for t in tensors]) - mean) / 0.02
            assert stats.kstest(standard.numpy(), "norm").pvalue > FAILURE_RATE


@pytest.mark.parametrize(("cls", "law"), [(DCGAN, stats.uniform(-1, 2)), (WGANGP, stats.norm())])
def test_noise_is_the_papers(cls: type[ConvolutionalGAN], law: stats.rv_continuous) -> None:
    z = poutine.trace(cls().model).get_trace(None, None, 200).nodes["z"]["value"]
    assert z.shape == (200, 32)
    assert stats.kstest(z.flatten().numpy(), law.cdf).pvalue > FAILURE_RATE


@pytest.mark.parametrize("cls", PROGRAMS)
def test_samples_take_particle_dimensions(cls: type[ConvolutionalGAN]) -> None:
    program = cls(event_shape=[3, 6, 5]).eval()
    with pyro.plate("particles", 3, dim=-2):
        trace = poutine.trace(program.model).get_trace(None, None, 4)
    z, x = (trace.nodes[name]["value"] for name in "zx")
    assert x.shape == (3, 4, 3, 6, 5)
    assert torch.allclose(x, (torch.tanh(program.net(z)) + 1) / 2)


def test_real_vectors_are_drawn_by_a_network_of_dense_layers() -> None:
    program = WGANGP(event_shape=[2], hidden=[16, 8], support="real")
    assert kinds(program.net) == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert kinds(program.critic()) == ["Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear", "Flatten"]
    with torch.no_grad():
        for parameter in program.net.parameters():
            parameter.mul_(10)
    assert float(program.generate(100).abs().max()) > 1


def test_training_takes_batch_statistics_and_generating_the_running_ones() -> None:
    program = DCGAN(event_shape=[6, 6])
    x = torch.rand(40, 6, 6)
    before = {name: value.clone() for name, value in program.named_buffers() if "running" in name}
    found = fit(program, x, "gan", steps=2, batch_size=20, ema=0.5)
    assert before
    for name, value in found.program.named_buffers():
        if name in before:
            assert not torch.equal(value, before[name]), name
    assert not found.program.training
    # Each image is then drawn alone, whatever else is in the batch.
    z = torch.randn(5, 32)
    assert torch.allclose(program.net(z)[:1], program.net(z[:1]))


def test_a_wasserstein_game_without_a_bound_is_refused() -> None:
    with pytest.raises(OptionError, match="bounded slope"):
        fit(WGAN(), torch.rand(4, 8, 8), "gan", game="wasserstein")


def test_bad_options() -> None:
    with pytest.raises(UnknownNameError, match="unit"):
        DCGAN(support="units")
    with pytest.raises(ShapeError, match="MLP"):
        DCGAN(event_shape=[5])
    with pytest.raises(OptionError, match="kernel"):
        DCGAN(kernel=2)
    with pytest.raises(OptionError, match="channels"):
        DCGAN(channels=[])
    with pytest.raises(OptionError, match="norm"):
        ConvCritic((8, 8), [4], norm="instance")


def test_ring_presets_differ_in_the_game_alone() -> None:
    """So that what the plain game fails at is its own fault."""
    plain, *others = (cls.presets["ring"] for cls in (GAN, WGANGP, SNGAN))
    for other in others:
        for name in ("hidden", "latent_dim", "support"):
            assert plain.program[name] == other.program[name]
        for name in ("steps", "batch_size", "lr", "betas", "ema"):
            assert plain.fit[name] == other.fit[name]
