"""Cells, grids and suites: keys that tell options apart, names that are known."""

from __future__ import annotations

import pytest

from benchmarks.suite import Cell, Grid, MethodSpec, ProgramSpec
from zoo.datasets import base_name
from zoo.errors import UnknownNameError


def test_names_of_data_have_a_base() -> None:
    for name in ("mnist10k", "mnist10k-binary", "mnist10k-labelled", "mnist10k-binary-labelled"):
        assert base_name(name) == "mnist10k"
    assert base_name("stacked-digits") == "stacked-digits"


def test_cells_differ_when_any_declared_option_differs() -> None:
    def key(**changes: object) -> str:
        method = MethodSpec("SVI", "svi", {"lr": changes.get("lr", 0.1)}, {"guide": changes.get("family", "full")})
        program = ProgramSpec("vae", {"latent_dim": changes.get("dim", 2)}, "VAE")
        return Cell("s", "density", program, method, "digits", "test", ("elbo",), int(str(changes.get("seed", 0)))).key

    keys = [key(), key(lr=0.2), key(family="iaf"), key(dim=3), key(seed=1)]
    assert len(set(keys)) == len(keys)
    assert key() == key()


def test_unknown_metrics_and_kinds_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'c2st'"):
        Grid("posterior", (ProgramSpec("coin"),), (MethodSpec("SVI", "svi"),), ("c2sts",))
    with pytest.raises(UnknownNameError, match="kind of cell"):
        Grid("densities", (ProgramSpec("coin"),), (MethodSpec("SVI", "svi"),), ("elbo",))
