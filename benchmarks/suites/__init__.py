"""The suites by name; a new suite is a module with a `SUITE` and one line here. (`speed` is of another kind.)"""

from __future__ import annotations

from importlib import import_module

from benchmarks.suite import Suite
from zoo.errors import UnknownNameError

__all__ = ["SUITES", "get_suite"]

SUITES: dict[str, str] = {
    "main": "benchmarks.suites.main",
    "posterior": "benchmarks.suites.posterior",
    "density": "benchmarks.suites.density",
    "aevb": "benchmarks.suites.aevb",
    "published": "benchmarks.suites.published",
    "anomalies": "benchmarks.suites.anomalies",
    "adversarial": "benchmarks.suites.adversarial",
    "translation": "benchmarks.suites.translation",
    "regression": "benchmarks.suites.regression",
    "restoration": "benchmarks.suites.restoration",
}
"""Name -> module that declares SUITE."""


def get_suite(name: str) -> Suite:
    """The declaration behind a name.

    Raises: UnknownNameError, naming the nearest.
    """
    if name not in SUITES:
        raise UnknownNameError("suite", name, [*SUITES, "speed"])
    suite: Suite = import_module(SUITES[name]).SUITE
    return suite
