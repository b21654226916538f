"""The suite of codes: what a program has learnt of an example, asked by others than itself.

Nobody is told classes (but the semi-supervised program, a hundred of them), and a plain classifier reads them from
codes afterwards; the numbers of the example themselves are the reference. The conditional program is given the class,
so that its codes need not keep it. Letters have factors that are known, and the question is whether one number of a
code has each to itself.

Bits and grey digits are the same test images. The rows of 8x8 digits are a look in a few minutes:
`zoo bench representation --select digits`.
"""

from __future__ import annotations

from typing import Any

from benchmarks.suite import Grid, MethodSpec, ProgramSpec, Suite
from zoo import catalogue

__all__ = ["SUITE"]

PROBES = ("linear_probe", "few_label_probe", "neighbour_probe")
COST = ("code_size", "parameters", "seconds")
BITS, GREY, LETTERS = "mnist10k-binary", "mnist10k", "glyphs"
STOP: dict[str, Any] = {"epochs": 20, "batch_size": 100, "lr": 3e-3}


def row(
    data: str,
    name: str,
    label: str,
    program: dict[str, Any] | None = None,
    preset: str = "small",
    method: str | None = None,
    evaluation: dict[str, Any] | None = None,
    **fit: Any,
) -> Grid:
    """One program by one of its presets, with changes to program, method and fit."""
    chosen = catalogue.get(name).preset(preset).merged(program, method, fit)
    spec = MethodSpec(chosen.method.upper(), chosen.method, chosen.fit)
    return _grid(data, ProgramSpec(name, chosen.program, label), spec, 3, evaluation)


def yardstick(data: str, name: str, label: str, **evaluation: Any) -> Grid:
    """Codes that no program of ours has made; nothing of them is random but the choice of few labels."""
    return _grid(data, ProgramSpec(name, {}, label), MethodSpec("none", "none"), 3, evaluation)


def _grid(data: str, program: ProgramSpec, method: MethodSpec, seeds: int, evaluation: dict[str, Any] | None) -> Grid:
    metrics = (*PROBES, "mig", "mig_chance", *COST) if data.startswith(LETTERS) else (*PROBES, *COST)
    options = {"map": "tsne" if "10k" in data else "pca", **(evaluation or {})}
    return Grid(
        "codes", (program,), (method,), metrics=metrics, data=(data,), split="test", seeds=seeds, evaluation=options
    )


def latents(k: int, *hidden: int) -> dict[str, Any]:
    """Of a program with k latents."""
    return {"latent_dim": k, "hidden": list(hidden)} if hidden else {"latent_dim": k}


MNIST = (
    yardstick(BITS, "raw-numbers", "raw pixels, bits"),
    yardstick(GREY, "raw-numbers", "raw pixels, grey"),
    yardstick(BITS, "pca", "PCA of 16", components=16),
    row(BITS, "ppca", "PPCA of 16", latents(16), method="em"),
    row(BITS, "bernoulli-mixture", "mixture of 100 Bernoullis", {"components": 100}),
    row(BITS, "hmm", "HMM of rows, 16 states", {"states": 16}, iterations=30),
    row(BITS, "vae", "VAE, 16 latents", latents(16, 256), epochs=40, batch_size=100, lr=2e-3),
    row(BITS, "hvae", "hierarchical VAE, 32 and 16 latents"),
    row(BITS, "restoring-vae", "conditional VAE, three quadrants hidden", epochs=20),
    row(f"{BITS}-labelled", "cvae", "conditional VAE, given the class", latents(16, 256), epochs=30, batch_size=100),
    row(f"{BITS}-labelled", "semi-supervised-vae", "M2, 100 labels", evaluation={"labels": 100}, epochs=20),
    row(BITS, "aae", "AAE, 8 latents"),
    row(GREY, "ali", "ALI, 32 latents"),
    row(GREY, "infogan", "InfoGAN's codes"),
    row(BITS, "rbm", "RBM, 128 hidden units", epochs=30),
    row(BITS, "dbm", "DBM, 128 and 64 hidden units", epochs=20),
    row(BITS, "nade", "NADE's hidden layer, 100 units", epochs=8, batch_size=100, lr=2e-3),
    row(BITS, "dequantised-flow", "flow's noise", epochs=10, batch_size=100, lr=1e-3),
)

FAST = (
    yardstick("digits", "raw-numbers", "raw pixels, grey"),
    yardstick("digits-binary", "raw-numbers", "raw pixels, bits"),
    yardstick("digits", "pca", "PCA of 16", components=16),
    row("digits", "ppca", "PPCA of 16", latents(16), method="em"),
    row("digits-binary", "bernoulli-mixture", "mixture of 40 Bernoullis", {"components": 40}),
    row("digits-binary", "hmm", "HMM of rows, 16 states", {"states": 16}, iterations=30),
    row("digits-binary", "vae", "VAE, 8 latents", latents(8, 128), epochs=60),
    row("digits-binary", "rbm", "RBM, 128 hidden units", epochs=40),
    row("digits-binary", "nade", "NADE's hidden layer, 100 units", **STOP),
    row("digits", "maf", "flow's noise", steps=1000),
)

FACTORS = (
    yardstick(LETTERS, "factors", "the factors themselves"),
    yardstick(LETTERS, "noise", "noise"),
    yardstick(LETTERS, "raw-numbers", "raw pixels"),
    yardstick(LETTERS, "pca", "PCA of 8", components=8),
    row(LETTERS, "ppca", "PPCA of 8", latents(8), method="em"),
    row(LETTERS, "vae", "VAE, 8 latents", {**latents(8, 256), "likelihood": "normal"}, epochs=20, batch_size=100),
    row(
        LETTERS, "vae", "VAE, 8 latents, total correlation x 6", {**latents(8, 256), "likelihood": "normal"},
        epochs=20, batch_size=100, tc=6.0,
    ),
    row(LETTERS, "ali", "ALI, 8 latents", latents(8)),
    row(LETTERS, "infogan", "InfoGAN's codes", {"categories": 3, "codes": 4}, steps=1500),
)  # fmt: skip

SUITE = Suite(
    "representation",
    "What codes know",
    "Which classes and factors can be read from what programs make of an example?",
    grids=(*MNIST, *FAST, *FACTORS),
)
