"""Cells of kind 'tags': rankings beside the most common words and a plain classifier."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cells import tags
from benchmarks.metrics import Measurement
from benchmarks.suite import Cell, MethodSpec, ProgramSpec
from inference.evaluation.samples.tags import mean_average_precision
from zoo.datasets.letter_names import WORDS

METRICS = ("tag_precision", "tag_map", "tag_lists", "parameters")
TINY = {"latent_dim": 2, "hidden": [4, 4], "features": {"channels": [4], "width": 8, "steps": 2}}


def run(folder: Path, program: str, options: Mapping[str, Any], fit: Mapping[str, Any]) -> dict[str, Measurement]:
    """Metric -> measurement of one cell."""
    method = MethodSpec("m", "gan" if fit else "none", fit)
    few = {"draws": 6, "tagger_steps": 60}
    cell = Cell("t", "tags", ProgramSpec(program, options), method, "glyphs-tags", "valid", METRICS, 0, evaluation=few)
    return {m.metric: m for m in tags.measure(cell, folder, "cpu")}


def test_words_are_ranked_and_listed(tmp_path: Path) -> None:
    found = run(tmp_path, "tag-gan", TINY, {"steps": 1, "batch_size": 8, "compile": "never"})
    assert set(found) == set(METRICS)
    (left,) = (np.load(path) for path in tmp_path.glob("*.npz"))
    assert left["samples"].shape == (24, 32, 32)
    lists = str(left["captions"][0]).split(" / ")
    assert len(lists) == 3
    assert all(word in WORDS for line in lists for word in line.split())


def test_a_classifier_ranks_better_than_the_most_common_words(tmp_path: Path) -> None:
    common, classifier = (run(tmp_path, name, {}, {}) for name in ("common-words", "multi-label"))
    images, truth = tags.tagged("valid")
    assert images.shape == (len(truth), 32, 32)
    chance = mean_average_precision(torch.rand(truth.shape), truth)
    assert chance < common["tag_map"].value < classifier["tag_map"].value
    assert common["tag_precision"].value < classifier["tag_precision"].value
