"""What all gradient methods share: options that are checked once, schedules, a fit that is driven from outside."""

from __future__ import annotations

import math

import pytest
import torch

from inference import METHODS, fit, make_method
from inference.environment import seeded
from inference.method import Run
from inference.training.gradient import GradientMethod
from tests.inference.toys import linear
from zoo.datasets import Data
from zoo.errors import OptionError

GRADIENT = [name for name in METHODS if isinstance(make_method(name), GradientMethod)]


def test_these_are_gradient_methods() -> None:
    assert set(GRADIENT) == {
        "svi", "mcem", "wake-sleep", "gan", "avb", "aae", "ali", "cycle", "star", "gan-cls", "cd", "nce",
        "score-matching",
    }  # fmt: skip


@pytest.mark.parametrize("method", GRADIENT)
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"lr": 0.0}, "lr must be positive"),
        ({"lr": float("nan")}, "lr must be a finite number"),
        ({"decay": "linear"}, "decay must be one of 'cosine', 'constant'"),
        ({"steps": 3, "epochs": 2}, "steps or epochs, not both"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"compile": "sometimes"}, "compile must be one of"),
        ({"precision": "half"}, "precision must be one of 'full', 'tf32', 'bf16'"),
    ],
)
def test_common_options_are_checked_before_anything_is_done(method: str, options: dict, named: str) -> None:
    with pytest.raises(OptionError, match=named):
        make_method(method, **options)


def test_the_rate_follows_half_a_cosine_and_a_weight_grows_in_a_line() -> None:
    method, run = make_method("svi", lr=0.4, epochs=3, batch_size=10), Run(Data(torch.zeros(25, 2)))
    assert isinstance(method, GradientMethod)
    total = 8  # ceil(3 * 25 / 10)
    for done in range(total):
        assert method.rate(run)(done) == pytest.approx(0.4 * (1 + math.cos(math.pi * done / total)) / 2)
        assert method.rate(run, 0.2, 0.1)(done) == pytest.approx(0.1 + 0.1 * (1 + math.cos(math.pi * done / total)) / 2)
    assert [method.growing(run, 0.5)(done) for done in range(total)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert make_method("svi", decay="constant").rate(run)(7) == make_method("svi").lr


def test_a_training_that_is_driven_from_outside_is_the_fit() -> None:
    program = linear()
    x = program.generate(30)
    start = {name: value.clone() for name, value in program.state_dict().items()}
    found = fit(program, x, "svi", steps=6, batch_size=8, initialise=False, seed=2, compile="never")
    ended = {name: value.clone() for name, value in program.state_dict().items()}
    program.load_state_dict(start)
    method = make_method("svi", steps=6, batch_size=8, compile="never")
    assert isinstance(method, GradientMethod)
    with seeded(2):
        training = method.prepare(program, Run(Data(x), seed=2))
        losses = [float(training.advance(1)) for _ in range(6)]
        outcome = training.finish()
    assert losses == [row["loss"] for row in found.history.rows]
    assert outcome.gradient_evaluations == found.gradient_evaluations == 6
    for name, value in program.state_dict().items():
        assert torch.equal(value, ended[name]), name
