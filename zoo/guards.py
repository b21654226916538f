"""What stands before the densities of programs: checks of shapes that raise, and masks of values that do not.

Every `log_prob` and `log_evidence` is wrapped as its class is made, so that no program can forget it: outside its
support a density is zero, not whatever the formula says there. Only shapes raise, values are masked: a step stays
traceable.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from zoo.arrays import as_tensor
from zoo.errors import ShapeError

__all__ = [
    "check_context_shape", "check_shape", "guarded_density", "guarded_evidence", "one_hot_hint", "same_support",
    "unguarded", "words",
]  # fmt: skip


def same_support(a: constraints.Constraint, b: constraints.Constraint) -> bool:
    """Whether two constraints are the same, also where a program was copied or pickled, which `is` does not survive."""
    return type(a) is type(b) and vars(a) == vars(b)


def words(support: constraints.Constraint) -> str:
    """What numbers may be, for errors."""
    if same_support(support, constraints.one_hot):
        return "one-hot rows"
    if isinstance(support, type(constraints.integer_interval(0, 1))):
        return f"whole numbers from {support.lower_bound} to {support.upper_bound}"
    return str(support)


def one_hot_hint(support: constraints.Constraint) -> str:
    """How classes are given, where they are asked for."""
    if not same_support(support, constraints.one_hot):
        return ""
    return " Classes are given one-hot: torch.nn.functional.one_hot(labels, classes)."


def check_shape(program: Any, x: Tensor) -> None:
    """Raises ShapeError where x is not (N, *event_shape)."""
    name, shape = type(program).__name__, tuple(program.event_shape)
    if x.ndim == 0 or tuple(x.shape[1:]) != shape:
        raise ShapeError(
            f"{name} expects examples of shape {shape}, got {tuple(x.shape[1:])} (data of shape {tuple(x.shape)}). "
            f"Build the program for this data ({name}.for_data(x)) or reshape the data."
        )


def check_context_shape(program: Any, context: Tensor | None, rows: int | None = None) -> None:
    """Raises ShapeError where a context is missing, too many, or of other rows; looks at shapes alone."""
    name, wants = type(program).__name__, program.row_of_context()
    if wants is None:
        if context is not None:
            raise ShapeError(
                f"{name} takes no context, got one of shape {tuple(context.shape)}; pass x alone (of pairs, such as a "
                "data set of torch holds, Data.of(data, target=0))."
            )
        return
    if context is None:
        shape = ", ".join(map(str, ("N", *wants)))
        raise ShapeError(
            f"{name} is conditional: pass data as (x, context), the context of shape ({shape})."
            f"{one_hot_hint(program.context_support)} Of a file or folder: context=... (--context), NAME-labelled for "
            "its classes, or folders A and B for pairs of images."
        )
    if context.ndim == 0 or context.shape[1:] != wants:
        raise ShapeError(
            f"{name} expects context rows of shape {tuple(wants)}, got {tuple(context.shape[1:])} (context of "
            f"shape {tuple(context.shape)}).{one_hot_hint(program.context_support)}"
        )
    if rows is not None and len(context) != rows:
        raise ShapeError(f"{name}: {rows} examples but {len(context)} rows of context; they must match.")


def guarded_density(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """log p(x) by example: -inf outside the support, NaN under a context that cannot be."""

    @wraps(method)
    def log_prob(self: Any, x: Tensor, context: Tensor | None = None) -> Tensor:
        x, context, possible, sound = _within(self, x, context)
        if len(x) == 0:
            return x.new_zeros(0)
        value = torch.where(possible, method(self, x, context), -torch.inf)
        return value if sound is None else torch.where(sound, value, torch.nan)

    log_prob.unguarded = method  # type: ignore[attr-defined]
    return log_prob


def guarded_evidence(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """log p(all data): -inf when any example is outside the support, NaN under a context that cannot be."""

    @wraps(method)
    def log_evidence(self: Any, x: Tensor, context: Tensor | None = None) -> Tensor:
        x, context, possible, sound = _within(self, x, context)
        if len(x) == 0:
            return x.new_zeros(())
        value = torch.where(possible.all(), method(self, x, context), -torch.inf)
        return value if sound is None else torch.where(sound.all(), value, torch.nan)

    log_evidence.unguarded = method  # type: ignore[attr-defined]
    return log_evidence


def unguarded(density: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A program's `log_prob` or `log_evidence` for data that its `accept` gave: nothing looks at their values again.

    A fit has its data checked once. The masks of each minibatch are passes over all its numbers, as many as a small
    program takes to compute.
    """
    method = getattr(density, "unguarded", None)
    return density if method is None else MethodType(method, density.__self__)  # type: ignore[attr-defined]


def _within(program: Any, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """x with what is outside the support replaced, context, and which rows of either need no replacement (B,)."""
    dtype = program.computes_in()
    x = as_tensor(x, dtype=dtype)
    check_shape(program, x)
    if context is not None:
        context = as_tensor(context, "context", dtype)
    check_context_shape(program, context, len(x))
    possible = _satisfies(program.support, x)
    if program.takes_missing:
        possible = possible | x.isnan()
    # So that no formula sees them: an index out of range would raise, a NaN would reach all gradients.
    safe = torch.where(possible.reshape(possible.shape + (1,) * (x.ndim - possible.ndim)), x, _inside(program.support))
    rows = possible.reshape(len(x), -1).all(-1) if len(x) else possible
    if context is None or len(x) == 0:
        return safe, context, rows, None
    return safe, context, rows, _satisfies(program.context_support, context).reshape(len(x), -1).all(-1)


def _satisfies(support: constraints.Constraint, values: Tensor) -> Tensor:
    """Number by number, or of fewer dimensions where the support is of whole vectors."""
    if isinstance(support, type(constraints.real)):
        return torch.isfinite(values)
    found = support.check(values)
    if not support.is_discrete and found.shape == values.shape:
        found = found & torch.isfinite(values)
    return found


def _inside(support: constraints.Constraint) -> float:
    """Some number of a support."""
    low = float(getattr(support, "lower_bound", 0.0))
    return low + 1.0 if isinstance(support, type(constraints.positive)) else low
