"""Scores of codes on codes of which the answer is known: exact shares, exact gaps, chance where nothing is told."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from inference.evaluation.samples.representation import (
    few_of_each,
    linear_probe,
    mutual_information_gap,
    neighbour_probe,
    plane,
)
from zoo.errors import EmptyDataError, NonFiniteError, OptionError, ShapeError

SIZES = {"train": 600, "valid": 200, "test": 400}


def labels() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {split: torch.randint(4, (n,)) for split, n in SIZES.items()}


def one_hot(given: dict[str, Tensor]) -> dict[str, Tensor]:
    return {split: torch.eye(4)[y] for split, y in given.items()}


@pytest.mark.parametrize("probe", [linear_probe, neighbour_probe])
def test_a_code_that_names_the_class_tells_it_always_and_noise_by_chance(probe) -> None:
    y = labels()
    found = probe(one_hot(y), y)
    assert (found.accuracy, found.standard_error, found.train) == (1.0, 0.0, 600)
    noise = {split: torch.randn(n, 5) for split, n in SIZES.items()}
    chance = probe(noise, y)
    assert abs(chance.accuracy - 0.25) < 4 * chance.standard_error
    assert chance.standard_error == pytest.approx(math.sqrt(chance.accuracy * (1 - chance.accuracy) / 400))


def test_what_no_line_tells_neighbours_do() -> None:
    """Inside or outside of a ring: half-planes know next to nothing, the nearest know all but the edge."""
    torch.manual_seed(1)
    codes = {split: torch.randn(n, 2) for split, n in SIZES.items()}
    inside = {split: (x.norm(dim=1) < 1.18).long() for split, x in codes.items()}  # half of the mass
    assert linear_probe(codes, inside).accuracy < 0.65
    assert neighbour_probe(codes, inside).accuracy > 0.93


def test_a_linear_probe_does_not_mind_scales() -> None:
    y = labels()
    codes = {split: x + 0.5 * torch.randn(len(x), 4) for split, x in one_hot(y).items()}
    scaled = {split: 3 + x * torch.tensor([1e-4, 1.0, 1e3, 10.0]) for split, x in codes.items()}
    assert linear_probe(codes, y) == linear_probe(scaled, y)


def test_penalty_and_neighbours_are_chosen_on_validation_examples_and_not_on_the_test() -> None:
    """Labels of training examples are often wrong: one neighbour repeats the mistake, many outvote it."""
    torch.manual_seed(2)
    y = {split: torch.randint(2, (n,)) for split, n in SIZES.items()}
    codes = {split: 3.0 * value[:, None] + 0.3 * torch.randn(len(value), 2) for split, value in y.items()}
    told = {**y, "train": torch.where(torch.rand(600) < 0.3, 1 - y["train"], y["train"])}
    found = neighbour_probe(codes, told)
    assert found.chosen >= 10
    assert found.accuracy > 0.95
    # Where validation labels have the mistakes of the training examples themselves, the nearest is best.
    copied = {"train": codes["train"], "valid": codes["train"], "test": codes["test"]}
    repeated = neighbour_probe(copied, {"train": told["train"], "valid": told["train"], "test": y["test"]})
    assert repeated.chosen == 1
    assert 0.6 < repeated.accuracy < 0.8


def test_few_of_each_class_are_the_same_for_a_seed() -> None:
    y = labels()["train"]
    rows = few_of_each(y, 7)
    assert torch.equal(y[rows].bincount(), torch.full((4,), 7))
    assert torch.equal(rows, few_of_each(y, 7))
    assert not torch.equal(rows, few_of_each(y, 7, seed=1))
    with pytest.raises(OptionError, match="count is 500"):
        few_of_each(y, 500)
    with pytest.raises(OptionError, match="count must be"):
        few_of_each(y, 0)


# Every combination of a binary and a ternary factor equally often: what codes tell is counted without chance.
GRID = torch.cartesian_prod(torch.arange(2), torch.arange(3)).repeat(100, 1)
FACTORS = {"two": GRID[:, 0], "three": GRID[:, 1]}


def test_codes_that_are_the_factors_have_the_gap_one() -> None:
    found = mutual_information_gap(GRID.double(), FACTORS)
    assert found.value == pytest.approx(1.0, abs=1e-12)
    assert found.of_factors == pytest.approx({"two": 1.0, "three": 1.0})
    assert 0 <= found.chance < 0.01


def test_a_factor_told_by_two_numbers_has_no_gap_and_one_told_in_part_has_that_part() -> None:
    codes = torch.stack([GRID[:, 0], 1 - GRID[:, 0], GRID[:, 1]], 1).double()
    found = mutual_information_gap(codes, FACTORS)
    assert found.of_factors == pytest.approx({"two": 0.0, "three": 1.0}, abs=1e-12)
    # Whether the third value: H(1/3) of the log 3 nats; nothing else tells more.
    part = torch.stack([GRID[:, 0], GRID[:, 1] == 2], 1).double()
    entropy = -(math.log(1 / 3) / 3 + 2 * math.log(2 / 3) / 3)
    assert mutual_information_gap(part, FACTORS).of_factors["three"] == pytest.approx(entropy / math.log(3))
    alone = mutual_information_gap(GRID[:, :1].double(), FACTORS)
    assert alone.of_factors == pytest.approx({"two": 1.0, "three": 0.0}, abs=1e-12)


def test_a_rotation_hides_the_factors_and_noise_has_no_more_than_chance() -> None:
    torch.manual_seed(3)
    factors = {str(i): torch.randint(2, (4000,)) for i in range(4)}
    codes = torch.stack(list(factors.values()), 1).double() + 0.05 * torch.randn(4000, 4)
    straight = mutual_information_gap(codes, factors)
    rotation = torch.linalg.qr(torch.randn(4, 4)).Q
    turned = mutual_information_gap(codes @ rotation, factors)
    noise = mutual_information_gap(torch.randn(4000, 4), factors)
    assert straight.value > 0.95
    assert turned.value < 0.4
    # The bias of a table of 20 x 2 is 19 / 2N nats for every number; the gap is of the two that have most of it.
    assert noise.value < 19 / (2 * 4000) / math.log(2)
    assert abs(noise.value - noise.chance) < 2e-3
    # Only order counts: what is monotone changes nothing.
    assert mutual_information_gap(codes**3, factors).value == pytest.approx(straight.value)


def test_maps_keep_what_is_near_together() -> None:
    torch.manual_seed(4)
    y = torch.arange(90) % 3
    codes = 8.0 * torch.eye(3)[y] + 0.1 * torch.randn(90, 3)
    for how in ("pca", "tsne"):
        shown = plane(codes, how=how)
        assert shown.shape == (90, 2)
        distance = torch.cdist(shown, shown) + torch.eye(90) * 1e9
        assert torch.equal(y[distance.argmin(1)], y)
        assert torch.equal(shown, plane(codes, how=how))
    exact = plane(codes)  # of three corners two directions hold almost all
    spread = torch.cdist(exact, exact)
    torch.testing.assert_close(spread, torch.cdist(codes, codes), rtol=0, atol=0.6)
    torch.testing.assert_close(plane(codes[:, :2]), codes[:, :2])
    assert plane(codes[:, :1]).shape == (90, 2)


def test_what_are_no_codes_is_refused() -> None:
    y = labels()
    codes = one_hot(y)
    for bad, error in (
        (codes["test"][:, 0], ShapeError),
        (codes["test"][:0], EmptyDataError),
        (codes["test"] * torch.nan, NonFiniteError),
        (codes["test"][:-1], ShapeError),
    ):
        with pytest.raises(error):
            linear_probe({**codes, "test": bad}, y)
    with pytest.raises(OptionError, match="all training labels are the same"):
        linear_probe(codes, {**y, "train": 0 * y["train"]})
    grid = GRID.double()
    with pytest.raises(OptionError, match="same value everywhere"):
        mutual_information_gap(grid, {"one": 0 * GRID[:, 0]})
    with pytest.raises(OptionError, match="no factors"):
        mutual_information_gap(grid, {})
    with pytest.raises(ShapeError, match="factor 'two'"):
        mutual_information_gap(grid, {"two": GRID[:-1, 0]})
    with pytest.raises(OptionError, match="bins must be"):
        mutual_information_gap(grid, FACTORS, bins=1)
    with pytest.raises(OptionError, match="'pca' or 'tsne'"):
        plane(grid, how="umap")
    assert np.isfinite(mutual_information_gap(grid, FACTORS, bins=2).value)
