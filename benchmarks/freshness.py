"""What the numbers of a cell hang on beyond what it declares: the code of program and method, the content of the data.

`zoo bench` measures anew what was measured under another code or other data; `zoo report` marks it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.results import Record, latest
from benchmarks.suite import KINDS, Cell, Suite
from benchmarks.suites import SUITES, get_suite
from benchmarks.targets import REFERENCES, TARGETS, posteriordb, trained
from inference.checkpoint import source_of
from inference.fit import METHODS
from zoo import catalogue, datasets
from zoo.datasets import reference
from zoo.datasets.registry import REGISTRY
from zoo.errors import ZooError
from zoo.program import Program

__all__ = ["bases", "basis", "own_files", "stale"]

CONTRACT = ("zoo.program", "zoo.acceptance")
"""What all programs share does not count: with any change of it everything would be stale."""


def basis(cell: Cell) -> dict[str, str]:
    """{'code': hash, 'data': hash} as they are now; a part that cannot be found is left out: the cell will say why."""
    found = {}
    for part, look in (("code", _code), ("data", _data)):
        try:
            found[part] = hashlib.sha256(look(cell).encode()).hexdigest()[:16]
        except (ZooError, OSError):
            continue
    return found


def bases(cells: Iterable[Cell]) -> dict[str, dict[str, str]]:
    """By key the `basis` of each cell; cells of the same program, method and data are looked up once."""
    known: dict[tuple[str, ...], dict[str, str]] = {}
    found = {}
    for cell in cells:
        hangs_on = (cell.kind, cell.program.name, cell.method.method, cell.dataset)
        if hangs_on not in known:
            known[hangs_on] = basis(cell)
        found[cell.key] = known[hangs_on]
    return found


def own_files(suite: Suite) -> dict[str, str]:
    """Absolute path -> sum of each file of a user's own that a suite is made from: declaration, programs, data."""
    cells = [cell for grid in suite.grids for cell in grid.cells(suite.name, seeds=1)]
    code = [suite.source, *(cell.program.name for cell in cells)]
    paths = [*(Path(each.rpartition(":")[0]) for each in code if ".py:" in each), *(Path(c.dataset) for c in cells)]
    return {str(path.resolve()): _sum(path) for path in dict.fromkeys(paths) if path.is_file()}


def stale(records: Iterable[Record], suites: Mapping[str, Mapping[str, Any]] | None = None) -> set[str]:
    """Keys of the cells whose last attempt was measured under other code or other data than now.

    Cells of a user's own suite all count as stale once any of its files has changed: to look closer, its code would
    have to run, and a report runs none. A file that is not there tells nothing: reports are read elsewhere too.

    Args:
        records: Of any cells.
        suites: What is noted of suites, see `benchmarks.results.declared`; of others, not ours, nothing is known.
    """
    last = {record["cell"]: record for record in latest(records)}
    names = {record["suite"] for record in last.values()}
    ours = [c for name in names & set(SUITES) for c in get_suite(name).cells(seeds=_seeds(last.values()))]
    found = {c.key for c in ours if c.key in last and last[c.key].get("basis", basis(c)) != basis(c)}
    changed = {name for name, said in (suites or {}).items() if name not in SUITES and _changed(said["files"])}
    return found | {key for key, record in last.items() if record["suite"] in changed}


def _changed(files: Mapping[str, str]) -> bool:
    return any(Path(path).is_file() and _sum(Path(path)) != known for path, known in files.items())


def _seeds(records: Iterable[Record]) -> int:
    return max(record["seed"] for record in records) + 1


def _code(cell: Cell) -> str:
    program, method = cell.program.name, cell.method.method
    kinds: list[Any] = []
    makers = {**TARGETS, **dict.fromkeys(trained.TRAINED, trained.load)} if cell.kind == "posterior" else {}
    if program in makers:
        module = _home(makers[program])
        kinds += [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Program)]
    else:
        known = posteriordb.PROGRAMS.get(program.partition("/")[2]) if program in REFERENCES else None
        kinds.append(catalogue.get(known or program))
    if method in METHODS:
        place, _, name = METHODS[method].partition(":")
        kinds.append(getattr(import_module(place), name))
    return source_of(kinds, without=CONTRACT)


def _data(cell: Cell) -> str:
    base = datasets.base_name(cell.dataset or catalogue.get(cell.program.name).dataset)
    # A file is known by its sum; what is made is known by what makes it: a reader, a target, or the kind of the cell.
    if base in REGISTRY:
        card, read = REGISTRY[base].card, REGISTRY[base].read
        return " ".join(file.sha256 for file in card.files) or _sum(Path(_home(read).__file__ or ""))
    if base in REFERENCES:
        return reference.source_of(base.partition("/")[2]).files[0].sha256
    if os.path.isdir(base):
        return " ".join(_sum(path) for path in sorted(Path(base).rglob("*")) if path.is_file())
    if os.path.exists(base):
        return _sum(Path(base))
    home = _home(TARGETS[base]) if base in TARGETS else import_module(KINDS[cell.kind].partition(":")[0])
    return _sum(Path(home.__file__ or ""))


def _home(made_by: Any) -> ModuleType:
    return import_module((made_by.func if isinstance(made_by, partial) else made_by).__module__)


def _sum(path: Path) -> str:
    stat = path.stat()
    return _sum_of(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _sum_of(path: Path, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
