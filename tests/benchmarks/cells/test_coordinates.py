"""Numbers one by one: names in order, distances that can be computed by hand, the worst pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.cells.coordinates import Columns, distances, worst_pairs


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_columns_are_named_by_their_place() -> None:
    draws = {"b": normal(5), "a": normal(5, 2, 3), "k": torch.ones(5, 2)}
    found = Columns.of(draws, ["b", "a", "k"], {"k"})
    assert found.names == ("b", *(f"a[{i}, {j}]" for i in range(2) for j in range(3)), "k[0]", "k[1]")
    assert found.discrete.tolist() == [False] * 7 + [True] * 2
    np.testing.assert_allclose(found.values[:, 6], draws["a"][:, 1, 2])


def test_distances_are_what_the_hand_computes() -> None:
    z = normal(4000)
    wrong = torch.stack([z, z + 0.5, 2 * z, z], 1)
    kinds = torch.tensor([0.0, 1.0]).repeat(2000)[:, None]
    truth = Columns.of({"z": z[:, None].expand(-1, 4), "k": kinds}, ["z", "k"], {"k"})
    answer = Columns.of({"z": wrong, "k": (torch.arange(4000) % 4 > 0)[:, None].double()}, ["z", "k"], {"k"})
    sd = truth.values[:, 0].std()
    # A shift by half a unit; a double spread is off by E|z| = sqrt(2 / pi); three quarters where a half belongs.
    found = distances(answer, truth)
    assert found[[0, 3]].tolist() == [0, 0]
    assert found[1] == pytest.approx(0.5 / sd, rel=1e-9)
    assert found[2] == pytest.approx((2 / np.pi) ** 0.5, abs=0.03)
    assert found[4] == pytest.approx(0.25)


def test_pairs_are_the_worst_and_those_whose_correlation_is_wrong() -> None:
    z = normal(4000, 4)
    z[:, 3] = z[:, 2] + 0.1 * z[:, 3]  # truly correlated, which the answer does not know
    apart = normal(4000, 4, seed=1)
    apart[:, 3] *= z[:, 3].std()
    apart[:, 0] += 2
    apart[:, 1] += 1
    truth, answer = (Columns.of({"z": v}, ["z"], set()) for v in (z, apart))
    off = distances(answer, truth)
    assert [set(pair) for pair in worst_pairs([answer], truth, off)][:2] == [{0, 1}, {2, 3}]
    one = Columns.of({"z": z[:, :1]}, ["z"], set())
    assert worst_pairs([one], one, np.zeros(1)) == []
