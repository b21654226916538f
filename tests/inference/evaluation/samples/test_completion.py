"""Completions: the exact conditional against Gaussian conditioning by blocks, the scores against numbers by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inference.evaluation.samples.completion import (
    completion_scores,
    frechet_in_components,
    gaussian_completion,
    nearest_completion,
)
from zoo.errors import EmptyDataError, OptionError, ShapeError
from zoo.latent.ppca import PPCA


def conditional(program: PPCA, row: Tensor, here: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the missing numbers of a row, from the joint covariance."""
    with torch.no_grad():
        covariance = program.weight @ program.weight.T + program.scale**2 * torch.eye(len(row))
        gain = covariance[~here][:, here] @ torch.linalg.inv(covariance[here][:, here])
        mean = program.mean[~here] + gain @ (row - program.mean)[here]
        return mean, covariance[~here][:, ~here] - gain @ covariance[here][:, ~here]


@pytest.fixture
def program() -> PPCA:
    found = PPCA([2, 3], 2)
    with torch.no_grad():
        found.weight.copy_(torch.randn(6, 2))
        found.mean.copy_(torch.randn(6))
        found.scale = torch.tensor(0.4)
    return found


def test_the_gaussian_conditional_is_that_of_the_blocks(program: PPCA) -> None:
    x, known = torch.randn(3, 2, 3), torch.rand(3, 2, 3) > 0.5
    known[2] = False  # nothing known: the prior
    draws = 40_000
    mean, drawn = gaussian_completion(program, x, known, draws=draws)
    assert torch.equal(mean[known], x[known])
    assert torch.equal(drawn[:, known], x[known].expand(draws, -1))
    for i in range(3):
        here = known[i].flatten()
        want, covariance = conditional(program, x[i].flatten(), here)
        assert torch.allclose(mean[i].flatten()[~here], want)
        got = drawn[:, i].flatten(1)[:, ~here]
        variance = covariance.diagonal()
        # Five standard errors: of a mean, and of a covariance of normal numbers.
        assert ((got.mean(0) - want).abs() < 5 * (variance / draws).sqrt()).all()
        error = ((covariance.square() + torch.outer(variance, variance)) / draws).sqrt()
        assert ((torch.cov(got.T).reshape(covariance.shape) - covariance).abs() < 5 * error).all()


def test_scores_by_hand() -> None:
    x = torch.tensor([[0.5, 0.2], [1.0, 0.0]])
    known = torch.tensor([[False, True], [False, True]])
    completions = torch.tensor([[[0.0, 0.2], [1.0, 0.0]], [[1.0, 0.2], [0.5, 0.3]]])
    found = completion_scores(completions, x, known)
    assert found.kept == pytest.approx(0.3)
    # Means 0.5 and 0.75 for 0.5 and 1.
    assert found.rmse == pytest.approx((0.25**2 / 2) ** 0.5)
    # Absolute errors 0.5, 0.5; 0, 0.5, less half the distances 1 and 0.5 of the two.
    assert found.crps == pytest.approx((0.5 + 0.25) / 2 - (1.0 + 0.5) / 4)
    assert found.spread == pytest.approx(((0.5 + 0.125) / 2) ** 0.5)
    single = completion_scores(completions[:1], x, known)
    assert (single.crps, single.spread, single.completions) == (pytest.approx(0.25), 0.0, 1)


def test_the_score_is_least_for_the_true_spread() -> None:
    x, known = torch.randn(1, 20_000), torch.zeros(1, 20_000, dtype=torch.bool)
    scores = [completion_scores(s * torch.randn(4, 1, 20_000), x, known).crps for s in (0.5, 1.0, 2.0)]
    # E|X - x| - E|X - X'| / 2 of N(0, s^2) on N(0, 1) is (2 / pi)^1/2 ((1 + s^2)^1/2 - s / 2^1/2).
    want = [(2 / torch.pi) ** 0.5 * ((1 + s * s) ** 0.5 - s / 2**0.5) for s in (0.5, 1.0, 2.0)]
    assert scores == pytest.approx(want, abs=0.03)
    assert min(scores) == scores[1]


def test_the_nearest_is_chosen_by_what_is_known() -> None:
    train = torch.tensor([[0.0, 0.0, 0.7], [1.0, 1.0, 0.1]])
    x = torch.tensor([[0.9, 0.0, 0.5], [0.9, 0.0, 0.5]])
    known = torch.tensor([[True, False, False], [False, True, False]])
    assert torch.equal(nearest_completion(x, known, train), torch.tensor([[0.9, 1.0, 0.1], [0.0, 0.0, 0.7]]))


def test_the_distance_in_components_sees_a_shift_along_one() -> None:
    train = torch.randn(50, 4) * torch.tensor([5.0, 3.0, 1.0, 0.1])
    x = train[:30]
    directions = torch.linalg.svd(train - train.mean(0), full_matrices=False).Vh
    assert frechet_in_components(x, x, train, 2) == pytest.approx(0.0, abs=1e-8)
    assert frechet_in_components(x + 0.5 * directions[1], x, train, 2) == pytest.approx(0.25)
    assert frechet_in_components(x + 0.5 * directions[2], x, train, 2) == pytest.approx(0.0, abs=1e-8)


def test_bad_questions(program: PPCA) -> None:
    x, known = torch.rand(2, 2, 3), torch.ones(2, 2, 3, dtype=torch.bool)
    with pytest.raises(EmptyDataError, match="nothing to be completed"):
        completion_scores(x[None], x, known)
    with pytest.raises(ShapeError, match="booleans of shape"):
        nearest_completion(x, known.double(), x)
    with pytest.raises(ShapeError, match="Completions must have shape"):
        completion_scores(x, x, ~known)
    with pytest.raises(OptionError, match="draws"):
        gaussian_completion(program, x, known, draws=0)
    with pytest.raises(OptionError, match="components must be at most 1"):
        frechet_in_components(x, x, x, 2)
