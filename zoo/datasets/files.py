"""Data of the user's own: `.npz`, `.npy`, `.csv`, Parquet, a folder of images, or one of Hugging Face `datasets`.

Values are taken as they are, bytes included; only images, whose format says what a value means, are divided by 255.
The card's description says what was done, and a `ReadNotice` which images of a folder were left out. Of files that
would fill the memory the rows stay where they are (`zoo.stored`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.arrays import MAX_VALUES, RoundingNotice, as_tensor
from zoo.datasets.arrow import Converted, Files, convert, has_columns, is_table
from zoo.datasets.data import Card, Data, Dataset
from zoo.datasets.given import support_of
from zoo.datasets.picture_folders import SIDES
from zoo.datasets.picture_folders import read as read_folder
from zoo.datasets.sources import at_home
from zoo.datasets.splits import SPLITS, Splits, split_rows
from zoo.datasets.tables import Address, Form, read_columns, read_csv
from zoo.errors import DatasetError, EmptyDataError, ShapeError
from zoo.stored import Facts, Stored

__all__ = ["FORMS", "is_path", "load", "named_arrays"]

Array = np.ndarray[Any, Any]

FORMS = ".npz, .npy, .csv, .parquet, or a folder of .png or .jpg images or of Hugging Face datasets"
ENDINGS = (".npz", ".npy", ".csv", ".parquet")
STORED_FROM = 2**30
"""Bytes that rows would take in memory, from which on they stay in their file unless it is said otherwise."""
KINDS = {"": "examples", "_context": "contexts", "_labels": "labels"}
"""What follows the name of a split in an .npz, and what that array holds."""
AS_SEEN = Form()
BOMB_BYTES, BOMB_RATIO = 2**30, 100
"""An archive that unpacks to more bytes than the first, and to more than so many times its own, is refused."""


def is_path(name: str) -> bool:
    """Whether a string means a file or folder rather than a name: it exists, has a folder in it, or a known ending."""
    path = Address.of(name).path
    return bool(name) and (os.path.exists(path) or len(path.parts) > 1 or path.suffix.lower() in ENDINGS)


def load(path: Path, form: Form = AS_SEEN, stored: bool | None = None) -> Dataset:
    """Reads a file or folder into a data set.

    Args:
        path: Where it is.
        form: Of a .csv, its header and columns; of Parquet and of folders of `datasets`, columns; of others, as the
            context, a file beside them with as many rows, or, of a folder of image pairs, the side that is given, 'A'
            or 'B'.
        stored: Whether rows stay in the file; None is where they would take more than STORED_FROM.

    Raises: DatasetError for what is missing, damaged or of another form; EmptyDataError; ShapeError.

    Warns: ReadNotice for what of a folder is not read.
    """
    path = at_home(path)
    _check_readable(path)
    is_csv = path.suffix.lower() == ".csv" and not path.is_dir()
    if form.header is not None and not is_csv:
        raise DatasetError(f"header is of .csv files; {path} is none.")
    if form.fields.target is not None and not has_columns(path):
        raise DatasetError(f"target names columns of .csv and .parquet files; {path} is none.")
    tables = _tables(path, form)
    if _stays(path, tables, stored):
        return _stored(path, form, tables)
    is_beside = not has_columns(path) and form.fields and not (path.is_dir() and form.fields.context in SIDES)
    beside = _context(path, path.parent / str(form.fields.context)) if is_beside else None
    splits, how, special = _read(path, form, beside)
    shape = _event_shape(splits, path)
    return splits.dataset(
        Card(
            str(path) + form.ending(),
            f"User data: {how}.",
            shape=shape,
            support=support_of(splits.x.values(), splits.scale),
            splits={name: len(splits.x[name]) for name in SPLITS},
            source=f"file {path.absolute()}",
            licence="not known (user data)",
            classes=_classes(splits, path),
            **special,
        )
    )


def named_arrays(path: Path, names: Sequence[str]) -> dict[str, Array]:
    """The arrays of an .npz, or the columns of a .csv with a header, of these names; those that are not there are left
    out. A column of whole numbers alone is one of integers.

    Raises: DatasetError, EmptyDataError.
    """
    path = at_home(path)
    _check_readable(path)
    if path.suffix.lower() == ".npz":
        arrays = _arrays(path)
        return {name: arrays[name] for name in names if name in arrays}
    if path.suffix.lower() == ".csv":
        return read_columns(path, names)
    raise DatasetError(f"{path} has no names for the arguments {', '.join(names)}: expected an .npz, or a .csv.")


def _read(path: Path, form: Form, context: Array | Path | None) -> tuple[Splits, str, dict[str, Any]]:
    """The splits, how they were read in words, and what the card says beyond that of any file.

    Args:
        path: Where.
        form: Of a .csv its columns, of a folder a side.
        context: From another file, a folder of images that are the context of images, or None.
    """
    if is_table(path):
        found = convert(path, form.fields)
        return *_from_tables(found), {"names": found.names}
    if path.is_dir():
        return read_folder(path, None if context is not None else form.fields.context, context)
    assert not isinstance(context, Path)
    if path.suffix.lower() == ".npz":
        return *_npz(path, context), {}
    if path.suffix.lower() == ".npy":
        return *_split(_npy(path), HOW, context=context), {}
    table = read_csv(path, form)
    return *_split(table.x, table.how, context=table.context), {"names": table.names}


def _check_readable(path: Path) -> None:
    """Raises DatasetError."""
    if not os.path.exists(path):
        raise DatasetError(f"No file or folder {str(path)!r} (looked at {path.absolute()}).")
    if path.is_dir():
        return
    if not path.is_file():
        raise DatasetError(f"{path} is a pipe or a device, which would be waited for; expected {FORMS}.")
    if path.suffix.lower() not in ENDINGS:
        raise DatasetError(f"Cannot tell the form of {path}; expected {FORMS}.")


def _context(path: Path, context: Path) -> Array | Path:
    """A context in another file, or in a folder of images where images are what it belongs to."""
    return context if path.is_dir() and context.is_dir() else _array(context)


def _array(path: Path) -> Array:
    """The one table of a file, rows first: what a context is given as."""
    _check_readable(path)
    if path.suffix.lower() == ".csv":
        return read_csv(path, AS_SEEN).x
    if path.suffix.lower() == ".npy":
        return _npy(path)
    arrays = {} if path.is_dir() else _arrays(path)
    if len(arrays) != 1:
        raise DatasetError(f"{path} cannot be a context: expected a .npy, a .csv of numbers, or a .npz of one array.")
    return next(iter(arrays.values()))


def _split(x: Array, how: str, context: Array | None = None, labels: Array | None = None) -> tuple[Splits, str]:
    """One table of examples, shared out.

    Raises: EmptyDataError, ShapeError for a context or labels of other rows.
    """
    for what, other in (("rows of context", context), ("labels", labels)):
        if other is not None and len(other) != len(x):
            raise ShapeError(f"There are {len(x)} examples but {len(other)} {what}; they must match.")
    rows = split_rows(len(x))

    def shared(array: Array | None) -> dict[str, Array]:
        return {} if array is None else {name: array[index] for name, index in rows.items()}

    return Splits(shared(x), shared(context), shared(labels)), f"{how}; {SHARED_OUT}"


def _npz(path: Path, context: Array | None) -> tuple[Splits, str]:
    arrays = _arrays(path)
    if len(arrays) == 1:
        ((key, x),) = arrays.items()
        return _split(x, f"array {key!r} as in the file", context=context)
    if context is not None:
        raise DatasetError(f"{path} holds several arrays, so its context is among them: 'train_context', and so on.")
    found = {kind: {name: arrays[name + kind] for name in SPLITS if name + kind in arrays} for kind in KINDS}
    splits = list(found[""])
    whole = all(not parts or list(parts) == splits for parts in found.values())
    if splits in (["train"], list(SPLITS)) and whole and sum(map(len, found.values())) == len(arrays):
        also = "".join(f" and their {words}" for kind, words in KINDS.items() if kind and found[kind])
        examples, contexts, labels = found.values()
        if splits == ["train"]:
            how = f"array train{also.replace('their', 'its')} as in the file"
            return _split(examples["train"], how, context=contexts.get("train"), labels=labels.get("train"))
        return Splits(examples, contexts, labels), f"arrays train, valid and test{also} as in the file"
    raise DatasetError(
        f"{path} holds the arrays {', '.join(sorted(arrays)) or '(none)'}; expected train, valid and test, or train "
        "alone, which is then split; optionally with train_context and train_labels, and so for every split (all "
        "three); or one array under any name."
    )


def _arrays(path: Path) -> dict[str, Array]:
    """Of an .npz.

    Raises: DatasetError, EmptyDataError.
    """
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            assert archive.zip is not None
            unpacked, packed = sum(entry.file_size for entry in archive.zip.infolist()), path.stat().st_size
            if unpacked > max(BOMB_BYTES, BOMB_RATIO * packed):
                raise OSError(f"its {packed:,} bytes unpack to {unpacked:,}; if they are meant, save it uncompressed")
            arrays: dict[str, Array] = dict(archive)
    except Exception as error:  # a damaged archive can raise nearly anything, from zlib.error to NotImplementedError
        raise _unreadable(path, error) from error
    for key, array in arrays.items():
        _check(array, f"{path}[{key!r}]")
    return arrays


def _npy(path: Path) -> Array:
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:
        raise _unreadable(path, error) from error
    _check(array, str(path))
    return array


def _unreadable(path: Path, error: Exception) -> DatasetError:
    return DatasetError(
        f"{path} cannot be read as {path.suffix}: {error}. It may be cut off, or hold objects; write it again."
    )


# Rows that stay in their file.


def _tables(path: Path, form: Form) -> Converted:
    """The .npy files that the rows of a path lie in; none where it is of another form."""
    if is_table(path):
        return convert(path, form.fields)
    if path.suffix.lower() != ".npy" or path.is_dir():
        return Converted({}, ())
    context = form.fields.context
    return Converted({"": Files(path, None if context is None else path.parent / str(context))}, ())


def _stays(path: Path, tables: Converted, stored: bool | None) -> bool:
    """Whether the rows of a file stay in it.

    Raises: DatasetError for a form that is read whole.
    """
    if stored and not tables.files:
        raise DatasetError(f"{path} is read whole (stored=True is of .npy, .parquet, and folders of datasets).")
    if stored is not None:
        return stored
    itemsize = torch.get_default_dtype().itemsize
    return sum(_mapped(files.x).size for files in tables.files.values()) * itemsize > STORED_FROM


def _mapped(path: Path) -> Array:
    """The array of an .npy, which stays in the file."""
    try:
        array = np.asarray(np.lib.format.open_memmap(path, mode="r"))
    except Exception as error:
        raise _unreadable(path, error) from error
    _check(array, str(path))
    return array


HOW = "values as in the file"
SHARED_OUT = "random 80/10/10 split with seed 0"


def _from_tables(tables: Converted) -> tuple[Splits, str]:
    """All rows, in memory."""
    parts = {split: (_npy(f.x), None if f.context is None else _npy(f.context)) for split, f in tables.files.items()}
    if "" in parts:
        return _split(parts[""][0], HOW, context=parts[""][1])
    contexts = {split: context for split, (_, context) in parts.items() if context is not None}
    return Splits({split: x for split, (x, _) in parts.items()}, contexts), f"{HOW}, in its splits"


def _stored(path: Path, form: Form, tables: Converted) -> Dataset:
    """A data set whose rows are read when they are asked for; looks at all of them once, block by block.

    Raises: ShapeError, SupportError, EmptyDataError.

    Warns: RoundingNotice for whole numbers that the dtype cannot hold.
    """
    arrays = {split: _mapped(files.x) for split, files in tables.files.items()}
    beside = {split: _beside(files.context) for split, files in tables.files.items() if files.context is not None}
    if "" in arrays:
        how, files = f"{HOW}, which stay there; {SHARED_OUT}", dict.fromkeys(SPLITS, tables.files[""])
        rows = split_rows(len(arrays[""]))
        arrays, beside = ({name: part[""] for name in SPLITS if part} for part in (arrays, beside))
    else:
        how, files = f"{HOW}, which stay there, in its splits", tables.files
        rows = {name: np.arange(len(arrays[name])) for name in SPLITS}
    shape = _event_shape(Splits(arrays, beside), path)
    x = {name: Stored(arrays[name], rows[name], str(files[name].x)) for name in SPLITS}
    facts = Facts.joined([part.facts() for part in x.values()])
    exact = int(2 / torch.finfo(torch.get_default_dtype()).eps)
    if facts.whole and max(-facts.least, facts.most) > exact and arrays["train"].dtype.itemsize > 2:
        warnings.warn(
            f"Whole numbers of {path} are beyond {exact:,}, up to which {torch.get_default_dtype()} counts exactly, "
            "and may be rounded. Subtract an offset, or compute in double precision.",
            RoundingNotice,
            stacklevel=4,
        )

    def context(name: str) -> Tensor | None:
        file = files[name].context
        if file is None:
            return None
        if file.suffix.lower() == ".npy":
            return Stored(beside[name], rows[name], str(file))
        return as_tensor(beside[name][rows[name]], "context", torch.get_default_dtype())

    parts = {name: Data(x[name], context(name)) for name in SPLITS}
    card = Card(
        str(path) + form.ending(),
        f"User data: {how}.",
        shape=shape,
        support=facts.support,
        splits={name: len(rows[name]) for name in SPLITS},
        source=f"file {path.absolute()}",
        licence="not known (user data)",
        names=tables.names,
    )
    return Dataset(card, train=parts["train"], valid=parts["valid"], test=parts["test"])


def _beside(path: Path) -> Array:
    """A context in a file of its own."""
    if path.suffix.lower() != ".npy":
        return _array(path)
    _check_readable(path)
    return _mapped(path)


def _check(array: Array, what: str) -> None:
    if array.dtype.kind not in "buif":
        raise DatasetError(f"{what} has the type {array.dtype}; expected numbers (bool, integer or float).")
    if array.ndim == 0 or array.size == 0:
        raise EmptyDataError(f"{what} of shape {array.shape} holds no examples; expected (N, ...) with N >= 1.")


def _event_shape(splits: Splits, path: Path) -> tuple[int, ...]:
    for what, arrays in (("examples", splits.x), ("context", splits.context)):
        shapes = {name: array.shape[1:] for name, array in arrays.items()}
        if len(set(shapes.values())) > 1:
            raise ShapeError(f"{path}: the splits differ in the shape of their {what}: {shapes}.")
    for what, arrays in (("rows of context", splits.context), ("labels", splits.labels)):
        for name, array in arrays.items():
            if len(array) != len(splits.x[name]):
                raise ShapeError(f"{path}: {name} has {len(splits.x[name])} examples but {len(array)} {what}.")
    return tuple(splits.x["train"].shape[1:])


def _classes(splits: Splits, path: Path) -> int:
    """How many the labels name; 0 without labels.

    Raises: DatasetError for labels that are no numbers of classes.
    """
    for name, labels in splits.labels.items():
        if labels.ndim != 1 or not bool(((labels >= 0) & (labels == np.rint(labels))).all()):
            raise DatasetError(f"{path}: the labels of {name} are no numbers of classes; expected (N,) of 0, 1, 2, ...")
    most = max((int(labels.max()) for labels in splits.labels.values()), default=-1) + 1
    if most > MAX_VALUES:
        raise DatasetError(
            f"{path}: a label is {most - 1:,}; number the classes 0, 1, 2, ... (at most {MAX_VALUES:,})."
        )
    return most
