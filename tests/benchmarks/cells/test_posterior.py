"""Cells against what is known: exact rows are exact, estimators agree with closed forms, what is declared can run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import targets
from benchmarks.cells import posterior, posterior_scores
from benchmarks.suite import MethodSpec
from benchmarks.suites import references
from benchmarks.suites.posterior import METRICS, avb, nuts, svi
from tests.benchmarks.cells.one import QUICK, run

SCORED = svi("scored", "categorical", elbo="score", particles=16, steps=400, lr=0.05)


@pytest.mark.parametrize(
    "name", ["coin", "eight-schools", "old-faithful", "iris-species", "casino", "ppca-digits", "banana"]
)
def test_exact_rows_are_exact(name: str, tmp_path: Path) -> None:
    metrics = tuple(m for m in METRICS if m != "c2st")
    found = run("posterior", name, MethodSpec("exact", "exact"), tmp_path, metrics=metrics)
    target = targets.load(name)
    assert found["log_evidence"].value == pytest.approx(float(target.log_evidence.mean()), rel=1e-9)
    assert found["elbo"].value == pytest.approx(found["log_evidence"].value, abs=1e-3)
    assert found["kl_reverse"].value == pytest.approx(0.0, abs=1e-3)
    # 4,000 draws: means are off by 0.016 sd, rms over coordinates; four times that is 1 in 15,000 for one coordinate.
    if "mean_error" in found:
        assert found["mean_error"].value < 4 / math.sqrt(posterior_scores.DRAWS)
    assert "seconds" not in found
    left = list(tmp_path.glob("*.npz"))
    assert len(left) == (0 if name in ("iris-species", "casino") else 1)


def test_a_better_guide_has_the_smaller_divergence(tmp_path: Path) -> None:
    budget = {"steps": 200, "lr": 0.05, "particles": 4}
    rough = run("posterior", "diabetes", svi("mean-field", "normal", **budget), tmp_path, **QUICK)
    fine = run("posterior", "diabetes", svi("full", "multivariate_normal", **budget), tmp_path, **QUICK)
    assert fine["kl_reverse"].value < rough["kl_reverse"].value
    assert fine["sd_error"].value < rough["sd_error"].value
    assert fine["c2st"].value < rough["c2st"].value
    assert rough["elbo"].value + rough["kl_reverse"].value == pytest.approx(rough["log_evidence"].value)
    assert 800 < rough["gradient_evaluations"].value < 1200  # of 200 steps, and of the search for the mode before them


def test_methods_without_a_density_say_so(tmp_path: Path) -> None:
    chain = run("posterior", "coin", nuts(50, 100, 2), tmp_path, **QUICK)
    assert all(chain[m].value is None for m in ("elbo", "kl_reverse", "kl_forward", "k_hat"))
    assert all(chain[m].how.startswith("n/a") for m in ("elbo", "kl_reverse", "kl_forward", "k_hat"))
    assert chain["mean_error"].value < 0.5
    implicit = run("posterior", "banana", avb(steps=20), tmp_path, **QUICK)
    assert implicit["elbo"].value is None
    assert implicit["kl_reverse"].value > 0.1  # 20 steps are not enough; the estimate from draws sees it
    assert "nearest neighbours" in implicit["kl_reverse"].how
    with np.load(next(tmp_path.glob("*banana*.npz"))) as left:
        assert left["draws"].shape == left["exact"].shape == (3, 1000, 2)
        cell = np.prod([left[f"axis{i}"][0, 1] - left[f"axis{i}"][0, 0] for i in (0, 1)])
        assert left["density"][0].sum() * cell == pytest.approx(1.0, abs=0.02)


KIDS = "posteriordb/kidiq-kidscore_momhs"


def test_half_of_the_chains_beside_the_rest_is_what_chance_does(tmp_path: Path, zoo_data: Path) -> None:
    quick = {"metrics": references.METRICS, **QUICK}
    floor = run("posterior", KIDS, MethodSpec("other chains", "exact"), tmp_path, **quick)
    # Two halves of 5,000 draws, of which 4,000 are compared with the moments of the other 5,000.
    assert floor["mean_worst"].value < 5 * math.sqrt(1 / 4000 + 1 / 5000)
    assert floor["sd_worst"].value < 1 + 5 * math.sqrt(1 / 8000 + 1 / 10_000)
    assert floor["c2st"].value < 0.56
    assert floor["sliced_wasserstein"].value < 0.06
    assert floor["elbo"].value is None
    assert "seconds" not in floor
    assert len(list(tmp_path.glob("*.npz"))) == 1


def test_methods_are_judged_by_draws_alone(tmp_path: Path, zoo_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posterior, "DRAWS", 500)  # code that was adopted is run once for each
    name = "posteriordb/eight_schools-eight_schools_noncentered"  # whose theta is computed
    every = (*references.METRICS, "log_evidence", "kl_reverse", "kl_forward", "approximation")
    quick = {"metrics": every, "evaluation": {**QUICK["evaluation"], "particles": 100}}
    short = run("posterior", name, svi("short", "normal", steps=1, lr=1e-3, init_loc_fn="sample"), tmp_path, **quick)
    fitted = run("posterior", name, svi("fitted", "normal"), tmp_path, **quick)
    for metric in ("mean_worst", "sd_worst", "c2st", "sliced_wasserstein"):
        assert fitted[metric].value < short[metric].value
    assert fitted["mean_worst"].value < 0.3
    for metric in ("log_evidence", "kl_reverse", "kl_forward", "approximation"):
        assert fitted[metric].value is None
        assert "draws" in fitted[metric].how
    assert fitted["gradient_evaluations"].value > short["gradient_evaluations"].value > 0
    chain = run("posterior", name, nuts(30, 60, 1), tmp_path, **quick)
    assert chain["mean_worst"].value < 1.0
    assert chain["k_hat"].value is None


def test_any_program_has_the_truth_that_is_asked_for(tmp_path: Path) -> None:
    quick = {"evaluation": {"truth": "exact", **QUICK["evaluation"]}}
    budget = {"steps": 100, "lr": 0.05, "particles": 4}
    asked = run("posterior", "coin", svi("own", **budget), tmp_path, data="coin", split="train", **quick)
    known = run("posterior", "coin", svi("own", **budget), tmp_path, data="coin", **QUICK)
    assert asked["log_evidence"].value == pytest.approx(known["log_evidence"].value)
    assert asked["kl_reverse"].value == pytest.approx(known["kl_reverse"].value, abs=1e-6)
