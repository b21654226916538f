"""The translation suite: letters from one face to another, and what else can be asked for and checked.

Translations are mostly judged by eye. Here each test letter has a true counterpart in the other face, so that a made
one can be asked whether it is recognised, and how far it is off. Copying the input and answering with the most similar
training pair are what costs nothing; the same network by L1 alone is what the game must add to; CycleGAN has seen no
pair, and is judged by the same answers as pix2pix, which has seen them all.

Below them stand images of which patches are given, beside the exact answer of a Gaussian; images drawn for captions,
beside the training image of the most similar one; and words for images, beside the most common ones.

To add a translator, name it in `translator`; the face it translates to is the data set.
"""

from __future__ import annotations

from typing import Any

from benchmarks.suite import Grid, MethodSpec, ProgramSpec, Suite
from zoo import catalogue

__all__ = ["SUITE", "TARGETS", "translator", "yardstick"]

METRICS = (
    "recognition", "pixel_error", "attribute_accuracy", "frechet_grey", "frechet", "precision", "recall", "diversity",
    "collapsed", "saturated", "parameters", "seconds", "gradient_evaluations",
)  # fmt: skip
TARGETS = ("glyphs-sans-to-serif", "glyphs-sans-to-bold-serif")


def translator(
    data: str, name: str, label: str, method: str | None = None, *, seeds: int = 3, **fit: Any
) -> Grid:  # fmt: skip
    """A program by its preset 'small', with changes to the fit; `method` is what tables call that."""
    preset = catalogue.get(name).presets["small"]
    spec = MethodSpec(method or preset.method.upper(), preset.method, {**preset.fit, **fit})
    program = ProgramSpec(name, dict(preset.program), label)
    return Grid("samples", (program,), (spec,), metrics=METRICS, data=(data,), split="test", seeds=seeds)


def yardstick(data: str, name: str, label: str) -> Grid:
    """A translator that learns nothing."""
    spec, method = ProgramSpec(name, {}, label), MethodSpec("none", "none")
    return Grid("samples", (spec,), (method,), metrics=METRICS, data=(data,), split="test", seeds=1)


COMPLETED = (
    "completion_rmse", "completion_crps", "completion_spread", "completion_frechet", "kept", "collapsed", "saturated",
    "parameters", "seconds",
)  # fmt: skip
CAPTIONED = ("retrieval", "diversity", "collapsed", "saturated", "parameters", "seconds")
TAGGED = ("tag_precision", "tag_map", "tag_lists", "collapsed", "saturated", "parameters", "seconds")


def asked(kind: str, data: str, name: str, label: str, metrics: tuple[str, ...], *yardsticks: str) -> list[Grid]:
    """A program by its preset 'small', and the yardsticks of its kind of cell."""
    preset = catalogue.get(name).presets["small"]
    method = MethodSpec(preset.method.upper(), preset.method, dict(preset.fit))
    given = ProgramSpec(name, dict(preset.program), label)
    none = MethodSpec("none", "none")
    beside = tuple(ProgramSpec(each, {}, each.replace("-", " ")) for each in yardsticks)
    return [
        Grid(kind, (given,), (method,), metrics=metrics, data=(data,), split="test"),
        Grid(kind, beside, (none,), metrics=metrics, data=(data,), split="test", seeds=1),
    ]


TOLD = ("real-images", "nearest-caption")
FACES = ("mean-image", "nearest-image", "ppca-mean", "ppca-draws")

SUITE = Suite(
    "translation",
    "Generators that are given something",
    "Is what was asked for there: the letter in another face, the rest of an image, what a caption says, its words?",
    grids=(
        translator("glyphs-attributes", "stargan", "StarGAN"),
        *(
            grid
            for data in TARGETS
            for grid in (
                yardstick(data, "copying", "copying"),
                yardstick(data, "nearest-pair", "nearest training pair"),
                translator(data, "pix2pix", "pix2pix"),
                translator(data, "pix2pix", "the same U-Net", "L1 alone", adversarial=0.0),
                translator(f"{data}-unpaired", "cyclegan", "CycleGAN, no pairs"),
            )
        ),
        *asked("completion", "freyfaces", "puzzle-gan", "puzzle GAN", COMPLETED, *FACES),
        *asked("completion", "olivetti-32", "puzzle-gan", "puzzle GAN", COMPLETED, *FACES),
        *(
            grid
            for data in ("glyphs-captions", "glyphs-combinations")
            for grid in asked("caption", data, "text2image", "text to image", CAPTIONED, *TOLD)
        ),
        *asked("tags", "glyphs-tags", "tag-gan", "tag GAN", TAGGED, "common-words", "multi-label"),
    ),
)
