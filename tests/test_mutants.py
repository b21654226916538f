"""The planter of mutants: each kind of change, at its place, and nothing where there is nothing to change."""

from __future__ import annotations

import ast

import pytest

from tests.mutants import PACKAGES, ROOT, changed, judges, mutants, planted


@pytest.mark.parametrize(
    ("code", "mutant"),
    [
        ("a + b", "a - b"),
        ("a / b", "a * b"),
        ("a <= b", "a < b"),
        ("a in b", "a not in b"),
        ("not a", "a"),
        ("a and b", "a or b"),
        ("3", "4"),
        ("0.5", "1.5"),
        ("f(a, b, c)", "f(b, a, c)"),
        ("f(*a, b)", None),
        ("a < b < c", None),
        ("True", None),
        ("f(a)", None),
        ("'x'", None),
    ],
)
def test_each_kind_of_expression_has_its_change(code: str, mutant: str | None) -> None:
    found = changed(ast.parse(code, mode="eval").body)
    assert (found and ast.unparse(found)) == mutant


def test_every_mutant_is_a_program_that_differs_in_its_place_alone() -> None:
    path = ROOT / "zoo" / "distributions.py"
    source, found = path.read_text(), list(mutants(path))
    assert len(found) > 50
    for _, line, old, new in found:
        text = planted(source, old, new)
        assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(source)), f"{line}: {ast.unparse(old)}"
        assert text.splitlines()[: line - 1] == source.splitlines()[: line - 1]


def test_the_judges_a_module_are_found() -> None:
    found = [path.name for path in judges(ROOT / "inference" / "evaluation" / "calibration.py")]
    assert found[0] == "test_calibration.py"
    assert all(judges(path) for package in PACKAGES for path in (ROOT / package / "chains").glob("h*.py"))
