"""Plants random mutants, one at a time, and runs the tests that should notice: `make mutants` (N=200 SEED=0).

A mutant is one changed operator, comparison, number, slice, argument order or dropped `not` in `zoo`, `inference` or
`benchmarks`. The tests are those of its module and those that import it. Survivors are printed with their line; each is
either a test that is missing or a change that changes nothing. The checkout stays as it is: a copy is mutated.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("zoo", "inference", "benchmarks")
OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.MatMult: ast.Mult, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or,
    ast.Or: ast.And,
}  # fmt: skip
NOTHING_RUN = 5
"""What pytest says when all tests were left out."""
LONGEST = 600.0
"""Seconds without a failure after which a mutant counts as unnoticed; a test that hangs fails after half of them."""
BEFORE = ("pyro", "matplotlib.pyplot", "pandas", "scipy.stats", "sklearn.neural_network", "arviz")
"""Imported once for all; the project, and what pytest rewrites, by each run."""
REASONS = ("equivalent: ", "taste: ")
"""Of survivors that no test should notice: nothing changes; or a margin, a colour, a length that is as good."""
Mutant = tuple[Path, int, ast.expr, ast.expr]


def changed(node: ast.AST) -> ast.expr | None:
    """Another expression in the place of this one, or None."""
    new = deepcopy(node)
    if isinstance(new, ast.BinOp | ast.BoolOp) and type(new.op) in OPERATORS:
        new.op = OPERATORS[type(new.op)]()
    elif isinstance(new, ast.Compare) and len(new.ops) == 1 and type(new.ops[0]) in OPERATORS:
        new.ops = [OPERATORS[type(new.ops[0])]()]
    elif isinstance(new, ast.UnaryOp) and isinstance(new.op, ast.Not):
        return new.operand
    elif isinstance(new, ast.Constant) and type(new.value) in (int, float):
        new.value += 1 if abs(new.value) < 1e9 else new.value  # bounds of slices are among them
    elif isinstance(new, ast.Call) and len(new.args) > 1 and not any(isinstance(a, ast.Starred) for a in new.args):
        new.args[:2] = new.args[1::-1]
    else:
        return None
    return new


def mutants(path: Path) -> Iterator[Mutant]:
    """All of a file; annotations and type checks for the reader alone are left out."""
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        for name, value in ast.iter_fields(node):
            if name not in ("annotation", "returns", "format_spec") and not isinstance(value, str):
                pending += [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, ast.AST)]
        if isinstance(node, ast.expr) and (new := changed(node)) is not None:
            yield path, node.lineno, node, new


def planted(source: str, old: ast.expr, new: ast.expr) -> str:
    """The source with one expression replaced."""
    lines = source.encode().splitlines(keepends=True)
    assert old.end_lineno is not None
    start = sum(map(len, lines[: old.lineno - 1])) + old.col_offset
    end = sum(map(len, lines[: old.end_lineno - 1])) + (old.end_col_offset or 0)
    text = source.encode()
    return (text[:start] + f"({ast.unparse(new)})".encode() + text[end:]).decode()


def naming(module: Path, folder: str, pattern: str) -> list[Path]:
    """The files of a folder that import a module, or name it in a string."""
    dotted = ".".join(module.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    parent, _, name = dotted.rpartition(".")
    words = re.compile(rf"{re.escape(dotted)}[\s:\"]|from {re.escape(parent)} import \(?[\w\s,]*\b{name}\b")
    return [p for p in sorted((ROOT / folder).rglob(pattern)) if words.search(p.read_text())]


def judges(module: Path) -> list[Path]:
    """The test of the same name, that of the folder, and all that import the module; else those of what imports it."""
    room = ROOT / "tests" / module.parent.relative_to(ROOT)
    whole, modules, seen = [*room.parent.glob(f"test_{room.name}.py")], [module], set[Path]()
    while modules:
        found: list[Path] = []
        for each in modules:
            own = ROOT / "tests" / each.relative_to(ROOT).with_name(f"test_{each.stem}.py")
            found += [*([own] if own.exists() else []), *naming(each, "tests", "test_*.py")]
        if found:
            return list(dict.fromkeys([*found[:1], *whole, *found[1:]]))
        seen.update(modules)
        users = [user for each in modules for package in PACKAGES for user in naming(each, package, "*.py")]
        modules = [user for user in dict.fromkeys(users) if user not in seen]
    return [*whole, *sorted(room.rglob("test_*.py"))]  # of what is imported by a name put together


class Noted:
    """Writes down the first test that fails."""

    def __init__(self, path: Path):
        self.path = path

    def _note(self, report: Any) -> None:
        if report.failed and not self.path.exists():
            self.path.write_text(report.nodeid)

    pytest_runtest_logreport = pytest_collectreport = _note


class Slot:
    """A copy of the checkout, and the process of its own that runs tests in it; torch and Pyro are there already."""

    def __init__(self, folder: Path):
        self.copy, self.note, self.pid, self.until = folder / "checkout", folder / "failed", 0, 0.0
        for part in (*PACKAGES, "tests", "docs"):
            shutil.copytree(ROOT / part, self.copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        for part in filter(Path.is_file, ROOT.iterdir()):
            shutil.copy(part, self.copy)

    def begin(self, *tests: str) -> None:
        self.note.unlink(missing_ok=True)
        self.until = time.monotonic() + LONGEST
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.chdir(self.copy)
            sys.path.insert(0, str(self.copy))
            os.environ.update(PYTHONPATH=str(self.copy), PYTHONDONTWRITEBYTECODE="1")
            os.environ.setdefault("ZOO_DATA", str(ROOT.parent / "shared" / "data"))
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            options = ["-x", "-q", "-p", "no:cacheprovider", "--timeout=300"]
            code = 1
            try:
                code = int(pytest.main([*options, *tests], plugins=[Noted(self.note)]))
            finally:
                os._exit(code)  # whatever happens: the rest is the parent's

    def ended(self) -> str | None:
        """What failed, or nothing; None while tests run."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0 and time.monotonic() > self.until:
            os.killpg(self.pid, signal.SIGKILL)
            pid, status = os.waitpid(self.pid, 0)
        if pid == 0:
            return None
        if self.note.exists():
            return self.note.read_text()
        quiet = (0, NOTHING_RUN, -signal.SIGKILL)
        return "" if os.waitstatus_to_exitcode(status) in quiet else "the run, which died"


