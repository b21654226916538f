"""The truth set: exact guides without variance, draws that have the moments stated, files that others can read."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from benchmarks import targets
from benchmarks.targets.target import Reference, Target
from inference.particles import log_weights, unit_log_weights
from tests.conftest import FAILURE_RATE
from tests.inference.toys import Mean
from zoo import datasets
from zoo.adopted import adopt
from zoo.datasets import Data
from zoo.errors import CapabilityError

NAMES = targets.names()
DRAWS = 4000


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Target:
    if request.param == "kidiq":
        request.getfixturevalue("zoo_data")
    return targets.load(request.param)


every_target = pytest.mark.parametrize("target", NAMES, indirect=True)


@every_target
def test_exact_guide_has_the_evidence_as_its_bound_without_variance(target):
    weights = unit_log_weights(log_weights(target.program(), target.posterior, 50, *target.data)[1])
    torch.testing.assert_close(weights, target.log_evidence.reshape(1, -1).expand_as(weights), rtol=1e-10, atol=1e-10)


@every_target
def test_draws_have_the_stated_moments(target):
    draws = target.draw(DRAWS)
    assert draws.keys() == target.mean.keys() == target.sd.keys()
    for site, values in draws.items():
        mean, sd = target.mean[site], target.sd[site]
        assert values.shape == (DRAWS, *mean.shape)
        values = values.to(mean)
        # z-scores of means and second moments. A category that is all but certain may have drawn no exception: then
        # the count is Poisson and not normal, so only sites with at least ten expected exceptions are scored.
        usual = sd.square() * DRAWS > 10 if target.program().sites()[site].is_discrete else torch.ones_like(sd) > 0
        assert usual.any()
        z = ((values.mean(0) - mean) / sd * DRAWS**0.5)[usual]
        squares = (values - mean).square()
        w = ((squares.mean(0) - sd**2) / squares.std(0).clamp(min=1e-12) * DRAWS**0.5)[usual]
        limit = stats.norm.isf(FAILURE_RATE / 2 / (2 * z.numel()))
        assert z.abs().max() < limit
        if not target.program().sites()[site].is_discrete:
            assert w.abs().max() < limit


@every_target
def test_factory_builds_a_fresh_program_with_the_same_parameters(target):
    a, b = target.program(), target.program()
    assert a is not b
    weights = [log_weights(p, target.posterior, 2, *target.data)[1].total for p in (a, b)]
    torch.testing.assert_close(*weights)
    assert set(target.mean) == set(a.sites())
    a.check(*target.data)


@every_target
def test_seed_decides_the_draws(target):
    first, again, other = target.draw(5, seed=1), target.draw(5, seed=1), target.draw(5, seed=2)
    assert all(torch.equal(first[site], again[site]) for site in first)
    assert any(not torch.equal(first[site], other[site]) for site in first)


def test_the_set_has_discrete_and_multimodal_members():
    hows = {targets.load(name).how for name in NAMES if name != "kidiq"}
    assert hows == {"conjugate", "quadrature", "enumeration", "forward-backward", "linear-Gaussian", "grid"}


def a_reference(chains: dict[str, torch.Tensor], build: Any = None) -> Reference:
    return Reference.of(
        chains, name="made", description="Made up.", how="draws", program=build or Mean, data=Data(torch.zeros(3, 1))
    )


def test_a_reference_has_the_moments_of_its_draws_and_gives_each_once() -> None:
    chains = {"z": torch.randn(4, 500, 2) * torch.tensor([1.0, 3.0]) + 1.0}
    found = a_reference(chains)
    flat = chains["z"].reshape(-1, 2)
    torch.testing.assert_close(found.mean["z"], flat.mean(0))
    torch.testing.assert_close(found.sd["z"], flat.std(0))
    assert (found.units, found.is_local) == (1, False)
    drawn = found.draw(300, seed=1)["z"]
    assert drawn.shape == (300, 2)
    assert len(drawn.unique(dim=0)) == 300
    assert torch.equal(drawn, found.draw(300, seed=1)["z"])
    everything = found.draw(10_000)["z"]
    assert torch.equal(everything.sort(0).values, flat.sort(0).values)
    even, odd = found.halves()
    torch.testing.assert_close(even.mean["z"], chains["z"][::2].reshape(-1, 2).mean(0))
    assert torch.equal(odd.chains["z"], chains["z"][1::2])
    early, late = a_reference({"z": chains["z"][:1]}).halves()
    assert torch.equal(early.chains["z"], chains["z"][:1, :250])
    assert torch.equal(late.chains["z"], chains["z"][:1, 250:])


def test_chains_that_have_not_mixed_are_no_truth() -> None:
    apart = torch.randn(4, 500) + torch.tensor([0.0, 0.0, 0.0, 2.0])[:, None]
    with pytest.raises(CapabilityError, match=r"'mu' of 'made'.*R-hat is 1\.\d+"):
        a_reference({"mu": apart})
    slow = torch.randn(4, 2000).cumsum(1) / 2000  # a random walk
    with pytest.raises(CapabilityError, match="run the chains longer"):
        a_reference({"mu": slow})
    stuck = torch.zeros(4, 500)
    with pytest.raises(CapabilityError, match="R-hat is nan"):
        a_reference({"mu": stuck})


def test_what_a_program_computes_is_computed_from_a_methods_draws() -> None:
    data = datasets.load("eight_schools").train
    program = adopt(schools)
    taken = program.take({"y": data.x, "sigma": data.context})
    chains = {"theta": torch.randn(4, 500, 8), "mu": torch.randn(4, 500)}
    found = Reference.of(chains, name="schools", description="", how="draws", program=lambda: program, data=taken)
    draws = {"mu": torch.randn(5), "tau": torch.rand(5), "eta": torch.randn(5, 8)}
    answer = found.of_answer(program, draws)
    assert answer.keys() == {"theta", "mu"}
    torch.testing.assert_close(answer["theta"], draws["mu"][:, None] + draws["tau"][:, None] * draws["eta"])
    torch.testing.assert_close(answer["mu"], draws["mu"])
    only = a_reference({"mu": chains["mu"]})
    assert only.of_answer(program, draws).keys() == {"mu"}


def schools(y: torch.Tensor, sigma: torch.Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(torch.tensor(0.0), 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(torch.tensor(5.0)))
    eta = pyro.sample("eta", dist.Normal(torch.zeros_like(sigma), 1.0).to_event(1))
    theta = pyro.deterministic("theta", mu[..., None] + tau[..., None] * eta)
    pyro.sample("y", dist.Normal(theta, sigma).to_event(1), obs=y)
