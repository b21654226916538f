"""The history of a fit: one row a report, which plots and saves itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.notebook import facts, figure, image

__all__ = ["History"]


@dataclass(repr=False)
class History:
    """Rows of {'step': int, 'seconds': float, metric: float, ...}; a metric may be absent from a row."""

    rows: list[dict[str, float]] = field(default_factory=list)

    def add(self, step: int, seconds: float, **metrics: float) -> None:
        """Appends a row."""
        self.rows.append({"step": step, "seconds": seconds, **metrics})

    def series(self, metric: str) -> tuple[list[int], list[float]]:
        """Steps and values where the metric was reported."""
        rows = [row for row in self.rows if metric in row]
        return [int(row["step"]) for row in rows], [row[metric] for row in rows]

    def last(self, metric: str) -> float:
        """The last reported value; KeyError if there is none."""
        values = self.series(metric)[1]
        if not values:
            raise KeyError(f"No metric {metric!r} in this history; it has {self.metrics}.")
        return values[-1]

    @property
    def metrics(self) -> list[str]:
        """Names of all metrics, in the order of first appearance."""
        return list(dict.fromkeys(k for row in self.rows for k in row if k not in ("step", "seconds")))

    def __repr__(self) -> str:
        if not self.rows:
            return "History(no rows)"
        said = ", ".join(f"{name} {self.last(name):.4g}" for name in self.metrics[:4])
        more = ", ..." if len(self.metrics) > 4 else ""
        return f"History({len(self.rows)} rows to step {int(self.rows[-1]['step']):,}: {said}{more})"

    def _repr_html_(self) -> str:
        said = {name: f"{self.last(name):.4g}" for name in self.metrics}
        table = facts(repr(self).partition(":")[0].rstrip(")") + ")", {f"{name}, last": v for name, v in said.items()})
        return table + (image(self.plot(), "History of the fit") if said else "")

    def plot(self, path: str | Path | None = None) -> Any:
        """Draws one panel a metric; returns the matplotlib figure, saved to `path` if one is given."""
        names = self.metrics
        drawn = figure(4.2 * max(len(names), 1), 3.2)
        for ax, name in zip(drawn.subplots(1, max(len(names), 1), squeeze=False)[0], names, strict=False):
            ax.plot(*self.series(name), lw=1.2)
            ax.set(xlabel="step", title=name)
            ax.grid(alpha=0.3)
        if path is not None:
            drawn.savefig(path, dpi=120)
        return drawn
