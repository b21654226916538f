"""The translation suite: letters from one face to another, where the true answer is known.

Translations are mostly judged by eye. Here each test letter has a true counterpart in the other face, so that a made
one can be asked whether it is recognised, and how far it is off. Copying the input and answering with the most similar
training pair are what costs nothing; the same network by L1 alone is what the game must add to; CycleGAN has seen no
pair, and is judged by the same answers as pix2pix, which has seen them all.

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


SUITE = Suite(
    "translation",
    "Translating letters between faces",
    "Is a translated letter the right one, with pairs to learn from and without?",
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
    ),
)
