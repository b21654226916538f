"""Mixtures: densities against brute force, capabilities against one another, exact evidence against quadrature."""

from __future__ import annotations

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from scipy import special, stats
from torch import Tensor

from inference.evaluation.likelihood import log_evidence
from inference.fit import fit
from inference.particles import draw, guide_log_prob, log_joint, log_weights
from tests.conftest import FAILURE_RATE
from zoo.datasets import Data
from zoo.errors import CapabilityError, OptionError
from zoo.mixtures import gaussian, mixture, moments
from zoo.mixtures.bayesian_gaussian import BayesianGaussianMixture, Wishart
from zoo.mixtures.bernoulli import BernoulliMixture
from zoo.mixtures.gaussian import GaussianMixture
from zoo.mixtures.moments import normalise_
from zoo.program import ClosedFormEM, CoordinateAscent, ExactDensity, ExactEvidence, ExactPosterior, Program
from zoo.testing import check_program

SIGMAS = float(stats.norm.isf(FAILURE_RATE / 2))
"""A Monte Carlo estimate may be this many standard errors off."""

COVARIANCES = ["spherical", "diagonal", "full"]


def random_like(program: Program) -> Program:
    """Every parameter moved from its start, so that no symmetry hides a mistake."""
    with torch.no_grad():
        for p in program.parameters():
            p.add_(0.5 * torch.randn_like(p))
    return program


# Programs are built inside the tests, in the dtype that is set there.
MIXTURES = [
    *[(BernoulliMixture, shape, {}) for shape in ([], [5], [2, 2])],
    *[(GaussianMixture, shape, {"covariance": c}) for c in COVARIANCES for shape in ([], [3], [2, 2])],
]
BAYESIAN = [
    (BayesianGaussianMixture, shape, {"covariance": c}) for c in ("diagonal", "full") for shape in ([], [3], [2, 2])
]


def name(case: tuple) -> str:
    return f"{case[0].__name__}-{case[2].get('covariance', '')}-{case[1]}"


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Program:
    cls, shape, options = request.param
    return random_like(cls(shape, 3, **options))


each_mixture = pytest.mark.parametrize("program", MIXTURES, ids=name, indirect=True)


@pytest.mark.parametrize("program", [*MIXTURES, *BAYESIAN], ids=name, indirect=True)
def test_contract(program: Program) -> None:
    check_program(program)


def test_capabilities() -> None:
    for program in (BernoulliMixture([2], 2), GaussianMixture([2], 2)):
        assert isinstance(program, ExactDensity)
        assert isinstance(program, ExactPosterior)
        assert isinstance(program, ClosedFormEM)
        assert not isinstance(program, ExactEvidence | CoordinateAscent)
    bayesian = BayesianGaussianMixture([2], 2)
    assert isinstance(bayesian, ExactEvidence)
    assert isinstance(bayesian, CoordinateAscent)
    assert not isinstance(bayesian, ExactDensity | ExactPosterior | ClosedFormEM)


# Densities.


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_twelve_bits_sum_to_one(smoothing: float) -> None:
    program = BernoulliMixture([12], 5, smoothing)
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=12)))
    assert float(program.log_prob(states).logsumexp(0).detach()) == pytest.approx(0, abs=1e-10)
    # Also after EM, which with smoothing = 0 puts probabilities at their bounds.
    x = states[torch.randint(len(states), (20,))]
    program.initialise(x)
    for _ in range(5):
        program.m_step(program.e_step(x)[1])
    assert float(program.log_prob(states).logsumexp(0).detach()) == pytest.approx(0, abs=1e-10)
    assert bool(torch.isfinite(program.log_prob(states)).all())
    single = program.float().log_prob(states.float())
    assert float(single.logsumexp(0).detach()) == pytest.approx(0, abs=1e-5)


