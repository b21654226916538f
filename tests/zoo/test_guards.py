"""What densities say of what cannot be: nothing, and never a number."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import constraints

from inference.methods.bounds import make_objective
from tests import doors
from zoo import catalogue, guards
from zoo.datasets import Data
from zoo.errors import ShapeError
from zoo.guards import same_support, unguarded
from zoo.program import ExactDensity

NAMES = sorted(catalogue.BUILTIN)


def test_densities_are_zero_outside_the_support():
    bits, table = (
        catalogue.create("independent", event_shape=[3]),
        catalogue.create("full-joint", event_shape=[3], values=3),
    )
    assert bits.log_prob(torch.tensor([[0.5, 1.0, 0.0], [0.0, 1.0, 0.0]])).isneginf().tolist() == [True, False]
    assert table.log_prob(torch.tensor([[0.0, 3.0, 0.0], [-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])).isneginf().tolist() == [
        True, True, False
    ]  # fmt: skip
    mixture = catalogue.create("gaussian-mixture", event_shape=[2], components=2)
    with pytest.raises(ShapeError, match=r"expects examples of shape \(2,\)"):
        mixture.log_prob(torch.zeros(5, 1))
    assert mixture.log_prob(torch.tensor([[torch.inf, 0.0]])).isneginf().all()
    flow = catalogue.create("maf", event_shape=[2])
    assert flow.log_prob(torch.tensor([[torch.nan, 0.0], [torch.inf, 0.0]])).isneginf().all()
    coin = catalogue.create("coin")
    assert coin.log_evidence(torch.tensor([0.0, 7.0])).isneginf()
    assert float(coin.log_evidence(torch.zeros(0))) == 0.0


def test_no_gradient_comes_from_outside_the_support():
    program = catalogue.create("nade", event_shape=[3], hidden=4)
    program.log_prob(torch.tensor([[0.0, 1.0, 1.0], [torch.nan, 0.0, 9.0]]))[:1].sum().backward()
    grads = [p.grad.clone() for p in program.parameters() if p.grad is not None]
    assert all(bool(torch.isfinite(g).all()) for g in grads)
    program.zero_grad()
    program.log_prob(torch.tensor([[0.0, 1.0, 1.0]])).sum().backward()
    assert all(torch.allclose(g, p.grad) for g, p in zip(grads, program.parameters(), strict=True))


@torch.no_grad()
def test_checked_data_have_the_same_density_unguarded():
    exact = [name for name in NAMES if isinstance(doors.given(name).program, ExactDensity)]
    assert len(exact) > 20
    for name in exact:
        program, x, context = (getattr(doors.given(name), part) for part in ("program", "x", "context"))
        torch.testing.assert_close(unguarded(program.log_prob)(x, context), program.log_prob(x, context), msg=name)


def test_the_exact_bound_does_not_look_at_values_again(monkeypatch):
    program, coin = catalogue.create("independent", event_shape=[3]), catalogue.create("coin")
    x = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    expected = program.log_prob(x).mean(), coin.log_evidence(x[:, 0]) / 2
    monkeypatch.delattr(guards, "_within")
    found = (make_objective("exact")(each, None, Data(rows), 2)[1] for each, rows in ((program, x), (coin, x[:, 0])))
    torch.testing.assert_close(tuple(found), expected)


def test_no_examples_have_no_densities():
    for name in NAMES:
        program = doors.given(name).program
        if hasattr(program, "log_prob"):
            context, x = program.example_context(2), torch.zeros(0, *program.event_shape)
            assert program.log_prob(x, None if context is None else context[:0]).shape == (0,)


def test_the_step_of_a_guarded_density_is_vectorised():
    program = catalogue.create("ar-chain", event_shape=[3], order=1)
    x = torch.tensor([[[0.0, 1.0, 1.0], [0.5, 0.0, 0.0]], [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    together = torch.func.vmap(program.log_prob)(x)
    assert torch.equal(together, torch.stack([program.log_prob(rows) for rows in x]))
    assert together.isneginf().tolist() == [[False, True], [False, False]]


def test_supports_are_compared_by_what_they_say():
    assert same_support(constraints.integer_interval(0, 3), constraints.integer_interval(0, 3))
    assert not same_support(constraints.integer_interval(0, 3), constraints.integer_interval(0, 4))
    assert not same_support(constraints.boolean, constraints.real)
