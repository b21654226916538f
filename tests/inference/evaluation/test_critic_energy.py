"""Critics as energies: a Gaussian generator and Gaussian data, whose best critic is known."""

from __future__ import annotations

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference import fit
from inference.evaluation.critic_energy import CriticEnergy, critic_energy
from inference.evaluation.likelihood import log_likelihood
from inference.evaluation.partition import bracket_log_partition
from inference.evaluation.queries.anomalies import anomaly_scores
from inference.fitted import Fit
from inference.mixing import chain_mixing
from tests.inference.games.gaussian import gaussian_data, gaussian_gan
from zoo.energy.rbm import RBM
from zoo.errors import CapabilityError, UnnormalisedError
from zoo.implicit.infogan import InfoGAN
from zoo.program import Implicit, ImplicitProgram
from zoo.testing import check_bad_data, check_copy, check_minibatch, check_seed, check_shapes


def gaussian(mean: list[float], covariance: list[list[float]]) -> torch.distributions.MultivariateNormal:
    return torch.distributions.MultivariateNormal(*(torch.tensor(v, dtype=torch.float64) for v in (mean, covariance)))


MADE = gaussian([0.5, -0.5], [[1.25, 0.5], [0.5, 1.0]])
DATA = gaussian([1.0, 0.0], [[0.6, -0.2], [-0.2, 0.5]])


class Linear(ImplicitProgram):
    """x = A z + b, whose density is MADE's."""

    def __init__(self) -> None:
        super().__init__()
        self.event_shape, self.support = torch.Size([2]), torch.distributions.constraints.real
        self.register_buffer("factor", MADE.scale_tril.clone())
        self.register_buffer("shift", MADE.loc.clone())

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            return pyro.sample("x", Implicit(z @ self.factor.T + self.shift, 1), obs=x)


class Best(nn.Module):
    """log p_data - log p_G, and something on top, which log Z must find."""

    def __init__(self, more: float = 0.0):
        super().__init__()
        self.more = more

    def forward(self, x: Tensor) -> Tensor:
        return DATA.log_prob(x) - MADE.log_prob(x) + self.more


@pytest.fixture
def energy() -> CriticEnergy:
    torch.manual_seed(0)
    return CriticEnergy(Linear(), Best(0.7), step=0.6, draw_sweeps=50)


def test_contract():
    program = CriticEnergy(Linear(), Best(), draw_sweeps=2, particles=8)
    for check in (check_shapes, check_minibatch, check_seed, check_copy, check_bad_data):
        check(program)


def test_the_best_critic_makes_the_data_of_the_generator(energy):
    """4,000 chains of 50 transitions from the generator's own draws: mean and covariance of the data, each of five
    numbers within 4.5 standard errors (1 in 30,000 in all) and far from those of the generator."""
    torch.manual_seed(1)
    x = energy.generate(4000)
    wide = DATA.covariance_matrix.diagonal()
    assert bool(((x.mean(0) - DATA.loc).abs() < 4.5 * (wide / 4000).sqrt()).all())
    error = ((wide[:, None] * wide + DATA.covariance_matrix**2) / 4000).sqrt()
    assert bool(((x.T.cov() - DATA.covariance_matrix).abs() < 4.5 * error).all())
    assert bool(((x.T.cov() - MADE.covariance_matrix).abs() > 4.5 * error).all())


def test_its_constant_is_what_the_critic_is_off_by(energy):
    """E_G[exp critic] = exp 0.7: between both bounds, give or take four of their errors (1 in 30,000 each)."""
    found = bracket_log_partition(energy, chains=200, steps=50, burn_in=50)
    assert found.lower.mean - 4 * float(found.lower.monte_carlo_error) < 0.7
    assert found.upper.mean + 4 * float(found.upper.monte_carlo_error) > 0.7
    assert found.width < 0.3


def test_examples_are_scored_by_the_critic_and_have_no_likelihood(energy):
    x = DATA.sample((50,))
    torch.testing.assert_close(energy.unnormalised_log_prob(x), DATA.log_prob(x) - MADE.log_prob(x) + 0.7)
    scores = anomaly_scores(energy, x)
    assert torch.equal(scores.argsort(), (MADE.log_prob(x) - DATA.log_prob(x)).argsort())
    with pytest.raises(CapabilityError, match="relative to what its generator draws"):
        log_likelihood(energy, x)
    with pytest.raises(UnnormalisedError):
        pyro.poutine.trace(energy.model).get_trace(x).log_prob_sum()


def test_latents_are_of_the_density_they_should_be(energy):
    z = torch.randn(20, 2)
    x = energy.shown(z)
    torch.testing.assert_close(x, z @ MADE.scale_tril.T + MADE.loc)
    prior = dist.Normal(0.0, 1.0).log_prob(z).sum(1)
    torch.testing.assert_close(energy.base().log_prob(z), prior)
    torch.testing.assert_close(energy.tempered(z, 0.0), prior)
    torch.testing.assert_close(energy.tempered(z, 0.3), prior + 0.3 * Best(0.7)(x))
    mixing = chain_mixing(energy)
    assert mixing.trouble is None
    assert 0.5 < mixing.moved < 1


def test_a_fitted_gan_is_an_energy(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sixty steps may collapse
        found = fit(gaussian_gan(), gaussian_data(), "gan", steps=60)
    before = {name: value.clone() for name, value in found.program.state_dict().items()}
    energy = critic_energy(found, draw_sweeps=5, particles=16)
    assert energy.generate(7).shape == (7, 2)
    x = gaussian_data()[:30]
    torch.testing.assert_close(energy.unnormalised_log_prob(x), found.modules["critic"](x).detach())
    assert bool(anomaly_scores(energy, x).isfinite().all())
    energy.train()
    energy.sweep(energy.particles)
    assert all(torch.equal(value, before[name]) for name, value in found.program.state_dict().items())
    found.save(tmp_path / "gan")
    with pytest.raises(CapabilityError, match="a critic is not saved"):
        critic_energy(Fit.load(tmp_path / "gan"))


def test_what_it_refuses():
    class Deviation(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(1) + x.mean()

    with pytest.raises(CapabilityError, match="what else is in its batch"):
        CriticEnergy(Linear(), Deviation(), particles=1)
    with pytest.raises(CapabilityError, match="is no generator of a game"):
        CriticEnergy(RBM([4], 2), Best())  # type: ignore[arg-type]
    with pytest.raises(CapabilityError, match="one latent of real numbers"):
        CriticEnergy(InfoGAN(), Best())
    with pytest.raises(CapabilityError, match="no critic of examples"):
        critic_energy(fit("ppca", torch.randn(10, 3), "svi", steps=1))
    for game in ("hinge", "least-squares"):
        with pytest.raises(CapabilityError, match=f"best critic of the game '{game}' is no log density ratio"):
            critic_energy(fit(gaussian_gan(), gaussian_data(), "gan", game=game, steps=1))
    averaged = fit(gaussian_gan(), gaussian_data(), "gan", ema=0.9, steps=1)
    with pytest.warns(UserWarning, match="compared the data with the last weights"):
        critic_energy(averaged)
    with pytest.raises(CapabilityError, match="which latent an example was made of"):
        CriticEnergy(Linear(), Best()).started(torch.zeros(1, 2))
    with pytest.raises(CapabilityError, match="no parameter that is to be learned"):
        fit(CriticEnergy(Linear(), Best()), torch.zeros(4, 2), "cd", steps=1)
