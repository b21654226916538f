"""The reporter: from results a Markdown table, PNG plots, one self-contained HTML page, and a table on the terminal."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.metrics import METRICS
from benchmarks.report import pictures, plots, published
from benchmarks.report.summary import Row, cell_text, summarise
from benchmarks.results import Record, read_results
from benchmarks.run import ARTIFACTS
from benchmarks.suite import file_name
from benchmarks.suites import SUITES, get_suite
from zoo.datasets import base_name

__all__ = ["print_tables", "rows_as_json", "write_report"]

TERMINAL = (
    "kl_reverse", "mean_error", "sd_error", "marginal_error", "c2st", "k_hat",
    "log_likelihood", "grid_log_likelihood", "parzen", "ais", "bits_per_dim", "auroc", "seconds",
)  # fmt: skip
"""Metrics that terminal tables show."""
OF_SAMPLES = ("frechet", "precision", "recall", "class_accuracy", "modes", "good", "collapsed", "seconds")
"""The same of tables of samples."""

SPREAD = "Medians over seeds, the range in brackets; ± is a standard error where there is one seed."


def write_report(folder: str | Path) -> Path:
    """Writes report.md, plots/*.png and report.html beside results.jsonl; returns the path of the page.

    Raises: CheckpointError when the folder has no results.
    """
    folder = Path(folder)
    records = read_results(folder)
    rows = summarise(records)
    pictures = _pictures(folder, rows)
    (folder / "report.md").write_text(_markdown(records, rows, pictures))
    page = folder / "report.html"
    page.write_text(_page(folder, records, rows, pictures))
    return page


def print_tables(folder: str | Path, console: Console) -> None:
    """The tables on a terminal of 80 columns: the telling metrics alone, medians over seeds."""
    records = read_results(folder)
    for title, group in _groups(summarise(records)):
        telling = OF_SAMPLES if group[0].kind == "samples" else TERMINAL
        metrics = [m for m in telling if m in _columns(group)]
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("program", no_wrap=True, max_width=26)
        table.add_column("method", no_wrap=True)
        for metric in metrics:
            table.add_column(METRICS[metric].title.replace(" ", "\n"), justify="right", no_wrap=True)
        last = ""
        for row in group:
            shown = [cell_text(metric, row.values.get(metric), spread=False) for metric in metrics]
            failed = f" ({len(row.failures)}/{len(row.seeds)} failed)" if row.failures else ""
            table.add_row(row.program if row.program != last else "", row.method + failed, *shown)
            last = row.program
        console.print(table)
        if found := published.compare(records, group):
            beside = Table(title="Beside published numbers", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
            for heading in published.HEAD[:5]:
                beside.add_column(heading.replace(" ", "\n", 1))
            for line in published.table(found):
                beside.add_row(*line[:5])
            console.print(beside)
    console.print("Medians over seeds; their spread, all metrics and how each was had are in the page.", style="dim")


def rows_as_json(folder: str | Path) -> list[dict[str, Any]]:
    """The summary: program, method, data set, seeds, failures; for each metric median, low, high and how."""
    return [asdict(row) for row in summarise(read_results(folder))]


def _groups(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Rows that may stand in one table: posteriors together, densities by data set (binary and real do not mix)."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.kind != "posterior"):
        title = "Posterior: methods beside the exact answer"
        if row.kind == "density":
            title = f"Density: {row.dataset}, {row.split} split"
        elif row.kind == "anomaly":
            title = f"Anomalies: {row.dataset}"
        elif row.kind == "samples":  # grey and binary programs are judged by the same thresholded images
            title = f"Samples: {base_name(row.dataset)}"
        found.setdefault(title, []).append(row)
    for group in found.values():
        if group[0].kind == "density":
            group.sort(key=_likelihood, reverse=True)
        elif group[0].kind == "samples":
            group.sort(key=_closeness)
        else:  # rows of one program stand together
            order = list(dict.fromkeys(row.program for row in group))
            group.sort(key=lambda row: order.index(row.program))
    return list(found.items())


def _likelihood(row: Row) -> float:
    """What density rows are ranked by; rows without it come last."""
    for metric in ("log_likelihood", "grid_log_likelihood"):
        value = row.values.get(metric)
        if value is not None and value.median is not None:
            return value.median
    return -math.inf


def _closeness(row: Row) -> float:
    """What rows of samples are ranked by: Fréchet distance, else how many modes are missing."""
    for metric, sign in (("frechet", 1), ("modes", -1)):
        value = row.values.get(metric)
        if value is not None and value.median is not None:
            return sign * value.median
    return math.inf


def _columns(rows: Sequence[Row]) -> list[str]:
    """Metrics that some row has, in the order of METRICS."""
    return [m for m in METRICS if any(m in row.values for row in rows)]


def _pictures(folder: Path, rows: Sequence[Row]) -> dict[str, list[tuple[str, Path]]]:
    """Group title -> (caption, PNG)."""
    (folder / "plots").mkdir(exist_ok=True)
    found: dict[str, list[tuple[str, Path]]] = {}

    def add(title: str, name: str, caption: str, figure: Figure) -> None:
        path = folder / "plots" / f"{file_name(name)}.png"
        figure.savefig(path, dpi=130)
        found.setdefault(title, []).append((caption, path))

    for title, group in _groups(rows):
        artifacts = [(row, artifact) for row in group if (artifact := _artifact(folder, row)) is not None]
        if group[0].kind == "samples":
            shown = [(label(row, group), artifact) for row, artifact in artifacts]
            for name, caption, figure in pictures.pictures(shown):
                add(title, f"{name}-{base_name(group[0].dataset)}", caption, figure)
        elif group[0].kind == "posterior":
            inexact = [row for row in group if row.method != "exact"]
            if _has(inexact, "kl_reverse"):
                add(
                    title, "kl", "KL(q‖p) to the exact posterior; shorter is better.", plots.bars(inexact, "kl_reverse")
                )
            for program in dict.fromkeys(row.program for row in group):
                panels = [(r.method, a) for r, a in artifacts if r.program == program and r.method != "exact"]
                if panels:
                    caption = f"{program}: the exact posterior (left, and grey) and draws of each method (red), seed 0."
                    add(title, f"posterior-{program}", caption, plots.posterior_picture(program, panels))
                if games := [(method, a) for method, a in panels if "critic_accuracy" in a]:
                    figure = pictures.history_picture(games)
                    add(title, f"games-{program}", f"{program}: {pictures.HOW_GAMES_WENT}", figure)
        else:
            dataset = group[0].dataset
            for metric in ("log_likelihood", "grid_log_likelihood"):
                if _has(group, metric):
                    caption = f"{METRICS[metric].meaning[:1].upper()}{METRICS[metric].meaning[1:]}; higher is better."
                    add(title, f"{metric}-{dataset}", caption, plots.likelihood_bars(group, metric))
                    break
            if artifacts:
                sheets = [
                    ("real data", artifacts[0][1]["data"]),
                    *((label(r, group), a["samples"]) for r, a in artifacts),
                ]
                caption = "Real test data and samples of each program, seed 0."
                add(title, f"samples-{dataset}", caption, plots.samples_picture(sheets))
    return found


def label(row: Row, group: Sequence[Row]) -> str:
    """The program, and the method where the program occurs with several."""
    alone = sum(other.program == row.program for other in group) == 1
    return row.program if alone else f"{row.program}: {row.method}"


def _has(rows: Sequence[Row], metric: str) -> bool:
    return any(metric in row.values and row.values[metric].median is not None for row in rows)


def _artifact(folder: Path, row: Row) -> plots.Artifact | None:
    return plots.load_artifact(folder / ARTIFACTS / f"{file_name(row.cells[min(row.cells)])}.npz")


def _table(rows: Sequence[Row]) -> tuple[list[str], list[list[tuple[str, str]]]]:
    """Headings, and for each row the cells as (text, explanation)."""
    metrics = _columns(rows)
    head = ["program", "method", *(METRICS[m].title for m in metrics)]
    body = []
    for row in rows:
        failed = f" ({len(row.failures)} of {len(row.seeds)} seeds failed)" if row.failures else ""
        cells = [(row.program, ""), (row.method + failed, "; ".join(row.failures))]
        for metric in metrics:
            value = row.values.get(metric)
            cells.append((cell_text(metric, value), value.how if value else ""))
        body.append(cells)
    return head, body


def _facts(records: Sequence[Record]) -> list[tuple[str, str]]:
    """What was compared, on what."""
    hardware = {str(r["hardware"].get("gpu") or r["hardware"]["cpu"]): r["hardware"] for r in records}
    machines = [f"{name}, {h['cores']} cores, {h['threads']} thread(s) a cell" for name, h in hardware.items()]
    versions = records[-1]["versions"]
    seconds = {r["cell"]: r["seconds"] for r in records}
    when = datetime.fromtimestamp(max(r["started"] for r in records) / 1e9).strftime("%Y-%m-%d %H:%M")
    failed = len({r["cell"] for r in records if r.get("failed")})
    return [
        ("Data", ", ".join(dict.fromkeys(f"{r['dataset']} ({r['split']})" for r in records))),
        ("Seeds", ", ".join(map(str, sorted({r["seed"] for r in records})))),
        ("Device", ", ".join(dict.fromkeys(r["device"] for r in records))),
        ("Hardware", "; ".join(machines)),
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("Cells", f"{len(seconds)} in {sum(seconds.values()):.0f} s of work, {failed} failed; last on {when}"),
    ]


def _titles(records: Sequence[Record]) -> list[tuple[str, str]]:
    """(title, question) of the suites in the file."""
    found = []
    for name in dict.fromkeys(r["suite"] for r in records):
        found.append((get_suite(name).title, get_suite(name).question) if name in SUITES else (name, ""))
    return found


def _budget(row: Row) -> str:
    return ", ".join(f"{k}={v}" for k, v in row.budget.items()) or "defaults"


def _notes(rows: Sequence[Row]) -> list[str]:
    """How each number was had, one line a metric and way."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for metric, value in row.values.items():
            if value.how and metric in METRICS:
                found.setdefault((metric, value.how), []).append(f"{row.program}/{row.method}")
    return [f"{METRICS[m].title}: {how} ({_few(who)})" for (m, how), who in found.items()]


def _few(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _markdown(records: Sequence[Record], rows: Sequence[Row], pictures: dict[str, list[tuple[str, Path]]]) -> str:
    lines = []
    for title, question in _titles(records):
        lines += [f"# {title}", "", question, ""]
    lines += [f"- {name}: {text}" for name, text in _facts(records)] + ["", SPREAD, ""]
    for title, group in _groups(rows):
        head, body = _table(group)
        lines += [f"## {title}", "", f"| {' | '.join(head)} |", "|---" * 2 + "|---:" * (len(head) - 2) + "|"]
        lines += ["| " + " | ".join(text.replace("|", "\\|") for text, _ in row) + " |" for row in body]
        lines += ["", *(f"- {METRICS[m].title}: {METRICS[m].meaning}" for m in _columns(group)), ""]
        if found := published.compare(records, group):
            lines += [f"| {' | '.join(published.HEAD)} |", "|---|---:|---:|---:|---|---|---|"]
            lines += [f"| {' | '.join(line)} |" for line in published.table(found)]
            lines += ["", *(f"- {remark}" for remark in published.remarks(found)), ""]
        lines += [f"- {row.program}/{row.method}, {failure}" for row in group for failure in row.failures]
        lines += [f"![{caption}](plots/{path.name})\n" for caption, path in pictures.get(title, [])]
        lines += ["Budgets:", "", *(f"- {row.program}/{row.method}: {_budget(row)}" for row in group), ""]
        lines += ["How:", "", *(f"- {note}" for note in _notes(group)), ""]
    return "\n".join(lines)


STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --line: #d9dee5; --paper: #ffffff; --band: #f4f6f9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --soft: #9aa5b3; --line: #343c47; --paper: #161a20; --band: #1e242c; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 76rem;
       margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { margin-top: 2.6rem; border-bottom: 1px solid var(--line); }
h3 { margin: 1.6rem 0 .4rem; } p.lead { font-size: 1.05rem; color: var(--soft); margin-top: .2rem; }
dl { display: grid; grid-template-columns: 7rem 1fr; gap: .15rem 1rem; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { background: var(--band); } td:first-child, th:first-child { text-align: left; }
td small { color: var(--soft); } tr.exact { color: var(--soft); } .failed { color: #c0392b; }
figure { margin: 1.4rem 0; } img { max-width: 100%; background: #fff; border-radius: 6px; padding: 6px; }
figcaption, .note { color: var(--soft); font-size: .85rem; } details { font-size: .85rem; margin: .6rem 0; }
"""


def _page(
    folder: Path, records: Sequence[Record], rows: Sequence[Row], pictures: dict[str, list[tuple[str, Path]]]
) -> str:
    e = html.escape
    titles = _titles(records)
    parts = [
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{e(titles[0][0])}</title>"
        f"<meta name='viewport' content='width=device-width'><style>{STYLE}</style></head><body>"
    ]
    for title, question in titles:
        parts.append(f"<h1>{e(title)}</h1><p class='lead'>{e(question)}</p>")
    facts = "".join(f"<dt>{e(name)}</dt><dd>{e(text)}</dd>" for name, text in _facts(records))
    parts.append(
        f"<dl>{facts}</dl><p class='note'>{e(SPREAD)} Hold the pointer over a number to see how it was estimated.</p>"
    )
    for title, group in _groups(rows):
        parts.append(f"<h2>{e(title)}</h2>")
        if group[0].kind in ("density", "samples"):
            parts.append(_html_table(group, with_program=True))
        else:
            for program in dict.fromkeys(row.program for row in group):
                parts.append(f"<h3>{e(program)}</h3>")
                parts.append(_html_table([row for row in group if row.program == program], with_program=False))
        if found := published.compare(records, group):
            heads = "".join(f"<th>{e(heading)}</th>" for heading in published.HEAD)
            body = "".join(
                "<tr>" + "".join(_html_cell(text, "") for text in line) + "</tr>" for line in published.table(found)
            )
            remarks = "".join(f"<li>{e(remark)}</li>" for remark in published.remarks(found))
            parts.append(
                f"<h3>Beside published numbers</h3><div class='wide'><table><tr>{heads}</tr>{body}</table></div>"
            )
            parts.append(f"<ul class='note'>{remarks}</ul>")
        meanings = "".join(f"<li>{e(METRICS[m].title)}: {e(METRICS[m].meaning)}</li>" for m in _columns(group))
        parts.append(f"<details open><summary>What the columns mean</summary><ul>{meanings}</ul></details>")
        for caption, path in pictures.get(title, []):
            data = base64.b64encode(path.read_bytes()).decode()
            parts.append(
                f"<figure><img alt='{e(caption)}' src='data:image/png;base64,{data}'>"
                f"<figcaption>{e(caption)}</figcaption></figure>"
            )
        budgets = "".join(f"<li>{e(row.program)}, {e(row.method)}: {e(_budget(row))}</li>" for row in group)
        notes = "".join(f"<li>{e(note)}</li>" for note in _notes(group))
        parts.append(f"<details><summary>Budget of each method</summary><ul>{budgets}</ul></details>")
        parts.append(f"<details><summary>How each number was had</summary><ul>{notes}</ul></details>")
    parts.append("</body></html>")
    return "".join(parts)


def _html_table(rows: Sequence[Row], with_program: bool) -> str:
    e = html.escape
    head, body = _table(rows)
    skip = 0 if with_program else 1
    lines = ["<div class='wide'><table><tr>" + "".join(f"<th>{e(h)}</th>" for h in head[skip:]) + "</tr>"]
    for row, cells in zip(rows, body, strict=True):
        style = " class='exact'" if row.method == "exact" else ""
        lines.append(f"<tr{style}>" + "".join(_html_cell(*cell) for cell in cells[skip:]) + "</tr>")
    return "".join(lines) + "</table></div>"


def _html_cell(text: str, why: str) -> str:
    failed = " class='failed'" if "failed)" in text else ""
    title = f" title='{html.escape(why, quote=True)}'" if why else ""
    main, bracket, rest = text.partition(" (")
    shown = html.escape(main) + (f" <small>({html.escape(rest)}</small>" if bracket else "")
    return f"<td{failed}{title}>{shown}</td>"
