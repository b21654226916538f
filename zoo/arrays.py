"""Numbers of any kind as tensors: the one place where data from outside become what programs compute with."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import EmptyDataError, NonFiniteError, OptionError, ShapeError, SupportError
from zoo.stored import Facts, Stored

__all__ = [
    "RoundingNotice", "as_tensor", "check_finite", "check_rows", "count_gaps", "count_rounded", "count_values", "fill",
]  # fmt: skip

MAX_VALUES = 2**16
"""The most categories that are taken from data without being asked for."""
KINDS = "a tensor, a NumPy array, lists of numbers, or a data frame of numbers"


class RoundingNotice(UserWarning):
    """Whole numbers that a dtype cannot hold, and that were rounded."""


def as_tensor(values: Any, what: str = "data", dtype: torch.dtype | None = None) -> Tensor:
    """Real numbers as a dense tensor of floating point numbers.

    Args:
        values: A tensor; a NumPy array of any byte order and strides; lists of numbers; whatever turns itself into an
            array (a pandas frame). Booleans and integers count as numbers. A floating tensor of the right dtype is
            returned as it is, all else is copied; rows of a file (`zoo.stored`) stay there.
        what: It is called in errors: 'data', 'context'.
        dtype: Of the result; None keeps that of single and double precision and gives all else torch's default.

    Raises: OptionError for what holds no numbers at all; SupportError for complex numbers, text, dates and objects;
        ShapeError for lists of unequal length, sparse, nested and masked arrays.

    Warns: RoundingNotice for whole numbers beyond what the dtype counts exactly (2^24 in single precision).
    """
    found = values if isinstance(values, Tensor) else _from_array(values, what)
    if found.layout != torch.strided or found.is_nested or found.is_meta:
        kind = "without values (on the device 'meta')" if found.is_meta else "sparse or nested"
        raise ShapeError(f"The {what} are {kind}; programs take dense tensors (sparse.to_dense() makes one).")
    if found.is_complex() or found.is_quantized:
        raise SupportError(f"The {what} are of type {found.dtype}; expected real numbers. Give x.real, or two columns.")
    kept = found.dtype if found.dtype in (torch.float32, torch.float64) else torch.get_default_dtype()
    result = found.to(dtype or kept)
    if result.dtype != found.dtype and not isinstance(found, Stored):
        _say_if_rounded(found, result, what)
    return result


def _from_array(values: Any, what: str) -> Tensor:
    if isinstance(values, str | bytes | dict | set) or values is None or np.isscalar(values):
        raise OptionError(f"Cannot read {what} of type {type(values).__name__}; give {KINDS}.")
    if isinstance(values, np.ma.MaskedArray):
        raise ShapeError(
            f"The {what} are a masked array; fill its gaps first, .filled(numpy.nan) where they are missing values."
        )
    try:
        # Lists of equal length and everything with __array__; ragged lists raise a ValueError.
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise ShapeError(
            f"The {what} cannot be made an array ({error}); rows must have equal length. Sequences of different "
            "lengths are made one by zoo.datasets.Data.sequences."
        ) from error
    if array.dtype.kind == "O" and callable(getattr(values, "toarray", None)):
        raise ShapeError(f"The {what} are a sparse {type(values).__name__}; give all of its numbers, .toarray().")
    if array.dtype.kind == "O" and not isinstance(values, np.ndarray | list | tuple) and not hasattr(values, "dtypes"):
        raise OptionError(f"Cannot read {what} of type {type(values).__name__}; give {KINDS}.")
    if array.dtype.kind not in "buif":
        raise SupportError(
            f"The {what} are of type {array.dtype}; expected numbers. Text, dates, objects and complex numbers must be "
            "turned into numbers first."
        )
    wide = array.dtype.kind == "f" and array.dtype.itemsize > 8
    unsigned = array.dtype.kind == "u" and array.dtype.itemsize > 1
    # torch has no other byte order, no negative strides, no long double and hardly any unsigned integers.
    native = np.dtype(np.float64) if wide or unsigned else array.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(array, dtype=native, order="C"))


def _say_if_rounded(before: Tensor, after: Tensor, what: str) -> None:
    lost = count_rounded(before, after)
    if lost:
        warnings.warn(
            f"{lost} whole numbers of the {what} were rounded to {after.dtype}, which counts exactly up to "
            f"{_counts_to(after.dtype):,}. Subtract an offset, or compute in double precision "
            "(torch.set_default_dtype(torch.float64)).",
            RoundingNotice,
            stacklevel=4,
        )


def count_rounded(before: Tensor, after: Tensor) -> int:
    """How many whole numbers a conversion changed."""
    top = _counts_to(after.dtype)
    if before.numel() == 0 or before.dtype in (torch.bool, torch.uint8, torch.int8, torch.int16):
        return 0
    if before.is_floating_point() and torch.finfo(before.dtype).eps >= torch.finfo(after.dtype).eps:
        return 0
    large = (before.detach() > top) | (before.detach() < -top)
    if not bool(large.any()):
        return 0
    was, now = before.detach()[large], after.detach()[large]
    if was.is_floating_point():
        return int(((was == was.round()) & torch.isfinite(was) & (now.to(was.dtype) != was)).sum())
    return int((now.double().long() != was).sum())


def _counts_to(dtype: torch.dtype) -> int:
    # A whole number, since torch would compare integers with a float in single precision.
    return int(2.0 / torch.finfo(dtype).eps)


def check_rows(x: Tensor, name: str = "The fit") -> None:
    """Raises EmptyDataError where there are no examples or these hold no numbers."""
    if x.ndim == 0 or x.numel() == 0:
        raise EmptyDataError(f"{name} got no examples (data of shape {tuple(x.shape)}); expected (N, ...) with N >= 1.")


TAKE_MISSING = ("bernoulli-mixture", "dmm", "gaussian-mixture", "hmm", "independent", "lgssm", "ppca", "vae")
"""The programs of the zoo that integrate missing values out."""


def check_finite(name: str, x: Tensor, context: Tensor | None = None, missing: bool = False) -> None:
    """Raises NonFiniteError where data or context hold NaN or infinity.

    Args:
        name: Of what asks.
        x: Data.
        context: Its context.
        missing: Whether NaN in x is a missing value, which is let through.
    """
    for what, values in (("data", x), ("context", context)):
        if values is None:
            continue
        gaps, bad = count_gaps(values)
        if missing and what == "data":
            if gaps == values.numel() > 0:
                raise NonFiniteError(f"{name}: all {values.numel()} values of the data are missing (NaN).")
        else:
            bad += gaps
        if bad:
            hint = ""
            if what == "data" and not missing and gaps:
                hint = f" If NaN is a missing value, these programs integrate it out: {', '.join(TAKE_MISSING)}."
            raise NonFiniteError(
                f"{name}: {bad} of {values.numel()} {what} values are NaN or infinite; clean them.{hint}"
            )


def count_gaps(x: Tensor) -> tuple[int, int]:
    """How many values are missing (NaN), and how many infinite."""
    if isinstance(x, Stored):
        facts = x.facts()
        return facts.missing, facts.infinite
    bad = int((~torch.isfinite(x)).sum())
    missing = int(x.isnan().sum()) if bad else 0
    return missing, bad - missing


def fill(x: Tensor) -> Tensor:
    """x (N, ...) with the median of what is there of each number in the place of missing ones; 0 where none is."""
    if not bool(x.isnan().any()):
        return x
    median = x.nanmedian(0).values
    return torch.where(x.isnan(), torch.where(median.isnan(), torch.zeros_like(median), median), x)


def count_values(x: Tensor) -> int:
    """Number m of values 0 ... m-1 in the data, at least 2; also 2 for what is not a category (`check` says so).

    NaN is no value.

    Raises: OptionError for more than MAX_VALUES, which are rather numbers than categories.
    """
    facts = x.facts() if isinstance(x, Stored) else Facts.of(iter((x,)))
    if facts.infinite or not facts.whole or not 0 <= facts.least <= facts.most:
        return 2
    found = max(2, int(facts.most) + 1)
    if found > MAX_VALUES:
        raise OptionError(
            f"The largest value of the data is {found - 1:,}, which would make {found:,} categories, most of them "
            f"unseen; at most {MAX_VALUES:,} are taken from data. Number the categories 0, 1, 2, ...; or, if so many "
            f"are meant, give values={found}."
        )
    return found
