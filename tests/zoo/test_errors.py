"""Errors name the value and the nearest names, and are what Python's own handlers expect."""

from __future__ import annotations

import pytest

from zoo import errors


def test_an_unknown_name_names_the_nearest_or_all():
    near = errors.UnknownNameError("method", "swi", ["nuts", "svi", "em"])
    assert str(near) == "Unknown method 'swi'. Did you mean 'svi'?"
    assert str(errors.UnknownNameError("method", "?", ["nuts", "em"])) == "Unknown method '?'. Known: em, nuts."
    option = errors.UnknownNameError("option of hmm or em", "steps", ["states", "iterations"])
    assert str(option).endswith("'steps'. Did you mean 'states'? Known: iterations, states.")
    many = errors.UnknownNameError("option", "steps", ["states", *map(str, range(30))])
    assert str(many) == "Unknown option 'steps'. Did you mean 'states'?"


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.ShapeError, ValueError),
        (errors.SupportError, ValueError),
        (errors.OptionError, ValueError),
        (errors.UnknownNameError, KeyError),
        (errors.CapabilityError, TypeError),
        (errors.ImplicitDensityError, errors.CapabilityError),
        (errors.DatasetError, OSError),
        (errors.TooLargeError, MemoryError),
        (errors.CheckpointError, OSError),
        (errors.DivergenceError, ArithmeticError),
    ],
)
def test_every_error_is_ours_and_pythons(error, builtin):
    assert issubclass(error, errors.ZooError)
    assert issubclass(error, builtin)


def test_all_errors_are_public():
    ours = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.ZooError)
    }
    assert ours == set(errors.__all__)
