"""What a wrong input gets: one error type for each kind of mistake.

Every message names the value, what was expected and what to do. They are raised before any compute is spent.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "BrokenProgramError",
    "CapabilityError",
    "CheckpointError",
    "DatasetError",
    "DivergenceError",
    "EmptyDataError",
    "ImplicitDensityError",
    "NonFiniteError",
    "OptionError",
    "ShapeError",
    "SupportError",
    "TooLargeError",
    "UnknownNameError",
    "UnnormalisedError",
    "ZooError",
]


class ZooError(Exception):
    """Base of all errors that the zoo raises on purpose."""


class ShapeError(ZooError, ValueError):
    """Data or context whose shape the program cannot take."""


class SupportError(ZooError, ValueError):
    """Values outside the support of the program (say, pixels in [0, 255] for a binary program)."""


class NonFiniteError(ZooError, ValueError):
    """NaN or infinity in the data."""


class EmptyDataError(ZooError, ValueError):
    """No examples at all."""


class OptionError(ZooError, ValueError):
    """An option whose value makes no sense, or an option that does not exist."""


class UnknownNameError(ZooError, KeyError):
    """A program, data set, method, suite or metric that does not exist; the message names the nearest ones."""

    FEW = 30
    """Names of options that are all listed."""

    def __init__(self, kind: str, name: str, known: Iterable[str]):
        name, known = str(name), sorted(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else ""
        # What was meant may be called otherwise: 'steps' are 'iterations' in EM.
        if not near or (kind.startswith("option") and len(known) <= self.FEW):
            hint = f"{hint} Known: {', '.join(known)}.".strip()
        self.message = f"Unknown {kind} {name!r}. {hint}"
        super().__init__(self.message)

    def __str__(self) -> str:  # KeyError would print the quoted repr
        return self.message


class BrokenProgramError(ZooError, ImportError):
    """A program whose file or package cannot be imported."""


class CapabilityError(ZooError, TypeError):
    """A method asks a program for something that the program does not promise."""


class ImplicitDensityError(CapabilityError):
    """The density of an implicit (sample-only) site was asked for."""


class UnnormalisedError(ImplicitDensityError):
    """The density of an energy-based model was asked for, which is known up to a constant only."""


class DatasetError(ZooError, OSError):
    """A data file that is missing, damaged (sha256) or of an unknown form."""


class TooLargeError(ZooError, MemoryError):
    """Data that stay in their file, of which something asks for all rows at once."""


class CheckpointError(ZooError, OSError):
    """A checkpoint that is missing, damaged or written by an incompatible version."""


class DivergenceError(ZooError, ArithmeticError):
    """A fit whose loss or parameters became non-finite."""
