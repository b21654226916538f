"""The recipe of docs/write-a-model.md, followed to the letter: 40 lines, then everything works without more."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests import processes

PAGE = Path(__file__).parents[1] / "docs" / "write-a-model.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "my_model.py").write_text(blocks("python")[0])
    counts = np.random.default_rng(0).poisson(2.0, (200, 16)).astype(float)
    np.savez(tmp_path / "counts.npz", train=counts[:150], valid=counts[150:175], test=counts[175:])
    return tmp_path


def test_the_model_has_at_most_40_lines():
    assert len(blocks("python")[0].splitlines()) <= 40


def test_contract_fit_evaluate_and_save(folder):
    done = processes.run(blocks("python")[1], folder=folder, scratch=folder / "printed")
    assert done.returncode == 0, done.stderr
    assert (folder / "runs" / "poisson" / "model.safetensors").exists()


def test_command_line(folder):
    for line in blocks("bash")[0].splitlines():
        words = [*line.split()[1:], *(["--json"] if "score" in line else [])]
        done = processes.run("from benchmarks.cli import main; main()", words, folder, scratch=folder / "printed")
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        if "score" in line:
            assert np.isfinite(json.loads(done.stdout)["log_likelihood"])
    assert np.load(folder / "samples.npz")["samples"].shape == (64, 16)
