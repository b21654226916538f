"""What a method is: its options are its fields, in their order, and cannot be changed afterwards."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass
from typing import ClassVar

import pytest
import torch

from inference.method import Method, Outcome, Run
from zoo.datasets.data import Data
from zoo.program import Program


@dataclass(frozen=True)
class Halve(Method):
    """Halves every parameter."""

    name: ClassVar[str] = "halve"

    times: int = 1
    loudly: bool = False

    def why_not(self, program: Program) -> str | None:
        return None

    def run(self, program: Program, run: Run) -> Outcome:
        return Outcome(info={"times": self.times})


def test_options_are_the_fields_and_not_the_name():
    assert Halve.option_names() == ["times", "loudly"]
    assert Halve(times=3).options() == {"times": 3, "loudly": False}
    with pytest.raises(FrozenInstanceError):
        Halve().times = 2


def test_a_method_says_what_it_cannot_take_and_runs():
    class Half(Method):
        name = "half"

        def why_not(self, program: Program) -> str | None:
            return "it is only half a method"

    with pytest.raises(TypeError, match="run"):
        Half()


def test_outcomes_share_nothing():
    """A default that is mutable and common would carry the history of one fit into the next."""
    one, other = Outcome(), Outcome()
    one.history.add(1, 0.0, loss=1.0)
    one.info["seen"] = one.modules["critic"] = torch.nn.Linear(1, 1)
    assert not other.history.rows
    assert not other.info
    assert not other.modules


def test_circumstances_are_quiet_and_leave_nothing_unless_asked():
    run = Run(Data(torch.zeros(3)))
    assert (run.valid, run.seed, run.progress, run.checkpoint) == (None, 0, False, None)
