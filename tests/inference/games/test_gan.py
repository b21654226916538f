"""What the adversarial programs must reach with their presets: all modes of a ring, and good digits."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference import fit
from inference.evaluation.samples.classifier import train_classifier
from inference.evaluation.samples.coverage import gaussian_modes
from inference.evaluation.samples.quality import frechet
from inference.fitted import Fit
from inference.games.game import CollapseNotice
from inference.games.gan import GANGame
from tests.inference.games.gaussian import gaussian_data, gaussian_gan
from zoo import catalogue, datasets
from zoo.errors import CapabilityError, OptionError, UnknownNameError
from zoo.latent.ppca import PPCA
from zoo.program import Implicit, ImplicitProgram

SAMPLES = 2000
"""Points on the ring; of digits as many as there are in the test split."""

# A mode counts as covered when it has a fifth of its share: a stray sample is not enough.
LEAST = SAMPLES // 8 // 5


@pytest.fixture
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
@pytest.mark.usefixtures("_single_precision")
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
@pytest.mark.usefixtures("_single_precision")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("other", ["gan", "vae"])
def test_convolutional_games_draw_better_digits(other: str, zoo_data: Path) -> None:
    assert middle("dcgan") < middle(other)


@pytest.mark.slow
@pytest.mark.usefixtures("_single_precision")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["wgan-gp", "sngan"])
def test_bounded_slopes_do_not_collapse(name: str, seed: int, zoo_data: Path) -> None:
    assert not digits(name, seed).info["collapsed"]
    # Nor do they all look alike to a classifier: the plain mean image is much further away than any of these.
    data = datasets.load("mnist10k")
    test = (data.split("test").x > 0.5).float()
    mean = (data.train.x.mean(0) > 0.5).float().expand_as(test)
    assert distance(name, seed) < frechet(mean, test, train_classifier("mnist10k-binary")).value / 2


GAUSSIAN = {
    "lr": 3e-3, "critic_steps": 3, "steps": 500, "batch_size": 256, "initialise": False, "compile": "traced",
}  # fmt: skip


@pytest.mark.parametrize("game", ["minimax", "non-saturating"])
def test_gan_learns_the_moments_of_a_gaussian(game: str) -> None:
    x, program = gaussian_data(), gaussian_gan()
    found = fit(program, x, "gan", game=game, **GAUSSIAN)
    samples = program.generate(20_000)
    # Not a Monte Carlo error but where the game comes to rest: over four runs (two seeds, both games) the means,
    # off by 2 before, ended within 0.03, the entries of the covariance, off by 1 before, within 0.1.
    assert float((samples.mean(0) - x.mean(0)).abs().max()) < 0.1
    assert float((torch.cov(samples.T) - torch.cov(x.T)).abs().max()) < 0.25
    assert not found.info["collapsed"]
    assert not found.info["saturated"]
    assert found.gradient_evaluations == 4 * GAUSSIAN["steps"]
    assert {"loss", "critic_loss", "real_logit", "fake_logit", "critic_accuracy", "diversity"} <= set(
        found.history.metrics
    )
    # The critic can no longer tell, so it estimates no divergence; 0.02 is the noise of 1,000 examples a side.
    assert abs(found.info["divergence"]) < 0.02
    with torch.no_grad():
        assert found.modules["critic"](x).shape == (2000,)


class Shifted(ImplicitProgram):
    """x = a + b context + z, and a critic that sees the context."""

    event_shape = torch.Size([1])

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1)

    def example_context(self, n: int) -> Tensor:
        return torch.randn(n, 1)

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            return pyro.sample("x", Implicit(self.line(context) + z, 1), obs=x)

    def critic(self) -> nn.Module:
        class Critic(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(), nn.Linear(32, 1))

            def forward(self, x: Tensor, context: Tensor) -> Tensor:
                return self.net(torch.cat([x, context], -1))[..., 0]

        return Critic()


def test_a_conditional_generator_learns_from_a_critic_that_sees_the_context() -> None:
    context = torch.randn(2000, 1)
    program = Shifted()
    data = 1 + 2 * context + torch.randn(2000, 1), context
    fit(program, data, "gan", steps=500, lr=1e-2, batch_size=256, compile="traced")
    # Without the context the slope would not be identified. The least-squares error is 0.02; the game's is larger.
    assert abs(program.line.weight.item() - 2) < 0.15
    assert abs(program.line.bias.item() - 1) < 0.15


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"game": "minmax"}, UnknownNameError),
        ({"critic_steps": 0}, OptionError),
        ({"lr": 0.0}, OptionError),
        ({"betas": (0.5, 1.0)}, OptionError),
        ({"decay": "linear"}, OptionError),
    ],
)
def test_gan_options_are_checked(options: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        GANGame(**options)


def test_gan_refuses_programs_with_a_density() -> None:
    with pytest.raises(CapabilityError, match="has a density"):
        fit(PPCA([3], 1), torch.randn(5, 3), "gan")
