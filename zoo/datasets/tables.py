"""Files of comma-separated values: which rows and columns are numbers, and which of these are x and which context."""

from __future__ import annotations

import csv
import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import numpy as np

from zoo.datasets.given import REST, Fields
from zoo.errors import DatasetError, EmptyDataError

__all__ = ["Address", "Form", "read_columns", "read_csv", "read_texts"]

HEADERS = {"-with-header": True, "-without-header": False}
"""What may follow the path of a .csv, and whether its first row is then a header."""


class Form(NamedTuple):
    """How a .csv is to be read; nothing of it said is a table of examples, whose header can be seen."""

    header: bool | None = None
    fields: Fields = Fields()

    def __bool__(self) -> bool:
        return self.header is not None or bool(self.fields)

    def ending(self) -> str:
        """What follows the path in the name of the data, so that the name alone loads them again."""
        if self.fields:
            said = {"target": self.fields.target, "context": self.fields.context}
            return "?" + "&".join(f"{key}={_words(part)}" for key, part in said.items() if part is not None)
        return next((ending for ending, means in HEADERS.items() if means == self.header), "")


class Address(NamedTuple):
    """A path, and the form that its name says."""

    path: Path
    form: Form

    @classmethod
    def of(cls, name: str) -> Address:
        """Of a name: 'mine.csv', 'mine.csv-with-header', 'mine.csv?target=y&context=a,b'."""
        base, mark, query = name.rpartition("?")
        said = dict(part.partition("=")[::2] for part in query.split("&"))
        if mark and said.keys() <= {"target", "context"} and not os.path.exists(name):
            return cls(Path(base), Form(fields=Fields(*(_part(said.get(key)) for key in ("target", "context")))))
        for ending, header in HEADERS.items():
            base = name.removesuffix(ending)
            if base != name and base.lower().endswith(".csv"):
                return cls(Path(base), Form(header))
        return cls(Path(name), Form())


def _words(part: Any) -> str:
    """One name, 'y'; several, 'a,b' or 'a,'. The minus too is escaped: '-binary' may follow."""
    if part == REST:
        return REST
    names = [quote(str(name), safe="").replace("-", "%2D").replace("*", "%2A") for name in _listed(part)]
    return ",".join(names) + ("," if len(names) == 1 and not isinstance(part, str) else "")


def _part(words: str | None) -> str | list[str] | None:
    if not words or words == REST:
        return words or None
    names = [unquote(word) for word in words.split(",") if word]
    return names if "," in words else names[0]


def _listed(part: Any) -> Sequence[Any]:
    return [part] if isinstance(part, str) else list(part)


Array = np.ndarray[Any, Any]


class Table(NamedTuple):
    """What a .csv holds: x (N, ...), the context (N, columns) or None, how it was read, in words, and the names of the
    columns of x, none without a header."""

    x: Array
    context: Array | None
    how: str
    names: tuple[str, ...] = ()


def read_csv(path: Path, form: Form) -> Table:
    """Reads numbers with commas between them, a row an example; an empty cell is a missing value, NaN.

    Raises: DatasetError for what is no table of numbers, with line and column; EmptyDataError; UnknownNameError for a
        column that is not in the header.
    """
    rows = _cells(path)
    first = rows[0][1] if rows else []
    headed = _has_header(path, rows, form)
    names = [cell.strip() for cell in first] if headed else []
    rows = rows[headed:]
    if not rows:
        raise EmptyDataError(f"{path} holds no rows of numbers.")
    how = f"a row an example, values as in the file{', without its first row' * headed}"
    if not form.fields:
        return Table(_numbers(path, rows, names, range(len(rows[0][1]))), None, how, names=tuple(names))
    target, context = form.fields.columns(names, str(path))
    x = _numbers(path, rows, names, target)
    said = ", ".join(names[i] for i in target)
    given = None if context is None else _numbers(path, rows, names, context)
    how = f"the column{'s' * (len(target) > 1)} {said}"
    if context is not None:
        how += f" given {', '.join(names[i] for i in context)}"
    return Table(x[:, 0] if form.fields.is_single else x, given, how, names=tuple(names[i] for i in target))


