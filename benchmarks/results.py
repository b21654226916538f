"""The results file: one JSON object a cell and metric, appended a whole cell at a time.

All lines of a cell go out in one write, then to the disk, so a killed run loses at most the cell it was in. Every line
says of how many its cell consists (`records`), by which a cell torn by a crash is recognised and dropped. Beside it,
suites.json says what each suite in it is called and asks, and from which files of a user's own it is made.

from benchmarks import results
results.load("runs/main").frame()        # a pandas data frame, a row for each cell and metric
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import folders
from zoo.errors import CheckpointError

if TYPE_CHECKING:
    import pandas

__all__ = [
    "FILE", "Results", "append_cell", "declare", "declared", "finished", "latest", "load", "read_results", "repair",
]  # fmt: skip

Record = dict[str, Any]

FILE = "results.jsonl"
SUITES = "suites.json"
COLUMNS = (
    "suite", "kind", "program", "method", "dataset", "split", "seed", "metric", "value", "standard_error", "how",
    "failed", "seconds", "device", "cell",
)  # fmt: skip
"""Of the data frame; the options of a row's method follow as `budget.NAME`."""

TEXT, NUMBER = str, (int, float, type(None))
KINDS: dict[str, Any] = {
    **dict.fromkeys(("suite", "kind", "program", "method", "dataset", "cell", "metric"), TEXT),
    **dict.fromkeys(("value", "standard_error", "seconds"), NUMBER),
    **dict.fromkeys(("seed", "started", "records"), int),
}
"""What every record has."""


def append_cell(folder: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes all records of one cell at once."""
    given = list(records)
    lines = [_checked({**line, "records": len(given)}) for line in given]
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    with open(folder / FILE, "ab") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _parse(content: bytes, path: Path) -> tuple[list[Record], bool]:
    """Records of whole cells, and whether anything had to be left out.

    Raises: CheckpointError for a line that no crash explains: one before the last that cannot be read, or a record that
        is none of ours.
    """
    found, torn = [], False
    lines = content.splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            found.append(_checked(folders.from_json(line, path)))
        except CheckpointError as error:
            # A crash cuts the last line short, which then is no JSON; what was written before it went to the disk.
            if number < len(lines) or _is_json(line):
                raise CheckpointError(
                    f"{path}, line {number}: {error} Delete the line (its cell is then run again), or the file."
                ) from error
            torn = True
    counts: dict[tuple[str, int], int] = defaultdict(int)
    for record in found:
        counts[record["cell"], record["started"]] += 1
    whole = [r for r in found if counts[r["cell"], r["started"]] == r["records"]]
    return whole, torn or len(whole) < len(found)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _checked(record: Record) -> Record:
    """A record that has all that a reader asks for, each of its kind.

    Raises: CheckpointError.
    """
    wrong = [name for name, kind in KINDS.items() if name not in record or not isinstance(record[name], kind)]
    if wrong:
        raise CheckpointError(f"this record has no {', '.join(wrong)}, or of another kind.")
    return record


def read_results(folder: str | Path) -> list[Record]:
    """All records of whole cells, in the order written; a line cut short by a crash is passed over.

    Raises: CheckpointError when the folder has no results, or they are damaged or not ours.
    """
    path = Path(folder) / FILE
    if not os.path.lexists(path):
        raise CheckpointError(f"{path} does not exist; `zoo bench SUITE --out {folder}` writes it.")
    return _parse(folders.read_bytes(path), path)[0]


def repair(folder: Path) -> None:
    """Drops what a killed run left half written, so that appending can go on.

    Raises: CheckpointError for what no killed run left; the file stays as it is.
    """
    path = folder / FILE
    if not os.path.lexists(path):
        return
    content = folders.read_bytes(path)
    records, torn = _parse(content, path)
    if torn or not content.endswith(b"\n"):
        folders.write_bytes(path, "".join(json.dumps(record) + "\n" for record in records).encode())


def latest(records: Iterable[Record]) -> list[Record]:
    """Of every cell the records of its last attempt only (a failed cell is tried again when a run is resumed)."""
    attempts: dict[str, list[Record]] = {}
    for record in records:
        known = attempts.get(record["cell"])
        if known and known[0]["started"] == record["started"]:
            known.append(record)
        else:
            attempts[record["cell"]] = [record]
    return [record for attempt in attempts.values() for record in attempt]


def finished(records: Iterable[Record], bases: Mapping[str, Mapping[str, str]]) -> set[str]:
    """Keys of the cells that need not be run again: they did not fail, and what they hang on is as it was.

    Args:
        records: Of any cells.
        bases: Key -> what the cell hangs on now, see `benchmarks.freshness.basis`.
    """
    return {
        record["cell"]
        for record in latest(records)
        if not record.get("failed") and record.get("basis") == bases.get(record["cell"])
    }


@dataclass(frozen=True)
class Results:
    """What a folder of results holds: the records of every cell's last attempt."""

    records: list[Record]

    def frame(self) -> pandas.DataFrame:
        """One row for each cell and metric, in the order measured.

        Columns: suite, kind, program, method, dataset, split, seed; metric, value (NaN where it does not apply, for the
        reason in `how`), standard_error; failed (the error, in the one row of a cell that failed); seconds of the cell;
        device; cell (its key); budget.NAME, the options of the method.
        """
        import pandas

        rows = [
            {
                **{name: record.get(name) for name in COLUMNS},
                **{f"budget.{name}": value for name, value in record.get("budget", {}).items()},
            }
            for record in self.records
        ]
        found = pandas.DataFrame(rows, columns=list(dict.fromkeys([*COLUMNS, *(key for row in rows for key in row)])))
        return found.astype({"value": float, "standard_error": float, "seconds": float})


def load(folder: str | Path) -> Results:
    """What `zoo bench` wrote to a folder.

    Raises: CheckpointError when the folder has no results, or they are damaged or not ours.
    """
    return Results(latest(read_results(folder)))


def declare(folder: Path, name: str, title: str, question: str, files: Mapping[str, str]) -> None:
    """Notes what a suite is, beside its results; `files` are those of a user's own that it is made from, with sums."""
    said = {"title": title, "question": question, "files": dict(files)}
    folders.write_bytes(folder / SUITES, json.dumps({**declared(folder), name: said}, indent=2).encode())


def declared(folder: str | Path) -> dict[str, dict[str, Any]]:
    """Name of a suite -> its title, question and files; {} where nothing is noted.

    Raises: CheckpointError where the note is damaged.
    """
    path = Path(folder) / SUITES
    if not os.path.lexists(path):
        return {}
    found = folders.from_json(folders.read_bytes(path), path)
    fields = {"title": str, "question": str, "files": dict}
    if not all(isinstance(v, dict) and all(isinstance(v.get(f), t) for f, t in fields.items()) for v in found.values()):
        raise CheckpointError(f"{path} is damaged or none of ours; delete it, and `zoo bench` writes it again.")
    return found
