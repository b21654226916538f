"""Problems whose program is trained first: the VAE with two latents on digits, whose posterior a grid gives exactly.

The decoder is trained once for each seed by SVI and kept beside the results; every method then gets the same decoder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from benchmarks.targets import Target
from inference import fit
from inference.guides.grid import GridGuide
from zoo import catalogue, datasets, folders
from zoo.datasets import Data
from zoo.program import Program

__all__ = ["TRAINED", "keep", "load", "place"]

TRAINED: dict[str, Mapping[str, Any]] = {
    "vae-digits": {"program": "vae", "data": "digits-binary", "preset": "plane"},
}
"""Name -> program, data and the preset it is trained by."""

EXAMPLES = 20
GRID_POINTS = 100


def load(name: str, seed: int, folder: Path, **fit_options: Any) -> tuple[Target, Data]:
    """The trained program as a target over the first test examples, and the training data.

    Args:
        name: A key of TRAINED.
        seed: Of the training.
        folder: Where trained programs are kept.
        fit_options: Options of the training that win over the preset's.
    """
    kept, dataset = keep(name, seed, folder, **fit_options), datasets.load(TRAINED[name]["data"])

    def build() -> Program:
        return catalogue.load(kept)

    data = dataset.test.rows(slice(0, EXAMPLES))
    guide = GridGuide(build(), GRID_POINTS)
    grid = guide.grid(*data)
    what = f"Latent position of {EXAMPLES} test digits under a VAE whose decoder was trained on {dataset.name}."
    target = Target(
        name, what, "grid", program=build, data=data, log_evidence=grid.log_evidence, posterior=guide,
        mean={"z": grid.mean}, sd={"z": grid.sd},
    )  # fmt: skip
    return target, dataset.train


def keep(name: str, seed: int, folder: Path, **fit_options: Any) -> Path:
    """The folder in which the trained program is kept; trains it if it is not there. See `load`."""
    kept, spec = place(name, seed, folder, **fit_options), TRAINED[name]
    kept.parent.mkdir(parents=True, exist_ok=True)
    # Another worker may be training the same one; a folder appears only when it is whole.
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            dataset = datasets.load(spec["data"])
            found = fit(spec["program"], dataset, preset=spec["preset"], seed=seed, device="cpu", **fit_options)
            temporary = kept.with_name(f"{kept.name}.part")
            catalogue.save(found.program, temporary)
            os.replace(temporary, kept)
    return kept


def place(name: str, seed: int, folder: Path, **fit_options: Any) -> Path:
    """Where `keep` keeps it; another default dtype makes another program."""
    said = [dict(TRAINED[name]), fit_options, seed, str(torch.get_default_dtype()), folders.FORMAT]
    declared = json.dumps(said, sort_keys=True)
    return folder / "programs" / f"{name}-{seed}-{hashlib.sha256(declared.encode()).hexdigest()[:8]}"
