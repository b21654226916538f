"""What the adversarial programs must reach with their presets: all modes of a ring, and good digits."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from inference import fit
from inference.evaluation.samples.classifier import train_classifier
from inference.evaluation.samples.coverage import gaussian_modes
from inference.evaluation.samples.quality import frechet
from inference.fitted import Fit
from inference.games.game import CollapseNotice
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


def trained(
    name: str, data: str, preset: str, seed: int, options: Mapping[str, Any] | None = None, **changes: Any
) -> Fit:
    chosen = catalogue.get(name).presets[preset]
    torch.manual_seed(seed)
    program = catalogue.create_for(name, datasets.load(data).train, **{**chosen.program, **(options or {})})
    return fit(program, data, chosen.method, seed=seed, device="cpu", **{**chosen.fit, **changes})


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["wgan-gp", "sngan"])
def test_bounded_slopes_cover_the_ring(name: str, seed: int) -> None:
    found = trained(name, "ring", "ring", seed)
    modes = gaussian_modes(found.program.generate(SAMPLES), "ring", least=LEAST)
    assert not found.info["collapsed"]
    assert modes.covered == 8
    assert modes.good > 0.95


SEEDS = (0, 1, 2)


@cache
def digits(name: str, seed: int) -> Fit:
    with warnings.catch_warnings():
        # Whether it collapsed is asserted below.
        warnings.simplefilter("ignore", CollapseNotice)
        if name != "vae":
            return trained(name, "mnist10k", "small", seed)
        # The networks of the adversarial autoencoder, for as long as the games take.
        return trained(name, "mnist10k-binary", "small", seed, {"hidden": [256, 256], "activation": "relu"}, epochs=300)


@cache
def distance(name: str, seed: int) -> float:
    """Of as many samples as test images, all of them black and white, in a network trained on such."""
    torch.manual_seed(1)
    test = datasets.load("mnist10k").split("test").x
    samples = digits(name, seed).program.generate(len(test))
    return frechet((samples > 0.5).float(), (test > 0.5).float(), train_classifier("mnist10k-binary")).value


def middle(name: str) -> float:
    return statistics.median(distance(name, seed) for seed in SEEDS)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("other", ["gan", "vae"])
def test_convolutional_games_draw_better_digits(other: str, zoo_data: Path) -> None:
    assert middle("dcgan") < middle(other)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["wgan-gp", "sngan"])
def test_bounded_slopes_do_not_collapse(name: str, seed: int, zoo_data: Path) -> None:
    assert not digits(name, seed).info["collapsed"]
    # Nor do they all look alike to a classifier: the plain mean image is much further away than any of these.
    data = datasets.load("mnist10k")
    test = (data.split("test").x > 0.5).float()
    mean = (data.train.x.mean(0) > 0.5).float().expand_as(test)
    assert distance(name, seed) < frechet(mean, test, train_classifier("mnist10k-binary")).value / 2
