"""The recursion in C++ gives what numpy gives, in every shape, and leaves to log space what numpy leaves to it."""

from __future__ import annotations

import itertools

import pytest
import torch

from zoo import native
from zoo.chains import forward_backward as by_numpy
from zoo.chains import native_counts
from zoo.chains.native_counts import NUMBERS, STATES, scaled_counts

SHAPES = ((1, 1, 1, 1), (1, 1, 2, 3), (2, 5, 7, 4), (1, 16, 3, 5), (3, 17, 2, 2), (2, 33, 9, 16), (1, 8, 40, 19))


def model(models: int, batch: int, steps: int, states: int, dtype: torch.dtype = torch.float64):
    made = (
        torch.randn(models, states),
        torch.randn(models, states, states),
        9 * torch.randn(models, batch, steps, states),
    )
    return made[0].log_softmax(-1).to(dtype), made[1].log_softmax(-1).to(dtype), (made[2] - 300).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_counts_are_those_of_numpy(shape, dtype):
    given = model(*shape, dtype)
    want = by_numpy._scaled_counts(*given, None)
    emission = given[2].transpose(1, 2).contiguous().transpose(1, 2)  # whatever lies how in memory
    found = scaled_counts(given[0], given[1], emission)
    assert found is not None
    tolerance = 1e-4 if dtype == torch.float32 else 1e-12
    for got, value in zip(found[:3], want[:3], strict=True):
        assert got.dtype == dtype
        assert got.is_contiguous()
        torch.testing.assert_close(got, value, rtol=tolerance, atol=tolerance)
    assert torch.equal(found[3] >= by_numpy._least(emission), want[3])


@pytest.mark.parametrize("bad", ["forbidden", "nan", "inf"])
@pytest.mark.parametrize("row", [0, 7])
def test_sequences_out_of_reach_are_done_in_log_space(row, bad):
    initial, transition, emission = model(2, 9, 6, 3, torch.float32)
    if bad == "forbidden":  # the emissions insist on a state that the chain does not reach
        transition[1] = torch.tensor([0.0, -200.0, -200.0]).expand(3, 3)
        emission[1, row, 2:4, 1:] += 500.0
    else:
        emission[1, row, 3, 1] = float(bad)
    want = torch.ops.zoo.hmm_counts(initial, transition, emission, None)
    with native.native():
        found = torch.ops.zoo.hmm_counts(initial, transition, emission, None)
    for got, value in zip(found, want, strict=True):
        torch.testing.assert_close(got, value, rtol=1e-4, atol=1e-4, equal_nan=True)
    lowest = scaled_counts(initial, transition, emission)[3]
    doubtful = ~(lowest >= by_numpy._least(emission))
    assert doubtful[1, row]
    if bad != "forbidden":
        assert doubtful.sum() == 1


def test_it_is_taken_where_native_code_is_allowed_and_nowhere_else(monkeypatch):
    calls = []
    monkeypatch.setattr(by_numpy, "scaled_counts", lambda *given: calls.append(1) or scaled_counts(*given))
    initial, transition, emission = (t[0].requires_grad_() for t in model(1, 4, 5, 3))
    python = torch.autograd.grad(
        by_numpy.log_evidence(initial, transition, emission).sum(), (initial, transition, emission)
    )
    assert not calls
    with native.native():
        found = torch.autograd.grad(
            by_numpy.log_evidence(initial, transition, emission).sum(), (initial, transition, emission)
        )
        assert calls == [1]
        mask = torch.ones(4, 5, dtype=torch.bool)
        by_numpy.forward_backward(initial, transition, emission, mask)
        assert calls == [1]
    by_numpy.forward_backward(initial, transition, emission)
    assert calls == [1]
    for got, want in zip(found, python, strict=True):
        torch.testing.assert_close(got, want)


def test_the_operator_keeps_its_promises_with_it():
    given = model(2, 3, 4, 3)
    with native.native():
        torch.library.opcheck(torch.ops.zoo.hmm_counts.default, (*given, None))
        found = torch.func.vmap(torch.func.grad(lambda *one: by_numpy.log_evidence(*one).sum(), argnums=(0, 1, 2)))(
            *given
        )
    for n in range(2):
        each = [t[n].requires_grad_() for t in given]
        want = torch.autograd.grad(by_numpy.log_evidence(*each).sum(), each)
        for got, value in zip(found, want, strict=True):
            torch.testing.assert_close(got[n], value)


def test_what_is_better_done_in_python_is_left_to_it(monkeypatch):
    given = model(1, 2, 2, STATES + 1)
    assert scaled_counts(*given) is None
    assert scaled_counts(*model(1, 1, NUMBERS + 1, 1)) is None
    assert scaled_counts(*(t.half() for t in model(1, 2, 2, 2))) is None
    monkeypatch.setattr(native_counts, "library", lambda source: None)
    few = model(1, 2, 3, 4)
    assert scaled_counts(*few) is None
    with native.native():
        found = torch.ops.zoo.hmm_counts(*few, None)
    for got, want in itertools.zip_longest(found, torch.ops.zoo.hmm_counts(*few, None)):
        assert torch.equal(got, want)
