"""The Hamiltonian transition: reversible, exact in its limits, and leaving a known density as it is."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from inference.hmc import Transition, transition
from tests.conftest import FAILURE_RATE

SCALES = torch.tensor([0.5, 2.0])


def gaussian(values: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Independent normals of two sites, and the sum of the values besides."""
    z, w = values["z"], values["w"]
    density = -0.5 * (z / SCALES).square().sum(-1) - 0.5 * (w - 1).square()
    return density, z.sum(-1) + w


def start(chains: int, units: int) -> dict[str, Tensor]:
    return {"z": torch.randn(chains, units, 2) * SCALES, "w": 1 + torch.randn(chains, units)}


def test_draws_of_the_density_stay_draws_of_it() -> None:
    values = start(4000, 3)
    for _ in range(5):
        moved = transition(gaussian, values, torch.full((4000, 3), 0.7), 4)
        values = moved.values
    assert 0.5 < float(moved.acceptance.mean()) < 0.999, "every proposal was accepted: the test would see no mistake"
    for unit in range(3):
        for dimension in range(2):
            assert kstest(values["z"][:, unit, dimension] / SCALES[dimension], "norm").pvalue > FAILURE_RATE
        assert kstest(values["w"][:, unit] - 1, "norm").pvalue > FAILURE_RATE


def test_one_step_is_langevins_proposal() -> None:
    """With one leapfrog step z' = z + s p + s^2 / 2 grad, accepted by the energies at both ends; worked out by hand."""
    z = torch.tensor([[[0.3]], [[-1.2]]])
    torch.manual_seed(1)
    momentum, uniform = torch.randn(2, 1, 1), torch.rand(2, 1)
    torch.manual_seed(1)
    moved = transition(lambda v: (-0.5 * v["z"].square().sum(-1),) * 2, {"z": z}, torch.tensor(0.9), 1)
    new = z + 0.9 * momentum - 0.9**2 / 2 * z
    end = momentum - 0.45 * z - 0.45 * new
    energies = [(0.5 * a.square() + 0.5 * p.square()).squeeze(-1) for a, p in ((z, momentum), (new, end))]
    rate = (energies[0] - energies[1]).exp().clamp(max=1)
    torch.testing.assert_close(moved.acceptance, rate, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moved.values["z"], torch.where((uniform < rate)[..., None], new, z))


def test_what_is_said_besides_belongs_to_the_state_that_was_kept() -> None:
    values = start(50, 4)
    moved = transition(gaussian, values, torch.tensor(0.9), 3)
    kept = (moved.values["w"] == values["w"]).double().mean()
    assert 0 < float(kept) < 1
    torch.testing.assert_close(moved.aside, gaussian(moved.values)[1])


@pytest.mark.parametrize("bad", [float("inf"), float("nan"), -float("inf")])
def test_a_trajectory_that_ends_nowhere_is_rejected(bad: float) -> None:
    def broken(values: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        inside = (values["z"] - 0.1).abs() < 1e-9
        density = torch.where(inside, -values["z"].square(), values["z"] * 0 + bad).sum(-1)
        return density, density

    z = torch.full((6, 2, 1), 0.1)
    moved: Transition = transition(broken, {"z": z}, torch.tensor(0.5), 2)
    assert torch.equal(moved.values["z"], z)
    assert bool((moved.acceptance == 0).all())
