"""The results file: one JSON object a cell and metric, appended a whole cell at a time.

All lines of a cell go out in one write, then to the disk, so a killed run loses at most the cell it was in. Every line
says of how many its cell consists (`records`), by which a cell torn by a crash is recognised and dropped.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zoo.errors import CheckpointError

__all__ = ["append_cell", "finished", "latest", "read_results", "repair"]

Record = dict[str, Any]

FILE = "results.jsonl"


def append_cell(folder: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes all records of one cell at once."""
    lines = list(records)
    text = "".join(json.dumps({**line, "records": len(lines)}, allow_nan=False) + "\n" for line in lines)
    with open(folder / FILE, "ab") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _parse(text: str) -> tuple[list[Record], bool]:
    """Records of whole cells, and whether anything had to be left out."""
    found, torn = [], False
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            torn = True
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for record in found:
        counts[record["cell"], record["started"]] += 1
    whole = [r for r in found if counts[r["cell"], r["started"]] == r["records"]]
    return whole, torn or len(whole) < len(found)


def read_results(folder: str | Path) -> list[Record]:
    """All records of whole cells, in the order written; a line cut short by a crash is passed over.

    Raises: CheckpointError when the folder has no results.
    """
    path = Path(folder) / FILE
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; `zoo bench SUITE --out {folder}` writes it.")
    return _parse(path.read_text())[0]


def repair(folder: Path) -> None:
    """Drops what a killed run left half written, so that appending can go on."""
    path = folder / FILE
    if not path.exists():
        return
    records, torn = _parse(path.read_text())
    if torn or not path.read_text().endswith("\n"):
        temporary = path.with_suffix(".part")
        temporary.write_text("".join(json.dumps(record) + "\n" for record in records))
        os.replace(temporary, path)


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


def finished(records: Iterable[Record]) -> set[str]:
    """Keys of the cells that need not be run again."""
    return {record["cell"] for record in latest(records) if not record.get("failed")}
