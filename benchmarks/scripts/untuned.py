"""How near SVI comes to the best of its family when nothing is chosen: `python -m benchmarks.scripts.untuned`.

    OMP_NUM_THREADS=1 python -m benchmarks.scripts.untuned --rows untuned-cpu.json > untuned-cpu.md

Each reference of posteriordb, on its raw scales, and each target with an exact answer and global latents is fitted by
`fit(program, data, "svi", guide=...)` without another option, from three seeds. Beside it stand long tuned runs: Adam,
20,000 steps of eight draws (fewer where FEWER says so), at three learning rates that fall to zero, from the mode that
SVI finds, the best of which counts. Both bounds are estimated by the same draws. Rows that the file holds already are
not measured again.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import targets
from benchmarks.machine import hardware, in_words
from benchmarks.scripts.kept import Row, measured
from inference import Fit, fit
from inference.evaluation.estimates import elbo
from inference.training.target import Target, why_no_target
from zoo.datasets.data import Data
from zoo.program import Program

__all__ = ["FAMILIES", "RATES", "gap", "main", "measure", "page", "posteriors"]

FAMILIES = {"mean-field": "normal", "full rank": "multivariate_normal"}
RATES = (0.1, 0.03, 0.01)
TUNED: dict[str, Any] = {"steps": 20_000, "particles": 8, "decay": "cosine"}
FEWER = {"arma": 5000, "diamonds": 5000, "garch": 5000, "hmm": 5000, "casino": 5000, "lotka": 500}
"""Steps of tuned runs where one takes as long as many elsewhere: recursions in time, many rows, an equation solver."""
SEEDS = 3
LOOKS, DRAWS = 5, 1000
"""Estimates of both bounds by the same noise, and the draws of each."""
BY_ITSELF = 10
"""As many times fewer, where the program bears one vector at a time."""
NEAR = 0.05
"""Nats within which a fit counts as the best of its family."""


def posteriors() -> Iterator[str]:
    """Names of the targets whose posterior is one density of one vector."""
    for name in (*targets.REFERENCES, *targets.names()):
        if why_no_target(*posterior(name)) is None:
            yield name


def posterior(name: str) -> tuple[Program, Data]:
    """The program of a target, and the data that its posterior is given."""
    truth = targets.load(name)
    program = truth.program()
    return program, program.take(truth.data)


def gap(fits: Sequence[Fit], data: Data, draws: int) -> list[tuple[float, float]]:
    """How many nats the bound of the first fit lies above that of each other, with standard errors."""
    looks = [[float(elbo(f.program, f.guide, data, draws, seed).values.sum()) for f in fits] for seed in range(LOOKS)]
    found = []
    for k in range(1, len(fits)):
        differences = [look[0] - look[k] for look in looks]
        found.append((statistics.fmean(differences), statistics.stdev(differences) / LOOKS**0.5))
    return found


def measure(name: str, family: str) -> Row:
    """One row: the best tuned run, and how far each untuned one is below it.

    Raises: ZooError, where a fit fails.
    """
    (program, data), guide = posterior(name), FAMILIES[family]

    def fitted(seed: int, **options: Any) -> tuple[Fit, float]:
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return fit(program, data, "svi", guide=guide, seed=seed, **options), time.perf_counter() - started

    untuned = [fitted(seed) for seed in range(SEEDS)]
    steps = next((fewer for part, fewer in FEWER.items() if part in name), TUNED["steps"])
    tuned = {rate: fitted(0, lr=rate, **{**TUNED, "steps": steps}) for rate in RATES}
    draws = DRAWS // (BY_ITSELF if Target(program, data).one_by_one() else 1)
    rates = list(tuned)
    against = [0.0, *(mean for mean, _ in gap([tuned[rate][0] for rate in rates], data, draws))]
    best = rates[against.index(min(against))]
    below = gap([tuned[best][0], *(found for found, _ in untuned)], data, draws)
    return {
        "below": [mean for mean, _ in below],
        "error": max(error for _, error in below),
        "seconds": [seconds for _, seconds in untuned],
        "verdicts": [found.info["convergence"]["verdict"] for found, _ in untuned],
        "rate": best,
        "steps": steps,
        "tuned seconds": tuned[best][1],
    }


def page(found: Mapping[str, Row], machine: str) -> str:
    """The table as Markdown, and what it says."""
    lines = [
        "# SVI that nobody tunes", "",
        f"`python -m benchmarks.scripts.untuned` on {machine}.", "",
        f"`fit(program, data, \"svi\", guide=...)` and nothing else, median of {SEEDS} seeds, the worst in brackets, "
        f"beside the best of {len(RATES)} runs of Adam, as many steps of {TUNED['particles']} draws as stand there, "
        "from the same mode and in units of the posterior's spread at it; whether it is the right one says [the record "
        "of the references](references-cpu.md). *below*: nats that the bound of the untuned fit lies below the tuned "
        "one's, by the same draws; negative where it is better.", "",
        "| target | guide | below | ± | converged | sec | tuned steps | tuned lr | tuned sec |",
        "|---|---|---:|---:|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    failed, far, slow = [], [], []
    for key, row in found.items():
        name, _, family = key.partition(" ")
        title = name.removeprefix("posteriordb/")
        if "refused" in row:
            lines.append(f"| {title} | {family} | failed |  |  |  |  |  |  |")
            failed.append(f"- {title}, {family}: {row['refused']}")
            continue
        worst, seconds = max(row["below"]), statistics.median(row["seconds"])
        sure = sum(verdict == "converged" for verdict in row["verdicts"])
        lines.append(
            f"| {title} | {family} | {_nats(statistics.median(row['below']))} ({_nats(worst)}) | {row['error']:.3f} | "
            f"{sure} of {len(row['verdicts'])} | {seconds:.1f} | {row['steps']:,} | "
            f"{row['rate']:g} | {row['tuned seconds']:.1f} |"
        )
        if worst > NEAR + 2 * row["error"]:
            far.append(f"- {title}, {family}: {worst:.3f} nats below, {', '.join(dict.fromkeys(row['verdicts']))}.")
        if seconds > 2 * row["tuned seconds"]:
            slow.append(f"- {title}, {family}: {seconds:.1f} s beside {row['tuned seconds']:.1f}.")
    near = len(found) - len(failed) - len(far)
    lines += ["", f"{near} of {len(found)} fits are within {NEAR} nats of the tuned one, or two standard errors."]
    for title, each in (("Further below", far), ("More than twice as long", slow), ("Failed", failed)):
        lines += ["", f"## {title}", "", *(each or ["None."])]
    return "\n".join(lines)


def _nats(number: float) -> str:
    """Three digits, and no zero below zero."""
    return f"{round(number, 3) + 0.0:.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what the file of rows does not hold yet, and prints the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, help="JSON file of rows, read first and written as they are found")
    parser.add_argument("--only", default="", help="names of targets, separated by commas; parts will do")
    given = parser.parse_args(arguments)
    torch.set_default_dtype(torch.float64)  # as posteriordb's draws are
    parts = given.only.split(",")
    names = [name for name in posteriors() if any(part in name for part in parts)]
    cases = {f"{name} {family}": partial(measure, name, family) for name in names for family in FAMILIES}
    machine, found = measured(cases, given.rows, in_words(hardware("cpu")), "untuned")
    print(page(found, machine))


if __name__ == "__main__":
    main()
