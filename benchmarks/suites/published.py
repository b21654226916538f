"""The suite of published numbers: programs with exact densities on the binary sets that papers print tables of.

DNA and Mushrooms are the tables of NADE and MADE, NLTCS and Plants two of the twenty sets of the tree and sum-product
literature, the chorales are counted per time step. `benchmarks.report.published` has the papers' numbers, how sure we
are of each, and sets them beside ours. A further file of `ZOO_DATA/debd` (arrays train, valid and test) gets rows of
its own.

Options are chosen on the validation split. They stand in TUNED, or in the preset of the program that it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.suite import Grid, MethodSpec, ProgramSpec, Suite
from zoo import catalogue
from zoo.datasets.registry import REGISTRY
from zoo.datasets.sources import data_folder

__all__ = ["FAMILIES", "SUITE", "TUNED", "further", "row"]

SUITE_NAME = "published"
METRICS = ("log_likelihood", "bits_per_dim", "parameters", "seconds", "gradient_evaluations")
PARTICLES = 1000

FAMILIES: dict[str, tuple[str, str]] = {
    "independent": ("independent", "EM"),
    "Markov chain": ("markov-chain", "EM"),
    "Chow-Liu": ("chow-liu", "EM"),
    "mixture of Bernoullis": ("bernoulli-mixture", "EM"),
    "HMM": ("hmm", "EM"),
    "FVSBN": ("fvsbn", "SVI"),
    "NADE": ("nade", "SVI"),
    "EoNADE": ("eonade", "SVI"),
    "MADE": ("made", "SVI"),
    "MADE, mask sampling": ("made", "SVI"),
    "VAE": ("vae", "SVI"),
    "RBM": ("rbm", "CD"),
    "DMM": ("dmm", "SVI"),
}
"""Row -> name in the catalogue, method. An exact density, except for VAE and DMM, which are scored by bounds: IWAE, and
of the DMM the ELBO, which is what its papers print. The RBM has 23 hidden units, as the published one, so that its
constant is the sum over all their states."""
ELBO = frozenset({"DMM"})
"""Rows whose bound has one draw of the guide for each example."""

Options = Mapping[str, Any]
NETWORK: dict[str, Any] = {"epochs": 200, "batch_size": 100, "lr": 2e-3, "patience": 10}
MASKS: dict[str, Any] = {"optimizer": "sgd", "decay": "constant", "batch_size": 100}
PERSISTENT: dict[str, Any] = {"chains": "persistent", "sweeps": 10, "lr": 0.01}
ADAMW: dict[str, Any] = {"optimizer": "adamw", "batch_size": 100}
CLIMB: dict[str, Any] = {"iterations": 300}
SEVERAL: dict[str, Any] = {**CLIMB, "restarts": 5}


def preset(name: str, which: str) -> tuple[Options, Options]:
    """Options that the program itself keeps, as a preset named after the data."""
    chosen = catalogue.get(name).presets[which]
    return chosen.program, chosen.fit


TUNED: dict[str, dict[str, tuple[Options, Options]]] = {
    # data: row: (options of the program, options of the method)
    "dna": {
        "independent": ({}, {}),
        "RBM": ({"hidden": 23}, {**PERSISTENT, "epochs": 150, "batch_size": 100}),
        "mixture of Bernoullis": ({"components": 14, "smoothing": 1.0}, SEVERAL),
        "Chow-Liu": ({"smoothing": 0.1}, {}),
        "FVSBN": preset("fvsbn", "dna"),
        "NADE": preset("nade", "dna"),
        "EoNADE": (
            {"hidden": [500], "orders": 16, "input_mask": False, "activation": "tanh"},
            {**ADAMW, "epochs": 150, "lr": 3e-3, "weight_decay": 0.12, "validate_every": 600, "patience": 4},
        ),
        "MADE": (
            {"hidden": [500], "direct": True, "activation": "tanh"},
            {**MASKS, "epochs": 150, "lr": 0.1, "weight_decay": 0.01, "validate_every": 50, "patience": 6},
        ),
        "MADE, mask sampling": (
            {"hidden": [500], "masks": {"count": 300, "shuffle": True}, "direct": True},
            {**MASKS, "epochs": 200, "lr": 0.6, "validate_every": 320, "patience": 3},
        ),
    },
    "mushrooms": {
        "independent": ({}, {}),
        "RBM": ({"hidden": 23}, {**PERSISTENT, "epochs": 600, "batch_size": 50}),
        "mixture of Bernoullis": ({"components": 80, "smoothing": 0.003}, SEVERAL),
        "Chow-Liu": ({"smoothing": 0.1}, {}),
        "FVSBN": preset("fvsbn", "mushrooms"),
        "NADE": preset("nade", "mushrooms"),
        "EoNADE": (
            {"hidden": [500], "orders": 16},
            {**ADAMW, "epochs": 1200, "lr": 5e-3, "weight_decay": 0.0, "validate_every": 12_000, "patience": 2},
        ),
        "MADE": (
            {"hidden": [500], "direct": True, "activation": "tanh"},
            {**MASKS, "decay": "cosine", "epochs": 150, "lr": 0.5, "validate_every": 100, "patience": 4},
        ),
        "MADE, mask sampling": (
            {"hidden": [500], "masks": 2, "direct": True, "activation": "tanh"},
            {**MASKS, "decay": "cosine", "epochs": 300, "lr": 0.5, "validate_every": 200, "patience": 4},
        ),
    },
    "nltcs": {
        "independent": ({}, {}),
        "Markov chain": ({}, {}),
        "Chow-Liu": ({"smoothing": 0.1}, {}),
        "mixture of Bernoullis": ({"components": 80, "smoothing": 1.0}, CLIMB),
        "NADE": ({"hidden": 100}, NETWORK),
        "MADE": ({"hidden": [200]}, NETWORK),
        "VAE": ({"latent_dim": 8, "hidden": [100]}, NETWORK),
    },
    "plants": {
        "independent": ({}, {}),
        "Markov chain": ({}, {}),
        "Chow-Liu": ({"smoothing": 0.1}, {}),
        "mixture of Bernoullis": ({"components": 200, "smoothing": 0.1}, CLIMB),
        "NADE": ({"hidden": 100}, NETWORK),
        "MADE": ({"hidden": [200]}, NETWORK),
        "VAE": ({"latent_dim": 8, "hidden": [100]}, NETWORK),
    },
    "jsb-frames": {
        "independent": ({}, {}),
        "NADE": ({"hidden": 100}, NETWORK),
    },
    "jsb": {
        "HMM": ({"states": 96, "smoothing": 0.3, "lengths": True}, {"iterations": 60}),
        "DMM": preset("dmm", "chorales"),
    },
}  # fmt: skip
"""The options of every cell of the suite."""

UNTUNED: dict[str, tuple[Options, Options]] = {
    "independent": ({}, {}),
    "Chow-Liu": ({}, {}),
    "mixture of Bernoullis": ({"components": 50}, CLIMB),
    "MADE": ({"hidden": [200]}, NETWORK),
}
"""Rows of data sets without a published number here, in sizes that fit most."""


def row(data: str, label: str, options: Options, fit: Options, seeds: int = 3) -> Grid:
    """One program by the method that fits it."""
    name, method = FAMILIES[label]
    metrics = tuple(m for m in METRICS if (data, m) != ("jsb", "bits_per_dim"))  # its dimensions are mostly padding
    spec, program = MethodSpec(method, method.lower(), fit), ProgramSpec(name, options, label)
    evaluation = {"particles": 1 if label in ELBO else PARTICLES}
    return Grid("density", (program,), (spec,), metrics=metrics, data=(data,), seeds=seeds, evaluation=evaluation)


def further() -> list[str]:
    """Names ('debd/kdd') of the files in `ZOO_DATA/debd` that are no data set of the registry."""
    folder = data_folder()
    found = sorted((folder / "debd").glob("*.npz")) if folder else []
    return [f"debd/{path.stem}" for path in found if path.stem not in REGISTRY]


SUITE = Suite(
    SUITE_NAME,
    "Exact densities beside published numbers",
    "Do the programs of the papers reach the papers' numbers?",
    grids=(
        *(row(data, label, *options) for data, rows in TUNED.items() for label, options in rows.items()),
        *(row(data, label, *options) for data in further() for label, options in UNTUNED.items()),
    ),
)
