"""House rules that no linter knows: short functions, constructors that can be read where they are called."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("zoo", "inference", "benchmarks")


@cache
def files() -> dict[Path, ast.Module]:
    """Every file of the packages, parsed when the first test asks: half of the workers never do."""
    return {path: ast.parse(path.read_text()) for top in PACKAGES for path in (ROOT / top).rglob("*.py")}


def nodes(kind: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """(place, node) of every node of a kind."""
    for path, tree in files().items():
        for node in ast.walk(tree):
            if isinstance(node, kind):
                yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node


def test_no_function_is_longer_than_sixty_lines() -> None:
    long = [
        f"{place} {node.name}"
        for place, node in nodes(ast.FunctionDef)
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60
    ]
    assert not long, "tell these as steps"


def test_no_constructor_has_more_than_eight_parameters() -> None:
    wide = [
        f"{place} {node.name}: {count}"
        for place, node in nodes(ast.ClassDef)
        if isinstance(node, ast.ClassDef)
        for method in node.body
        if isinstance(method, ast.FunctionDef) and method.name == "__init__"
        if (count := len(method.args.args) + len(method.args.kwonlyargs) - 1) > 8
    ]
    assert not wide, "group them: a likelihood, a guide, a critic have options of their own"


def test_no_constructor_is_called_by_position_with_more_than_three() -> None:
    ours = {node.name for _, node in nodes(ast.ClassDef) if isinstance(node, ast.ClassDef)}
    blind = []
    for place, node in nodes(ast.Call):
        assert isinstance(node, ast.Call)
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name in ours and sum(not isinstance(argument, ast.Starred) for argument in node.args) > 3:
            blind.append(f"{place} {name}")
    assert not blind, "name the arguments beyond the third"


def test_defaults_are_never_lists_or_dictionaries() -> None:
    changeable = [
        place
        for place, node in nodes(ast.FunctionDef)
        if isinstance(node, ast.FunctionDef)
        if any(isinstance(d, (ast.List, ast.Dict, ast.Set)) for d in (*node.args.defaults, *node.args.kw_defaults) if d)
    ]
    assert not changeable, "a default is a tuple"
