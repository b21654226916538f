"""Nothing escapes the tests: every program is in the catalogue, every file says on its first line what it is for."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import benchmarks
import inference
import zoo
from zoo import catalogue
from zoo.program import ImplicitProgram, Program

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    module.name
    for package in (zoo, inference, benchmarks)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
)


def subclasses(cls: type) -> set[type]:
    return {cls}.union(*(subclasses(sub) for sub in cls.__subclasses__()))


def test_every_program_is_in_the_catalogue():
    for name in MODULES:
        importlib.import_module(name)
    known = {catalogue.get(name) for name in catalogue.BUILTIN}
    bases = {base for cls in known for base in cls.__mro__[1:]} | {Program, ImplicitProgram}
    ours = {cls for cls in subclasses(Program) if cls.__module__.startswith("zoo.")}
    assert ours - known - bases == set()


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_for(name):
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text()))
    assert docstring, f"{name} has no docstring"
    assert len(docstring.splitlines()[0]) > 15, f"{name}: {docstring.splitlines()[0]!r} says too little"


def test_every_test_file_lies_where_what_it_tests_lies():
    for path in (ROOT / "tests").rglob("test_*.py"):
        room = path.parent.relative_to(ROOT / "tests")
        assert (ROOT / room).is_dir(), f"{path.relative_to(ROOT)}: there is no {room}"


def test_no_file_is_too_long_to_be_read():
    for folder in ("zoo", "inference", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 450, f"{path.relative_to(ROOT)} should be split"
