"""From results to a report: tables by data set, medians over seeds, pictures, and how each number was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.freshness import stale
from benchmarks.machine import in_words
from benchmarks.measuring import ARTIFACTS
from benchmarks.metrics import METRICS
from benchmarks.report import pictures, plots, published
from benchmarks.report.document import Cell, Column, Details, Picture, Report, Section, Table, once
from benchmarks.report.summary import Row, cell_text, summarise
from benchmarks.results import Record, declared, read_results
from benchmarks.suite import file_name
from benchmarks.suites import SUITES, get_suite
from benchmarks.targets import REFERENCES
from zoo.datasets import base_name

__all__ = ["build", "rows_as_json"]

TELLING = (
    "kl_reverse", "mean_error", "sd_error", "marginal_error", "mean_worst", "sd_worst", "c2st", "k_hat",
    "log_likelihood", "grid_log_likelihood", "parzen", "ais", "bits_per_dim", "perplexity", "coherence", "auroc",
    "linear_probe", "few_label_probe", "neighbour_probe", "mig", "mig_chance", "code_size", "seconds",
)  # fmt: skip
"""Metrics that terminal tables show."""
RESTORED = ("inpaint", "denoise", "super_resolve")
"""Kinds of cells whose programs restore images; several may have the same data and programs."""
DRAWN = ("samples", "completion", *RESTORED, "caption", "tags")
"""Kinds of cells whose programs are judged by what they draw."""
OF_SAMPLES = (
    "hidden_log_likelihood", "completion_rmse", "completion_crps", "completion_frechet", "retrieval", "tag_precision",
    "tag_map",
    "recognition", "pixel_error", "attribute_accuracy", "frechet", "precision", "recall", "class_accuracy", "modes",
    "good", "collapsed", "seconds",
)  # fmt: skip
"""The same of tables of samples."""
UNPAIRED = "-unpaired"
RANKED = {
    "density": ("log_likelihood", "grid_log_likelihood"),
    "samples": ("recognition", "frechet", "modes"),
    "completion": ("completion_crps",),
    **dict.fromkeys(RESTORED, ("completion_crps",)),
    "caption": ("retrieval",),
    "tags": ("tag_map",),
    "codes": ("linear_probe",),
    "topics": ("perplexity",),
}
"""What the rows of a table are ranked by, the best on top."""
STALE = (
    "Rows marked stale were measured before the code of their program or method, or their data, changed: the same "
    "`zoo bench` measures them anew."
)
SPREAD = "Medians over seeds, the range in brackets; ± is a standard error where there is one seed."


def rows_as_json(folder: str | Path) -> list[dict[str, Any]]:
    """The summary: program, method, data set, seeds, failures; for each metric median, low, high and how."""
    return [asdict(row) for row in summarise(read_results(folder))]


def build(folder: str | Path) -> Report:
    """The report of a results folder.

    Raises: CheckpointError when the folder has no results.
    """
    records = read_results(folder)
    noted, old = declared(folder), stale(records, declared(folder))
    said = {name: _said(name, noted) for name in dict.fromkeys(record["suite"] for record in records)}
    sections = [_section(Path(folder), records, title, group, old) for title, group in _groups(summarise(records))]
    return Report(
        "; ".join(title for title, _ in said.values()),
        " ".join(question for _, question in said.values()),
        SPREAD,
        sections=[*sections, Section("Where it was measured", remarks=_facts(records))],
    )


def _said(name: str, noted: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """Title and question of a suite; of a user's own, as noted when it ran."""
    if name in SUITES:
        return (suite := get_suite(name)).title, suite.question
    return noted.get(name, {}).get("title", name), noted.get(name, {}).get("question", "")


def _section(folder: Path, records: Sequence[Record], title: str, group: Sequence[Row], old: set[str]) -> Section:
    beside = published.compare(records, group)
    failures = [f"{_name(row)}, {failure}" for row in group for failure in row.failures]
    budgets = [(", ".join(f"{k}={v}" for k, v in row.budget.items()) or "defaults", _name(row)) for row in group]
    return Section(
        title,
        tables=[_table(group, old), *published.tables(beside)],
        remarks=[*published.remarks(beside), *failures, *([STALE] if any(map(partial(_is_stale, old), group)) else [])],
        pictures=list(_pictures(folder, group)),
        details=[
            Details("Budget of each method", [f"{budget} ({'; '.join(who)})" for budget, who in once(budgets)]),
            Details("How each number was measured", _measured(group)),
            Details("Command of each row", published.commands(beside)),
        ],
    )


