"""Denoising and super-resolution at the door, and by enumeration; other ways have files of their own."""

from __future__ import annotations

import pytest
import torch

from inference.evaluation.queries.restoration import denoise, super_resolve
from tests.inference.evaluation.queries.programs import Linear
from tests.zoo.test_chains import all_states, randomise
from zoo import catalogue
from zoo.chains.chow_liu import ChowLiuTree
from zoo.errors import CapabilityError, NonFiniteError, OptionError, ShapeError, SupportError
from zoo.latent.ppca import PPCA


def test_few_bits_are_enumerated() -> None:
    program, states = randomise(ChowLiuTree([2, 4])), all_states([2, 4])
    x = (torch.rand(2, 2, 4) < 0.5).double()
    y = x + 0.5 * torch.randn(2, 2, 4)
    y[1, 0] = torch.nan
    found = denoise(program, y, 0.5, draws=20_000)
    assert (found.how, found.exact) == ("enumerate", True)
    with torch.no_grad():
        noise = -((y[:, None] - states) / 0.5).nan_to_num(0.0).square().sum((-1, -2)) / 2
        truth = torch.einsum("bs,shw->bhw", (program.log_prob(states) + noise).softmax(-1), states)
    # Six standard errors of a share among 20,000 draws.
    assert ((found.mean - truth).abs() < 6 * 0.5 / 20_000**0.5).all()
    small = torch.nn.functional.avg_pool2d(x, 2)
    found = super_resolve(program, small, 2, draws=50)
    assert torch.equal(torch.nn.functional.avg_pool2d(found.values, 2), small.expand(50, -1, -1, -1))


def test_contexts_are_given_along() -> None:
    program = Linear([4], classes=2)
    context, states = torch.tensor([0.0, 1.0]), all_states([4])
    found = denoise(program, torch.full((2, 4), torch.nan), 0.5, context, draws=20_000)
    with torch.no_grad():
        for row in range(2):
            truth = program.log_prob(states, context[row].expand(16)).exp() @ states
            assert ((found.mean[row] - truth).abs() < 6 * 0.5 / 20_000**0.5).all()
    with pytest.raises(ShapeError, match="must match"):
        denoise(program, torch.zeros(2, 4), 0.5, context[:1])
    with pytest.raises(ShapeError):
        denoise(program, torch.zeros(2, 4), 0.5)


def test_what_makes_no_sense_is_refused() -> None:
    program, bits = PPCA([4, 4], 2), catalogue.create("bernoulli-mixture", event_shape=[4, 4])
    for sd in (0.0, -1.0, float("nan")):
        with pytest.raises(OptionError, match="sd"):
            denoise(program, torch.zeros(1, 4, 4), sd)
    with pytest.raises(OptionError, match="factor must divide"):
        super_resolve(program, torch.zeros(1, 2, 2), 3)
    with pytest.raises(ShapeError, match=r"\(N, \*\(2, 2\)\)"):
        super_resolve(program, torch.zeros(1, 4, 4), 2)
    with pytest.raises(NonFiniteError):
        denoise(program, torch.full((1, 4, 4), torch.inf), 0.1)
    with pytest.raises(SupportError, match="multiples of 1/4"):
        super_resolve(bits, torch.full((1, 2, 2), 0.3), 2)
    with pytest.raises(SupportError, match="from 0 to 1"):
        super_resolve(bits, torch.full((1, 2, 2), 1.25), 2)
    assert super_resolve(bits, torch.full((1, 2, 2), 0.3), 2, sd=0.1).how == "mixture"
    with pytest.raises(CapabilityError, match="GAN cannot denoise: it was not made to restore images"):
        denoise(catalogue.create("gan"), torch.zeros(1, 8, 8), 0.1)
    with pytest.raises(CapabilityError, match="too many to enumerate"):
        denoise(catalogue.create("nade"), torch.zeros(1, 8, 8), 0.1)
    with pytest.raises(ShapeError, match="images"):
        super_resolve(PPCA([4], 2), torch.zeros(1, 2), 2)
