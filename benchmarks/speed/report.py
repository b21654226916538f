"""The report of the suite `speed`: from its records a Markdown page and two pictures; nothing here measures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.speed.contender import NUMPYRO, NUMPYRO_CALLS, PYRO, ZOO_COMPILED, ZOO_EAGER
from benchmarks.speed.run import FOLDER
from benchmarks.speed.suite import DUELS, QUESTION, SWEEPS, TITLE, WORKLOADS, Duel
from zoo.errors import CheckpointError

__all__ = ["has_records", "print_speed", "read_records", "write_speed_report"]

PLOTS = "speed-plots"
Record = Mapping[str, Any]
COLOURS = {ZOO_COMPILED: "#d1495b", ZOO_EAGER: "#e8a0a9", PYRO: "#3b6fb6", NUMPYRO: "#5b8c5a", NUMPYRO_CALLS: "#a9c7a8"}
GREY = "#9aa5b3"

READING = """Milliseconds of one training step: the median over rounds, quartiles in brackets. *x Pyro*: how many
times faster than `SVI.step`; *x best peer*: than the fastest of Pyro, PyTorch and NumPyro. Both are medians of ratios
within one round, in which everyone ran a block of steps in turn. *First steps*: seconds until two were done, compiling
included, libraries imported and nothing cached. *To the target*: steps, and their seconds, until the mean loss over a
twentieth of the steps was that of our eager fit; in brackets with the first ones. *Memory*: peak, in a process of its
own, above what libraries and data took, compiling included; *running*: of the steps after that."""


def has_records(folder: str | Path) -> bool:
    """Whether a folder is one of this suite."""
    return (Path(folder) / FOLDER).is_dir()


def read_records(folder: str | Path) -> list[Record]:
    """The records, in the order of the suite, CPU first.

    Raises: CheckpointError when there are none, or one is damaged.
    """
    order, found = [*WORKLOADS, *DUELS, *SWEEPS], []
    for path in (Path(folder) / FOLDER).glob("*.json"):
        try:
            found.append(json.loads(path.read_text()))
        except ValueError as error:
            raise CheckpointError(f"{path} is damaged ({error}); delete it and run the suite again.") from error
    if not found:
        raise CheckpointError(f"{folder} holds no results of the suite speed; run `zoo bench speed --out {folder}`.")
    known = [record for record in found if record["workload"] in order]
    return sorted(known, key=lambda record: (record["device"] != "cpu", order.index(record["workload"])))


def write_speed_report(folder: str | Path) -> Path:
    """Writes report.md and speed-plots/*.png beside the records; returns the page."""
    folder = Path(folder)
    records = read_records(folder)
    (folder / PLOTS).mkdir(exist_ok=True)
    page = folder / "report.md"
    page.write_text(_markdown(records, folder / PLOTS))
    return page


def print_speed(folder: str | Path, console: Console) -> None:
    """One table a workload on a terminal of 80 columns."""
    for record in read_records(folder):
        if "skipped" in record:
            console.print(f"{record['title']} ({record['device']}) {_why_not(record)}\n", markup=False)
        for row in record.get("rows", []):
            times = ", ".join(f"{side} {_time(seconds)}" for side, seconds in row["seconds"].items())
            ratio = _number(row["ratio"], True)
            console.print(f"{record['workload']} {row['label']}: {times}; x {ratio}\n", markup=False)
        if "contenders" not in record:
            continue
        title = f"{record['title']} ({record['device']})"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("", no_wrap=True)
        for column in ("a step", "x Pyro", "x best", "start", "target"):
            table.add_column(column, justify="right", no_wrap=True)
        for name, row in record["contenders"].items():
            target = row.get("target")
            table.add_row(
                name, _time(row["per_step"]["median"]), _number(row.get("over_pyro")),
                _number(row.get("over_best_peer")), _time(row["prepare_seconds"]),
                _time(target["seconds"]) if target and target["reached"] else "",
            )  # fmt: skip
        console.print(table)


def _markdown(records: Sequence[Record], plots: Path) -> str:
    lines = [f"# {TITLE}", "", QUESTION, "", *_facts(records), "", READING, ""]
    for device in dict.fromkeys(record["device"] for record in records):
        here = [record for record in records if record["device"] == device]
        jobs = [r for r in here if r["kind"] == "workload" and "contenders" in r]
        growth = [r for r in here if r["kind"] == "growth" and any(p["per_step"] for p in r["points"])]
        kind = str(device).split(":")[0]
        for name, caption, figure in (
            (f"steps-{kind}", f"Time of one step on {device}; shorter is faster.", _bars(jobs) if jobs else None),
            (f"growth-{kind}", f"How a step grows on {device}.", _curves(growth) if growth else None),
        ):
            if figure is not None:
                figure.savefig(plots / f"{name}.png", dpi=130)
                lines += [f"![{caption}]({plots.name}/{name}.png)", ""]
        for record in here:
            lines += {"workload": _workload, "duel": _duel, "growth": _growth}[record["kind"]](record)
    return "\n".join(lines + _where_the_cpu_wins(records)) + "\n"


def _facts(records: Sequence[Record]) -> list[str]:
    machines = dict.fromkeys(
        f"{r['hardware'].get('gpu') or r['hardware']['cpu']}, {r['hardware']['cores']} cores, "
        f"{r['setting']['threads']} thread(s) for everyone"
        for r in records
    )
    versions = ", ".join(f"{name} {number}" for name, number in records[-1]["versions"].items())
    settings = dict.fromkeys(
        f"{r['setting']['rounds']} rounds of blocks of at least {r['setting']['block_seconds']} s, float32, "
        f"seed {r['setting']['seed']}"
        for r in records
    )
    dates = sorted(r["date"] for r in records)
    loads = [r["load"] for r in records if r.get("load") is not None]
    busy = f"; load average {min(loads):.1f} to {max(loads):.1f}" if loads else ""
    return [
        f"- Device: {', '.join(dict.fromkeys(r['device'] for r in records))}",
        f"- Hardware: {'; '.join(machines)}{busy}",
        f"- Versions: {versions}",
        f"- Measured: {'; '.join(settings)}; {dates[0]} to {dates[-1]}",
    ]


def _workload(record: Record) -> list[str]:
    lines = [f"## {record['title']}, {record['device']}", ""]
    if "skipped" in record:
        return [*lines, f"Was {_why_not(record)}.", ""]
    lines += [", ".join(f"{name} {value}" for name, value in record["work"].items()) + ".", ""]
    rows = record["contenders"]
    optional = (
        ("memory, MiB", "memory_mib"),
        ("running, MiB", "running_memory_mib"),
        ("GPU memory, MiB", "gpu_memory_mib"),
        ("GPU busy, %", "gpu_utilisation"),
    )
    extra = [(title, key) for title, key in optional if any(key in row for row in rows.values())]
    head = [
        "",
        "ms a step",
        "x Pyro",
        "x best peer",
        "first steps, s",
        "to the target",
        *(title for title, _ in extra),
    ]
    lines += [f"| {' | '.join(head)} |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for name, row in rows.items():
        step = row["per_step"]
        cells = [
            name,
            f"{1e3 * step['median']:.4g} ({1e3 * step['low']:.4g} to {1e3 * step['high']:.4g})",
            _number(row.get("over_pyro"), True),
            _number(row.get("over_best_peer"), True),
            f"{row['prepare_seconds']:.1f}",
            _target(row.get("target")),
            *(f"{row[key]:.0f}" if key in row else "" for _, key in extra),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    if record.get("target"):
        lines += [f"Target: a loss of {record['target']['loss']:.4g} nats per example.", ""]
    lines += [f"- {name}: {how}." for name, how in record["how"].items() if how and name in rows]
    lines += [f"- Left out, {name}: {why}." for name, why in record["absent"].items()]
    return [*lines, ""]


def _duel(record: Record) -> list[str]:
    lines = [f"## {record['title']}", ""]
    if "skipped" in record:
        return [*lines, f"Was {_why_not(record)}.", ""]
    sides, memory = list(record["rows"][0]["seconds"]), "memory_mib" in record["rows"][0]
    peer, agreement = record.get("peer", Duel.peer), record.get("agreement", Duel.agreement)
    head = ["", *(f"{side}, s" for side in sides), f"x faster than {peer}", agreement]
    head += [f"{side}, MiB" for side in sides] if memory else []
    lines += [f"| {' | '.join(head)} |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for row in record["rows"]:
        cells = [row["label"], *(f"{row['seconds'][side]:.4g}" for side in sides), _number(row["ratio"], True)]
        cells += [f"{row['difference']:.0e}", *(f"{row['memory_mib'][side]:.0f}" for side in sides if memory)]
        lines.append(f"| {' | '.join(cells)} |")
    sizes = ", ".join(f"{name} {value}" for name, value in record["rows"][0]["problem"].items())
    return [*lines, "", f"First row: {sizes}. Medians and ranges of three runs in turn.", ""]


def _why_not(record: Record) -> str:
    """The reason, or the last line of an error."""
    return f"not measured: {str(record['skipped']).strip().splitlines()[-1]}"


def _growth(record: Record) -> list[str]:
    names = list(dict.fromkeys(name for point in record["points"] for name in point["per_step"]))
    lines = [f"## Growth: {record['title']}, {record['device']}", "", "Milliseconds a step.", ""]
    lines += [f"| {record['over']} | {' | '.join(names)} |", "|---:" * (len(names) + 1) + "|"]
    for point in record["points"]:
        cells = [f"{1e3 * point['per_step'][n]['median']:.4g}" if n in point["per_step"] else "" for n in names]
        lines.append(f"| {point['value']:,} | {' | '.join(cells)} |")
    return [*lines, ""]


def _where_the_cpu_wins(records: Sequence[Record]) -> list[str]:
    """A section only when both devices were measured: the workloads on which our fastest way is faster on the CPU."""
    best: dict[str, dict[str, float]] = {}
    for record in records:
        ours = [row for name, row in record.get("contenders", {}).items() if name in (ZOO_COMPILED, ZOO_EAGER)]
        if ours:
            kind = str(record["device"]).split(":")[0]
            best.setdefault(record["title"], {})[kind] = min(row["per_step"]["median"] for row in ours)
    both = {title: times for title, times in best.items() if "cpu" in times and len(times) > 1}
    if not both:
        return []
    lines = [
        "## Where the CPU is the better choice",
        "",
        "| | ms a step, CPU | ms a step, GPU | |",
        "|---|---:|---:|---|",
    ]
    for title, times in both.items():
        gpu = min(value for kind, value in times.items() if kind != "cpu")
        choice = "the CPU" if times["cpu"] < gpu else "the GPU"
        lines.append(f"| {title} | {1e3 * times['cpu']:.4g} | {1e3 * gpu:.4g} | {choice} |")
    return [*lines, ""]


def _number(found: Mapping[str, float] | None, quartiles: bool = False) -> str:
    if found is None:
        return ""
    if not quartiles:
        return f"{found['median']:.3g}"
    return f"{found['median']:.3g} ({found['low']:.3g} to {found['high']:.3g})"


def _target(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    if not found["reached"]:
        return f"not in {found['steps']} steps"
    return f"{found['steps']} steps, {found['seconds']:.3g} s ({found['seconds_with_prepare']:.3g} s)"


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def _bars(records: Sequence[Record]) -> Figure:
    """A panel for each workload: a bar for each contender, milliseconds on a logarithmic axis."""
    columns = 2
    rows = math.ceil(len(records) / columns)
    most = max(len(record["contenders"]) for record in records)
    figure = Figure(figsize=(11, rows * (0.25 * most + 0.75)), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax, record in zip(panels, records, strict=False):
        names = list(record["contenders"])
        steps = [record["contenders"][name]["per_step"] for name in names]
        middle = [1e3 * step["median"] for step in steps]
        errors = [[1e3 * (s["median"] - s["low"]) for s in steps], [1e3 * (s["high"] - s["median"]) for s in steps]]
        ax.barh(names, middle, xerr=errors, color=[COLOURS.get(name, GREY) for name in names], height=0.7)
        for i, step in enumerate(steps):
            ax.text(1e3 * step["high"], i, f"  {_time(step['median'])}", va="center", ha="left", fontsize=7.5)
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
        # At least a decade on either side, so that the axis has a number.
        ax.set_xlim(min(middle) / 5, max(middle) * 10)
        ax.invert_yaxis()
        ax.set_title(record["title"], fontsize=10, loc="left")
        ax.set_xlabel("ms a step", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in panels[len(records) :]:
        ax.set_visible(False)
    return figure


def _curves(records: Sequence[Record]) -> Figure:
    """A panel for each sweep: time of a step over size, both logarithmic."""
    figure = Figure(figsize=(3.4 * len(records) + 0.6, 3.4), layout="constrained")
    panels = figure.subplots(1, len(records), squeeze=False).flatten()
    for ax, record in zip(panels, records, strict=True):
        for name in dict.fromkeys(name for point in record["points"] for name in point["per_step"]):
            points = [
                (p["value"], 1e3 * p["per_step"][name]["median"]) for p in record["points"] if name in p["per_step"]
            ]
            style = {"color": COLOURS.get(name, GREY), "ls": "-" if name in COLOURS else ":"}
            ax.plot(*zip(*points, strict=True), marker="o", ms=3, label=name, **style)
        ax.set(xscale="log", yscale="log")
        sizes = [point["value"] for point in record["points"]]
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_title(record["title"], fontsize=9, loc="left")
        ax.set_xlabel(record["over"], fontsize=8)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("ms a step", fontsize=8)
    panels[-1].legend(fontsize=7, frameon=False)
    return figure
