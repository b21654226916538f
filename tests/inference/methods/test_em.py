"""EM and CAVI: against scikit-learn, never downhill, restarts, batches, resume, and what they refuse."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch import Tensor

from inference.checkpoint import CHECKPOINT
from inference.fit import fit, make_method
from inference.fitted import Fit
from inference.methods import em
from inference.training.loop import Schedule
from zoo import datasets
from zoo.errors import DivergenceError, OptionError
from zoo.latent.ppca import PPCA
from zoo.mixtures.bayesian_gaussian import BayesianGaussianMixture
from zoo.mixtures.bernoulli import BernoulliMixture
from zoo.mixtures.gaussian import GaussianMixture

COVARIANCES = ["spherical", "diagonal", "full"]
on_cpu = partial(fit, device="cpu")


def covariances(program: GaussianMixture) -> Tensor:
    """In scikit-learn's shapes."""
    scale = program.scale.detach()
    return scale @ scale.mT if program.covariance == "full" else scale**2


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("iterations", [10, 500])
def test_gaussian_mixture_equals_scikit_learns(covariance: str, iterations: int) -> None:
    x = datasets.load("iris").train.x
    program = GaussianMixture([4], 3, covariance)
    # A start away from the optimum, so that the whole path is compared and not only its end.
    program.initialise(x[torch.randperm(len(x))[:30]])
    start = covariances(program)
    precisions = torch.linalg.inv(start) if covariance == "full" else 1 / start
    theirs = SklearnMixture(
        3,
        covariance_type="diag" if covariance == "diagonal" else covariance,
        tol=0.0 if iterations == 10 else 1e-9,
        reg_covar=program.covariance_floor,
        max_iter=iterations,
        means_init=program.means.detach().numpy(),
        weights_init=program.weights.detach().numpy(),
        precisions_init=precisions.numpy(),
    )
    if iterations == 10:
        with pytest.warns(ConvergenceWarning):
            theirs.fit(x.numpy())
    else:
        theirs.fit(x.numpy())
    tolerance = 0.0 if iterations == 10 else 1e-9
    found = on_cpu(program, x, "em", iterations=iterations, tolerance=tolerance, initialise=False)
    assert found.info["iterations"] == 10 or found.info["converged"]
    # Theirs adds 1e-6 to each variance (the least is about 0.01), ours does not: that much may differ.
    assert -found.history.last("loss") == pytest.approx(theirs.score(x.numpy()), abs=1e-3)
    torch.testing.assert_close(program.means.detach(), torch.as_tensor(theirs.means_), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(program.weights.detach(), torch.as_tensor(theirs.weights_), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(covariances(program), torch.as_tensor(theirs.covariances_), atol=1e-3, rtol=1e-3)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 25),
    k=st.integers(1, 4),
    d=st.integers(1, 3),
    covariance=st.sampled_from(COVARIANCES),
    rounded=st.booleans(),
)
def test_gaussian_em_never_goes_down(seed: int, n: int, k: int, d: int, covariance: str, rounded: bool) -> None:
    torch.manual_seed(seed)
    x = 3 * torch.randn(n, d)
    x = x.round() if rounded else x  # ties and empty components
    program = GaussianMixture([d], min(n, k), covariance, covariance_floor=1e-3)
    program.initialise(x)
    values = []
    for _ in range(15):
        value, statistics = program.e_step(x)
        values.append(float(value))
        program.m_step(statistics)
    gains = torch.tensor(values).diff()
    # Condition numbers reach 1e5 here (variances from 1e-3 to about 1e2): 1e5 eps, times the size of the sum.
    assert float(gains.min()) > -1e-10 * (1 + abs(values[-1]))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 25),
    k=st.integers(1, 4),
    d=st.integers(1, 5),
    smoothing=st.sampled_from([0.0, 0.01, 1.0]),
)
def test_bernoulli_em_never_goes_down(seed: int, n: int, k: int, d: int, smoothing: float) -> None:
    torch.manual_seed(seed)
    x = (torch.rand(n, d) < torch.rand(d)).to(torch.get_default_dtype())
    program = BernoulliMixture([d], min(n, k), smoothing)
    program.initialise(x)
    values = []
    for _ in range(15):
        value, statistics = program.e_step(x)
        values.append(float(value + program.log_prior().detach()))
        program.m_step(statistics)
    assert float(torch.tensor(values).diff().min()) > -1e-11 * (1 + abs(values[-1]))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(4, 25), k=st.integers(1, 4), full=st.booleans())
