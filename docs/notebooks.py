"""Runs the notebooks of the docs anew and keeps what they print and draw: `python docs/notebooks.py`, or with names.

Each runs in an empty folder, so that what it writes is gone afterwards. Needs the extra `docs`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent / "notebooks"


def run(path: Path) -> None:
    """Executes a notebook in place. Raises: CellExecutionError with what went wrong in which cell."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=600, record_timing=False, resources={"metadata": {"path": folder}})
        client.execute()
    nbformat.write(notebook, path)


os.environ["PYTHONWARNINGS"] = "ignore:IProgress"  # progress bars in widgets, which no page shows

if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.ipynb")):
        print(name)
        run(FOLDER / f"{name}.ipynb")
