"""Gaussian processes beside scikit-learn's: kernels, evidence, predictions; sparse ones beside Titsias' bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process import kernels as theirs

from inference import fit
from inference.evaluation import log_likelihood
from inference.methods.bounds import make_objective
from inference.particles import log_weights
from zoo.bayes.gp import GaussianProcess
from zoo.bayes.kernels import make_kernel
from zoo.bayes.sparse_gp import SparseGaussianProcess
from zoo.datasets import Data
from zoo.errors import CapabilityError, OptionError, ShapeError, UnknownNameError
from zoo.testing import checks

PERIODIC = {"name": "periodic", "period": 1.7, "lengthscale": 0.9}
KERNELS = {
    "rbf": ("rbf", theirs.RBF(1.0)),
    "matern32": ({"name": "matern32", "variance": 2.0}, 2.0 * theirs.Matern(1.0, nu=1.5)),
    "matern52": ({"name": "matern52", "lengthscale": 0.7}, theirs.Matern(0.7, nu=2.5)),
    "periodic": (PERIODIC, theirs.ExpSineSquared(0.9, 1.7)),
    "sum": ({"name": "sum", "of": ["rbf", PERIODIC, "matern32"]},
            theirs.RBF(1.0) + theirs.ExpSineSquared(0.9, 1.7) + theirs.Matern(1.0, nu=1.5)),
    "product": ({"name": "product", "of": ["rbf", PERIODIC]}, theirs.RBF(1.0) * theirs.ExpSineSquared(0.9, 1.7)),
}  # fmt: skip
PROGRAMS = {
    "rbf": GaussianProcess,
    "sum": lambda: GaussianProcess(1, 12, KERNELS["sum"][0], noise=0.3),
    "sparse": SparseGaussianProcess,
    "sparse labels": lambda: SparseGaussianProcess(3, 5, "matern52", likelihood="bernoulli"),
}


@pytest.mark.parametrize("check", list(checks()), ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", PROGRAMS)
def test_contract(name, check):
    check(PROGRAMS[name]())


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_those_of_scikit_learn(name):
    ours, other = KERNELS[name]
    a, b = torch.randn(6, 1), torch.randn(4, 1)
    kernel = make_kernel(ours, 1)
    np.testing.assert_allclose(kernel(a, b).detach(), other(a.numpy(), b.numpy()), rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(kernel(a, diag=True).detach(), other.diag(a.numpy()), rtol=1e-9)


def curve(n: int = 30) -> Data:
    """A sine seen through noise at uneven places."""
    rows = 3 * torch.rand(n, 1) ** 0.7
    return Data(torch.sin(3 * rows[:, 0]) + 0.2 * torch.randn(n), rows)


def placed(data: Data, kernel="rbf", noise: float = 0.5) -> GaussianProcess:
    """A process at the inputs of data, in their own units."""
    program = GaussianProcess(data.context.shape[1], data.size, kernel, noise)
    program.inputs.copy_(data.context)
    return program


@pytest.mark.parametrize("name", KERNELS)
@torch.no_grad()
def test_evidence_and_predictions_are_those_of_scikit_learn(name):
    data, at = curve(), torch.linspace(-1, 4, 9)[:, None]
    ours, other = KERNELS[name]
    program = placed(data, ours, noise=0.3)
    sklearn = GaussianProcessRegressor(other, alpha=0.09, optimizer=None).fit(data.context.numpy(), data.x.numpy())
    want = sklearn.log_marginal_likelihood_value_
    assert float(program.log_evidence(*data)) == pytest.approx(want, abs=1e-4)
    mean, sd = sklearn.predict(at.numpy(), return_std=True)
    found = program.predictive(*data, at)
    np.testing.assert_allclose(found.loc.detach(), mean, atol=1e-4)
    np.testing.assert_allclose(found.scale.detach(), (sd**2 + 0.09) ** 0.5, rtol=1e-4)


@torch.no_grad()
def test_the_evidence_is_a_multivariate_normal_in_single_precision_too():
    data = curve(80)
    program = placed(data, noise=0.1)
    gram = program.kernel(data.context).detach().numpy() + 0.01 * np.eye(80)
    want = multivariate_normal(np.zeros(80), gram).logpdf(data.x.numpy())
    assert float(program.log_evidence(*data)) == pytest.approx(want, abs=1e-3)
    single = program.float()
    assert float(single.log_evidence(data.x.float(), data.context.float())) == pytest.approx(want, rel=1e-3)


@torch.no_grad()
def test_more_inputs_than_the_data_have_do_no_harm():
    data = curve(20)
    program = GaussianProcess(1, 25)
    program.initialise(*data)
    exact = placed(data)
    exact.initialise(*data)
    assert float(program.log_evidence(*data)) == pytest.approx(float(exact.log_evidence(*data)), abs=1e-4)


def test_the_posterior_is_exact_at_every_draw():
    data = curve(20)
    for program in (placed(data), GaussianProcess(1, 7)):  # at the data's inputs, and at others
        with torch.no_grad():
            weights = log_weights(program, program.posterior, 32, *data)[1].total
            torch.testing.assert_close(weights, program.log_evidence(*data).expand(32), rtol=0, atol=1e-7)


def test_the_evidence_teaches_the_kernel():
    data = curve()
    options = {"elbo": "exact", "guide": "posterior", "lr": 0.05, "steps": 200, "device": "cpu"}
    found = fit(GaussianProcess.for_data(*data), data, "svi", **options)
    noise = theirs.WhiteKernel(0.1, (1e-5, 10))
    other = GaussianProcessRegressor(theirs.ConstantKernel(1.0) * theirs.RBF(1.0) + noise, n_restarts_optimizer=3)
    best = other.fit(data.context.numpy(), (data.x - data.x.mean()).numpy()).log_marginal_likelihood_value_
    with torch.no_grad():
        got = float(found.program.log_evidence(*data))
    # The mean is learned as well, so that ours may lie above.
    assert best - 0.02 < got < best + 2
    assert found.history.last("loss") * 30 == pytest.approx(-got, abs=0.1)
    # What the zoo predicts by draws of v is what the formula says.
    held = curve(10)
    want = found.program.predictive(*data, held.context).log_prob(held.x)
    got = log_likelihood(found, held, particles=20_000)
    torch.testing.assert_close(got.values, want.detach(), rtol=0, atol=0.1)


def test_the_gradient_of_the_exact_bound_is_that_under_the_posterior():
    data = curve(12)
    program = placed(data)
    gradients = []
    for name, guide in (("exact", program.guide), ("trace", program.posterior)):
        loss, _ = make_objective(name)(program, guide, data, 12)
        used = [p for key, p in program.named_parameters() if not key.startswith("v_")]
        gradients.append(torch.autograd.grad(loss, used))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_what_does_not_fit_is_refused():
    data = curve(20)
    with pytest.raises(ShapeError, match="points=16 rows and got 20"):
        fit(GaussianProcess(1), data, "svi", steps=1)
    with pytest.raises(CapabilityError, match="cannot be estimated from minibatches"):
        fit(GaussianProcess(1, 20), data, "svi", elbo="exact", batch_size=5, steps=1)
    with pytest.raises(UnknownNameError, match="kernel 'rbff'"):
        GaussianProcess(kernel="rbff")
    with pytest.raises(OptionError, match="lengthscale must be positive"):
        GaussianProcess(kernel={"name": "rbf", "lengthscale": -1.0})
    with pytest.raises(OptionError, match="at least two"):
        GaussianProcess(kernel={"name": "sum", "of": ["rbf"]})
    with pytest.raises(OptionError, match="one number a row"):
        SparseGaussianProcess(likelihood={"name": "categorical", "values": 3})


# Sparse: the collapsed bound of Titsias (2009, eq. 9), and the best q(v), in NumPy.


def collapsed(program: SparseGaussianProcess, data: Data) -> tuple[float, np.ndarray, np.ndarray]:
    """The bound, and mean and covariance of the best q(v)."""
    with torch.no_grad():
        kzz, kzx = program.kernel(program.inputs).numpy(), program.kernel(program.inputs, data.context).numpy()
        diagonal = program.kernel(data.context, diag=True).numpy()
        variance, residual = float(program.likelihood.scale) ** 2, (data.x - program.mean).numpy()
    low = np.linalg.cholesky(kzz + 1.5e-8 * np.eye(len(kzz)))
    a = np.linalg.solve(low, kzx)
    q = a.T @ a
    bound = multivariate_normal(np.zeros(data.size), q + variance * np.eye(data.size)).logpdf(residual)
    bound -= (diagonal - np.diag(q)).sum() / (2 * variance)
    precision = np.eye(len(kzz)) + a @ a.T / variance
    return bound, np.linalg.solve(precision, a @ residual) / variance, np.linalg.inv(precision)


def sparse(data: Data, points: int) -> SparseGaussianProcess:
    """One that has the best q(v) for its inducing inputs, a part of the data's."""
    program = SparseGaussianProcess(1, points, "rbf", likelihood="normal")
    with torch.no_grad():
        program.inputs.copy_(data.context[torch.linspace(0, data.size - 1, points).round().long()])
        program.likelihood.scale = torch.tensor(0.3)
        _, loc, covariance = collapsed(program, data)
        program.v_loc.copy_(torch.from_numpy(loc))
        program.v_tril = torch.linalg.cholesky(torch.from_numpy(covariance))
    return program


