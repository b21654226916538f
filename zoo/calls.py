"""How a function of the user's own is called: which of its parameters are data, in which form they may come."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.arrays import as_tensor, check_finite
from zoo.datasets.files import named_arrays
from zoo.errors import DatasetError, EmptyDataError, OptionError, UnknownNameError

__all__ = ["Call"]


@dataclass(frozen=True)
class Call:
    """The parameters of a function, those that are settled left apart."""

    who: str
    """The function's name, for errors."""
    parameters: Sequence[inspect.Parameter]
    static: Mapping[str, Any]
    """Arguments that are no data."""

    @property
    def free(self) -> list[str]:
        """Names of the parameters that data may be given for."""
        kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        return [p.name for p in self.parameters if p.kind not in kinds and p.name not in self.static]

    @property
    def needed(self) -> list[str]:
        """Those without a default."""
        free = set(self.free)
        return [p.name for p in self.parameters if p.name in free and p.default is p.empty]

    def bind(self, given: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments of a call.

        Positional as far as possible: Pyro calls model and guide alike, whatever the guide calls its parameters.

        Raises: OptionError for one that is missing.
        """
        missing = [name for name in self.needed if name not in given]
        if missing:
            raise OptionError(
                f"{self.who} needs the argument{'s' * (len(missing) > 1)} {', '.join(missing)}: data by name, "
                "{" + ", ".join(f"{name!r}: ..." for name in missing) + "}, or, where it is no data, "
                f"zoo.adopt(..., {missing[0]}=...)."
            )
        left = {**self.static, **given}
        positional = [p for p in self.parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        last = max((i for i, p in enumerate(positional) if p.name in left), default=-1)
        args = [left.pop(p.name) if p.name in left else p.default for p in positional[: last + 1]]
        return args, left

    def named(self, data: Any) -> dict[str, Any]:
        """Data by the names of parameters.

        Args:
            data: A mapping; a tuple in the order of the parameters; a data frame with columns of their names; None,
                which is no data; or the first argument.

        Raises: OptionError, UnknownNameError.
        """
        free, needed = self.free, self.needed
        if data is None:
            return {}
        if isinstance(data, tuple):
            if len(data) > len(free):
                raise OptionError(f"{self.who} takes {len(free)} arguments ({', '.join(free)}), got {len(data)}.")
            return dict(zip(free, data, strict=False))
        if hasattr(data, "columns") and set(needed or free) <= set(data.columns):
            return {name: data[name].to_numpy() for name in free if name in data.columns}
        if not isinstance(data, Mapping):
            if not free:
                raise OptionError(f"{self.who} takes no data, got {type(data).__name__}.")
            return {free[0]: data}
        for name in data:
            if name in self.static:
                raise OptionError(f"The argument {name!r} of {self.who} was given when it was adopted.")
            if name not in free:
                raise UnknownNameError(f"argument of {self.who}", str(name), free)
        return dict(data)

    def read(self, path: Path) -> dict[str, Any]:
        """Data in a file: arrays of an .npz, or columns of a .csv, of the names of parameters.

        Raises: DatasetError, where one that is needed is missing too; EmptyDataError.
        """
        found = named_arrays(path, self.free)
        missing = [name for name in self.needed if name not in found]
        if missing or not found:
            raise DatasetError(
                f"{path} has no {' and no '.join(missing or self.free)}, which {self.who} takes: its arguments are "
                "arrays (.npz) or columns (.csv) of their names."
            )
        return found

    def tensor(self, name: str, value: Any, dtype: torch.dtype) -> Tensor:
        """One argument as a tensor: floating point in a dtype; whole numbers and truth values stay what they are.

        Raises: OptionError for what is no data; what `as_tensor` raises; EmptyDataError, NonFiniteError.
        """
        who = f"{self.who}, argument {name!r}"
        if isinstance(value, (bool, int, float, str)):
            raise OptionError(
                f"{who} is {value!r}, and data are tensors or arrays. If it is no data, give it when adopting: "
                f"zoo.adopt(..., {name}={value!r})."
            )
        if not isinstance(value, Tensor):
            try:
                array = np.asarray(value)
            except ValueError:
                array = np.empty(0)  # of unequal lengths, as the next but one line says
            kinds = {"b": bool, "i": np.int64, "u": np.int64}
            value = torch.from_numpy(array.astype(kinds[array.dtype.kind])) if array.dtype.kind in kinds else value
        whole = isinstance(value, Tensor) and not value.is_floating_point() and not value.is_complex()
        found = value if whole else as_tensor(value, name, dtype)
        if found.numel() == 0:
            raise EmptyDataError(f"{who} is empty (shape {tuple(found.shape)}).")
        if not whole:
            check_finite(who, found)
        return found
