"""What an option may be: its annotation says so, and one check reads it, for programs, their parts and methods alike.

    latent_dim: Count                      a whole number of at least 1
    lr: Positive                           a finite number above zero
    hidden: Counts                         a list of such whole numbers
    centered: bool                         true or false, which are no numbers
    draws: Annotated[int, Range(least=4)]  any other range

What has no annotation is not checked.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from inspect import signature
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import numpy as np

from zoo.errors import OptionError

__all__ = [
    "Count",
    "Counts",
    "Fraction",
    "Length",
    "Natural",
    "NonNegative",
    "OneOf",
    "Positive",
    "Probability",
    "Range",
    "Seed",
    "Shape",
    "Share",
    "Values",
    "check_call",
    "check_options",
    "check_value",
    "plain",
]


@dataclass(frozen=True)
class Range:
    """Bounds of a number; None is no bound. `least` and `most` belong to the range, `above` and `below` do not."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        if self.most is None and self.below is None:
            if self.above is not None:
                return "positive" if self.above == 0 else f"above {self.above}"
            return f"at least {self.least}"
        left = f"[{self.least}" if self.above is None else f"({self.above}"
        right = f"{self.most}]" if self.below is None else f"{self.below})"
        return f"in {left}, {right}"


@dataclass(frozen=True)
class OneOf:
    """One of some names."""

    known: tuple[str, ...]

    def __contains__(self, value: str) -> bool:
        return value in self.known

    def __str__(self) -> str:
        return f"one of {', '.join(map(repr, self.known))}"


@dataclass(frozen=True)
class Length:
    """How many a list has."""

    n: int

    def __contains__(self, value: Sequence[Any]) -> bool:
        return len(value) == self.n

    def __str__(self) -> str:
        return f"a list of {self.n}"


BOUNDS = (Range, OneOf, Length)

Count: TypeAlias = Annotated[int, Range(least=1)]
Natural: TypeAlias = Annotated[int, Range(least=0)]
Values: TypeAlias = Annotated[int, Range(least=2)]
"""How many values a discrete number can take."""
Seed: TypeAlias = Annotated[int, Range(least=0, most=2**63 - 1)]
Positive: TypeAlias = Annotated[float, Range(above=0)]
NonNegative: TypeAlias = Annotated[float, Range(least=0)]
Fraction: TypeAlias = Annotated[float, Range(least=0, most=1)]
Share: TypeAlias = Annotated[float, Range(least=0, below=1)]
"""What may be left out altogether but not taken whole: a dropout rate, the memory of an average."""
Probability: TypeAlias = Annotated[float, Range(above=0, below=1)]
"""A rate that is neither never nor always."""
Shape: TypeAlias = Sequence[Count]
Counts: TypeAlias = Sequence[Count]

LARGEST = 2**63
"""Whole numbers beyond 64 bits have no tensor."""
LEAST, MOST = 2.0**-126, 2.0**127
"""Sizes of other numbers: a program may be in single precision, where less is zero and more is infinite."""


def plain(value: Any) -> Any:
    """A value with Python's numbers for NumPy's scalars, which loops over arrays give; in lists and mappings too."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value


def check_value(name: str, value: Any, hint: Any) -> None:
    """Checks one value against an annotation.

    Raises: OptionError, naming option, value and what was expected.
    """
    problem = _problem(value, hint)
    if problem is not None:
        raise OptionError(f"{name} must be {problem}, got {_shown(value)}.")


def check_options(make: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Checks options against the annotations of what takes them: a function, a constructor, a dataclass's fields.

    Raises: OptionError, naming option, value and what was expected.
    """
    hints = _hints(make)
    for name, value in options.items():
        if name in hints:
            check_value(name, value, hints[name])