def judge(slot: Slot, mutant: Mutant) -> Generator[None, None, str]:
    """What notices a mutant: a test that fails with it, and passes without."""
    path, _, old, new = mutant
    source, tests = path.read_text(), [str(t.relative_to(ROOT)) for t in judges(path)]
    place = slot.copy / path.relative_to(ROOT)
    place.write_text(planted(source, old, new))
    failed, without = "", None
    try:
        if tests:
            slot.begin(*tests)
            while (found := slot.ended()) is None:
                yield
            failed = found
    finally:
        place.write_text(source)
    if failed.startswith("tests"):
        slot.begin(*([] if "::" in failed else ["--collect-only"]), failed)
        while (without := slot.ended()) is None:
            yield
    return f"nothing that counts: {failed} fails without it" if without else failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="tests of so many mutants at a time")
    parser.add_argument("--rows", type=Path, help="a JSON file that keeps what was found; survivors are judged again")
    given = parser.parse_args()
    every = [m for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py")) for m in mutants(p)]
    drawn = {title(m): m for m in random.Random(given.seed).sample(every, given.n)}
    rows = known(given.rows, drawn)
    waiting = [key for key in drawn if not rows.get(key)]
    for module in BEFORE:
        importlib.import_module(module)
    with tempfile.TemporaryDirectory() as name:
        free = [Slot(Path(name) / str(i)) for i in range(given.jobs)]
        running: dict[str, tuple[Slot, Generator[None, None, str]]] = {}
        while waiting or running:
            while free and waiting:
                slot, key = free.pop(), waiting.pop(0)
                running[key] = slot, judge(slot, drawn[key])
            for key, (_, judging) in list(running.items()):
                try:
                    next(judging)
                except StopIteration as end:
                    rows[key] = end.value
                    free.append(running.pop(key)[0])
                    print(f"{len(rows):4d} {key}: {end.value or 'SURVIVED'}", flush=True)
                    if given.rows:
                        given.rows.parent.mkdir(parents=True, exist_ok=True)
                        given.rows.write_text(json.dumps(rows, indent=1) + "\n")
            time.sleep(0.1)
    found = page({key: rows[key] for key in drawn}, f"{len(every):,} are possible; drawn with seed {given.seed}")
    print(found)
    if given.rows:
        given.rows.with_suffix(".md").write_text(found)


def known(path: Path | None, drawn: Mapping[str, Mutant]) -> dict[str, str]:
    """The rows of a file, which must be of the same draw: a line that has moved would be another mutant."""
    rows: dict[str, str] = json.loads(path.read_text()) if path is not None and path.exists() else {}
    if not rows.keys() <= drawn.keys():
        sys.exit(f"{path} holds mutants of another draw, or of sources that have changed; give another file.")
    return rows


def page(rows: Mapping[str, str], drawn: str) -> str:
    """What became of all mutants; a survivor may have been given its reason by hand, which begins with a `REASON`."""
    reasons = {key: said for key, said in rows.items() if not said or said.startswith(REASONS)}
    equivalent, taste = (sum(said.startswith(reason) for said in reasons.values()) for reason in REASONS)
    caught, judged = len(rows) - len(reasons), len(rows) - equivalent
    table = [f"| {key.replace('|', '&#124;')} | {said or 'a test is missing'} |" for key, said in reasons.items()]
    return (
        f"# Mutants\n\n{len(rows)} random mistakes, planted one at a time (`make mutants`): {caught} of the {judged} "
        f"that change anything were noticed, {caught / max(judged, 1):.1%}; without the {taste} that put one number in "
        f"the place of another as good, {caught / max(judged - taste, 1):.1%}. {drawn}.\n\n"
        + "\n".join(["| not noticed | why |", "|---|---|", *table, ""])
    )


def title(mutant: Mutant) -> str:
    """As it is printed and kept."""
    path, line, old, new = mutant
    return f"{path.relative_to(ROOT)}:{line}:{old.col_offset} `{ast.unparse(old)}` -> `{ast.unparse(new)}`"


if __name__ == "__main__":
    main()
