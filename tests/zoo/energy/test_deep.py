"""Deep energies: the contract, and a path that is right at both ends."""

from __future__ import annotations

import pytest
import torch

from zoo.energy.deep import DeepEnergy
from zoo.errors import OptionError, ShapeError
from zoo.testing import check_program


@pytest.mark.parametrize(
    "options",
    [{}, {"event_shape": [3], "hidden": [4]}, {"event_shape": [6, 5], "network": "conv", "hidden": [2, 3]}],
)
def test_contract(options):
    check_program(DeepEnergy(**{"draw_sweeps": 3, "particles": 8, **options}))


def test_it_is_the_base_and_a_network():
    torch.manual_seed(0)
    program = DeepEnergy([3], hidden=[8])
    x = 2 * torch.randn(50, 3) + 1
    program.initialise(x)
    torch.testing.assert_close(program.tempered(x, 0.0), program.base().log_prob(x))
    seen = (x - x.mean(0)) / program.spread
    torch.testing.assert_close(
        program.unnormalised_log_prob(x) - program.base().log_prob(x), program.net(seen).squeeze(-1)
    )
    torch.testing.assert_close(program.spread, x.std(0))
    assert bool((program.particles != 0).all())


def test_columns_have_units_of_their_own_and_pixels_share_one():
    torch.manual_seed(0)
    x = torch.randn(500, 3) * torch.tensor([1e5, 1e-3, 0.0]) + torch.tensor([3e6, 0.0, 7.0])
    rows = DeepEnergy([3])
    rows.initialise(x)
    torch.testing.assert_close(rows.spread, torch.cat([x.std(0)[:2], torch.tensor([1e-2])]))
    moved = (rows.sweep(x) - x).abs().mean(0) / rows.spread
    assert float(moved.max() / moved.min()) < 2
    image = DeepEnergy([4, 4], network="conv", hidden=[2])
    image.initialise(torch.rand(20, 4, 4) * torch.linspace(0, 1, 4))
    assert float(image.spread.max() - image.spread.min()) == 0


def test_options():
    with pytest.raises(ShapeError):
        DeepEnergy([4], network="conv")
    with pytest.raises(OptionError):
        DeepEnergy(activation="relu")  # whose slopes jump


def test_integrals_stay_finite_far_away():
    program = DeepEnergy([1], hidden=[16])
    with torch.no_grad():
        for p in program.parameters():
            p.mul_(5)
    far = torch.tensor([[1e3], [1e4], [1e5]])
    value = program.unnormalised_log_prob(far).detach()
    assert float(value[0]) > float(value[1]) > float(value[2])
