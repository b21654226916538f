"""A path that networks draw: one density however it is computed, Gaussian if they are linear; padding cancels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from zoo.guide_flows import flow_layers
from zoo.sequential.gaussian_path import GaussianPath
from zoo.sequential.neural_path import NeuralPath

BATCH, STEPS, SIZE = 3, 5, 2
LENGTHS = torch.tensor([4, 1, 3])  # the longest is shorter than what there is room for


class Step(nn.Module):
    """A nonlinear step that sees features."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(SIZE + 3, 2 * SIZE)

    def forward(self, z: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        wide = torch.cat([z, features.expand(*z.shape[:-1], 3)], -1)
        loc, scale = self.net(wide.tanh()).chunk(2, -1)
        return loc, scale.exp()


def path(flows: int = 0, padded: bool = False) -> NeuralPath:
    return NeuralPath(
        Step(), torch.randn(SIZE).requires_grad_(), STEPS, features=torch.randn(BATCH, STEPS, 3),
        mask=torch.arange(STEPS) < LENGTHS[:, None] if padded else None,
        flows=tuple(flow_layers("iaf", SIZE, flows, 8)),
    )  # fmt: skip


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("flows", [0, 2])
def test_a_draw_has_the_same_density_and_gradient_kept_or_recomputed(flows, padded):
    """Recomputing inverts the flows and runs the networks over all steps at once."""
    found = path(flows, padded)
    drawn = found.rsample()
    assert drawn.shape == (BATCH, STEPS, SIZE)
    kept, again = found.log_prob(drawn), found.log_prob(drawn.clone())
    assert kept.shape == (BATCH,)
    torch.testing.assert_close(kept, again)
    parameters = [found.start, *found.step.parameters(), *(p for f in found.flows for p in f.parameters())]
    gradients = [torch.autograd.grad((v * torch.arange(1.0, 4)).sum(), parameters, retain_graph=True, allow_unused=True)
                 for v in (kept, again)]  # fmt: skip
    assert max(float(g.abs().max()) for g in gradients[0] if g is not None) > 0
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("flows", [0, 2])
def test_a_single_step_integrates_to_one(flows):
    found = NeuralPath(
        Step(), torch.randn(SIZE), 1, features=torch.randn(1, 1, 3), flows=flow_layers("iaf", 2, flows, 8)
    )
    with torch.no_grad():
        found.step.net.weight.mul_(0.3)
        grid = torch.linspace(-15, 15, 301)
        points = torch.cartesian_prod(grid, grid)[:, None, None, :]
        mass = found.log_prob(points).exp().sum() * (grid[1] - grid[0]) ** 2
    assert mass.item() == pytest.approx(1.0, abs=1e-3)


def test_linear_steps_are_a_gaussian_path():
    weight, scale, start = torch.randn(SIZE, SIZE), torch.tensor([0.5, 2.0]), torch.randn(SIZE)
    found = NeuralPath(lambda z, _: (z @ weight.T, scale.expand_as(z)), start, STEPS)
    offsets = torch.cat([(weight @ start)[None], torch.zeros(STEPS - 1, SIZE)])
    expected = GaussianPath(offsets, weight.expand(STEPS - 1, SIZE, SIZE), scale.diag().expand(STEPS, SIZE, SIZE))
    value = torch.randn(4, BATCH, STEPS, SIZE)
    torch.testing.assert_close(found.log_prob(value), expected.log_prob(value))
    torch.manual_seed(3)
    ours = found.expand(torch.Size([4, BATCH])).rsample()
    torch.manual_seed(3)
    torch.testing.assert_close(ours, expected.expand(torch.Size([4, BATCH])).rsample())


@pytest.mark.parametrize("flows", [0, 1])
def test_padded_steps_are_standard_normal_whatever_the_networks(flows):
    found = path(flows, padded=True)
    value = torch.randn(BATCH, STEPS, SIZE)
    for i, length in enumerate(LENGTHS.tolist()):
        short = NeuralPath(
            found.step, found.start, length, features=found.features[i : i + 1, :length], flows=found.flows
        )
        rest = value[i, length:]
        expected = short.log_prob(value[i : i + 1, :length]) - (rest.square() + math.log(2 * math.pi)).sum() / 2
        torch.testing.assert_close(found.log_prob(value)[i], expected[0])


def test_particles_are_each_a_path():
    found = path(padded=True)
    wide = found.expand(torch.Size([7, BATCH]))
    drawn = wide.rsample()
    assert drawn.shape == (7, BATCH, STEPS, SIZE)
    torch.testing.assert_close(wide.log_prob(drawn), torch.stack([found.log_prob(each.clone()) for each in drawn]))
