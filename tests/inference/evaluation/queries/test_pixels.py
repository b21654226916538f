"""Likelihoods and draws of independent numbers under an observation against enumeration and a dense Gaussian."""

from __future__ import annotations

import math

import pytest
import torch
from pyro.distributions import Bernoulli, Categorical, MultivariateNormal, Normal
from torch import Tensor

from inference.evaluation.queries.pixels import Bits, Normals, Numbers, numbers_of
from inference.evaluation.queries.questions import Question, blocks_of
from tests.conftest import FAILURE_RATE
from tests.zoo.test_chains import all_states, chi_square

SITES = {"one by one": torch.arange(4)[:, None], "blocks": torch.tensor([[0, 3], [2, 1]])}


def bits_question(sites: Tensor, sd: float) -> Question:
    """Of three rows: all is observed, a part, nothing."""
    x = torch.tensor([[1.0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 1, 1]])
    y = x[:, sites].mean(-1) + sd * torch.randn(3, len(sites))
    y[1, 0] = y[2] = torch.nan
    return Question("", y, sites, sd=sd)


def joint_of_bits(question: Question, logits: Tensor) -> tuple[Tensor, Tensor]:
    """All states (16, 4) and log p(state, y), (16, 3), by the book."""
    states = all_states([4])
    off = (question.means(states)[:, None] - question.y).nan_to_num(0.0)
    if question.noiseless:
        noise = torch.where(off.abs() < 1e-9, 0.0, -torch.inf).sum(-1)
    else:
        each = -(off / question.sd).square() / 2 - math.log(question.sd * math.sqrt(2 * math.pi))
        noise = (each * ~question.y.isnan()).sum(-1)
    return states, Bernoulli(logits=logits).log_prob(states[:, None]).sum(-1) + noise


@pytest.mark.parametrize("sites", SITES)
@pytest.mark.parametrize("sd", [0.0, 0.4])
def test_bits_are_summed_and_drawn_as_by_enumeration(sites: str, sd: float) -> None:
    question, logits = bits_question(SITES[sites], sd), torch.randn(3, 4)
    numbers = numbers_of(Bernoulli(logits=logits).to_event(1), question)
    assert type(numbers) is Bits
    states, joint = joint_of_bits(question, logits)
    torch.testing.assert_close(numbers.log_likelihood(), joint.logsumexp(0))
    many = numbers_of(Bernoulli(logits=logits.expand(4000, 3, 4)).to_event(1), question)
    assert many is not None
    index = (many.draw().long() * 2 ** torch.arange(3, -1, -1)).sum(-1)
    assert torch.equal(states[9], torch.tensor([1.0, 0, 0, 1]))  # the order that the index counts in
    for row in range(3):
        share = joint[:, row].softmax(0)
        counts = torch.bincount(index[:, row], minlength=16)
        assert int(counts[share == 0].sum()) == 0
        some = share > 0
        assert int(some.sum()) == 1 or chi_square(share[some], counts[some]) > FAILURE_RATE / 3


@pytest.mark.parametrize("sites", SITES)
@pytest.mark.parametrize("sd", [0.0, 0.7])
def test_normal_numbers_have_the_density_and_the_moments_of_a_dense_gaussian(sites: str, sd: float) -> None:
    loc, scale = torch.randn(2, 4), 0.5 + torch.rand(2, 4)
    y = torch.randn(2, len(SITES[sites]))
    y[1, 0] = torch.nan
    question = Question("", y, SITES[sites], sd=sd)
    numbers = numbers_of(Normal(loc, scale).to_event(1), question)
    assert type(numbers) is Normals
    many = numbers_of(Normal(loc.expand(40_000, 2, 4), scale.expand(40_000, 2, 4)).to_event(1), question)
    assert many is not None
    drawn = many.draw()
    for row in range(2):
        there = ~y[row].isnan()
        operator, covariance = question.matrix(y)[there], scale[row].square().diag()
        square = operator @ covariance @ operator.T + sd**2 * torch.eye(len(operator))
        truth = MultivariateNormal(operator @ loc[row], square)
        torch.testing.assert_close(numbers.log_likelihood()[row], truth.log_prob(y[row, there]))
        gain = covariance @ operator.T @ torch.linalg.inv(square)
        mean = loc[row] + gain @ (y[row, there] - truth.mean)
        left = covariance - gain @ operator @ covariance
        # Six standard errors of 40,000 draws.
        assert ((drawn[:, row].mean(0) - mean).abs() <= 6 * left.diagonal().clamp(min=0).sqrt() / 200 + 1e-9).all()
        assert (torch.cov(drawn[:, row].T) - left).abs().max() < 6 * 2**0.5 * float(covariance.max()) / 200


def test_other_numbers_are_known_for_certain_or_not_at_all() -> None:
    fn = Categorical(logits=torch.randn(2, 2, 2, 3)).to_event(2)
    y = torch.tensor([[0.0, 2, 1, 1], [1, torch.nan, 0, 2]])
    question = Question("", y, SITES["one by one"], sd=0.0)
    numbers = numbers_of(fn, question)
    assert type(numbers) is Numbers
    logs = fn.base_dist.logits.reshape(2, 4, 3)
    expected = logs.gather(-1, y.nan_to_num().long()[..., None]).squeeze(-1)
    expected[1, 1] = 0.0
    torch.testing.assert_close(numbers.log_likelihood(), expected.sum(-1))
    assert numbers.draw().shape == (2, 4)
    assert numbers.why_not(question) is None
    assert "neither normal nor bits" in str(numbers.why_not(Question("", y, SITES["one by one"], sd=0.1)))


def test_numbers_that_depend_on_each_other_are_none() -> None:
    question = Question("", torch.zeros(2, 4), SITES["one by one"], sd=0.1)
    assert numbers_of(MultivariateNormal(torch.zeros(2, 4), torch.eye(4)), question) is None


def test_blocks_are_those_of_pooled_images() -> None:
    x = torch.rand(2, 3, 4, 6)
    question = Question("", torch.zeros(2, 18), blocks_of((3, 4, 6), 2), sd=0.0)
    pooled = torch.nn.functional.avg_pool2d(x, 2).flatten(1)
    torch.testing.assert_close(question.means(x.flatten(1)), pooled)
    torch.testing.assert_close(x.flatten(1) @ question.matrix(x).T, pooled)
    torch.testing.assert_close(question.means(question.spread(pooled)), pooled)
