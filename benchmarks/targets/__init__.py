"""The truth set: problems whose posterior *and* evidence are known exactly, for tests, for suites and for others.

from benchmarks import targets
target = targets.load("eight-schools")
target.log_evidence, target.mean["mu"], target.draw(1000)["eta"]
targets.export("truth")          # JSON and npz files, which need nothing of this project to be read

Beside them stand the posteriors of posteriordb (`REFERENCES`), 'posteriordb/arK-arK' say, of which there are draws and
no evidence; `benchmarks.targets.asked` finds the truth for any other program.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.targets import conjugate, hierarchical, local, mixture, posteriordb
from benchmarks.targets.files import Stored, export, read
from benchmarks.targets.target import Reference, Target, Truth
from zoo.errors import UnknownNameError

__all__ = ["REFERENCES", "TARGETS", "Reference", "Stored", "Target", "Truth", "export", "load", "names", "read"]

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

REFERENCES: dict[str, Callable[[], Reference]] = {
    f"posteriordb/{name}": partial(posteriordb.load, name) for name in posteriordb.PROGRAMS
}
"""Name -> function that builds the reference, from files (`ZOO_DATA` or the network)."""


def names() -> list[str]:
    """All targets that are exact; references are the keys of `REFERENCES`."""
    return list(TARGETS)


def load(name: str) -> Truth:
    """A target or a reference by name, in torch's default dtype (use float64 where digits count).

    Raises: UnknownNameError, naming the nearest; DatasetError when its data cannot be read.
    """
    known = {**TARGETS, **REFERENCES}
    if name not in known:
        raise UnknownNameError("target", name, known)
    return known[name]()
