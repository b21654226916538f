"""The tables of energy-based models, small: what must hold at any size holds."""

from __future__ import annotations

from benchmarks.scripts import energies


def test_biases_fall_with_the_sweeps() -> None:
    found = {name: (bias, spread) for name, bias, spread in energies.gradients(repeats=8, warm=10)}
    assert list(found) == list(energies.CHAINS)
    assert found["CD-25"][0] < found["CD-1"][0]
    assert all(0 < spread < 1 for _, spread in found.values())


def test_bounds_lie_on_their_sides() -> None:
    """Two RBMs; each bound within four of its own errors of its side (one in 30,000 each)."""
    for hidden, low, low_error, high, high_error in energies.brackets(seeds=2, chains=50, steps=50):
        assert hidden in (2, 4)
        assert low < 4 * low_error
        assert high > -4 * high_error
        assert max(abs(low), abs(high)) < 0.5


def test_the_grid_knows_the_data() -> None:
    points, log_truth = energies._grid("ring", side=101)
    assert points.shape == (101**2, 2)
    rows = list(energies.planes(seeds=1, steps=2))
    assert [name for name, _, _ in rows] == ["its Gaussian alone", *energies.PLANE]
    gaussian = rows[0][1][0]
    assert 2.5 < gaussian < 4  # eight narrow modes, seen as one wide one
    assert all(abs(kl[0] - gaussian) < 1 for _, kl, _ in rows)  # two steps change little
    assert float(log_truth.exp().sum()) > 0.999
