"""Predictive checks and coverage, where both are known."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

import zoo
from inference import Fit, fit
from inference.evaluation.arviz_export import to_inference_data
from inference.evaluation.checks import interval_coverage, predictive_check
from tests.inference.toys import SIGMAS, Mean
from zoo.datasets import Data
from zoo.errors import OptionError, ShapeError, UnknownNameError


def gaussian(x: torch.Tensor) -> Fit:
    program = Mean()
    return Fit(program=program, method="exact", data="", seed=0, guide=program.posterior, train=Data(x))


def test_p_value_of_the_largest_is_its_probability() -> None:
    """x_new | x ~ N(1, 1 + 1/3) for two examples of mean 1.5: the sum of new ones is above a number so often."""
    found = gaussian(torch.tensor([1.0, 2.0]))
    check = predictive_check(found, lambda x: x.sum(), n=20_000)
    # mu | x ~ N(1, 1/3); the sum of two new ones ~ N(2, 2 + 4/3)
    truth = 1 - float(torch.special.ndtr(torch.tensor((3.0 - 2.0) / (2 + 4 / 3) ** 0.5)))
    assert abs(check.p_value - truth) < SIGMAS * check.monte_carlo_error
    assert check.observed == 3.0
    assert check.replicated.shape == (20_000,)


def test_a_statistic_that_cannot_differ_is_in_the_middle() -> None:
    check = predictive_check(gaussian(torch.zeros(4)), lambda x: torch.tensor(float(len(x))), n=10)
    assert check.p_value == 0.5


def test_data_of_another_kind_stand_out() -> None:
    x = 10 * torch.randn(50)
    assert predictive_check(gaussian(x), lambda x: x.std(), n=200).p_value == 0.0


def test_new_latents_leave_the_schools_behind() -> None:
    """Generated again, schools keep their effects; new schools do not, so the largest varies more."""
    found = fit("eight-schools", (torch.tensor([200.0, 0.0, 0.0]), torch.ones(3)), "exact")
    again, new = (
        predictive_check(found, lambda x: x[0], new_latents=latents, n=4000).replicated for latents in (False, True)
    )
    assert abs(float(again.mean()) - 200) < 1
    assert float(again.std()) == pytest.approx(2**0.5, rel=0.1)  # one of noise, and one of the effect
    assert float(new.std()) > 10


def test_intervals_of_the_true_program_cover_what_they_say() -> None:
    torch.manual_seed(1)
    found = gaussian(1.0 + torch.randn(1000))
    for cover in interval_coverage(found, 1.0 + torch.randn(1000), (0.5, 0.9), n=2000):
        assert abs(cover.share - cover.level) < SIGMAS * (cover.level * (1 - cover.level) / 1000) ** 0.5
        assert cover.standard_error == pytest.approx((cover.level * (1 - cover.level) / 1000) ** 0.5, rel=0.15)
    (narrow,) = interval_coverage(found, 1.0 + 3 * torch.randn(1000), (0.9,))
    assert narrow.share < 0.6


def test_sites_of_adopted_code_are_named() -> None:
    def model(X, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 10.0).to_event(1))
        with pyro.plate("rows", len(X)):
            pyro.sample("y", dist.Normal(X @ w, 1.0), obs=y)

    torch.manual_seed(2)
    X = torch.randn(500, 2)
    y = X @ torch.tensor([2.0, -1.0]) + torch.randn(500)
    program = zoo.adopt(model)
    found = Fit(
        program=program, method="nuts", data="", seed=0, train=program.take({"X": X, "y": y}),
        samples={"w": torch.tensor([2.0, -1.0]) + torch.randn(100, 2) / 500**0.5},
    )  # fmt: skip
    (cover,) = interval_coverage(found, {"X": X, "y": y}, (0.9,), site="y", n=1000)
    assert abs(cover.share - 0.9) < SIGMAS * (0.09 / 500) ** 0.5
    assert predictive_check(found, lambda y: y.std(), site="y", n=10).observed == pytest.approx(float(y.std()))
    with pytest.raises(UnknownNameError, match="observed site"):
        interval_coverage(found, {"X": X, "y": y}, site="x")


def test_arviz_gets_the_generated_examples() -> None:
    data = to_inference_data(gaussian(torch.zeros(4)), draws=30, predictive=True)
    assert data.posterior_predictive["x"].shape == (1, 30, 4)
    assert data.observed_data["x"].shape == (4,)


def test_wrong_requests_say_what_to_do() -> None:
    found = gaussian(torch.zeros(4))
    with pytest.raises(ShapeError, match="must be one number"):
        predictive_check(found, lambda x: x, n=3)
    with pytest.raises(OptionError, match="between 0 and 1, got 1"):
        interval_coverage(found, torch.zeros(3), (0.5, 1))
