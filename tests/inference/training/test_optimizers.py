"""Learning rates against the formula, weight decay of weights alone, arithmetic that is put back."""

from __future__ import annotations

import contextlib

import pytest
import torch

from inference.environment import evaluating
from inference.training.optimizers import descend, flushes_denormals, make_optimizer, numerics, rate, set_rate
from zoo import errors


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_is_of_weights_alone(optimizer):
    matrix, vector = torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(3))
    made = make_optimizer(optimizer, [matrix, vector], 0.1, weight_decay=0.5)
    (0 * matrix.sum() + 0 * vector.sum()).backward()
    made.step()
    torch.testing.assert_close(matrix.detach(), torch.full((2, 3), 1 - 0.1 * 0.5))
    torch.testing.assert_close(vector.detach(), torch.ones(3))
    with pytest.raises(errors.OptionError, match="weight_decay"):
        make_optimizer(optimizer, [matrix], 0.1, weight_decay=-1.0)


def test_a_cosine_is_half_a_wave_from_start_to_end_and_stays_there():
    at = rate("cosine", 0.1, 100, end=0.02)
    # cos(0), cos(60 degrees), cos(90), cos(120), cos(180), in numbers.
    for done, wave in ((0, 1.0), (100 / 3, 0.5), (50, 0.0), (200 / 3, -0.5), (100, -1.0), (1000, -1.0)):
        assert at(done) == pytest.approx(0.02 + 0.08 * (1 + wave) / 2)
    assert rate("cosine", 0.1, 100)(100) == 0
    assert {rate("constant", 0.3, 10)(done) for done in (0, 5, 99)} == {0.3}
    with pytest.raises(errors.OptionError, match="'linear'"):
        rate("linear", 0.1, 100)


def test_a_rate_is_set_in_all_groups():
    weight, bias = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))
    made = make_optimizer("sgd", [weight, bias], 0.1, weight_decay=0.0)
    assert len(made.param_groups) == 2
    set_rate(made, 0.25)
    (weight.sum() + 2 * bias.sum()).backward()
    made.step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), 0.75))
    torch.testing.assert_close(bias.detach(), torch.full((2,), 0.5))


def test_a_step_goes_down_the_slope_of_what_it_is_told_to():
    """By hand: 2 - 0.25 * 3 of a, whose slope is 3; b is in the loss and in nobody's hands."""
    a, b = torch.nn.Parameter(torch.tensor(2.0)), torch.nn.Parameter(torch.tensor(5.0))
    made = torch.optim.SGD([a], 0.1)
    descend(made, 3 * a + b, 0.25)
    torch.testing.assert_close(a.detach(), torch.tensor(1.25))
    assert float(b.grad) == 1
    b.grad = None
    descend(made, 3 * a + b, 0.25, inputs=[a])  # yesterday's slope is gone
    torch.testing.assert_close(a.detach(), torch.tensor(0.5))
    assert b.grad is None
    descend(made, 3 * a + b, 0.25, clip_norm=0.5, inputs=[a])
    torch.testing.assert_close(a.detach(), torch.tensor(0.375), atol=1e-6, rtol=0)


def test_optimizers_have_names_or_are_made_by_who_asks():
    parameter = torch.nn.Parameter(torch.ones(3))
    made = make_optimizer("AdamW", [parameter], 0.1)
    assert type(made) is torch.optim.AdamW
    assert made.param_groups[0]["weight_decay"] == 0.01  # its own
    momentum = make_optimizer(lambda params, lr: torch.optim.SGD(params, lr, momentum=0.9), [parameter], 0.3)
    assert (momentum.param_groups[0]["lr"], momentum.param_groups[0]["momentum"]) == (0.3, 0.9)
    with pytest.raises(errors.OptionError, match=r"'adamm'.*adamw"):
        make_optimizer("adamm", [parameter], 0.1)


@pytest.mark.parametrize("flushed", [False, True])
def test_arithmetic_is_put_back_even_after_an_exception(flushed):
    cpu, precision = torch.device("cpu"), torch.get_float32_matmul_precision()
    torch.set_flush_denormal(flushed)
    try:
        with numerics("tf32", cpu):
            assert torch.get_float32_matmul_precision() == "high"
            assert flushes_denormals()
        assert flushes_denormals() == flushed
        with contextlib.suppress(ZeroDivisionError), numerics("bf16", cpu):
            product = torch.ones(2, 2, dtype=torch.float32) @ torch.ones(2, 2, dtype=torch.float32)
            assert product.dtype == torch.bfloat16
            raise ZeroDivisionError
        assert flushes_denormals() == flushed
        assert torch.get_float32_matmul_precision() == precision
        assert not torch.is_autocast_enabled("cpu")
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize(("precision", "rounded"), [("full", False), ("tf32", True), ("bf16", False)])
def test_convolutions_of_a_gpu_round_where_that_was_asked_for_only(precision, rounded):
    """torch lets them unless told otherwise; and those of a seed are the same every time."""
    cudnn = torch.backends.cudnn
    before = (cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark)
    with numerics(precision, torch.device("cpu")):
        assert (cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark) == (rounded, True, False)
    assert (cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark) == before
    with evaluating(torch.nn.Linear(1, 1)):
        assert (cudnn.allow_tf32, cudnn.deterministic) == (False, True)
    assert (cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark) == before


def test_denormal_numbers_are_zero_while_steps_are_taken_only():
    tiny = torch.full((8,), 1e-40, dtype=torch.float32)
    with numerics("full", torch.device("cpu")):
        assert not bool((tiny * 0.5).any())
    assert bool((tiny * 0.5 > 0).all())
