"""What a conditional GAN must draw when asked, and what InfoGAN's codes must find without labels, with their presets.

Classes of samples are those that a classifier sees which was trained on real images alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from inference import fit
from inference.evaluation.samples.classifier import train_classifier
from inference.evaluation.samples.codes import (
    aggregate_codes,
    code_accuracy,
    code_effects,
    decoded,
    guess_codes,
    match_codes,
)
from inference.evaluation.samples.coverage import class_accuracy
from inference.evaluation.two_samples import mmd
from inference.fitted import Fit
from tests.inference.toys import linear
from zoo import catalogue, datasets
from zoo.datasets.data import Data
from zoo.latent.vae import VAE

SEEDS = (0, 1, 2)


@pytest.fixture(autouse=True)
def _single_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float64)


@cache
def trained(name: str, data: str, preset: str, seed: int) -> Fit:
    chosen = catalogue.get(name).presets[preset]
    torch.manual_seed(seed)
    program = catalogue.create_for(name, datasets.load(data).train, preset)
    return fit(program, data, chosen.method, seed=seed, device="cpu", **chosen.fit)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("data", ["digits", "mnist10k"])
def test_conditional_samples_have_the_asked_class(zoo_data: Path, data: str, seed: int) -> None:
    network = train_classifier(data)
    assert network.training_of is not None
    assert network.training_of.test_accuracy >= 0.98
    found = trained("cgan", f"{data}-labelled", "small", seed)
    asked = torch.arange(5000) % 10
    torch.manual_seed(1)
    drawn = found.program.generate(context=one_hot(asked, 10).float())
    assert not found.info["collapsed"]
    assert class_accuracy(drawn, asked, network).accuracy >= 0.95


def named(data: str, preset: str, seed: int) -> float:
    """Share of test images whose class the code names; codes are matched with classes on other images."""
    program, dataset = trained("infogan", data, preset, seed).program, datasets.load(data)

    def guessed(split: str) -> tuple[Tensor, Tensor]:
        return guess_codes(program, dataset.split(split).x), dataset.labels[split]

    return code_accuracy(*guessed("test"), match_codes(*guessed("train")))


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_the_categorical_code_finds_the_classes(zoo_data: Path, seed: int) -> None:
    assert named("mnist10k", "small", seed) >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_continuous_code_is_slant_or_width(zoo_data: Path, seed: int) -> None:
    effects = code_effects(trained("infogan", "mnist10k", "small", seed).program)
    assert max(abs(value) for effect in effects for value in effect.values()) > 0.5


@pytest.mark.slow
def test_the_categorical_code_finds_small_digits_from_most_seeds() -> None:
    """1,297 images of 8x8 make some seeds take two classes for one."""
    assert statistics.median(named("digits", "digits", seed) for seed in SEEDS) >= 0.85


def test_a_program_with_a_density_is_shown_by_its_mean() -> None:
    program = VAE([2, 2], latent_dim=2, hidden=[4])
    z = torch.randn(5, 2)
    torch.testing.assert_close(decoded(program, {"z": z}), program.decode(z).mean)


def test_codes_of_the_exact_posterior_are_the_prior() -> None:
    program = linear(6, 2)
    data = Data(program.generate(500))
    codes, prior = aggregate_codes(program, program.posterior, data)
    assert codes.shape == prior.shape == (500, 2)
    assert mmd(codes, prior).p_value > 0.01  # one fixed seed
    shrunk, _ = aggregate_codes(program, program.guide, data)
    assert mmd(shrunk, prior).p_value < 0.01
