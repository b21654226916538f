"""Data that a user has in memory: pairs, data frames, and data sets and loaders of torch, as x and context.

Whatever it is, it is read once, in its own order, and kept whole: `fit` makes its own minibatches. Which part of an
item, or which column of a frame, is x and which is context is said by `Fields`.
"""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from zoo.arguments import Arguments
from zoo.arrays import as_tensor
from zoo.errors import DatasetError, EmptyDataError, OptionError, ShapeError, SupportError, UnknownNameError

__all__ = ["REST", "Fields", "ReadNotice", "read", "support_of"]

REST = "*"
"""Stands for all columns that are not named."""
MOST_NUMBERS = 2**31
"""An iterable that holds more is taken for endless: 8 GiB in single precision."""


class ReadNotice(UserWarning):
    """Something of what was given is not read."""


@dataclass(frozen=True)
class Fields:
    """Which parts of the data are x (`target`) and which the context; None is not said.

    Positions for tuples, (inputs, targets) say; keys for dictionaries; one name or several for columns, or REST.
    """

    target: Any = None
    context: Any = None

    def __bool__(self) -> bool:
        return self.target is not None or self.context is not None

    def columns(self, known: Sequence[Any], where: str) -> tuple[list[int], list[int] | None]:
        """Numbers of the columns of x and of the context, None without one.

        Raises: UnknownNameError, with the nearest; OptionError for a column that is both, or named twice.
        """
        used = self.named()
        for name in used:
            if name not in known:
                raise UnknownNameError(f"column of {where}", name, map(str, known))
        twice = next((name for name in used if used.count(name) > 1 or list(known).count(name) > 1), None)
        if twice is not None:
            raise OptionError(f"The column {twice!r} of {where} is asked for twice; each is x or context, once.")
        rest = [i for i, name in enumerate(known) if name not in used]
        target, context = (
            rest if part is None or part == REST else [list(known).index(name) for name in _names(part)]
            for part in (self.target, self.context)
        )
        if not target or (self.context is not None and not context) or (self.target == self.context == REST):
            raise OptionError(f"No column of {where} is left for {'x' if not target else 'the context'}; name some.")
        return target, None if self.context is None else context

    def named(self) -> list[Any]:
        """All names that are said."""
        parts = [_names(part) for part in (self.target, self.context) if part is not None and part != REST]
        return [name for names in parts for name in names]

    @property
    def is_single(self) -> bool:
        """Whether x is one named column, (N,), rather than a list of them, (N, columns)."""
        return self.target is not None and self.target != REST and not isinstance(self.target, list | tuple)

    def parts(self, item: Any, what: str) -> tuple[Any, Any]:
        """x and context of a pair, of a tuple by position, or of a dictionary by key; of all else x alone.

        Raises: OptionError where it is not said which part is which; UnknownNameError for one that there is not.
        """
        if isinstance(item, Mapping):
            keys, call = list(item), "Data.of(data, target=KEY, context=KEY)"
            parts = dict(item)
        elif _has_parts(item):
            keys, call = list(range(len(item))), "Data.of(data, target=0, context=1), counted from 0"
            parts = dict(enumerate(item))
        elif self:
            raise OptionError(f"{_upper(what)} has no parts for target and context to choose from: leave them out.")
        else:
            return item, None
        if not self:
            if isinstance(item, Mapping) or len(keys) > 2:
                raise OptionError(f"{_upper(what)} has the parts {', '.join(map(repr, keys))}: say which is x, {call}.")
            return item[0], (item[1] if len(keys) == 2 else None)
        for key in (self.target, self.context):
            if key is not None and (not isinstance(key, Hashable) or key not in parts):
                raise UnknownNameError(f"part of {what}", key, map(str, keys))
        rest = [key for key in keys if key != self.context]
        if self.target is None and len(rest) != 1:
            raise OptionError(f"{_upper(what)} has the parts {', '.join(map(repr, keys))}: say which is x, {call}.")
        x = parts[rest[0] if self.target is None else self.target]
        return x, None if self.context is None else parts[self.context]


