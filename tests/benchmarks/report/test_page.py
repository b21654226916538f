"""The reporter: medians and failures, tables that do not mix data sets, one page that stands alone."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.report.page import print_tables, rows_as_json, write_report
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


def test_the_page_stands_alone_and_says_what_was_compared(folder: Path) -> None:
    page = write_report(folder)
    text = page.read_text()
    parser = Page()
    parser.feed(text)
    assert not parser.open
    assert len(parser.addresses) >= 5
    assert all(address.startswith("data:image/png;base64,") for address in parser.addresses)
    assert "<script" not in text
    assert "An &lt;honest&gt; CPU" in text
    assert "SVI &amp; co" in text
    assert "n/a: no &lt;draws&gt;" in text
    assert "(1 of 4 seeds failed)" in re.sub("<[^>]+>", "", text)
    assert "DivergenceError: gone" in text
    assert "steps=10" in text
    assert "prefers-color-scheme: dark" in text


def test_markdown_has_a_table_for_each_kind_of_data(folder: Path) -> None:
    write_report(folder)
    text = (folder / "report.md").read_text()
    assert "## Density: digits, test split" in text
    assert "## Density: digits-binary, test split" in text
    for table in re.findall(r"((?:^\|.*\n)+)", text, re.MULTILINE):
        columns = {line.replace("\\|", "").count("|") for line in table.splitlines()}
        assert len(columns) == 1
        assert not ("22.50" in table and "-17.90" in table)
    pictures = re.findall(r"\]\((plots/[^)]+)\)", text)
    assert len(pictures) == 6
    assert all((folder / name).exists() for name in pictures)


def test_terminal_and_json_tell_the_same(folder: Path) -> None:
    out = io.StringIO()
    print_tables(folder, Console(width=80, file=out))
    text = out.getvalue()
    assert "0.300" in text
    assert "(1/4 failed)" in text
    rows = json.loads(json.dumps(rows_as_json(folder)))
    assert rows[0]["values"]["kl_reverse"]["median"] == 0.3


def test_no_results_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="zoo bench SUITE"):
        write_report(tmp_path)
