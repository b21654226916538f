"""Bayesian neural networks: the linear one is Bayesian regression, a tiny one is integrated by quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from inference import fit
from inference.chains import ess
from inference.particles import log_joint, prior_and_likelihood, prior_draws
from zoo import datasets
from zoo.bayes.bnn import BayesianNeuralNetwork
from zoo.bayes.regression import BayesianLinearRegression
from zoo.datasets import Data
from zoo.errors import UnknownNameError
from zoo.testing import checks

CLASSES = {"name": "categorical", "values": 3}
PROGRAMS = {
    "normal": BayesianNeuralNetwork,
    "deep": lambda: BayesianNeuralNetwork(3, [4, 5], "bernoulli", "relu"),
    "classes": lambda: BayesianNeuralNetwork(2, [4], CLASSES),
}


@pytest.mark.parametrize("check", list(checks()), ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", PROGRAMS)
def test_contract(name, check):
    check(PROGRAMS[name]())


@torch.no_grad()
def test_without_hidden_layers_it_is_linear_regression():
    network = BayesianNeuralNetwork(3, [], prior_scale=1.5)
    network.likelihood.scale = torch.tensor(0.7)
    linear = BayesianLinearRegression(4, noise_scale=0.7)
    linear.prior_scale.copy_(1.5 * torch.tensor([3**-0.5] * 3 + [1.0]))
    context, x = torch.randn(9, 3), torch.randn(9)
    w, b = torch.randn(5, 1, 3), torch.randn(5, 1, 1)
    ours = log_joint(network, {"w0": w[..., None], "b0": b}, x, context).total
    rows = torch.cat([context, torch.ones(9, 1)], -1)
    theirs = log_joint(linear, {"w": torch.cat([w, b], -1)}, x, rows).total
    torch.testing.assert_close(ours, theirs)


def test_outputs_are_those_of_a_network_for_each_particle():
    program = BayesianNeuralNetwork(2, [4, 3], CLASSES, "tanh")
    context = torch.randn(7, 2)
    values = {name: torch.randn(5, 1, *factor.loc.shape) for name, factor in program.factors.items()}
    got = program.outputs(context, values)
    assert got.shape == (5, 7, 3)
    for i in range(5):
        w, b = ([values[f"{kind}{layer}"][i, 0] for layer in range(3)] for kind in "wb")
        h = torch.tanh(torch.tanh(context @ w[0] + b[0]) @ w[1] + b[1])
        torch.testing.assert_close(got[i], h @ w[2] + b[2])
        one = {name: value[i, 0] for name, value in values.items()}
        torch.testing.assert_close(program.outputs(context, one), got[i])


# One hidden unit: four numbers, integrated by Gauss-Hermite quadrature under the prior, in NumPy.

TINY = Data(torch.tensor([-0.8, -0.2, 0.1, 0.9]).double(), torch.tensor([[-1.5], [-0.5], [0.4], [1.2]]).double())
AT = torch.tensor([[-1.0], [0.0], [2.0]]).double()


def tiny() -> BayesianNeuralNetwork:
    program = BayesianNeuralNetwork(1, [1])
    with torch.no_grad():
        program.likelihood.scale = torch.tensor(0.6)
    return program


def quadrature() -> tuple[float, np.ndarray]:
    """Log evidence, and the posterior mean of the function at AT."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    log_weights = np.log(weights / weights.sum())
    w0, b0, w1, b1 = (grid.reshape(-1, 1) for grid in np.meshgrid(nodes, nodes, nodes, nodes, indexing="ij"))
    prior = sum(np.meshgrid(*[log_weights] * 4, indexing="ij")).ravel()

    def function(rows: torch.Tensor) -> np.ndarray:
        return np.tanh(w0 * rows[:, 0].numpy() + b0) * w1 + b1

    rest = (TINY.x.numpy() - function(TINY.context)) / 0.6
    total = prior - (rest**2).sum(1) / 2 - 4 * math.log(0.6 * math.sqrt(2 * math.pi))
    evidence = logsumexp(total)
    return float(evidence), np.exp(total - evidence) @ function(AT)


@torch.no_grad()
def test_the_evidence_and_the_mean_function_are_those_of_quadrature():
    program = tiny()
    evidence, mean = quadrature()
    drawn = prior_draws(program.model, 200_000, *TINY)
    values = {name: drawn[name] for name in program.sites()}
    weights = prior_and_likelihood(program, values, *TINY)[1].total.exp()
    error = float(weights.std() / len(weights) ** 0.5 / weights.mean())
    assert error < 0.01
    assert float(weights.mean().log()) == pytest.approx(evidence, abs=4.5 * error)
    share = weights / weights.sum()
    outputs = program.outputs(AT, values)[..., 0]
    got = (share[:, None] * outputs).sum(0)
    spread = ((share**2)[:, None] * (outputs - got) ** 2).sum(0).sqrt()
    assert bool(((got - torch.from_numpy(mean)).abs() < 4.5 * spread).all())


@pytest.mark.slow
def test_nuts_finds_the_mean_function_of_quadrature():
    program = tiny()
    found = fit(program, TINY, "nuts", warmup=500, draws=1500, chains=2, target_accept=0.95)
    outputs = program.outputs(AT, {name: value[:, None] for name, value in found.samples.items()})[..., 0]
    _, mean = quadrature()
    for i in range(len(AT)):
        draws = outputs[:, i].reshape(2, 1500)
        error = float(draws.std()) / float(ess(draws[..., None]).min()) ** 0.5
        assert float(draws.mean()) == pytest.approx(mean[i], abs=4.5 * error)


def test_it_starts_at_what_fits_x_alone_and_learns():
    data = datasets.load("diabetes").train
    program = BayesianNeuralNetwork.for_data(*data, hidden=[8])
    assert program.features == 11
    found = fit(program, data, "svi", elbo="mean_field", steps=300, lr=0.02, batch_size=512, device="cpu")
    losses = [row["loss"] for row in found.history.rows if "loss" in row]
    assert losses[-1] < losses[0] - 0.1
    assert 0.5 < found.program.likelihood.scale.item() < 0.9  # the noise; the data have a standard deviation of 1


def test_unknown_parts_are_named():
    with pytest.raises(UnknownNameError, match="activation 'tan'"):
        BayesianNeuralNetwork(activation="tan")
    with pytest.raises(UnknownNameError, match="likelihood"):
        BayesianNeuralNetwork(likelihood="student")