def read_columns(path: Path, names: Sequence[str]) -> dict[str, Array]:
    """The columns of these names, (N,) each, as far as they are there; of whole numbers alone, as integers.

    Raises: DatasetError, EmptyDataError.
    """
    rows = _cells(path)
    header = [cell.strip() for cell in rows[0][1]] if rows else []
    found = {}
    for name in names:
        if header.count(name) > 1:
            raise DatasetError(f"{path} has several columns {name!r}.")
        if name in header:
            if len(rows) == 1:
                raise EmptyDataError(f"{path} holds no rows of numbers.")
            column = header.index(name)
            values = _numbers(path, rows[1:], header, [column])[:, 0]
            whole = all(row[column].strip().lstrip("+-").isdecimal() for _, row in rows[1:])
            found[name] = values.astype(np.int64) if whole else values
    return found


def read_texts(path: Path, names: Sequence[str]) -> list[tuple[int, list[str]]]:
    """The cells of these columns, row by row, with the numbers of their lines.

    Raises: DatasetError for a column that there is not, or a row of another width.
    """
    rows = _cells(path)
    header = [cell.strip() for cell in rows[0][1]] if rows else []
    for name in names:
        if header.count(name) != 1:
            raise DatasetError(
                f"{path} has {header.count(name)} columns {name!r} (its first row is {', '.join(header[:5])}); "
                f"expected one each of {' and '.join(names)}."
            )
    for line, row in rows:
        _check_width(path, line, row, len(header))
    return [(line, [row[header.index(name)].strip() for name in names]) for line, row in rows[1:]]


def _check_width(path: Path, line: int, row: Sequence[str], width: int) -> None:
    if len(row) != width:
        raise DatasetError(f"{path}, line {line}: {len(row)} cells, but {width} in the first row.")


def _cells(path: Path) -> list[tuple[int, list[str]]]:
    """Rows that are not empty, with the numbers of their lines.

    Raises: DatasetError.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(
            f"{path} cannot be read as {path.suffix}: {error}. It may be cut off, or be of another form; write it "
            "again."
        ) from error
    return [(number, row) for number, row in rows if any(cell.strip() for cell in row) or len(row) > 1]


def _has_header(path: Path, rows: list[tuple[int, list[str]]], form: Form) -> bool:
    """Raises: DatasetError where that cannot be seen, or columns are named and there is no header."""
    first = rows[0][1] if rows else []
    shown = f"{', '.join(first[:3])}{', ...' * (len(first) > 3)}"
    if form.fields:
        headless = bool(first) and all(_is_number(cell) for cell in first)
        if form.header is False or (headless and not set(form.fields.named()) <= {cell.strip() for cell in first}):
            raise DatasetError(
                f"{path} has no header (its first row is {shown}), so its columns cannot be chosen by name. Write "
                "their names into its first row."
            )
        return bool(rows)
    if form.header is not None:
        return form.header and bool(rows)
    if _counts_up(first):
        raise DatasetError(
            f"{path}, line {rows[0][0]}: the first row counts up ({shown}), which may be an example or a header as "
            "pandas writes it. Say which: load(..., header=True) or header=False; by name, "
            f"'{path}-with-header' or '{path}-without-header'."
        )
    return bool(first) and not any(_is_number(cell) for cell in first)


def _numbers(path: Path, rows: list[tuple[int, list[str]]], names: list[str], columns: Sequence[int]) -> Array:
    """(N, columns).

    Raises: DatasetError, with line and column.
    """
    found, width = array("d"), len(names or rows[0][1])
    for number, row in rows:
        _check_width(path, number, row, width)
        for column in columns:
            cell = row[column]
            try:
                found.append(float(cell))
            except ValueError:
                if cell.strip():
                    where, remedy = "", ""
                    if names:
                        name = repr(names[column])
                        where = f", column {name}"
                        remedy = f" Words, as of groups, are numbered with pandas: frame[{name}].factorize()[0]."
                        if len(cell.split()) > 2:
                            remedy = (
                                f" Texts are counted with scikit-learn: CountVectorizer().fit_transform(frame[{name}])."
                            )
                    raise DatasetError(
                        f"{path}, line {number}{where}: {cell!r} is not a number; expected numbers with commas between "
                        f"them, and nothing where one is missing.{remedy if cell.strip()[0].isalpha() else ''}"
                    ) from None
                found.append(np.nan)
    return np.frombuffer(found, np.float64).reshape(len(rows), len(columns))


def _counts_up(cells: list[str]) -> bool:
    """Whether a first row is 0, 1, ..., or three and more whole numbers one after the other: what columns without names
    are called."""
    if not cells or not all(cell.strip().isdecimal() for cell in cells):
        return False
    numbers = [int(cell) for cell in cells]
    return numbers == list(range(numbers[0], numbers[0] + len(numbers))) and (numbers[0] == 0 or len(numbers) >= 3)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
