"""Cells of kind 'topics': held-out words are predicted, and topics judged by whether their words go together.

All rows hide the same words of the same documents. Programs that are none are yardsticks: 'one-topic', one distribution
for all documents, and 'sklearn-lda', scikit-learn's variational Bayes with the same priors.

Options of the evaluation: those of `SKLEARN`, and `top` words that speak for a topic (10).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.cells.fitting import fit_cell
from benchmarks.cells.samples import of_the_fit
from benchmarks.metrics import Measurement
from benchmarks.suite import Cell, file_name
from inference.evaluation.topics import coherence, completed_perplexity, perplexity, top_words
from zoo import datasets
from zoo.datasets import Dataset
from zoo.errors import CapabilityError
from zoo.process import guest
from zoo.topics.base import TopicModel

__all__ = ["YARDSTICKS", "measure"]

SKLEARN: dict[str, Any] = {"topics": 20, "mixing": None, "sparsity": 0.1, "iterations": 60}
"""Its options unless the evaluation says otherwise: those of the rows that it stands beside."""

Predict = Callable[[Tensor], Tensor]


def measure(cell: Cell, artifacts: Path, device: str) -> list[Measurement]:
    """Fits, predicts hidden words, scores topics; leaves their most probable words for a picture."""
    dataset = datasets.load(cell.dataset)
    data = dataset.split(cell.split)
    if cell.program.name in YARDSTICKS:
        started = time.perf_counter()
        topics, predict = YARDSTICKS[cell.program.name](cell, dataset)
        measured = [Measurement("seconds", time.perf_counter() - started, how="wall time of the fit")]
        found = completed_perplexity(predict, data.x)
    else:
        fitted = fit_cell(cell, dataset, device)
        if not isinstance(fitted.program, TopicModel):
            raise CapabilityError(
                f"{cell.program.name} has no topics; cells of kind 'topics' fit programs of zoo.topics."
            )
        topics, measured = fitted.program.topic_words(), of_the_fit(fitted)
        found = perplexity(fitted, data.to(fitted.device))
    how = f"{found.words} words of {data.size} {cell.split} documents, given the others of each"
    measured.append(Measurement("perplexity", found.value, found.standard_error, how=how))
    if len(topics) > 1:
        top = int(cell.evaluation.get("top", 10))
        scores = coherence(topics, dataset.train.x.to(topics), top=top)
        how = f"mean over topics, {top} words each, in {dataset.train.size} training documents"
        measured.append(Measurement("coherence", float(scores.mean()), how=how))
        words = [" ".join(row) for row in top_words(topics, dataset.card.names, 6)]
        np.savez_compressed(
            artifacts / f"{file_name(cell.key)}.npz", words=np.array(words), coherence=scores.cpu().numpy()
        )
    return [m for m in measured if m.metric in cell.metrics]


def _one_topic(cell: Cell, dataset: Dataset) -> tuple[Tensor, Predict]:
    counts = dataset.train.x.sum(0, keepdim=True) + {**SKLEARN, **cell.evaluation}["sparsity"]
    topic = counts / counts.sum()
    return topic, lambda known: topic.expand_as(known)


def _sklearn(cell: Cell, dataset: Dataset) -> tuple[Tensor, Predict]:
    options = {**SKLEARN, **cell.evaluation}
    model: Any = guest("sklearn.decomposition").LatentDirichletAllocation(
        options["topics"], doc_topic_prior=options["mixing"], topic_word_prior=options["sparsity"],
        max_iter=options["iterations"], random_state=cell.seed,
    )  # fmt: skip
    x = dataset.train.x
    model.fit(x.double().numpy())
    words = torch.tensor(model.components_ / model.components_.sum(1, keepdims=True))

    def predict(known: Tensor) -> Tensor:
        return (torch.tensor(model.transform(known.double().numpy())) @ words).to(known)

    return words.to(x), predict


YARDSTICKS: dict[str, Callable[[Cell, Dataset], tuple[Tensor, Predict]]] = {
    "one-topic": _one_topic, "sklearn-lda": _sklearn
}  # fmt: skip
"""Names of programs that are none -> their topics (K, V), and how they predict words."""
