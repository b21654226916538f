"""Models out of a checkout of Pyro: its example files imported as they are, its notebooks statement by statement.

Nothing of Pyro's is copied here. What an example needs besides its model (plots, downloads) is not installed with this
project, so while a file is imported empty modules stand in for it; nothing that is missing is ever called.
"""

from __future__ import annotations

import ast
import importlib
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pyro
import torch

from zoo.errors import OptionError
from zoo.process import undisturbed

__all__ = ["Checkout"]

HELPERS = "pyro.contrib.examples"
"""Pyro's package of downloads, which needs torchvision and makes folders when it is imported."""


class _Absent(ModuleType):
    """A module in which every name is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def _absent() -> dict[str, ModuleType]:
    missing: dict[str, ModuleType] = {name: _Absent(name) for name in ("visdom", "wget") if find_spec(name) is None}
    util = _Absent(f"{HELPERS}.util")
    vars(util)["get_data_directory"] = lambda path=None: tempfile.gettempdir()
    return {**missing, util.__name__: util}


class Checkout:
    """A checkout of Pyro.

    Args:
        root: The folder that holds its `examples/` and `tutorial/`.

    Raises: OptionError where it does not.
    """

    def __init__(self, root: Path | str):
        self.root = Path(root)
        if not (self.root / "examples").is_dir():
            raise OptionError(
                f"{str(self.root)!r} is no checkout of Pyro: expected a folder with examples/ and tutorial/, as "
                "`git clone https://github.com/pyro-ppl/pyro` makes one."
            )

    @property
    def revision(self) -> str:
        """The commit that is checked out, in short, where git knows it."""
        command = ["git", "-C", str(self.root), "log", "-1", "--format=%h of %cs"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        return found.stdout.strip() or "of an unknown commit"

    def path(self, name: str) -> Path:
        """A file of the checkout, by its path from the root.

        Raises: OptionError where it is missing.
        """
        found = self.root / name
        if not found.is_file():
            raise OptionError(f"{name} is not in {str(self.root)!r}; expected a checkout of Pyro 1.9.")
        return found

    def file(self, name: str) -> ModuleType:
        """An example file as a fresh module; the process is left as it was."""
        path = self.path(name)
        with _importing(path.parent):
            return importlib.import_module(path.stem)

    def notebook(self, name: str, *wanted: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What chosen statements of a notebook define.

        Args:
            name: Path of the notebook from the root.
            wanted: How each statement begins, in the order in which they run after the imports; the first statement of
                the notebook that begins so is meant.
            given: Names that they find defined.

        Raises: OptionError where no statement begins so.
        """
        statements = list(_statements(self.path(name)))
        namespace: dict[str, Any] = {"__name__": "notebook", **(given or {})}
        with undisturbed(), _defaults():
            for text, node in statements:
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    _import(text, namespace)
            for start in wanted:
                found = next((pair for pair in statements if pair[0].startswith(start)), None)
                if found is None:
                    raise OptionError(f"No statement of {name} begins with {start!r}: is the checkout of Pyro 1.9?")
                _execute(found[1], name, namespace)
        return namespace


@contextmanager
def _importing(folder: Path) -> Iterator[None]:
    """Inside, modules are found in a folder of examples; afterwards it is as if they had never been imported."""
    stand_ins = _absent()
    before, path = dict(sys.modules), sys.path[:]
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    sys.path.insert(0, str(folder))
    sys.modules.update(stand_ins)
    try:
        with undisturbed(), _defaults():
            yield
    finally:
        sys.path[:] = path
        root.handlers[:], root.level = handlers, level
        for name in set(sys.modules) - set(before):
            file = getattr(sys.modules[name], "__file__", None) or ""
            if name in stand_ins or name.startswith(HELPERS) or file.startswith(str(folder)):
                del sys.modules[name]
        sys.modules.update({name: before[name] for name in stand_ins if name in before})


@contextmanager
def _defaults() -> Iterator[None]:
    """Puts back what examples set for the whole process: the default dtype and Pyro's validation."""
    dtype, validating = torch.get_default_dtype(), pyro.infer.util.is_validation_enabled()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        pyro.enable_validation(validating)


def _statements(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    """The top-level statements of a notebook's cells, each with its text; of a decorated one, that after `@...`."""
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        lines = [line for line in "".join(cell["source"]).splitlines() if not line.startswith(("%", "!"))]
        source = "\n".join(lines)
        for node in ast.parse(source).body:
            yield ast.get_source_segment(source, node) or "", node


def _import(text: str, namespace: dict[str, Any]) -> None:
    with suppress(ModuleNotFoundError):  # for plots or downloads; a model that needs it says so when it is run
        exec(text, namespace)


def _execute(node: ast.stmt, name: str, namespace: dict[str, Any]) -> None:
    exec(compile(ast.Module([node], type_ignores=[]), name, "exec"), namespace)
