"""Pictures of latents show what they say: paths between their ends, one code at a time, classes, codes and prior."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from benchmarks.cells.latents import attribute_grid, class_grid, growth, interpolation, traversal
from benchmarks.report.pictures import history_picture
from zoo.bayes.coin import BetaBernoulli
from zoo.errors import CapabilityError, OptionError, UnknownNameError
from zoo.program import Implicit, ImplicitProgram


class Shown(ImplicitProgram):
    """x is its latents side by side: a code c of three, a code s, noise u."""

    event_shape = torch.Size([6])

    def __init__(self, one_hot: bool = True):
        super().__init__()
        self.one_hot = one_hot
        self.weight = torch.nn.Parameter(torch.ones(()))

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        with self.plate(x, context, size):
            probs = self.weight.new_tensor([0.2, 0.3, 0.5])
            c = pyro.sample("c", (dist.OneHotCategorical if self.one_hot else dist.Categorical)(probs))
            s = pyro.sample("s", dist.Normal(self.weight.new_zeros(2), 1.0).to_event(1))
            u = pyro.sample("u", dist.Uniform(self.weight.new_zeros(1), 1.0).to_event(1))
            code = c if self.one_hot else torch.nn.functional.one_hot(c.long(), 3).to(s)
            return pyro.sample("x", Implicit(torch.cat([code, s, u], -1), 1), obs=x)


class Asked(Shown):
    """x is what was asked for, with noise."""

    event_shape = torch.Size([3])

    def example_context(self, n: int) -> Tensor:
        return torch.eye(3)[torch.arange(n) % 3]

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(self.weight.new_zeros(3), 1.0).to_event(1))
            return pyro.sample("x", Implicit(context + 0.01 * z, 1), obs=x)


def test_a_path_goes_from_one_draw_to_another() -> None:
    paths = interpolation(Shown(), rows=5, columns=7)
    assert paths.shape == (5, 7, 6)
    code, s, u = paths[..., :3], paths[..., 3:5], paths[..., 5]
    assert torch.equal(code, code[:, :1].expand_as(code))  # discrete codes stay
    steps = u.diff(dim=1)
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps))  # a straight line
    length, ends = s.norm(dim=-1), s[:, [0, -1]].norm(dim=-1)
    torch.testing.assert_close(length.diff(dim=1), ((ends[:, 1] - ends[:, 0]) / 6)[:, None].expand(5, 6))
    turns = torch.nn.functional.cosine_similarity(s[:, 1:], s[:, :-1], dim=-1)
    torch.testing.assert_close(turns, turns[:, :1].expand_as(turns))  # by equal angles
    assert not torch.equal(paths[:, 0], paths[:, -1])
    assert torch.equal(paths, interpolation(Shown(), rows=5, columns=7))


def test_one_code_moves_and_nothing_else() -> None:
    grid = traversal(Shown(), "s", index=1, rows=4, columns=5)
    assert grid.shape == (4, 5, 6)
    moved = grid.std(1).gt(1e-9)
    assert torch.equal(moved, torch.tensor([False, False, False, False, True, False]).expand(4, 6))
    assert bool((grid[..., 4].diff(dim=1) > 0).all())
    # Of 2,000 draws the outer percents are within 0.3 of the normal's (seven standard errors).
    assert abs(float(grid[0, 0, 4]) + 2.33) < 0.3
    assert torch.equal(grid[:, 0, :3].argmax(-1), torch.tensor([0, 1, 2, 0]))  # rows go through the other code


@pytest.mark.parametrize("one_hot", [True, False])
def test_a_discrete_code_takes_each_of_its_values(one_hot: bool) -> None:
    grid = traversal(Shown(one_hot), "c", rows=4)
    assert grid.shape == (4, 3, 6)
    assert torch.equal(grid[..., :3].argmax(-1), torch.arange(3).expand(4, 3))
    assert float(grid[..., 3:].std(1).max()) == pytest.approx(0.0, abs=1e-12)


def test_rows_are_classes_and_columns_latents() -> None:
    grid = class_grid(Asked(), columns=4)
    assert grid.shape == (3, 4, 3)
    assert torch.equal(grid.argmax(-1), torch.arange(3)[:, None].expand(3, 4))
    noise = grid - torch.eye(3)[:, None]
    torch.testing.assert_close(noise, noise[:1].expand_as(noise))
    assert interpolation(Asked(), rows=3, columns=2).shape == (3, 2, 3)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="latent site"):
        traversal(Shown(), "k")
    with pytest.raises(OptionError, match="between 0 and 1"):
        traversal(Shown(), "s", index=2)
    with pytest.raises(CapabilityError, match="no class"):
        class_grid(Shown())
    with pytest.raises(CapabilityError, match="no path"):
        interpolation(BetaBernoulli())
    with pytest.raises(OptionError, match="no game"):
        history_picture([])


def test_growth_enlarges_what_was_small() -> None:
    small, large = torch.rand(2, 1, 2, 3), torch.rand(2, 1, 4, 6)
    strip = growth([small, large], (4, 6))
    assert strip.shape == (2, 2, 4, 6)
    assert torch.equal(strip[:, 1], large[:, 0])
    assert torch.equal(strip[:, 0, ::2, ::2], small[:, 0])
    assert torch.equal(strip[:, 0, 1::2, 1::2], small[:, 0])


def test_attributes_are_asked_for_one_after_the_other() -> None:
    class Adds:
        def translate(self, source: Tensor, to: Tensor) -> Tensor:
            return source + to[:, :1, None]

    source, asked = torch.rand(3, 2, 2), torch.tensor([[1.0, 0.0], [5.0, 1.0]])
    grid = attribute_grid(Adds(), source, asked)
    assert torch.equal(grid, torch.stack([source, source + 1, source + 5], 1))
