"""Peers of the flows: the same size, densities of the same kind, and one loop that trains them all."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from benchmarks.peers.flows import CONTENDERS, KINDS, build, train


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
