"""What the commands print, where a number or a unit could be told wrongly."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import printing

FIT = {
    "program": "coin", "data": "coin", "method": "nuts", "seconds": 1.23, "device": "cpu", "parameters": 1, "seed": 0,
    "units": {"loss": "nats per example"}, "last": {"loss": 0.5, "divergences": 18.0}, "convergence": None,
    "warning": None,
    "splits": True,
}  # fmt: skip


def test_each_metric_has_its_own_unit_or_none(capsys):
    printing.print_fit(FIT, Path("runs/coin"))
    assert "at the end: loss 0.5 nats per example, divergences 18\n" in capsys.readouterr().out


def test_what_a_bound_would_still_gain_has_the_unit_of_the_bound(capsys):
    found = {**FIT, "units": {"loss": "nats of all data"}, "convergence": {"verdict": "not converged", "gain": 0.25}}
    printing.print_fit(found, Path("runs/coin"))
    assert "(the bound rises by 0.25 nats of all data further along)" in capsys.readouterr().out


def test_the_next_command_says_yes_to_code_of_the_users_own(capsys):
    printing.print_fit({**FIT, "program": "mine.py:Model"}, Path("runs/mine"))
    assert capsys.readouterr().out.count("--trust-code") == 2


def test_a_small_number_keeps_two_digits():
    assert [printing._number(value, 2) for value in (1.234, 0.0, 0.0012, -0.0012)] == [
        "1.23",
        "0.00",
        "0.0012",
        "-0.0012",
    ]


def test_json_is_json(capsys):
    printing.print_json({"path": Path("a"), "value": 1.0})
    assert json.loads(capsys.readouterr().out) == {"path": "a", "value": 1.0}


def test_code_that_was_adopted_has_no_splits_to_score(capsys):
    printing.print_fit({**FIT, "program": "mine.py:model", "splits": False}, Path("runs/mine"))
    assert "zoo score runs/mine --data HELD-OUT-FILE --trust-code" in capsys.readouterr().out


LISTED = [
    {"family": "bayes", "name": "coin", "what": "A coin [biased] " + "and more " * 20, "data": "coin"},
    {"family": "bayes", "name": "a-longer-name", "what": "Short.", "data": "digits-binary"},
]


def test_a_list_has_one_line_for_each_program_in_any_window(capsys, monkeypatch):
    for columns in (80, 140):
        monkeypatch.setenv("COLUMNS", str(columns))
        printing.print_list(LISTED, datasets=False)
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 3
        assert all(len(line) <= columns for line in lines)
        assert "A coin [biased] and more" in lines[1]
        assert "a-longer-name" in lines[2]
        assert ("digits-binary" in lines[2]) == (columns == 140)
    monkeypatch.delenv("COLUMNS")
    printing.print_list(LISTED, datasets=False)  # a pipe, which cuts nothing
    assert "and more " * 20 in capsys.readouterr().out


def test_what_runs_where_stands_in_its_column(capsys):
    running = [{"cell": "a/cell", "node": "machine-7", "pid": 123, "since": 0.0}]
    found = {
        "suite": "main", "executor": "ray", "node": "driver", "pid": 1, "state": "running", "since": 0.0, "cells": 2,
        "done": 1, "failed": 0, "waiting": 0, "lost": [], "running": running, "written": 0.0,
    }  # fmt: skip
    printing.print_status(found, Path("runs/main"))
    head, row = capsys.readouterr().out.splitlines()[-2:]
    assert head.split() == ["running", "node", "process", "since"]
    assert row.split()[:3] == ["a/cell", "machine-7", "123"]
