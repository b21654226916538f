"""Data in any units: what is learnt of years and prices is what is learnt of them standardised."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from inference import Fit, fit
from tests.zoo.densities import perturbed
from zoo import datasets
from zoo.autoregressive.base import Autoregressive
from zoo.autoregressive.ensemble import OrderEnsemble
from zoo.autoregressive.eonade import EoNADE
from zoo.autoregressive.made import MADE
from zoo.autoregressive.nade import NADE, RNADE
from zoo.bayes.gp import GaussianProcess
from zoo.bayes.sparse_gp import SparseGaussianProcess
from zoo.chains.hmm import HMM
from zoo.latent.ppca import PPCA
from zoo.likelihoods import make_likelihood
from zoo.mixtures.bayesian_gaussian import BayesianGaussianMixture
from zoo.units import FAR, Standard, units


def test_units_are_those_of_columns_that_are_large() -> None:
    rows = torch.tensor([[3.0, 30.0, 0.01, 0.0, 1.0], [-4.0, 40.0, -0.02, 0.0, 1.0]])
    np.testing.assert_allclose(units(rows), [1.0, 1 / 1250**0.5, 1.0, 1.0, 1.0], rtol=1e-12)
    near = units(torch.stack([torch.full((3,), size) for size in (FAR, 1.01 * FAR)], 1))
    np.testing.assert_allclose(near, [1, 1 / 4.04], rtol=1e-12)


def test_a_constant_has_no_unit_whatever_its_rounding() -> None:
    rows = torch.full((7, 2), 70.3, dtype=torch.float32)
    rows[:, 1] += torch.arange(7) / 100
    assert rows[:, 0].std(correction=0) > 0  # the mean of seven is off by a rounding
    standard = Standard([2]).float().take(rows)
    assert (standard.centre[0], standard.size[0]) == (0.0, 1.0)
    assert standard.size[1].item() == pytest.approx(0.02, rel=1e-3)


def test_what_is_far_from_one_is_standardised_and_what_is_not_is_left_alone() -> None:
    years, near, constant, small = 2000 + torch.arange(5.0), torch.arange(5.0) / 2, torch.full((5,), 70.0), 1e-3
    rows = torch.stack([years, near, constant, small * near], 1)
    standard = Standard([4])
    assert torch.equal(standard(rows), rows)
    standard.take(rows)
    found = standard(rows)
    np.testing.assert_allclose(found[:, 0], np.arange(-2, 3) / 2**0.5, rtol=1e-12)
    np.testing.assert_allclose(found[:, 3], found[:, 0], rtol=1e-12)
    assert torch.equal(found[:, 1:3], rows[:, 1:3])
    np.testing.assert_allclose(standard.back(found), rows, rtol=1e-12)


def data(n: int = 40) -> tuple[Tensor, Tensor]:
    """A sine through noise and where it is seen, both standardised."""
    place = torch.randn(n, 1)
    x = (2 * place[:, 0]).sin() + 0.3 * torch.randn(n)
    return tuple((v - v.mean(0)) / v.std(0, correction=0) for v in (x, place))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("name", "within"),
    [
        ("bnn", 1e-6),  # the same numbers all along
        ("gp", 0.02),  # but for the mean, whose steps are of another size
        ("sparse-gp", 0.2),  # and the inducing inputs, which raw ones hardly leave
    ],
)
def test_other_units_give_the_same_fit(name: str, within: float) -> None:
    x, place = data()
    losses = []
    for size, given in ((1.0, (x, place)), (50.0, (300 + 50 * x, 2000 + 500 * place))):
        found = fit(name, given, "svi", steps=100, lr=0.02, batch_size=100, seed=3, compile="never")
        losses.append(sum(found.history.series("loss")[1][-20:]) / 20 - math.log(size))
    assert losses[1] == pytest.approx(losses[0], abs=within), "nats per example"


@pytest.mark.parametrize("make", [GaussianProcess, SparseGaussianProcess])
def test_scales_that_an_option_says_are_kept(make: type[GaussianProcess]) -> None:
    x, place = data()
    parts = [{"name": "rbf", "lengthscale": 7.0}, "matern52", {"name": "periodic", "period": 12.0}]
    program = make.for_data(x, 500 * place, kernel={"name": "sum", "of": parts})
    with torch.no_grad():
        program.initialise(50 * x, 500 * place)
    found = {type(part).__name__: part for part in program.kernel.modules()}
    assert [found[kind].lengthscale.item() for kind in ("RBF", "Periodic")] == pytest.approx([7.0, 1.0])
    assert found["Matern52"].lengthscale.item() == pytest.approx(500.0)
    # Standardised columns leave what the user has set.
    program.kernel.kern0.kern1.lengthscale = torch.tensor([3.0])
    with torch.no_grad():
        program.initialise(x, place)
    assert found["Matern52"].lengthscale.item() == pytest.approx(3.0)
    # Variances are in units of that of x.
    assert found["RBF"].variance.item() == 1.0


COLUMNS = torch.tensor([10.0, 500.0, 0.01, 1.0]), torch.tensor([50.0, 2000.0, 0.05, 0.0])


def table(n: int = 120) -> Tensor:
    """Four standardised columns that have to do with each other."""
    z = torch.randn(n, 2)
    x = torch.cat([z @ torch.randn(2, 3) + 0.3 * torch.randn(n, 3), (2 * z[:, :1]).sin() + 0.2 * torch.randn(n, 1)], 1)
    return (x - x.mean(0)) / x.std(0, correction=0)


@pytest.mark.parametrize("name", ["vae", "hvae", "aae"])
def test_a_table_in_other_units_gives_the_same_fit(name: str) -> None:
    x, (size, centre) = table(), COLUMNS
    losses = []
    for given, lost in ((x, 0.0), (centre + size * x, float(size.log().sum()))):
        method = "aae" if name == "aae" else "svi"
        found = fit(name, given, method, likelihood="normal", steps=40, batch_size=120, seed=3, compile="never")
        history = found.history
        losses.append((-history.last("reconstruction") if name == "aae" else history.last("loss")) - lost)
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)


MIXTURE = {"name": "gaussian-mixture", "components": 3}
ORDERED: dict[str, Callable[[], Autoregressive]] = {
    "nade": lambda: NADE([4], 8, "random", likelihood="normal", seed=1),
    "scale of each": lambda: NADE([4], 8, "random", likelihood={"name": "normal", "scale": "pixel"}, seed=1),
    "rnade": lambda: RNADE([4], 8, "random", likelihood=MIXTURE, seed=1),
    "made": lambda: MADE([4], [8], masks={"count": 2, "shuffle": True}, direct=True, likelihood=MIXTURE),
    "eonade": lambda: EoNADE([4], [8], orders=2, likelihood=MIXTURE),
}


@pytest.mark.parametrize("name", ORDERED)
def test_columns_drawn_one_by_one_have_their_own_units(name: str) -> None:
    x, (size, centre) = table(), COLUMNS
    raw, standard = (perturbed(ORDERED[name]()) for _ in range(2))
    raw.load_state_dict(standard.state_dict())
    with torch.no_grad():
        before = [p.clone() for p in standard.parameters()]
        raw.initialise(centre + size * x)
        standard.initialise(x)
        assert any(not torch.equal(a, b) for a, b in zip(before, standard.parameters(), strict=True))
        for mine, theirs in zip(raw.parameters(), standard.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs)
        torch.testing.assert_close(raw.log_prob(centre + size * x) + size.double().log().sum(), standard.log_prob(x))
        noise = torch.rand(len(x), 4, raw.likelihood.noise)
        for known in (0, 2):
            drawn = []
            for program, given in ((raw, centre + size * x), (standard, x)):
                if isinstance(program, OrderEnsemble):
                    with program.member(1):
                        drawn.append(program.complete(given, known, noise=noise))
                else:
                    drawn.append(program.complete(given, known, noise=noise))
            torch.testing.assert_close(drawn[0], centre + size * drawn[1])
        # Columns of one size: an estimate from some of the sites loses as much as all of them.
        raw.initialise(7 + 50 * x)
        estimates = []
        for program, given in ((raw, 7 + 50 * x), (standard, x)):
            torch.manual_seed(3)
            estimates.append(program.training_log_prob(given))
        torch.testing.assert_close(estimates[0] + 4 * math.log(50.0), estimates[1])


def test_pixels_of_a_mixture_of_normals_share_their_unit() -> None:
    x = 255 * torch.rand(50, 2, 3)
    likelihood = make_likelihood(MIXTURE)
    start = likelihood.initial(x).expand(50, 2, 3, 9)
    density = likelihood.distribution(start)
    assert likelihood.embed(x).std(correction=0).item() == pytest.approx(1.0)
    torch.testing.assert_close(density.mean[0], torch.quantile(x, torch.tensor([1, 3, 5]) / 6, dim=0).mean(0))
    noise = torch.rand(50, 2, 3, 2)
    drawn = likelihood.draw(start, noise)
    assert 0 < drawn.mean() < 255
    np.testing.assert_allclose(likelihood.embed(drawn) * x.std(correction=0) + x.mean(), drawn)


@pytest.mark.parametrize(("size", "taken"), [(255.0, True), (1.0, False), (0.2, False)])
def test_pixels_share_a_unit_and_stay_as_they_are_in_the_unit_interval(size: float, taken: bool) -> None:
    x = size * torch.rand(50, 4, 4)
    x[:, 0, 0] = 0.0  # which never changes
    likelihood = make_likelihood("normal", [4, 4])
    start = likelihood.initial(x)
    seen = likelihood.embed(x)
    assert torch.equal(seen, x) != taken
    if taken:
        assert (seen.mean().item(), seen.std(correction=0).item()) == pytest.approx((0.0, 1.0), abs=1e-9)
    density = likelihood.distribution(start.expand(50, 4, 4, 1))
    torch.testing.assert_close(density.mean, x.mean(0).expand_as(x))
    spread = (x - x.mean(0)).square().mean().sqrt()
    torch.testing.assert_close(density.stddev, spread.expand_as(x).detach())
    noise = torch.rand(50, 4, 4, 1)
    torch.testing.assert_close(density.cdf(likelihood.draw(start.expand(50, 4, 4, 1), noise)), noise[..., 0])


def test_ppca_starts_at_the_size_of_its_data() -> None:
    x, (size, centre) = table(), COLUMNS
    program, standard = PPCA([4], 2), PPCA([4], 2)
    with torch.no_grad():
        program.weight.copy_(standard.weight)
        weight = standard.weight.clone()
        standard.initialise(x)
        program.initialise(centre + size * x)
    assert torch.equal(standard.weight, weight)
    assert standard.scale.item() == 1.0
    torch.testing.assert_close(program.weight / size[:, None], weight)
    assert program.scale.item() == pytest.approx(0.01)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("latent_dim", [1, 2, 3])
def test_em_of_ppca_ends_at_the_maximum_in_any_units(latent_dim: int, missing: bool) -> None:
    """In single precision, where the smallest column is a rounding of the largest one's squares."""
    size, centre = COLUMNS
    x = (centre + 100 * size * table()).float()
    rows = torch.cat([x, torch.full((3, 4), math.nan)]) if missing else x  # which say nothing
    found = fit(PPCA([4], latent_dim).float(), rows, "em", device="cpu", seed=2).program
    closed = PPCA([4], latent_dim).float()
    closed.maximum_likelihood(x)
    gaps = closed.log_prob(x).double().mean() - found.log_prob(x).double().mean()
    assert float(gaps.detach()) == pytest.approx(0.0, abs=1e-3)


