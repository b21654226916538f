"""Every option of every program and method, with values that it cannot have: a table by type, from the annotations.

What is not refused by its type must still be built or refused with an error of ours, never with one of torch.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from inference.fit import METHODS, make_method
from zoo import catalogue
from zoo.catalogue import BUILTIN
from zoo.errors import OptionError, UnknownNameError, ZooError

# One value of each type; an option takes the values of one or two of them.
VALUES: list[Any] = [
    "no-such-name", "", 0, -1, 1, 2, 2.5, 1e-320, 10**30, True, None, [], [0], [3], ["a"], [[3]], {}, {"name": "none"},
    {"name": 3}, {3: 3}, (2, 2), object,
]  # fmt: skip
NEVER: list[Any] = [math.nan, math.inf, -math.inf, b"bytes", {1, 2}, 1j, [None], [math.nan], {"a": math.nan}]
"""No option takes these: what has no JSON, and numbers that are none."""
SIGNED = {("normal", "prior_mean"), ("method svi", "alpha")}
"""The options that are numbers below zero."""
FREE = {"masks": {int, dict}, "information": {int, float, dict}, "guide": {type}, "optimizer": {type}}
"""Options of more than one type."""


def taken(make: Any, option: str, value: Any) -> bool:
    """Whether an option takes a value. Raises what is no error of ours."""
    try:
        make(**{option: value})
    except ZooError:
        return False
    return True


OWNERS: dict[str, Any] = {name: catalogue.get(name) for name in BUILTIN} | {
    f"method {name}": type(make_method(name)) for name in METHODS
}


@pytest.mark.parametrize("name", OWNERS)
def test_no_value_of_an_option_ends_in_an_error_of_torch(name: str) -> None:
    make = OWNERS[name]
    for option in make.option_names():
        right = [value for value in VALUES if taken(make, option, value)]
        assert not [value for value in NEVER if taken(make, option, value)], option
        kinds = {type(value) for value in right} - {type(None)}
        assert kinds <= FREE.get(option, set()) or len(kinds - {float, list, tuple}) <= 1, (option, right)
        if (name, option) not in SIGNED:
            assert -1 not in right, option


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(UnknownNameError, match=r"option of vae 'latent_dims'\. Did you mean 'latent_dim'"):
        catalogue.create("vae", latent_dims=1)
    with pytest.raises(UnknownNameError, match=r"option of svi 'lrr'\. Did you mean 'lr'"):
        make_method("svi", lrr=1)
    with pytest.raises(OptionError, match="latent_dim must be a whole number, got 'abc'"):
        catalogue.create("vae", latent_dim="abc")


def test_what_only_the_constructor_finds_out_is_an_error_of_ours_too() -> None:
    with pytest.raises(OptionError, match=r"vae cannot be built with latent_dim=1000000000000: RuntimeError"):
        catalogue.create("vae", latent_dim=10**12)
