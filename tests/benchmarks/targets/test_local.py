"""Targets with latents of each example."""

from __future__ import annotations

import torch

from benchmarks import targets
from inference import fit
from zoo import datasets


def test_a_target_can_be_fitted_as_any_program():
    target = targets.load("banana")
    found = fit(target.program(), target.data, "exact", device="cpu")
    torch.testing.assert_close(found.guide.grid(*target.data).log_evidence, target.log_evidence)


def test_species_are_those_of_fishers_flowers():
    """Components are the training flowers' own; of 30 others, all but a few are likeliest as what they are."""
    flowers, target = datasets.load("iris"), targets.load("iris-species")
    program = target.program()
    for label in range(3):
        rows = flowers.train.x[flowers.labels["train"] == label].to(program.means)
        torch.testing.assert_close(program.means[label].detach(), rows.mean(0))
        factor = program.scale[label].detach()
        torch.testing.assert_close(factor @ factor.T, torch.cov(rows.T))
    found = fit(program, target.data, "exact", device="cpu").draw(200, *target.data)["z"].mode(0).values
    assert int((found.flatten() == flowers.labels["test"]).sum()) >= 27