def test_density_of_ppca_keeps_its_digits_however_its_weights_are_turned() -> None:
    size, centre = COLUMNS
    x = (centre + 100 * size * table()).float()
    program = PPCA([4], 2).float()
    program.maximum_likelihood(x)
    with torch.no_grad():
        turned = torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
        program.weight.copy_(program.weight.double() @ turned)
        weight = program.weight.double()
        covariance = weight @ weight.T + program.scale.double() ** 2 * torch.eye(4)
        exact = torch.distributions.MultivariateNormal(program.mean.double(), covariance).log_prob(x.double())
        np.testing.assert_allclose(program.log_prob(x), exact, atol=1e-4)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_the_prior_of_a_mixture_is_in_the_units_of_a_table(covariance: str, tmp_path: Path) -> None:
    x, (size, centre) = table(), COLUMNS
    options = {"components": 4, "covariance": covariance, "iterations": 40, "tolerance": 0.0, "seed": 1}
    found = [fit("bayesian-gaussian-mixture", x, "cavi", **options)]
    found.append(fit("bayesian-gaussian-mixture", centre + size * x, "cavi", out=tmp_path, **options))
    losses = [each.history.last("loss") for each in found]
    assert losses[1] - float(size.double().log().sum()) == pytest.approx(losses[0], abs=1e-9)
    again = Fit.load(tmp_path).program.prior
    torch.testing.assert_close(again.location, centre.double().expand(4, -1), rtol=1e-6, atol=1e-6)
    for mine, other in zip(again, found[1].program.prior, strict=True):
        torch.testing.assert_close(mine, other)


