"""Calibration checks pass what is right, and catch what is too narrow, too wide or off centre."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from inference.evaluation.calibration import Calibration, _reflection_test, guide_sampler, psis_khat, sbc, vsbc
from inference.evaluation.estimates import importance_log_weights
from tests.inference.toys import Mean, Rate, linear
from tests.zoo.readings import TwoReadings
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, NonFiniteError, OptionError, ShapeError

FAILURE_RATE = 2e-5


def gaussian_guide(program, shift=0.0, widen=1.0):
    """The exact posterior of PPCA, moved or stretched."""

    def guide(x, context=None, size=None):
        w, variance = program.weight, program.scale**2
        m = w.T @ w / variance + torch.eye(w.shape[1])
        loc = torch.linalg.solve(m, w.T @ (x - program.mean).T / variance).T
        tril = torch.linalg.cholesky(torch.linalg.inv(m))
        with program.plate(x, context, size):
            pyro.sample("z", dist.MultivariateNormal(loc + shift, scale_tril=widen * tril))

    return guide


def test_khat_of_gaussian_guides_is_the_theory():
    program = linear(5, 2)
    data = Data(program.generate(50))
    # Under q with s times the true sd, P(weight > t) falls as t^(-1 / (1 - s^2)) for s < 1; wider q bound the weights.
    narrow = psis_khat(importance_log_weights(program, gaussian_guide(program, widen=0.4), data, 4000))
    assert narrow.shape == (50,)
    assert float(narrow.mean()) == pytest.approx(1 - 0.4**2, abs=0.1)
    wide = psis_khat(importance_log_weights(program, gaussian_guide(program, widen=1.5), data, 4000))
    assert float(wide.max()) < 0.5


def test_khat_of_an_exact_guide_is_minus_infinity():
    program = linear(5, 2)
    exact = psis_khat(importance_log_weights(program, program.posterior, Data(program.generate(4)), 400))
    assert bool((exact == -torch.inf).all())


def test_khat_of_pareto_weights_is_their_shape():
    uniform = torch.rand(20_000, 5)
    for shape in (0.3, 0.8):
        # Ratios u^-k have a Pareto tail of shape k.
        khat = psis_khat(-shape * uniform.log())
        assert float(khat.mean()) == pytest.approx(shape, abs=0.1)


@pytest.mark.parametrize("level", [0.0, -1e5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_khat_is_the_same_at_every_level(level, dtype):
    weights = -0.8 * torch.rand(4000, 2).log()
    want = psis_khat(weights)
    # At 1e5 a float32 has steps of 1/128.
    assert torch.allclose(psis_khat((weights + level).to(dtype)).double(), want, atol=0.05)
    assert float(want.min()) > 0.6


def test_khat_with_weights_of_zero_is_that_of_the_others():
    weights = -0.8 * torch.rand(4000, 1).log()
    some = weights.clone()
    some[weights < weights.median()] = -torch.inf  # not in the tail
    assert float(psis_khat(some)) == pytest.approx(float(psis_khat(weights)), abs=1e-6)
    half = torch.zeros(4000, 3)
    half[:2000, 0], half[4:, 1], half[:, 2] = -torch.inf, -torch.inf, -torch.inf
    assert psis_khat(half).tolist() == [0.0, torch.inf, torch.inf]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_khat_refuses_weights_that_are_no_numbers(bad):
    weights = torch.randn(100, 2)
    weights[3, 1] = bad
    with pytest.raises(NonFiniteError):
        psis_khat(weights)


def test_khat_of_an_exact_guide_is_minus_infinity_in_float32_too():
    program = linear(5, 2).float()
    torch.set_default_dtype(torch.float32)
    x = 300 * program.generate(20)  # log weights of about -1e5
    weights = importance_log_weights(program, program.posterior, Data(x), 400)
    assert weights.dtype == torch.float32
    assert float(weights.abs().max()) > 1e4
    assert bool((psis_khat(weights) == -torch.inf).all())


def test_khat_needs_enough_weights():
    with pytest.raises(ShapeError, match="25"):
        psis_khat(torch.zeros(10, 2))


def test_sbc_passes_the_exact_posterior_and_its_ranks_are_flat():
    program = linear(5, 2)
    found = sbc(program, guide_sampler(program.posterior), 1000, 99)
    assert found.ranks["z"].shape == (1000, 2)
    assert found.worst > FAILURE_RATE
    counts = found.histogram("z")
    assert counts.shape == (10, 2)
    assert counts.sum(0).tolist() == [1000, 1000]


@pytest.mark.parametrize(("shift", "widen"), [(0.0, 0.6), (0.0, 1.6), (0.25, 1.0)])
def test_sbc_catches_guides_that_are_too_narrow_too_wide_or_shifted(shift, widen):
    program = linear(5, 2)
    found = sbc(program, guide_sampler(gaussian_guide(program, shift, widen)), 1000, 99)
    assert found.worst < 1e-4
    edges = found.histogram("z")[[0, -1]].double().mean(0)
    if widen < 1:
        assert bool((edges > 150).all())  # a cup
    if widen > 1:
        assert bool((edges < 60).all())  # a hump


def test_vsbc_forgives_width_and_catches_a_shift():
    program = linear(5, 2)
    narrow = vsbc(program, guide_sampler(gaussian_guide(program, widen=0.6)), 500)
    assert narrow.worst > 0.005
    shifted = vsbc(program, guide_sampler(gaussian_guide(program, shift=0.4)), 500)
    assert shifted.worst <= 2 / 1000  # as small as 999 reflections of two coordinates can say


def test_sbc_of_a_global_latent():
    program = Mean()
    found = sbc(program, guide_sampler(program.posterior), 200, 19, size=4)
    assert found.ranks["mu"].shape == (200, 1)
    assert found.worst > FAILURE_RATE
    fixed = sbc(program, guide_sampler(program.guide), 200, 19, size=4)  # a guide that does not look at the data
    assert fixed.worst < 1e-4


def test_sbc_on_a_constrained_latent():
    program = Rate()
    assert sbc(program, guide_sampler(program.posterior), 1000, 99).worst > FAILURE_RATE


def test_reflection_test_is_uniform_under_symmetry_and_is_the_ks_distance():
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(300):
        signs = np.concatenate([np.ones((1, 40)), rng.choice([-1.0, 1.0], (99, 40))])
        p_values.append(_reflection_test(signs, rng.integers(-5, 6, 40) / 5))
    rate = (np.array(p_values) <= 0.2).mean()
    # Ties make the test conservative, never liberal.
    assert 0.05 < rate < 0.2 + 4.3 * np.sqrt(0.2 * 0.8 / 300)
    # The walk's largest excursion is n times the KS distance of the sample and its mirror image.
    from scipy.stats import ks_2samp

    values = rng.normal(0.3, 1, 50)
    order = np.argsort(np.abs(values))[::-1]
    walk = np.abs(np.cumsum(np.sign(values)[order])).max()
    assert walk / 50 == pytest.approx(ks_2samp(values, -values).statistic)


def test_refusals():
    program = linear(3, 1)
    with pytest.raises(OptionError, match="bins must divide"):
        sbc(program, guide_sampler(program.posterior), 10, 100)
    with pytest.raises(CapabilityError, match="'z'"):
        sbc(program, lambda x, context, n: {}, 10, 9, bins=5)
    with pytest.raises(ShapeError, match="shape"):
        sbc(program, lambda x, context, n: {"z": torch.zeros(3, 1)}, 10, 9, bins=5)


def test_weights_of_zero_are_no_sign_of_an_exact_guide():
    weights = 0.1 * torch.randn(200, 3)
    weights[:5, 0] = -torch.inf
    weights[:, 1] = -torch.inf
    some, none, all_of_them = psis_khat(weights).tolist()
    assert -1 < some < 1
    assert none == torch.inf
    assert -1 < all_of_them < 1
    for bad in (torch.nan, torch.inf):
        weights[3, 2] = bad
        with pytest.raises(NonFiniteError, match="NaN or plus infinity"):
            psis_khat(weights)


@pytest.mark.parametrize("check", [sbc, vsbc])
def test_a_program_that_observes_more_than_x_cannot_be_calibrated_on_what_it_generates(check):
    program = TwoReadings()
    context = program.example_context(8)
    with pytest.raises(CapabilityError, match="it observes 'y' besides x"):
        check(program, guide_sampler(program.posterior), n_sims=8, context=context)


def test_the_worst_of_many_coordinates_is_corrected_for_their_number() -> None:
    p_values = {"a": torch.tensor([0.02, 0.3]), "b": torch.tensor([0.01, 0.5, 0.9])}
    assert Calibration({}, 10, p_values, "made up").worst == pytest.approx(5 * 0.01)
    assert Calibration({}, 10, {"a": torch.tensor([0.4, 0.6, 0.7])}, "made up").worst == 1.0
    assert Calibration({}, 10, {"a": torch.tensor([0.02])}, "made up").worst == pytest.approx(0.02)
