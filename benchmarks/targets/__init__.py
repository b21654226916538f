"""The truth set: problems whose posterior *and* evidence are known exactly, for tests, for suites and for others.

from benchmarks import targets
target = targets.load("eight-schools")
target.log_evidence, target.mean["mu"], target.draw(1000)["eta"]
targets.export("truth")          # JSON and npz files, which need nothing of this project to be read
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.targets import conjugate, hierarchical, local, mixture
from benchmarks.targets.files import Stored, export, read
from benchmarks.targets.target import Target
from zoo.errors import UnknownNameError

__all__ = ["TARGETS", "Stored", "Target", "export", "load", "names", "read"]

TARGETS: dict[str, Callable[[], Target]] = {
    "coin": conjugate.coin,
    "horse-kicks": conjugate.horse_kicks,
    "earth-density": conjugate.earth_density,
    "diabetes": conjugate.diabetes,
    "kidiq": conjugate.kidiq,
    "eight-schools": partial(hierarchical.eight_schools, centered=False),
    "eight-schools-centered": partial(hierarchical.eight_schools, centered=True),
    "old-faithful": mixture.old_faithful,
    "iris-species": local.iris_species,
    "casino": local.casino,
    "ppca-digits": local.ppca_digits,
    "banana": local.banana,
    "two-modes": local.two_modes,
}
"""Name -> function that builds the target. 'kidiq' reads a file (`ZOO_DATA` or the network); the others need none."""


def names() -> list[str]:
    """All targets."""
    return list(TARGETS)


def load(name: str) -> Target:
    """A target by name, in torch's default dtype (use float64 where digits count).

    Raises: UnknownNameError, naming the nearest; DatasetError when its data cannot be read.
    """
    if name not in TARGETS:
        raise UnknownNameError("target", name, TARGETS)
    return TARGETS[name]()
