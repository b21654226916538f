"""The truth set: exact guides without variance, draws that have the moments stated, files that others can read."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks import targets
from benchmarks.targets.target import Target
from inference import fit
from inference.particles import log_weights, unit_log_weights
from tests.conftest import FAILURE_RATE
from zoo import datasets
from zoo.errors import DatasetError, UnknownNameError

NAMES = targets.names()
DRAWS = 4000


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Target:
    if request.param == "kidiq":
        request.getfixturevalue("zoo_data")
    return targets.load(request.param)


every_target = pytest.mark.parametrize("target", NAMES, indirect=True)


@every_target
def test_exact_guide_has_the_evidence_as_its_bound_without_variance(target):
    weights = unit_log_weights(log_weights(target.program(), target.posterior, 50, *target.data)[1])
    torch.testing.assert_close(weights, target.log_evidence.reshape(1, -1).expand_as(weights), rtol=1e-10, atol=1e-10)


@every_target
def test_draws_have_the_stated_moments(target):
    draws = target.draw(DRAWS)
    assert draws.keys() == target.mean.keys() == target.sd.keys()
    for site, values in draws.items():
        mean, sd = target.mean[site], target.sd[site]
        assert values.shape == (DRAWS, *mean.shape)
        values = values.to(mean)
        # z-scores of means and second moments. A category that is all but certain may have drawn no exception: then
        # the count is Poisson and not normal, so only sites with at least ten expected exceptions are scored.
        usual = sd.square() * DRAWS > 10 if target.program().sites()[site].is_discrete else torch.ones_like(sd) > 0
        assert usual.any()
        z = ((values.mean(0) - mean) / sd * DRAWS**0.5)[usual]
        squares = (values - mean).square()
        w = ((squares.mean(0) - sd**2) / squares.std(0).clamp(min=1e-12) * DRAWS**0.5)[usual]
        limit = stats.norm.isf(FAILURE_RATE / 2 / (2 * z.numel()))
        assert z.abs().max() < limit
        if not target.program().sites()[site].is_discrete:
            assert w.abs().max() < limit


@every_target
def test_factory_builds_a_fresh_program_with_the_same_parameters(target):
    a, b = target.program(), target.program()
    assert a is not b
    weights = [log_weights(p, target.posterior, 2, *target.data)[1].total for p in (a, b)]
    torch.testing.assert_close(*weights)
    assert set(target.mean) == set(a.sites())
    a.check(*target.data)


@every_target
def test_seed_decides_the_draws(target):
    first, again, other = target.draw(5, seed=1), target.draw(5, seed=1), target.draw(5, seed=2)
    assert all(torch.equal(first[site], again[site]) for site in first)
    assert any(not torch.equal(first[site], other[site]) for site in first)


def test_the_set_has_discrete_and_multimodal_members():
    hows = {targets.load(name).how for name in NAMES if name != "kidiq"}
    assert hows == {"conjugate", "quadrature", "enumeration", "forward-backward", "linear-Gaussian", "grid"}


def test_old_faithful_agrees_with_the_programs_own_enumeration():
    target = targets.load("old-faithful")
    torch.testing.assert_close(target.program().log_evidence(*target.data), target.log_evidence)


def test_eight_schools_agrees_with_the_reference_draws(zoo_data):
    # Ten chains of Stan's NUTS, 10,000 draws in all, whose own Monte Carlo error is about 0.01 sd (0.02 for sd of tau).
    reference = datasets.reference_posterior("eight_schools")
    target = targets.load("eight-schools-centered")
    for site in ("mu", "tau"):
        assert abs(float(target.mean[site]) - reference.mean[site]) < 0.05 * reference.sd[site]
        assert float(target.sd[site]) == pytest.approx(reference.sd[site], rel=0.05)
    for i in range(8):
        name = f"theta[{i + 1}]"
        assert abs(float(target.mean["theta"][i]) - reference.mean[name]) < 0.05 * reference.sd[name]
        assert float(target.sd["theta"][i]) == pytest.approx(reference.sd[name], rel=0.05)


def test_a_target_can_be_fitted_as_any_program():
    target = targets.load("banana")
    found = fit(target.program(), target.data, "exact", device="cpu")
    torch.testing.assert_close(found.guide.grid(*target.data).log_evidence, target.log_evidence)


@pytest.mark.parametrize("name", ["coin", "eight-schools", "casino", "ppca-digits", "old-faithful"])
def test_export_and_read(name, tmp_path):
    target = targets.load(name)
    (path,) = targets.export(tmp_path, [name], draws=100)
    assert path == tmp_path / f"{name}.json"
    stored = targets.read(tmp_path, name)
    assert stored.record["description"] == target.description
    assert stored.record["how"] == target.how
    assert stored.record["log_evidence"] == pytest.approx(target.total_log_evidence, rel=1e-12)
    np.testing.assert_array_equal(stored.x, target.data.x)
    np.testing.assert_array_equal(stored.log_evidence, target.log_evidence)
    for site, draws in target.draw(100).items():
        np.testing.assert_array_equal(stored.draws[site], draws)
        np.testing.assert_array_equal(stored.mean[site], target.mean[site])
        np.testing.assert_array_equal(stored.sd[site], target.sd[site])
    assert (stored.context is None) == (target.data.context is None)


def test_files_are_enough_to_compute_the_density_without_this_project(tmp_path):
    # The coin by hand, from what is in the files.
    targets.export(tmp_path, ["coin"], draws=50)
    record = json.loads((tmp_path / "coin.json").read_text())
    with np.load(tmp_path / "coin.npz") as file:
        alpha, beta, x = file["parameter/alpha"], file["parameter/beta"], file["x"]
        p = file["draws/p"]
    heads, n = x.sum(), len(x)
    log_joint = stats.beta(alpha, beta).logpdf(p) + heads * np.log(p) + (n - heads) * np.log1p(-p)
    log_posterior = stats.beta(alpha + heads, beta + n - heads).logpdf(p)
    np.testing.assert_allclose(log_joint - log_posterior, record["log_evidence"])
    assert set(record["sites"]) == {"p"}


def test_files_are_in_float64_whatever_the_default(tmp_path):
    torch.set_default_dtype(torch.float32)
    targets.export(tmp_path, ["eight-schools"], draws=4)
    assert torch.get_default_dtype() == torch.float32
    assert targets.read(tmp_path, "eight-schools").log_evidence.dtype == np.float64


def test_parameters_of_the_guide_are_not_exported(tmp_path):
    targets.export(tmp_path, ["ppca-digits"], draws=4)
    stored = targets.read(tmp_path, "ppca-digits")
    assert set(stored.parameters) == {"weight", "mean", "scale"}
    assert stored.parameters["scale"] > 0


def test_mistakes_get_their_error(tmp_path):
    with pytest.raises(UnknownNameError, match="eight-schools"):
        targets.load("eight_schools")
    with pytest.raises(DatasetError, match="coin"):
        targets.read(tmp_path, "coin")
    targets.export(tmp_path, ["coin"], draws=4)
    (tmp_path / "coin.npz").write_bytes(b"damaged")
    with pytest.raises(DatasetError, match="coin"):
        targets.read(tmp_path, "coin")
