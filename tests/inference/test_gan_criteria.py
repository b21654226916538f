"""What the adversarial programs must reach with their presets: all modes of a ring, and better digits than an MLP's."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from inference import fit
from inference.features import train_classifier
from inference.fit import Fit
from inference.mode_coverage import gaussian_modes
from inference.players import CollapseNotice
from inference.sample_quality import frechet
from zoo import catalogue, datasets

SAMPLES = 2000
"""Points on the ring; of digits as many as there are in the test split."""

# A mode counts as covered when it has a fifth of its share: a stray sample is not enough.
LEAST = SAMPLES // 8 // 5


@pytest.fixture(autouse=True)
def _single_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float64)


def trained(name: str, data: str, preset: str, seed: int, **options: Any) -> Fit:
    chosen = catalogue.get(name).presets[preset]
    torch.manual_seed(seed)
    program = catalogue.create_for(name, datasets.load(data).train, preset)
    return fit(program, data, chosen.method, seed=seed, device="cpu", **{**chosen.fit, **options})


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["wgan-gp", "sngan"])
def test_bounded_slopes_cover_the_ring(name: str, seed: int) -> None:
    found = trained(name, "ring", "ring", seed)
    modes = gaussian_modes(found.program.generate(SAMPLES), "ring", least=LEAST)
    assert not found.info["collapsed"]
    assert modes.covered == 8
    assert modes.good > 0.95


@cache
def digits(name: str) -> Fit:
    with warnings.catch_warnings():
        # Whether it collapsed is asserted below.
        warnings.simplefilter("ignore", CollapseNotice)
        return trained(name, "mnist10k", "small", 0)


@cache
def distance(name: str) -> float:
    torch.manual_seed(1)
    features = train_classifier("mnist10k")
    test = datasets.load("mnist10k").split("test").x
    return frechet(digits(name).program.generate(len(test)), test, features).value


@pytest.mark.slow
def test_convolutions_draw_better_digits_than_dense_layers(zoo_data: Path) -> None:
    assert distance("dcgan") < distance("gan")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dcgan", "wgan-gp", "sngan"])
def test_digits_do_not_collapse(name: str, zoo_data: Path) -> None:
    assert not digits(name).info["collapsed"]
    # Nor do they all look alike to a classifier: the plain mean image is much further away than any of these.
    data = datasets.load("mnist10k")
    test = data.split("test").x
    mean = data.train.x.mean(0).expand_as(test)
    assert distance(name) < frechet(mean, test, train_classifier("mnist10k")).value / 2
