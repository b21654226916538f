"""The report of the suite `speed`: sections from its records; nothing here measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.machine import in_words
from benchmarks.report.document import Cell, Column, Details, Picture, Report, Section, Table, once
from benchmarks.report.plots import panels
from benchmarks.speed.contender import NUMPYRO, NUMPYRO_CALLS, PYRO, ZOO, ZOO_COMPILED, ZOO_EAGER, ZOO_TRACED
from benchmarks.speed.run import FOLDER
from benchmarks.speed.suite import DUELS, QUESTION, SWEEPS, TITLE, WORKLOADS, Duel
from zoo import folders
from zoo.errors import CheckpointError

__all__ = ["build", "read_records"]

Record = Mapping[str, Any]
COLOURS = {
    ZOO_COMPILED: "#d1495b", ZOO_TRACED: "#dd757f", ZOO_EAGER: "#e8a0a9",
    PYRO: "#3b6fb6", NUMPYRO: "#5b8c5a", NUMPYRO_CALLS: "#a9c7a8",
}  # fmt: skip
GREY = "#9aa5b3"
NOTE = "Medians, quartiles in brackets. In each round everyone ran a block of steps; ratios are those within rounds."
NAME = Column("", number=False)


def read_records(folder: str | Path) -> list[Record]:
    """The records, in the order of the suite, CPU first.

    Raises: CheckpointError when there are none, or one is damaged.
    """
    order, found = [*WORKLOADS, *DUELS, *SWEEPS], []
    for path in (Path(folder) / FOLDER).glob("*.json"):
        try:
            record = folders.from_json(folders.read_bytes(path), path)
        except CheckpointError as error:
            raise CheckpointError(f"{error} Delete it and run the suite again.") from error
        missing = [name for name in ("workload", "device", "setting") if name not in record]
        if missing:
            raise CheckpointError(f"{path} has no {', '.join(missing)}: it is none of ours; move it elsewhere.")
        found.append(record)
    if not found:
        raise CheckpointError(f"{folder} holds no results of the suite speed; run `zoo bench speed --out {folder}`.")
    known = [record for record in found if record["workload"] in order]
    return sorted(known, key=lambda record: (record["device"] != "cpu", order.index(record["workload"])))


def build(folder: str | Path) -> Report:
    """The report of a results folder.

    Raises: CheckpointError; see `read_records`.
    """
    records, sections = read_records(folder), []
    for device in dict.fromkeys(record["device"] for record in records):
        here = [record for record in records if record["device"] == device]
        sections += [Section(f"All workloads, {device}", pictures=_pictures(device, here))]
        kinds = {"workload": _workload, "duel": _duel, "growth": _growth}
        sections += [_skipped(r) if "skipped" in r else kinds[r["kind"]](r) for r in here]
    return Report(TITLE, QUESTION, NOTE, sections=[*sections, *_where_the_cpu_wins(records), _facts(records)])


def _skipped(record: Record) -> Section:
    """The reason, or the last line of an error."""
    why = str(record["skipped"]).strip().splitlines()[-1]
    return Section(f"{record['title']}, {record['device']}", [f"Was not measured: {why}."])


def _facts(records: Sequence[Record]) -> Section:
    dates = sorted(r["date"] for r in records)
    loads = [r["load"] for r in records if r.get("load") is not None]
    busy = f"; load average {min(loads):.1f} to {max(loads):.1f}" if loads else ""
    machines = (in_words({**r["hardware"], "threads": r["setting"]["threads"]}) for r in records)
    settings = (
        "{rounds} rounds of blocks of at least {block_seconds} s, float32, seed {seed}".format_map(r["setting"])
        for r in records
    )
    remarks = [
        f"Device: {', '.join(dict.fromkeys(r['device'] for r in records))}",
        f"Hardware: {'; '.join(dict.fromkeys(machines))} for everyone{busy}",
        f"Versions: {', '.join(f'{name} {number}' for name, number in records[-1]['versions'].items())}",
        f"Measured: {'; '.join(dict.fromkeys(settings))}; {dates[0]} to {dates[-1]}",
    ]
    return Section("Where it was measured", remarks=remarks)


def _spread(found: Mapping[str, float] | None, scale: float = 1.0, digits: int = 3) -> Cell:
    """'median (low to high)'."""
    if found is None:
        return Cell("")
    middle, low, high = (f"{scale * found[key]:.{digits}g}" for key in ("median", "low", "high"))
    return Cell(f"{middle} ({low} to {high})", brief=middle)


def _target(found: Mapping[str, Any] | None) -> Cell:
    if found is None:
        return Cell("")
    if not found["reached"]:
        return Cell(f"not in {found['steps']} steps", brief="")
    seconds = f"{found['seconds']:.3g} s"
    return Cell(f"{found['steps']} steps, {seconds} ({found['seconds_with_prepare']:.3g} s)", brief=seconds)


def _rounded(key: str) -> Callable[[Record], Cell]:
    return lambda row: Cell(f"{row[key]:.0f}" if key in row else "")


STEP: dict[Column, Callable[[Record], Cell]] = {
    Column("ms a step", "milliseconds of one training step"): lambda row: _spread(row["per_step"], 1e3, 4),
    Column("x Pyro", "how many times faster than `SVI.step`"): lambda row: _spread(row.get("over_pyro")),
    Column("x best peer", "the same, than the fastest of all but ours"): lambda row: _spread(row.get("over_best_peer")),
    Column(
        "first steps, s", "seconds until two were done, compiling included, libraries imported and nothing cached"
    ): lambda row: Cell(f"{row['prepare_seconds']:.1f}"),
    Column(
        "to the target",
        "steps, and their seconds, until the mean loss over a twentieth of the steps was that of our eager fit; in "
        "brackets with the first ones",
    ): lambda row: _target(row.get("target")),
    Column(
        "memory, MiB", "peak, in a process of its own, above what libraries and data took, compiling included", False
    ): _rounded("memory_mib"),
    Column("running, MiB", "the same of the steps after that", False): _rounded("running_memory_mib"),
    Column("GPU memory, MiB", "the same on the GPU", False): _rounded("gpu_memory_mib"),
    Column("GPU busy, %", "of the time", False): _rounded("gpu_utilisation"),
}
"""Columns of a workload, and what each shows of a contender; those that nobody has are left out."""


def _workload(record: Record) -> Section:
    rows = record["contenders"]
    cells = {column: [show(row) for row in rows.values()] for column, show in STEP.items()}
    kept = {NAME: [Cell(name) for name in rows]} | {
        c: found for c, found in cells.items() if any(x.text for x in found)
    }
    target = [f"Target: a loss of {record['target']['loss']:.4g} nats per example."] if record.get("target") else []
    hows = once((how, name) for name, how in record["how"].items() if how and name in rows)
    return Section(
        f"{record['title']}, {record['device']}",
        [", ".join(f"{name} {value}" for name, value in record["work"].items()) + "."],
        [Table(list(kept), list(zip(*kept.values(), strict=True)))],
        remarks=[*target, *(f"Left out, {name}: {why}." for name, why in record["absent"].items())],
        details=[Details("How each contender does it", [f"{how} ({'; '.join(who)})" for how, who in hows])],
    )


def _duel(record: Record) -> Section:
    first = record["rows"][0]
    peer, agreement = record.get("peer", Duel.peer), record.get("agreement", Duel.agreement)
    head = [NAME, *(Column(f"{side}, s") for side in first["seconds"]), Column(f"x faster than {peer}")]
    head += [Column(title, brief=False) for title in (agreement, *(f"{s}, MiB" for s in first.get("memory_mib", ())))]
    body = [
        [
            Cell(row["label"]),
            *(Cell(f"{row['seconds'][side]:.4g}" if side in row["seconds"] else "") for side in first["seconds"]),
            _spread(row["ratio"]),
            Cell(f"{row['difference']:.0e}"),
            *(Cell(f"{memory:.0f}") for memory in row.get("memory_mib", {}).values()),
        ]
        for row in record["rows"]
    ]
    sizes = ", ".join(f"{name} {value}" for name, value in first["problem"].items())
    remark = f"First row: {sizes}. Medians and ranges of three runs in turn; of one, where minutes pass in it."
    missing = [f"Was not measured: {why}." for why in record.get("missing", ())]
    return Section(record["title"], tables=[Table(head, body)], remarks=[remark, *missing])


def _growth(record: Record) -> Section:
    names = list(dict.fromkeys(name for point in record["points"] for name in point["per_step"]))
    body = []
    for point in record["points"]:
        steps = [point["per_step"].get(name) for name in names]
        cells = [Cell(f"{1e3 * step['median']:.4g}" if step else "") for step in steps]
        body.append([Cell(f"{point['value']:,}"), *cells])
    title = f"Growth: {record['title']}, {record['device']}"
    return Section(title, ["Milliseconds a step."], [Table([Column(record["over"]), *map(Column, names)], body)])


def _where_the_cpu_wins(records: Sequence[Record]) -> list[Section]:
    """A section only when both devices were measured: the workloads on which our fastest way is faster on the CPU."""
    best: dict[str, dict[bool, float]] = {}
    for record in records:
        rows = record.get("contenders", {})
        if ours := [rows[name]["per_step"]["median"] for name in ZOO if name in rows]:
            best.setdefault(record["title"], {})[record["device"] == "cpu"] = min(ours)
    body = [
        [title, f"{1e3 * t[True]:.4g}", f"{1e3 * t[False]:.4g}", "the CPU" if t[True] < t[False] else "the GPU"]
        for title, t in best.items()
        if len(t) == 2
    ]
    head = [NAME, Column("ms a step, CPU"), Column("ms a step, GPU"), NAME]
    table = Table(head, [[Cell(text) for text in row] for row in body])
    return [Section("Where the CPU is the better choice", tables=[table])] if body else []


def _pictures(device: str, records: Sequence[Record]) -> list[Picture]:
    jobs = [r for r in records if "contenders" in r]
    growth = [r for r in records if any(point["per_step"] for point in r.get("points", ()))]
    found, kind = [], str(device).split(":")[0]
    if jobs:
        found.append(Picture(f"steps-{kind}", f"Time of one step on {device}; shorter is faster.", _bars(jobs)))
    if growth:
        found.append(Picture(f"growth-{kind}", f"How a step grows on {device}.", _curves(growth)))
    return found


def _bars(records: Sequence[Record]) -> Figure:
    """A panel for each workload: a bar for each contender, milliseconds on a logarithmic axis."""
    most = max(len(record["contenders"]) for record in records)
    figure, axes = panels(len(records), 2, 5.5, 0.25 * most + 0.75)
    for ax, record in zip(axes, records, strict=True):
        names = list(record["contenders"])
        steps = [record["contenders"][name]["per_step"] for name in names]
        middle = [1e3 * step["median"] for step in steps]
        errors = [[1e3 * (s["median"] - s["low"]) for s in steps], [1e3 * (s["high"] - s["median"]) for s in steps]]
        ax.barh(names, middle, xerr=errors, color=[COLOURS.get(name, GREY) for name in names], height=0.7)
        for i, step in enumerate(steps):
            ax.text(1e3 * step["high"], i, f"  {1e3 * step['median']:.3g}", va="center", ha="left", fontsize=7.5)
        # At least a decade on either side, so that the axis has a number.
        ax.set(xscale="log", xlim=(min(middle) / 5, max(middle) * 10))
        ax.invert_yaxis()
        _finish(ax, record["title"], "ms a step")
    return figure


def _curves(records: Sequence[Record]) -> Figure:
    """A panel for each sweep: time of a step over size, both logarithmic."""
    figure, axes = panels(len(records), len(records), 3.5, 3.4)
    for ax, record in zip(axes, records, strict=True):
        for name in dict.fromkeys(name for point in record["points"] for name in point["per_step"]):
            points = [
                (p["value"], 1e3 * p["per_step"][name]["median"]) for p in record["points"] if name in p["per_step"]
            ]
            colour, line = COLOURS.get(name, GREY), "-" if name in COLOURS else ":"
            ax.plot(*zip(*points, strict=True), marker="o", ms=3, label=name, color=colour, ls=line)
        ax.set(xscale="log", yscale="log")
        sizes = [point["value"] for point in record["points"]]
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
        _finish(ax, record["title"], record["over"])
    axes[0].set_ylabel("ms a step", fontsize=8)
    axes[-1].legend(fontsize=7, frameon=False)
    return figure


def _finish(ax: Axes, title: str, across: str) -> None:
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_title(title, fontsize=9, loc="left")
    ax.set_xlabel(across, fontsize=8)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
