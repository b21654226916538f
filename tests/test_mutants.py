"""The planter of mutants: each kind of change, at its place, and nothing where there is nothing to change."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.mutants import PACKAGES, ROOT, Noted, changed, judges, known, mutants, naming, page, planted, title


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


def test_a_module_that_no_test_imports_is_judged_by_those_of_its_users() -> None:
    module = ROOT / "zoo" / "datasets" / "embedded.py"
    assert not naming(module, "tests", "test_*.py")
    assert "test_datasets.py" in [path.name for path in judges(module)]


def test_the_first_failure_is_noted(tmp_path: Path) -> None:
    noted = Noted(tmp_path / "failed")
    for name, failed in (("a", False), ("b", True), ("c", True)):
        noted.pytest_runtest_logreport(SimpleNamespace(nodeid=name, failed=failed))
    assert noted.path.read_text() == "b"


def test_no_two_mutants_have_one_title() -> None:
    found = [title(mutant) for mutant in mutants(ROOT / "inference" / "no_u_turn.py")]
    assert len(set(found)) == len(found)


def test_survivors_that_change_something_count_against_the_tests() -> None:
    rows = {
        "a": "tests/test_a.py::test_b",
        "b": "equivalent: a sum is the same either way round",
        "c": "taste: a margin",
    }
    found = page({**rows, "d | e": ""}, "So many are possible")
    assert "1 of the 3 that change anything were noticed, 33.3%" in found
    assert "| d &#124; e | a test is missing |" in found
    assert "| c | taste: a margin |" in found


def test_rows_of_another_draw_are_not_mixed_with_these(tmp_path: Path) -> None:
    path = ROOT / "inference" / "no_u_turn.py"
    drawn = {title(mutant): mutant for mutant in mutants(path)}
    key, rows = next(iter(drawn)), tmp_path / "rows.json"
    assert known(None, drawn) == known(rows, drawn) == {}
    rows.write_text(json.dumps({key: "tests/test_a.py::test_b"}))
    assert known(rows, drawn) == {key: "tests/test_a.py::test_b"}
    rows.write_text(json.dumps({"zoo/gone.py:1:0 `1` -> `2`": ""}))
    with pytest.raises(SystemExit, match="another draw"):
        known(rows, drawn)
