"""The command `zoo tune`."""

# No torch here: `zoo --help` must not wait for it.
from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import printing
from benchmarks.parameters import Binarise, Context, DataOption, Device, Json, Name, Options, Seed, Target

__all__ = ["tune"]


def tune(
    name: Name,
    space: Annotated[
        Path, typer.Option("--space", help="A TOML file: [option] with low, high and perhaps log = true; or values.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the trials; a killed search goes on from it.")],
    data: DataOption = None,
    trials: Annotated[int, typer.Option(help="How many in all; a repeated command adds those that lack.")] = 20,
    method: Annotated[str | None, typer.Option("--method", "-m", help="Default: the preset's.")] = None,
    preset: Annotated[str | None, typer.Option(help="What is not searched, see `zoo show NAME`.")] = None,
    option: Options = None,
    metric: Annotated[
        str | None,
        typer.Option(help="A score of samples, as `zoo score` prints them; default: log p(x), or without one Fréchet."),
    ] = None,
    particles: Annotated[int, typer.Option(help="Importance samples of each example, where they are needed.")] = 200,
    target: Target = None,
    context: Context = None,
    binarise: Binarise = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Search options of program and method, judged on the validation split; keep the best fit.

    Example: `zoo tune vae --data digits-binary --space vae.toml --trials 20 --out runs/tuned`
    """
    from benchmarks.fitting import name_columns, parse_options
    from benchmarks.tuning import Search, read_space
    from benchmarks.tuning import tune as tuned

    search = Search(
        name=name, data=name_columns(data, target, context), method=method, preset=preset,
        options=parse_options(option or []), space=read_space(space), metric=metric, binarise=binarise, seed=seed,
        device=device, particles=particles,
    )  # fmt: skip
    found = tuned(search, out, trials, progress=sys.stderr.isatty())
    if as_json:
        return printing.print_json(found)
    printing.print_trials(found)
