"""SVI without options, where the answer is known: far from the prior, in any units, and it says how it ended."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import zoo
from inference import Fit, fit, fit_many
from inference.evaluation.gaps import posterior_gap
from inference.guides.named import build_guide
from inference.methods import settling
from inference.methods.settling import Stretch, find_place
from inference.training.convergence import ConvergenceNotice
from tests.inference.toys import Mean
from zoo import datasets
from zoo.bayes.eight_schools import EightSchools
from zoo.bayes.regression import BayesianLinearRegression
from zoo.datasets.data import Data
from zoo.errors import OptionError, UnknownNameError

GAUSSIANS = ("normal", "multivariate_normal", "low_rank")


def number(y: Tensor, scale: float = 0.5) -> None:
    """m ~ N(0, 1), y | m ~ N(m, scale)."""
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(m, scale), obs=y)


def straight(x: Tensor, y: Tensor) -> None:
    """A line through points, on raw scales."""
    a, b = (pyro.sample(name, dist.Normal(0.0, 100.0)) for name in "ab")
    scale = pyro.sample("scale", dist.HalfCauchy(5.0))
    with pyro.plate("points", len(x)):
        pyro.sample("y", dist.Normal(a + b * x, scale), obs=y)


def square(y: Tensor) -> None:
    """Two modes, one for each sign; that on the right has most of the mass."""
    z = pyro.sample("z", dist.Normal(0.1, 3.0))
    pyro.sample("y", dist.Normal(z**2, 0.5), obs=y)


def moments(found: Fit) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a Gaussian autoguide."""
    assert found.guide is not None
    if hasattr(found.guide, "locs"):
        parts = [(getattr(found.guide.locs, n), getattr(found.guide.scales, n)) for n in found.program.sites()]
        loc, scale = (torch.cat([p.reshape(-1) for p in each]) for each in zip(*parts, strict=True))
        return loc.detach(), scale.detach()
    loc, scale = found.guide._loc_scale()
    return loc.detach(), scale.detach()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("guide", GAUSSIANS)
