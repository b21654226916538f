"""Parts by name: a name or a mapping, options that exist, errors that name what is known."""

from __future__ import annotations

import pytest

from zoo.errors import OptionError, UnknownNameError
from zoo.specs import make_part, name_of_part


class Box:
    def __init__(self, size: int = 1, colour: str = "red", owner: int = 0):
        self.made = (size, colour, owner)


class Bag:
    def __init__(self, owner: int):
        self.owner = owner


KNOWN = {"box": Box, "bag": Bag}


def test_a_name_has_the_usual_options_and_a_mapping_others() -> None:
    assert make_part("thing", "box", KNOWN).made == (1, "red", 0)
    assert make_part("thing", {"name": "box", "size": 3}, KNOWN).made == (3, "red", 0)


def test_the_owner_tells_a_part_what_it_asks_for() -> None:
    assert make_part("thing", {"name": "box", "colour": "blue"}, KNOWN, owner=7, unasked=1).made == (1, "blue", 7)
    assert make_part("thing", "bag", KNOWN, owner=7).owner == 7


@pytest.mark.parametrize(
    ("spec", "error", "named"),
    [
        ("bow", UnknownNameError, "thing"),
        ({"size": 3}, UnknownNameError, "thing"),
        ({"name": "box", "sise": 3}, UnknownNameError, "option of box"),
        ({"name": "box", "owner": 3}, UnknownNameError, "option of box"),  # what the owner tells is no option
        (["box"], OptionError, "thing must be a name or a mapping"),
        (None, OptionError, "thing must be a name or a mapping"),
        ({"name": "box", "size": "large"}, OptionError, "size must be a whole number, got 'large'"),
    ],
)
def test_what_is_no_part_is_refused(spec: object, error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        make_part("thing", spec, KNOWN, owner=1)  # type: ignore[arg-type]


def test_the_name_of_a_part() -> None:
    assert name_of_part("thing", {"name": "bag"}, KNOWN) == "bag"