def test_bernoulli_density_by_hand() -> None:
    program = random_like(BernoulliMixture([2, 2], 3))
    x = program.generate(7)
    probs, weights = program.logits.sigmoid(), program.weights
    want = sum(weights[k] * (probs[k] ** x * (1 - probs[k]) ** (1 - x)).flatten(1).prod(-1) for k in range(3))
    torch.testing.assert_close(program.log_prob(x), want.log())


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_gaussian_density_is_scipys(covariance: str) -> None:
    program = random_like(GaussianMixture([2, 2], 3, covariance))
    x = program.generate(7)
    want = 0
    weights = program.weights.detach()
    for k in range(3):
        scale = program.scale[k].detach()
        cov = scale @ scale.T if covariance == "full" else torch.eye(4) * scale**2
        density = stats.multivariate_normal(program.means[k].detach().numpy(), cov.numpy()).pdf(x.flatten(1).numpy())
        want = want + float(weights[k]) * density
    torch.testing.assert_close(program.log_prob(x).exp(), torch.as_tensor(want))


# Summing z out by hand, by Pyro and by the particle estimators is one number.


@each_mixture
def test_enumeration_agrees(program: Program) -> None:
    x = program.generate(6)
    parameters = list(program.parameters())
    want = program.log_prob(x).sum()
    loss = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(program.model, program.guide, x)
    torch.testing.assert_close(-loss, want)
    for got, exact in zip(torch.autograd.grad(-loss, parameters), torch.autograd.grad(want, parameters), strict=True):
        torch.testing.assert_close(got, exact, rtol=1e-9, atol=1e-9)


@each_mixture
def test_particle_densities_agree(program: Program) -> None:
    x = program.generate(6)
    want = program.log_prob(x)
    torch.testing.assert_close(log_joint(program, {}, x, particles=2).local, want.expand(2, 6))
    draws, weights = log_weights(program, program.posterior, 5, x)
    assert draws.values["z"].shape == (5, 6)
    assert not weights.joint
    torch.testing.assert_close(weights.local, want.expand(5, 6))


def test_fit_by_enumeration_reports_the_exact_density() -> None:
    for program in (GaussianMixture([2], 3), BernoulliMixture([4], 3)):
        x = program.generate(50)
        want = -float(program.log_prob(x).mean().detach())
        found = fit(program, x, "svi", elbo="enum", steps=1, batch_size=50, initialise=False, device="cpu")
        assert found.history.last("loss") == pytest.approx(want, rel=1e-10)


# EM's two steps and the start.


@each_mixture
def test_statistics_add_over_minibatches(program: Program) -> None:
    x = program.generate(10)
    value, whole = program.e_step(x)
    parts = [program.e_step(rows) for rows in (x[:3], x[3:])]
    torch.testing.assert_close(value, parts[0][0] + parts[1][0])
    for key, total in whole.items():
        torch.testing.assert_close(total, parts[0][1][key] + parts[1][1][key])


