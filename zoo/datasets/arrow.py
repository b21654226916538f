"""Parquet files, and folders of Hugging Face `datasets`: tables that become `.npy` files in the cache, once.

Both hold columns in compressed groups of rows, of which a minibatch would have to unpack nearly all. As an `.npy` they
are read row by row, from disk if need be (`zoo.stored`). They are written group by group, so size is no matter.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo.datasets.given import Fields
from zoo.datasets.sources import cache_folder
from zoo.datasets.splits import SPLITS
from zoo.errors import DatasetError, EmptyDataError, ShapeError, SupportError
from zoo.process import guest

__all__ = ["Converted", "Files", "convert", "has_columns"]

Array = np.ndarray[Any, Any]

ROWS = 2**13
"""Rows that are unpacked at once."""
ALIASES = {"validation": "valid"}
VERSION = 1
"""Of what is written into the cache."""


class Files(NamedTuple):
    """Where the rows of a split lie: `.npy` files of x and of the context, or None without one."""

    x: Path
    context: Path | None = None


class Converted(NamedTuple):
    """Files by split, or one table under '' that is still to be split; and what the columns of x are called."""

    files: dict[str, Files]
    names: tuple[str, ...]


def has_columns(path: Path) -> bool:
    """Whether a path means a table whose columns have names: a .csv, a Parquet file, a folder of `datasets`."""
    return is_table(path) or (path.suffix.lower() == ".csv" and not path.is_dir())


def is_table(path: Path) -> bool:
    """Whether it is a Parquet file or a folder of `datasets`, as `save_to_disk` leaves it."""
    if path.is_dir():
        return any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
    return path.suffix.lower() == ".parquet"


def convert(path: Path, fields: Fields) -> Converted:
    """The `.npy` files of a table, from the cache or written now.

    Args:
        path: A Parquet file, or a folder of `datasets`.
        fields: Which columns are x and which the context; of nothing said, all are x.

    Raises: DatasetError for what is damaged or needs a package that is not installed; UnknownNameError, SupportError,
        ShapeError, EmptyDataError for columns.
    """
    folder = cache_folder() / "tables" / _key(path, fields)
    if not (folder / "names.json").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            _write(path, fields, scratch)
            if not (folder / "names.json").exists():  # nor has another process in the meantime
                scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    said = json.loads((folder / "names.json").read_text())
    files = {
        split: Files(folder / f"{split}x.npy", folder / f"{split}context.npy" if said["context"] else None)
        for split in said["splits"]
    }
    return Converted(files, tuple(said["names"]))


def _key(path: Path, fields: Fields) -> str:
    parts = sorted(path.rglob("*.arrow")) if path.is_dir() else [path]
    known = [(str(part.resolve()), part.stat().st_size, part.stat().st_mtime_ns) for part in parts]
    return hashlib.sha256(repr((VERSION, known, fields.target, fields.context)).encode()).hexdigest()[:32]


def _write(path: Path, fields: Fields, folder: Path) -> None:
    """Writes the files of a table, and 'names.json' that says which."""
    try:
        tables = _folder(path) if path.is_dir() else {"": _parquet(path)}
    except ImportError as error:
        package = "datasets" if path.is_dir() else "pyarrow"
        raise DatasetError(
            f"{path} is read by {package}, which is not installed ({error}): pip install 'pyro-model-zoo[tables]', or "
            "save the numbers as .npy."
        ) from error
    said: dict[str, Any] = {}
    for split, (columns, count, parts) in tables.items():
        target, context = fields.columns(columns, str(path))
        if count == 0:
            raise EmptyDataError(f"{path} holds no rows{f' of {split}' if split else ''}.")
        single = fields.is_single
        files = {
            "x": _Column(folder / f"{split}x.npy", count, [columns[i] for i in target], single=single, where=str(path))
        }
        if context is not None:
            names = [columns[i] for i in context]
            files["context"] = _Column(folder / f"{split}context.npy", count, names, single=False, where=str(path))
        for table in parts:
            for file in files.values():
                file.add(table)
        said = {"names": [columns[i] for i in target], "context": context is not None, "splits": list(tables)}
    (folder / "names.json").write_text(json.dumps(said))


Table = tuple[list[str], int, Iterator[Any]]
"""Names of columns, number of rows, and the rows as Arrow tables."""


def _parquet(path: Path) -> Table:
    parquet, arrow = guest("pyarrow.parquet"), guest("pyarrow")
    try:
        file = parquet.ParquetFile(path)
    except (OSError, arrow.ArrowException) as error:
        raise DatasetError(f"{path} cannot be read as Parquet: {error}. It may be cut off; write it again.") from error
    return list(file.schema_arrow.names), file.metadata.num_rows, file.iter_batches(batch_size=ROWS)


def _folder(path: Path) -> Mapping[str, Table]:
    library = guest("datasets")
    try:
        found = library.load_from_disk(str(path))
    except Exception as error:  # whatever is wrong with a folder that somebody wrote
        raise DatasetError(f"{path} cannot be read by datasets: {error}.") from error

    def table(part: Any) -> Table:
        return list(part.column_names), len(part), part.with_format("arrow").iter(ROWS)

    if not isinstance(found, library.DatasetDict):
        return {"": table(found)}
    splits = {ALIASES.get(name, name): part for name, part in found.items()}
    if list(splits) == ["train"]:
        return {"": table(splits["train"])}
    if set(splits) != set(SPLITS):
        raise DatasetError(
            f"{path} has the splits {', '.join(map(repr, found))}; expected train, validation and test, or train "
            "alone, which is then split."
        )
    return {name: table(splits[name]) for name in SPLITS}


class _Column:
    """One `.npy` file that grows by the rows of tables.

    Args:
        path: The file.
        count: How many rows it will have.
        names: Of the columns: several of numbers, side by side, or one of numbers or of lists of one shape.
        single: Whether one column of numbers is (N,), not (N, 1).
        where: The table, for errors.
    """

    def __init__(self, path: Path, count: int, names: Sequence[str], single: bool, where: str):
        self.path, self.count, self.names, self.single, self.where = path, count, names, single, where
        self.out: Array | None = None
        self.done = 0

    def add(self, table: Any) -> None:
        """The next rows."""
        found = [_numbers(table.column(name), f"column {name!r} of {self.where}") for name in self.names]
        if len(found) > 1 and any(part.ndim > 1 for part in found):
            raise ShapeError(
                f"{self.where} has columns of lists beside others ({', '.join(self.names)}); choose one as x, "
                "target=..."
            )
        rows = found[0] if self.single or found[0].ndim > 1 else np.stack(found, 1)
        if self.out is None:
            dtype = np.dtype(np.uint8) if rows.dtype == bool else rows.dtype
            self.out = np.lib.format.open_memmap(self.path, "w+", dtype, (self.count, *rows.shape[1:]))
        if rows.shape[1:] != self.out.shape[1:]:
            raise ShapeError(
                f"Rows from {self.done} of {self.where} have the shape {rows.shape[1:]}, those before "
                f"{self.out.shape[1:]}; all must have one."
            )
        if np.result_type(rows, self.out) != self.out.dtype and rows.dtype != bool:
            raise SupportError(f"{self.where} has gaps among whole numbers (row {self.done} on); store them as floats.")
        self.out[self.done : self.done + len(rows)] = rows
        self.done += len(rows)


def _numbers(column: Any, what: str) -> Array:
    """Numbers (n, ...) of an Arrow column; gaps are NaN.

    Raises: SupportError for what are no numbers, ShapeError for lists of unequal length or with gaps.
    """
    arrow = guest("pyarrow")
    array = column.combine_chunks() if isinstance(column, arrow.ChunkedArray) else column
    shape = [len(array)]
    while True:
        if isinstance(array, arrow.ExtensionArray):
            array = array.storage
        kind = array.type
        if not (arrow.types.is_list(kind) or arrow.types.is_large_list(kind) or arrow.types.is_fixed_size_list(kind)):
            break
        lengths = set(guest("pyarrow.compute").list_value_length(array).to_pylist())
        if len(lengths) != 1 or None in lengths:
            raise ShapeError(f"The {what} holds lists of unequal length, or none; cut or pad them.")
        shape.append(lengths.pop())
        array = array.flatten()
    if not (arrow.types.is_integer(kind) or arrow.types.is_floating(kind) or arrow.types.is_boolean(kind)):
        raise SupportError(
            f"The {what} is of type {kind}; expected numbers, or lists of them. Choose other columns (target=, "
            "context=)."
        )
    if array.null_count and arrow.types.is_boolean(kind):
        array = array.cast(arrow.int8())
    found: Array = array.to_numpy(zero_copy_only=False)
    return found.reshape(shape)
