"""The fit of a cell: from the cell's seed, with the options of program and method in their places."""

from __future__ import annotations

import torch

from benchmarks.cells.fitting import fit_cell
from benchmarks.cells.guides import AmortisedCategorical
from benchmarks.suite import Cell, MethodSpec, ProgramSpec
from inference import fit
from inference.environment import seeded
from zoo import catalogue, datasets


def cell(program: ProgramSpec, method: MethodSpec, seed: int = 3) -> Cell:
    return Cell(
        "t", "density", program, method=method, dataset="digits-binary", split="test", metrics=("elbo",), seed=seed
    )


def test_a_cell_is_fitted_as_by_hand() -> None:
    data = datasets.load("digits-binary")
    method = MethodSpec("full", "svi", {"steps": 3, "lr": 0.02}, {"guide": "full"})
    found = fit_cell(cell(ProgramSpec("vae", {"hidden": [6]}), method), data, "cpu")
    with seeded(3):
        program = catalogue.create_for("vae", data.train, hidden=[6], guide="full")
    alone = fit(program, data, "svi", seed=3, device="cpu", steps=3, lr=0.02)
    assert found.program.config() == alone.program.config()
    for name, value in alone.program.state_dict().items():
        assert torch.equal(found.program.state_dict()[name], value), name


def test_changes_win_over_what_is_declared() -> None:
    data = datasets.load("digits-binary").train.rows(slice(0, 40))
    declared = cell(ProgramSpec("vae", {"hidden": [6]}), MethodSpec("SVI", "svi", {"steps": 3, "lr": 0.02}))
    found = fit_cell(declared, data, "cpu", steps=2)
    assert (found.options["steps"], found.options["lr"], found.seed) == (2, 0.02, 3)


def test_a_guide_of_the_suites_is_built_for_the_program() -> None:
    flowers = datasets.load("iris")
    declared = cell(ProgramSpec("gaussian-mixture"), MethodSpec("SVI", "svi", {"steps": 2, "guide": "categorical"}))
    found = fit_cell(
        declared, flowers.train, "cpu", lambda: catalogue.create_for("gaussian-mixture", flowers.train, components=3)
    )
    assert isinstance(found.guide, AmortisedCategorical)
