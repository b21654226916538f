"""Parts of programs that are chosen by name: a name, or a mapping of it and options, as JSON can hold them.

"levels"      {"name": "levels", "values": 16}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, TypeVar

from zoo.errors import OptionError, UnknownNameError
from zoo.options import check_options

__all__ = ["Spec", "make_part", "name_of_part", "with_options"]

Spec = str | Mapping[str, Any]
"""A name, or {"name": ..., option: value, ...}."""
Part = TypeVar("Part")


def make_part(kind: str, spec: Spec, known: Mapping[str, Callable[..., Part]], **given: Any) -> Part:
    """What a spec says.

    Args:
        kind: What it is a part of, for errors: 'likelihood', say.
        spec: A name, or a mapping of a name and options.
        known: Name -> what makes it.
        given: What the owner tells it, as far as it asks; no options of the spec.

    Raises: UnknownNameError for a name or an option that there is not; OptionError for what is no spec.
    """
    name = name_of_part(kind, spec, known)
    options = {} if isinstance(spec, str) else {key: value for key, value in spec.items() if key != "name"}
    asked = set(signature(known[name]).parameters)
    return with_options(name, known[name], options, **{key: value for key, value in given.items() if key in asked})


def name_of_part(kind: str, spec: Spec, known: Mapping[str, Any]) -> str:
    """The name in a spec.

    Raises: UnknownNameError; OptionError for what is no spec.
    """
    if not isinstance(spec, str | Mapping):
        raise OptionError(f'{kind} must be a name or a mapping such as {{"name": ...}} with options, got {spec!r}.')
    name = spec if isinstance(spec, str) else str(spec.get("name", ""))
    if name not in known:
        raise UnknownNameError(kind, name, known)
    return name


def with_options(what: str, make: Callable[..., Part], options: Mapping[str, Any], **given: Any) -> Part:
    """make(**given, **options).

    Raises: UnknownNameError for an option that `make` does not take; OptionError for a value that it does not.
    """
    known = set(signature(make).parameters) - set(given)
    for option in options:
        if option not in known:
            raise UnknownNameError(f"option of {what}", str(option), known)
    check_options(make, options)
    return make(**given, **options)
