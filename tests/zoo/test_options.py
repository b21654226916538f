"""Options from annotations: types, ranges, finite numbers; the message says what was expected."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from zoo.errors import OptionError
from zoo.options import (
    Count,
    Counts,
    Fraction,
    Length,
    Natural,
    NonNegative,
    OneOf,
    Positive,
    Probability,
    Range,
    Seed,
    Share,
    Values,
    check_call,
    check_options,
    check_value,
    plain,
)

RIGHT: list[tuple[Any, Any]] = [
    (int, -3),
    (Count, 1),
    (Natural, 0),
    (Values, 2),
    (Seed, 2**63 - 1),
    (float, -2.5),
    (float, 3),  # a whole number is a number
    (Positive, 1e-30),
    (Annotated[Sequence[Share], Length(2)], (0.0, 0.5)),
    (NonNegative, 0),
    (Fraction, 1),
    (Share, 0.0),
    (Probability, 0.5),
    (bool, True),
    (str, ""),
    (Counts, [3, 4]),
    (Counts, (3,)),
    (Counts, []),
    (Count | None, None),
    (Count | Mapping[str, Any], {"count": 3}),
    (Mapping[str, NonNegative], {"a": 0.5}),
    (Sequence[Count | Sequence[Count]], [3, [1, 2]]),
    (tuple[int, str], [1, "a"]),
    (str | Callable[..., Any], math.sqrt),
    (Annotated[str, OneOf(("a", "b"))], "b"),
    (Literal["a", 3], 3),
    (Any, object()),
    (random.Random, random.Random()),
]

WRONG: list[tuple[Any, Any, str]] = [
    (int, "abc", "a whole number, got 'abc'"),
    (int, 2.5, "a whole number"),
    (int, 50.0, "a whole number"),
    (int, True, "a whole number, got True"),
    (int, None, "a whole number"),
    (int, 10**30, "at most 64 bits"),
    (Count, 0, "at least 1, got 0"),
    (Natural, -1, "at least 0"),
    (Values, 1, "at least 2"),
    (Seed, 2**63, "a whole number of at most 64 bits"),
    (Seed, -1, r"in \[0, 9223372036854775807\]"),
    (float, "0.1", "a number, got '0.1'"),
    (float, True, "a number"),
    (float, math.nan, "a finite number, got nan"),
    (float, math.inf, "a finite number, got inf"),
    (float, -math.inf, "a finite number"),
    (float, 1e-320, "0 or a number from"),
    (float, 1e300, "0 or a number from"),
    (float, 1e-39, "0 or a number from 1.2e-38 to 1.7e\\+38"),  # which single precision has not
    (float, 10**400, "0 or a number from"),
    (Positive, 0, "positive, got 0"),
    (Annotated[Sequence[Share], Length(2)], [0.5], "a list of 2"),
    (NonNegative, -1e-9, "at least 0"),
    (Fraction, 1.1, r"in \[0, 1\]"),
    (Share, 1.0, r"in \[0, 1\)"),
    (Probability, 0.0, r"in \(0, 1\)"),
    (bool, 1, "true or false, got 1"),
    (bool, "true", "true or false"),
    (str, 3, "a name, got 3"),
    (Counts, 5, "a list of whole numbers, each at least 1, got 5"),
    (Counts, "55", "a list of whole numbers"),
    (Counts, [3, 0], r"each at least 1, got \[3, 0\]"),
    (Counts, [3.0], "a list of whole numbers"),
    (Count | None, 0, "at least 1, got 0"),
    (Count | None, "a", "a whole number, at least 1 or None, got 'a'"),
    (Mapping[str, Any], [("a", 1)], "a mapping of names and values"),
    (Mapping[str, NonNegative], {"a": -1}, "a mapping of names to numbers, each at least 0"),
    (tuple[int, str], [1, 2], "a list of 2: a whole number, a name"),
    (str | Callable[..., Any], 3, "a name or a function"),
    (Annotated[str, OneOf(("a", "b"))], "c", "one of 'a', 'b', got 'c'"),
    (Annotated[int, Range(above=2)], 2, "above 2"),
    (Literal["a", 3], "b", "one of 'a', 3"),
    (random.Random, 3, "a Random, got 3"),
]


@pytest.mark.parametrize(("hint", "value"), RIGHT)
def test_what_is_right_passes(hint: Any, value: Any) -> None:
    check_value("option", value, hint)


@pytest.mark.parametrize(("hint", "value", "expected"), WRONG)
def test_what_is_wrong_is_named_with_what_was_expected(hint: Any, value: Any, expected: str) -> None:
    with pytest.raises(OptionError, match=f"option must be .*{expected}" if "must" not in expected else expected):
        check_value("option", value, hint)


def test_a_long_value_is_cut() -> None:
    with pytest.raises(OptionError, match=r"\.\.\.\.$") as caught:
        check_value("option", "a" * 10_000, int)
    assert len(str(caught.value)) < 200


@dataclass
class Box:
    width: Count = 1
    colour: str = "red"


class Crate(Box):
    def __init__(self, width: Count, lid: bool = True, unknown: NoSuchType = 3):  # type: ignore[name-defined] # noqa: F821
        super().__init__(width)


def bare(a, b=2):  # type: ignore[no-untyped-def]
    return a, b


def test_fields_arguments_and_what_has_no_annotation() -> None:
    check_options(Box, {"width": 3, "no such option": object()})
    with pytest.raises(OptionError, match="colour must be a name, got 3"):
        check_options(Box, {"colour": 3})
    check_options(bare, {"a": object()})
    check_call(Box, (3,), {"colour": "blue"})
    check_call(Box, (), {})
    check_call(Box, (1, 2, 3, 4), {})  # Python says that
    with pytest.raises(OptionError, match="width must be at least 1"):
        check_call(Box, (0,), {})
    with pytest.raises(OptionError, match="width must be at least 1"):
        check_call(Crate, (0,), {})  # an annotation that cannot be read leaves the fields' own


class Attributed:
    """Its attribute is of another type than what its constructor makes it from."""

    size: tuple[int, ...] = ()

    def __init__(self, size=2) -> None:
        self.size = (size, size)


def test_what_a_class_says_of_an_attribute_is_no_option() -> None:
    check_options(Attributed, {"size": 3})
    check_call(Attributed, (3,), {})


def test_scalars_of_numpy_are_numbers() -> None:
    given = {"a": np.int64(3), "b": [np.float32(0.5), 1], "c": {"d": np.bool_(True)}, "e": (np.int8(1),), "f": "x"}
    found = plain(given)
    assert found == {"a": 3, "b": [0.5, 1], "c": {"d": True}, "e": (1,), "f": "x"}
    assert [type(v) for v in (found["a"], found["b"][0], found["c"]["d"])] == [int, float, bool]
