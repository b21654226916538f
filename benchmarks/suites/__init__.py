"""The suites by name; a new suite is a module with a `SUITE` and one line here. (`speed` is of another kind.)

Suites of others are found in a file, `get_suite("mine.py:SUITE")`, or in other packages (entry points `zoo.suites`).
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

from benchmarks.suite import Suite
from zoo import catalogue
from zoo.errors import OptionError, UnknownNameError
from zoo.options import check_value
from zoo.plugins import plugins

__all__ = ["SUITES", "get_suite"]

SUITES: dict[str, str] = {
    "main": "benchmarks.suites.main",
    "posterior": "benchmarks.suites.posterior",
    "references": "benchmarks.suites.references",
    "density": "benchmarks.suites.density",
    "aevb": "benchmarks.suites.aevb",
    "published": "benchmarks.suites.published",
    "anomalies": "benchmarks.suites.anomalies",
    "adversarial": "benchmarks.suites.adversarial",
    "translation": "benchmarks.suites.translation",
    "regression": "benchmarks.suites.regression",
    "restoration": "benchmarks.suites.restoration",
    "representation": "benchmarks.suites.representation",
    "topics": "benchmarks.suites.topics",
}
"""Name -> module that declares SUITE."""


ENTRY_POINT_GROUP = "zoo.suites"


def get_suite(name: str) -> Suite:
    """The declaration behind a name, a 'file.py:SUITE' or a 'package.module:SUITE'; 'file.py' alone will do.

    Raises: UnknownNameError, naming the nearest; BrokenProgramError where the file's code fails; OptionError for what
        is no suite, or is called like one of ours.
    """
    check_value("suite", name, str)
    if name in SUITES:
        ours: Suite = import_module(SUITES[name]).SUITE
        return ours
    points = plugins(ENTRY_POINT_GROUP)
    location, known = points.get(name, name), [*SUITES, *points, "speed"]
    if location.endswith(".py"):
        location += ":SUITE"
    if ":" not in location:
        raise UnknownNameError("suite", name, known)
    module, wanted = catalogue.code_at("suite", name, location, known)
    found = getattr(module, wanted, None)
    where = location.rpartition(":")[0]
    if not isinstance(found, Suite):
        said = f"has no {wanted!r}" if found is None else f"has a {type(found).__name__} as {wanted!r}"
        raise OptionError(f"{where} {said}; give benchmarks.suite.Suite(name, title, question, grids) that name.")
    if found.name in (*SUITES, "speed"):
        raise OptionError(f"The suite of {where} is called {found.name!r}, as one of the project's own; rename it.")
    return replace(found, source=f"{module.__file__ if where.endswith('.py') else where}:{wanted}")
