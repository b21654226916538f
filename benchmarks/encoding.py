"""What `zoo encode` writes: the codes of data by a saved fit; and how rows of numbers are written."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inference.fitted import Fit
from zoo import catalogue, datasets
from zoo.errors import OptionError

__all__ = ["encode_examples", "write_rows"]


def encode_examples(
    folder: Path,
    out: Path,
    data: str | None = None,
    split: str = "test",
    *,
    seed: int = 0,
    device: str = "cpu",
    trust_code: bool = False,
) -> dict[str, Any]:
    """Writes the codes of a split, a row for each example: numbers (N, d) as .npy, or as .csv under a header.

    Args:
        folder: What `zoo fit` wrote.
        out: A .npy or .csv file.
        data: A name or file; None is the data it was fitted on.
        split: 'train', 'valid' or 'test'.
        seed, device: See `inference.encoding.encode`.
        trust_code: See `inference.fitted.Fit.load`.

    Raises: OptionError for another kind of file; what `Fit.encode` raises.
    """
    if out.suffix not in (".npy", ".csv"):
        raise OptionError(f"Cannot write codes to {out.name!r}; give a .npy or a .csv file.")
    found = Fit.load(folder, device, trust_code=trust_code)
    name = found.data if data is None else datasets.like(found.data, data)
    codes = found.encode(*datasets.load(name).split(split), seed=seed).cpu().numpy()
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npy":
        np.save(out, codes)
    else:
        write_rows(out, codes, [f"code{i}" for i in range(codes.shape[1])])
    rows, numbers = codes.shape
    program = catalogue.name_of(found.program)
    return {"program": program, "data": name, "split": split, "n": rows, "numbers": numbers, "out": str(out)}


def write_rows(out: Path, rows: np.ndarray, names: Sequence[str]) -> None:
    """Writes rows (N, d) as a .csv under a header of d names."""
    with out.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(names)
        np.savetxt(file, rows, fmt="%.9g", delimiter=",")
