"""A broken rule is told by number, with the site, the line and what to do."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

from tests.zoo.readings import TwoReadings
from zoo.errors import OptionError
from zoo.program import Program
from zoo.rules import ContractError, Position, draw_data, require, rule, said, sample_sites


def test_a_condition_that_holds_says_nothing():
    require(True, "never read")
    with pytest.raises(ContractError, match=r"^this$"):
        require(False, "this")


def test_data_are_drawn_from_the_program_and_are_the_same_each_time():
    x, context = draw_data(TwoReadings(), 5)
    assert x.shape == (5,)
    assert context is not None
    assert context.shape == (5,)
    assert torch.equal(draw_data(TwoReadings(), 5)[0], x)


def test_sites_come_in_the_order_of_the_run_without_the_plate():
    program = TwoReadings()
    assert list(sample_sites(program.model, *draw_data(program), None)) == ["z", "y", "x"]


class Falls(Program):
    """Raises in its model where it is told to."""

    where = "between"

    def model(self, x=None, context=None, size=None):
        if self.where == "first":
            raise RuntimeError("too early")
        with self.plate(x, context, size):
            a = pyro.sample("a", dist.Normal(torch.zeros(()), 1.0))
            if self.where == "between":
                a = a @ torch.zeros(5, 5)
            scale = -1.0 if self.where == "scale" else 1.0
            return pyro.sample("x", dist.Normal(a, torch.tensor(scale)), obs=x)


@pytest.mark.parametrize(
    ("where", "place"),
    [
        ("first", r"RuntimeError in model \(test_rules.py, line \d+\), before the first site: too early"),
        ("between", r"RuntimeError in model \(test_rules.py, line \d+\), after the site 'a': "),
        ("scale", r"ValueError in model \(test_rules.py, line \d+\), after the site 'a': "),
    ],
)
def test_an_exception_of_a_check_names_rule_line_site_and_remedy(where, place):
    @rule(11, "Do as told.")
    def check(program: Program) -> None:
        program.generate(3)

    program = Falls()
    program.where = where
    with pytest.raises(ContractError, match=f"^rule 11: {place}.* Do as told.$") as found:
        check(program)
    assert isinstance(found.value.__cause__, RuntimeError | ValueError)


def test_a_position_names_the_next_site_where_the_order_is_known():
    position = Position(["a", "x"])
    assert str(position) == "before the site 'a'"
    with position:
        pyro.sample("a", dist.Normal(0.0, 1.0))
    assert str(position) == "after the site 'a' and before the site 'x'"
    assert said(KeyError("k"), position) == "KeyError: 'k'"


def test_an_error_inside_a_site_is_at_that_site():
    class Refuses(dist.Normal):
        def rsample(self, sample_shape=()):
            raise RuntimeError("no")

    position = Position()
    with pytest.raises(RuntimeError), position:
        pyro.sample("b", Refuses(0.0, 1.0))
    assert str(position) == "at the site 'b'"


def test_a_check_that_passes_says_nothing_and_keeps_its_name():
    @rule(2, "Nothing.")
    def check_nothing(program: Program) -> None:
        """Always right."""

    assert check_nothing(TwoReadings()) is None
    assert (check_nothing.__name__, check_nothing.__doc__) == ("check_nothing", "Always right.")


def test_an_error_of_the_zoo_is_told_whole():
    @rule(4, "Mend it.")
    def check(program: Program) -> None:
        raise OptionError("two\nlines.")

    with pytest.raises(ContractError, match=r"^rule 4: OptionError: two\nlines. Mend it.$"):
        check(TwoReadings())