@pytest.mark.parametrize("scale", [0.5, 1e-4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_number_far_from_its_prior(guide: str, scale: float, dtype: torch.dtype) -> None:
    precision = 1 + scale**-2
    found = fit(zoo.adopt(number, scale=scale), {"y": torch.tensor(12.0, dtype=dtype)}, "svi", guide=guide)
    loc, sd = moments(found)
    assert float(sd) == pytest.approx(precision**-0.5, rel=1e-3)
    assert float(loc) == pytest.approx(12 * scale**-2 / precision, abs=1e-2 * precision**-0.5 + 1e-6)
    assert found.info["convergence"]["verdict"] == "converged"
    assert found.history.last("loss") == pytest.approx(
        -float(dist.Normal(0, (1 + scale**2) ** 0.5).log_prob(torch.tensor(12.0))), abs=1e-4
    )


def test_a_straight_line_on_raw_scales() -> None:
    """Against the posterior on a grid: intercept and slope are Gaussian given the scale."""
    x = torch.tensor([1.1, 2.9, 4.9, 6.0, 6.3, 6.2, 5.8])
    y = torch.tensor([80.0, 60, 36, 34, 30, 31, 38])
    rows = torch.stack([torch.ones(7), x], 1)
    log_s = torch.linspace(-2, 5, 4000)
    precision = rows.T @ rows / log_s.exp()[:, None, None] ** 2 + torch.eye(2) / 1e4
    mean = torch.linalg.solve(precision, (rows.T @ y) / log_s.exp()[:, None] ** 2)
    covariance = torch.linalg.inv(precision)
    total = rows @ rows.T * 1e4 + log_s.exp()[:, None, None] ** 2 * torch.eye(7)
    log_p = (
        dist.MultivariateNormal(torch.zeros(7), total).log_prob(y) + dist.HalfCauchy(5.0).log_prob(log_s.exp()) + log_s
    )
    weight = log_p.softmax(0)
    slope = float(weight @ mean[:, 1])
    sd = float((weight @ (covariance[:, 1, 1] + mean[:, 1] ** 2) - slope**2).sqrt())
    assert slope == pytest.approx(-9.17, abs=0.1)  # as NUTS has it
    evidence = float(torch.logsumexp(log_p, 0) + (log_s[1] - log_s[0]).log())
    found = {g: fit(zoo.adopt(straight), {"x": x, "y": y}, "svi", guide=g) for g in GAUSSIANS}
    for name, each in found.items():
        loc, _ = moments(each)
        assert abs(float(loc[1]) - slope) < 0.15 * sd, name
        assert each.info["convergence"]["verdict"] == "converged"
    # At the best full Gaussian its precision is the mean curvature (Opper & Archambeau 2009): of a and b, E[s^-2] X'X.
    best = found["multivariate_normal"].guide.get_posterior()
    log_scale, spread = float(best.loc[2].detach()), float(best.variance[2].detach())
    curvature = math.exp(-2 * log_scale + 2 * spread) * rows.T @ rows + torch.eye(2) / 1e4
    torch.testing.assert_close(best.precision_matrix.detach()[:2, :2], curvature, rtol=0.03, atol=0)
    lacks = {name: evidence + each.history.last("loss") for name, each in found.items()}
    assert 0 < lacks["multivariate_normal"] < lacks["normal"] - 0.5
    assert lacks["low_rank"] == pytest.approx(
        lacks["multivariate_normal"], abs=0.01
    )  # two columns are enough for three
    assert lacks["multivariate_normal"] < 0.2


@pytest.mark.parametrize("guide", GAUSSIANS)
def test_columns_that_differ_by_a_million(guide: str) -> None:
    rows = torch.randn(40, 3) * torch.tensor([1.0, 1e6, 1e-2])
    program = BayesianLinearRegression(3, prior_scale=1e4, noise_scale=0.5)
    x = rows @ torch.tensor([1.0, 2e-6, -100.0]) + 0.5 * torch.randn(40)
    precision = rows.T @ rows / 0.25 + torch.eye(3) / 1e8
    mean = torch.linalg.solve(precision, rows.T @ x / 0.25)
    loc, sd = moments(fit(program, (x, rows), "svi", guide=guide))
    spread = torch.linalg.inv(precision).diagonal().sqrt()
    assert float(((loc - mean) / spread).abs().max()) < 0.02
    expected = precision.diagonal().rsqrt() if guide == "normal" else spread
    torch.testing.assert_close(sd, expected, rtol=1e-2 if guide != "low_rank" else 0.1, atol=0)


def test_a_mean_of_a_hundred_thousand() -> None:
    def located(y: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(0.0, 1e6))
        s = pyro.sample("s", dist.HalfCauchy(1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(m, s), obs=y)

    y = 1e5 + torch.randn(50)
    found = fit(zoo.adopt(located), {"y": y}, "svi")
    loc, sd = moments(found)
    assert float(loc[0]) == pytest.approx(float(y.mean()), abs=0.02)
    assert float(sd[0]) == pytest.approx(float(y.std()) / 50**0.5, rel=0.05)
    assert float(loc[1].exp()) == pytest.approx(float(y.std()), rel=0.05)


def test_eight_schools_is_no_worse_than_long_gradient_steps() -> None:
    """Not centred, mean-field: local and global latents together."""
    data = datasets.load("eight_schools").train
    found = fit(EightSchools(), data, "svi", guide="normal", device="cpu")
    assert found.info["convergence"]["verdict"] == "converged"
    bound = -found.history.last("loss") * data.size
    gap = posterior_gap(
        found.program, found.guide, data, found.program.log_evidence(*Data(*map(torch.Tensor.double, data)))
    )
    assert float(gap.optimisation) < 0.05
    assert float(gap.elbo.mean) == pytest.approx(bound, abs=0.1)


def test_where_no_mode_is_the_guide_settles_all_the_same() -> None:
    """Eight schools centred: the density grows without end as tau shrinks, and no Gaussian follows it there."""
    data = datasets.load("eight_schools").train
    program = EightSchools(centered=True)
    found = fit(program, data, "svi", guide="multivariate_normal", device="cpu")
    gap = float(program.log_evidence(*data)) + found.history.last("loss") * data.size
    assert 0 < gap < 1.5
    assert found.info["modes"] == 0


def test_two_modes_are_seen_and_the_better_one_kept() -> None:
    found = fit(zoo.adopt(square), {"y": torch.tensor(9.0)}, "svi")
    assert found.info["modes"] == 2
    assert float(moments(found)[0]) == pytest.approx(3.0, abs=0.05)
    again = fit(zoo.adopt(square), {"y": torch.tensor(9.0)}, "svi", num_restarts=6)
    assert again.info["modes"] == 2
    assert len(again.info["restarts"]) == 6
    assert float(moments(again)[0]) == pytest.approx(3.0, abs=0.05)


def test_a_search_that_was_cut_says_so() -> None:
    x = torch.tensor([1.1, 2.9, 4.9, 6.0, 6.3, 6.2, 5.8])
    given = {"x": x, "y": torch.tensor([80.0, 60, 36, 34, 30, 31, 38])}
    with pytest.warns(ConvergenceNotice, match=r"Take more steps"):
        found = fit(zoo.adopt(straight), given, "svi", guide="low_rank", steps=3)
    assert found.info["convergence"]["verdict"] == "still improving"


@pytest.mark.parametrize("guide", [*GAUSSIANS, "iaf"])
def test_gradient_steps_are_in_units_of_the_posterior(guide: str) -> None:
    """A rate of 0.01 would throw a guide of width 1e-4 out by a hundred widths."""
    found = fit(
        zoo.adopt(number, scale=1e-4), {"y": torch.tensor(12.0)}, "svi", guide=guide, steps=20, lr=0.01, compile="never"
    )
    assert found.info["start"] == "at the best mode"
    draws = torch.stack([found.guide()["m"] for _ in range(400)])
    assert abs(float(draws.mean().detach()) - 12) < 2e-4
    assert float(draws.std().detach()) == pytest.approx(1e-4, rel=0.3)


def test_steps_are_stretched_by_the_scale() -> None:
    program, data = Mean(), Data(torch.full((4,), 12.0))
    guide = build_guide({"kind": "auto", "name": "multivariate_normal"}, program, data)
    guide.scale = torch.tensor([30.0])
    stretch = Stretch(guide)
    before, kept = guide.scale_unconstrained.detach().clone(), stretch.kept()
    with torch.no_grad():
        guide.loc += 0.01
        guide.scale_unconstrained += 0.01
    stretch(kept)
    assert float(guide.loc.detach() - kept[0]) == pytest.approx(0.3)
    assert float(guide.scale_unconstrained.detach() - before) == pytest.approx(0.3)
    assert float(guide.scale.detach() / 30) == pytest.approx(1.01, rel=1e-4)


@pytest.mark.parametrize("guide", ["delta", "normal"])
def test_a_point_is_the_map_estimate(guide: str) -> None:
    """Of a rate under Gamma(3, 1): 2, where the mode of its logarithm is 3."""

    def gamma(y: Tensor) -> None:
        rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0), torch.tensor(0.5)))
        pyro.sample("y", dist.Poisson(rate / 2), obs=y)

    program = zoo.adopt(gamma)
    place = find_place(guide, program, program.take({"y": torch.tensor(1.0)}), trained=False, seed=0)
    assert not isinstance(place, str)
    at = float(place.modes[0].place.exp())
    assert at == pytest.approx(2.0 if guide == "delta" else 3.0)
    if guide == "delta":
        found = fit(program, {"y": torch.tensor(1.0)}, "svi", guide=guide)
        assert float(found.draw(1)["rate"]) == pytest.approx(2.0)