def test_elbo_never_goes_down(seed: int, n: int, k: int, full: bool) -> None:
    torch.manual_seed(seed)
    x = 3 * torch.randn(n, 2)
    program = BayesianGaussianMixture([2], k, "full" if full else "diagonal")
    program.initialise(x)
    elbos = torch.stack([program.cavi_step(x) for _ in range(15)])
    if k > 1:
        assert float(elbos.diff().min()) > -1e-11 * float(1 + elbos[-1].abs())
    else:
        # With one component nothing is approximated: the bound is the evidence from the first sweep on.
        torch.testing.assert_close(elbos, program.log_evidence(x).expand(15))


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("seed", range(5))
def test_no_component_is_lost(covariance: str, seed: int) -> None:
    """A mixture must not collapse from its default start (pyro#635, pyro#746)."""
    centres = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0], [8.0, 8.0], [4.0, 16.0]])
    x = (centres[:, None] + torch.randn(5, 100, 2)).reshape(-1, 2)
    program = GaussianMixture([2], 5, covariance)
    on_cpu(program, x, "em", seed=seed)
    distance, nearest = torch.cdist(centres, program.means.detach()).min(-1)
    assert sorted(nearest.tolist()) == list(range(5))
    assert float(distance.max()) < 4.5 * 0.1  # a centre's standard error is 0.1 in each coordinate
    torch.testing.assert_close(program.weights.detach(), torch.full((5,), 0.2), atol=0.01, rtol=0)


def test_batches_add_up_to_the_same_fit() -> None:
    x = datasets.load("blobs").train.x
    losses = []
    for batch_size in (77, 5000):
        torch.manual_seed(0)
        found = on_cpu(GaussianMixture([2], 4), x, "em", batch_size=batch_size, iterations=30)
        losses.append(found.history.series("loss"))
    assert losses[0][0] == losses[1][0]
    assert losses[0][1] == pytest.approx(losses[1][1], rel=1e-11)


def test_one_e_step_for_each_iteration(monkeypatch) -> None:
    """And one before the first, from the start; a mixture is given all rows, others a bounded number of them."""
    sizes = []
    for cls in (GaussianMixture, PPCA):

        def counted(self, x, context=None, original=cls.e_step):
            sizes.append(len(x))
            return original(self, x, context)

        monkeypatch.setattr(cls, "e_step", counted)
    x = torch.randn(2000, 3)
    on_cpu(GaussianMixture([3], 2), x, "em", iterations=4, tolerance=0.0)
    assert sizes == [2000] * 5
    sizes.clear()
    on_cpu(PPCA([3], 1), x, "em", iterations=4, tolerance=0.0)
    assert sizes == [1024, 976] * 5


def test_history_is_that_of_the_fitted_program() -> None:
    x = datasets.load("digits-binary").train.x
    program = BernoulliMixture([8, 8], 8)
    found = on_cpu(program, x, "em")
    objective = float((program.log_prob(x).sum() + program.log_prior()).detach()) / len(x)
    assert found.history.last("loss") == pytest.approx(-float(program.log_prob(x).mean().detach()), rel=1e-12)
    assert found.history.last("penalised_loss") == pytest.approx(-objective, rel=1e-12)
    assert found.info["converged"]
    assert found.guide_spec == {"kind": "posterior"}
    draws = found.draw(3, x[:7])
    assert draws["z"].shape == (3, 7)


def test_restarts_keep_the_best() -> None:
    torch.manual_seed(0)
    x = torch.randn(80, 2)
    program = GaussianMixture([2], 6)
    found = on_cpu(program, x, "em", restarts=5, seed=3)
    losses = found.info["losses"]
    assert len(losses) == 5
    assert losses[-1] != min(losses)  # else this test says nothing: choose another seed
    assert -float(program.log_prob(x).mean().detach()) == pytest.approx(min(losses), rel=1e-12)
    assert found.history.last("loss") == min(losses)


def test_same_seed_same_fit() -> None:
    x = torch.randn(80, 2)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        program = GaussianMixture([2], 6)
        on_cpu(program, x, "em", seed=seed, restarts=2, iterations=50)
        runs.append(program.means.detach())
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[1], runs[2])


class Killed(Exception):
    pass


