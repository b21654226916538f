"""Latents as one vector a unit: there and back, with the log determinants of autograd."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import constraints

from inference.unconstrained import Coordinates
from zoo.errors import CapabilityError
from zoo.program import Site

SUPPORTS = {
    "line": (constraints.real, ()),
    "rate": (constraints.positive, ()),
    "share": (constraints.unit_interval, ()),
    "scales": (constraints.independent(constraints.positive, 1), (3,)),
    "simplex": (constraints.simplex, (4,)),
    "table": (constraints.independent(constraints.simplex, 1), (2, 3)),
}
DIMENSIONS = {"line": 1, "rate": 1, "share": 1, "scales": 3, "simplex": 3, "table": 4}
"""Free numbers of each."""


def sites(**is_global: bool) -> dict[str, Site]:
    return {
        name: Site(name, torch.Size(SUPPORTS[name][1]), flag, False, SUPPORTS[name][0], "")
        for name, flag in is_global.items()
    }


@pytest.mark.parametrize("name", SUPPORTS)
def test_there_and_back_in_the_support(name):
    coordinates = Coordinates(sites(**{name: False}), batch=5)
    assert (coordinates.units, coordinates.size) == (5, DIMENSIONS[name])
    z = torch.randn(7, 5, coordinates.size)
    values, log_dets = coordinates.unpack(z)
    support, shape = SUPPORTS[name]
    assert values[name].shape == (7, 5, *shape)
    assert log_dets[name].shape == (7, 5)
    assert bool(support.check(values[name]).all())
    torch.testing.assert_close(coordinates.pack(values), z)


@pytest.mark.parametrize("name", [n for n in SUPPORTS if n not in ("simplex", "table")])
def test_log_determinants_are_those_of_autograd(name):
    coordinates = Coordinates(sites(**{name: False}), batch=1)
    z = torch.randn(coordinates.size)
    log_dets = coordinates.unpack(z[None, None])[1]

    def flat(z: torch.Tensor) -> torch.Tensor:
        return coordinates.unpack(z[None, None])[0][name].reshape(-1)

    jacobian = torch.autograd.functional.jacobian(flat, z)
    torch.testing.assert_close(log_dets[name].reshape(()), torch.linalg.slogdet(jacobian)[1])


def test_the_log_determinant_of_a_simplex_is_that_of_its_free_entries():
    coordinates = Coordinates(sites(table=False), batch=1)
    z = torch.randn(coordinates.size)

    def free(z: torch.Tensor) -> torch.Tensor:
        return coordinates.unpack(z[None, None])[0]["table"][0, 0, :, :-1].reshape(-1)

    jacobian = torch.autograd.functional.jacobian(free, z)
    found = coordinates.unpack(z[None, None])[1]["table"]
    torch.testing.assert_close(found.reshape(()), torch.linalg.slogdet(jacobian)[1])


def test_a_global_site_ties_the_examples_into_one_vector():
    coordinates = Coordinates(sites(rate=True, scales=False, line=False), batch=4)
    assert coordinates.tied
    assert (coordinates.units, coordinates.size) == (1, 1 + 4 * 3 + 4)
    z = torch.randn(6, 1, coordinates.size)
    values, log_dets = coordinates.unpack(z)
    assert {name: tuple(v.shape) for name, v in values.items()} == {
        "rate": (6, 1), "scales": (6, 4, 3), "line": (6, 4),
    }  # fmt: skip
    torch.testing.assert_close(coordinates.pack(values), z)
    # exp has its own value as derivative, so the log determinant is the sum of what is unconstrained.
    total = coordinates.total(log_dets)
    assert total.shape == (6, 1)
    torch.testing.assert_close(total, z[..., :13].sum(-1))


def test_examples_may_be_tied_without_a_global_site_and_one_draw_serves_many():
    coordinates = Coordinates(sites(line=False), batch=3, tied=True)
    assert (coordinates.units, coordinates.size) == (1, 3)
    many = Coordinates(sites(rate=True, line=False), batch=3)
    packed = many.pack({"rate": torch.full((1, 1), 2.0), "line": torch.zeros(5, 3)})
    assert packed.shape == (5, 1, 4)
    torch.testing.assert_close(packed[..., 0], torch.full((5, 1), 2.0).log())


def test_a_discrete_site_has_no_coordinates():
    coin = {"k": Site("k", torch.Size(), False, True, constraints.boolean, "Bernoulli")}
    with pytest.raises(CapabilityError, match="'k' is discrete"):
        Coordinates(coin, 3)
