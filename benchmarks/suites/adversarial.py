"""The adversarial suite: games beside maximum likelihood, on samples, on modes that can be counted, and on posteriors.

Its last table is its heart: programs whose posterior is known exactly, and every way of approaching it, the exact one,
variational bounds, and games against a critic. All methods of a row learn from the same examples, drawn from the
program itself, so that each one's objective is least at the posterior itself if its family holds it.

Generators see the same images. Most of their presets 'small' take about a minute and a half of one core; codes, labels
and NADE take longer. What each took is in the column of seconds, its steps below the table. To add a generator, name it
in GENERATORS with the changes to its preset 'small'; to add a method for posteriors, a `MethodSpec` to INFERENCE.
"""

from __future__ import annotations

from typing import Any

from benchmarks.cells.samples import REAL_DATA
from benchmarks.suite import Grid, MethodSpec, ProgramSpec, Suite
from benchmarks.suites.posterior import EXACT, avb, svi
from benchmarks.suites.posterior import METRICS as POSTERIOR_METRICS
from zoo import catalogue

__all__ = [
    "AS_MANY",
    "COUNTED",
    "GENERATORS",
    "GROWN",
    "IMAGES",
    "INFERENCE",
    "LETTERS",
    "SPOKEN",
    "SUITE",
    "generator",
    "real_data",
]

IMAGES = (
    "frechet", "frechet_grey", "precision", "recall", "sample_density", "coverage", "mmd", "mmd_p", "c2st_features",
    "class_accuracy", "code_accuracy", "reconstruction", "prior_p", "log_likelihood", "parzen", "ais", "memorisation",
    "diversity", "collapsed", "saturated", "parameters", "seconds", "gradient_evaluations",
)  # fmt: skip
POSTERIOR = (*POSTERIOR_METRICS, "collapsed", "saturated")
COUNTED = ("modes", "good", "mode_kl", "diversity", "collapsed", "saturated", "seconds", "gradient_evaluations")
FEW: dict[str, Any] = {
    "ais_examples": 50, "ais_chains": 8, "ais_steps": 100, "ais_sigmas": (0.1, 0.15, 0.2, 0.3), "particles": 500,
}  # fmt: skip
"""How many there were of each stands beside the estimates."""
QUICK = tuple(metric for metric in IMAGES if metric != "ais")
"""For convolutions, through which annealing takes longer than the fit."""


def generator(
    data: str,
    name: str,
    label: str,
    metrics: tuple[str, ...] = IMAGES,
    program: dict[str, Any] | None = None,
    evaluation: dict[str, Any] | None = None,
    preset_name: str = "small",
    seeds: int = 3,
    **fit: Any,
) -> Grid:
    """One program on one data set, by the method of one of its presets, with changes to program and fit."""
    preset = catalogue.get(name).presets[preset_name]
    options = {**preset.fit, **fit}
    for given, other in (("steps", "epochs"), ("epochs", "steps")):  # the two are one choice
        if given in fit:
            options.pop(other, None)
    method = MethodSpec(preset.method.upper(), preset.method, options)
    spec = ProgramSpec(name, {**preset.program, **(program or {})}, label)
    return Grid(
        "samples",
        (spec,),
        (method,),
        metrics=metrics,
        data=(data,),
        split="test",
        seeds=seeds,
        evaluation={**FEW, **(evaluation or {})},
    )


def real_data(data: str, metrics: tuple[str, ...] = IMAGES, **evaluation: Any) -> Grid:
    """The yardstick: what the scores say of real data that are neither training nor test data."""
    spec, method = ProgramSpec(REAL_DATA, {}, "real data"), MethodSpec("held out", "none")
    options = {**FEW, **evaluation}
    return Grid("samples", (spec,), (method,), metrics=metrics, data=(data,), split="test", seeds=1, evaluation=options)


def posterior(target: str, *methods: MethodSpec, seeds: int = 3, **evaluation: Any) -> Grid:
    """One program with an exact posterior by all methods, which learn from examples that it made itself."""
    return Grid(
        "posterior", (ProgramSpec(target),), methods, metrics=POSTERIOR, data=(target,), split="test", seeds=seeds,
        evaluation={"simulate": 10_000, **evaluation},
    )  # fmt: skip


GREY, BINARY = "mnist10k", "mnist10k-binary"

