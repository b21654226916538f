"""Cards of metrics: every one can be read, every one that a suite asks for exists, and how a game ended is counted."""

from __future__ import annotations

from pathlib import Path

import benchmarks
from benchmarks.metrics import METRICS, how_the_fit_ended
from inference import evaluation


def test_every_card_says_what_it_means_and_which_way_is_better():
    titles = {}
    for name, card in METRICS.items():
        assert card.better in ("higher", "lower", ""), name
        assert 0 <= card.digits <= 4, name
        assert len(card.meaning) > 10, name
        titles.setdefault(card.title, []).append(name)
    # Two columns of one title would be told apart by nobody; C2ST of draws and of features are of different suites.
    assert {title for title, names in titles.items() if len(names) > 1} == {"C2ST"}


def test_seeds_are_counted_where_a_mean_would_say_nothing():
    assert {name for name, card in METRICS.items() if card.counts} == {"collapsed", "saturated", "under_way"}
    # Whole seeds: "2 of 3", not "2.0 of 3".
    assert all(card.digits == 0 for card in METRICS.values() if card.counts)


def test_every_metric_is_measured_somewhere():
    """A card that no code names would head a column that is always empty."""
    folders = (Path(benchmarks.__file__).parent, Path(evaluation.__file__).parent)
    code = "".join(p.read_text() for folder in folders for p in folder.rglob("*.py") if p.name != "metrics.py")
    assert [name for name in METRICS if f'"{name}"' not in code] == []


def test_how_a_game_ended_is_a_number_or_a_reason():
    info = {"collapsed": True, "saturated": False, "diversity": 0.123, "critic_accuracy": 0.987}
    collapsed, saturated, _ = how_the_fit_ended(info)
    assert (collapsed.metric, collapsed.value) == ("collapsed", 1.0)
    assert (saturated.metric, saturated.value) == ("saturated", 0.0)
    assert collapsed.how == saturated.how == "diversity 0.12, critic accuracy 0.99"
    for none in how_the_fit_ended({"step_size": 0.1})[:2]:
        assert (none.value, none.how) == (None, "n/a: no game")


def test_a_fit_that_was_under_way_is_counted_and_what_cannot_be_told_is_not():
    verdicts = {"still improving": 1.0, "converged": 0.0, "too short to tell": None}
    found = {v: how_the_fit_ended({"convergence": {"verdict": v}})[2] for v in verdicts}
    assert {v: measured.value for v, measured in found.items()} == verdicts
    assert found["too short to tell"].how == "n/a: too short to tell"
    assert how_the_fit_ended({})[2].how == "n/a: no bound to climb"
