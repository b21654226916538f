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

__all__ = ["TRAINED", "load"]

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
    spec = TRAINED[name]
    dataset = datasets.load(spec["data"])
    said = [dict(spec), fit_options, seed, str(torch.get_default_dtype()), folders.FORMAT]
    declared = json.dumps(said, sort_keys=True)
    kept = folder / "programs" / f"{name}-{seed}-{hashlib.sha256(declared.encode()).hexdigest()[:8]}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    # Another worker may be training the same one; a folder appears only when it is whole.
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            found = fit(spec["program"], dataset, preset=spec["preset"], seed=seed, device="cpu", **fit_options)
            temporary = kept.with_name(f"{kept.name}.part")
            catalogue.save(found.program, temporary)
            os.replace(temporary, kept)

    def build() -> Program:
        return catalogue.load(kept)

    data = dataset.test.rows(slice(0, EXAMPLES))
    guide = GridGuide(build(), GRID_POINTS)
    grid = guide.grid(*data)
    what = f"Latent position of {EXAMPLES} test digits under a VAE whose decoder was trained on {spec['data']}."
    target = Target(
        name, what, "grid", program=build, data=data, log_evidence=grid.log_evidence, posterior=guide,
        mean={"z": grid.mean}, sd={"z": grid.sd},
    )  # fmt: skip
    return target, dataset.train
