"""Peers of the flows: the same size, densities of the same kind, and one loop that trains them all."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from benchmarks.scripts.flow_libraries import CONTENDERS, KINDS, build, compare, train


def contender(who, *args):
    if importlib.util.find_spec(who) is None and who != "zoo":
        pytest.skip(f"{who} is not installed")
    return build(who, *args)


@pytest.mark.parametrize("who", CONTENDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_densities_integrate_to_one_and_training_raises_them(kind, who):
    torch.manual_seed(0)
    module, density = contender(who, kind, 2, 2, [16, 16])
    x = torch.randn(400, 2) * torch.tensor([0.3, 0.8]) + 0.5
    before = float(density(x).detach().mean())
    train(module, density, lambda _: x, x, steps=30, lr=1e-2, every=10)
    assert float(density(x).detach().mean()) > before + 0.1
    axis = torch.linspace(-8, 8, 401)
    with torch.no_grad():
        mass = density(torch.cartesian_prod(axis, axis)).exp().sum() * (axis[1] - axis[0]) ** 2
    assert float(mass) == pytest.approx(1.0, abs=0.01)


def test_affine_couplings_have_the_same_size():
    sizes = {sum(p.numel() for p in contender(who, "realnvp", 6, 3, [16, 16])[0].parameters()) for who in CONTENDERS}
    assert len(sizes) == 1


def test_training_stops_when_validation_falls_and_leaves_the_best():
    """A mean that starts where the held-out rows are and is drawn elsewhere: every step is for the worse."""
    normal, steps = nn.Linear(1, 1, bias=False), []
    nn.init.zeros_(normal.weight)

    def log_density(x: torch.Tensor) -> torch.Tensor:
        return -((x - normal.weight) ** 2).sum(-1)

    def elsewhere(step: int) -> torch.Tensor:
        steps.append(step)
        return torch.full((10, 1), 6.0)

    best, found = train(normal, log_density, elsewhere, torch.zeros(5, 1), steps=50, lr=0.1, every=2, patience=3)
    assert (best, found, len(steps)) == (0.0, 0, 6)
    assert normal.weight.item() == 0.0


def test_a_line_has_the_scores_of_held_out_rows():
    """Of points of the plane; shuffled, the test rows are others and the names of the data say so."""
    small = {"layers": 1, "hidden": [4], "steps": 2, "batch_size": 16, "lr": 1e-3}
    found = [compare("moons", "realnvp", "zoo", 0, shuffled=shuffled, **small) for shuffled in (False, True)]
    assert [line["data"] for line in found] == ["moons", "moons (shuffled)"]
    assert found[0]["score"] != found[1]["score"]
    assert all(line["unit"] == "nats" and -10 < line["valid"] < 0 for line in found)
