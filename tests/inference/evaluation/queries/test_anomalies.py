"""Scores in bits, ROC curves known by hand, and the length of an ideal code."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from inference.evaluation.queries.anomalies import anomaly_scores, auroc, code_length
from tests.inference.evaluation.queries.programs import Linear
from tests.zoo.test_chains import all_states
from zoo.bayes.coin import BetaBernoulli
from zoo.chains.independent import Independent
from zoo.datasets import Data
from zoo.errors import CapabilityError, NonFiniteError, ShapeError


def test_scores_are_bits_per_dimension():
    program = Linear([3, 4])
    x = (torch.rand(5, 3, 4) < 0.5).double()
    torch.testing.assert_close(anomaly_scores(program, x), -program.log_prob(x).detach() / 12 / math.log(2))
    fair = Independent([12])
    torch.testing.assert_close(anomaly_scores(fair, x.reshape(5, 12)), torch.ones(5))
    with pytest.raises(CapabilityError, match="global latents"):
        anomaly_scores(BetaBernoulli(), torch.ones(4))


def test_auroc_by_hand():
    assert auroc(torch.tensor([0.0, 1.0]), torch.tensor([2.0, torch.inf])) == 1.0
    assert auroc(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])) == 0.0
    assert auroc(torch.zeros(5), torch.zeros(3)) == 0.5
    # Pairs (normal, anomalous) in the right order: 1<2, 1<4, 3<4; a tie 2=2 is half; 3>2 is none.
    assert auroc(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0])) == pytest.approx((2 + 1.5 + 1) / 6)
    with pytest.raises(NonFiniteError):
        auroc(torch.tensor([torch.nan]), torch.zeros(1))
    with pytest.raises(ShapeError):
        auroc(torch.zeros(0), torch.zeros(1))


def test_anomalies_of_a_known_kind_are_found_as_often_as_theory_says():
    # Bits of probability 0.8 against fair ones: the score is linear in the number of ones, a binomial variable.
    n, rows = 20, 4000
    program = Independent([n])
    with torch.no_grad():
        program.logits.copy_(torch.tensor([0.2, 0.8]).log())
    normal, odd = ((torch.rand(rows, n) < p).double() for p in (0.8, 0.5))
    k = torch.arange(n + 1)
    p, q = (torch.as_tensor(stats.binom(n, share).pmf(k.numpy())) for share in (0.8, 0.5))
    exact = (p[:, None] * q * ((k < k[:, None]).double() + 0.5 * (k == k[:, None]))).sum()
    found = auroc(anomaly_scores(program, normal), anomaly_scores(program, odd))
    # A rank statistic of 4,000 against 4,000 has a standard error of at most 0.5 / sqrt(4000) = 0.008; five of them.
    assert found == pytest.approx(exact.item(), abs=0.04)


def test_an_ideal_code_is_as_long_as_the_density_says():
    program = Linear([12])
    lengths = code_length(program, Data(all_states([12])))
    # Kraft: equality, since no probability is lost.
    assert (2.0**-lengths).sum().item() == pytest.approx(1.0, abs=1e-10)
    with pytest.raises(CapabilityError, match="real numbers"):
        code_length(Linear([4], "gaussian-mixture"), Data(torch.randn(3, 4)))