def grouped(n: int, d: int) -> Tensor:
    """Rows in three groups that overlap."""
    return (2 * torch.randn(3, d))[torch.arange(n) % 3] + torch.randn(n, d) @ torch.randn(d, d) / d**0.5


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("d", [1, 5])
def test_expanded_e_step_is_that_of_the_density(covariance: str, d: int) -> None:
    x = grouped(90, d)
    program = GaussianMixture([d], 3, covariance)
    program.initialise(x[:20])
    value, found = program.e_step(x)
    assert program._expansion() is not None
    with torch.no_grad():
        responsibilities = program.joint_log_prob(x).softmax(-1)
        want = {"counts": responsibilities.sum(0)} | program.statistics(x, responsibilities)
        torch.testing.assert_close(value, program.log_prob(x).sum(), rtol=1e-12, atol=0)
    assert found.keys() == want.keys()
    for key in want:
        torch.testing.assert_close(found[key], want[key], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("program", [m for m in MIXTURES if m[1]], ids=name, indirect=True)
def test_chunks_of_an_e_step_add_up(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    x = program.generate(50)
    whole = program.e_step(x)
    for limit in ("CACHED", "FEWEST_ROWS"):
        monkeypatch.setattr(moments, limit, 7)
    calls = []
    monkeypatch.setattr(mixture, "normalise_", lambda *a: calls.append(a) or normalise_(*a))
    monkeypatch.setattr(gaussian, "normalise_", mixture.normalise_)
    parts = program.e_step(x)
    assert len(calls) == 8
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_e_step_of_narrow_components_far_apart(covariance: str) -> None:
    """Expanding the square would lose (2^20 / 2^-10)^2 eps, some 200 nats for each row."""
    near = 2.0**-10 * torch.randn(200, 2)
    near = near - near % 2.0**-30  # so that moving it by 2^20 rounds nothing
    program = GaussianMixture([2], 2, covariance)
    alone = GaussianMixture([2], 1, covariance)
    with torch.no_grad():
        program.means.copy_(torch.tensor([[0.0, 0.0], [2.0**20, -(2.0**20)]]))
        alone.means.zero_()
    program.scale, alone.scale = program.scale.detach() * 2.0**-10, alone.scale.detach() * 2.0**-10
    assert program._expansion() is None
    value, found = program.e_step(torch.cat([near, near + program.means[1].detach()]))
    want, expected = alone.e_step(near)
    torch.testing.assert_close(value, 2 * want + 400 * math.log(0.5), rtol=1e-12, atol=0)
    for key in expected:
        torch.testing.assert_close(found[key], expected[key].expand_as(found[key]), rtol=1e-9, atol=1e-12)


def test_e_step_of_many_dimensions() -> None:
    """The products of a hundred coordinates are too many to expand."""
    x = torch.randn(300, 100)
    program = GaussianMixture([100], 2)
    program.initialise(x)
    assert program._expansion() is None
    value, found = program.e_step(x)
    joint = dist.MultivariateNormal(program.means, scale_tril=program.scale).log_prob(x[:, None])
    joint = (joint + program.weights.log()).detach()
    torch.testing.assert_close(value, joint.logsumexp(-1).sum())
    torch.testing.assert_close(found["counts"], joint.softmax(-1).sum(0))


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_single_precision_far_from_zero(covariance: str) -> None:
    """A mean of 1e4, where float32 has steps of 1e-3, and a standard deviation of 1."""
    x = (torch.randn(3000, 3) @ torch.tensor([[1.0, 0.3, 0.0], [0.0, 0.9, 0.2], [0.0, 0.0, 1.1]]) + 1e4).float()
    one = GaussianMixture([3], 1, covariance).float()
    one.initialise(x)
    for _ in range(2):
        one.m_step(one.e_step(x)[1])
    want = x.double().T.cov(correction=0)
    scale = one.scale[0].detach().double()
    if covariance == "full":
        torch.testing.assert_close(scale @ scale.T, want, rtol=1e-6, atol=1e-6)  # the rounding of the factor
    else:
        variance = want.diagonal()
        torch.testing.assert_close(scale**2, variance.mean() if scale.ndim == 0 else variance, rtol=1e-6, atol=0)
    # Three components, which overlap: what is left is that the means are rounded to 5e-4 standard deviations. The
    # log-likelihood is flat there, and so feels the square of it, in each dimension.
    torch.manual_seed(0)
    several = GaussianMixture([3], 3, covariance).float()
    several.initialise(x)
    values = []
    for _ in range(30):
        value, statistics = several.e_step(x)
        assert value.dtype == torch.float64
        values.append(float(value) / len(x))
        several.m_step(statistics)
    assert {p.dtype for p in several.parameters()} == {torch.float32}
    assert float(torch.tensor(values).diff().min()) > -3 * 5e-4**2


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_moments_do_not_cancel_in_float32(covariance: str) -> None:
    x = torch.cat([torch.randn(400, 2) * 0.5 + c for c in (4000.0, 4010.0)])
    exact, single = GaussianMixture([2], 2, covariance), GaussianMixture([2], 2, covariance).float()
    for program, data in ((exact, x), (single, x.float())):
        torch.manual_seed(0)
        program.initialise(data)
        for _ in range(3):
            program.m_step(program.e_step(data)[1])
    # Rounding of the data themselves, 4000 eps = 5e-4 in units of which the scale is 0.5, is all that may differ.
    torch.testing.assert_close(single.scale.double(), exact.scale, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_covariance_floor(covariance: str) -> None:
    x = torch.cat([torch.zeros(5, 3), torch.randn(20, 3) + 50])
    program = GaussianMixture([3], 2, covariance, covariance_floor=1e-2)
    program.initialise(x)
    program.m_step(program.e_step(x)[1])
    at_zero = program.scale[program.means.norm(dim=-1).argmin()]
    want = torch.tensor(0.1) if covariance == "spherical" else torch.full((3,), 0.1)
    torch.testing.assert_close(at_zero.detach(), want.diag() if covariance == "full" else want)


def test_empty_components_stay_harmless() -> None:
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).repeat(10, 1)  # two distinct rows for four components
    for program in (GaussianMixture([2], 4), BernoulliMixture([2], 4), BernoulliMixture([2], 4, 0.0)):
        program.initialise(x)
        for _ in range(3):
            program.m_step(program.e_step(x)[1])
        assert all(bool(torch.isfinite(p).all()) for p in program.parameters())
        assert bool(torch.isfinite(program.log_prob(x)).all())


def test_start_depends_on_the_seed_alone() -> None:
    x = torch.randn(60, 2)
    means = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        program = GaussianMixture([2], 6)
        program.initialise(x)
        means.append(program.means.detach().clone())
    assert torch.equal(means[0], means[1])
    assert not torch.equal(means[1], means[2])


def test_parameter_count() -> None:
    assert BernoulliMixture([12], 5).parameter_count() == 5 * 12 + 4
    assert GaussianMixture([4], 3, "spherical").parameter_count() == 3 * 4 + 3 + 2
    assert GaussianMixture([4], 3, "diagonal").parameter_count() == 3 * 4 + 3 * 4 + 2
    assert GaussianMixture([4], 3, "full").parameter_count() == 3 * 4 + 3 * 10 + 2


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GaussianMixture([2], 0), "components must be at least 1"),
        (lambda: GaussianMixture([2], 2, "tied"), "spherical, diagonal, full"),
        (lambda: GaussianMixture([2], 2, covariance_floor=-1.0), "covariance_floor"),
        (lambda: BernoulliMixture([2], 2, -0.1), "smoothing must be at least 0"),
        (lambda: BayesianGaussianMixture([2], 2, "spherical"), "'diagonal' or 'full'"),
        (lambda: BayesianGaussianMixture([2], 2, rate=0.0), "rate must be positive"),
        (lambda: BayesianGaussianMixture([2], 0), "components must be at least 1"),
        (lambda: GaussianMixture([2], 9).initialise(torch.randn(5, 2)), "components <= 5"),
        (lambda: BayesianGaussianMixture([2], 9).initialise(torch.randn(5, 2)), "components <= 5"),
        (lambda: BayesianGaussianMixture([2], 2).log_evidence(torch.randn(21, 2)), r"2\^21"),
    ],
)
def test_bad_options(build, message: str) -> None:
    with pytest.raises((OptionError, CapabilityError), match=message):
        build()


