"""The game of attributes: its terms by hand, whom they move, and a fit that goes on where it was killed."""

from __future__ import annotations

import pyro
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from inference import fit
from inference.evaluation.samples.translation import recognition
from inference.fit import make_method
from inference.games.star import StarGame
from inference.training.loop import Loop
from zoo import datasets
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, OptionError
from zoo.implicit.cgan import ConditionalGAN
from zoo.implicit.stargan import AttributeCritic, Gallery, StarGAN
from zoo.program import Implicit, ImplicitProgram


class Shade(ImplicitProgram):
    """x = source + a + b c: an attribute adds to every pixel."""

    event_shape = torch.Size([2, 2])
    context_shape = torch.Size([1])

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor(0.1))
        self.register_buffer("images", torch.rand(6, 2, 2))

    def example_context(self, n: int) -> Tensor:
        return torch.randint(2, (n, 1)).to(self.a)

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            source = pyro.sample("source", Gallery(self.images))
            return pyro.sample("x", Implicit(source + self.a + self.b * context[..., None], 2), obs=x)

    def critic(self) -> nn.Module:
        return Mean()


class Mean(nn.Module):
    """The mean of an image, in four patches, and its attribute as read from it."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.read = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.up * x.flatten(1)

    def attributes(self, x: Tensor) -> Tensor:
        return self.read * x.mean((1, 2))[:, None]


def test_terms_are_those_by_hand() -> None:
    program, x, a = Shade(), torch.rand(5, 2, 2), torch.linspace(0, 1, 5)[:, None]
    method = StarGame(classification=0.7, reconstruction=4.0)
    contest = method.contest(program, Data(x, a))
    torch.manual_seed(2)
    sides = contest.sides(Data(x, a), makers=True)
    torch.manual_seed(2)
    c = a[torch.randperm(5)]
    assert not torch.equal(a, c)
    made = x + program.a + program.b * c[:, :, None]
    assert torch.equal(sides.real, x)
    torch.testing.assert_close(sides.fake, made)

    def misread(images: Tensor, wanted: Tensor) -> Tensor:
        logit = 3 * images.mean((1, 2))
        return -(wanted[:, 0] * logsigmoid(logit) + (1 - wanted[:, 0]) * logsigmoid(-logit)).mean()

    again = made + program.a + program.b * a[:, :, None]
    torch.testing.assert_close(sides.metrics["classification"], misread(made, c))
    torch.testing.assert_close(sides.metrics["reconstruction"], (again - x).abs().mean())
    torch.testing.assert_close(sides.loss, 0.7 * misread(made, c) + 4 * (again - x).abs().mean())
    assert "identity" not in sides.metrics
    torch.manual_seed(2)
    kept = StarGame(classification=0.7, reconstruction=4.0, identity=3.0).contest(program, Data(x, a))
    with_identity, same = kept.sides(Data(x, a), makers=True), x + program.a + program.b * a[:, :, None]
    torch.testing.assert_close(with_identity.metrics["identity"], (same - x).abs().mean())
    torch.testing.assert_close(with_identity.loss, sides.loss + 3 * (same - x).abs().mean())
    # The critic learns from real images alone, in its own turn.
    turn = contest.sides(Data(x, a), makers=False)
    assert turn.loss is None
    torch.testing.assert_close(contest.critic_loss(turn, Data(x, a)), 0.7 * misread(x, a))
    # Both terms move the program, the game's weighs as the method says.
    sides.loss.backward()
    assert program.a.grad is not None
    assert program.b.grad is not None


def test_a_step_moves_every_parameter_of_both_players() -> None:
    program = StarGAN((8, 8), [3], [4, 6], 1, gallery=5, critic={"channels": [4, 4]})
    critic = program.critic()
    before = {id(p): p.detach().clone() for p in [*program.parameters(), *critic.parameters()]}
    data = (torch.rand(12, 8, 8), torch.randint(2, (12, 3)).to(torch.get_default_dtype()))
    found = fit(program, data, "star", critic=critic, steps=2, batch_size=4)
    for player in (program, critic):
        for name, parameter in player.named_parameters():
            assert not torch.equal(parameter, before[id(parameter)]), name
    assert {"loss", "critic_loss", "classification", "reconstruction", "diversity"} <= set(found.history.metrics)
    assert found.guide is not None
    assert found.gradient_evaluations == 2 * 6


def test_a_killed_game_resumes_to_the_same_numbers(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (torch.rand(12, 8, 8), torch.randint(2, (12, 3)).to(torch.get_default_dtype()))
    options = {"steps": 6, "batch_size": 4, "critic_steps": 2, "ema": 0.9, "out": tmp_path}

    def start() -> StarGAN:
        torch.manual_seed(2)
        return StarGAN((8, 8), [3], [4, 6], 1, gallery=5, critic={"channels": [4, 4]})

    batch = Loop.batch

    def stop(loop: Loop) -> Data:
        if loop.done == 3:
            loop.save()
            raise KeyboardInterrupt
        return batch(loop)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "batch", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(start(), data, "star", **options)
    resumed, whole = start(), start()
    fit(resumed, data, "star", **options)
    fit(whole, data, "star", **{**options, "out": None})
    for a, b in zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_what_has_no_attributes_is_refused() -> None:
    images = torch.rand(6, 8, 8)
    with pytest.raises(CapabilityError, match="does not change attributes"):
        fit(ConditionalGAN(), (images, torch.eye(10)[:6]), "star")
    with pytest.raises(OptionError):
        make_method("star", reconstruction=-1.0)
    with pytest.raises(OptionError, match="slope"):
        make_method("star", regulariser=None)


def reader(train: Data) -> AttributeCritic:
    """Attributes as real training letters teach them."""
    torch.manual_seed(1)
    net = AttributeCritic((32, 32), 5, channels=[32, 64, 128])
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(2000):
        seen = train.rows(torch.randint(train.size, (64,)))
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(net.attributes(seen.x), seen.context).backward()
        optimizer.step()
    return net


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_letters_take_on_attributes_and_stay_the_same_letters() -> None:
    torch.set_default_dtype(torch.float32)
    letters = datasets.load("glyphs-attributes")
    found = fit("stargan", preset="small", device="cpu")
    assert not found.info["collapsed"]
    # Nine faces of each test letter; every one is made from another face.
    true = letters.test.x.unflatten(0, (-1, 9))
    source = true[torch.arange(len(true))[:, None], (torch.arange(9) + torch.randint(1, 9, (len(true), 9))) % 9]
    made = found.program.translate(source.flatten(0, 1), letters.test.context).unflatten(0, (-1, 9))
    net = reader(letters.train)

    def read(images: Tensor) -> Tensor:
        with torch.no_grad():
            said = net.attributes(images.flatten(0, 1)) > 0
        return (said == (letters.test.context > 0.5)).double().mean(0)

    assert bool((read(made) > 0.9 * read(true)).all())
    assert bool((read(source) < 0.9 * read(true)).all())  # whereas the sources do not show them
    shares = [recognition(made[:, face], true[:, face]).share for face in range(9)]
    copied = [recognition(source[:, face], true[:, face]).share for face in range(9)]
    assert sum(shares) > sum(copied)
