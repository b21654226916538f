"""The command line: `zoo list | show | fit | compare | sample | translate | encode | score | features | ...`.

Results go to standard output (as JSON with --json), progress to standard error. A mistake in the input gives one line
on standard error and exit code 2; what the machine refuses (a full disk, no memory) one line and exit code 1, as does a
fault of ours; Ctrl-C 130. ZOO_DEBUG=1 shows where an error was raised.
"""

# The modules that do the work are imported by the commands that need them: `zoo --help` must not wait for torch.
from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import cli_bench, cli_tune, printing
from benchmarks.config import write_config
from benchmarks.ending import ending
from benchmarks.parameters import (
    Binarise,
    Commands,
    Config,
    Context,
    DataOption,
    Device,
    Json,
    Name,
    Options,
    Seed,
    Target,
    TrustCode,
    print_version,
)

__all__ = ["app", "main"]

app = typer.Typer(
    name="zoo",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: list[str] | None = None) -> None:
    """The console script `zoo`."""
    with ending():
        app(arguments, prog_name="zoo")


@app.callback()
def all_commands(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=print_version, help="Print it and exit.")
    ] = False,
) -> None:
    """Generative models as Pyro programs; exact, variational and adversarial inference side by side.

    Start with `zoo list`, `zoo fit vae --out runs/vae`, or `zoo bench main --out runs/main`.
    """


@app.command("list")
def list_(
    datasets: Annotated[bool, typer.Option("--datasets", help="List the data sets instead of the programs.")] = False,
    as_json: Json = False,
) -> None:
    """List the programs of the zoo, or the data sets.

    Example: `zoo list --datasets`
    """
    from benchmarks import index

    found = index.dataset_list() if datasets else index.program_list()
    if as_json:
        return printing.print_json(found)
    printing.print_list(found, datasets)


@app.command()
def show(
    name: Name,
    data: DataOption = None,
    as_json: Json = False,
) -> None:
    """Print the card of a program: sites, support, parameters, what it promises, which methods can fit it.

    Example: `zoo show hmm`
    """
    from benchmarks import index

    card = index.card(name, data)
    if as_json:
        return printing.print_json(card)
    printing.print_card(card)


