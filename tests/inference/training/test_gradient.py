"""What all gradient methods share: options that are checked once, schedules, a fit that is driven from outside."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from inference import METHODS, fit, make_method
from inference.environment import seeded
from inference.method import Run
from inference.training.gradient import GradientMethod
from tests.inference.toys import linear
from zoo.datasets import Data
from zoo.errors import OptionError
from zoo.program import Program

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


class Tally(torch.autograd.Function):
    """The identity; its backward notes the shape of each gradient that passes."""

    @staticmethod
    def forward(ctx, value, seen):  # type: ignore[no-untyped-def]
        ctx.seen = seen
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        ctx.seen.append(gradient.shape)
        return gradient, None


class Noted(dist.Normal):
    """A normal that tallies the gradients through its log density."""

    seen: list[torch.Size]

    def log_prob(self, value: Tensor) -> Tensor:
        found: Tensor = Tally.apply(super().log_prob(value), self.seen)
        return found


class Counted(Program):
    """x ~ N(a z, 1), z ~ N(0, 1); counts gradients through the model's mean and the guide's density, by example."""

    event_shape = torch.Size([2])
    support = constraints.real_vector

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.weight = nn.Parameter(torch.ones(2)), nn.Parameter(torch.full((2,), 0.1))
        self.through_model: list[torch.Size] = []
        self.through_guide: list[torch.Size] = []
        Noted.seen = self.through_guide

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(torch.tensor(0.0), torch.tensor(1.0)))
            mean = Tally.apply(z[..., None] * self.slope, self.through_model)
            return pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        assert x is not None
        with self.plate(x, context, size):
            pyro.sample("z", Noted((x * self.weight).sum(-1), torch.tensor(0.8)))

    def counts(self, batch: int) -> tuple[int, int]:
        """Gradients for each example of a batch, through model and guide: one for each particle."""
        model = sum(shape.numel() for shape in self.through_model) / (2 * batch)
        guide = sum(shape.numel() for shape in self.through_guide) / batch
        assert model == int(model)
        assert guide == int(guide)
        return int(model), int(guide)


@pytest.mark.parametrize(
    ("method", "options", "guide_counts"),
    [
        ("svi", {"particles": 1}, False),
        ("svi", {"particles": 3}, False),
        ("svi", {"particles": 3, "elbo": "iwae"}, False),
        ("svi", {"particles": 4, "elbo": "renyi", "alpha": 0.5}, False),
        ("wake-sleep", {"particles": 1}, True),
        ("wake-sleep", {"particles": 3}, True),
        ("wake-sleep", {"particles": 3, "reweighted": True, "guide_update": "wake"}, True),
        ("wake-sleep", {"particles": 3, "reweighted": True, "guide_update": "both"}, True),
        ("mcem", {"particles": 1, "leapfrog": 4, "m_steps": 2, "draws": 0}, False),
        ("mcem", {"particles": 3, "leapfrog": 4, "m_steps": 2, "draws": 0}, False),
        ("avb", {"critic_steps": 1}, False),
        ("avb", {"critic_steps": 3}, False),
    ],
)
def test_gradient_evaluations_are_those_counted_from_outside(method: str, options: dict, guide_counts: bool) -> None:
    program, n, steps = Counted(), 8, 3
    made = make_method(method, **options, steps=steps, batch_size=n, compile="never")
    assert isinstance(made, GradientMethod)
    with seeded(0):
        training = made.prepare(program, Run(Data(torch.randn(n, 2)), seed=0))
        program.through_model.clear()
        program.through_guide.clear()
        for _ in range(steps):
            training.advance(1)
        model, guide = program.counts(n)
        claimed = training.finish().gradient_evaluations
    # SVI's gradient through its guide belongs to that through the model; one that trains the two in turn pays both.
    assert claimed == model + (guide if guide_counts else 0)
