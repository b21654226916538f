"""Progressive growing: the contract, fades that begin and end where they should, growth in a fit, equalised rates."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, leaky_relu

from inference import fit
from inference.evaluation.samples.classifier import train_classifier
from inference.evaluation.samples.quality import frechet
from inference.training.loop import Loop
from tests.conftest import FAILURE_RATE
from zoo import datasets
from zoo.datasets.data import Data
from zoo.errors import OptionError, ShapeError, UnknownNameError
from zoo.implicit.base import ConvCritic
from zoo.implicit.progan import (
    EqualisedConv2d,
    EqualisedLinear,
    GrowingCritic,
    GrowingGenerator,
    MinibatchDeviation,
    PixelNorm,
    ProGAN,
    level_at,
)
from zoo.program import Grows
from zoo.testing import check_program

TINY = 1e-9


def small(event_shape: tuple[int, ...] = (8, 8), growth: float = 0.5) -> ProGAN:
    return ProGAN(event_shape, 5, [6, 4, 3], growth)


def enlarged(images: Tensor, by: int = 2) -> Tensor:
    return images.repeat_interleave(by, -1).repeat_interleave(by, -2)


@pytest.mark.parametrize("event_shape", [(8, 8), (3, 4, 12)])
def test_contract(event_shape: tuple[int, ...]) -> None:
    program = small(event_shape)
    assert isinstance(program, Grows)
    check_program(program)
    for share in (0.0, 0.2):  # whatever its size
        program.grow(share)
        assert program.generate(2).shape == (2, *event_shape)


@pytest.mark.parametrize("name", ProGAN.presets)
def test_presets_build_and_take_a_step(name: str) -> None:
    preset = ProGAN.presets[name]
    program = ProGAN((32, 32), **{**preset.program, "channels": [max(c // 64, 2) for c in preset.program["channels"]]})
    fit(program, torch.rand(6, 32, 32), preset.method, **{**preset.fit, "batch_size": 3, "steps": 1, "epochs": None})
    assert program.generate(2).shape == (2, 32, 32)


def test_layers_are_those_of_table_2() -> None:
    program = ProGAN((3, 32, 32), **ProGAN.presets["paper"].program)

    def shapes(net: nn.Module) -> list[tuple[int, ...]]:
        return [tuple(p.shape) for name, p in net.named_parameters() if name.endswith("weight")]

    pair = [(512, 512, 3, 3)] * 2
    assert shapes(program.generator) == [(512 * 16, 512), (512, 512, 3, 3), *3 * pair, *4 * [(3, 512, 1, 1)]]
    found = shapes(program.critic())
    assert found == [*4 * [(512, 3, 1, 1)], *3 * pair, (512, 513, 3, 3), (512, 512 * 16), (1, 512)]
    biases = [p for net in (program, program.critic()) for name, p in net.named_parameters() if name.endswith("bias")]
    assert all(not bool(bias.any()) for bias in biases)


def test_growth_takes_turns() -> None:
    """Three sizes over half the run: learn, fade in, learn, fade in, an eighth of the run each; then all is there."""
    shares = [0, 0.0625, 0.124, 0.1875, 0.25, 0.3, 0.40625, 0.4375, 0.5, 0.9, 1]
    levels = [0, 0, 0, 0.5, 1, 1, 1.25, 1.5, 2, 2, 2]
    assert [level_at(share, 3, 0.5) for share in shares] == pytest.approx(levels)
    assert level_at(0.0, 4, 0.0) == 3
    assert level_at(0.0, 1, 0.5) == 0


@pytest.mark.parametrize("stage", [1, 2])
def test_a_new_layer_of_the_generator_changes_nothing_and_ends_alone(stage: int) -> None:
    net, z = small().generator, torch.randn(7, 5)
    torch.testing.assert_close(net(z, stage - 1 + TINY), enlarged(net(z, stage - 1)), rtol=0, atol=1e-6)
    half = (net(z, stage) + enlarged(net(z, stage - 1))) / 2
    torch.testing.assert_close(net(z, stage - 0.5), half)
    # Fully grown: the smaller sizes' images have no part in it.
    images = net(z, stage)
    images.square().sum().backward()
    for lower, head in enumerate(net.heads):
        assert (head.weight.grad is None) == (lower > stage)
        assert lower > stage or bool(head.weight.grad.any()) == (lower == stage)
    assert images.shape == (7, 1, 2 * 2**stage, 2 * 2**stage)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_new_layer_of_the_critic_changes_nothing_and_ends_alone(stage: int) -> None:
    critic = small().critic()
    x = torch.rand(7, 1, 2 * 2**stage, 2 * 2**stage)

    def at(level: float, images: Tensor) -> Tensor:
        critic.level = level
        return critic(images)

    torch.testing.assert_close(at(stage - 1 + TINY, x), at(stage - 1, avg_pool2d(x, 2)), rtol=0, atol=1e-6)
    at(stage, x).square().sum().backward()
    for lower, reader in enumerate(critic.readers):
        assert (reader.weight.grad is not None) == (lower == stage)
    # Images that are too large are judged by their means.
    torch.testing.assert_close(at(stage, enlarged(x, 2)), at(stage, x))


def test_the_smallest_networks_are_those_by_hand() -> None:
    """One size: a dense layer and a convolution; a convolution and two dense layers behind the deviation."""
    program = ProGAN((3, 4, 4), 5, [6])
    net, critic, z, x = program.generator, program.critic(), torch.randn(7, 5), torch.rand(7, 3, 4, 4)

    def normed(h: Tensor) -> Tensor:
        h = leaky_relu(h, 0.2)
        return h / (h.square().mean(1, keepdim=True) + 1e-8).sqrt()

    unit = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
    h = normed((unit @ net.dense.weight.T * math.sqrt(2 / 5) / 4).reshape(7, 6, 4, 4))
    h = normed(conv2d(h, net.first.weight * math.sqrt(2 / 54), padding=1))
    torch.testing.assert_close(net(z, 0.0), conv2d(h, net.heads[0].weight / math.sqrt(6)))

    h = leaky_relu(conv2d(2 * x - 1, critic.readers[0].weight * math.sqrt(2 / 3)), 0.2)
    h = torch.cat([h, h.std(0, correction=0).mean().expand(7, 1, 4, 4)], 1)
    h = leaky_relu(conv2d(h, critic.last.weight * math.sqrt(2 / 63), padding=1), 0.2)
    h = leaky_relu(h.flatten(1) @ critic.dense.weight.T * math.sqrt(2 / 96), 0.2)
    torch.testing.assert_close(critic(x), (h @ critic.out.weight.T / math.sqrt(6))[:, 0], rtol=1e-5, atol=1e-6)


def test_data_fade_as_images_do() -> None:
    program, x = small(), torch.rand(4, 8, 8)
    image = x[:, None]
    assert torch.equal(program.at_size(x, made=False), image)
    program.level = 1.25
    four, two = avg_pool2d(image, 2), avg_pool2d(image, 4)
    torch.testing.assert_close(program.at_size(x, made=False), 0.25 * image + 0.75 * enlarged(four))
    torch.testing.assert_close(program.at_size(x, made=True), image)
    program.level = 0.25
    torch.testing.assert_close(program.at_size(x, made=False), 0.25 * four + 0.75 * enlarged(two))
    torch.testing.assert_close(program.at_size(x, made=True), four)
    program.level = 0.0
    torch.testing.assert_close(program.at_size(x, made=False), two)
    # What the program makes is seen as it was made, before it was enlarged.
    program.level = 0.5
    made = program.generate(3)
    torch.testing.assert_close(enlarged(program.at_size(made, made=True))[:, 0], made)


def test_stages_are_of_the_same_latents() -> None:
    program = small((3, 8, 8))
    torch.manual_seed(1)
    found = program.stages(4)
    assert [tuple(images.shape) for images in found] == [(4, 3, 2, 2), (4, 3, 4, 4), (4, 3, 8, 8)]
    torch.manual_seed(1)
    torch.testing.assert_close(program.generate(4), found[-1])
    program.level = 1.0
    torch.manual_seed(1)
    torch.testing.assert_close(program.generate(4), enlarged(found[1]))


# Growth during a fit

OPTIONS = {**ProGAN.presets["small"].fit, "steps": 16, "batch_size": 4, "ema": 0.9}


def interrupted(monkeypatch: pytest.MonkeyPatch, at: int, look, **options) -> None:
    """A fit of the small program that is killed after so many steps, once `look(loop)` was called."""
    batch = Loop.batch

    def stop(loop: Loop) -> Data:
        if loop.done == at:
            look(loop)
            raise KeyboardInterrupt
        return batch(loop)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "batch", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(start(), images(), "gan", **{**OPTIONS, **options})


def start() -> ProGAN:
    torch.manual_seed(3)
    return small()


def images() -> Tensor:
    return torch.rand(30, 8, 8, generator=torch.Generator().manual_seed(4))


def test_layers_that_have_not_grown_are_neither_moved_nor_known_to_adam(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh, seen = start(), []

    def look(loop: Loop) -> None:
        program, critic = loop.parts["program"], loop.parts["critic"]
        untouched = [*program.generator.blocks[1].parameters(), *program.generator.heads[2].parameters()]
        judges = [*critic.blocks[1].parameters(), *critic.readers[2].parameters()]
        for optimizer, ungrown, player in (
            (loop.parts["optimizer"], untouched, program), (loop.parts["critic_optimizer"], judges, critic)
        ):  # fmt: skip
            moved = {id(p) for p, state in optimizer.state.items() if state}
            assert moved == {id(p) for p in player.parameters()} - {id(p) for p in ungrown}
        for before, after in zip(fresh.generator.blocks[1].parameters(), untouched, strict=False):
            assert torch.equal(before, after)
        seen.append(program.level)

    interrupted(monkeypatch, 4, look)  # three steps of the first size and one of fading
    assert seen == [0.5]


def test_a_fit_ends_fully_grown_with_every_layer_moved() -> None:
    program, fresh = start(), start()
    critic = program.critic()
    first = {name: p.detach().clone() for name, p in critic.named_parameters()}
    sizes = []
    critic.register_forward_pre_hook(lambda _, given: sizes.append(given[0].shape[-1]))
    found = fit(program, images(), "gan", critic=critic, **{**OPTIONS, "compile": "auto"})
    assert (program.level, critic.level) == (2.0, 2.0)
    assert list(dict.fromkeys(sizes)) == [2, 4, 8]  # the game was played at the size reached
    for (name, before), after in zip(fresh.named_parameters(), program.parameters(), strict=True):
        assert not torch.equal(before, after), name
    for name, after in critic.named_parameters():
        assert not torch.equal(first[name], after), name
    assert found.modules["critic"](images()).shape == (30,)


def test_a_fit_that_was_killed_in_a_fade_resumes_to_the_same_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    levels = []

    def save(loop: Loop) -> None:
        levels.append(loop.parts["program"].level)
        loop.save()

    interrupted(monkeypatch, 8, save, out=tmp_path)
    assert 0 < levels[0] % 1 < 1
    whole, resumed = start(), start()
    fit(whole, images(), "gan", **OPTIONS)
    fit(resumed, images(), "gan", out=tmp_path, **OPTIONS)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_cannot_grow_is_refused() -> None:
    with pytest.raises(OptionError, match="compile='always'"):
        fit(small(), images(), "gan", compile="always")
    with pytest.raises(OptionError, match=r"ConvCritic without grow"):
        fit(small(), images(), "gan", critic=ConvCritic((8, 8), [4]))


@pytest.mark.parametrize("event_shape", [(6, 8), (28, 28)])
def test_sides_that_cannot_be_halved_are_refused(event_shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="multiples of 8"):
        ProGAN(event_shape, channels=[8, 8, 8, 8])


def test_images_are_needed() -> None:
    with pytest.raises(ShapeError, match="images"):
        ProGAN((8,))


def test_drift_is_an_option_of_the_game_by_name() -> None:
    options = {**OPTIONS, "steps": 1}
    with pytest.raises(UnknownNameError, match="option of wasserstein"):
        fit(small(), images(), "gan", **{**options, "game": {"name": "wasserstein", "drifts": 0.1}})
    with pytest.raises(OptionError):
        fit(small(), images(), "gan", **{**options, "game": {"name": "wasserstein", "drift": -1.0}})


# The parts


@pytest.mark.parametrize(
    ("kind", "options", "scale"),
    [
        (EqualisedLinear, {"inputs": 50}, math.sqrt(2 / 50)),
        (EqualisedLinear, {"inputs": 50, "gain": 1.0}, math.sqrt(1 / 50)),
        (EqualisedConv2d, {"inputs": 7, "side": 3}, math.sqrt(2 / 63)),
        (EqualisedConv2d, {"inputs": 50, "side": 1, "gain": 1.0}, math.sqrt(1 / 50)),
    ],
)
def test_equalised_layers(kind: type[nn.Module], options: dict, scale: float) -> None:
    """Weights from N(0, 1), He's constant when used; under Adam every layer then moves by the same share of itself."""
    layer = kind(outputs=40, **options)
    assert stats.kstest(layer.weight.detach().flatten().numpy(), "norm").pvalue > FAILURE_RATE
    ones = torch.ones(1, layer.weight.shape[1], *([3, 3] if layer.weight.ndim == 4 else []))
    used = layer.weight.detach() * scale
    centre = layer(ones)[0] if layer.weight.ndim == 2 else layer(ones)[0, :, 1, 1]
    torch.testing.assert_close(centre, used.flatten(1).sum(1))
    before = layer.weight.detach().clone()
    optimizer = torch.optim.Adam(layer.parameters(), 0.01)
    layer(ones).sum().backward()
    optimizer.step()
    torch.testing.assert_close((layer.weight - before).abs(), torch.full_like(before, 0.01), rtol=1e-4, atol=0)


