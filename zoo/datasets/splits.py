"""Arrays on their way to a `Dataset`, and how rows are shared out where a data set has no split of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.arrays import as_tensor
from zoo.datasets.data import Card, Data, Dataset
from zoo.errors import EmptyDataError
from zoo.process import guest

__all__ = ["SPLITS", "Splits", "consecutive", "linked", "split_rows", "stratified_rows"]

SPLITS = ("train", "valid", "test")

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Splits:
    """NumPy arrays by split, as read; x and contexts are divided by their scale (255 for pixels stored as bytes)."""

    x: Mapping[str, Array]
    context: Mapping[str, Array] = field(default_factory=dict)
    labels: Mapping[str, Array] = field(default_factory=dict)
    scale: float = 1.0
    context_scale: float = 1.0

    def dataset(self, card: Card) -> Dataset:
        """Tensors of torch's default dtype (labels: int64).

        Warns: RoundingNotice for whole numbers that the dtype cannot hold.
        """

        def tensor(array: Array, what: str) -> Tensor:
            return as_tensor(array, f"{what} of {card.name}", torch.get_default_dtype())

        def split(name: str) -> Data:
            x, context = tensor(self.x[name], f"{name} examples"), self.context.get(name)
            x.div_(self.scale)
            if context is None:
                return Data(x)
            return Data(x, tensor(context, f"{name} contexts").div_(self.context_scale))

        labels = {name: torch.tensor(array, dtype=torch.int64) for name, array in self.labels.items()}
        return Dataset(card, train=split("train"), valid=split("valid"), test=split("test"), labels=labels)


def consecutive(x: Array, labels: Array, sizes: Mapping[str, int]) -> Splits:
    """Blocks of rows as the splits, for rows that are drawn independently or shuffled already."""
    cuts = np.cumsum([sizes[split] for split in SPLITS])[:-1]
    return Splits(
        dict(zip(SPLITS, np.split(x, cuts), strict=True)), labels=dict(zip(SPLITS, np.split(labels, cuts), strict=True))
    )


def split_rows(n: int, seed: int = 0) -> dict[str, Array]:
    """Row numbers of a random 80/10/10 split, the same for the same n and seed.

    Raises: EmptyDataError when n < 3, since each split needs a row.
    """
    if n < 3:
        raise EmptyDataError(f"{n} rows cannot be split into train, valid and test; at least 3 are needed.")
    # RandomState's stream is frozen by NumPy's policy, default_rng's is not.
    order = np.random.RandomState(seed).permutation(n)
    held = max(1, round(n / 10))
    return {"train": order[2 * held :], "valid": order[:held], "test": order[held : 2 * held]}


def stratified_rows(labels: Array, held: int) -> dict[str, Array]:
    """Row numbers of a fixed split with `held` rows each in valid and test, classes in equal proportion."""
    train_test_split = guest("sklearn.model_selection").train_test_split
    train, rest = train_test_split(np.arange(len(labels)), test_size=2 * held, stratify=labels, random_state=0)
    valid, test = train_test_split(rest, test_size=held, stratify=labels[rest], random_state=0)
    return {"train": train, "valid": valid, "test": test}


def linked(n: int, pairs: Array) -> Array:
    """Number of the first row that each is linked with, directly or through others: rows of one number go together.

    Args:
        n: How many rows.
        pairs: (P, 2) of rows that are linked.
    """
    graph = guest("scipy.sparse").coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(n, n))
    _, group = guest("scipy.sparse.csgraph").connected_components(graph, directed=False)
    _, first = np.unique(group, return_index=True)
    found: Array = first[group]
    return found
