"""Data whose modes can be counted: draws lie where the card says, stacks are the digits that their label names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from tests.conftest import FAILURE_RATE
from zoo import datasets
from zoo.datasets.modes import GAUSSIANS
from zoo.datasets.splits import SPLITS


@pytest.mark.parametrize("name", GAUSSIANS)
def test_gaussians_are_drawn_from_their_centres_as_often_and_as_wide_as_said(name):
    data, mixture = datasets.load(name), GAUSSIANS[name]
    x, labels = data.train.x, data.labels["train"]
    centres = torch.tensor(mixture.centres)
    squares = (x - centres[labels]).square().sum() / mixture.sd**2
    assert FAILURE_RATE < stats.chi2.cdf(squares.item(), x.numel()) < 1 - FAILURE_RATE
    counts = torch.bincount(labels, minlength=len(centres)).numpy()
    assert stats.chisquare(counts).pvalue > FAILURE_RATE
    # Modes are apart: every draw is next to its own centre.
    assert torch.equal(torch.cdist(x, centres).argmin(1), labels)


def test_centres_are_a_ring_and_a_grid():
    np.testing.assert_allclose(np.linalg.norm(GAUSSIANS["narrow-ring"].centres, axis=1), 2)
    np.testing.assert_allclose(GAUSSIANS["ring"].centres[[0, 2]], [[2, 0], [0, 2]], atol=1e-15)
    assert sorted(map(tuple, GAUSSIANS["grid25"].centres)) == [(a, b) for a in range(-4, 5, 2) for b in range(-4, 5, 2)]


@pytest.mark.parametrize("name", ["digits", "mnist10k"])
def test_stacks_are_digits_of_their_own_split_and_the_label_says_which(name, request):
    if datasets.card(name).files:
        request.getfixturevalue("zoo_data")
    digits, stacks = datasets.load(name), datasets.load(f"stacked-{name}")
    assert len(stacks.labels["train"].unique()) == 1000
    for split in SPLITS:
        known = {
            image.numpy().tobytes(): int(label)
            for image, label in zip(digits.split(split).x, digits.labels[split], strict=True)
        }
        rows = stacks.split(split).rows(slice(0, 200))
        for image, label in zip(rows.x, stacks.labels[split][:200].tolist(), strict=True):
            assert [known[channel.numpy().tobytes()] for channel in image] == [
                label // 100,
                label // 10 % 10,
                label % 10,
            ]
