"""What a suite is: a declaration of cells, programs x methods x data x seeds, and the metrics each cell yields.

A suite holds no code, only names and options; `benchmarks.run` runs it and `benchmarks.report.page` shows it. To
compare one more method, add a `MethodSpec` to a `Grid`; to compare one more program, a `ProgramSpec`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

from benchmarks.metrics import METRICS
from zoo.errors import OptionError, UnknownNameError

__all__ = ["KINDS", "Cell", "Grid", "MethodSpec", "ProgramSpec", "Suite", "file_name"]

KINDS: dict[str, str] = {
    "posterior": "benchmarks.cells.posterior:measure",
    "density": "benchmarks.cells.likelihood:measure",
    "anomaly": "benchmarks.cells.anomalies:measure",
    "samples": "benchmarks.cells.samples:measure",
    "completion": "benchmarks.cells.completions:measure",
    "inpaint": "benchmarks.cells.restorations:measure",
    "denoise": "benchmarks.cells.restorations:measure",
    "super_resolve": "benchmarks.cells.restorations:measure",
    "caption": "benchmarks.cells.captions:measure",
    "tags": "benchmarks.cells.tags:measure",
    "codes": "benchmarks.cells.codes:measure",
    "topics": "benchmarks.cells.topics:measure",
}
"""Kind of cell -> the function (cell, folder) -> list of Measurement that runs one."""


@dataclass(frozen=True)
class ProgramSpec:
    """A program of the comparison: its name in tables, where it comes from and its constructor options.

    `name` is a name of the catalogue, or of `benchmarks.targets` (kind 'posterior'; any program there whose `truth` is
    said), or 'real-data' (kind 'samples').
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def title(self) -> str:
        """What tables call it."""
        return self.label or self.name


@dataclass(frozen=True)
class MethodSpec:
    """A method of the comparison: its name in tables, the method and its options.

    `program` are constructor options that the method sets on the program, such as the family of the program's own
    guide.
    """

    label: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    program: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One unit of work: fits one program by one method on one data set from one seed, then measures."""

    suite: str
    kind: str
    program: ProgramSpec
    method: MethodSpec
    dataset: str
    split: str
    metrics: tuple[str, ...]
    seed: int
    evaluation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """suite/program/method/dataset, as `--select` sees it and as folders are called."""
        return f"{self.suite}/{self.program.title}/{self.method.label}/{self.dataset}"

    @property
    def key(self) -> str:
        """What makes the cell the same in a resumed run: its name, its seed and a hash of everything it declares."""
        declared = json.dumps(
            [
                self.kind, self.program.name, dict(self.program.options), self.method.method, dict(self.method.options),
                dict(self.method.program), self.split, self.metrics, dict(self.evaluation),
            ],
            sort_keys=True, default=repr,
        )  # fmt: skip
        return f"{self.name}/{self.seed}/{hashlib.sha256(declared.encode()).hexdigest()[:8]}"


def file_name(key: str) -> str:
    """The key of a cell as a file name, for its artifacts."""
    return "".join(c if c.isalnum() or c in "-." else "_" for c in key)


@dataclass(frozen=True)
class Grid:
    """All combinations of some programs, methods, data sets and seeds (0, 1, ...), measured alike.

    `evaluation` are options of the measuring, such as the particles of IWAE; see the module of the kind.
    """

    kind: str
    programs: tuple[ProgramSpec, ...]
    methods: tuple[MethodSpec, ...]
    metrics: tuple[str, ...]
    data: tuple[str, ...] = ("",)
    split: str = "test"
    seeds: int = 3
    evaluation: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownNameError("kind of cell", self.kind, KINDS)
        for metric in self.metrics:
            if metric not in METRICS:
                raise UnknownNameError("metric", metric, METRICS)
        if self.seeds < 1:
            raise OptionError(f"A grid needs at least one seed, got {self.seeds}.")

    def cells(self, suite: str, seeds: int | None = None) -> Iterator[Cell]:
        """Its cells; seeds vary slowest, so that a run that is stopped has seen every row."""
        for seed in range(self.seeds if seeds is None else seeds):
            for program in self.programs:
                for dataset in self.data:
                    for method in self.methods:
                        yield Cell(
                            suite,
                            self.kind,
                            program,
                            method=method,
                            dataset=dataset,
                            split=self.split,
                            metrics=self.metrics,
                            seed=seed,
                            evaluation=self.evaluation,
                        )


@dataclass(frozen=True)
class Suite:
    """A question and the grids of cells that answer it."""

    name: str
    title: str
    question: str
    grids: tuple[Grid, ...]
    source: str = ""
    """Where one of a user's own is declared, 'file.py:SUITE'; `get_suite` fills it in."""

    def cells(self, select: tuple[str, ...] = (), seeds: int | None = None) -> list[Cell]:
        """The cells to run.

        Args:
            select: Patterns on 'suite/program/method/dataset', any of which is enough: a part of the name, or a glob.
            seeds: How many seeds instead of the declared number.

        Raises: OptionError when nothing is selected.
        """
        if seeds is not None and seeds < 1:
            raise OptionError(f"seeds must be at least 1, got {seeds}.")
        every = [cell for grid in self.grids for cell in grid.cells(self.name, seeds)]
        chosen = [c for c in every if not select or any(p in c.name or fnmatch(c.name, p) for p in select)]
        if not chosen:
            programs = ", ".join(dict.fromkeys(repr(cell.program.title) for cell in every))
            methods = ", ".join(dict.fromkeys(repr(cell.method.label) for cell in every))
            raise OptionError(
                f"No cell of suite {self.name!r} matches {' or '.join(select)}. Its programs: {programs}; "
                f"its methods: {methods}."
            )
        return chosen
