"""Rows that a script measures one after the other and keeps in a file, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from inference.training.loop import progress_bar
from zoo.errors import OptionError, ZooError

__all__ = ["Row", "measured"]

Row = dict[str, Any]
"""What was found; 'refused' says why nothing was."""


def measured(
    cases: Mapping[str, Callable[[], Row]], path: Path | None, machine: str, label: str
) -> tuple[str, dict[str, Row]]:
    """Measures the rows that the file does not hold yet.

    Args:
        cases: Key -> what measures its row.
        path: A JSON file, read first and written after each row; None keeps nothing.
        machine: This one, in words.
        label: Of the bar.

    Returns: the machine that the rows are of, and the row of each key.

    Raises: OptionError where rows of another machine would be mixed with rows of this one.
    """
    kept: dict[str, Any] = {"machine": machine, "rows": {}}
    if path is not None and path.exists():
        kept = json.loads(path.read_text())
    rows: dict[str, Row] = kept["rows"]
    if kept["machine"] != machine and (missing := [key for key in cases if key not in rows]):
        raise OptionError(
            f"The rows in {path} are of {kept['machine']}, and {missing[0]!r} would be measured on {machine}: give "
            "another file."
        )
    with progress_bar(sys.stderr.isatty()) as bar:
        task = bar.add_task(label, total=len(cases), note="")
        for key, measure in cases.items():
            bar.update(task, note=key)
            if key not in rows:
                try:
                    rows[key] = measure()
                except ZooError as error:
                    rows[key] = {"refused": str(error).split("\n")[0]}
                if path is not None:
                    path.write_text(json.dumps(kept, indent=1) + "\n")
            bar.advance(task)
    return kept["machine"], {key: rows[key] for key in cases}
