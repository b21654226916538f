"""What the commands print: lists, cards, the end of a fit, scores. `benchmarks.report` prints the tables of suites."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.metrics import METRICS

__all__ = [
    "print_card",
    "print_fit",
    "print_json",
    "print_judgement",
    "print_likelihood",
    "print_list",
    "print_status",
    "print_trials",
    "shape",
]


WIDE = 120
"""Columns of a window from which on lists show everything."""


def print_list(found: Sequence[dict[str, Any]], datasets: bool) -> None:
    """A table of data sets or programs."""
    # What reads a pipe gets whole lines.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 500
    table, console = Table(box=None, pad_edge=False), Console(width=width)
    columns = ["name", "shape", "support", "splits", "description"] if datasets else ["family", "name", "what", "data"]
    if console.width < WIDE:  # one line each, even in a narrow window; `zoo show` and --json have the rest
        columns = [column for column in columns if column not in ("splits", "support", "data")]
    rows = [[_cell(card[column]) for column in columns] for card in found]
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    last = columns.index("description" if datasets else "what")  # is cut where the window is too narrow for all
    widths[last] = min(widths[last], max(20, console.width - sum(widths) + widths[last] - 2 * len(columns)))
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, style="bold" if column == "name" else None, no_wrap=True, width=width)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def print_card(card: dict[str, Any]) -> None:
    """All that is known of a program."""
    console = Console()
    console.print(f"[bold]{escape(card['name'])}[/bold]  {escape(card['what'])}")
    rows = {
        "family": card["family"],
        "paper": card["paper"] or "-",
        "example x": f"{shape(card['event_shape'])}, {card['support']}",
        "latents": "\n".join(
            f"{site['name']} {shape(site['shape'])}, {site['distribution']}, {site['scope']}" for site in card["sites"]
        )
        or "none",
        "parameters": f"{card['parameters']:,} (built for {card['built_for']})",
        "promises": ", ".join(card["capabilities"]) or "the contract alone",
        "methods": ", ".join(card["methods"]),
        "presets": "\n".join(
            f"{name}: {p['method']} on {p['data']}, {_options({**p['program'], **p['fit']})}"
            for name, p in card["presets"].items()
        ),
        "options": _options(card["options"]),
        "data": card["default_data"],
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    for key, value in rows.items():
        table.add_row(key, escape(value))
    console.print(table)


def print_fit(found: dict[str, Any], out: Path) -> None:
    """How a fit ended, and what can be done with it next."""
    units = found["units"]
    last = ", ".join(
        f"{metric} {value:.4g}" + (f" {units[metric]}" if metric in units else "")
        for metric, value in found["last"].items()
    )
    print(
        f"{found['program']} on {found['data']} by {found['method']}: {found['seconds']:.1f} s on {found['device']}, "
        f"{found['parameters']:,} parameters, seed {found['seed']}"
    )
    if last:
        print(f"at the end: {last}")
    if found["convergence"] is not None:
        further = found["convergence"].get("gain", 0.0)
        unit = next(iter(units.values()), "nats")
        note = f" (the bound rises by {further:.3g} {unit} further along)" if further > 0 else ""
        print(f"convergence: {found['convergence']['verdict']}{note}")
    if found["warning"] is not None:
        print(f"zoo: warning: {found['warning']}", file=sys.stderr)
    yes = " --trust-code" if ":" in found["program"] else ""  # a class of the user's own
    held_out = "--data HELD-OUT-FILE" if found["splits"] is False else "--split test"
    print(f"saved in {out}. Next:\n  zoo score {out} {held_out}{yes}")
    kind = "csv" if ".csv" in str(found["data"]) else "npz"  # rows of a table, as they came
    print(f"  zoo sample {out} --out {out / f'samples.{kind}'}{yes}")


def print_trials(found: dict[str, Any]) -> None:
    """Trials of a search, best first, and what can be done next."""
    for trial in found["trials"]:
        value = "diverged" if trial["value"] is None else f"{trial['value']:.4g}"
        options = ", ".join(f"{name}={option:.3g}" if isinstance(option, float) else f"{name}={option}"
                            for name, option in trial["options"].items())  # fmt: skip
        print(f"{trial['trial']:4d}  {value:>10}  {options}")
    print(
        f"best of {len(found['trials'])} by {found['metric']} on the validation split ({found['how']}): "
        f"{found['value']:.4g}, which is flattering, since it was chosen by it"
    )
    print(f"saved in {found['best']}. Next:\n  zoo score {found['best']} --split test")
    print(f"  zoo fit --config {found['config']} --seed 1")


def print_likelihood(found: dict[str, Any]) -> None:
    """A score per example, what it is, and how it was estimated."""
    error = "" if found["standard_error"] is None else f" ± {found['standard_error']:.3f}"
    kind = "a lower bound, " if found["bound"] else ""
    each, bits = "example", f" ({found['bits_per_dim']:.4f} bits/dim)"
    if found["split"] in (None, "all of the fit"):  # adopted code, whose data are what it observes
        each, bits = ("data set" if found["quantity"] == "log_evidence" else "observed value"), ""
    where = ", which it was fitted to" if found["split"] == "all of the fit" else f" ({found['split']})"
    where = "" if found["split"] is None else where
    print(
        f"{found[found['quantity']]:.3f}{error} nats per {each}{bits}, "
        f"{found['examples']} {each}s of {found['data']}{where}, {found['what']}, "
        f"{kind}estimated by: {found['how']}"
    )


def print_judgement(found: dict[str, Any]) -> None:
    """Scores of samples beside those of real data."""
    table = Table(box=None, pad_edge=False)
    yardstick = "copying" if any("copying" in score for score in found["scores"].values()) else "real_data"
    for column in ("score", "samples", yardstick.replace("_", " "), "what it is"):
        table.add_column(column, style="bold" if column == "score" else None, no_wrap=column != "what it is")
    for name, score in found["scores"].items():
        card = METRICS[name]
        if score["value"] is None:
            table.add_row(card.title, "n/a", "", f"[dim]{escape(score['how'].removeprefix('n/a: '))}[/dim]")
            continue
        error = "" if score["standard_error"] is None else f" ± {_number(score['standard_error'], card.digits)}"
        real = "" if score[yardstick] is None else _number(score[yardstick], card.digits)
        table.add_row(card.title, _number(score["value"], card.digits) + error, real, escape(card.meaning))
    console = Console()
    console.print(f"[bold]{escape(found['program'])}[/bold] on {escape(found['data'])} ({found['split']})")
    console.print(table)
    for line in (found["how"], *found["notes"]):
        console.print(escape(line), style="dim")


def _number(value: float, digits: int) -> str:
    """With so many digits after the point, or two that count where these were all zeros."""
    return f"{value:.2g}" if 0 < abs(value) < 0.5 * 10**-digits else f"{value:.{digits}f}"


def print_json(value: Any) -> None:
    """On standard output, and nothing else."""
    print(json.dumps(value, indent=2, default=str))


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return "/".join(f"{v:,}" for v in value.values())
    return shape(value) if isinstance(value, list) else str(value)


def shape(sizes: list[int] | dict[str, list[int]]) -> str:
    """Of one example, or of the sites of adopted code, in words."""
    if isinstance(sizes, dict):
        return ", ".join(f"{name} {shape(each)}" for name, each in sizes.items())
    return "x".join(map(str, sizes)) or "one number"


def _options(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={json.dumps(value, default=str)}" for name, value in options.items()) or "defaults"


def print_status(found: dict[str, Any], folder: Path) -> None:
    """What runs where, or how far a run came."""
    console = Console()
    driver = f"{found['suite']} ({found['executor']}) from {found['node']}, process {found['pid']}"
    says = {
        "running": f"running since {_when(found['since'])}",
        "finished": f"finished, {_when(found['written'])}",
        "stopped": f"stopped, last seen {_when(found['written'])}; the same command continues",
    }
    print(f"{driver}: {says[found['state']]}")
    print(
        f"{found['cells']} cells: {found['done']} done, {found['failed']} failed, {len(found['running'])} running, "
        f"{found['waiting']} waiting" + (f" ({len(found['lost'])} of them were lost)" if found["lost"] else "")
    )
    table = Table(box=None, pad_edge=False)
    for column in ("running" if found["running"] else "lost", "node", "process", "since"):
        table.add_column(column)
    for each in found["running"] or found["lost"]:
        table.add_row(escape(each["cell"]), escape(each["node"]), str(each["pid"]), _when(each["since"]))
    if table.rows:
        console.print(table)
    if found["failed"]:
        print(f"why they failed: zoo report {folder}")


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
