"""WaveGAN: the contract, phase shuffle, lengths of signals, and that generator and critic heed what is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pyro import poutine
from torch import nn

from inference import fit
from inference.evaluation.samples.judge import classifiers_for, draw_samples, judge
from zoo import datasets
from zoo.errors import OptionError, ShapeError, SupportError
from zoo.implicit.wavegan import PhaseShuffle, WaveCritic, WaveGAN, padding, quarters
from zoo.testing import check_program

SMALL: dict[str, Any] = {"latent_dim": 4, "channels": [6, 4], "kernel": 9}


@pytest.mark.parametrize("length", [61, 64])
@pytest.mark.parametrize("classes", [None, [3]])
def test_contract(length: int, classes: list[int] | None) -> None:
    check_program(WaveGAN([length], classes, **SMALL, batch_norm=length == 61, post_filter=length - 57))


@pytest.mark.parametrize("name", WaveGAN.presets)
def test_presets_build_and_fit(name: str) -> None:
    preset = WaveGAN.presets[name]
    x, context = 2 * torch.rand(4, 256) - 1, torch.eye(10)[:4]
    narrow = [max(2, width // 64) for width in preset.program["channels"]][-3:]
    program = WaveGAN.for_data(x, context, **{**preset.program, "channels": narrow})
    found = fit(program, (x, context), preset.method, **{**preset.fit, "steps": 1, "batch_size": 2})
    assert found.program.generate(context=context).shape == (4, 256)


def test_the_papers_sizes() -> None:
    program = WaveGAN([16384], **WaveGAN.presets["paper"].program)
    shapes = [tuple(p.shape) for name, p in program.named_parameters() if "weight" in name]
    assert shapes == [
        (16 * 1024, 100), (1024, 512, 25), (512, 256, 25), (256, 128, 25), (128, 64, 25), (64, 1, 25)
    ]  # fmt: skip
    critic = [tuple(p.shape) for name, p in program.critic().named_parameters() if "weight" in name]
    assert critic == [
        (64, 1, 25), (128, 64, 25), (256, 128, 25), (512, 256, 25), (1024, 512, 25), (1, 16 * 1024)
    ]  # fmt: skip
    assert sum(isinstance(layer, PhaseShuffle) for layer in program.critic().modules()) == 4  # not after the last


@pytest.mark.parametrize("kernel", [4, 9, 25])
@pytest.mark.parametrize("length", [61, 62, 63, 64])
def test_convolutions_go_down_and_up_again(kernel: int, length: int) -> None:
    pad, more = padding(kernel, length)
    x = torch.randn(2, 1, length)
    down = nn.Conv1d(1, 3, kernel, 4, pad)(x)
    assert down.shape == (2, 3, 16)
    assert nn.ConvTranspose1d(3, 1, kernel, 4, pad, more)(down).shape == x.shape
    assert quarters(length, 2) == [length, 16, 4]


# Phase shuffle


def shifted(x: torch.Tensor, by: int) -> torch.Tensor:
    """Numpy's mirroring, which repeats no end, and a slice."""
    n = abs(by)
    return nn.functional.pad(x, (n, n), mode="reflect")[..., n + by : n + by + x.shape[-1]]


def test_phase_shuffle_shifts_each_example_as_often_each_way() -> None:
    n, x = 2, torch.randn(1, 3, 10).expand(4000, 3, 10)
    seen = PhaseShuffle(n)(x)
    ways = torch.stack([(seen == shifted(x, by)).all(2).all(1) for by in range(-n, n + 1)], 1)
    assert bool((ways.sum(1) == 1).all())
    # Five counts of 800 each in the mean, with a standard deviation of 25; four and a half of these.
    assert float((ways.sum(0) - 800).abs().max()) < 115


def test_phase_shuffle_is_the_identity_at_zero_and_in_evaluation() -> None:
    x = torch.randn(20, 3, 10)
    assert torch.equal(PhaseShuffle(0)(x), x)
    assert torch.equal(PhaseShuffle(2).eval()(x), x)
    assert not torch.equal(PhaseShuffle(2)(x), x)
    assert torch.equal(PhaseShuffle(2)(x[..., :1]), x[..., :1])  # nothing to shift


