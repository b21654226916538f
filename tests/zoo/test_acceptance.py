"""What a program takes and what it refuses; a density is zero outside the support, whoever asks, and in every step."""

from __future__ import annotations

import pytest
import torch

from tests.inference.toys import Mean, Rate
from zoo import catalogue
from zoo.errors import EmptyDataError, NonFiniteError, ShapeError, SupportError


@pytest.mark.parametrize(
    ("x", "error", "says"),
    [
        (torch.zeros(0), EmptyDataError, "no examples"),
        (torch.zeros(3, 2), ShapeError, r"shape \(\), got \(2,\)"),
        (torch.tensor([1.0, float("nan")]), NonFiniteError, "NaN"),
        (torch.tensor([1.0, 0.5]), SupportError, "0.5"),
    ],
)
def test_what_is_wrong_with_data_is_said(x, error, says):
    with pytest.raises(error, match=says):
        Rate().check(x)


def test_a_context_that_nobody_takes_is_refused():
    Mean().check(torch.zeros(3))
    with pytest.raises(ShapeError, match="context"):
        Mean().check(torch.zeros(3), torch.zeros(3, 1))


def test_any_kind_of_numbers_is_taken_in_the_dtype_of_the_program():
    program = catalogue.create("gaussian-mixture", event_shape=[2], components=2).double()
    for x in ([[1, 2]], torch.ones(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.float16)):
        taken, context = program.accept(x)
        assert (taken.dtype, taken.shape, context) == (torch.float64, (1, 2), None)


def test_a_density_is_zero_outside_the_support_and_its_gradient_finite():
    program = catalogue.create("independent", event_shape=[3])
    x = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.5, 1.0], [0.0, -1.0, 1.0], [0.0, float("inf"), 1.0]])
    value = program.log_prob(x)
    assert torch.isfinite(value).tolist() == [True, False, False, False]
    assert (value[1:] == -torch.inf).all()
    value[0].backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in program.parameters() if p.grad is not None)
    with pytest.raises(ShapeError):
        program.log_prob(torch.zeros(4, 1))


def test_a_column_of_numbers_is_one_number_an_example():
    program = Rate()
    assert torch.equal(program.accept(torch.ones(3, 1))[0], program.accept(torch.ones(3))[0])
    with pytest.raises(ShapeError):
        program.accept(torch.ones(3, 2))
    with pytest.raises(ShapeError):
        catalogue.create("gaussian-mixture", event_shape=[2], components=2).accept(torch.ones(3, 1))
