"""What belongs to the whole process, and how to be a good guest in it.

Pyro's stack of handlers, its parameter store and its validation, and torch's random state are one for all threads. Two
computations that use them at a time give numbers that neither would give alone, without an error. So whatever draws,
traces or fits here holds `LOCK`: in threads it runs one after the other, and to the same numbers as without them.
Processes have state of their own and run beside each other.
"""

from __future__ import annotations

import ctypes
import random
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch.distributions import Distribution

__all__ = ["LOCK", "guest", "one_at_a_time", "set_seed", "trim_memory", "undisturbed"]

LOCK = threading.RLock()
"""Held by whoever uses what threads share; the same thread may take it again."""

P = ParamSpec("P")
R = TypeVar("R")


def one_at_a_time(function: Callable[P, R]) -> Callable[P, R]:
    """The function, holding `LOCK` while it runs."""

    @wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with LOCK:
            return function(*args, **kwargs)

    return alone


def set_seed(seed: int) -> None:
    """`torch.manual_seed`, of all devices that there are.

    For those that may come torch keeps the seed beside the text of the whole stack of calls, three times: in a deep
    stack that takes longer than a step of training.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def trim_memory() -> None:
    """Gives back to the system what was freed; glibc would keep it for the process. Elsewhere, nothing."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def guest(name: str) -> Any:
    """A module of another package, imported when it is asked for (that takes seconds); the process stays as it was."""
    with undisturbed():
        return import_module(name)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Around imports: leaves the process as it was.

    zuko switches the validation of torch's distributions off for everybody when it is imported, others add filters of
    warnings, and some draw from Python's random numbers.
    """
    validate, filters = Distribution._validate_args, warnings.filters[:]
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        Distribution.set_default_validate_args(validate)
        if warnings.filters != filters:
            warnings.filters[:] = filters  # type: ignore[index]
            warnings._filters_mutated()  # type: ignore[attr-defined]
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