def test_phase_shuffle_hands_gradients_back() -> None:
    assert torch.autograd.gradcheck(
        lambda x: (torch.manual_seed(0), PhaseShuffle(1)(x))[1], torch.randn(2, 1, 4, requires_grad=True)
    )


# Generator and critic


def test_noise_is_uniform_and_sounds_are_bounded() -> None:
    program = WaveGAN([64], [3], **SMALL)
    nodes = poutine.trace(program.model).get_trace(None, program.example_context(2000), None).nodes
    z = nodes["z"]["value"]
    assert z.shape == (2000, 4)
    assert float(z.abs().max()) <= 1
    # Standard error of each mean: sqrt(1 / 3 / 2000) = 0.013; five of them.
    assert float(z.mean(0).abs().max()) < 0.065
    assert float(nodes["x"]["value"].detach().abs().max()) <= 1


def test_generator_and_critic_see_the_label() -> None:
    program = WaveGAN([64], [3], **SMALL).eval()
    label, other = torch.eye(3)[[0] * 6], torch.eye(3)[[1] * 6]
    torch.manual_seed(0)
    first = program.generate(context=label)
    torch.manual_seed(0)
    assert not torch.allclose(first, program.generate(context=other))
    critic = program.critic().eval()
    assert critic(first, label).shape == (6,)
    assert not torch.allclose(critic(first, label), critic(first, other))


def test_critic_shuffles_only_in_training() -> None:
    critic, x = WaveCritic(64, [4, 4], kernel=9), torch.randn(5, 64)
    assert not torch.equal(critic(x), critic(x))
    critic.eval()
    assert torch.equal(critic(x), critic(x))


def test_learns_the_pitch_of_each_class() -> None:
    """Two classes of tones, a low and a high one: the paper's game, in seconds."""
    labels = torch.arange(200) % 2
    turns = torch.tensor([0.04, 0.12])[labels, None] * torch.arange(64) + torch.rand(200, 1)
    x, context = 0.8 * torch.sin(2 * torch.pi * turns), torch.eye(2)[labels]
    torch.manual_seed(0)
    program = WaveGAN.for_data(x, context, latent_dim=8, channels=[12, 6], kernel=16, shift=1)
    options = {"game": "wasserstein", "regulariser": "gradient-penalty", "lr": 2e-3, "betas": (0.5, 0.9)}
    fit(program, (x, context), "gan", steps=200, batch_size=32, compile="never", **options)
    drawn = program.generate(context=context)
    loudest = torch.fft.rfft(drawn).abs().argmax(1)  # of 64 samples: 2.6 and 7.7 turns
    # One that does not listen has a half, with a standard error of 0.035.
    assert float(((loudest > 5) == (labels == 1)).double().mean()) > 0.8


def test_bad_options_and_data() -> None:
    with pytest.raises(ShapeError, match="sounds"):
        WaveGAN([8, 8])
    with pytest.raises(ShapeError, match="classes one-hot"):
        WaveGAN([64], [2, 2])
    with pytest.raises(OptionError, match="at least 4"):
        WaveGAN([64], kernel=3)
    with pytest.raises(SupportError, match="one-hot"):
        fit(WaveGAN([64], [2], **SMALL), (torch.rand(6, 64), torch.rand(6, 2)), "gan")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_speaks_digits_that_are_told_better_than_by_chance(zoo_data: Path) -> None:
    """After the two minutes of the preset `small`, in the ears of a classifier that has heard real digits alone.

    Real takes are told by 95 of 100, guesses by ten; noise in the envelope of a digit does not get far.
    """
    torch.set_default_dtype(torch.float32)
    try:
        preset = WaveGAN.presets["small"]
        dataset = datasets.load(str(preset.data))
        torch.manual_seed(0)
        program = WaveGAN.for_data(*dataset.train, **preset.program)
        found = fit(program, dataset, preset.method, seed=0, device="cpu", **preset.fit)
        samples = draw_samples(found.program, dataset.test, dataset.test.size)
        judged = judge(samples, dataset, **classifiers_for(dataset))
    finally:
        torch.set_default_dtype(torch.float64)
    assert not found.info["collapsed"]
    assert judged["class_accuracy"].value > 0.2  # twice as often as by chance, with a standard error of 0.02
    assert judged["inception"].value > 2
