"""The command `zoo tune`: a space in a file, trials on the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def test_tune_prints_trials_and_what_is_next(zoo: Any, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    space, out = tmp_path / "space.toml", tmp_path / "out"
    space.write_text("[components]\nvalues = [1, 2]\n")
    words = ("tune", "bernoulli-mixture", "--data", "digits-binary", "--method", "em", "--space", space, "--out", out)
    code, printed, error = zoo(*words, "-o", "iterations=2", "--trials", 2)
    assert code == 0, error
    assert "components=" in printed
    assert "by log_likelihood on the validation split (exact)" in printed
    assert f"zoo score {out}/trials/" in printed
    found = json.loads(zoo(*words, "-o", "iterations=2", "--trials", 2, "--json")[1])
    assert len(found["trials"]) == 2
    assert f"{found['value']:.4g}" in printed
    code, printed, error = zoo(*words, "-o", "iterations=3", "--trials", 2)
    assert (code, printed, error.count("\n")) == (2, "", 1)
    assert "another search" in error