def test_what_is_not_settled_says_why() -> None:
    def learnt(y: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(m, pyro.param("s", torch.tensor(0.0)).exp()), obs=y)

    found = fit(zoo.adopt(learnt), {"y": torch.tensor(1.0)}, "svi", steps=2)
    assert found.info["start"] == "the program has parameters of its own to learn"
    assert "start" not in fit(Mean(), torch.zeros(3), "svi", steps=2).info  # its own guide
    weighed = fit(Mean(), torch.zeros(3), "svi", guide="normal", steps=2, beta=4.0)  # climbs something else
    assert weighed.info["start"] == "as Pyro has it: this objective is not that of a density's best fit"
    assert weighed.history.last("step") == 2


def test_several_fits_are_each_settled() -> None:
    fits = fit_many(Mean(), torch.full((4,), 12.0), "svi", seeds=[0, 1], guide="normal")
    for found in fits:
        assert float(moments(found)[0]) == pytest.approx(9.6, abs=1e-3)
        assert float(moments(found)[1]) == pytest.approx(0.2**0.5, rel=1e-3)


def test_a_settled_fit_is_saved(tmp_path: object) -> None:
    found = fit(Mean(), torch.full((4,), 12.0), "svi", guide="multivariate_normal", out=str(tmp_path))
    again = Fit.load(str(tmp_path), program=Mean)
    assert torch.equal(moments(again)[0], moments(found)[0])
    assert again.info["convergence"]["verdict"] == "converged"


def test_the_gap_agrees_that_nothing_is_left_or_how_much() -> None:
    program, data = Mean(), Data(torch.full((4,), 12.0))
    truth = program.evidence(data.x)
    settled = fit(program, data, "svi", guide="normal")
    assert float(posterior_gap(program, settled.guide, data, truth).optimisation) == pytest.approx(0.0, abs=1e-6)
    guide = build_guide({"kind": "auto", "name": "normal"}, program, data)
    with torch.no_grad():
        guide.locs.mu.copy_(torch.tensor(7.6))
        guide.scales.mu = torch.tensor(0.2**0.5)
    gap = posterior_gap(program, guide, data, truth)
    assert float(gap.optimisation) == pytest.approx(2**2 * 5 / 2, rel=0.02)
    assert float(gap.approximation) == pytest.approx(0.0, abs=1e-6)


def test_an_unknown_place_to_start_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="median"):
        fit(Mean(), torch.zeros(3), "svi", init_loc_fn="medain")
    with pytest.raises(OptionError, match="autoguide"):
        fit(Mean(), torch.zeros(3), "svi", init_loc_fn="median", guide=Mean().guide)


@pytest.mark.parametrize("part", ["find_modes", "settle"])
def test_a_search_that_fails_falls_back_to_gradient_steps(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    def failing(*args: object, **options: object) -> None:
        raise RuntimeError("not differentiable twice")

    monkeypatch.setattr(settling, part, failing)
    found = fit(zoo.adopt(number), {"y": torch.tensor(12.0)}, "svi", steps=20, compile="never")
    assert "RuntimeError: not differentiable twice" in found.info["start"]
    assert len(found.history.rows) == 20
    near = abs(float(moments(found)[0]) - 9.6) < 0.5
    assert near == (part == "settle")  # the mode was found, and gradient steps began there
