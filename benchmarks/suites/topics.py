"""The topics suite: documents as counts of words, which are predicted from half of each.

Rows with the same priors and as many rounds: this project's LDA and scikit-learn's. To add a row, name the program and
its method.
"""

from __future__ import annotations

from typing import Any

from benchmarks.suite import Grid, MethodSpec, ProgramSpec, Suite
from zoo import catalogue

__all__ = ["SUITE"]

DATA = "unicode-names"
METRICS = ("perplexity", "coherence", "parameters", "seconds")


def row(name: str, label: str, title: str, options: dict[str, Any] | None = None, **fit: Any) -> Grid:
    """A program by its preset 'small', with changes."""
    preset = catalogue.get(name).presets["small"].merged(options, None, fit)
    spec = MethodSpec(title, preset.method, dict(preset.fit))
    program = ProgramSpec(name, dict(preset.program), label)
    return Grid("topics", (program,), (spec,), metrics=METRICS, data=(DATA,), split="test", seeds=3)


def yardstick(name: str, label: str, title: str, seeds: int = 1) -> Grid:
    """What is no program of the zoo, with the topics, priors and rounds of our LDA.

    How often a document is updated within a round is scikit-learn's own: until it changes little.
    """
    method, lda = MethodSpec(title, "none"), catalogue.get("lda").presets["small"]
    alike = {"topics": lda.program["topics"], "iterations": lda.fit["iterations"]}
    return Grid(
        "topics", (ProgramSpec(name, {}, label),), (method,), metrics=METRICS, data=(DATA,), seeds=seeds,
        evaluation=alike,
    )  # fmt: skip


SUITE = Suite(
    "topics",
    "Topics in documents",
    "How well are held-out words of documents predicted, and do the words of a topic go together?",
    grids=(
        row("lda", "LDA, 20 topics", "CAVI", restarts=1),
        row("lda", "LDA, 20 topics", "CAVI, best of 3"),
        yardstick("sklearn-lda", "scikit-learn's LDA, 20 topics", "variational Bayes", 3),
        row("prodlda", "ProdLDA, 20 topics", "SVI"),
        row("prodlda", "LDA with an encoder, 20 topics", "SVI", {"decoder": "mixture"}),
        yardstick("one-topic", "one topic", "counts"),
    ),
)