@app.command()
def fit(
    ctx: typer.Context,
    name: Name,
    out: Annotated[Path, typer.Option("--out", help="Folder for the fit; the same fit, killed, continues from it.")],
    data: DataOption = None,
    method: Annotated[
        str | None, typer.Option("--method", "-m", help="See `zoo show NAME`; default: preset's.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="A named size and budget, see `zoo show NAME`.")] = None,
    option: Options = None,
    target: Target = None,
    context: Context = None,
    binarise: Binarise = None,
    seed: Seed = 0,
    device: Device = "auto",
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what a killed fit left in the folder.")
    ] = False,
    log: Annotated[
        list[str] | None, typer.Option("--log", help="'tensorboard' (into the folder), 'wandb', 'trackio'; repeatable.")
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Fit a program to data and save it: a checkpoint that loads again, history.png, and config.toml, which repeats it.

    Example: `zoo fit vae --data digits-binary --out runs/vae -o latent_dim=2 -o epochs=50`,
    `zoo fit --config runs/vae/config.toml --out runs/again --log tensorboard`,
    `torchrun --nproc-per-node 2 -m benchmarks.cli fit vae --out runs/vae` (two processes share each minibatch)
    """
    from benchmarks.fitting import fit_program, name_columns, parse_options, repeatable
    from inference.processes import joined

    show_bar = sys.stderr.isatty()
    with joined(device) as leads:
        columns, options = name_columns(data, target, context), parse_options(option or [])
        found = fit_program(
            name, columns, out, method, preset, options, binarise, seed, device, show_bar, restart, log=log or ()
        )
    if not leads:
        return
    write_config(ctx, out, **repeatable(name, data, method, preset, context))
    if as_json:
        return printing.print_json(found)
    printing.print_fit(found, out)


app.command()(cli_tune.tune)


@app.command()
def compare(
    name: Annotated[str, typer.Argument(help="A name of `zoo list`, or your own code, 'file.py:model'.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for report.html, report.md and plots.")],
    data: DataOption = None,
    methods: Annotated[
        str | None,
        typer.Option("--methods", "-m", help="Such as svi,svi:normal,nuts,exact; default: all that can."),
    ] = None,
    truth: Annotated[
        str, typer.Option(help="'exact', 'nuts', or 'auto': exact where there is a way, else NUTS.")
    ] = "auto",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="name=value, of every method that has it; may be repeated."),
    ] = None,
    target: Target = None,
    context: Context = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compare methods on one posterior: a table, and pictures of where and how each is wrong.

    Example: `zoo compare eight-schools --out runs/schools`, `zoo compare bioassay.py:model --data bioassay.csv
    --methods svi,nuts -o steps=1000 --out runs/bioassay`
    """
    from benchmarks.comparing import compare as compared
    from benchmarks.fitting import name_columns, parse_options
    from benchmarks.report import document
    from zoo import folders

    data, options = name_columns(data, target, context), parse_options(option or [])
    asked, bar = methods.split(",") if methods else None, sys.stderr.isatty()
    with folders.held(out):
        found = compared(name, data, asked, truth=truth, options=options, seed=seed, progress=bar)
        written = found.write(out)
    if as_json:
        return printing.print_json({"page": str(written), **found.facts()})
    document.print_report(found.report, Console())
    print(f"table: {out / 'report.md'}\npage:  {written.resolve()}")


@app.command()
def sample(
    folder: Annotated[Path, typer.Argument(help="What `zoo fit` wrote.")],
    out: Annotated[Path, typer.Option("--out", help="A .png (images), .csv (a table), .wav (sounds) or .npz file.")],
    n: Annotated[int, typer.Option("-n", help="How many.")] = 64,
    data: DataOption = None,
    context: Annotated[
        str | None,
        typer.Option(help="What is asked for: a class 'cats', attributes 'bold serif', a caption, an image file."),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", help="Of a puzzle, a box top,left,height,width that is given; may be repeated."),
    ] = None,
    prior: Annotated[
        bool, typer.Option("--prior", help="Global latents from their prior, not their posterior given the data.")
    ] = False,
    seed: Seed = 0,
    trust_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """Draw examples from a fitted program: what it expects next, after its training data.

    Example: `zoo sample runs/vae -n 64 --out samples.png`, `zoo sample runs/cgan --context 3 --out threes.png`
    """
    from benchmarks.commands import sample_program

    found = sample_program(folder, n, out, seed, data, trust_code, prior=prior, context=context, keep=keep or ())
    if as_json:
        return printing.print_json(found)
    print(
        f"{found['n']} samples of {found['program']}, each {printing.shape(found['shape'])}, from {found['from']}, in "
        f"{found['out']}"
    )


@app.command()
def translate(
    folder: Annotated[Path, typer.Argument(help="What `zoo fit` wrote.")],
    source: Annotated[str, typer.Argument(help="An image, a folder of images, or a data set of image pairs.")],
    out: Annotated[Path, typer.Option("--out", help="A .png (before and after), an .npz, or a folder of images.")],
    to: Annotated[str | None, typer.Option(help="Attributes to change to, 'bold serif', or the class.")] = None,
    back: Annotated[
        bool, typer.Option("--back", help="The other way, from the target's look to the source's.")
    ] = False,
    n: Annotated[int, typer.Option("-n", help="Images of a data set, at most.")] = 24,
    trust_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """Translate images by a fitted translator: input beside output, and beside the true answer where it is known.

    Example: `zoo translate runs/pix2pix glyphs-sans-to-serif --out translated.png`
    """
    from benchmarks.asking import translate_images

    found = translate_images(folder, source, out, to=to, back=back, n=n, trust_code=trust_code)
    if as_json:
        return printing.print_json(found)
    print(f"{found['n']} image{'s' * (found['n'] != 1)} of {found['from']} by {found['program']}, in {found['out']}")


@app.command()
def encode(
    folder: Annotated[Path, typer.Argument(help="What `zoo fit` wrote.")],
    out: Annotated[Path, typer.Option("--out", help="A .npy or a .csv file, a row for each example.")],
    data: DataOption = None,
    split: Annotated[str, typer.Option(help="'train', 'valid' or 'test'.")] = "test",
    seed: Seed = 0,
    device: Device = "cpu",
    trust_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """Write the codes of examples: what a fitted program makes of each, as a vector.

    Example: `zoo encode runs/vae --data digits-binary --split train --out codes.npy`
    """
    from benchmarks.encoding import encode_examples

    found = encode_examples(folder, out, data, split, seed=seed, device=device, trust_code=trust_code)
    if as_json:
        return printing.print_json(found)
    print(
        f"codes of {found['n']} examples of {found['data']} ({found['split']}) by {found['program']}, "
        f"{found['numbers']} numbers each, in {found['out']}"
    )


@app.command()
def score(
    folder: Annotated[Path, typer.Argument(help="What `zoo fit` wrote.")],
    data: DataOption = None,
    split: Annotated[str, typer.Option(help="'train', 'valid' or 'test'.")] = "test",
    how: Annotated[str, typer.Option(help="'auto' (the best the program allows), or one of the estimators.")] = "auto",
    particles: Annotated[int, typer.Option(help="Importance samples of each example, where they are needed.")] = 1000,
    evidence: Annotated[
        bool, typer.Option("--evidence", help="Of all the data together, without training data (global latents only).")
    ] = False,
    samples: Annotated[
        bool, typer.Option("--samples", help="Judge what it draws as well; a program without a density always is.")
    ] = False,
    n: Annotated[int | None, typer.Option("-n", "--n", help="How many samples; default: as many as data.")] = None,
    binarise: Binarise = None,
    seed: Seed = 0,
    device: Device = "cpu",
    trust_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """Print how well a fitted program predicts data, in nats per example; of a GAN, scores of samples.

    That is log p(x); where latents are global, log p(x | training data), or with --evidence what the prior says.

    Scores of samples stand beside those of real data that are no test data. Images are looked at by a classifier of
    the data, which is trained if it is not in the cache (`zoo features` does that too).

    Example: `zoo score runs/vae --data digits-binary --split test`, `zoo score runs/gan`
    """
    from benchmarks.commands import has_density, judge_program, score_program
    from zoo.errors import OptionError

    scored, judged = None, None
    if has_density(folder, trust_code):
        if n is not None and not samples:
            raise OptionError("-n says how many samples to judge: add --samples.")
        scored = score_program(
            folder, data, split, how, particles, binarise, seed, device, trust_code, evidence=evidence
        )
    elif how != "auto" or evidence:
        asked = "--evidence" if evidence else f"--how {how}"
        raise OptionError(f"This program has no density for {asked}: leave it out, and its samples are judged.")
    if samples or scored is None:
        judged = judge_program(
            folder, data, split, n, binarise=binarise, seed=seed, device=device, progress=sys.stderr.isatty(),
            trust_code=trust_code,
        )  # fmt: skip
    if as_json:
        return printing.print_json({**scored, "judged": judged} if scored and judged else scored or judged)
    if scored is not None:
        printing.print_likelihood(scored)
    if judged is not None:
        printing.print_judgement(judged)


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
        return printing.print_json(found)
    print(
        f"classifier of {found['data']}, seed {found['seed']}: {100 * found['test_accuracy']:.1f}% of "
        f"{found['test_size']:,} test images right, trained on {found['train_size']:,} in {found['seconds']:.1f} s, "
        f"hash {found['hash']}"
    )


app.command()(cli_bench.bench)
app.command()(cli_bench.report)


if __name__ == "__main__":
    main()