def test_the_prior_of_a_mixture_has_the_units_of_rows_that_stay_in_their_file(tmp_path: Path) -> None:
    rows = torch.tensor([[50.0, 1.0], [70.0, -1.0]]).repeat(50, 1)
    np.save(tmp_path / "rows.npy", rows)
    stored = datasets.load(tmp_path / "rows.npy", stored=True).train.x
    prior = BayesianGaussianMixture.for_data(stored, components=2).prior
    assert prior.location[0, 0].item() == pytest.approx(60.0, abs=3.0)
    assert prior.scatter[0].tolist() == pytest.approx([2**0.5 * 10.0, 2**0.5], rel=0.1)
    given = BayesianGaussianMixture([2], 2)
    given.initialise(rows)  # the prior of one that is given is what its options say
    assert given.prior.location.abs().max().item() == 0.0


def test_a_hidden_markov_model_starts_from_what_a_small_column_says() -> None:
    """Half a degree of fever beside a column of noise in thousands, which k-means in raw numbers would cut in two."""
    state = (torch.rand(30, 20, 1) < 0.5).double()
    x = torch.cat([50_000 + 15_000 * torch.randn(30, 20, 1), 37 + 1.2 * state + 0.2 * torch.randn(30, 20, 1)], -1)
    program = HMM([20, 2], 2, "normal")
    with torch.no_grad():
        program.initialise(x)
    right = float((program.marginals(x).argmax(-1) == state[..., 0]).double().mean())
    assert max(right, 1 - right) > 0.95


def test_a_linear_gaussian_chain_starts_from_what_all_columns_say() -> None:
    """Its one state is seen in the small column; the large one is noise."""
    state = torch.randn(40, 8, 1).cumsum(1)
    y = torch.cat([torch.randn(40, 8, 1), state + 0.2 * torch.randn(40, 8, 1)], -1)
    size = torch.tensor([15_000.0, 1.0], dtype=torch.float64)
    losses = []
    for x, lost in ((y, 0.0), (50_000 + size * y, 8 * float(size.log().sum()))):
        found = fit("lgssm", x, "em", latent_dim=1, iterations=20, tolerance=0.0, seed=1)
        losses.append(found.history.last("loss") - lost)
    assert losses[1] == pytest.approx(losses[0], abs=0.1)
