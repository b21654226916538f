"""The players of an adversarial game and the method `gan`: moments learned, collapse reported, runs repeated."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from inference import fit
from inference.games.game import Average, CollapseNotice, diversity
from inference.training.loop import Loop
from tests.inference.games.gaussian import gaussian_data, gaussian_gan
from zoo.datasets.data import Data
from zoo.program import Implicit, ImplicitProgram

# The GAN game


def test_diversity() -> None:
    x = torch.randn(50, 2, 3)
    assert abs(float(diversity(3 * x, x)) - 3) < 1e-6
    assert float(diversity(x[:1].expand(50, 2, 3), x)) == 0
    assert float(diversity(x, x[:1].expand(50, 2, 3))) == 1


def test_a_step_moves_every_parameter_of_both_players() -> None:
    x, program = gaussian_data(), gaussian_gan()
    critic = program.critic()
    before = {id(p): p.detach().clone() for p in [*program.parameters(), *critic.parameters()]}
    fit(program, x, "gan", critic=critic, steps=2, initialise=False)
    for module in (program, critic):
        for name, parameter in module.named_parameters():
            # A bias at the output of the critic cancels only in games that the players have solved.
            assert not torch.equal(parameter, before[id(parameter)]), name


def test_same_seed_same_numbers() -> None:
    def run(seed: int) -> tuple[Tensor, list]:
        program = gaussian_gan()
        found = fit(program, gaussian_data(), "gan", steps=30, seed=seed, critic_steps=2)
        return torch.cat([p.detach().flatten() for p in program.parameters()]), found.history.series("loss")

    first, second, other = run(1), run(1), run(2)
    assert torch.equal(first[0], second[0])
    assert first[1] == second[1]
    assert not torch.equal(first[0], other[0])


class Narrow(ImplicitProgram):
    """A generator that can only draw one point."""

    event_shape = torch.Size([2])
    support = constraints.real

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.zeros(2))

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            return pyro.sample("x", Implicit(self.point + 0 * z, 1), obs=x)

    def critic(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 1), nn.Flatten(0))


def test_collapse_and_saturation_are_reported() -> None:
    with pytest.warns(CollapseNotice) as said:
        found = fit(Narrow(), gaussian_data() + 20, "gan", steps=200, critic_lr=1e-2)
    assert [str(notice.message)[:20] for notice in said] == ["The game of Narrow c", "The critic of Narrow"]
    assert found.info["collapsed"]
    assert found.info["saturated"]
    assert found.info["diversity"] == 0


def test_a_killed_game_resumes_to_the_same_numbers(tmp_path, monkeypatch) -> None:
    x = gaussian_data()
    whole = gaussian_gan()
    fit(whole, x, "gan", steps=40)

    batch = Loop.batch

    def stop_half_way(loop: Loop) -> Data:
        if loop.done == 20:
            loop.save()
            raise KeyboardInterrupt
        return batch(loop)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "batch", stop_half_way)
        with pytest.raises(KeyboardInterrupt):
            fit(gaussian_gan(), x, "gan", steps=40, out=tmp_path)
    resumed = gaussian_gan()
    fit(resumed, x, "gan", steps=40, out=tmp_path)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_averages_are_those_by_hand() -> None:
    weight, bias = torch.tensor([[1.0, 2.0]]), torch.tensor([4.0])
    average = Average([weight, bias])
    weight.fill_(10.0)  # the average starts where the weights were, and is not one of them
    # m <- d m + (1 - d) x: by 0.5 to (1 + 10) / 2 and (2 + 10) / 2, then by 0.75 towards x = -2.
    average.update([weight, bias], 0.5)
    average.update([torch.full((1, 2), -2.0), torch.tensor([0.0])], torch.tensor(0.75))
    found = [torch.empty(1, 2), torch.empty(1)]
    average.copy_to(found)
    torch.testing.assert_close(found[0], torch.tensor([[0.75 * 5.5 - 0.5, 0.75 * 6.0 - 0.5]]))
    torch.testing.assert_close(found[1], torch.tensor([3.0]))
    # Many steps at once: the weight of the step that was i steps ago is (1 - d) d^i.
    series = torch.randn(30)
    average = Average([torch.zeros(())])
    for value in series:
        average.update([value], 0.9)
    average.copy_to(found := [torch.empty(())])
    torch.testing.assert_close(found[0], (0.1 * 0.9 ** torch.arange(29, -1, -1) * series).sum())


def test_averages_are_kept_in_checkpoints_and_have_no_gradients() -> None:
    parameter = nn.Parameter(torch.ones(3))
    average = Average([parameter])
    average.update([2 * parameter], 0.5)
    assert not any(value.requires_grad for value in average.buffers())
    again = Average([torch.zeros(3)])
    again.load_state_dict(average.state_dict())
    again.copy_to([parameter])
    torch.testing.assert_close(parameter.detach(), torch.full((3,), 1.5))
    with pytest.raises(ValueError, match="zip"):
        average.update([parameter, parameter], 0.5)