def test_pixels_are_normalised() -> None:
    x = 100 * torch.randn(3, 6, 4, 4)
    found = PixelNorm()(x)
    torch.testing.assert_close(found.square().mean(1), torch.ones(3, 4, 4))
    torch.testing.assert_close(found / found.norm(dim=1, keepdim=True), x / x.norm(dim=1, keepdim=True))
    assert bool(PixelNorm()(torch.zeros(1, 2, 1, 1)).isfinite().all())


def test_deviation_of_a_minibatch() -> None:
    x = torch.randn(5, 3, 2, 2)
    found = MinibatchDeviation()(x)
    assert torch.equal(found[:, :3], x)
    wanted = sum(float(x[:, c, i, j].std(correction=0)) for c in range(3) for i in range(2) for j in range(2)) / 12
    torch.testing.assert_close(found[:, 3:], torch.full((5, 1, 2, 2), wanted))
    alike = MinibatchDeviation()(x[:1].expand(5, 3, 2, 2).clone().requires_grad_())
    assert float(alike[:, 3].detach().max()) < 1e-3  # the critic is told of a collapse
    alike.sum().backward()  # and its gradient is a number there


def test_gradients_reach_every_parameter_of_both_players() -> None:
    program = small()
    critic = program.critic()
    for level in (0.5, 1.5):
        program.level = critic.level = level
        critic(program.at_size(program.model(None, None, 6), made=True)).sum().backward()
    for player in (program, critic):
        for name, p in player.named_parameters():
            assert p.grad is not None, name
            assert bool(p.grad.any()), name
    assert isinstance(program.generator, GrowingGenerator)
    assert isinstance(critic, GrowingCritic)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_letters_are_drawn_with_details_of_the_last_size() -> None:
    """Nearer to test letters than training letters are from which the last size is missing, and not all alike."""
    torch.set_default_dtype(torch.float32)
    letters = datasets.load("glyphs")
    found = fit("progan", preset="small", device="cpu")
    assert not found.info["collapsed"]
    eyes, test = train_classifier("glyphs"), letters.test.x
    coarse = enlarged(avg_pool2d(letters.train.x[torch.randperm(letters.train.size)[: len(test)]][:, None], 2))[:, 0]
    assert frechet(found.program.generate(len(test)), test, eyes).value < frechet(coarse, test, eyes).value / 2
