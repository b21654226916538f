"""The comparison of NUTS: every side samples the same posterior, and the worst parameter counts."""

from __future__ import annotations

import time

import pytest
import torch

from benchmarks.speed.workloads import nuts
from zoo.errors import OptionError

SMALL = nuts.Problem(n=60, d=2, warmup=40, draws=60, chains=1)


@pytest.fixture(autouse=True)
def single_precision() -> None:
    """As the workloads' data have it."""
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("model", nuts.MODELS)
def test_all_sides_sample_the_same_posterior(model: str) -> None:
    problem = nuts.replace(SMALL, model=model)
    found = {side: work(problem, problem.data()) for side, work in nuts.SIDES.items()}
    assert {"ours", "Pyro"} <= set(found)
    # Five standard errors of a difference of means of the worst parameter.
    least = min(each.effective for each in found.values())
    assert least > 8
    assert nuts._difference(found) < 5 * (2 / least) ** 0.5
    assert all(each.total > 0 for each in found.values())


def test_seconds_are_for_effective_draws_of_the_worst_parameter() -> None:
    generator = torch.Generator().manual_seed(0)
    good = torch.randn(2, 400, 3, generator=generator)
    steps = torch.randn(2, 400, generator=generator)
    slow = steps.cumsum(1) * 0.1
    alone = nuts.Result.of(time.perf_counter(), {"a": good})
    both = nuts.Result.of(time.perf_counter(), {"a": good, "b": slow})
    assert alone.effective > 300
    assert both.effective < 30
    assert both.seconds == pytest.approx(1000 * both.total / both.effective)
    assert both.means.shape == (4,)


def test_a_model_that_is_none_is_refused() -> None:
    with pytest.raises(OptionError, match="got 'radon'"):
        nuts.replace(SMALL, model="radon")
