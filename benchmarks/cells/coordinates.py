"""Numbers of a posterior one by one: in which of them, and in which pairs, an answer is furthest from the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["Columns", "distances", "worst_pairs"]

Array = np.ndarray[Any, Any]

MOST_PAIRED = 100
"""Coordinates, the worst ones, all pairs of which are looked at."""
VISIBLE = 0.1
"""A difference of correlations from which a pair is worth a picture of its own."""


@dataclass(frozen=True)
class Columns:
    """Draws side by side, a column for each number."""

    names: tuple[str, ...]
    """'mu', 'theta[5]'; of local sites the example comes first: 'z[3, 1]'."""
    values: Array
    """(S, D)."""
    discrete: Array
    """(D,) of truth values."""

    @classmethod
    def of(cls, draws: Mapping[str, Tensor], sites: Sequence[str], discrete: set[str]) -> Columns:
        """Those of some sites, in their order."""
        names, parts, kinds = [], [], []
        for site in sites:
            value = draws[site].detach().cpu().double().numpy()
            where = list(np.ndindex(value.shape[1:]))
            names += [f"{site}[{', '.join(map(str, at))}]" if at else site for at in where]
            parts.append(value.reshape(len(value), -1))
            kinds += [site in discrete] * len(where)
        return cls(tuple(names), np.concatenate(parts, 1), np.array(kinds))


def distances(answer: Columns, truth: Columns) -> Array:
    """How far each column is from the true one, (D,), in true standard deviations.

    The mean distance between quantiles (the Wasserstein-1 distance of the marginals), so that a wrong mean, a wrong
    spread and a wrong shape all count; of discrete numbers the total variation, in [0, 1].
    """
    at = (np.arange(200) + 0.5) / 200
    q, p = (np.quantile(columns.values, at, axis=0) for columns in (answer, truth))
    sd = truth.values.std(0)
    found = np.abs(q - p).mean(0) / np.where(sd > 0, sd, 1.0)
    for i in np.flatnonzero(truth.discrete):
        values = np.union1d(answer.values[:, i], truth.values[:, i])
        mine, true = (
            np.array([(columns.values[:, i] == value).mean() for value in values]) for columns in (answer, truth)
        )
        found[i] = np.abs(mine - true).sum() / 2
    return np.asarray(found)


def worst_pairs(answers: Sequence[Columns], truth: Columns, off: Array) -> list[tuple[int, int]]:
    """Up to three pairs of continuous columns that a picture should show.

    The two that are furthest off; the two whose correlation is most wrong, in any answer; the worst with the one that
    it is truly most correlated with.

    Args:
        answers: Of each method, with the columns of the truth.
        truth: The truth.
        off: How far each column is off in the worst answer, (D,).
    """
    able = [int(i) for i in np.argsort(-off, kind="stable") if not truth.discrete[i] and truth.values[:, i].std() > 0]
    able = able[:MOST_PAIRED]
    if len(able) < 2:
        return []
    found, true = [(able[0], able[1])], _correlations(truth.values[:, able])
    wrong = np.max([np.abs(_correlations(each.values[:, able]) - true) for each in answers], 0)
    i, j = np.unravel_index(np.argmax(wrong), wrong.shape)
    if wrong[i, j] > VISIBLE:
        found.append((able[i], able[j]))
    with_worst = np.abs(true[0])
    with_worst[0] = 0
    found.append((able[0], able[int(np.argmax(with_worst))]))
    return list({frozenset(pair): pair for pair in found}.values())


def _correlations(values: Array) -> Array:
    """(D, D), zero on the diagonal and where a column never varies."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.nan_to_num(np.atleast_2d(np.corrcoef(values, rowvar=False)))
    np.fill_diagonal(found, 0.0)
    return found
