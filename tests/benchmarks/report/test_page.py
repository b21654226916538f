"""The reporter: medians and failures, tables that do not mix data sets, one page that stands alone."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.report import document, page
from benchmarks.results import append_cell
from tests.benchmarks.report.made_up import record
from zoo.errors import CheckpointError


class Page(HTMLParser):
    """Balanced tags, and every address that the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


MORE = {"kind": "density", "program": "another", "method": "EM", "split": "test", "cell": "made-up/another/EM/0"}


def test_the_page_stands_alone_and_says_what_was_compared(folder: Path) -> None:
    text = document.write(page.build(folder), folder).read_text()
    parser = Page()
    parser.feed(text)
    assert not parser.open
    assert len(parser.addresses) == 4
    assert all(address.startswith("data:image/png;base64,") for address in parser.addresses)
    assert "<script" not in text
    assert "An &lt;honest&gt; CPU" in text
    assert not re.search("<(honest|draws)", text)
    assert "SVI &amp; co" in text
    assert "n/a: no &lt;draws&gt;" in text
    assert "(1 of 4 seeds failed)" in re.sub("<[^>]+>", "", text)
    assert "DivergenceError: gone" in text
    assert "steps=10" in text
    assert "prefers-color-scheme: dark" in text


def test_markdown_has_a_table_for_each_kind_of_data(folder: Path) -> None:
    document.write(page.build(folder), folder)
    text = (folder / "report.md").read_text()
    assert "## Density: digits, test split" in text
    assert "## Density: digits-binary, test split" in text
    for table in re.findall(r"((?:^\|.*\n)+)", text, re.MULTILINE):
        columns = {line.replace("\\|", "").count("|") for line in table.splitlines()}
        assert len(columns) == 1
        assert not ("22.50" in table and "-17.90" in table)
    pictures = re.findall(r"\]\((plots/[^)]+)\)", text)
    assert len(pictures) == 4
    assert not any("log_likelihood" in name for name in pictures)  # of each data there is one number
    assert all((folder / name).exists() for name in pictures)
    append_cell(folder, [record("log_likelihood", -20.0, **{**MORE, "dataset": "digits"})])
    assert [p.name for s in page.build(folder).sections for p in s.pictures if "log_lik" in p.name] == [
        "log_likelihood-digits"
    ]


def test_results_come_first_and_what_explains_them_is_folded_and_said_once(folder: Path) -> None:
    for seed in (0, 1):  # two metrics of two rows, measured alike
        for method in ("EM", "SVI"):
            key = {"seed": seed, "cell": f"made-up/alike/{method}/{seed}", "method": method, "program": "alike"}
            alike = {"kind": "density", "dataset": "dna", "how": f"exact, 9 examples; z = {seed}", **key}
            append_cell(folder, [record("log_likelihood", -1.5, **alike), record("bits_per_dim", 0.5, **alike)])
    report = page.build(folder)
    page_html = document.write(report, folder).read_text()
    text = (folder / "report.md").read_text()
    section = text[text.index("## Density: dna") :]
    section = section[: section.index("\n## ", 3)]
    said = "- log p(x), bits/dim: exact, 9 examples; z = 0; z = 1 (all rows)"
    assert section.count("9 examples") == section.count(said) == 1
    assert section.index("| alike |") < section.index("![") < section.index("<details") < section.index(said)
    assert "<summary>How each number was measured</summary>" in section
    for name in (text, page_html):
        assert name.index("Density: dna") < name.index("Where it was measured") < name.index("Hardware: ")
        assert name.count("What the columns mean") == 1
    budgets = next(d for s in report.sections if "dna" in s.title for d in s.details if "Budget" in d.title)
    assert budgets.lines == ["steps=10 (alike/EM; alike/SVI)"]


def test_markdown_has_no_tag_of_its_own_and_whole_tables(folder: Path) -> None:
    document.write(page.build(folder), folder)
    text = (folder / "report.md").read_text()
    assert set(re.findall("</?([a-z]+)", text)) == {"details", "summary"}
    assert "n/a: no &lt;draws>" in text


def test_terminal_and_json_tell_the_same(folder: Path) -> None:
    out = io.StringIO()
    document.print_report(page.build(folder), Console(width=80, file=out))
    text = out.getvalue()
    assert "0.300" in text
    assert "(1/4 failed)" in text
    rows = json.loads(json.dumps(page.rows_as_json(folder)))
    assert rows[0]["values"]["kl_reverse"]["median"] == 0.3


def test_no_results_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="zoo bench SUITE"):
        page.build(tmp_path)
