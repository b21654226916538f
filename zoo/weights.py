"""Row weights: how much each example counts in the sum over examples, as if it were there so many times.

They travel with the data, in the place of the context; a program's model and guide meet them as the scale of what lies
in the plate of examples (`poutine.scale`), and are given the context alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor

from zoo.arrays import as_tensor, check_finite
from zoo.errors import ShapeError, SupportError

__all__ = ["PlateScale", "Weighted", "weighed", "weighing", "weighs_rows"]


@dataclass(frozen=True)
class Weighted:
    """Weights (N,) of rows, and their context (N, ...) or None."""

    weights: Tensor
    context: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Weighted:
        """Each tensor changed."""
        return Weighted(change(self.weights), None if self.context is None else change(self.context))

    def like(self, tensors: list[Tensor]) -> Weighted:
        """The same with other tensors, in the order of `named`."""
        return Weighted(*tensors)

    def rows(self, index: Any) -> Weighted:
        """The chosen rows."""
        return self.map(lambda value: value[index])

    def to(self, *args: Any, **kwargs: Any) -> Weighted:
        """As `Tensor.to`."""
        return self.map(lambda value: value.to(*args, **kwargs))

    def named(self) -> dict[str, Tensor]:
        """'weights' and, where there is one, 'rows' -> tensor."""
        found = {"weights": self.weights}
        return found if self.context is None else {**found, "rows": self.context}


def weighed(weights: Any, x: Tensor, context: Tensor | None) -> Weighted:
    """Weights of any kind for examples that a program has accepted.

    Args:
        weights: (N,), none negative, not all zero: counts, or inverse probabilities of being in the sample.
        x: The examples.
        context: Their context.

    Raises: ShapeError, SupportError, NonFiniteError.
    """
    found = as_tensor(weights, "weights", x.dtype)
    if found.shape != (len(x),):
        raise ShapeError(f"There are {len(x)} examples and weights of shape {tuple(found.shape)}; give one for each.")
    check_finite("The weights", found)
    if bool((found < 0).any()) or not bool((found > 0).any()):
        raise SupportError(f"Weights must not be negative, and not all zero; got {found.min():g} to {found.max():g}.")
    return Weighted(found.to(x.device), context)


class PlateScale(Messenger):
    """Scales the sites of a plate, each of its rows by a number of its own or all by one.

    Args:
        plate: Its name; None is no plate.
        by: (rows,), or a number.
    """

    def __init__(self, plate: str | None, by: Tensor | float):
        super().__init__()
        self.plate, self.by = plate, by

    def _pyro_sample(self, msg: Any) -> None:
        if any(frame.name == self.plate for frame in msg["cond_indep_stack"]):
            msg["scale"] = msg["scale"] * self.by


def weighing(guide: Callable[..., Any], plate: str | None) -> Callable[..., Any]:
    """A guide that is none of a program's methods, an autoguide say, with the scale of the weights of its data."""

    def scaled(x: Any, context: Weighted, size: int | None = None) -> Any:
        with PlateScale(plate, context.weights):
            return guide(x, context.context, size)

    return scaled


def weighs_rows(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a program's model or guide meet weights as a scale."""

    @wraps(fn)
    def scaled(self: Any, x: Any = None, context: Any = None, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(context, Weighted):
            return fn(self, x, context, *args, **kwargs)
        with PlateScale(self.examples, context.weights):
            return fn(self, x, context.context, *args, **kwargs)

    return scaled
