"""The adversarial autoencoder's method: latents of all the data become the prior's, for any program that allows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference import Fit, fit
from inference.evaluation.samples.classifier import train_classifier
from inference.evaluation.samples.quality import frechet
from inference.evaluation.two_samples import mmd
from inference.games.aae import AAEGame
from inference.guides.implicit import ImplicitGuide
from inference.method import Run
from tests.inference.steps import both, ready, small
from tests.inference.training.lines import agree
from tests.zoo.readings import TwoReadings
from zoo import catalogue, datasets
from zoo.datasets import Data
from zoo.errors import CapabilityError, OptionError, UnknownNameError
from zoo.latent.aae import AAE
from zoo.latent.ppca import PPCA
from zoo.latent.priors import Flower
from zoo.latent.vae import VAE
from zoo.program import Program


def codes(found: Fit, x: Tensor, n: int = 1) -> Tensor:
    """(n B, k)."""
    return found.draw(n, x)["z"].flatten(0, 1)


def ppca() -> tuple[PPCA, Tensor]:
    """At the maximum of its likelihood, where the exact posteriors of all the data together are the prior."""
    torch.manual_seed(0)
    x = 1.5 * torch.randn(1000, 2) @ torch.randn(2, 6) + 0.5 * torch.randn(1000, 6) + 1
    program = PPCA([6], 2)
    program.maximum_likelihood(x)
    return program, x


@pytest.mark.parametrize(("guide", "lr"), [("own", 5e-2), ("implicit", 1e-2)])
def test_latents_of_the_data_become_the_priors(guide: str, lr: float) -> None:
    program, x = ppca()
    found = fit(
        program, x, "aae", guide=guide, train_program=False, steps=300, lr=lr, critic_lr=1e-2, batch_size=256,
        compile="traced",
    )  # fmt: skip
    z = codes(found, x)
    with torch.no_grad():
        exact = program._posterior_mean(x - program.mean)
        variances = torch.linalg.eigvalsh(program.scale**2 * torch.linalg.inv(program._m()))
    # Where the game comes to rest, not a Monte Carlo error: the means were off by 0.005 at most, the covariances by
    # 0.23 (the linear guide, which is still learning) and 0.05 (the network).
    assert float(z.mean(0).abs().max()) < 0.1
    assert float((torch.cov(z.T) - torch.eye(2)).abs().max()) < 0.3
    # Not by forgetting x: the codes are near the means of the exact posteriors.
    assert float((z - exact).square().mean()) < 0.1
    assert not found.info["collapsed"]
    if guide == "own":  # for want of the mutual information the codes are sharper than the posterior
        assert float(program.encoder_scale.detach().square().max()) < float(variances.min()) / 2


@pytest.mark.parametrize(
    ("guide", "prior"), [("deterministic", "swiss-roll"), ("universal", "mixture"), ("diagonal", "mixture")]
)
def test_codes_approach_any_prior_by_any_guide(guide: str, prior: str) -> None:
    x = torch.randn(600, 2) @ torch.tensor([[1.0, 0.5], [0.0, 1.0]])
    torch.manual_seed(0)
    program = AAE([2], 2, [32], "normal", prior={"name": prior, "scale": 3.0}, guide=guide)
    with torch.no_grad():
        start = program.encode(x).sample()
        target = program.prior().sample(torch.Size([600]))
    found = fit(program, x, "aae", steps=150, lr=1e-2, critic_lr=3e-3, batch_size=200, weight=0.1, compile="traced")
    before, after = (mmd(z, target, permutations=1).value for z in (start, codes(found, x)))
    assert after < before / 4


def test_what_is_minimised_beside_the_game() -> None:
    """weight E_q[-log p(x | z)] of an example, here with a code that is a function of x."""
    torch.manual_seed(0)
    program = AAE([3, 3], 2, [8], guide="deterministic")
    x = program.generate(20)
    method = AAEGame(weight=0.3)
    sides = method.contest(program, Data(x)).sides(Data(x), makers=True)
    z = program.encode(x).sample()
    assert torch.equal(sides.fake, z)
    assert torch.allclose(sides.loss, -0.3 * program.decode(z).log_prob(x).mean())
    assert sides.real.shape == z.shape
    assert not sides.real.requires_grad
    assert method.contest(program, Data(x)).sides(Data(x), makers=False).loss is None


def test_train_program_false_moves_the_guide_alone() -> None:
    program, x = ppca()
    before = {name: p.detach().clone() for name, p in program.named_parameters()}
    fit(program, x, "aae", train_program=False, steps=2)
    moved = {name for name, p in program.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"encoder.weight", "encoder.bias", "encoder_scale_unconstrained"}
    fit(program, x, "aae", steps=2)
    assert all(not torch.equal(p, before[name]) for name, p in program.named_parameters())


def test_an_implicit_guide_comes_back_from_a_checkpoint(tmp_path: Path) -> None:
    program, x = ppca()
    found = fit(program, x, "aae", guide="implicit", steps=3, out=tmp_path)
    assert isinstance(found.guide, ImplicitGuide)
    assert torch.equal(codes(found, x[:5]), codes(Fit.load(tmp_path), x[:5]))


class Chain(Program):
    """b ~ N(context, 1), a ~ N(2 b, 0.1^2) in the plane, x ~ N(a, 1): two sites, one above the other, and a context."""

    event_shape = torch.Size([2])

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 3)

    def example_context(self, n: int) -> Tensor:
        return torch.randn(n, 1)

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            b = pyro.sample("b", dist.Normal(context.squeeze(-1), 1.0))
            a = pyro.sample("a", dist.Normal(2 * b[..., None].expand(*b.shape, 2), 0.1).to_event(1))
            return pyro.sample("x", dist.Normal(a, 1.0).to_event(1), obs=x)

    def guide(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            out = self.encoder(torch.cat([x, context], -1))
            pyro.sample("a", dist.Normal(out[..., :2], 0.1).to_event(1))
            pyro.sample("b", dist.Normal(out[..., 2], 0.1))


def test_several_sites_lie_side_by_side_and_the_critic_sees_the_context() -> None:
    program = Chain()
    context = torch.randn(2000, 1)
    data = Data(program.generate(2000, context), context)
    contest = AAEGame().contest(program, data)
    real = contest.sides(data, makers=False).real
    assert real.shape == (2000, 3)
    # The prior is drawn from the top: a, the first two, is 2 b, the third, which is the context and 1.
    assert float((real[:, :2] - 2 * real[:, 2:]).std()) == pytest.approx(0.1, rel=0.1)
    assert float((real[:, 2:] - context).std()) == pytest.approx(1.0, rel=0.1)
    assert contest.critic.net[0].in_features == 4
    found = fit(program, tuple(data), "aae", steps=3)
    assert found.draw(2, *data)["a"].shape == (2, 2000, 2)


def test_same_seed_same_numbers() -> None:
    def run(seed: int) -> tuple[Tensor, list]:
        program, x = ppca()
        found = fit(program, x, "aae", steps=10, seed=seed, critic_steps=2)
        return program.encoder.weight.detach().clone(), found.history.series("reconstruction")

    first, second, other = run(1), run(1), run(2)
    assert torch.equal(first[0], second[0])
    assert first[1] == second[1]
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ppca", {}),
        pytest.param("ppca", {"guide": "implicit"}, marks=pytest.mark.slow),
        pytest.param("aae", {"critic_steps": 2}, marks=pytest.mark.slow),
    ],
)
def test_a_compiled_step_gives_the_numbers_of_python(name: str, options: dict) -> None:
    program, data = small(name)
    agree(both(ready(program, data, "aae", batch_size=5, **options)))


def test_a_compiled_step_with_samplers() -> None:
    program, data = small("aae", prior="swiss-roll", guide="universal")
    agree(both(ready(program, data, "aae", batch_size=5)))


class Unfeeling(PPCA):
    """Its guide's draws have no gradient."""

    def guide(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            one = dist.Normal(self.encoder(x.flatten(1))[..., None, :], 1.0).to_event(1)
            pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(logits=x.new_zeros(1)), one))


