"""Which data a program accepts: one check for every door.

Every public door (fits, draws, evaluation, queries) hands its data to `Program.accept`, which converts and checks them
before anything is computed. Densities, which are also called inside training steps, have `zoo.guards` before them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from zoo.arrays import as_tensor, check_finite, check_rows
from zoo.errors import EmptyDataError, SupportError
from zoo.guards import (
    check_context_shape,
    check_shape,
    guarded_density,
    guarded_evidence,
    one_hot_hint,
    same_support,
    words,
)
from zoo.stored import blocks

__all__ = ["Acceptance"]


class Acceptance:
    """The part of `Program`, a module, that says which data it takes: `event_shape`, `support`, `context_support`."""

    support: constraints.Constraint = constraints.real
    """What one number of x may be, for instance `constraints.boolean`."""
    event_shape: torch.Size = torch.Size()
    """Shape of one example."""
    context_support: constraints.Constraint = constraints.real
    """What one number, or one row, of a context may be: `constraints.positive`, `constraints.one_hot`."""
    takes_missing: bool = False
    """Whether NaN in x is a number that was not observed, which densities integrate out; model, guide and densities
    then look at data through `seen`."""

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        for name, guard in (("log_prob", guarded_density), ("log_evidence", guarded_evidence)):
            if name in vars(cls):
                setattr(cls, name, guard(vars(cls)[name]))

    def example_context(self, n: int) -> Tensor | None:
        """A plausible `context` of n rows for tests and `zoo show`; None for unconditional programs."""
        return None

    def check(self, x: Tensor, context: Tensor | None = None) -> None:
        """Raises the error that says what is wrong with a data set, or returns.

        Cheap (a few passes over the data), so that every public door asks it: fits, of both splits, `Fit.draw`, all of
        `inference.evaluation`.

        Missing values, NaN, pass where the program `takes_missing`, never in a context.

        Raises: EmptyDataError, ShapeError, NonFiniteError, SupportError.
        """
        name = type(self).__name__
        x = as_tensor(x)
        if x.ndim == 0 or len(x) == 0:
            raise EmptyDataError(
                f"{name} got no examples (shape {tuple(x.shape)}); expected (N, *{tuple(self.event_shape)}) with "
                "N >= 1."
            )
        check_shape(self, x)
        check_context_shape(self, context, len(x))
        check_rows(x, name)
        check_finite(name, x, missing=self.takes_missing)
        for part in blocks(x):
            found = part[~part.isnan()] if self.takes_missing and bool(part.isnan().any()) else part
            if not bool(self.support.check(found).all()):
                hint = ""
                if same_support(self.support, constraints.boolean):
                    hint = " Binarise the data first (zoo.datasets.binarise, or the option --binarise)."
                    options = getattr(self, "option_names", list)
                    kind = next((name for name in ("likelihood", "emission") if name in options()), None)
                    if kind is not None:
                        hint = f"{hint[:-1]}, or choose a density of real numbers: {kind}='normal' (-o {kind}=normal)."
                span = f"values from {found.min():g} to {found.max():g}"
                raise SupportError(f"{name} needs values in {words(self.support)}, got {span}.{hint}")
        self.check_context(context)

    def check_context(self, context: Tensor | None) -> None:
        """Raises the error that says what is wrong with what a program is conditioned on, or returns.

        Raises: EmptyDataError, ShapeError, NonFiniteError, SupportError.
        """
        check_context_shape(self, context)
        if context is None:
            return
        name = type(self).__name__
        context = as_tensor(context, "context")
        if context.numel() == 0:
            raise EmptyDataError(f"{name} got a context without numbers, of shape {tuple(context.shape)}.")
        check_finite(name, context[:0], context)
        for part in blocks(context):
            if not bool(self.context_support.check(part).all()):
                raise SupportError(
                    f"{name} needs contexts in {words(self.context_support)}, got values from {part.min():g} to "
                    f"{part.max():g}.{one_hot_hint(self.context_support)}"
                )

    def accept(self, x: Any, context: Any = None) -> tuple[Tensor, Tensor | None]:
        """Data of any kind as the program takes them: tensors of its dtype (`zoo.arrays.as_tensor`), checked.

        A program given by name is built in torch's default dtype, as files are read; for double precision set that, or
        hand over `program.double()`.

        Raises: what `as_tensor` and `check` raise.
        """
        dtype = self.computes_in()
        x = as_tensor(x, dtype=dtype)
        if len(self.event_shape) == 0 and x.ndim == 2 and x.shape[1] == 1:
            x = x[:, 0]  # one number an example, in a column as files have it
        context = None if context is None else as_tensor(context, "context", dtype)
        self.check(x, context)
        return x, context

    def seen(self, x: Tensor | None) -> tuple[Any, Tensor | None]:
        """x with zeros for its missing numbers, and which are there, of the same shape; None where all are.

        A step of a fit does not look at values, which a device would be waited for and a trace cannot: while training,
        it goes by all the data, which `declare` was shown.
        """
        if x is None or not self.takes_missing:
            return x, None
        gaps = self.__dict__.get("_declared_gaps") if getattr(self, "training", False) else None
        if gaps is None:
            try:
                gaps = bool(x.isnan().any())
            except RuntimeError:  # of make_fx and vmap
                gaps = self.__dict__.get("_declared_gaps", False)
        if not gaps:
            return x, None
        missing = x.isnan()
        return torch.where(missing, torch.zeros_like(x), x), ~missing

    def accept_context(self, context: Any) -> Tensor | None:
        """A context of any kind as a tensor of the program's dtype, checked.

        Raises: what `as_tensor` and `check_context` raise.
        """
        context = None if context is None else as_tensor(context, "context", self.computes_in())
        self.check_context(context)
        return context

    def computes_in(self) -> torch.dtype:
        """Of its parameters or buffers; torch's default where it has none."""
        module: Any = self
        for tensors in (module.parameters(), module.buffers()):
            for tensor in tensors:
                if tensor.is_floating_point():
                    return tensor.dtype
        return torch.get_default_dtype()

    def row_of_context(self) -> torch.Size | None:
        """Of one row of context, found once; None for programs that take none."""
        if "_row_of_context" not in self.__dict__:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                example = self.example_context(2)
            self.__dict__["_row_of_context"] = None if example is None else example.shape[1:]
        return self.__dict__["_row_of_context"]
