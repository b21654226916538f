"""Scores of what was asked for, of a saved fit: those of its kind of cell, and none where samples say it all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from benchmarks.cells import asked, captions
from benchmarks.metrics import METRICS
from inference import fit
from inference.evaluation.samples.captions import caption_scorer
from inference.evaluation.samples.judge import draw_samples
from zoo import catalogue, datasets
from zoo.datasets import Dataset

ONCE = {"steps": 1, "batch_size": 8, "compile": "never"}
TEXT = {"latent_dim": 2, "projection": 4, "channels": [4, 4], "encoder": {"code": 4, "width": 4, "steps": 2}}
TAGS = {"latent_dim": 2, "hidden": [4, 4], "features": {"channels": [4], "width": 8, "steps": 2}}
PUZZLE = {"event_shape": [8, 8], "channels": [4, 8]}


def scores(name: str, data: Dataset, method: str, options: Mapping[str, Any]) -> dict[str, float | None]:
    """Of a program that has learned nothing."""
    found = fit(catalogue.create_for(name, data.train, **options), data, method, **ONCE)
    samples = draw_samples(found.program, found.program.take(data.valid), data.valid.size)
    return {each.metric: each.value for each in asked.asked_scores(found, data, "valid", samples)}


def test_captions_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "looker", lambda name, steps: caption_scorer(datasets.load(name), steps=5))
    found = scores("text2image", datasets.load("glyphs-captions"), "gan-cls", TEXT)
    assert set(found) == {"retrieval"}
    assert 0 <= found["retrieval"] < 0.2


def test_puzzles_are_completed() -> None:
    x = torch.rand(60, 8, 8)
    found = scores("puzzle-gan", Dataset.of(x[:40], x[40:], x[40:]), "gan", PUZZLE)
    assert found["kept"] == 0
    # Of 10 guesses, however poor, the mean is off by less than all of the range, and they differ.
    assert 0 < found["completion_rmse"] < 1
    assert found.keys() < METRICS.keys()


def test_tags_are_ranked() -> None:
    found = scores("tag-gan", datasets.load("glyphs-tags"), "gan", TAGS)
    assert set(found) == {"tag_precision", "tag_map", "tag_lists"}
    assert 0 < found["tag_precision"] < 0.3  # the most common words have 0.36


def test_where_samples_say_it_all_there_is_nothing_more() -> None:
    x = torch.rand(60, 8, 8)
    data = Dataset.of(x[:40], x[40:], x[40:])
    assert scores("gan", data, "gan", {"hidden": [4], "critic_hidden": [4]}) == {}
