"""The reporter: medians and failures, tables that do not mix data sets, one page that stands alone."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks.report import document, page, plots
from benchmarks.report.summary import cell_text, summarise
from benchmarks.results import append_cell, read_results
from benchmarks.suite import file_name
from zoo.errors import CheckpointError


def record(metric: str, value: float | None, **changes: Any) -> dict[str, Any]:
    found = {
        "suite": "made-up", "kind": "posterior", "program": "coin", "method": "SVI", "dataset": "coin",
        "split": "train", "seed": 0, "cell": "made-up/coin/SVI/coin/0/00", "started": 1,
        "budget": {"steps": 10}, "device": "cpu",
        "hardware": {"cpu": "An <honest> CPU", "cores": 2, "threads": 1}, "versions": {"torch": "2"}, "metric": metric,
        "value": value, "standard_error": None, "how": "", "seconds": 1.0,
    }  # fmt: skip
    return {**found, **changes}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three seeds of one posterior row, one of them failed, and densities of two data sets."""
    for seed, value in enumerate((0.3, 0.1, 0.9)):
        key = f"made-up/banana/SVI & co/banana/{seed}/00"
        common = {"seed": seed, "cell": key, "program": "banana", "method": "SVI & co", "started": seed}
        append_cell(
            tmp_path,
            [record("kl_reverse", value, **common), record("c2st", None, how="n/a: no <draws>", **common)],
        )
    failed = {"seed": 3, "cell": "made-up/banana/SVI & co/banana/3/00", "program": "banana", "method": "SVI & co"}
    append_cell(tmp_path, [record("failed", None, failed="DivergenceError: gone", started=9, **failed)])
    for dataset, value in (("digits", 22.5), ("digits-binary", -17.9)):
        key = f"made-up/VAE/SVI/{dataset}/0/00"
        common = {"kind": "density", "program": "VAE", "dataset": dataset, "split": "test", "cell": key, "started": 20}
        append_cell(tmp_path, [record("log_likelihood", value, standard_error=0.25, how="IWAE-5000", **common)])
        (tmp_path / "artifacts").mkdir(exist_ok=True)
        rng = np.random.RandomState(0)
        images = rng.rand(64, 8, 8)
        np.savez(tmp_path / "artifacts" / f"{file_name(key)}.npz", samples=images, data=images)
    axis = np.linspace(-3, 3, 30)
    density = np.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / 2)
    draws = rng.randn(1, 200, 2)
    np.savez(
        tmp_path / "artifacts" / f"{file_name('made-up/banana/SVI & co/banana/0/00')}.npz",
        names=np.array(["z[0]", "z[1]"]), draws=draws, exact=draws, axis0=axis[None], axis1=axis[None],
        density=density[None],
    )  # fmt: skip
    return tmp_path


def test_medians_ranges_and_failures_over_seeds(folder: Path) -> None:
    row = next(r for r in summarise(read_results(folder)) if r.program == "banana")
    value = row.values["kl_reverse"]
    assert (value.median, value.low, value.high, value.seeds) == (0.3, 0.1, 0.9, 3)
    assert cell_text("kl_reverse", value) == "0.300 (0.100 to 0.900)"
    assert row.failures == ["seed 3: DivergenceError: gone"]
    assert row.seeds == [0, 1, 2, 3]
    assert cell_text("c2st", row.values["c2st"]) == "n/a"
    assert cell_text("elbo", row.values.get("elbo")) == ""
    single = next(r for r in summarise(read_results(folder)) if r.dataset == "digits").values["log_likelihood"]
    assert cell_text("log_likelihood", single) == "22.50 ± 0.25"


def test_only_the_last_attempt_of_a_cell_counts(tmp_path: Path) -> None:
    append_cell(tmp_path, [record("failed", None, failed="OSError: no data", started=1)])
    append_cell(tmp_path, [record("elbo", -1.5, started=2)])
    (row,) = summarise(read_results(tmp_path))
    assert not row.failures
    assert row.values["elbo"].median == -1.5


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.000"), (2e-16, "0.000"), (-2e-16, "0.000"), (4e-4, "<0.001"), (-0.25, "-0.250")]
)
def test_small_numbers_are_not_said_to_be_zero(tmp_path: Path, value: float, text: str) -> None:
    append_cell(tmp_path, [record("kl_reverse", value)])
    (row,) = summarise(read_results(tmp_path))
    assert cell_text("kl_reverse", row.values["kl_reverse"], spread=False) == text


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
    text = document.write(page.build(folder), folder).read_text()
    parser = Page()
    parser.feed(text)
    assert not parser.open
    assert len(parser.addresses) >= 5
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
    assert len(pictures) == 6
    assert all((folder / name).exists() for name in pictures)


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


def test_tiles_keep_every_image_whole() -> None:
    images = np.arange(5 * 2 * 3).reshape(5, 2, 3) + 1.0
    sheet = plots.tile(images, 2)
    assert sheet.shape == (3 * 3 - 1, 2 * 4 - 1)
    np.testing.assert_array_equal(sheet[3:5, 4:7], images[3])
    assert plots.tile(np.zeros((4, 3, 8, 8)), 2).shape == (17, 17, 3)