class Silent(PPCA):
    """It has no guide."""

    def guide(self, x=None, context=None, size=None):
        pass


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gan", "it is implicit"),
        ("hmm", "is discrete"),
        ("normal", "is global"),
        ("nade", "no latents"),
        (lambda: Unfeeling([3], 1), "no gradient"),
        (lambda: Silent([3], 1), "leaves out 'z'"),
    ],
)
def test_refusals(name: str | Callable[[], Program], says: str) -> None:
    program = catalogue.create(name) if isinstance(name, str) else name()
    x, context = program.generate(6, program.example_context(6)), program.example_context(6)
    with pytest.raises(CapabilityError, match=says):
        fit(program, x if context is None else (x, context), "aae", steps=1)


def test_an_implicit_guide_helps_where_the_programs_own_will_not_do() -> None:
    assert AAEGame(guide="implicit").why_not(Silent([3], 1)) is None
    assert fit(Silent([3], 1), torch.randn(9, 3), "aae", guide="implicit", steps=1).guide is not None


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"weight": 0.0}, OptionError),
        ({"guide": "normal"}, UnknownNameError),
        ({"critic_hidden": (8, 0)}, OptionError),
        ({"lr": 0.0}, OptionError),
        ({"game": "wasserstein"}, OptionError),
    ],
)
def test_options_are_checked(options: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        AAEGame(**options)


def test_other_games_and_regularisers() -> None:
    program, x = ppca()
    for options in ({"game": "wasserstein", "regulariser": "gradient-penalty"}, {"regulariser": "r1"}):
        found = AAEGame(steps=2, **options).run(program, Run(Data(x)))
        assert found.info["diversity"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_held_out_codes_of_mnist_are_the_mixture_and_its_samples_are_nearer_to_data_than_the_vaes(
    zoo_data: Path, seed: int
) -> None:
    """The small presets' networks, latents and steps are the same for both; 1,000 codes, samples and test images."""
    torch.set_default_dtype(torch.float32)
    preset, data, found = AAE.presets["small"], datasets.load("mnist10k-binary"), {}
    ours = catalogue.create_for("aae", data.train, "small")
    assert isinstance(ours.code_prior, Flower)
    same = {"latent_dim": ours.latent_dim, "hidden": preset.program["hidden"], "activation": "relu"}
    torch.manual_seed(seed)
    ours = catalogue.create_for("aae", data.train, "small")
    theirs = VAE.for_data(data.train.x, **same)
    found = fit(ours, data, preset.method, seed=seed, **preset.fit)
    shared = {name: preset.fit[name] for name in ("steps", "batch_size", "lr")}
    fit(theirs, data, "svi", seed=seed, elbo="mean_field", **shared)
    prior = ours.prior().sample(torch.Size([1000]))
    assert len(data.test.x) == 1000
    assert mmd(codes(found, data.test.x), prior, permutations=999, seed=seed).p_value > 0.01
    network = train_classifier("mnist10k-binary")
    scores = [frechet(each.generate(1000), data.test.x, network).value for each in (ours, theirs)]
    assert scores[0] < scores[1]


def test_the_reconstruction_is_of_all_that_is_observed() -> None:
    program = TwoReadings()
    context = program.example_context(5)
    data = Data(program.generate(5, context), context)
    sides = AAEGame().contest(program, data).sides(data, makers=True)
    z = sides.fake.squeeze(-1)
    wanted = (dist.Normal(z, 1.0).log_prob(data.x) + dist.Normal(z, 0.5).log_prob(context)).mean()
    torch.testing.assert_close(sides.metrics["reconstruction"], wanted)
