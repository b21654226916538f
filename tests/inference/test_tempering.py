"""Prior and rest of a tempered posterior make up the joint density; what moves leave as it is."""

from __future__ import annotations

import math

import pytest
import torch

import zoo
from inference.particles import log_joint
from inference.tempering import Tempered, move, why_no_tempering, why_not_summed_out
from tests.inference.methods.test_nuts import Counts, Switch
from tests.inference.posteriors import FAR, correlated, far, flat
from tests.inference.toys import Pair, Rate, Sampler, linear
from zoo import create
from zoo.mixtures.bernoulli import BernoulliMixture


@pytest.mark.parametrize("make", [Pair, Rate, linear, Switch])
def test_both_parts_together_are_the_joint_density(make) -> None:
    program = make()
    x = program.generate(3)
    problem = Tempered(program, x)
    z = problem.draw_start(4)
    start, rest = problem.log_densities(z)
    values, log_dets = problem.coordinates.unpack(z)
    joint = log_joint(program, values, x)
    whole = joint.total[:, None] if problem.coordinates.tied else joint.local
    torch.testing.assert_close(start + rest, whole + problem.coordinates.total(log_dets))


def test_the_start_is_the_prior_of_what_is_moved() -> None:
    """The latent that is summed out belongs to the rest, and the mean's prior is N(0, 2)."""
    problem = Tempered(Switch(), torch.tensor([0.3, 2.0]))
    z = torch.tensor([[[0.5]], [[-1.0]]])
    start, rest = problem.log_densities(z)
    torch.testing.assert_close(start, torch.distributions.Normal(0.0, 2.0).log_prob(z[..., 0]))
    parts = [torch.distributions.Normal(z + shift, 1.0).log_prob(torch.tensor([0.3, 2.0])) for shift in (0.0, 3.0)]
    torch.testing.assert_close(rest, torch.logaddexp(*parts).sum(-1) - 2 * math.log(2))


def test_adopted_code_is_tempered_too() -> None:
    program = zoo.adopt(far)
    problem = Tempered(program, *program.take(FAR))
    start, rest = problem.log_densities(torch.tensor([[[9.0]]]))
    assert float(start) == pytest.approx(float(torch.distributions.Normal(0.0, 1.0).log_prob(torch.tensor(9.0))))
    assert float(rest) == pytest.approx(float(torch.distributions.Normal(9.0, 0.5).log_prob(torch.tensor(12.0))))


def test_moves_leave_the_tempered_density_as_it_is() -> None:
    """N(0, 1) times N(z - 2, 1) to the half is a normal of mean 2/3 and variance 2/3."""

    def pair(z):
        one = torch.distributions.Normal(0.0, 1.0)
        return one.log_prob(z).sum(-1), one.log_prob(z - 2).sum(-1)

    n = 20_000
    z = 2 / 3 + math.sqrt(2 / 3) * torch.randn(n, 1, 1)
    moved, rest, rate = move(pair, z, torch.tensor(0.5), torch.tensor([0.9]), 2)
    assert abs(float(moved.mean()) - 2 / 3) < 4.3 * math.sqrt(2 / 3 / n)
    assert abs(float(moved.var()) / (2 / 3) - 1) < 4.3 * math.sqrt(2 / n)
    assert float((moved - z).abs().mean()) > 0.5
    assert 0.5 < float(rate) < 1
    torch.testing.assert_close(rest, pair(moved)[1])


def test_what_cannot_be_tempered() -> None:
    adopted = zoo.adopt(flat)
    adopted.take({"y": torch.tensor(0.0)})
    assert why_no_tempering(Pair()) is None
    assert why_no_tempering(Switch()) is None
    assert "implicit" in why_no_tempering(Sampler())
    assert "no continuous latent" in why_no_tempering(BernoulliMixture([3], 2))
    assert "'a' is flat" in why_no_tempering(adopted)
    assert why_not_summed_out(Counts()) == "its discrete latent sites ['z'] cannot be summed out"
    assert "stand beside continuous ones" in why_not_summed_out(create("semi-supervised-vae"))


def test_a_particle_where_a_matrix_has_no_decomposition_ends_no_other() -> None:
    """The factor is 1 - z^2; trying to move there is refused."""
    program = zoo.adopt(correlated)
    data = program.take({"y": torch.tensor(2.0)})
    problem = Tempered(program, *data)
    z = torch.tensor([[[0.5]], [[-1.5]], [[-0.2]], [[3.0]]], requires_grad=True)
    rest = problem.log_densities(z)[1]
    there, at = torch.tensor([True, False, True, False]), z[..., 0]
    torch.testing.assert_close(rest[there], (1 - at.square())[there].log())
    assert bool(rest[~there].isnan().all())
    (slope,) = torch.autograd.grad(rest.sum(), z)
    torch.testing.assert_close(slope[there, 0], (-2 * at / (1 - at.square()))[there])
    still = torch.tensor([[[0.5]], [[-0.2]]])
    states, rest, accepted = move(problem.log_densities, still, torch.tensor(1.0), torch.tensor(1e3), 1)
    assert torch.equal(states, still)
    torch.testing.assert_close(rest, (1 - still[..., 0].square()).log())
    assert float(accepted) == 0.0
