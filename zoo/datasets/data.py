"""What a data set is in memory: `Data` (one split) and `Dataset` (its splits and its card)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.arguments import Arguments
from zoo.arrays import as_tensor
from zoo.errors import OptionError

__all__ = ["Card", "Data", "Dataset", "File"]


class Data(NamedTuple):
    """Examples `x` (N, *event_shape) and what they are conditioned on, `context` (N, ...) or None.

    The data of a model of the user's own (`zoo.adopt`) are its `Arguments`, in the place of the context; x, (N,), only
    counts their rows.
    """

    x: Tensor
    context: Any = None

    @classmethod
    def of(cls, data: Any) -> Data:
        """Examples of any kind: `Data`, a pair (x, context), or x alone; see `zoo.arrays.as_tensor` for what x may be.

        Raises: OptionError, SupportError, ShapeError.
        """
        x, context = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
        if context is not None and not isinstance(context, Arguments):
            context = as_tensor(context, "context")
        return cls(as_tensor(x), context)

    @property
    def size(self) -> int:
        """Number of examples (`len` is the tuple's, 2)."""
        return len(self.x)

    def rows(self, index: Tensor | slice) -> Data:
        """The chosen examples, context along."""
        context = self.context
        if context is not None:
            context = context.rows(index) if isinstance(context, Arguments) else context[index]
        return Data(self.x[index], context)

    def to(self, *args: Any, **kwargs: Any) -> Data:
        """Moves all tensors, as `Tensor.to`."""
        return Data(self.x.to(*args, **kwargs), None if self.context is None else self.context.to(*args, **kwargs))

    def batches(self, batch_size: int) -> Iterator[Data]:
        """Consecutive batches; the last may be smaller."""
        for start in range(0, self.size, batch_size):
            yield self.rows(slice(start, start + batch_size))

    def tensors(self) -> list[Tensor]:
        """Those that there are, always in the same order."""
        return list(self.named().values())

    def like(self, tensors: Sequence[Tensor]) -> Data:
        """The same with other tensors, in the order of `tensors()`."""
        x, *rest = tensors
        if isinstance(self.context, Arguments):
            return Data(x, self.context.like(rest))
        return Data(x, *rest)

    def named(self) -> dict[str, Tensor]:
        """'x', 'context' or 'context.NAME' -> tensor: as files hold them."""
        found = {"x": self.x}
        if isinstance(self.context, Arguments):
            return {**found, **{f"context.{name}": value for name, value in self.context.named().items()}}
        return found if self.context is None else {**found, "context": self.context}

    @classmethod
    def from_named(cls, tensors: Mapping[str, Tensor], arguments: bool = False, examples: str | None = None) -> Data:
        """What `named` gave.

        Args:
            tensors: By their names.
            arguments: Whether they are a model's arguments.
            examples: Of these.
        """
        if not arguments:
            return cls(**tensors)
        mine = {name.removeprefix("context."): value for name, value in tensors.items() if name != "x"}
        return cls(tensors["x"], Arguments.from_named(mine, examples))


@dataclass(frozen=True)
class File:
    """One file that a data set is read from; its content is fixed by its sha256."""

    path: str
    """Where it lies under `ZOO_DATA` and in the cache, for instance 'debd/nltcs.npz'."""
    sha256: str
    urls: tuple[str, ...] = ()
    """Public addresses of exactly this content, tried in turn; none for a file converted by us."""


@dataclass(frozen=True)
class Card:
    """What the registry knows of a data set; `zoo list --datasets` prints it."""

    name: str
    description: str
    shape: tuple[int, ...]
    """Event shape of one example."""
    support: str
    """'binary', 'real', 'unit' (in [0, 1]) or 'integer'."""
    splits: dict[str, int]
    """Split name -> number of examples."""
    source: str
    """Where it comes from, in words a person can follow."""
    licence: str
    files: tuple[File, ...] = ()
    """Every file it can be read from: the compact conversion first, then the public originals."""
    classes: int = 0
    """How many classes its labels name; 0 without labels, or where the context already says them."""

    @property
    def url(self) -> str | None:
        """The first public address; None for embedded, generated and user data."""
        return next((url for file in self.files for url in file.urls), None)

    @property
    def sha256(self) -> str | None:
        """Of the first file; `files` has all of them."""
        return self.files[0].sha256 if self.files else None


@dataclass(frozen=True)
class Dataset:
    """The splits of a data set.

    `labels` holds class labels (N,) by split where they exist; no program sees them, except as context in the form
    'NAME-labelled'.
    """

    card: Card
    train: Data
    valid: Data
    test: Data
    labels: dict[str, Tensor] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name it was loaded by."""
        return self.card.name

    def split(self, name: str) -> Data:
        """'train', 'valid' or 'test'."""
        if name not in ("train", "valid", "test"):
            raise OptionError(f"Unknown split {name!r}; expected 'train', 'valid' or 'test'.")
        return getattr(self, name)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Dataset:
        """All splits on a device or in a dtype (labels stay as they are)."""
        train, valid, test = (split.to(device, dtype) for split in (self.train, self.valid, self.test))
        return Dataset(self.card, train=train, valid=valid, test=test, labels=self.labels)
