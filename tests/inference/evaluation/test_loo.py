"""PSIS-LOO and WAIC against exact leave-one-out: log p(x) - log p(all but x_n), by two evidences."""

from __future__ import annotations

import warnings

import pytest
import torch

from inference import Fit, fit
from inference.chains import arviz, is_modern
from inference.evaluation.arviz_export import to_inference_data
from inference.evaluation.loo import loo, waic
from tests.inference.toys import SIGMAS, linear
from zoo import create, datasets
from zoo.datasets import Data
from zoo.errors import CapabilityError, OptionError


def left_out(found: Fit, count: int) -> torch.Tensor:
    program, train = found.program, found.train
    whole = program.log_evidence(*train)
    others = [torch.arange(train.size) != i for i in range(count)]
    return torch.stack([whole - program.log_evidence(*train.rows(keep)) for keep in others]).detach()


@pytest.mark.parametrize("name", ["coin", "dirichlet-categorical", "normal", "linear-regression", "eight-schools"])
def test_psis_loo_is_exact_leave_one_out(name: str) -> None:
    data = datasets.load("diabetes").train.rows(slice(0, 60)) if name == "linear-regression" else None
    found = fit(name, data, "exact")
    count = min(found.train.size, 40)
    result = loo(found, draws=20_000)
    value, error = result.estimate.values[:count], result.estimate.monte_carlo_error[:count]
    assert result.estimate.values.shape == (found.train.size,)
    assert bool(((value - left_out(found, count)).abs() < SIGMAS * error).all())
    assert result.unreliable == 0
    assert float(error.max()) < 0.2


def test_draws_of_a_guide_are_weighted_to_the_posterior() -> None:
    """The mean-field guide of correlated weights is too narrow; its draws as they are would miss by many errors."""
    c = torch.randn(30, 2) @ torch.tensor([[1.0, 0.6], [0.0, 0.8]])
    data = Data(c.sum(1) + 0.7 * torch.randn(30), c)
    program = create("linear-regression", features=2)
    precision = c.T @ c / 0.49 + torch.eye(2)
    with torch.no_grad():  # the best of its family: the posterior's mean, and the precision's diagonal
        program.loc.copy_(torch.linalg.solve(precision, c.T @ data.x / 0.49))
    program.scale = precision.diagonal().rsqrt()
    found = Fit(program=program, method="svi", data="", seed=0, guide=program.guide, train=data)
    result = loo(found, draws=20_000)
    off = result.estimate.values - left_out(found, 30)
    assert result.estimate.how == "PSIS-LOO-20000, draws weighted"
    assert result.unreliable == 0
    assert bool((off.abs() < SIGMAS * result.estimate.monte_carlo_error).all())


def test_khat_sees_a_guide_that_is_nowhere_near() -> None:
    x = torch.full((50,), 3.0)
    found = fit("normal", x, "svi", steps=1, initialise=False)
    assert loo(found, draws=1000).unreliable == 50


def test_both_equal_arviz() -> None:
    found = fit("normal", None, "exact")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = found.draw(1000, seed=0)
        kept = Fit(program=found.program, method="nuts", data="", seed=0, samples=samples, train=found.train)
        ours, watanabe = loo(kept), waic(kept)
        data = to_inference_data(kept)
        theirs = arviz().loo(data, pointwise=True)
        elpd, p = (theirs.elpd, theirs.p) if is_modern() else (theirs.elpd_loo, theirs.p_loo)
        assert float(ours.estimate.values.sum()) == pytest.approx(float(elpd), abs=1e-6)
        assert ours.parameters == pytest.approx(float(p), abs=1e-6)
        torch.testing.assert_close(ours.khat, torch.as_tensor(theirs.pareto_k.values), check_dtype=False)
        assert ours.estimate.standard_error * found.train.size == pytest.approx(float(theirs.se), rel=0.02)
        if not is_modern():
            theirs = arviz().waic(data, pointwise=True)
            assert float(watanabe.estimate.values.sum()) == pytest.approx(theirs.elpd_waic, abs=1e-6)
            assert watanabe.parameters == pytest.approx(theirs.p_waic, abs=1e-6)


def test_waic_is_near_leave_one_out_and_has_no_warning() -> None:
    found = fit("normal", None, "exact")
    result = waic(found, draws=20_000)
    assert float(result.estimate.values.mean()) == pytest.approx(float(left_out(found, 90).mean()), abs=0.005)
    assert result.khat is None
    assert result.unreliable == 0
    # A mean and a precision of each of four flowers' measures.
    assert result.parameters == pytest.approx(8, abs=2)


def test_wrong_requests_say_what_to_do() -> None:
    program = linear()
    with pytest.raises(CapabilityError, match="log_likelihood on examples that were held out"):
        loo(fit(program, program.generate(5), "svi", steps=1))
    point = fit("coin", torch.ones(3), "svi", guide="delta", steps=1)
    with pytest.raises(CapabilityError, match="PSIS-LOO needs the density"):
        loo(point)
    with pytest.raises(OptionError, match="draws"):
        waic(fit("coin", torch.ones(3), "exact"), draws=1)
    point.train = None
    with pytest.raises(CapabilityError, match=r"set Fit\.train"):
        loo(point)
