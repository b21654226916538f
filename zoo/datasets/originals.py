"""Readers of the public originals, one for each format; each gives the arrays that our compact conversion holds.

The files are checked by their sha256 before they get here, so a reader need not doubt their form.
"""

from __future__ import annotations

import gzip
import json
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.datasets.splits import SPLITS, stratified_rows
from zoo.process import guest

__all__ = ["debd", "digits_json", "frey_pickle", "idx", "jsb_json", "olivetti_mat", "zipped_json"]

Array = np.ndarray[Any, Any]

LOWEST_NOTE = 21  # MIDI number of a piano's lowest key


def idx(path: Path) -> Array:
    """MNIST's own format, gzipped: two zero bytes, the type (8: uint8), the number of sizes, the sizes, the values."""
    raw = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def debd(paths: Sequence[Path]) -> dict[str, Array]:
    """The binary benchmark of 20 sets: comma-separated 0/1, one file a split (train, valid, test)."""
    arrays = (np.loadtxt(path, delimiter=",", dtype=np.uint8) for path in paths)
    return dict(zip(SPLITS, arrays, strict=True))


def jsb_json(path: Path) -> dict[str, Array]:
    """Chorales as lists of MIDI notes by time step -> all rolls after one another (steps, 88), and their lengths."""
    found = {}
    for split, chorales in json.loads(path.read_text()).items():
        steps = [notes for chorale in chorales for notes in chorale]
        roll = np.zeros((len(steps), 88), np.uint8)
        for row, notes in zip(roll, steps, strict=True):
            row[np.array(notes, int) - LOWEST_NOTE] = 1
        found[f"{split}_roll"] = roll
        found[f"{split}_lengths"] = np.array([len(chorale) for chorale in chorales], np.int32)
    return found


def frey_pickle(path: Path) -> dict[str, Array]:
    """A Python 2 pickle of a list with one byte array (1965, 560)."""
    with path.open("rb") as file:
        (images,) = _ArrayUnpickler(file, encoding="latin1").load()
    return {"images": images.reshape(-1, 28, 20)}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            # The module's old name warns in NumPy 2; any array gives its constructor away.
            return np.empty(0).__reduce__()[0]
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")


def digits_json(paths: Sequence[Path]) -> dict[str, Array]:
    """One JSON file a digit, pixels in [0, 1] rounded to three decimals -> bytes, labels and a stratified split."""
    pixels = [np.array(json.loads(path.read_text())["data"]).reshape(-1, 28, 28) for path in paths]
    images = np.rint(255 * np.concatenate(pixels)).astype(np.uint8)
    labels = np.repeat(np.arange(len(pixels), dtype=np.uint8), [len(digit) for digit in pixels])
    return {"images": images, "labels": labels} | stratified_rows(labels, held=1000)


def olivetti_mat(path: Path) -> dict[str, Array]:
    """Sam Roweis's MATLAB file: a face a column of `faces`, (4096, 400), its pixels column by column; ten of a person
    follow each other."""
    faces = guest("scipy.io").loadmat(path)["faces"].T
    images = np.rint(faces).astype(np.uint8).reshape(-1, 64, 64).transpose(0, 2, 1)
    return {"images": images, "people": np.arange(len(images), dtype=np.uint8) // 10}


def zipped_json(path: Path) -> Any:
    """The one JSON document in a zip archive (posteriordb)."""
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(archive.namelist()[0]))
