"""The command line: `zoo list | show | fit | sample | score | features | bench | report`. It parses and prints.

Results go to standard output (as JSON with --json), progress to standard error. A mistake in the input gives one line
on standard error and exit code 2; what the machine refuses (a full disk, no memory) one line and exit code 1, as does a
fault of ours; Ctrl-C 130. ZOO_DEBUG=1 shows where an error was raised.
"""

# The modules that do the work are imported by the commands that need them: `zoo --help` must not wait for torch.
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.ending import ending

__all__ = ["app", "main"]

app = typer.Typer(
    name="zoo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Generative models as Pyro programs; exact, variational and adversarial inference side by side.

Start with `zoo list`, `zoo fit vae --out runs/vae`, or `zoo bench main --out runs/main`.""",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]
DataOption = Annotated[
    str | None,
    typer.Option("--data", "-d", help="A name (`zoo list --datasets`) or a file: .npz, .npy, .csv, image folder."),
]
Binarise = Annotated[
    str | None, typer.Option(help="Make data in [0, 1] binary: 'threshold' (at 0.5) or 'stochastic' (drawn once).")
]
Seed = Annotated[int, typer.Option(help="Everything random follows from it.")]
Device = Annotated[str, typer.Option(help="'auto', 'cpu', 'cuda' or 'mps'.")]


def main(arguments: list[str] | None = None) -> None:
    """The console script `zoo`."""
    with ending():
        app(arguments, prog_name="zoo")


@app.command("list")
def list_(
    datasets: Annotated[bool, typer.Option("--datasets", help="List the data sets instead of the programs.")] = False,
    as_json: Json = False,
) -> None:
    """List the programs of the zoo, or the data sets.

    Example: `zoo list --datasets`
    """
    from benchmarks import cards

    found = cards.dataset_list() if datasets else cards.program_list()
    if as_json:
        return _print_json(found)
    table = Table(box=None, pad_edge=False)
    columns = ("name", "shape", "support", "splits", "description") if datasets else ("family", "name", "what", "data")
    for column in columns:
        table.add_column(column, style="bold" if column == "name" else None, no_wrap=column == "name")
    for card in found:
        table.add_row(*(_cell(card[column]) for column in columns))
    Console().print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A name of `zoo list`, or 'file.py:Class'.")],
    data: DataOption = None,
    as_json: Json = False,
) -> None:
    """Print the card of a program: sites, support, parameters, what it promises, which methods can fit it.

    Example: `zoo show hmm`
    """
    from benchmarks import cards

    card = cards.program_card(name, data)
    if as_json:
        return _print_json(card)
    console = Console()
    console.print(f"[bold]{escape(card['name'])}[/bold]  {escape(card['what'])}")
    rows = {
        "family": card["family"],
        "paper": card["paper"] or "-",
        "example x": f"{_shape(card['event_shape'])}, {card['support']}",
        "latents": "\n".join(
            f"{site['name']} {_shape(site['shape'])}, {site['distribution']}, {site['scope']}" for site in card["sites"]
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


@app.command()
def fit(
    name: Annotated[str, typer.Argument(help="A name of `zoo list`, or 'file.py:Class'.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the fit; a killed fit continues from it.")],
    data: DataOption = None,
    method: Annotated[
        str | None, typer.Option("--method", "-m", help="See `zoo show NAME`; default: preset's.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="A named size and budget, see `zoo show NAME`.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="name=value, an option of the program or the method; may be repeated."),
    ] = None,
    binarise: Binarise = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Fit a program to data and save it: a checkpoint that loads again, and history.png.

    Example: `zoo fit vae --data digits-binary --out runs/vae -o latent_dim=2 -o epochs=50`
    """
    from benchmarks.commands import fit_program, parse_options

    options = parse_options(option or [])
    show_bar = sys.stderr.isatty()
    found = fit_program(name, data, out, method, preset, options, binarise, seed, device, show_bar)
    if as_json:
        return _print_json(found)
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
        note = f" (the bound rises by {further:.3g} nats per example further along)" if further > 0 else ""
        print(f"convergence: {found['convergence']['verdict']}{note}")
    if found["warning"] is not None:
        print(f"zoo: warning: {found['warning']}", file=sys.stderr)
    print(f"saved in {out}. Next:\n  zoo score {out} --split test\n  zoo sample {out} --out {out / 'samples.npz'}")


@app.command()
def sample(
    folder: Annotated[Path, typer.Argument(help="What `zoo fit` wrote.")],
    out: Annotated[Path, typer.Option("--out", help="A .png (a sheet of images) or .npz file.")],
    n: Annotated[int, typer.Option("-n", help="How many.")] = 64,
    data: DataOption = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Draw examples from a fitted program.

    Example: `zoo sample runs/vae -n 64 --out samples.png`
    """
    from benchmarks.commands import sample_program

    found = sample_program(folder, n, out, seed, data)
    if as_json:
        return _print_json(found)
    print(f"{found['n']} samples of {found['program']}, each {_shape(found['shape'])}, in {found['out']}")


@app.command()
def score(
    folder: Annotated[Path, typer.Argument(help="What `zoo fit` wrote.")],
    data: DataOption = None,
    split: Annotated[str, typer.Option(help="'train', 'valid' or 'test'.")] = "test",
    how: Annotated[str, typer.Option(help="'auto' (the best the program allows), or one of the estimators.")] = "auto",
    particles: Annotated[int, typer.Option(help="Importance samples of each example, where they are needed.")] = 1000,
    samples: Annotated[
        bool, typer.Option("--samples", help="Judge what it draws as well; a program without a density always is.")
    ] = False,
    n: Annotated[int | None, typer.Option("-n", "--n", help="How many samples; default: as many as data.")] = None,
    binarise: Binarise = None,
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Print the log-likelihood per example of a fitted program and how it was estimated; of a GAN, scores of samples.

    Scores of samples stand beside those of real data that are no test data. Images are looked at by a classifier of
    the data, which is trained if it is not in the cache (`zoo features` does that too).

    Example: `zoo score runs/vae --data digits-binary --split test`, `zoo score runs/gan`
    """
    from benchmarks.commands import has_density, judge_program, score_program
    from zoo.errors import OptionError

    scored, judged = None, None
    if has_density(folder):
        if n is not None and not samples:
            raise OptionError("-n says how many samples to judge: add --samples.")
        scored = score_program(folder, data, split, how, particles, binarise, seed, device)
    elif how != "auto":
        raise OptionError(f"This program has no density for --how {how}: leave it out, and its samples are judged.")
    if samples or scored is None:
        judged = judge_program(
            folder, data, split, n, binarise=binarise, seed=seed, device=device, progress=sys.stderr.isatty()
        )
    if as_json:
        return _print_json({**scored, "judged": judged} if scored and judged else scored or judged)
    if scored is not None:
        _print_likelihood(scored)
    if judged is not None:
        _print_judgement(judged)


def _print_likelihood(found: dict[str, Any]) -> None:
    error = "" if found["standard_error"] is None else f" ± {found['standard_error']:.3f}"
    kind = "a lower bound, " if found["bound"] else ""
    print(
        f"{found['log_likelihood']:.3f}{error} nats per example ({found['bits_per_dim']:.4f} bits/dim), "
        f"{found['examples']} examples of {found['data']} ({found['split']}), {kind}estimated by: {found['how']}"
    )


def _print_judgement(found: dict[str, Any]) -> None:
    from benchmarks.metrics import METRICS

    table = Table(box=None, pad_edge=False)
    for column in ("score", "samples", "real data", "what it is"):
        table.add_column(column, style="bold" if column == "score" else None, no_wrap=column != "what it is")
    for name, score in found["scores"].items():
        card = METRICS[name]
        if score["value"] is None:
            table.add_row(card.title, "n/a", "", f"[dim]{escape(score['how'].removeprefix('n/a: '))}[/dim]")
            continue
        error = "" if score["standard_error"] is None else f" ± {_number(score['standard_error'], card.digits)}"
        real = "" if score["real_data"] is None else _number(score["real_data"], card.digits)
        table.add_row(card.title, _number(score["value"], card.digits) + error, real, escape(card.meaning))
    console = Console()
    console.print(f"[bold]{escape(found['program'])}[/bold] on {escape(found['data'])} ({found['split']})")
    console.print(table)
    for line in (found["how"], *found["notes"]):
        console.print(escape(line), style="dim")


def _number(value: float, digits: int) -> str:
    """With so many digits after the point, or two that count where these were all zeros."""
    return f"{value:.2g}" if 0 < abs(value) < 0.5 * 10**-digits else f"{value:.{digits}f}"


@app.command()
def features(
    data: Annotated[str, typer.Argument(help="Images with class labels, such as digits or mnist10k.")],
    seed: Seed = 0,
    steps: Annotated[int | None, typer.Option(help="Of 128 images each; default: as the scores use it.")] = None,
    as_json: Json = False,
) -> None:
    """Train the classifier whose features judge samples, and keep it for the scores that ask for it.

    Example: `zoo features mnist10k`
    """
    from benchmarks.commands import train_features

    found = train_features(data, seed, steps, progress=sys.stderr.isatty())
    if as_json:
        return _print_json(found)
    print(
        f"classifier of {found['data']}, seed {found['seed']}: {100 * found['test_accuracy']:.1f}% of "
        f"{found['test_size']:,} test images right, trained on {found['train_size']:,} in {found['seconds']:.1f} s, "
        f"hash {found['hash']}"
    )


@app.command()
def bench(
    suite: Annotated[
        str,
        typer.Argument(
            help="'main' (three minutes), 'posterior', 'density', 'aevb', 'published', 'anomalies', 'adversarial' or "
            "'speed'."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for results and report; a killed run continues.")],
    select: Annotated[
        list[str] | None,
        typer.Option("--select", help="Only cells whose suite/program/method/data contains this (or this glob)."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds, instead of the suite's own number.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Cells at a time, one thread each; default: one a core.")] = None,
    device: Device = "cpu",
    only: Annotated[
        str | None, typer.Option(help="speed: names of workloads, separated by commas, such as eight-schools,vae-128.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="speed: a look in a few minutes.")] = False,
    threads: Annotated[int | None, typer.Option(help="speed: of everyone; default: one a core.")] = None,
    as_json: Json = False,
) -> None:
    """Run a suite of comparisons; print the table and write the page.

    Example: `zoo bench main --out runs/main`, `zoo bench posterior --select vae --seeds 1 --out runs/vae`,
    `zoo bench speed --only eight-schools,vae-128 --quick --out runs/speed`
    """
    from benchmarks.commands import check_bench_options

    check_bench_options(
        suite, {"select": select, "seeds": seeds, "jobs": jobs}, {"only": only, "quick": quick, "threads": threads}
    )
    if suite == "speed":
        from benchmarks.speed.run import run_speed

        run_speed(out, only, quick, device, threads, progress=sys.stderr.isatty())
        return _report(out, as_json)
    from benchmarks.run import run_suite
    from benchmarks.suites import get_suite

    run_suite(get_suite(suite), out, tuple(select or ()), seeds, jobs, device, sys.stderr.isatty())
    _report(out, as_json)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="What `zoo bench` wrote.")],
    as_json: Json = False,
) -> None:
    """Make the table, plots and page of a results folder again.

    Example: `zoo report runs/main`
    """
    _report(folder, as_json)


def _report(folder: Path, as_json: bool) -> None:
    from benchmarks.report import document, page
    from benchmarks.speed import report as speed

    is_speed = (folder / "speed").is_dir()
    report = speed.build(folder) if is_speed else page.build(folder)
    written = document.write(report, folder)
    if as_json:
        rows = {"records": speed.read_records(folder)} if is_speed else {"rows": page.rows_as_json(folder)}
        return _print_json({"page": str(written), **rows})
    document.print_report(report, Console())
    print(f"table: {folder / 'report.md'}\npage:  {written.resolve()}")


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return "/".join(f"{v:,}" for v in value.values())
    return escape(_shape(value) if isinstance(value, list) else str(value))


def _shape(shape: list[int]) -> str:
    return "x".join(map(str, shape)) or "one number"


def _options(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={json.dumps(value, default=str)}" for name, value in options.items()) or "defaults"


if __name__ == "__main__":
    main()
