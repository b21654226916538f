"""Which data a program accepts: one check for every door, and densities that are zero outside the support.

Every public door (fits, draws, evaluation, queries) hands its data to `Program.accept`, which converts and checks them
before anything is computed. Densities, which are also called inside training steps, check shapes alone and mask values.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from zoo.arrays import as_tensor, check_finite, check_rows
from zoo.errors import EmptyDataError, ShapeError, SupportError

__all__ = ["Acceptance", "same_support"]


def same_support(a: constraints.Constraint, b: constraints.Constraint) -> bool:
    """Whether two constraints are the same, also where a program was copied or pickled, which `is` does not survive."""
    return type(a) is type(b) and vars(a) == vars(b)


def _words(support: constraints.Constraint) -> str:
    return "one-hot rows" if same_support(support, constraints.one_hot) else str(support)


def _one_hot_hint(support: constraints.Constraint) -> str:
    if not same_support(support, constraints.one_hot):
        return ""
    return " Classes are given one-hot: torch.nn.functional.one_hot(labels, classes)."


# Every `log_prob` and `log_evidence` is wrapped as its class is made, so that no program can forget it: outside its
# support a density is zero, not whatever the formula says there. Only shapes raise, values are masked: a step stays
# traceable.


def _guarded_density(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """log p(x) by example: -inf outside the support, NaN under a context that cannot be."""

    @wraps(method)
    def log_prob(self: Acceptance, x: Tensor, context: Tensor | None = None) -> Tensor:
        x, context, possible, sound = _within(self, x, context)
        if len(x) == 0:
            return x.new_zeros(0)
        value = torch.where(possible, method(self, x, context), -torch.inf)
        return value if sound is None else torch.where(sound, value, torch.nan)

    return log_prob


def _guarded_evidence(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """log p(all data): -inf when any example is outside the support, NaN under a context that cannot be."""

    @wraps(method)
    def log_evidence(self: Acceptance, x: Tensor, context: Tensor | None = None) -> Tensor:
        x, context, possible, sound = _within(self, x, context)
        if len(x) == 0:
            return x.new_zeros(())
        value = torch.where(possible.all(), method(self, x, context), -torch.inf)
        return value if sound is None else torch.where(sound.all(), value, torch.nan)

    return log_evidence


def _within(
    program: Acceptance, x: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """x with what is outside the support replaced, context, and which rows of either need no replacement (B,)."""
    dtype = program._dtype()
    x = as_tensor(x, dtype=dtype)
    program._check_shape(x)
    if context is not None:
        context = as_tensor(context, "context", dtype)
    program._check_context_shape(context, len(x))
    possible = _satisfies(program.support, x)
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


class Acceptance:
    """The part of `Program`, a module, that says which data it takes: `event_shape`, `support`, `context_support`."""

    support: constraints.Constraint = constraints.real
    """What one number of x may be, for instance `constraints.boolean`."""
    event_shape: torch.Size = torch.Size()
    """Shape of one example."""
    context_support: constraints.Constraint = constraints.real
    """What one number, or one row, of a context may be: `constraints.positive`, `constraints.one_hot`."""

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        for name, guard in (("log_prob", _guarded_density), ("log_evidence", _guarded_evidence)):
            if name in vars(cls):
                setattr(cls, name, guard(vars(cls)[name]))

    def example_context(self, n: int) -> Tensor | None:
        """A plausible `context` of n rows for tests and `zoo show`; None for unconditional programs."""
        return None

    def check(self, x: Tensor, context: Tensor | None = None) -> None:
        """Raises the error that says what is wrong with a data set, or returns.

        Cheap (a few passes over the data), so that every public door asks it: fits, of both splits, `Fit.draw`, all of
        `inference.evaluation`.

        Raises: EmptyDataError, ShapeError, NonFiniteError, SupportError.
        """
        name = type(self).__name__
        x = as_tensor(x)
        if x.ndim == 0 or len(x) == 0:
            raise EmptyDataError(
                f"{name} got no examples (shape {tuple(x.shape)}); expected (N, *{tuple(self.event_shape)}) with "
                "N >= 1."
            )
        self._check_shape(x)
        self._check_context_shape(context, len(x))
        check_rows(x, name)
        check_finite(name, x)
        if not bool(self.support.check(x).all()):
            hint = ""
            if same_support(self.support, constraints.boolean):
                hint = " Binarise the data first (zoo.datasets.binarise, or the option --binarise)."
            raise SupportError(
                f"{name} needs values in {self.support}, got values from {x.min():g} to {x.max():g}.{hint}"
            )
        self.check_context(context)

    def check_context(self, context: Tensor | None) -> None:
        """Raises the error that says what is wrong with what a program is conditioned on, or returns.

        Raises: EmptyDataError, ShapeError, NonFiniteError, SupportError.
        """
        self._check_context_shape(context)
        if context is None:
            return
        name = type(self).__name__
        context = as_tensor(context, "context")
        if context.numel() == 0:
            raise EmptyDataError(f"{name} got a context without numbers, of shape {tuple(context.shape)}.")
        check_finite(name, context[:0], context)
        if not bool(self.context_support.check(context).all()):
            raise SupportError(
                f"{name} needs contexts in {_words(self.context_support)}, got values from {context.min():g} to "
                f"{context.max():g}.{_one_hot_hint(self.context_support)}"
            )

    def accept(self, x: Any, context: Any = None) -> tuple[Tensor, Tensor | None]:
        """Data of any kind as the program takes them: tensors of its dtype (`zoo.arrays.as_tensor`), checked.

        A program given by name is built in torch's default dtype, as files are read; for double precision set that, or
        hand over `program.double()`.

        Raises: what `as_tensor` and `check` raise.
        """
        dtype = self._dtype()
        x = as_tensor(x, dtype=dtype)
        context = None if context is None else as_tensor(context, "context", dtype)
        self.check(x, context)
        return x, context

    def accept_context(self, context: Any) -> Tensor | None:
        """A context of any kind as a tensor of the program's dtype, checked.

        Raises: what `as_tensor` and `check_context` raise.
        """
        context = None if context is None else as_tensor(context, "context", self._dtype())
        self.check_context(context)
        return context

    def _dtype(self) -> torch.dtype:
        """Of its parameters or buffers; torch's default where it has none."""
        module: Any = self
        for tensors in (module.parameters(), module.buffers()):
            for tensor in tensors:
                if tensor.is_floating_point():
                    return tensor.dtype
        return torch.get_default_dtype()

    def _check_shape(self, x: Tensor) -> None:
        name, shape = type(self).__name__, tuple(self.event_shape)
        if x.ndim == 0 or tuple(x.shape[1:]) != shape:
            raise ShapeError(
                f"{name} expects examples of shape {shape}, got {tuple(x.shape[1:])} (data of shape {tuple(x.shape)}). "
                f"Build the program for this data ({name}.for_data(x)) or reshape the data."
            )

    def _check_context_shape(self, context: Tensor | None, rows: int | None = None) -> None:
        """Knows only shapes, so that a step which asks it can be traced."""
        name, wants = type(self).__name__, self._context_shape()
        if wants is None:
            if context is not None:
                raise ShapeError(f"{name} takes no context, got one of shape {tuple(context.shape)}; pass x alone.")
            return
        if context is None:
            raise ShapeError(
                f"{name} is conditional: pass data as (x, context), context of shape (N, *{tuple(wants)})."
            )
        if context.ndim == 0 or context.shape[1:] != wants:
            raise ShapeError(
                f"{name} expects context rows of shape {tuple(wants)}, got {tuple(context.shape[1:])} (context of "
                f"shape {tuple(context.shape)}).{_one_hot_hint(self.context_support)}"
            )
        if rows is not None and len(context) != rows:
            raise ShapeError(f"{name}: {rows} examples but {len(context)} rows of context; they must match.")

    def _context_shape(self) -> torch.Size | None:
        """Of one row of context, found once; None for programs that take none."""
        if "_row_of_context" not in self.__dict__:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                example = self.example_context(2)
            self.__dict__["_row_of_context"] = None if example is None else example.shape[1:]
        return self.__dict__["_row_of_context"]
