"""A run that was stopped on its way is told from one that has settled, by what lies further along its path."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from inference.training.convergence import LAST, LEAST_STEPS, NATS, Path, verdict

MEAN, SD = 9.6, math.sqrt(0.2)


def walked(positions: Tensor) -> Path:
    """A path of one parameter that was at these places at a hundred reports."""
    place = nn.Parameter(torch.zeros(()))
    path = Path([place], total=1000)
    for report, position in enumerate(positions, 1):
        place.data.copy_(position)
        path.look(10 * report)
    return path


def evidence(path: Path, noise: float = 0.0) -> object:
    """Minus KL of N(place, SD) to N(MEAN, SD), in draws that share most of their noise wherever the place is."""

    def bounds(draw: int) -> Tensor:
        generator = torch.Generator().manual_seed(draw)
        common, slope = torch.randn(2, 16, generator=generator)
        distance = (path.parameters[0].detach() - MEAN) / SD
        return -(distance**2) / 2 + 1e3 * common + noise * slope * distance

    return bounds


def test_a_run_on_its_way_gains_what_it_lacks() -> None:
    path = walked(torch.linspace(0, 7.4, 100))
    found = path.gain(evidence(path, noise=0.1))
    lacks = ((7.4 - MEAN) / SD) ** 2 / 2
    assert found["gain"] > 0.9 * lacks
    assert found["gain"] < lacks + 5 * found["standard_error"]
    assert found["gain"] > 20 * found["standard_error"], "the noise that is common to both sides must cancel"
    assert float(path.parameters[0].detach()) == float(torch.linspace(0, 7.4, 100)[-1])
    assert verdict(found, [1.0] * 100, size=1, tied=True)["verdict"] == "still improving"


def test_a_run_that_has_settled_gains_nothing() -> None:
    shaking = MEAN + 0.1 * SD * torch.randn(100)
    shaking[-1] = MEAN
    path = walked(shaking)
    found = path.gain(evidence(path, noise=0.1))
    assert verdict(found, [1.0] * 100, size=1, tied=True)["verdict"] == "converged"


def test_a_gain_in_every_draw_is_seen_however_wide_they_are() -> None:
    """As of a guide whose draws are thousands of nats apart: outliers make the standard error of the mean useless."""
    path = walked(torch.linspace(0, 7.4, 100))

    def bounds(draw: int) -> Tensor:
        distance = (path.parameters[0].detach() - MEAN).square()
        return -distance * torch.randn(16, generator=torch.Generator().manual_seed(draw)).mul(4).exp()

    found = path.gain(bounds)
    assert found["share"] == 1.0
    assert found["standard_error"] < found["gain"] < 3 * found["standard_error"]
    assert verdict(found, [1.0] * 100, size=1, tied=True)["verdict"] == "still improving"


def test_a_tiny_step_is_followed_far() -> None:
    path = walked(torch.linspace(0, 0.05, 100))
    found = path.gain(evidence(path))
    assert found["at"] >= 256
    assert found["gain"] > 0.9 * (MEAN / SD) ** 2 / 2
    path = walked(torch.linspace(0, 1e-6, 100))
    assert path.gain(evidence(path))["at"] == LAST


@pytest.mark.parametrize("raised", [True, False])
def test_the_parameters_are_left_as_they_are(raised: bool) -> None:
    path = walked(torch.linspace(0, 7.4, 100))
    before, calls = float(path.parameters[0].detach()), 0

    def bounds(draw: int) -> Tensor:
        nonlocal calls
        calls += 1
        if raised and calls == 3:
            raise ZeroDivisionError
        return torch.zeros(16)

    if raised:
        path_of = pytest.raises(ZeroDivisionError)
        with path_of:
            path.gain(lambda draw: bounds(draw) + path.parameters[0].detach())
    else:
        assert path.gain(bounds) == {"gain": 0.0, "standard_error": 0.0, "at": 0.0, "share": 0.0}
    assert float(path.parameters[0].detach()) == before


def test_a_short_run_says_so() -> None:
    path = Path([nn.Parameter(torch.zeros(()))], LEAST_STEPS - 1)
    for done in range(LEAST_STEPS):
        path.look(done)
    assert path.gain(lambda draw: torch.zeros(1)) is None
    assert verdict(None, [], 1, tied=True) == {"verdict": "too short to tell"}


def test_a_checkpoint_knows_the_way() -> None:
    path = walked(torch.linspace(0, 7.4, 100))
    other = Path(path.parameters, 1000)
    other.load_state_dict(path.state_dict())
    assert other.count == path.count == 26  # reports from 500 to 750
    assert torch.equal(other.mean[0], path.mean[0])


def test_what_is_called_missing() -> None:
    """All data together where global latents tie them, else a share of what the run has gained."""
    falling = [100.0] * 10 + [10.0] + [9.0] * 89

    def said(gain: float, error: float, tied: bool, share: float = 0.5) -> object:
        found = {"gain": gain, "standard_error": error, "at": 1.0, "share": share}
        return verdict(found, falling, size=10, tied=tied)["verdict"]

    assert said(1.01 * NATS / 10, 0.0, True) == "still improving"
    assert said(0.99 * NATS / 10, 0.0, True) == "converged"
    assert said(1.0, 0.33, True) == "still improving"
    assert said(1.0, 0.34, True) == "too noisy to tell"
    assert said(1.0, 0.34, True, share=15 / 16) == "still improving"
    assert said(1.0, 0.34, True, share=14 / 16) == "too noisy to tell"
    assert said(1.0, 1.01, True, share=1.0) == "converged"
    assert said(0.051, 0.0, False) == "still improving"
    assert said(0.049, 0.0, False) == "converged"  # of the 1 nat since the first tenth
