"""The game over pairs: what the critic is shown, who moves, which programs can play, and the posterior of PPCA."""

from __future__ import annotations

import math
import statistics

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference import Fit, fit
from inference.evaluation.two_samples import gaussian_kl
from inference.games.ali import ALIGame, PairCritic
from inference.particles import draw
from tests.inference.latents import NoLatents, NormalMean
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, OptionError, UnknownNameError
from zoo.implicit.ali import ALI
from zoo.implicit.gan import GAN
from zoo.latent.ppca import PPCA
from zoo.latent.vae import VAE
from zoo.mixtures.gaussian import GaussianMixture
from zoo.program import Program


class Line(Program):
    """z, w ~ N(0, 1), x ~ N(z + 2 w + context, 1/4): scalars, two latents, a context."""

    event_shape = torch.Size()

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(2.0))
        self.encoder = nn.Linear(2, 2)

    def example_context(self, n: int) -> Tensor:
        return torch.randn(n, 1)

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(self.slope), 1.0))
            w = pyro.sample("w", dist.Normal(torch.zeros_like(self.slope), 1.0))
            return pyro.sample("x", dist.Normal(z + self.slope * w + context[..., 0], 0.5), obs=x)

    def guide(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            loc = self.encoder(torch.stack([x, context[..., 0]], -1))
            pyro.sample("z", dist.Normal(loc[..., 0], 0.5))
            pyro.sample("w", dist.Normal(loc[..., 1], 0.5))


class Watching(nn.Module):
    """Keeps what it is shown."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.net = nn.Linear(inputs, 1)
        self.shown: list[tuple] = []

    def forward(self, *parts: Tensor) -> Tensor:
        self.shown.append(tuple(part.detach() for part in parts))
        return self.net(torch.cat([part.reshape(len(part), -1) for part in parts], 1))[:, 0]


def test_the_critic_is_shown_pairs_in_their_shapes() -> None:
    program = ALI([3, 2], 4, [8])
    x = torch.rand(10, 3, 2)
    contest = ALIGame(critic=Watching(10)).contest(program, Data(x))
    sides = contest.sides(Data(x), makers=True)
    judge = contest.judge(Data(x))
    for side in (sides.real, sides.fake):
        assert side.shape == (10, 10)
        assert judge(side).shape == (10,)
    (real_x, real_z), (fake_x, _) = contest.critic.shown
    assert real_z.shape == (10, 4)
    assert torch.equal(real_x, x)
    assert torch.equal(fake_x, sides.shown[1])
    # The generator made the fake x of the latents beside it (batch normalisation: of the whole batch).
    assert torch.allclose(program.decode(sides.fake[:, 6:]), sides.shown[1])


def test_scalars_several_latents_and_a_context() -> None:
    program, context = Line(), torch.randn(6, 1)
    data = Data(torch.randn(6), context)
    contest = ALIGame(critic=Watching(4)).contest(program, data)
    sides = contest.sides(data, makers=False)
    contest.judge(data)(sides.fake)
    x, latents, given = contest.critic.shown[0]
    assert x.shape == (6,)
    assert latents.shape == (6, 2)
    assert torch.equal(given, context)
    # Sites in alphabetical order: w, z.
    residual = x - 2 * latents[:, 0] - latents[:, 1] - context[:, 0]
    assert float(residual.std()) < 1.5
    found = fit(program, (data.x, context), "ali", steps=2)
    assert found.draw(3, data.x, context)["w"].shape == (3, 6)


@pytest.mark.parametrize("cycle", [0.0, 1.0])
def test_a_step_moves_every_parameter_of_all_players(cycle: float) -> None:
    program = ALI([3], 2, [8], support="real")
    critic = program.joint_critic()
    before = {id(p): p.detach().clone() for p in [*program.parameters(), *critic.parameters()]}
    found = fit(program, torch.randn(20, 3), "ali", critic=critic, steps=2, initialise=False, cycle=cycle)
    for module in (program, critic):
        for name, parameter in module.named_parameters():
            assert not torch.equal(parameter, before[id(parameter)]), name
    assert ("reconstruction" in found.history.metrics) == bool(cycle)
    assert math.isfinite(found.info["divergence"])


def test_with_the_program_fixed_the_guide_alone_moves() -> None:
    for guide in ("own", "implicit"):
        program = PPCA([3], 2)
        before = {name: p.detach().clone() for name, p in program.named_parameters()}
        fit(program, torch.randn(20, 3), "ali", guide=guide, train_program=False, steps=2, initialise=False)
        moved = {name for name, p in program.named_parameters() if not torch.equal(p, before[name])}
        own = {"encoder.weight", "encoder.bias", "encoder_scale_unconstrained"}
        assert moved == (own if guide == "own" else set())


def test_which_programs_can_play() -> None:
    for program, options, why in (
        (ALI(), {}, None),
        (PPCA([3], 1), {}, None),
        (VAE([4], likelihood="normal"), {}, None),
        (VAE([4]), {}, "not reparameterised"),
        (VAE([4]), {"train_program": False}, None),
        (GAN([4]), {}, "leaves out 'z'"),
        (GAN([4]), {"guide": "implicit"}, None),
        (NoLatents(), {}, "no latents"),
        (NormalMean(), {}, "'mu' is global"),
        (GaussianMixture([2]), {}, "discrete"),
        (Line(), {}, None),
    ):
        reason = ALIGame(**options).why_not(program)
        assert (reason is None) if why is None else (reason is not None and why in reason), (program, reason)
    with pytest.raises(CapabilityError, match="'mu' is global"):
        fit(NormalMean(), torch.randn(5), "ali")


@pytest.mark.parametrize(
    ("options", "error"),
    [({"guide": "normal"}, UnknownNameError), ({"cycle": -1.0}, OptionError), ({"game": "ali"}, UnknownNameError)],
)
def test_options_are_checked(options: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        ALIGame(**options)


def test_the_default_critic_standardises_the_data() -> None:
    x = 100 + 5 * torch.randn(1000, 2)
    critic = PairCritic(Data(torch.cat([x, torch.ones(1000, 1)], 1)), 3)
    assert torch.allclose(critic.loc[:2], x.mean(0))
    assert float(critic.scale[2]) == 1  # a constant pixel has no scale
    assert critic(torch.cat([x, torch.ones(1000, 1)], 1), torch.randn(1000, 3)).shape == (1000,)


@pytest.mark.parametrize("guide", ["own", "implicit"])
def test_saving_and_the_same_seed(guide: str, tmp_path) -> None:
    x, found = torch.rand(20, 4), []
    for seed in (0, 0, 1):
        torch.manual_seed(7)
        found.append(fit(ALI([4], 2, [8]), x, "ali", guide=guide, steps=3, seed=seed))
    draws = [each.draw(4, x, seed=0)["z"] for each in found]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    found[0].save(tmp_path / "fit")
    assert torch.equal(Fit.load(tmp_path / "fit").draw(4, x, seed=0)["z"], draws[0])


@pytest.mark.slow
def test_the_encoder_nears_the_posterior_of_ppca_and_the_elbo_comes_closer() -> None:
    """At the maximum of the likelihood the guide's family contains the posterior: 0.075 nats and 0.003 in one run."""
    torch.manual_seed(0)
    program, source = PPCA([8], 2), PPCA([8], 2)
    with torch.no_grad():
        source.weight.normal_()
        source.scale = torch.tensor(0.7)
    x = source.generate(2000)
    program.maximum_likelihood(x)

    def gap() -> float:
        mine, exact = (draw(guide, 4000, x[:20]).values["z"].detach() for guide in (program.guide, program.posterior))
        return statistics.mean(gaussian_kl(mine[:, i], exact[:, i]) for i in range(20))

    fixed: dict = {"train_program": False, "initialise": False, "steps": 1500}
    found = [gap()]
    fit(program, x, "ali", regulariser="r1", batch_size=256, critic_steps=2, lr=5e-3, critic_lr=2e-3, **fixed)
    found.append(gap())
    fit(program, x, "svi", **fixed)
    found.append(gap())
    assert found[0] > 10 * found[1]
    assert found[1] < 0.25
    assert found[2] < 0.02
