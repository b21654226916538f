"""Restarts that ended in the same place are one mode, others are others."""

from __future__ import annotations

import torch

from inference import fit, fit_many
from inference.restarts import count_modes
from tests.inference.factors import data, ppca
from tests.inference.toys import Mean


def test_places_are_counted() -> None:
    fits = fit_many(Mean(), torch.full((4,), 2.0), "svi", seeds=[0, 1, 2], guide="normal")
    assert count_modes(fits) == 1
    with torch.no_grad():
        fits[1].guide.locs.mu += 0.5 * 0.2**0.5
    assert count_modes(fits) == 1
    with torch.no_grad():
        fits[1].guide.locs.mu += 3 * 0.2**0.5
    assert count_modes(fits) == 2


def test_other_guides_have_no_such_count() -> None:
    assert count_modes([fit(ppca(), data(10), "svi", steps=1)]) is None
    assert count_modes([fit(Mean(), torch.zeros(3), "svi", steps=1)]) is None


def test_restarts_without_a_mode_of_the_posterior_start_from_the_prior() -> None:
    options = {"guide": "normal", "steps": 1, "lr": 1e-9, "train_program": False, "num_restarts": 3}
    found = fit(Mean(), torch.zeros(3), "svi", **options)
    assert found.options["init_loc_fn"] == "sample"
    assert found.info["modes"] == 1
