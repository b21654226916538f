"""Noise-contrastive estimation: least at density and constant of the data, whatever the noise."""

from __future__ import annotations

import pytest
import torch

from inference import fit
from inference.methods.nce import NoiseContrastive
from zoo.chains.independent import Independent
from zoo.energy.deep import DeepEnergy
from zoo.energy.rbm import RBM
from zoo.errors import CapabilityError
from zoo.flows.realnvp import RealNVP


@pytest.fixture
def truth() -> RBM:
    torch.manual_seed(0)
    program = RBM([5], 3)
    with torch.no_grad():
        program.weight.copy_(torch.randn(5, 3))
        program.bias.copy_(0.5 * torch.randn(5))
    return program


def noise_for(kind: str, x: torch.Tensor) -> object:
    if kind == "base":
        return "base"
    program = Independent([5])
    program.m_step(program.e_step(x)[1])
    return program


@pytest.mark.parametrize("ratio", [1, 3])
@pytest.mark.parametrize("kind", ["base", "independent"])
def test_the_truth_has_no_slope(truth, kind, ratio):
    """50 gradients at the data's own density and constant: each mean within 4.5 standard errors of zero; with a wrong
    constant its slope is far from it, and points back."""
    torch.manual_seed(1)
    noise = noise_for(kind, truth.draw_exactly(2000))
    method = NoiseContrastive(noise=noise, ratio=ratio)
    constant = truth.log_partition().detach()

    def slopes(at: torch.Tensor) -> torch.Tensor:
        rows = []
        for _ in range(50):
            c = at.clone().requires_grad_()
            loss = method.loss(truth, truth.draw_exactly(500), c)
            rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*truth.parameters(), c])]))
        return torch.stack(rows)

    found = slopes(constant)
    assert bool((found.mean(0).abs() < 4.5 * found.std(0) / 50**0.5).all())
    for wrong in (-0.5, 0.5):
        slope = slopes(constant + wrong)[:, -1]
        assert wrong * float(slope.mean()) > 0
        assert float(slope.mean().abs()) > 10 * float(slope.std()) / 50**0.5


def test_density_and_constant_are_found_again(truth):
    torch.manual_seed(2)
    x = truth.draw_exactly(5000)
    with torch.no_grad():
        best = float(truth.log_partition() - truth.unnormalised_log_prob(x).mean())
        truth.weight.mul_(0.7)
    found = fit(truth, x, "nce", ratio=2, steps=400, lr=0.02, batch_size=500, initialise=False)
    with torch.no_grad():
        after = float(truth.log_partition() - truth.unnormalised_log_prob(x).mean())
    assert after < best + 0.01
    assert found.info["log_partition"] == pytest.approx(float(truth.log_partition().detach()), abs=0.1)


def test_what_it_refuses():
    x = torch.zeros(10, 5)
    with pytest.raises(CapabilityError, match="exact density, got RBM"):
        fit(RBM([5], 3), x, "nce", noise=RBM([5], 3), steps=1)
    with pytest.raises(CapabilityError, match="shape"):
        fit(RBM([5], 3), x, "nce", noise=Independent([4]), steps=1)
    with pytest.raises(CapabilityError, match="some examples no density"):
        fit(DeepEnergy([2]), torch.randn(400, 2), "nce", noise=Boxed([2]), steps=1)


class Boxed(RealNVP):
    """Has a density in a box, which some data leave."""

    def log_prob(self, x, context=None):
        return torch.where((x.abs() < 2).all(-1), 0.0, -torch.inf)
