"""The table of untuned SVI: which posteriors there are, a row that is measured, and what the page says of bad ones."""

from __future__ import annotations

import json
import math

import pytest
import torch

from benchmarks import targets
from benchmarks.scripts import untuned
from inference import fit

ROWS = {
    "near full rank": {
        "below": [0.01, 0.04, 0.02], "error": 0.01, "seconds": [1.0, 2.0, 3.0], "verdicts": ["converged"] * 3,
        "rate": 0.1, "steps": 20_000, "tuned seconds": 20.0,
    },
    "far mean-field": {
        "below": [0.2, 0.3, 0.25], "error": 0.01, "seconds": [50.0] * 3,
        "verdicts": ["converged", "still improving", "still improving"], "rate": 0.03, "steps": 500,
        "tuned seconds": 20.0,
    },
    "broken full rank": {"refused": "CapabilityError: no density."},
}  # fmt: skip


def test_a_page_names_what_is_too_far_too_slow_and_failed():
    text = untuned.page(ROWS, "a machine")
    assert "| near | full rank | 0.020 (0.040) | 0.010 | 3 of 3 | 2.0 | 20,000 | 0.1 | 20.0 |" in text
    assert "\n1 of 3 fits are within 0.05 nats" in text
    far, slow, _ = (part.split("\n")[2:-1] for part in text.split("\n## ")[1:])
    assert far == ["- far, mean-field: 0.300 nats below, converged, still improving."]
    assert slow == ["- far, mean-field: 50.0 s beside 20.0."]
    assert "- broken, full rank: CapabilityError: no density." in text


def test_every_target_of_one_density_is_measured(monkeypatch):
    monkeypatch.setattr(targets, "REFERENCES", {})
    monkeypatch.setattr(targets, "names", lambda: ["coin", "kidiq", "ppca-digits"])
    assert list(untuned.posteriors()) == ["coin", "kidiq"]  # each image has a posterior of its own


def test_how_far_a_guide_is_below_another_is_their_difference_of_kl():
    """Two Gaussians beside a Gaussian posterior, by hand: the standard error is stated, and five of it are allowed."""
    torch.set_default_dtype(torch.float64)
    program, data = untuned.posterior("kidiq")
    near = fit(program, data, "svi", guide="multivariate_normal")
    far = fit(program, data, "svi", guide="multivariate_normal")
    far.guide.scale = 2.0 * far.guide.scale.detach()  # in all directions, so that the factor is twice as large
    ((found, error),) = untuned.gap([near, far], data, 1000)
    numbers = len(far.guide.loc)
    assert error < 0.05
    assert found == pytest.approx(numbers * (2.0**2 / 2 - 0.5 - math.log(2.0)), abs=5 * error)


def test_a_row_is_measured_and_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(untuned, "TUNED", {"steps": 50, "particles": 2, "decay": "cosine"})
    monkeypatch.setattr(untuned, "RATES", (0.1, 0.01))
    monkeypatch.setattr(untuned, "DRAWS", 200)
    monkeypatch.setattr(untuned, "posteriors", lambda: iter(["coin"]))
    path = tmp_path / "rows.json"
    untuned.main(["--rows", str(path)])
    kept = json.loads(path.read_text())["rows"]
    assert set(kept) == {"coin mean-field", "coin full rank"}
    assert all(max(row["below"]) < 0.05 and row["verdicts"] == ["converged"] * 3 for row in kept.values())
    first = capsys.readouterr().out
    monkeypatch.setattr(untuned, "measure", lambda *given: pytest.fail("measured again"))
    untuned.main(["--rows", str(path)])
    assert capsys.readouterr().out == first