@torch.no_grad()
def elbo(program: SparseGaussianProcess, data: Data, particles: int = 20_000) -> tuple[float, float]:
    """By Monte Carlo, with its standard error."""
    weights = log_weights(program, program.guide, particles, *data)[1].total
    return float(weights.mean()), float(weights.std()) / math.sqrt(particles)


@torch.no_grad()
def test_with_the_data_as_inducing_inputs_the_bound_is_the_evidence():
    data = curve(15)
    evidence = float(placed(data, noise=0.3).log_evidence(*data))
    got, error = elbo(sparse(data, 15), data, 2000)
    assert got == pytest.approx(evidence, abs=1e-3 + 4.5 * error)
    assert error < 1e-3  # no variance, as q(v) is the posterior
    assert collapsed(sparse(data, 15), data)[0] == pytest.approx(evidence, abs=1e-4)


@pytest.mark.parametrize("points", [2, 4])
@torch.no_grad()
def test_with_fewer_the_bound_is_that_of_titsias_and_below_the_evidence(points):
    data = curve(15)
    evidence = float(placed(data, noise=0.3).log_evidence(*data))
    program = sparse(data, points)
    best = collapsed(program, data)[0]
    got, error = elbo(program, data)
    assert got == pytest.approx(best, abs=4.5 * error)
    assert best < evidence - 0.1
    with torch.no_grad():
        program.v_loc.add_(0.3)
    assert elbo(program, data)[0] < best - 0.05  # no other q is as good


@pytest.mark.slow
def test_svi_comes_near_the_collapsed_bound_by_minibatches():
    data = curve(60)
    found = fit(
        SparseGaussianProcess(1, 8), data, "svi", elbo="mean_field", steps=1500, lr=0.03, batch_size=20, device="cpu"
    )
    best = collapsed(found.program, data)[0]
    got, error = elbo(found.program, data)
    assert best - 2.0 < got < best + 4.5 * error
