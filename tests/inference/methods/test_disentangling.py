"""The weighted bound: at weights of one the bound itself; total correlation against sums by hand and a Gaussian."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from inference import fit
from inference.methods.bounds import make_objective
from inference.methods.disentangling import Disentangling, total_correlation
from zoo import catalogue
from zoo.datasets import Data
from zoo.errors import CapabilityError, OptionError
from zoo.latent.hvae import HierarchicalVAE
from zoo.latent.vae import VAE


def vae(d: int = 4, **options: Any) -> VAE:
    """A linear one of real numbers, so that x says what z is."""
    return VAE([d], **{"latent_dim": 3, "hidden": [], "likelihood": "normal", **options})


def moments(program: VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    base = program.encode(x).base_dist
    return base.loc.detach(), base.scale.detach()


@torch.no_grad()
def test_of_all_the_data_it_is_that_of_their_posteriors_as_they_are():
    """Written out with sums over examples, at the same draws."""
    program, x = vae(), torch.randn(12, 4)
    torch.manual_seed(3)
    found = total_correlation(program.guide, Data(x), 12)
    torch.manual_seed(3)
    z = program.encode(x).sample()
    loc, scale = moments(program, x)
    want = 0.0
    for i in range(12):
        each = Normal(loc, scale).log_prob(z[i]).exp()  # (examples, d)
        want += float((each.prod(-1).mean().log() - each.mean(0).log().sum()) / 12)
    assert float(found) == pytest.approx(want)


@torch.no_grad()
def test_a_minibatch_estimates_each_density_without_bias():
    """q(z) at a draw from the first example, averaged over all minibatches that hold it."""
    program, x = vae(), torch.randn(6, 4)
    loc, scale = moments(program, x)
    z = program.encode(x[:1]).sample()
    each = Normal(loc, scale).log_prob(z).sum(-1).exp()
    rows = torch.combinations(torch.arange(1, 6), 2)
    n, b = 6, 3
    estimates = each[0] / n + (n - 1) / (n * (b - 1)) * each[rows].sum(-1)
    assert float(estimates.mean()) == pytest.approx(float(each.mean()))


@torch.no_grad()
def test_of_gaussian_posteriors_means_it_is_that_of_a_gaussian_and_low_in_minibatches():
    """Linear codes of Gaussian data: q(z) is normal, TC = (sum_d log S_dd - log |S|) / 2."""
    program, x = vae(), torch.randn(800, 4)
    program.encoder[-1].weight[:3] = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.8, 0.6, 0.0, 0.0], [0.0, 0.6, 0.8, 0.0]])
    program.encoder[-1].weight[3:] = 0.0  # constant scales
    program.encoder[-1].bias[3:] = math.log(0.6)
    loc, _ = moments(program, x)
    covariance = torch.cov(loc.T) + 0.36 * torch.eye(3)
    truth = float(0.5 * (covariance.diag().log().sum() - covariance.logdet()))
    assert truth > 0.1
    whole = float(torch.stack([total_correlation(program.guide, Data(x), 800) for _ in range(4)]).mean())
    # 800 narrow Gaussians are not quite one wide one.
    assert whole == pytest.approx(truth, abs=0.05)
    means = []
    for b in (8, 64):
        rows = [torch.randperm(800)[:b] for _ in range(300)]
        found = torch.stack([total_correlation(program.guide, Data(x[r]), 800) for r in rows])
        means.append(float(found.mean()))
    assert means[0] < means[1] < whole


def test_weights_of_one_are_the_bound_to_the_last_bit():
    program, x = vae(likelihood="bernoulli"), (torch.rand(30, 4) < 0.5).double()
    start = {name: value.clone() for name, value in program.state_dict().items()}
    found = []
    for options in ({}, {"beta": 1.0, "tc": 1.0}):
        program.load_state_dict(start)
        fit(program, x, "svi", steps=10, batch_size=8, seed=4, compile="never", initialise=False, **options)
        found.append({name: value.clone() for name, value in program.state_dict().items()})
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


@pytest.mark.parametrize("elbo", ["trace", "mean_field"])
def test_the_weights_are_on_the_divergence_and_on_the_total_correlation(elbo):
    program, data = vae(), Data(torch.randn(10, 4))
    plain = make_objective(elbo)

    def value(objective: Any) -> Tensor:
        torch.manual_seed(7)
        return objective(program, program.guide, data, 25)[1]

    bound, none = value(plain), value(lambda *args: plain(*args, 1e-12))
    kl = none - bound
    torch.testing.assert_close(value(Disentangling(plain, 4.0, 1.0)), none - 4 * kl)
    both = value(Disentangling(plain, 1.0, 6.0))
    torch.manual_seed(7)
    plain(program, program.guide, data, 25)
    penalty = total_correlation(program.guide, data, 25)
    torch.testing.assert_close(both, bound - 5 * penalty.detach())


def test_the_surrogates_gradient_is_that_of_what_is_climbed():
    program, data = vae(), Data(torch.randn(10, 4))
    torch.manual_seed(2)
    loss, value = Disentangling(make_objective("mean_field"), 3.0, 5.0)(program, program.guide, data, 40)
    torch.testing.assert_close(loss.detach(), -value)
    gradients = torch.autograd.grad(loss, list(program.encoder.parameters()))
    torch.manual_seed(2)
    objective = make_objective("mean_field")(program, program.guide, data, 40, 3.0)[0]
    penalty = 4.0 * total_correlation(program.guide, data, 40)
    by_hand = torch.autograd.grad(objective + penalty, list(program.encoder.parameters()))
    for found, want in zip(gradients, by_hand, strict=True):
        torch.testing.assert_close(found, want)


def test_a_fit_lowers_the_total_correlation_and_reports_the_true_bound():
    torch.manual_seed(0)
    x = torch.randn(200, 2) @ torch.randn(2, 6) + 0.3 * torch.randn(200, 6)
    ends = {}
    for tc in (1.0, 30.0):
        torch.manual_seed(1)
        program = vae(6, latent_dim=2)
        found = fit(program, x, "svi", elbo="mean_field", tc=tc, steps=120, lr=5e-2, batch_size=50, compile="never")
        with torch.no_grad():
            ends[tc] = float(torch.stack([total_correlation(program.guide, Data(x), 200) for _ in range(20)]).mean())
        if tc == 1.0:
            assert "penalised_loss" not in found.history.metrics
        else:
            loss, climbed = (found.history.series(name)[1][-1] for name in ("loss", "penalised_loss"))
            objective = make_objective("mean_field", 50)
            with torch.no_grad():
                bound = float(objective(program.eval(), program.guide, Data(x), 200)[1])
            assert loss == pytest.approx(-bound, abs=0.3)
            assert climbed > loss
    assert ends[30.0] < ends[1.0]


class Auxiliary(VAE):
    """A guide with a variable of its own: what it samples given an example has a density that nobody knows."""

    def guide(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            u = pyro.sample("u", dist.Normal(torch.zeros(2), 1.0).to_event(1), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Normal(self.encode(x).mean + u, 1.0).to_event(1))


def test_what_has_no_such_parts_is_refused():
    x = torch.zeros(6, 8, 8)
    for options, error, says in (
        ({"elbo": "iwae", "particles": 3, "beta": 2.0}, OptionError, "beta and tc weigh the KL"),
        ({"tc": 2.0, "batch_size": 1}, OptionError, "at least 2"),
        ({"beta": 2.0, "patience": 3}, OptionError, "patience stops where the bound is best"),
    ):
        with pytest.raises(error, match=says):
            fit("vae", x, "svi", steps=1, **options)
    priors = VAE(prior="vamp"), VAE(prior="learned-mixture")
    for program in (
        VAE(guide="full"), HierarchicalVAE(), VAE(latent_dim=1), catalogue.create("vq-vae"), *priors, Auxiliary()
    ):  # fmt: skip
        with pytest.raises(CapabilityError, match="tc"):
            fit(program, x, "svi", steps=1, tc=2.0)
    with pytest.raises(CapabilityError, match=r"it has \['z1', 'z2'\]\. Leave tc at 1"):
        fit(HierarchicalVAE(), x, "svi", steps=1, tc=2.0)
    with pytest.raises(CapabilityError, match=r"it has none\. Leave tc at 1"):
        fit("independent", x, "svi", steps=1, tc=2.0)
    fit(HierarchicalVAE(), x, "svi", steps=1, beta=2.0)  # the KL of several layers has a weight