# The Bayesian mixture.


def test_wishart_against_scipy_and_its_moments() -> None:
    scale = torch.tensor([[1.0, 0.3], [0.3, 0.5]])
    ours = Wishart(torch.tensor(4.5), covariance_matrix=scale)
    draws = ours.sample((20000,))
    want = torch.as_tensor(stats.wishart(4.5, scale.numpy()).logpdf(draws[:10].permute(1, 2, 0).numpy()))
    torch.testing.assert_close(ours.log_prob(draws[:10]), want)
    error = (draws.mean(0) - ours.mean) / (ours.variance / len(draws)).sqrt()
    assert float(error.abs().max()) < SIGMAS


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_variances_have_the_prior_that_is_documented(covariance: str) -> None:
    program = BayesianGaussianMixture([3], 1, covariance, mean_weight=0.5, shape=1.7, rate=0.6)
    with pyro.plate("particles", 4000, dim=-2):
        trace = pyro.poutine.trace(program.model).get_trace(None, None, 1)
    precisions = trace.nodes["precisions"]["value"].reshape(4000, 3, -1)
    variances = precisions.inverse().diagonal(dim1=-2, dim2=-1) if covariance == "full" else 1 / precisions[..., 0]
    means = trace.nodes["means"]["value"].reshape(4000, 3)
    for d in range(3):
        assert stats.kstest(variances[:, d].numpy(), stats.invgamma(1.7, scale=0.6).cdf).pvalue > FAILURE_RATE
        standard = means[:, d] * (0.5 / variances[:, d]).sqrt()
        assert stats.kstest(standard.numpy(), stats.norm.cdf).pvalue > FAILURE_RATE


