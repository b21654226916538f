"""Targets with latents of each example."""

from __future__ import annotations

import torch

from benchmarks import targets
from inference import fit


def test_a_target_can_be_fitted_as_any_program():
    target = targets.load("banana")
    found = fit(target.program(), target.data, "exact", device="cpu")
    torch.testing.assert_close(found.guide.grid(*target.data).log_evidence, target.log_evidence)