@pytest.mark.parametrize("method", ["em", "cavi"])
def test_killed_fit_resumes_to_the_same_end(method: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(em, "Schedule", partial(Schedule, checkpoint_seconds=0.0))
    x = torch.randn(80, 2)
    cls, step = (GaussianMixture, "m_step") if method == "em" else (BayesianGaussianMixture, "cavi_step")
    original = getattr(cls, step)

    def run(folder, limit: int | None):
        torch.manual_seed(0)
        program, calls = cls([2], 5), 0

        def counted(self, *args):
            nonlocal calls
            calls += 1
            if limit is not None and calls > limit:
                raise Killed
            return original(self, *args)

        monkeypatch.setattr(cls, step, counted)
        return on_cpu(program, x, method, iterations=10, tolerance=0.0, restarts=3, out=folder), calls

    whole, all_calls = run(tmp_path / "whole", None)
    with pytest.raises(Killed):
        run(tmp_path / "cut", 18)
    assert (tmp_path / "cut" / CHECKPOINT).exists()
    resumed, calls = run(tmp_path / "cut", None)
    assert calls < all_calls - 10
    assert resumed.info == whole.info
    assert [row["loss"] for row in resumed.history.rows] == [row["loss"] for row in whole.history.rows]
    for name, value in whole.program.state_dict().items():
        assert torch.equal(value, resumed.program.state_dict()[name]), name


def test_coordinate_ascent_fits_saves_and_loads(tmp_path) -> None:
    x = datasets.load("blobs").train.x[:300]
    program = BayesianGaussianMixture([2], 6, "full", concentration=0.05)
    found = on_cpu(program, x, "cavi", iterations=1000, out=tmp_path)
    losses = torch.tensor(found.history.series("loss")[1])
    assert bool((losses.diff() < 1e-12).all())
    assert found.info["converged"]
    # Three blobs: the other three components are left with next to no examples.
    assert sorted((program.q_concentration > 5).tolist()) == [False] * 3 + [True] * 3
    again = Fit.load(tmp_path)
    ours, theirs = (f.draw(50, x, seed=1) for f in (found, again))
    assert ours["means"].shape == (50, 6, 2)
    assert all(torch.equal(ours[site], theirs[site]) for site in ours)
    assert -float(losses[-1]) * 300 == pytest.approx(float(program.cavi_step(x)), rel=1e-6)  # nats per example


@pytest.mark.parametrize(
    ("cls", "options", "method"),
    [*((GaussianMixture, {"covariance": c}, "em") for c in COVARIANCES), (BayesianGaussianMixture, {}, "cavi")],
)
def test_single_precision_finds_the_same(cls: type, options: dict, method: str) -> None:
    x = datasets.load("blobs").train.x
    found = []
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        program = cls([2], 3, **options).to(dtype)
        # Without a tolerance the run ends where rounding first stops the climb, which must not be taken for a fall.
        found.append(on_cpu(program, x.to(dtype), method, tolerance=0.0, iterations=100).history.last("loss"))
        assert {p.dtype for p in program.parameters()} == {dtype}
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_a_step_that_goes_down_is_an_error() -> None:
    class Wrong(GaussianMixture):
        def m_step(self, statistics) -> None:
            super().m_step(statistics)
            with torch.no_grad():
                self.means.mul_(0.9)

    x = datasets.load("blobs").train.x
    with pytest.raises(DivergenceError, match="the log-likelihood fell by"):
        on_cpu(Wrong([2], 3), x, "em", initialise=True)


def test_a_likelihood_that_is_not_finite_is_an_error() -> None:
    class Broken(GaussianMixture):
        def m_step(self, statistics) -> None:
            super().m_step({**statistics, "second": statistics["second"] * float("nan")})

    program = Broken([2], 2, "diagonal")
    with pytest.raises(DivergenceError, match="became nan at iteration 1 of start 1"):
        on_cpu(program, torch.randn(20, 2), "em", initialise=False)


def test_refusals() -> None:
    mixture, bayesian = GaussianMixture([2], 2), BayesianGaussianMixture([2], 2)
    assert "closed-form e_step" in str(make_method("em").why_not(bayesian))
    assert "no cavi_step" in str(make_method("cavi").why_not(mixture))
    assert make_method("em").why_not(mixture) is None
    assert make_method("cavi").why_not(bayesian) is None
    for options in ({"iterations": 0}, {"restarts": 0}, {"tolerance": -1.0}, {"batch_size": 0}):
        with pytest.raises(OptionError, match=next(iter(options))):
            make_method("em", **options)
