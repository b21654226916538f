"""Cells of kind 'topics': a program and both yardsticks, by the same hidden words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.cells import topics
from benchmarks.metrics import Measurement
from benchmarks.report.pictures import topics_picture
from benchmarks.suite import Cell, MethodSpec, ProgramSpec
from zoo import datasets
from zoo.datasets.unicode_names import WORDS
from zoo.errors import CapabilityError

METRICS = ("perplexity", "coherence", "parameters", "seconds")


def run(folder: Path, program: str, options: Mapping[str, Any], method: MethodSpec) -> dict[str, Measurement]:
    """Metric -> measurement of one cell."""
    few = {"topics": 3, "iterations": 3}
    spec = ProgramSpec(program, options)
    cell = Cell("t", "topics", spec, method, "unicode-names", "valid", METRICS, 0, evaluation=few)
    return {m.metric: m for m in topics.measure(cell, folder, "cpu")}


def test_topics_predict_better_than_one_for_all(tmp_path: Path) -> None:
    none = MethodSpec("none", "none")
    ours = run(tmp_path, "lda", {"topics": 3}, MethodSpec("m", "cavi", {"iterations": 3}))
    (left,) = (np.load(path) for path in tmp_path.glob("*.npz"))
    assert left["words"].shape == left["coherence"].shape == (3,)
    assert all(word in WORDS for line in left["words"] for word in str(line).split())
    assert ours["coherence"].value == pytest.approx(left["coherence"].mean())
    theirs, single = (run(tmp_path, name, {}, none) for name in ("sklearn-lda", "one-topic"))
    assert set(ours) == set(METRICS)
    assert set(theirs) == {"perplexity", "coherence", "seconds"}
    assert set(single) == {"perplexity", "seconds"}
    assert max(ours["perplexity"].value, theirs["perplexity"].value) < single["perplexity"].value < len(WORDS)
    assert {m["perplexity"].how for m in (ours, theirs, single)} == {ours["perplexity"].how}
    figure = topics_picture([("ours", left), ("again", left)])
    assert str(left["words"][left["coherence"].argmax()]) in figure.axes[0].texts[0].get_text().splitlines()[0]


def test_one_topic_predicts_the_words_of_all_documents() -> None:
    cell = Cell(
        "t", "topics", ProgramSpec("one-topic"), MethodSpec("none", "none"), "unicode-names", "valid", METRICS, 0
    )
    dataset = datasets.load("unicode-names")
    topic, predict = topics.YARDSTICKS["one-topic"](cell, dataset)
    counts = dataset.train.x.sum(0)
    assert torch.allclose(topic[0], (counts + 0.1) / (counts + 0.1).sum())
    assert torch.equal(predict(dataset.test.x), topic.expand(dataset.test.size, -1))


def test_programs_without_topics_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match="no topics"):
        run(tmp_path, "independent", {}, MethodSpec("m", "em", {"iterations": 1}))