def test_full_covariance_of_one_dimension_is_the_diagonal_one() -> None:
    x = torch.randn(7, 1)
    programs = [BayesianGaussianMixture([1], 2, c, shape=1.3, rate=0.7) for c in ("diagonal", "full")]
    torch.testing.assert_close(*(p.log_evidence(x) for p in programs))
    elbos = []
    for program in programs:
        torch.manual_seed(0)
        program.initialise(x)
        elbos.append(torch.stack([program.cavi_step(x) for _ in range(5)]))
    torch.testing.assert_close(*elbos)


def quadrature_evidence(alpha: float, kappa: float, shape: float, rate: float, x: Tensor, nodes: int) -> float:
    """log of the five-dimensional integral over (weight, two means, two precisions), no conjugacy used.

    With lambda = t^2 and mu = e / (t sqrt(kappa)) the integrand is smooth: Gauss-Legendre in t, Gauss-Hermite in e; it
    is a polynomial in the weight, which Gauss-Jacobi integrates exactly.
    """
    t, t_weight = special.roots_legendre(nodes)
    t_max = math.sqrt(float(stats.gamma(shape, scale=1 / rate).isf(1e-14)))
    t, t_weight = (t + 1) * t_max / 2, t_weight * t_max / 2
    t_weight = t_weight * 2 * t * stats.gamma(shape, scale=1 / rate).pdf(t**2)
    e, e_weight = special.roots_hermitenorm(nodes)
    e_weight = e_weight / math.sqrt(2 * math.pi)
    w, w_weight = special.roots_jacobi(4, alpha - 1, alpha - 1)
    w, w_weight = (w + 1) / 2, w_weight / w_weight.sum()

    tt, ee = torch.as_tensor(t)[:, None], torch.as_tensor(e)
    component = dist.Normal((ee / tt / math.sqrt(kappa)).flatten(), (1 / tt).expand(nodes, nodes).flatten())
    density = component.log_prob(x.flatten()[:, None]).exp()  # (N, nodes^2)
    mass = (torch.as_tensor(t_weight)[:, None] * torch.as_tensor(e_weight)).flatten()
    total = 0.0
    for share, weight in zip(w, w_weight, strict=True):
        likelihood = torch.ones(())
        for of_one in density:
            likelihood = likelihood * (share * of_one[:, None] + (1 - share) * of_one)
        total += weight * float(mass @ likelihood @ mass)
    return math.log(total)


