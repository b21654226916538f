"""Rows of a file as a tensor that is not in memory: rows are read when they are asked for.

A `Stored` has shape, dtype and device, and indexing it reads those rows. What would read all of them at once, which is
any other operation, is refused: minibatches, blocks and parts go through the same code as tensors do, and nothing fills
the memory unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import TooLargeError

__all__ = ["Facts", "Stored", "blocks"]

Array = np.ndarray[Any, Any]

BLOCK = 2**20
"""Numbers that are read at once where all are looked at: 4 MiB in single precision."""

HARMLESS = {
    *(getattr(Tensor, name).__get__ for name in (
        "device", "dtype", "grad_fn", "is_cuda", "is_leaf", "is_meta", "is_mps", "is_nested", "is_quantized",
        "is_sparse", "layout", "ndim", "requires_grad", "shape",
    )),
    *(getattr(Tensor, name) for name in (
        "__hash__", "__len__", "dim", "is_complex", "is_floating_point", "nelement", "numel", "size",
    )),
}  # fmt: skip
"""What looks at no value."""


@dataclass(frozen=True)
class Facts:
    """What a look at all values has found: how many are missing (NaN) or infinite, and about the rest."""

    missing: int
    infinite: int
    least: float
    most: float
    whole: bool

    @classmethod
    def of(cls, parts: Iterator[Tensor]) -> Facts:
        """Of floating point numbers, block by block."""
        missing, infinite, least, most, whole = 0, 0, torch.inf, -torch.inf, True
        for x in parts:
            good = torch.isfinite(x)
            if not bool(good.all()):
                gaps = int(x.isnan().sum())
                missing, infinite = missing + gaps, infinite + int((~good).sum()) - gaps
                x = x[good]
            if x.numel():
                least, most = min(least, float(x.min())), max(most, float(x.max()))
                whole = whole and bool((x == x.round()).all())
        return cls(missing, infinite, least, most, whole)

    @classmethod
    def joined(cls, parts: Sequence[Facts]) -> Facts:
        """Of several looks together."""
        return cls(
            missing=sum(part.missing for part in parts),
            infinite=sum(part.infinite for part in parts),
            least=min(part.least for part in parts),
            most=max(part.most for part in parts),
            whole=all(part.whole for part in parts),
        )

    @property
    def support(self) -> str:
        """The narrowest kind of a card that holds all values; missing ones are of every kind."""
        unit = self.least >= 0 and self.most <= 1
        whole = self.whole and not self.infinite
        return ("binary" if whole else "unit") if unit and not self.infinite else "integer" if whole else "real"


class Stored(Tensor):
    """Rows (N, ...) of a file.

    Args:
        source: All rows of the file, memory-mapped: what is read of them the system forgets again when it needs room.
        chosen: Which of them these are, in their order.
        path: The file, for errors.
        dtype: What rows become; None is torch's default.
        device: Where they go.

    Indexing reads: a slice, or a tensor or array of row numbers. `to` changes what rows become when they are read.

    Raises: TooLargeError for what would read all rows.
    """

    source: Array
    chosen: Array
    path: str
    coming: tuple[Array, Future[Tensor]] | None
    looked: dict[torch.dtype, Facts]

    @staticmethod
    def __new__(
        cls: type[Stored],
        source: Array,
        chosen: Array,
        path: str,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> Stored:
        """Makes one; nothing is read."""
        shape = (len(chosen), *source.shape[1:])
        made: Stored = Tensor._make_wrapper_subclass(
            cls, shape, dtype=dtype or torch.get_default_dtype(), device=torch.device(device)
        )
        made.source, made.chosen, made.path, made.coming, made.looked = source, chosen, path, None, {}
        return made

    def __getitem__(self, index: Any) -> Tensor:
        """The rows, in memory."""
        if isinstance(index, tuple) or index is None or index is Ellipsis:
            self._refuse("indexing of more than rows")
        rows = self.chosen[index.detach().cpu().numpy() if isinstance(index, Tensor) else index]
        coming, self.coming = self.coming, None
        if coming is not None and np.array_equal(coming[0], rows):
            found = coming[1].result()
        else:
            found = self._read(rows)
        return found.to(self.device, non_blocking=True)

    def expect(self, index: Tensor) -> None:
        """Begins to read rows that will be asked for next, beside the computation."""
        rows = self.chosen[index.cpu().numpy()]
        self.coming = (rows, _reader().submit(self._read, rows))

    def _read(self, rows: Array) -> Tensor:
        taken = self.source[rows]
        # torch has no other byte order and hardly any unsigned integers.
        wide = taken.dtype.kind == "u" and taken.dtype.itemsize > 1
        native = np.dtype(np.float64) if wide else taken.dtype.newbyteorder("=")
        found = torch.from_numpy(np.asarray(taken, dtype=native)).to(self.dtype)
        return found.pin_memory() if self.is_cuda else found

    def to(self, *args: Any, **kwargs: Any) -> Stored:
        """The same rows, in another dtype or on another device once they are read."""
        like = torch.empty(0, dtype=self.dtype, device=self.device).to(*args, **kwargs)
        if (like.dtype, like.device) == (self.dtype, self.device):
            return self
        made = Stored(self.source, self.chosen, self.path, dtype=like.dtype, device=like.device)
        made.looked = self.looked
        return made

    def blocks(self) -> Iterator[Tensor]:
        """All rows, block by block, in the order of the file."""
        step = max(1, BLOCK // max(1, self.source[:1].size))
        rows = np.sort(self.chosen)
        for start in range(0, len(rows), step):
            yield self._read(rows[start : start + step])

    def facts(self) -> Facts:
        """Of all values; read once for a dtype."""
        if self.dtype not in self.looked:
            self.looked[self.dtype] = Facts.of(self.blocks())
        return self.looked[self.dtype]

    def detach(self) -> Stored:
        """Itself: nothing is differentiated."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Stored:
        """Itself: nothing is changed."""
        return self

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Stored({tuple(self.shape)}, {self.dtype}, {self.device}, rows of {self.path})"

    def _refuse(self, what: str) -> None:
        gigabytes = self.numel() * self.dtype.itemsize / 2**30
        raise TooLargeError(
            f"{what} would read all {len(self):,} rows of {self.path} ({gigabytes:.1f} GiB), which stay in their file. "
            "Fit by a method that takes minibatches ('svi', 'wake-sleep', a game, ...), give what evaluates a part, "
            "data.rows(slice(0, 10000)), or read the file whole: datasets.load(file, stored=False)."
        )

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Lets through what looks at no value, and refuses all else."""
        if func in HARMLESS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        return cls._refuse_all(func, args, kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Refuses what has come past `__torch_function__`."""
        return cls._refuse_all(func, args, kwargs)

    @classmethod
    def _refuse_all(cls, func: Callable[..., Any], args: Any, kwargs: Mapping[str, Any] | None) -> None:
        given = [*args, *(kwargs or {}).values()]
        given += [each for value in given if isinstance(value, list | tuple) for each in value]
        mine = next(value for value in given if isinstance(value, cls))
        mine._refuse(getattr(func, "__name__", "this"))


def blocks(x: Tensor) -> Iterator[Tensor]:
    """All rows of a tensor: at once, or block by block where they are stored."""
    return x.blocks() if isinstance(x, Stored) else iter((x,))


@lru_cache(maxsize=1)
def _reader() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "zoo reads rows")
