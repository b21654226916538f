"""The report and its three renderings: the same cells in each, escaped, results before what explains them."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console

from benchmarks.report import document
from benchmarks.report.document import Cell, Column, Details, Picture, Report, Section, Table


def made() -> Report:
    columns = (Column("program", number=False), Column("KL", "nats; `low` is good"), Column("long", brief=False))
    rows = (
        (Cell("coin & co"), Cell("0.25 (0.1 to 0.3)", why="3 <draws>", brief="0.25"), Cell("all | of it")),
        (Cell("coin & co"), Cell("failed"), Cell("-")),
    )
    section = Section(
        "First", ("What `is` compared.",), (Table(columns, rows),), remarks=("a remark",),
        pictures=(Picture("one", "A curve.", Figure()),),
        details=(Details("How it was measured", ("by <hand>", "with `care`")),),
    )  # fmt: skip
    return Report("A title", "Which is best?", "Medians.", (section, Section("Last", ("no table",))))


def test_what_is_said_of_many_is_said_once() -> None:
    assert document.once([("a", 1), ("b", 2), ("a", 3)]) == [("a", [1, 3]), ("b", [2])]


def test_markdown_has_results_first_and_the_rest_folded(tmp_path: Path) -> None:
    document.write(made(), tmp_path)
    text = (tmp_path / "report.md").read_text()
    where = [
        text.index(part) for part in ("# A title", "## First", "0.25 (0.1 to 0.3)", "plots/one.png", "by ", "## Last")
    ]
    assert where == sorted(where)
    assert "<summary>How it was measured</summary>" in text
    assert "<hand>" not in text
    assert "all \\| of it" in text
    assert (tmp_path / "plots" / "one.png").read_bytes().startswith(b"\x89PNG")


def test_html_escapes_everything_and_needs_no_other_file(tmp_path: Path) -> None:
    page = document.write(made(), tmp_path).read_text()
    assert "coin &amp; co" in page
    assert "&lt;draws&gt;" in page
    assert "&lt;hand&gt;" in page
    assert "<code>care</code>" in page
    assert "What <code>is</code> compared." in page
    assert page.count("data:image/png;base64,") == 1
    assert "plots/" not in page


def test_a_terminal_shows_what_is_brief() -> None:
    out = io.StringIO()
    document.print_report(made(), Console(width=80, file=out))
    text = out.getvalue()
    assert "0.25" in text
    assert "0.1 to 0.3" not in text
    assert "long" not in text
    assert text.count("coin & co") == 1  # a name is not said again below itself
