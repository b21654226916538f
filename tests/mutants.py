"""Plants random mutants, one at a time, and runs the tests that should notice: `make mutants` (N=200 SEED=0).

A mutant is one changed operator, comparison, number, slice, argument order or dropped `not` in `zoo`, `inference` or
`benchmarks`. The tests are those of its module and those that import it. Survivors are printed with their line; each is
either a test that is missing or a change that changes nothing. The checkout stays as it is: a copy is mutated.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path

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


def judges(module: Path) -> list[Path]:
    """The test of the same name, and all that name the module."""
    dotted = ".".join(module.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    own = ROOT / "tests" / module.relative_to(ROOT).with_name(f"test_{module.stem}.py")
    parent, _, name = dotted.rpartition(".")
    words = (f"{dotted} ", f"{dotted}\n", f"{dotted}:", f'{dotted}"', f"from {parent} import {name}")
    naming = [p for p in sorted((ROOT / "tests").rglob("test_*.py")) if any(w in p.read_text() for w in words)]
    return list(dict.fromkeys([*([own] if own.exists() else []), *naming]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    every = [m for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py")) for m in mutants(p)]
    drawn = random.Random(given.seed).sample(every, given.n)
    survivors = 0
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for part in (*PACKAGES, "tests", "docs"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        for part in filter(Path.is_file, ROOT.iterdir()):
            shutil.copy(part, copy)
        env = {**os.environ, "PYTHONPATH": name, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        env.setdefault("ZOO_DATA", str(ROOT.parent / "shared" / "data"))

        @cache
        def noticed(tests: tuple[str, ...], source: str) -> bool:
            """Whether the tests fail; `source` is what was planted, or empty."""
            command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--timeout=300", *tests]
            return subprocess.run(command, cwd=copy, env=env, capture_output=True).returncode not in (0, NOTHING_RUN)

        for number, (path, line, old, new) in enumerate(drawn, 1):
            place, source = path.relative_to(ROOT), path.read_text()
            tests = tuple(str(t.relative_to(ROOT)) for t in judges(path))
            if tests and noticed(tests, ""):
                sys.exit(f"{' '.join(tests)} fail without any mutant; mend them first.")
            (copy / place).write_text(changed_source := planted(source, old, new))
            caught = bool(tests) and noticed(tests, changed_source)
            (copy / place).write_text(source)
            survivors += not caught
            said = "caught" if caught else f"SURVIVED ({len(tests)} test files)"
            print(f"{number:4d} {place}:{line} `{ast.unparse(old)}` -> `{ast.unparse(new)}`: {said}", flush=True)
    print(f"{given.n - survivors} of {given.n} mutants caught, {len(every):,} possible, seed {given.seed}")


if __name__ == "__main__":
    main()
