"""Tasks: which pixels they give, that their contexts are theirs, and what is refused."""

from __future__ import annotations

import pytest
import torch

from zoo.errors import OptionError, ShapeError, SupportError, UnknownNameError
from zoo.puzzles import TASKS, LowResolution, Noisy, Parts, Quadrants, make_task

GIVEN = {
    1: [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]],
    2: [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]],
    3: [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]],
}
"""As in Pyro's tutorial."""


@pytest.mark.parametrize("given", GIVEN)
def test_the_quadrants_of_the_tutorial(given: int) -> None:
    x, where = torch.rand(2, 4, 4), torch.tensor(GIVEN[given]).bool()
    context = Quadrants([4, 4], given)(x)
    assert torch.equal(context[:, 1].bool(), where.expand(2, -1, -1))
    assert torch.equal(context[:, 0], x * where)
    assert torch.equal(Quadrants([3, 4, 4], given)(torch.rand(2, 3, 4, 4))[:, 3].bool(), where.expand(2, -1, -1))


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("event_shape", [(8, 4), (3, 8, 4)])
def test_contexts_have_their_shape_and_tell_the_truth(name: str, event_shape: tuple[int, ...]) -> None:
    task, x = make_task(name, event_shape), torch.rand(5, *event_shape)
    context = task(x)
    assert context.shape == (5, *task.context_shape)
    task.check(context)
    assert torch.equal(task(x, 3), task(x, 3))
    told = task.told(context)
    assert (told is not None) == isinstance(task, Parts)
    if told is not None:
        assert torch.equal(told.values[told.known], x[told.known])
        assert not bool(told.values[~told.known].any())
        assert 0 < told.known.double().mean() < 1


def test_a_coarse_image_has_the_means_of_blocks() -> None:
    x = torch.rand(3, 2, 4, 6)
    assert torch.allclose(LowResolution([2, 4, 6], 2)(x), x.reshape(3, 2, 2, 2, 3, 2).mean((3, 5)))


def test_noise_is_normal_and_new_every_time() -> None:
    task, x = Noisy([10, 10], 0.5), torch.rand(200, 10, 10)
    noise = (task(x)[:, 0] - x).flatten()
    # 20,000 numbers: five standard errors of mean and standard deviation.
    assert abs(float(noise.mean())) < 5 * 0.5 / 20_000**0.5
    assert abs(float(noise.std()) - 0.5) < 5 * 0.5 / 40_000**0.5
    assert not torch.equal(task(x), task(x))


def test_what_is_no_task_and_no_context_is_refused() -> None:
    with pytest.raises(OptionError, match="given"):
        make_task({"name": "quadrants", "given": 4}, [8, 8])
    with pytest.raises(OptionError, match="whole blocks"):
        make_task({"name": "low-resolution", "factor": 3}, [8, 8])
    with pytest.raises(OptionError, match="least share"):
        make_task({"name": "patches", "keep": [0.7, 0.2]}, [8, 8])
    with pytest.raises(OptionError, match="finer"):
        make_task({"name": "patches", "grid": [4, 9]}, [8, 8])
    with pytest.raises(UnknownNameError, match="quadrants"):
        make_task("quadrant", [8, 8])
    with pytest.raises(ShapeError, match="images"):
        make_task("noisy", [8])
    with pytest.raises(SupportError, match="in between"):
        Quadrants([8, 8]).check(torch.full((1, 2, 8, 8), 0.5))