GENERATORS: tuple[Grid, ...] = (
    real_data(GREY),
    generator(GREY, "gan", "GAN"),
    generator(GREY, "dcgan", "DCGAN", metrics=QUICK),
    generator("mnist10k-labelled", "cgan", "conditional GAN", metrics=QUICK),
    generator(GREY, "infogan", "InfoGAN", metrics=QUICK),
    generator(GREY, "wgan", "WGAN, clipped", metrics=QUICK),
    generator(GREY, "wgan-gp", "WGAN-GP", metrics=QUICK),
    generator(GREY, "sngan", "SNGAN", metrics=QUICK),
    generator(GREY, "ali", "ALI"),
    generator(BINARY, "aae", "AAE, 8 latents"),
    generator(BINARY, "vae", "VAE, 8 latents", program={"hidden": [256, 256], "activation": "relu"}, epochs=300),
    generator(BINARY, "nade", "NADE", program={"hidden": 200}, epochs=20, batch_size=100, lr=2e-3),
)
"""Images: every generator, at its small size, beside programs with a density."""

LETTERS = "glyphs"
AS_MANY = {"samples": 800}
"""Fewer than there are test letters, since there are fewer validation letters to put beside them."""

GROWN: tuple[Grid, ...] = (
    real_data(LETTERS, QUICK, **AS_MANY),
    generator(LETTERS, "progan", "Progressive GAN", QUICK, evaluation=AS_MANY),
    generator(LETTERS, "dcgan", "DCGAN, as many steps", QUICK, evaluation=AS_MANY, steps=3000, batch_size=16),
    generator(LETTERS, "dcgan", "DCGAN, as long", QUICK, evaluation=AS_MANY, steps=15000, batch_size=16),
)
"""Letters at 32x32: growing beside the convolutions it grows, at as many steps of as many images, and at about the same
time."""

TAKES = "spoken_digits-4khz-labelled"
LEVELS = "spoken_digits-4khz-levels-labelled"
HEARD = (
    "class_accuracy", "inception", "frechet", "precision", "recall", "memorisation", "diversity", "collapsed",
    "saturated", "parameters", "seconds",
)  # fmt: skip
SPOKEN: tuple[Grid, ...] = (
    real_data(TAKES, HEARD),
    generator(TAKES, "wavegan", "WaveGAN", HEARD),
    real_data(LEVELS, HEARD),
    generator(LEVELS, "wavenet", "WaveNet, twice as long", HEARD, steps=270, batch_size=2),
)
"""Whole spoken digits, drawn at once or sample by sample, heard by the same classifier."""

PAIRS: dict[str, Any] = {
    "steps": 2000, "regulariser": "r1", "batch_size": 256, "critic_steps": 2, "lr": 5e-3, "critic_lr": 2e-3,
}  # fmt: skip
"""A critic of pairs that is slower and smoother than the guide; with the defaults two islands are found less well."""

INFERENCE: tuple[MethodSpec, ...] = (
    EXACT,
    svi("SVI, own guide", steps=3000, lr=0.01, particles=4),
    avb(steps=1500),
    MethodSpec("AVB, prior contrast", "avb", {"contrast": "prior", "steps": 1500}),
    MethodSpec("AVB, joint contrast", "avb", {"contrast": "joint", "train_program": False, "steps": 2000}),
    MethodSpec("ALI, own guide", "ali", PAIRS),
    MethodSpec("ALI, implicit", "ali", {"guide": "implicit", **PAIRS}),
    MethodSpec("AAE, own guide", "aae", {"steps": 3000}),
    MethodSpec("AAE, implicit", "aae", {"guide": "implicit", "steps": 3000}),
)
"""Ways to a posterior; 'own' is the program's Gaussian guide, 'implicit' turns noise into latents, as AVB's does."""

SUITE = Suite(
    "adversarial",
    "Games beside likelihoods and exact posteriors",
    "What does adversarial training do to samples, to modes and to posteriors?",
    grids=(
        *(posterior(target, *INFERENCE) for target in ("ppca-digits", "banana", "two-modes")),
        *GENERATORS,
        *GROWN,
        *SPOKEN,
        real_data("ring", COUNTED),
        *(
            generator("ring", name, label, COUNTED, preset_name="ring")
            for name, label in (("gan", "GAN"), ("wgan-gp", "WGAN-GP"), ("sngan", "SNGAN"))
        ),
        real_data("stacked-digits", COUNTED),
        generator("stacked-digits", "gan", "GAN", COUNTED),
        generator("stacked-digits", "dcgan", "DCGAN", COUNTED),
        generator("stacked-digits", "wgan-gp", "WGAN-GP", COUNTED),
    ),
)
