"""Pathfinder beside the best Gaussian, where that is known, and its draws where the posterior has two modes."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

import zoo
from benchmarks import targets
from inference import Fit, fit
from inference.evaluation import elbo
from inference.methods.pathfinder import Normal, normals
from tests.inference.posteriors import (
    FAR,
    FAR_EVIDENCE,
    FAR_MEAN,
    FAR_SD,
    dense,
    far,
    slopes_counted,
    square,
    square_evidence,
)
from tests.inference.toys import Sampler
from zoo.bayes.eight_schools import EightSchools
from zoo.bayes.logistic import LogisticRegression
from zoo.datasets import Data
from zoo.errors import CapabilityError, DivergenceError, OptionError


def test_a_gaussian_of_basis_and_factor_is_torchs() -> None:
    basis = torch.linalg.qr(torch.randn(5, 2))[0]
    factor = torch.tensor([[0.5, 0.0], [0.3, 2.0]])
    normal = Normal(torch.randn(5), torch.rand(5) + 0.5, basis=basis, factor=factor)
    same = torch.distributions.MultivariateNormal(normal.loc, normal.covariance())
    z = torch.randn(7, 5)
    torch.testing.assert_close(normal.log_prob(z), same.log_prob(z))
    # Draws are an affine map of the noise, with that covariance.
    columns = normal.draws(torch.eye(5)) - normal.draws(torch.zeros(1, 5))
    torch.testing.assert_close(columns.T @ columns, normal.covariance())
    torch.testing.assert_close(normal.draws(torch.zeros(1, 5))[0], normal.loc)


def test_a_quadratic_is_known_once_there_are_as_many_steps_as_numbers() -> None:
    """With exact line searches BFGS has the inverse of the curvature after D steps (Nocedal & Wright, theorem 6.4)."""
    precision = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 4.0]])
    at, places, direction = torch.tensor([1.0, -2.0, 0.5]), [], None
    for _ in range(4):
        places.append(at)
        slope = -precision @ at
        previous = places[-2] if len(places) > 1 else None
        if previous is None:
            direction = slope
        else:  # conjugate gradients take the steps that BFGS takes
            direction = slope + slope.square().sum() / (precision @ previous).square().sum() * direction
        at = at + (slope @ direction) / (direction @ precision @ direction) * direction
    path = torch.stack(places)
    found = normals(path, -path @ precision, memory=6)
    assert len(found) == 3
    torch.testing.assert_close(found[-1].covariance(), torch.linalg.inv(precision), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found[-1].loc, torch.zeros(3), rtol=0, atol=1e-8)


def test_steps_that_tell_of_no_curvature_are_left_out() -> None:
    path = torch.tensor([[0.0], [1.0], [3.0]])
    assert normals(path, torch.tensor([[1.0], [1.0], [2.0]]), memory=6) == []


def test_a_datum_far_from_the_prior() -> None:
    found = fit(zoo.adopt(far), FAR, "pathfinder", paths=1)
    q = found.guide.get_posterior()
    assert float(q.mean.detach()) == pytest.approx(FAR_MEAN, abs=1e-6)
    assert float(q.covariance_matrix.detach().sqrt()) == pytest.approx(FAR_SD, abs=1e-6)
    assert found.info["log_evidence"] == pytest.approx(FAR_EVIDENCE, abs=1e-6)
    assert found.info["convergence"] == {"verdict": "converged"}


@pytest.mark.parametrize("seed", range(3))
def test_its_bound_is_that_of_the_best_gaussian_where_that_is_the_posterior(seed: int) -> None:
    program, data = dense(seed)
    found = fit(program, data, "pathfinder", paths=1, seed=seed)
    truth = float(program.log_evidence(*data))
    bound = elbo(program, found.guide, data, 500)
    assert truth - 0.05 < float(bound.values) < truth + 4.3 * float(bound.monte_carlo_error) + 1e-9
    assert found.info["elbo"][0] == pytest.approx(truth, abs=0.05)
    assert found.info["log_evidence"] == pytest.approx(truth, abs=0.05)


def test_its_bound_on_a_logistic_regression_is_near_that_of_the_best_gaussian() -> None:
    rows = torch.randn(30, 3)
    program = LogisticRegression(3)
    data = Data(torch.bernoulli((rows @ torch.tensor([1.0, -1.0, 0.5])).sigmoid()), rows)
    found = fit(program, data, "pathfinder", paths=1)
    best = fit(program, data, "svi", guide="multivariate_normal")
    ours, theirs = (float(elbo(program, each.guide, data, 2000).values) for each in (found, best))
    assert theirs - 0.1 < ours < theirs + 0.05


def test_several_paths_give_draws_of_both_modes() -> None:
    found = fit(zoo.adopt(square), {"y": torch.tensor(4.0)}, "pathfinder", paths=8)
    z = found.samples["z"]
    assert z.shape == (1000,)
    assert 0.3 < float((z > 0).double().mean()) < 0.7
    assert float(z.abs().mean()) == pytest.approx(2.0, abs=0.05)
    assert found.info["log_evidence"] == pytest.approx(square_evidence(4.0), abs=0.05)


def test_gradients_are_counted(monkeypatch) -> None:
    program, data = dense()
    with slopes_counted(monkeypatch) as seen:
        found = fit(program, data, "pathfinder", paths=2, draws=50)
    assert found.gradient_evaluations == sum(seen) > 0


def test_one_seed_is_one_answer_and_a_fit_is_saved(tmp_path) -> None:
    options = {"paths": 2, "draws": 40}
    found = fit("eight-schools", None, "pathfinder", out=tmp_path, seed=3, **options)
    again = fit("eight-schools", None, "pathfinder", seed=3, **options)
    other = fit("eight-schools", None, "pathfinder", seed=4, **options)
    assert {name: tuple(v.shape) for name, v in found.samples.items()} == {"mu": (40,), "tau": (40,), "eta": (40, 8)}
    assert all(torch.equal(value, again.samples[name]) for name, value in found.samples.items())
    assert not torch.equal(found.samples["mu"], other.samples["mu"])
    loaded = Fit.load(tmp_path)
    assert torch.equal(loaded.draw(9)["eta"], found.draw(9)["eta"])


def test_a_funnel_is_not_to_be_trusted() -> None:
    found = fit(EightSchools(centered=True), targets.load("eight-schools-centered").data, "pathfinder", steps=50)
    assert found.info["convergence"] == {"verdict": "not to be trusted"}
    assert "k-hat" in found.info["warning"]


def test_what_it_refuses() -> None:
    with pytest.raises(CapabilityError, match="it is implicit"):
        fit(Sampler(), torch.zeros(3), "pathfinder")
    with pytest.raises(OptionError, match="paths must be at least 1, got 0"):
        fit("coin", "coin", "pathfinder", paths=0)
    with pytest.raises(DivergenceError, match="none of 4 paths"):
        fit(zoo.adopt(far), {"y": torch.tensor(1e200)}, "pathfinder")


def priced(income: torch.Tensor, rate: torch.Tensor, price: torch.Tensor) -> None:
    """Columns of a house: units of the coefficients differ by eleven orders of magnitude."""
    a = pyro.sample("a", dist.Normal(0.0, 1e5))
    b = pyro.sample("b", dist.Normal(0.0, 10.0))
    c = pyro.sample("c", dist.Normal(0.0, 1e7))
    pyro.sample("price", dist.Normal(a + b * income + c * rate, 100.0).to_event(1), obs=price)


def test_units_of_the_numbers_do_not_matter() -> None:
    """Beside the exact posterior of a regression on raw scales; 4.5 standard errors of 4,000 draws are 0.07 sds."""
    generator = torch.Generator().manual_seed(0)
    income = 5e4 + 1e4 * torch.randn(80, generator=generator)
    rate = 4e-3 + 1e-3 * torch.randn(80, generator=generator)
    price = 1200 + 0.03 * income - 2e5 * rate + 100 * torch.randn(80, generator=generator)
    columns = torch.stack([torch.ones(80), income, rate], 1)
    scale = torch.tensor([1e5, 10.0, 1e7])
    whitened = columns * scale / 100  # of coefficients in units of their priors
    covariance = torch.linalg.inv(whitened.T @ whitened + torch.eye(3))
    mean, sd = covariance @ whitened.T @ price / 100 * scale, covariance.diagonal().sqrt() * scale
    data = {"income": income, "rate": rate, "price": price}
    for paths in (1, 4):
        found = fit(zoo.adopt(priced), data, "pathfinder", paths=paths)
        assert found.info["convergence"]["verdict"] == "converged"
        draws = found.draw(4000)
        drawn = torch.stack([draws[name] for name in "abc"], 1)
        assert float(((drawn.mean(0) - mean) / sd).abs().max()) < 0.15
        assert float((drawn.std(0) / sd).log().abs().max()) < 0.15
