"""What a data set is in memory: `Data` (one split) and `Dataset` (its splits and its card)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.arguments import Arguments
from zoo.arrays import check_rows
from zoo.datasets.given import Fields, read, support_of
from zoo.errors import EmptyDataError, OptionError, ShapeError
from zoo.notebook import facts
from zoo.stored import Stored
from zoo.weights import Weighted

__all__ = ["Card", "Data", "Dataset", "File"]

FEW = 2**27
"""Numbers of x that `Data.beginning` has at most: 0.5 GiB in single precision."""


class Data(NamedTuple):
    """Examples `x` (N, *event_shape) and what they are conditioned on, `context` (N, ...) or None.

    The data of a model of the user's own (`zoo.adopt`) are its `Arguments`, in the place of the context; x, (N,), only
    counts their rows.
    """

    x: Tensor
    context: Any = None

    @classmethod
    def of(cls, data: Any, *, target: Any = None, context: Any = None) -> Data:
        """Examples of any kind, on which everything that takes data agrees.

        Args:
            data: `Data`; a pair (x, context): what is modelled, and what it is conditioned on; or x alone. Each is a
                tensor, an array, lists, a data frame, a series (see `zoo.arrays.as_tensor`). Or a data set or loader of
                torch, whose items are x or (x, context): it is read once, in its order, and kept whole.
            target: Which part is x, where the order is another: a position in a tuple, a key of a dictionary, a column
                of a data frame, (N,), or a list of columns, (N, columns); '*' is all columns not named.
            context: Likewise, which is the context; columns are always (N, columns). None is no context where `target`
                is given. Data sets of (inputs, targets): `Data.of(data, target=1, context=0)`; without their labels:
                `Data.of(data, target=0)`.

        Raises: OptionError, UnknownNameError, SupportError, ShapeError, EmptyDataError; DatasetError for a row that
            cannot be read.

        Warns: ReadNotice for rows that a loader drops.
        """
        return cls(*read(data, Fields(target, context)))

    @classmethod
    def sequences(cls, parts: Iterable[Any]) -> Data:
        """Sequences of different lengths: x (N, T, ...), zero behind the end of each, given their lengths (N,).

        That is what `hmm` and `dmm` take. Of a table with a row a step:
        `Data.sequences(part for _, part in table.groupby("patient")[["pulse", "temperature"]])`.

        Args:
            parts: Each (T_i, D) or (T_i,): a tensor, an array, lists, a data frame, a series.

        Raises: EmptyDataError for none, and for one without steps; ShapeError for steps of different shapes; what
            `as_tensor` raises.
        """
        read = [Data.of(part).x for part in parts]
        empty = next((i for i, part in enumerate(read) if part.ndim == 0 or len(part) == 0), None)
        if not read or empty is not None:
            raise EmptyDataError(f"{'There are no sequences' if not read else f'Sequence {empty} has no steps'}.")
        other = next((i for i, part in enumerate(read) if part.shape[1:] != read[0].shape[1:]), None)
        if other is not None:
            raise ShapeError(
                f"Sequence {other} has steps of shape {tuple(read[other].shape[1:])}, the first one of "
                f"{tuple(read[0].shape[1:])}; expected the same of all."
            )
        lengths = read[0].new_tensor([len(part) for part in read])
        return cls(torch.nn.utils.rnn.pad_sequence(read, batch_first=True), lengths)

    @property
    def size(self) -> int:
        """Number of examples (`len` is the tuple's, 2)."""
        return len(self.x)

    def rows(self, index: Tensor | slice) -> Data:
        """The chosen examples, context along."""
        context = self.context
        if context is not None:
            context = context.rows(index) if isinstance(context, (Arguments, Weighted)) else context[index]
        return Data(self.x[index], context)

    @property
    def stored(self) -> bool:
        """Whether rows stay in a file until they are asked for (`zoo.stored`)."""
        return isinstance(self.x, Stored) or isinstance(self.context, Stored)

    def beginning(self) -> Data:
        """The examples that programs and guides are initialised with: all, or the first FEW numbers of them."""
        most = max(1, FEW // max(1, self.x[:1].numel()))
        return self if self.size <= most and not self.stored else self.rows(slice(0, most))

    def expect(self, index: Tensor) -> None:
        """Says which rows are asked for next; those that are stored are read meanwhile."""
        for part in (self.x, self.context):
            if isinstance(part, Stored):
                part.expect(index)

    def to(self, *args: Any, **kwargs: Any) -> Data:
        """Moves all tensors, as `Tensor.to`."""
        return Data(self.x.to(*args, **kwargs), None if self.context is None else self.context.to(*args, **kwargs))

    def plain(self) -> Data:
        """The same without weights."""
        return Data(self.x, self.context.context) if isinstance(self.context, Weighted) else self

    def batches(self, batch_size: int) -> Iterator[Data]:
        """Consecutive batches; the last may be smaller."""
        for start in range(0, self.size, batch_size):
            yield self.rows(slice(start, start + batch_size))

    def tensors(self) -> list[Tensor]:
        """Those that there are, always in the same order."""
        return list(self.named().values())

    def equals(self, other: Data) -> bool:
        """Whether the other has the same numbers, on whatever device."""
        mine, theirs = self.tensors(), other.tensors()
        return len(mine) == len(theirs) and all(
            a.shape == b.shape and torch.equal(a.to(b), b) for a, b in zip(mine, theirs, strict=True)
        )

    def like(self, tensors: Sequence[Tensor]) -> Data:
        """The same with other tensors, in the order of `tensors()`."""
        x, *rest = tensors
        if isinstance(self.context, (Arguments, Weighted)):
            return Data(x, self.context.like(rest))
        return Data(x, *rest)

    def named(self) -> dict[str, Tensor]:
        """'x', 'context' or 'context.NAME' -> tensor: as files hold them."""
        found = {"x": self.x}
        if isinstance(self.context, (Arguments, Weighted)):
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
    class_names: tuple[str, ...] = ()
    """What they are called, where that is more than their numbers."""
    context_kind: str = ""
    """What a context is, where it is not plain numbers: 'image' (a source, to be translated into x), 'attributes' (0 or
    1 for each name), 'class' (one-hot), 'caption' (numbers of words, 0 after the last)."""
    context_names: tuple[str, ...] = ()
    """Of attributes, of classes, or all words in the order of their numbers, '' first."""
    names: tuple[str, ...] = ()
    """What the numbers of x are, in their order: words that are counted, the columns of a table; none where unknown."""
    unpaired: tuple[str, ...] = ()
    """Splits in which x is no answer to its context: images of two kinds that are side by side by chance."""
    rigid: bool = False
    """Whether an image that is turned or scaled is of another class, as letters whose slant and width tell faces."""
    judged_by: str = ""
    """The data set whose classifier looks at samples, where this one has no labels of its own."""
    rate: int = 0
    """Samples a second, where an example is a sound (samples,) of amplitudes in [-1, 1] or of levels; else 0."""
    levels: int = 0
    """How many mu-law levels 0, 1/(levels-1), ..., 1 stand for a sound's amplitudes; 0 for amplitudes as they are."""

    @property
    def url(self) -> str | None:
        """The first public address; None for embedded, generated and user data."""
        return next((url for file in self.files for url in file.urls), None)

    @property
    def sha256(self) -> str | None:
        """Of the first file; `files` has all of them."""
        return self.files[0].sha256 if self.files else None


@dataclass(frozen=True, repr=False)
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

    @classmethod
    def of(cls, train: Any, valid: Any = None, test: Any = None, *, name: str = "tensor") -> Dataset:
        """A data set of your own in memory. A split that is not given has no rows, and `split` refuses it.

        Args:
            train, valid, test: What `Data.of` takes.
            name: What it is called in results.

        Raises: what `Data.of` raises; EmptyDataError; ShapeError where splits differ in shape, or one alone has a
            context.
        """
        whole = Data.of(train)
        parts = {"train": whole}
        for split, given in (("valid", valid), ("test", test)):
            parts[split] = whole.rows(slice(0, 0)) if given is None else Data.of(given)
            if given is not None:
                check_rows(parts[split].x, f"The {split} split")
        check_rows(whole.x, "The train split")
        for what in ("x", "context"):
            shapes = {split: _row(getattr(part, what)) for split, part in parts.items()}
            if len({*shapes.values()}) > 1:
                raise ShapeError(f"The splits differ in the shape of one row of their {what}: {shapes}.")
        card = Card(
            name,
            "Data in memory.",
            shape=tuple(whole.x.shape[1:]),
            support=support_of(part.x.numpy(force=True) for part in parts.values()),
            splits={split: part.size for split, part in parts.items()},
            source="given in Python",
            licence="not known (user data)",
        )
        return cls(card, train=parts["train"], valid=parts["valid"], test=parts["test"])

    def __repr__(self) -> str:
        sizes = "/".join(str(part.size) for part in self._parts().values())
        name = self.name if len(self.name) <= 60 else f"...{self.name[-57:]}"
        return f"Dataset({name!r}, x {tuple(self.card.shape)} {self.card.support}, train/valid/test {sizes})"

    def _repr_html_(self) -> str:
        context = self.train.context
        said = {
            "what": self.card.description,
            "example": f"{tuple(self.card.shape)}, {self.card.support}",
            "context": tuple(context.shape[1:]) if isinstance(context, Tensor) else None,
            "examples": ", ".join(f"{part.size:,} {name}" for name, part in self._parts().items() if part.size),
            "classes": self.card.classes or None,
            "source": self.card.source,
            "licence": self.card.licence,
        }
        return facts(f"Data set {self.name}", said)

    def _parts(self) -> dict[str, Data]:
        return {"train": self.train, "valid": self.valid, "test": self.test}

    @property
    def translates(self) -> bool:
        """Whether a context is an image of the size of x, which x is another look of."""
        context = self.train.context
        return self.card.context_kind == "image" and context.shape[-2:] == self.train.x.shape[-2:]

    @property
    def name(self) -> str:
        """The name it was loaded by."""
        return self.card.name

    def split(self, name: str) -> Data:
        """'train', 'valid' or 'test'.

        Raises: OptionError for another name; EmptyDataError for one that was not given.
        """
        if name not in ("train", "valid", "test"):
            raise OptionError(f"Unknown split {name!r}; expected 'train', 'valid' or 'test'.")
        found: Data = getattr(self, name)
        if found.size == 0:
            raise EmptyDataError(f"{self.name!r} has no {name} split; give one, Dataset.of(train, valid, test).")
        return found

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Dataset:
        """All splits on a device or in a dtype (labels stay as they are)."""
        train, valid, test = (split.to(device, dtype) for split in (self.train, self.valid, self.test))
        return Dataset(self.card, train=train, valid=valid, test=test, labels=self.labels)


def _row(values: Any) -> tuple[int, ...] | None:
    return tuple(values.shape[1:]) if isinstance(values, Tensor) else None
