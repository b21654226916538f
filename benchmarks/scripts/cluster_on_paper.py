"""A run on a cluster that we have not: `python -m benchmarks.scripts.cluster_on_paper --ray`.

What the one driver does for each cell is measured here, with the code that does it: appending its records, writing its
artifacts and the status; with `--ray` also how long Ray takes to be given so many tasks and to look them over. The rest
is simulated, event by event: slots take cells as they get free, results wait for the driver, which takes all that are
there, one after the other. Cells last as those of a folder of results (`--record`) or are lognormal. Networks, machines
that fail, and disks that others use too are left out.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measuring import failure
from benchmarks.results import append_cell, load, read_results
from benchmarks.status import Driver, News, Start
from benchmarks.suites import get_suite
from zoo.process import guest

__all__ = ["Costs", "Outcome", "main", "simulate"]

ARTIFACT = 200_000
"""Bytes that a cell leaves for pictures, as most do."""
RECORDS = 12
"""Lines of a cell."""
TIMES, STARTS = 50, 3
"""That a cost is measured, and that a process is started; medians count."""


@dataclass(frozen=True)
class Costs:
    """Seconds that the driver spends."""

    submit: float
    """On each cell, to hand it out."""
    result: float
    """On each result: records and artifacts to the disk."""
    status: float
    """On each wake-up."""
    running: float
    """On each wake-up, for each cell that runs: a line of the status."""
    pending: float
    """On each wake-up, for each cell that is not done: Ray looks it over."""
    start: float
    """Not of the driver: on a worker, before its first cell."""


@dataclass(frozen=True)
class Outcome:
    """What became of a run; seconds."""

    wall: float
    busy: float
    """Share of the time in which the driver had work."""
    waiting: int
    """Results that waited for the driver, at most."""
    late: float
    """From the end of the last cell until the driver was done."""


def simulate(cells: Sequence[float], slots: int, costs: Costs) -> Outcome:
    """The run of cells that last so many seconds, in the order given.

    Args:
        cells: Seconds of each.
        slots: Cells at a time.
        costs: Of the driver.
    """
    free = [costs.start] * slots
    heapq.heapify(free)
    starts, ends = [], []
    for number, seconds in enumerate(cells):
        begin = max(heapq.heappop(free), number * costs.submit)
        starts.append(begin)
        ends.append(begin + seconds)
        heapq.heappush(free, ends[-1])
    events = sorted([(t, 0) for t in starts] + [(t, 1) for t in ends])
    now, busy, at, running, left, most = 0.0, len(cells) * costs.submit, 0, 0, len(cells), 0
    while at < len(events):
        now = max(now, events[at][0])
        started = finished = 0
        while at < len(events) and events[at][0] <= now:
            finished += events[at][1]
            started += 1 - events[at][1]
            at += 1
        most, running = max(most, finished), running + started - finished
        spent = costs.status + costs.running * max(running, 0) + costs.pending * left + costs.result * finished
        left -= finished
        busy, now = busy + spent, now + spent
    return Outcome(now, busy / now, waiting=most, late=now - max(ends))


def timed(action: Callable[[int], Any], times: int = TIMES) -> float:
    """The median of seconds."""
    seconds = []
    for number in range(times):
        started = time.perf_counter()
        action(number)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def measured(folder: Path, slots: int) -> Costs:
    """What this machine takes, but for Ray; leaves results in the folder."""
    cells = [cell for name in ("main", "density") for cell in get_suite(name).cells(seeds=1)]
    records = [{**failure(cells[0], "cpu", ""), "how": "x" * 80}] * RECORDS
    (folder / "artifacts").mkdir()

    def result(number: int) -> None:
        (folder / "artifacts" / str(number)).write_bytes(bytes(ARTIFACT))
        append_cell(folder, [{**record, "started": number} for record in records])

    def note(running: int) -> float:
        keys = [f"{cells[0].key}{number}" for number in range(running)]
        driver = Driver(folder, "paper", "ray", cells=keys, done=())
        driver.take(News([Start(key, "a machine", pid=12345, since=time.time()) for key in keys]))
        return timed(lambda _: driver.take(News()))

    few, many = note(1), note(slots)
    return Costs(
        submit=0.0,
        result=timed(result),
        status=few,
        running=max(many - few, 0.0) / slots,
        pending=0.0,
        start=timed(lambda _: subprocess.run([sys.executable, "-c", "import benchmarks.cluster"], check=True), STARTS),
    )


def look_over(n: int) -> tuple[float, float]:
    """Seconds that Ray takes to be given a task, and at each wake-up for one not done; a cluster of one worker here."""
    ray = guest("ray")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        task = ray.remote(num_cpus=1)(_rest)
        block = task.remote(3600.0)
        refs: list[Any] = []
        given = timed(lambda _: refs.append(task.remote(0.0)), n)

        def look(number: int) -> None:  # as `benchmarks.cluster` does: for one, then for all that are there
            ray.wait([block, *refs], timeout=0)
            ray.wait([block, *refs], num_returns=n + 1, timeout=0)

        return given, timed(look, 9) / n
    finally:
        ray.shutdown()


def _rest(seconds: float) -> None:
    time.sleep(seconds)


def lengths(n: int, record: Path | None, median: float, spread: float) -> list[float]:
    """Seconds of n cells: drawn from those of a folder, or lognormal."""
    random.seed(0)
    if record is None:
        return [random.lognormvariate(math.log(median), spread) for _ in range(n)]
    seconds = {each["cell"]: each["seconds"] for each in load(record).records}
    return random.choices(list(seconds.values()), k=n)


def main() -> None:
    """Measures, simulates and prints Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--cores", type=int, default=16, help="cells at a time on each machine")
    parser.add_argument("--record", type=Path, help="a folder of results, whose cells are as long")
    parser.add_argument("--median", type=float, default=30.0, help="seconds of a cell, without --record")
    parser.add_argument("--spread", type=float, default=1.0, help="sd of the logarithm, without --record")
    parser.add_argument("--ray", action="store_true", help="measure Ray too")
    asked = parser.parse_args()
    seconds = lengths(asked.cells, asked.record, asked.median, asked.spread)
    with TemporaryDirectory() as place:
        costs = measured(Path(place), 100 * asked.cores)
        size = (Path(place) / "results.jsonl").stat().st_size / TIMES
        again = timed(lambda _: read_results(place), 5) / TIMES
    if asked.ray:
        given, pending = look_over(asked.cells)
        costs = replace(costs, submit=given, pending=pending)
    over = f"{1e6 * costs.pending:.1f} us for each that is not done" if asked.ray else "Ray's part was not measured"
    print(
        f"One cell: {1e3 * costs.submit:.1f} ms to hand it out, {1e3 * costs.result:.1f} ms for its result "
        f"({ARTIFACT / 1e3:.0f} kB of artifacts, {size / 1e3:.1f} kB of records). A wake-up: {1e3 * costs.status:.1f} "
        f"ms and {1e6 * costs.running:.1f} us for each cell that runs, {over}. A worker starts in "
        f"{costs.start:.0f} s.\n"
        f"All {asked.cells:,} cells: {sum(seconds) / 3600:.0f} hours of work, {size * asked.cells / 1e6:.0f} MB of "
        f"records, read again in {again * asked.cells:.0f} s, {ARTIFACT * asked.cells / 1e9:.1f} GB of artifacts.\n"
        f"At most {1 / costs.result:.0f} results a second: on 100 machines, of cells that last "
        f"{100 * asked.cores * costs.result:.0f} s.\n"
    )
    print("| machines | run | without a driver | driver at work | results waiting | written after the last cell |")
    print("|---|---|---|---|---|---|")
    nothing = Costs(submit=0, result=0, status=0, running=0, pending=0, start=costs.start)
    for machines in (1, 10, 100, 1000):
        slots = machines * asked.cores
        real, ideal = simulate(seconds, slots, costs), simulate(seconds, slots, nothing)
        print(
            f"| {machines:,} | {real.wall / 60:.1f} min | {ideal.wall / 60:.1f} min | {100 * real.busy:.0f} % | "
            f"at most {real.waiting:,}, {real.waiting * ARTIFACT / 1e6:.0f} MB | {real.late:.1f} s |"
        )


if __name__ == "__main__":
    main()
