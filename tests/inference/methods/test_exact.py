"""The method `exact`: its fits draw, are saved, cost no gradient, and are refused where nothing exact is known."""

from __future__ import annotations

import pytest
import torch

from inference import fit
from inference.particles import draw
from tests.inference.exact_toys import GammaPoisson, Unanswerable, ppca
from zoo.errors import CapabilityError


def test_exact_method_refuses_and_says_why():
    with pytest.raises(CapabilityError, match="Methods that can: svi"):
        fit(Unanswerable(), torch.zeros(3, 4), "exact")


def test_exact_fit_draws_and_survives_a_checkpoint(tmp_path):
    program, x = ppca(2)
    found = fit(program, x, "exact", out=tmp_path)
    again = type(found).load(tmp_path)
    assert torch.equal(found.draw(5, x)["z"], again.draw(5, x)["z"])
    assert found.gradient_evaluations == 0


def test_draws_of_a_global_site_have_no_example_dimension():
    found = fit(GammaPoisson(), torch.tensor([1.0, 2.0, 0.0]), "exact")
    assert found.draw(11, torch.tensor([1.0, 2.0, 0.0]))["rate"].shape == (11,)
    assert draw(found.guide, 11, torch.tensor([1.0, 2.0, 0.0])).values["rate"].shape == (11, 1)
