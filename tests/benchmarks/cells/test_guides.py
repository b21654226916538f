"""Guides of the suites: categorical factors that learn an exact posterior, and the same model with another guide."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.cells.guides import AmortisedCategorical, rebuilt
from benchmarks.suites.posterior import svi
from tests.benchmarks.cells.one import QUICK, run
from zoo import catalogue
from zoo.datasets import Data
from zoo.errors import CapabilityError

SCORED = svi("scored", "categorical", elbo="score", particles=16, steps=400, lr=0.05)


def test_a_categorical_guide_learns_the_exact_posterior_of_one_label(tmp_path: Path) -> None:
    found = run("posterior", "iris-species", SCORED, tmp_path, **QUICK)
    assert found["kl_reverse"].value < 0.05
    assert found["marginal_error"].value < 0.05
    with pytest.raises(CapabilityError, match="discrete and local"):
        AmortisedCategorical(catalogue.create("ppca"))


def test_the_model_stays_where_its_guide_is_another() -> None:
    program = catalogue.create("vae", latent_dim=2, hidden=[5])
    with torch.no_grad():
        for parameter in program.parameters():
            parameter.add_(torch.randn_like(parameter))
    data = Data(program.generate(6))
    new = rebuilt(program, {"guide": "full"}, data)
    z = torch.randn(4, 2)
    torch.testing.assert_close(new.decode(z).base_dist.logits, program.decode(z).base_dist.logits)
    assert new.config()["guide"] == "full"
    assert not torch.equal(new.encoder[0].weight, program.encoder[0].weight)