def _groups(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Rows that may stand in one table: posteriors together, densities by data set (binary and real do not mix)."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.kind != "posterior"):
        truth = "reference draws" if row.program in REFERENCES else "the exact answer"
        title = {
            "posterior": f"Posterior: methods beside {truth}",
            "density": f"Density: {row.dataset}, {row.split} split",
            "anomaly": f"Anomalies: {row.dataset}",
            "completion": f"Completions: {row.dataset}",
            "inpaint": f"Inpainting: {row.dataset}",
            "denoise": f"Denoising: {row.dataset}",
            "super_resolve": f"Super-resolution: {row.dataset}",
            "caption": f"Images for captions: {row.dataset}",
            "tags": f"Tags: {row.dataset}",
            "codes": f"Codes: {base_name(row.dataset)}",
            "topics": f"Topics: {row.dataset}",
            # Grey and binary are judged by the same thresholded images, with and without pairs by the same answers.
            "samples": f"Samples: {base_name(row.dataset).removesuffix(UNPAIRED)}",
        }[row.kind]
        found.setdefault(title, []).append(row)
    together = {title: once((row.program, row) for row in group) for title, group in found.items()}
    return [(title, sorted(chain(*(rows for _, rows in each)), key=_rank)) for title, each in together.items()]


def _rank(row: Row) -> float:
    """The best first, by the first metric that the row has; rows with none come last."""
    for metric in RANKED.get(row.kind, ()):
        if (middle := row.median(metric)) is not None:
            return -middle if METRICS[metric].better == "higher" else middle
    return math.inf


def _is_stale(old: set[str], row: Row) -> bool:
    return not old.isdisjoint(row.cells.values())


def _table(rows: Sequence[Row], old: set[str]) -> Table:
    """A column for each metric that some row has, in the order of METRICS."""
    metrics = [m for m in METRICS if any(m in row.values for row in rows)]
    telling = OF_SAMPLES if rows[0].kind in DRAWN else TELLING
    columns = [Column(METRICS[m].title, METRICS[m].meaning, m in telling) for m in metrics]
    body = []
    for row in rows:
        method, failed, seeds = Cell(row.method), len(row.failures), len(row.seeds)
        if failed:
            text, brief = f"{row.method} ({failed} of {seeds} seeds failed)", f"{row.method} ({failed}/{seeds} failed)"
            method = Cell(text, "; ".join(row.failures), brief)
        if _is_stale(old, row):
            method = replace(method, text=f"{method.text} (stale)", brief=f"{method.brief or method.text} (stale)")
        values = [(m, row.values.get(m)) for m in metrics]
        cells = [Cell(cell_text(m, v), v.how if v else "", cell_text(m, v, spread=False)) for m, v in values]
        body.append([Cell(row.program), method, *cells])
    return Table([Column("program", number=False), Column("method", number=False), *columns], body)


def _pictures(folder: Path, group: Sequence[Row]) -> Iterator[Picture]:
    """What the numbers of a group and the artifacts of its cells show."""
    kind, dataset = group[0].kind, group[0].dataset
    paths = [folder / ARTIFACTS / f"{file_name(row.cells[min(row.cells)])}.npz" for row in group]
    loaded = zip(group, map(plots.load_artifact, paths), strict=True)
    artifacts = [(row, artifact) for row, artifact in loaded if artifact is not None]
    named = [(label(row, group), artifact) for row, artifact in artifacts]
    if kind in DRAWN:
        for name, caption, figure in pictures.pictures(named):
            tail = f"-{kind}" if kind in RESTORED else ""
            yield Picture(file_name(f"{name}-{base_name(dataset)}{tail}"), caption, figure)
    elif kind == "codes":
        if maps := [(name, artifact) for name, artifact in named if "map" in artifact]:
            caption = "Codes of test examples in two dimensions, seed 0; numbers are classes."
            yield Picture(file_name(f"codes-{base_name(dataset)}"), caption, plots.map_picture(maps))
    elif kind == "topics":
        if named:
            caption = "The most probable words of each topic, seed 0, the topics whose words go together best on top."
            yield Picture(file_name(f"topics-{dataset}"), caption, pictures.topics_picture(named))
    elif kind == "posterior":
        inexact = [row for row in group if row.method != "exact"]
        if any(row.median("kl_reverse") is not None for row in inexact):
            caption = "KL(q‖p) to the exact posterior; shorter is better."
            yield Picture("kl", caption, plots.bars(inexact, "kl_reverse"))
        if any(row.median("mean_worst") is not None and row.median("gradient_evaluations") for row in inexact):
            caption = "The worst error of a mean against what it cost; dotted: half of the true chains beside the rest."
            yield Picture("cost", caption, plots.error_against_cost(group))
        for program in dict.fromkeys(row.program for row in group):
            panels = [(row.method, a) for row, a in artifacts if row.program == program and row.method != "exact"]
            if panels:
                caption = (
                    f"{program}: the exact posterior (left, and grey or lines) and draws of each method (+), seed 0."
                )
                yield Picture(file_name(f"posterior-{program}"), caption, plots.posterior_picture(program, panels))
            if games := [(method, a) for method, a in panels if "critic_accuracy" in a]:
                figure = pictures.history_picture(games)
                yield Picture(file_name(f"games-{program}"), f"{program}: {pictures.HOW_GAMES_WENT}", figure)
    else:
        both = ("log_likelihood", "grid_log_likelihood")
        # One point shows nothing that its number does not say.
        for metric in [m for m in both if sum(row.median(m) is not None for row in group) > 1][:1]:
            meaning = METRICS[metric].meaning
            caption = f"{meaning[:1].upper()}{meaning[1:]}; higher is better."
            yield Picture(file_name(f"{metric}-{dataset}"), caption, plots.likelihood_bars(group, metric))
        if named:
            sheets = [("real data", named[0][1]["data"]), *((name, a["samples"]) for name, a in named)]
            caption = "Real test data and samples of each program, seed 0."
            yield Picture(file_name(f"samples-{dataset}"), caption, plots.samples_picture(sheets))


def label(row: Row, group: Sequence[Row]) -> str:
    """The program, and the method where the program occurs with several."""
    alone = sum(other.program == row.program for other in group) == 1
    return row.program if alone else f"{row.program}: {row.method}"


def _name(row: Row) -> str:
    return f"{row.program}/{row.method}"


def _measured(rows: Sequence[Row]) -> list[str]:
    """How each number was measured; what holds for several metrics of the same rows is said once."""
    every = [((m, value.how), _name(row)) for row in rows for m, value in row.values.items() if value.how]
    alike = once(((how, tuple(who)), METRICS[m].title) for (m, how), who in once(every) if m in METRICS)
    return [f"{', '.join(titles)}: {how} ({_few(who, len(rows))})" for (how, who), titles in alike]


def _few(names: Sequence[str], rows: int) -> str:
    if len(names) == rows:
        return "all rows"
    return "; ".join(names) if len(names) <= 4 else f"{'; '.join(names[:3])} and {len(names) - 3} more"


def _facts(records: Sequence[Record]) -> list[str]:
    """What was compared, on what."""
    seconds = {r["cell"]: r["seconds"] for r in records}
    when = datetime.fromtimestamp(max(r["started"] for r in records) / 1e9).strftime("%Y-%m-%d %H:%M")
    failed = len({r["cell"] for r in records if r.get("failed")})
    said = {
        "Data": (f"{r['dataset']} ({r['split']})" for r in records),
        "Seeds": map(str, sorted({r["seed"] for r in records})),
        "Device": (r["device"] for r in records),
        "Hardware": (f"{in_words(r['hardware'])} a cell" for r in records),
        "Versions": (f"{name} {version}" for name, version in records[-1]["versions"].items()),
        "Cells": [f"{len(seconds)} in {sum(seconds.values()):.0f} s of work, {failed} failed; last on {when}"],
    }
    return [f"{name}: {', '.join(dict.fromkeys(texts))}" for name, texts in said.items()]
