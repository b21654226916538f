"""The game of captions: what each side is, row by row, and that wrong captions are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference import fit
from inference.games.captions import CaptionGame
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, ShapeError
from zoo.implicit.gan import GAN
from zoo.program import Implicit, ImplicitProgram


class Told(ImplicitProgram):
    """x = a code + noise / 10; the code is the context, doubled."""

    event_shape = torch.Size([2])

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.5))

    def encode(self, context: Tensor) -> Tensor:
        return 2 * context

    def example_context(self, n: int) -> Tensor:
        return torch.randn(n, 2)

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            code = pyro.sample("code", Implicit(self.encode(context), 1))
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 0.1).to_event(1))
            return pyro.sample("x", Implicit(self.a * code + z, 1), obs=x)

    def code_critic(self) -> nn.Module:
        return Critic()


class Critic(nn.Module):
    """Sees how far an image is from its code."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 32), nn.LeakyReLU(), nn.Linear(32, 1))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        return self.net(torch.cat([x, (x - code).abs()], 1))[:, 0]


X, CONTEXT = torch.arange(8.0).reshape(4, 2), torch.tensor([[1.0, 0], [1, 0], [2, 0], [3, 0]])
NOISE = 5 * 0.1


def sides(*, makers: bool, **options: Any) -> tuple[Tensor, Tensor]:
    batch = Data(X.to(torch.get_default_dtype()), CONTEXT.to(torch.get_default_dtype()))
    found = CaptionGame(**options).contest(Told(), batch).sides(batch, makers=makers)
    assert torch.equal(found.shown[0], batch.x)
    assert found.shown[1].shape == batch.x.shape
    return found.real.detach(), found.fake.detach()


def made_of(codes: Sequence[float], rows: Tensor) -> None:
    """Rows of an image that was made of a code, and the code."""
    expected = torch.tensor([[code, 0.0] for code in codes])
    assert torch.equal(rows[:, 2:], expected)
    assert float((rows[:, :2] - 0.5 * expected).abs().max()) < NOISE


def test_the_critic_is_shown_true_images_with_the_captions_of_others() -> None:
    real, fake = sides(makers=False)
    assert torch.equal(real, torch.cat([X, 2 * CONTEXT], 1).to(real))
    assert fake.shape == (8, 4)
    made_of([2, 2, 4, 6], fake[:4])
    # The caption of the row before; the second row's says the same as its own, so a made image stands there.
    wrong = fake[[4, 6, 7]]
    assert torch.equal(wrong, torch.tensor([[0.0, 1, 6, 0], [4, 5, 2, 0], [6, 7, 4, 0]]))
    made_of([2], fake[5:6])
    made_of([2, 2, 4, 6], sides(makers=False, mismatched=False)[1])


def test_the_generator_is_asked_for_codes_between_two() -> None:
    fake = sides(makers=True)[1]
    made_of([2, 2, 4, 6], fake[:4])
    made_of([(2 + 6) / 2, 2, (4 + 2) / 2, (6 + 4) / 2], fake[4:])
    made_of([2, 2, 4, 6], sides(makers=True, interpolated=False)[1])


def test_the_critic_judges_each_image_with_its_code() -> None:
    batch = Data(torch.randn(4, 2), torch.randn(4, 2))
    contest = CaptionGame().contest(Told(), batch)
    found = contest.sides(batch, makers=False)
    assert torch.equal(contest.judge(batch)(found.real), contest.critic(batch.x, 2 * batch.context))
    assert contest.judge(batch)(found.fake).shape == (8,)


@pytest.mark.parametrize("options", [{}, {"mismatched": False, "interpolated": False}])
def test_learns_what_the_code_means(options: dict[str, bool]) -> None:
    context = torch.randn(1000, 2)
    program = Told()
    data = (2 * context + 0.1 * torch.randn(1000, 2), context)
    fit(program, data, "gan-cls", steps=300, lr=1e-2, batch_size=64, **options)
    # Starts at 0.5; the least-squares error is 0.002, the game's is larger.
    assert abs(program.a.item() - 1) < 0.15


def test_refusals() -> None:
    with pytest.raises(CapabilityError, match=r"encode\(context\)"):
        fit(GAN([2]), torch.rand(5, 2), "gan-cls")
    data = (torch.randn(6, 2), torch.randn(6, 2))
    with pytest.raises(ShapeError, match="gradient penalty"):
        fit(Told(), data, "gan-cls", steps=1, regulariser="gradient-penalty")
    fit(Told(), data, "gan-cls", steps=1, regulariser="gradient-penalty", mismatched=False, game="wasserstein")
