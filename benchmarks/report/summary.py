"""Results over seeds: the median of each metric, its spread, and how many seeds failed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.metrics import METRICS
from benchmarks.results import Record, latest

__all__ = ["GAUSSIAN", "Row", "Value", "cell_text", "summarise"]

GAUSSIAN = "SVI, full rank"
"""The method beside whose approximation gap the others' are set."""


@dataclass(frozen=True)
class Value:
    """A metric over seeds; `how` is how it was estimated, or why it does not apply when there is no median.

    Of a metric that counts (`Metric.counts`) the three numbers are that of the seeds in which it is true.
    """

    median: float | None
    low: float | None = None
    high: float | None = None
    standard_error: float | None = None
    seeds: int = 0
    how: str = ""


@dataclass
class Row:
    """A program by a method on a data set."""

    kind: str
    dataset: str
    split: str
    program: str
    method: str
    values: dict[str, Value] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    budget: dict[str, Any] = field(default_factory=dict)
    cells: dict[int, str] = field(default_factory=dict)

    def median(self, metric: str) -> float | None:
        """Of a metric over seeds, if it was measured and applies."""
        return self.values[metric].median if metric in self.values else None


def summarise(records: Iterable[Record]) -> list[Row]:
    """One row for each (kind, data set, program, method), in the order in which they were declared or first seen."""
    rows: dict[tuple[str, str, str, str], Row] = {}
    numbers: dict[tuple[str, str, str, str], dict[str, list[Record]]] = {}
    for record in sorted(latest(records), key=lambda r: (r["seed"], r["started"])):
        said = {key: record[key] for key in ("kind", "dataset", "split", "program", "method", "budget")}
        at = (record["kind"], record["dataset"], record["program"], record["method"])
        row = rows.setdefault(at, Row(**said))
        if record["seed"] not in row.seeds:
            row.seeds.append(record["seed"])
        row.cells[record["seed"]] = record["cell"]
        if record.get("failed"):
            row.failures.append(f"seed {record['seed']}: {record['failed']}")
        else:
            numbers.setdefault(at, {}).setdefault(record["metric"], []).append(record)
    for at, metrics in numbers.items():
        gaussian = numbers.get((*at[:3], GAUSSIAN), {}).get("approximation", [])
        if at[3] != GAUSSIAN and (closed := _gap_closed(metrics.get("approximation", []), gaussian)):
            metrics["gap_closed"] = closed
    for at, metrics in numbers.items():
        for metric, found in metrics.items():
            rows[at].values[metric] = _over_seeds(found)
    return list(rows.values())


def _gap_closed(gaps: list[Record], gaussian: list[Record]) -> list[Record]:
    """1 - gap / the Gaussian's gap, seed by seed; negative for a guide that is worse."""
    beside = {r["seed"]: r["value"] for r in gaussian if r["value"]}
    return [
        {**r, "value": 1 - r["value"] / beside[r["seed"]], "standard_error": None, "how": f"beside {GAUSSIAN}"}
        for r in gaps
        if r["value"] is not None and r["seed"] in beside
    ]


def _over_seeds(records: list[Record]) -> Value:
    values = [r["value"] for r in records if r["value"] is not None]
    how = "; ".join(dict.fromkeys(part for r in records if r["how"] for part in r["how"].split("; ")))
    if not values:
        return Value(None, how=how)
    if (card := METRICS.get(records[0]["metric"])) is not None and card.counts:
        return Value(sum(values), sum(values), sum(values), seeds=len(values), how=how)
    error = records[0]["standard_error"] if len(values) == 1 else None
    return Value(median(values), min(values), max(values), standard_error=error, seeds=len(values), how=how)


def cell_text(metric: str, value: Value | None, spread: bool = True) -> str:
    """What a table shows: '1.23 (1.20 to 1.31)', '1.23 ± 0.04' for a single seed, 'n/a', or '' if never measured."""
    if value is None:
        return ""
    if value.median is None:
        return "not finite" if value.how.startswith("not finite") else "n/a"
    digits = METRICS[metric].digits if metric in METRICS else 3
    text = f"{_shown(value.median, digits)}"
    if not spread:
        return text
    if value.standard_error is not None:
        return f"{text} ± {_shown(value.standard_error, digits)}"
    low, high = _shown(value.low or 0.0, digits), _shown(value.high or 0.0, digits)
    return text if low == high else f"{text} ({low} to {high})"


def _shown(number: float, digits: int) -> str:
    """Fixed digits; a positive number too small for them is said to be below the last digit, never to be zero."""
    if 1e-12 < number < 0.5 * 10**-digits:
        return f"<{10**-digits:.{digits}f}"
    return f"{number + 0.0:,.{digits}f}".replace("-0." + "0" * digits, "0." + "0" * digits)
