"""The commands `zoo bench` and `zoo report`."""

# No torch here: `zoo --help` must not wait for it.
from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import printing
from benchmarks.config import write_config
from benchmarks.parameters import Config, Device, Json

__all__ = ["bench", "report"]

Suite = Annotated[
    str | None,
    typer.Argument(
        help="'main' (three minutes), 'posterior', 'references', 'density', 'aevb', 'published', 'anomalies', "
        "'adversarial', 'translation', 'regression', 'restoration', 'representation', 'topics', 'speed'; or your "
        "own, 'file.py:SUITE'."
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(help="Cells at a time, at most, one thread each; default: one a core, of a cluster all it holds."),
]
Executor = Annotated[
    str, typer.Option(help="Who runs cells: 'local', this machine; 'ray', the cluster of RAY_ADDRESS, or one here.")
]
Gpus = Annotated[
    float | None, typer.Option(help="ray: of each cell on 'cuda'; 0.25 lets four share a GPU; default: 1.")
]


def bench(
    ctx: typer.Context,
    suite: Suite = None,
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder for results and report; a killed run continues.")],
    select: Annotated[
        list[str] | None,
        typer.Option("--select", help="Only cells whose suite/program/method/data contains this (or this glob)."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds, instead of the suite's own number.")] = None,
    jobs: Jobs = None,
    device: Device = "cpu",
    executor: Executor = "local",
    gpus: Gpus = None,
    status: Annotated[
        bool, typer.Option("--status", help="Only say what runs where in the folder: done, failed, running, waiting.")
    ] = False,
    only: Annotated[
        str | None, typer.Option(help="speed: names of workloads, separated by commas, such as eight-schools,vae-128.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="speed: a look in a few minutes.")] = False,
    threads: Annotated[int | None, typer.Option(help="speed: of everyone; default: one a core.")] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Run a suite of comparisons; print the table and write the page.

    Example: `zoo bench main --out runs/main`, `zoo bench posterior --select vae --seeds 1 --out runs/vae`,
    `zoo bench mine.py:SUITE --out runs/mine --executor ray`, `zoo bench --status --out runs/mine`,
    `zoo bench speed --only eight-schools,vae-128 --quick --out runs/speed`
    """
    if status:
        return _status(out, as_json)
    from benchmarks.commands import check_bench_options

    of_cells = {
        "select": select, "seeds": seeds, "jobs": jobs, "executor": executor != "local", "gpus": gpus,
    }  # fmt: skip
    suite = check_bench_options(suite, of_cells, {"only": only, "quick": quick, "threads": threads})
    if suite == "speed":
        from benchmarks.speed.run import run_speed

        run_speed(out, only, quick, device, threads, progress=sys.stderr.isatty())
        write_config(ctx, out)
        return _report(out, as_json)
    from benchmarks.run import run_suite
    from benchmarks.suites import get_suite

    run_suite(
        get_suite(suite), out, tuple(select or ()), seeds, jobs, device, progress=sys.stderr.isatty(),
        executor=executor, gpus=gpus,
    )  # fmt: skip
    write_config(ctx, out)
    _report(out, as_json)


def report(
    folder: Annotated[Path, typer.Argument(help="What `zoo bench` wrote.")],
    as_json: Json = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print a line for each cell and metric, for a data frame.")
    ] = False,
) -> None:
    """Make the table, plots and page of a results folder again; or print all of its numbers as CSV.

    Example: `zoo report runs/main`, `zoo report runs/main --csv > main.csv`
    """
    if as_csv:
        from benchmarks import results

        return print(results.load(folder).frame().to_csv(index=False), end="")
    _report(folder, as_json)


def _report(folder: Path, as_json: bool) -> None:
    from benchmarks.report import document, page
    from benchmarks.speed import report as speed

    is_speed = (folder / "speed").is_dir()
    report = speed.build(folder) if is_speed else page.build(folder)
    written = document.write(report, folder)
    if as_json:
        rows = {"records": speed.read_records(folder)} if is_speed else {"rows": page.rows_as_json(folder)}
        return printing.print_json({"page": str(written), **rows})
    document.print_report(report, Console())
    print(f"table: {folder / 'report.md'}\npage:  {written.resolve()}")


def _status(folder: Path, as_json: bool) -> None:
    from benchmarks.status import read_status

    found = read_status(folder)
    if as_json:
        return printing.print_json(found)
    printing.print_status(found, folder)