@pytest.mark.parametrize("x", [[0.3, -0.8], [0.3, -0.8, 1.1]])
def test_evidence_equals_quadrature(x: list[float]) -> None:
    program = BayesianGaussianMixture([1], 2, concentration=0.7, mean_weight=0.8, shape=1.5, rate=0.9)
    data = torch.tensor(x)[:, None]
    coarse, fine = (quadrature_evidence(0.7, 0.8, 1.5, 0.9, data, nodes) for nodes in (30, 50))
    assert coarse == pytest.approx(fine, abs=1e-6)
    assert float(program.log_evidence(data)) == pytest.approx(fine, abs=1e-6)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_evidence_equals_importance_sampling(covariance: str) -> None:
    program = BayesianGaussianMixture([2], 2, covariance, mean_weight=0.5)
    x = torch.tensor([[0.2, 0.1], [1.0, -0.5], [-1.2, 0.4], [0.9, 0.9]])

    def prior(x: Tensor, context: None = None, size: None = None) -> None:
        with pyro.poutine.block(hide=["x", "z"]):
            program.model(x)

    weights = log_weights(program, prior, 40000, x)[1].total
    ratio = (weights - weights.max()).exp()
    estimate = float(ratio.mean().log() + weights.max())
    error = float(ratio.std() / ratio.mean()) / math.sqrt(len(ratio))
    assert error < 0.05
    assert abs(estimate - float(program.log_evidence(x))) < SIGMAS * error


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("seed", range(4))
def test_coordinate_ascent_climbs_below_the_evidence(covariance: str, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.cat([torch.randn(4, 2) - 3, torch.randn(4, 2) + 3])
    program = BayesianGaussianMixture([2], 2, covariance)
    program.initialise(x)
    elbos = torch.stack([program.cavi_step(x) for _ in range(30)])
    assert bool((elbos.diff() > -1e-10).all())
    # Apart as they are, each of the 2! labellings carries half of the evidence and the guide sees one of them.
    assert float(program.log_evidence(x) - elbos[-1]) > math.log(2)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_elbo_equals_its_monte_carlo_estimates(covariance: str) -> None:
    x = torch.cat([torch.randn(15, 2) * 0.8 - 1, torch.randn(15, 2) * 0.8 + 1])
    program = BayesianGaussianMixture([2], 3, covariance)
    program.initialise(x)
    program.cavi_step(x)
    q_z = program.responsibilities(x).detach()
    elbo = program.cavi_step(x)

    def mean_field(x: Tensor, context: None = None, size: None = None) -> None:
        program.guide(x)
        with program.plate(x):
            pyro.sample("z", dist.Categorical(q_z), infer={"enumerate": "parallel"})

    # Given q(z), the other factors are at their optimum, where the integrand of the ELBO is constant: no Monte Carlo
    # error is left, and every single draw must give the closed form.
    objective = TraceEnum_ELBO(max_plate_nesting=1)
    with torch.no_grad():
        draws = torch.tensor([-objective.loss(program.model, mean_field, x) for _ in range(5)])
    torch.testing.assert_close(draws, elbo.expand(5))
    # Summing z out rather than giving it a factor is the tighter bound.
    with torch.no_grad():
        tighter = log_weights(program, program.guide, 1000, x)[1].total
    assert float(tighter.mean() - elbo) > SIGMAS * float(tighter.std()) / math.sqrt(len(tighter))


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_guide_density_at_its_draws(covariance: str) -> None:
    program = BayesianGaussianMixture([2], 3, covariance)
    x = program.generate(5)
    drawn = draw(program.guide, 4, x)
    assert drawn.values["means"].shape == (4, 1, 3, 2)
    torch.testing.assert_close(guide_log_prob(program.guide, drawn.values, x).globals, drawn.log_prob.globals)
    assert bool(torch.isfinite(log_weights(program, program.guide, 4, x)[1].total).all())


def test_auto_evidence_of_data_beyond_enumeration_is_estimated() -> None:
    program, data = BayesianGaussianMixture([2], 3), Data(torch.randn(40, 2))
    assert log_evidence(program, data, particles=5).how == "IWAE-5"
    with pytest.raises(CapabilityError, match=r"3\^40"):
        log_evidence(program, data, how="exact")


def test_bits_of_probability_zero_and_one() -> None:
    program = BernoulliMixture([3], 2)
    with torch.no_grad():
        program.logits[:, 0], program.logits[0, 1] = torch.inf, -torch.inf
    x = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))
    got, possible = program.log_prob(x), x[:, 0] == 1
    assert torch.equal(got == -torch.inf, ~possible)
    assert float(got.detach().exp().sum()) == pytest.approx(1.0)
    for gradient in torch.autograd.grad(got.where(possible, 0.0).sum(), list(program.parameters())):
        assert torch.isfinite(gradient).all()
    value, statistics = program.e_step(x[possible])
    assert float(value) == pytest.approx(float(got.detach()[possible].sum()))
    assert all(torch.isfinite(v).all() for v in statistics.values())


@pytest.mark.parametrize("covariance", ["spherical", "diagonal", "full"])
def test_em_far_from_zero_in_float32_is_em_near_zero_moved(covariance: str) -> None:
    torch.set_default_dtype(torch.float32)
    x = torch.cat([torch.randn(200, 2), torch.randn(200, 2) + 8]).mul(128).round().div(128)  # exact at either level
    found = []
    for shift in (0.0, 1e5):
        torch.manual_seed(1)
        program = GaussianMixture([2], 2, covariance)
        fit(program, x + shift, "em")
        found.append((program.means.double() - shift, program.scale.double()))
    assert torch.allclose(found[0][0], found[1][0], atol=0.01)  # float32 has steps of 1/128 at 1e5
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-3, atol=1e-3)