def check_call(make: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Checks the arguments of a constructor; a call that does not fit the signature is left to Python.

    Raises: OptionError.
    """
    if args or kwargs:
        try:
            bound = signature(make.__init__).bind_partial(None, *args, **kwargs)  # type: ignore[misc]
        except TypeError:
            return
        check_options(make, bound.arguments)


@cache
def _hints(make: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of arguments, with what `Annotated` says; none where they cannot be read."""
    # What a class says of its attributes holds for its constructor where the fields of a dataclass make that.
    place: Any = make.__init__ if isinstance(make, type) and not is_dataclass(make) else make  # type: ignore[misc]
    try:
        return get_type_hints(place, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}


def _problem(value: Any, hint: Any) -> str | None:
    """What the value must be, if it is not that; None if it is."""
    if hint is Any:
        return None
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _problem(value, arguments[0]) or _outside(value, arguments[1:])
    if origin in (Union, types.UnionType):
        return _problem_of_all(value, arguments)
    if origin is Literal:
        return None if value in arguments else f"one of {', '.join(map(repr, arguments))}"
    kind = origin or hint
    if kind is tuple and arguments and arguments[-1] is not ...:
        fits = isinstance(value, list | tuple) and len(value) == len(arguments)
        fits = fits and all(_problem(v, h) is None for v, h in zip(value, arguments, strict=True))
        return None if fits else f"a list of {len(arguments)}: {', '.join(map(describe, arguments))}"
    if kind in (Sequence, list, tuple):
        if not isinstance(value, list | tuple):
            return describe(hint)
        return next((describe(hint) for v in value if arguments and _problem(v, arguments[0])), None)
    if kind is Mapping or kind is dict:
        fits = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
        if fits and len(arguments) == 2:
            fits = all(_problem(v, arguments[1]) is None for v in value.values())
        return None if fits else describe(hint)
    return _problem_of_one(value, kind)


def _problem_of_one(value: Any, kind: Any) -> str | None:
    """The same for what has no parts."""
    if kind in (None, types.NoneType):
        return None if value is None else "None"
    if kind is int:
        if not isinstance(value, int) or isinstance(value, bool):
            return describe(int)
        return None if abs(value) < LARGEST else "a whole number of at most 64 bits"
    if kind is float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return describe(float)
        if not abs(value) < math.inf:
            return "a finite number"
        return None if value == 0 or LEAST <= abs(value) <= MOST else f"0 or a number from {LEAST:.2g} to {MOST:.2g}"
    if getattr(kind, "_is_protocol", False) or not isinstance(kind, type):
        return None  # Callable and other things that are asked for what they do
    return None if isinstance(value, kind) else describe(kind)


def _problem_of_all(value: Any, hints: Sequence[Any]) -> str | None:
    """The same for alternatives: what is wrong with the value is named where the type is right, else all of them."""
    problems = [_problem(value, hint) for hint in hints]
    if None in problems:
        return None
    for hint, problem in zip(hints, problems, strict=True):
        kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if _problem(value, kind) != describe(kind):  # of the right type, but out of range, not finite, too large
            return problem
    return " or ".join(dict.fromkeys(describe(hint) for hint in hints))


def _outside(value: Any, bounds: Sequence[Any]) -> str | None:
    return next((str(b) for b in bounds if isinstance(b, BOUNDS) and value not in b), None)


NOUNS: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("a name", "names"),
    type(None): ("None", "None"),
}


def describe(hint: Any, many: bool = False) -> str:
    """An annotation in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [str(b) for b in arguments[1:] if isinstance(b, BOUNDS)]
        return ", ".join([describe(arguments[0], many), *(f"each {b}" if many else b for b in bounds)])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe(each, many) for each in arguments))
    kind = origin or hint
    if kind in NOUNS:
        return NOUNS[kind][many]
    if kind in (Sequence, list, tuple):
        return ("lists" if many else "a list") + (f" of {describe(arguments[0], True)}" if arguments else "")
    if kind in (Mapping, dict):
        values = "" if len(arguments) < 2 or arguments[1] is Any else f" to {describe(arguments[1], True)}"
        return f"a mapping of names{values or ' and values'}"
    name = getattr(kind, "__name__", str(kind))
    return "a function" if name == "Callable" else f"a {name}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
