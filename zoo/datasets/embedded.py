"""Data sets that need no file: those inside scikit-learn, two small classics, and synthetic ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.datasets.splits import SPLITS, Splits, consecutive, split_rows, stratified_rows
from zoo.process import guest

__all__ = [
    "blobs", "breast_cancer", "circles", "coin", "diabetes", "digits", "eight_schools", "horse_kicks", "iris",
    "moons", "photo_patches", "same",
]  # fmt: skip

Array = np.ndarray[Any, Any]


def same(x: Array, context: Array | None = None) -> Splits:
    """All rows in every split: for small Bayesian data sets, where the question is the posterior given all rows."""
    return Splits(dict.fromkeys(SPLITS, x), {} if context is None else dict.fromkeys(SPLITS, context))


def digits() -> Splits:
    """Handwritten digits 8x8, values 0 to 16."""
    images, labels = guest("sklearn.datasets").load_digits(return_X_y=True)
    rows = stratified_rows(labels, held=250)
    return Splits(_take(images.reshape(-1, 8, 8), rows), labels=_take(labels, rows), scale=16)


def iris() -> Splits:
    """Four measurements of 150 flowers of three species, standardised."""
    x, labels = guest("sklearn.datasets").load_iris(return_X_y=True)
    rows = stratified_rows(labels, held=30)
    return Splits(_take(_standardise(x, rows["train"]), rows), labels=_take(labels, rows))


def diabetes() -> Splits:
    """Disease progression given an intercept and ten covariates, standardised."""
    covariates, target = guest("sklearn.datasets").load_diabetes(return_X_y=True)
    rows = split_rows(len(target))
    design = np.column_stack([np.ones(len(target)), _standardise(covariates, rows["train"])])
    return Splits(_take(_standardise(target, rows["train"]), rows), _take(design, rows))


def breast_cancer() -> Splits:
    """Whether a tumour is benign (1) given thirty measurements of its cells, standardised."""
    covariates, benign = guest("sklearn.datasets").load_breast_cancer(return_X_y=True)
    rows = stratified_rows(benign, held=57)
    return Splits(_take(benign, rows), _take(_standardise(covariates, rows["train"]), rows))


# Rows: the Prussian guard and the army corps 1 to 11, 14 and 15; columns: 1875 to 1894.
KICKS = """
02210011030210010101 00020302000111020310 00020200110021100200 00011120200010121000 01011110000100001100
00002100100101111110 00102001201131110300 10100010110020021020 10001001000010001101 00000211102110120100
00110102020000213011 00002401301111213131 11211304010321021100 01000001011000220000
"""


def horse_kicks() -> Splits:
    """Deaths by horse kick in army corps (the group) and years (standardised)."""
    deaths = np.array([[int(count) for count in row] for row in KICKS.split()])
    corps, year = np.indices(deaths.shape).reshape(2, -1)
    rows = split_rows(deaths.size)
    context = np.column_stack([corps, _standardise(year, rows["train"])])
    return Splits(_take(deaths.ravel(), rows), _take(context, rows))


def photo_patches() -> Splits:
    """Colour patches (3, 8, 8) of two photographs of 427x640; the splits are columns 0-59, 61-69 and 71-79 of each."""
    columns = {"train": slice(0, 60), "valid": slice(61, 70), "test": slice(71, 80)}
    grids = [
        _patches(guest("sklearn.datasets").load_sample_image(name), size=8) for name in ("china.jpg", "flower.jpg")
    ]
    return Splits(
        {split: np.concatenate([grid[:, at].reshape(-1, 3, 8, 8) for grid in grids]) for split, at in columns.items()},
        scale=255,
    )


def eight_schools() -> Splits:
    """Effects of coaching (y) and their standard errors (sigma)."""
    y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    sigma = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    return same(y, sigma)


def coin() -> Splits:
    """Twelve tosses, 9 of them 1."""
    return same(np.array([1, 1, 1, 0, 1, 0, 1, 1, 1, 1, 1, 0]))


def moons() -> Splits:
    """Two interleaved half circles."""
    return _synthetic(*guest("sklearn.datasets").make_moons(3000, noise=0.1, random_state=0))


def circles() -> Splits:
    """Two circles with one centre."""
    return _synthetic(*guest("sklearn.datasets").make_circles(3000, noise=0.05, factor=0.5, random_state=0))


def blobs() -> Splits:
    """Three Gaussians of different width."""
    centers = [[-3.0, -2.0], [0.0, 2.5], [3.0, -1.0]]
    return _synthetic(
        *guest("sklearn.datasets").make_blobs(3000, centers=centers, cluster_std=[0.5, 0.8, 1.1], random_state=0)
    )


def _patches(image: Array, size: int) -> Array:
    """(H, W, C) -> the patches of a grid from the top left corner, (rows, columns, C, size, size)."""
    rows, columns, channels = image.shape[0] // size, image.shape[1] // size, image.shape[2]
    cut = image[: rows * size, : columns * size].reshape(rows, size, columns, size, channels)
    return cut.transpose(0, 2, 4, 1, 3)


def _take(array: Array, rows: Mapping[str, Array]) -> dict[str, Array]:
    return {split: array[index] for split, index in rows.items()}


def _standardise(array: Array, train: Array) -> Array:
    """Mean 0 and standard deviation 1 on the training rows, so that nothing of the others leaks."""
    return (array - array[train].mean(0)) / array[train].std(0)


def _synthetic(x: Array, labels: Array) -> Splits:
    return consecutive(x, labels, {"train": 2000, "valid": 500, "test": 500})