def read(data: Any, fields: Fields) -> tuple[Tensor, Any]:
    """x and context (None without one) of data of any kind; see `Data.of`.

    Raises: what `Data.of` raises.
    """
    if isinstance(data, DataLoader | TorchDataset):
        return _gathered(data, fields)
    if _is_pandas("DataFrame", data) and fields:
        target, others = fields.columns(list(data.columns), "the data frame")
        x = data.iloc[:, target[0] if fields.is_single else target]
        return _numbers(x, "data"), None if others is None else _numbers(data.iloc[:, others], "context")
    if (isinstance(data, tuple) and len(data) == 2) or (isinstance(data, tuple | Mapping) and fields):
        x, context = fields.parts(data, "the data")
        _check_index(x, context)
        if context is not None and not isinstance(context, Arguments):
            context = _numbers(context, "context")
        return _numbers(x, "data"), context
    if fields:
        raise OptionError(
            "target and context choose columns of a data frame, or parts of a pair, a data set or a loader; "
            f"{type(data).__name__} has none."
        )
    return _numbers(data, "data"), None


# Data frames. pandas is never imported here: who has a frame has it.


def _is_pandas(kind: str, values: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(values, getattr(pandas, kind))


def _check_index(x: Any, context: Any) -> None:
    """Raises ShapeError for rows that pandas would pair otherwise than their order does."""
    both = all(_is_pandas("DataFrame", part) or _is_pandas("Series", part) for part in (x, context))
    if both and len(x) == len(context) and not x.index.equals(context.index):
        raise ShapeError(
            "x and context have different indexes, and are paired row by row: give context.loc[x.index], or "
            ".to_numpy() of both if their order is right."
        )


def _numbers(values: Any, what: str) -> Tensor:
    if _is_pandas("Series", values):
        return as_tensor(_column(values, what), what)
    if _is_pandas("DataFrame", values) and any(kind not in "buif" for kind in _kinds(values)):
        return as_tensor(np.column_stack([_column(values.iloc[:, i], what) for i in range(values.shape[1])]), what)
    return as_tensor(values, what)


def _kinds(frame: Any) -> set[str]:
    """Of a frame's columns; of several that have no common kind, 'O'."""
    kinds = {getattr(dtype, "kind", "O") if isinstance(dtype, np.dtype) else "O" for dtype in frame.dtypes}
    return kinds if len(kinds) == 1 or "b" not in kinds else {"O"}


def _column(series: Any, what: str) -> np.ndarray[Any, Any]:
    """A column's numbers; gaps are NaN.

    Raises: SupportError, naming column and row, for what is no number.
    """
    dtype, name = series.dtype, f"column {series.name!r}" if series.name is not None else "series"
    if isinstance(dtype, np.dtype) and dtype.kind in "buif":
        return series.to_numpy()
    if getattr(dtype, "kind", "O") in "buif":  # with gaps: Int64, boolean
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    for row, (value, gap) in enumerate(zip(series, series.isna(), strict=True)):
        if not gap and not isinstance(value, int | float | np.number | np.bool_):
            raise SupportError(
                f"The {name} of the {what} is of type {dtype}, and row {row} holds {value!r}; expected numbers. Code "
                "categories as numbers, or leave the column out (frame.drop(columns=...))."
            )
    return series.astype(object).where(~series.isna(), np.nan).to_numpy(dtype=np.float64)


# Data sets and loaders of torch.


def _gathered(data: Any, fields: Fields) -> tuple[Tensor, Tensor | None]:
    """All rows, one below the other.

    Raises: EmptyDataError, ShapeError, DatasetError, and what is wrong with a row.
    """
    name = "loader" if isinstance(data, DataLoader) else "data set"
    if isinstance(data, TensorDataset):
        x, context = fields.parts(data.tensors, "the data set")
        found = [(as_tensor(x), None if context is None else as_tensor(context, "context"))]
    else:
        found = list(_rows(data, fields, name))
    if not found or len(found[0][0]) == 0:
        raise EmptyDataError(f"The {name} gives no rows{_why_none(data)}.")
    x = torch.cat([part for part, _ in found])
    contexts = [part for _, part in found if part is not None]
    if isinstance(data, DataLoader) and data.drop_last and data.batch_sampler is not None:
        lost = len(data.sampler) - len(x) if not isinstance(data.dataset, IterableDataset) else 0  # type: ignore[arg-type]
        if lost > 0:
            warnings.warn(
                f"The loader left out the last {lost} of {lost + len(x)} rows (drop_last=True).", ReadNotice,
                stacklevel=4,
            )  # fmt: skip
    return x, torch.cat(contexts) if contexts else None


def _why_none(data: Any) -> str:
    if isinstance(data, DataLoader) and data.drop_last:
        return f": drop_last=True, and the rows do not fill one batch of {data.batch_size}"
    return ""


def _rows(data: Any, fields: Fields, name: str) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Blocks of x and context as they come, of one shape.

    Raises: ShapeError, DatasetError, and what is wrong with a row.
    """
    in_batches = isinstance(data, DataLoader) and data.batch_sampler is not None
    first: list[torch.Size | None] | None = None
    start = numbers = 0
    for item in _items(data, name):
        where = f"{'the batch from ' if in_batches else ''}row {start} of the {name}"
        of_x, of_context = fields.parts(item, where)
        x = _block(of_x, where, in_batches)
        context = None if of_context is None else _block(of_context, where, in_batches)
        shapes = [None if part is None else part.shape[1:] for part in (x, context)]
        first = shapes if first is None else first
        if shapes != first:
            raise ShapeError(
                f"{_upper(where)} has {_words(shapes)}, those before have {_words(first)}; all must have one shape. "
                "Cut or pad them (a collate_fn can do so)."
            )
        if context is not None and len(context) != len(x):
            raise ShapeError(f"{_upper(where)} has {len(x)} examples and {len(context)} rows of context.")
        start, numbers = start + len(x), numbers + x.numel()
        if numbers > MOST_NUMBERS:
            raise DatasetError(
                f"The {name} gave {numbers:,} numbers and goes on. If it is endless, take a part "
                "(itertools.islice); if not, give it as one tensor or array."
            )
        yield x, context


def _items(data: Any, name: str) -> Iterator[Any]:
    """What it holds, in its order: rows or batches.

    Raises: OptionError for a data set read by number that has no length; DatasetError.
    """
    ordered = isinstance(data, DataLoader | IterableDataset)
    if not ordered and not hasattr(data, "__len__"):
        raise OptionError(
            f"The data set {type(data).__name__} has no length; give it __len__, or make it an IterableDataset."
        )
    source = iter(data) if ordered else (data[row] for row in range(len(data)))
    for count in itertools.count():
        try:
            item = next(source)
        except StopIteration:
            return
        except Exception as error:  # a data set is anybody's code
            reason = f"{type(error).__name__}: {str(error).strip()}"
            raise DatasetError(f"Item {count} (from 0) of the {name} cannot be read ({reason}).") from error
        yield item


def _block(part: Any, where: str, in_batches: bool) -> Tensor:
    """Rows (B, ...) of one part of an item.

    Raises: SupportError for what are no numbers, ShapeError.
    """
    if isinstance(part, int | float | np.number | np.bool_) and not in_batches:
        part = torch.as_tensor(part)
    if not isinstance(part, Tensor | np.ndarray | Sequence) or isinstance(part, str | bytes):
        shown = repr(part) if isinstance(part, str) and len(part) < 40 else f"a {type(part).__name__}"
        hint = " Give the data set a transform that makes tensors." if "PIL" in type(part).__module__ else ""
        raise SupportError(f"{_upper(where)} holds {shown}; expected tensors, arrays or numbers.{hint}")
    found = as_tensor(part, f"values of {where}")
    if in_batches and found.ndim == 0:
        raise ShapeError(f"{_upper(where)} is a single number; expected a batch (B, ...).")
    return found if in_batches else found.unsqueeze(0)


def _has_parts(item: Any) -> bool:
    """Whether an item is several things, rather than a row of numbers."""
    return isinstance(item, tuple) or (
        isinstance(item, list) and any(isinstance(part, Tensor | np.ndarray) for part in item)
    )


def _words(shapes: list[torch.Size | None]) -> str:
    x, context = (None if shape is None else tuple(shape) for shape in shapes)
    return f"examples of shape {x}" + ("" if context is None else f" and contexts of shape {context}")


def support_of(arrays: Iterable[np.ndarray[Any, Any]], top: float = 1.0) -> str:
    """The narrowest kind of a card that holds all values; gaps (NaN) are of every kind, infinity is real.

    Args:
        arrays: Of all splits.
        top: What stands for one.
    """
    known = [array[~np.isnan(array)] if array.dtype.kind == "f" else array for array in arrays]
    if all(bool(np.isin(array, (0, top)).all()) for array in known):
        return "binary"
    if all(bool(((array >= 0) & (array <= top)).all()) for array in known):
        return "unit"
    whole = all(bool((np.isfinite(array) & (array == np.rint(array))).all()) for array in known)
    return "integer" if whole else "real"


def _upper(words: str) -> str:
    return words[:1].upper() + words[1:]


def _names(part: Any) -> list[Any]:
    return list(part) if isinstance(part, list | tuple) else [part]
