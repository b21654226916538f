"""Bounds and their gradients against a Gaussian model whose ELBO, gradients and evidence are known in closed form.

z ~ N(0, 1), x | z ~ N(w z, 1), q(z | x) = N(a x, s^2) for each example:
ELBO(x) = -log 2 pi / 2 - [(x - w a x)^2 + w^2 s^2] / 2 - KL, KL = [a^2 x^2 + s^2 - 1] / 2 - log s.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference.methods.bounds import make_objective
from tests.conftest import FAILURE_RATE
from tests.inference.scalar import Scalar, X
from zoo.datasets import Data
from zoo.errors import CapabilityError, OptionError, UnknownNameError
from zoo.program import Program


def closed_form_elbo(program: Scalar, x: torch.Tensor) -> torch.Tensor:
    s2 = (2 * program.log_s).exp()
    mean = program.a * x
    reconstruction = -0.5 * math.log(2 * math.pi) - 0.5 * ((x - program.w * mean) ** 2 + program.w**2 * s2)
    return reconstruction - (0.5 * (mean**2 + s2 - 1) - program.log_s)


def gradients(program: Program, loss: torch.Tensor) -> torch.Tensor:
    return torch.stack(torch.autograd.grad(loss, list(program.parameters())))


# Largest acceptable z-score for 3 gradient components and 1 value, at the suite's failure rate.
Z = float(torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(1 - FAILURE_RATE / 8, dtype=torch.float64)))


@pytest.mark.parametrize(
    ("name", "particles", "reparameterised"),
    [
        ("trace", 1, True),
        ("trace", 5, True),
        ("trace", 1, False),
        ("mean_field", 1, True),
        ("score", 4, False),
        ("score", 4, True),
    ],
)
def test_value_and_gradient_are_unbiased(name, particles, reparameterised):
    program, batch = Scalar(reparameterised), Data(X)
    objective = make_objective(name, particles)
    exact = closed_form_elbo(program, X).mean()
    want = torch.cat([gradients(program, -exact), exact[None]]).detach()
    rows = []
    for _ in range(1500):
        loss, bound = objective(program, program.guide, batch, 4)
        rows.append(torch.cat([gradients(program, loss), bound[None]]))
    got = torch.stack(rows)
    error = got.std(0) / len(got) ** 0.5 + 1e-12
    assert bool(((got.mean(0) - want).abs() < Z * error).all()), (got.mean(0), want, error)


def test_at_the_posterior_the_trace_estimator_has_no_variance_but_the_analytic_kl_has():
    """Roeder et al. 2017: log p(x, z) - log q(z | x) is then the log evidence for every z."""
    program = Scalar()
    with torch.no_grad():
        program.a.copy_(program.w / (1 + program.w**2))
        program.log_s.copy_(-0.5 * torch.log(1 + program.w**2))
    evidence = program.log_prob(X).mean()
    trace, analytic = make_objective("trace"), make_objective("mean_field")
    for _ in range(5):
        torch.testing.assert_close(trace(program, program.guide, Data(X), 4)[1], evidence.detach())
    values = torch.stack([analytic(program, program.guide, Data(X), 4)[1] for _ in range(100)])
    assert values.std() > 0.1


@pytest.mark.parametrize("name", ["trace", "mean_field", "score"])
def test_minibatch_elbo_is_unbiased(name):
    """Averaged over all minibatches of one example, the bound equals that of the full data."""
    program = Scalar()
    objective = make_objective(name, 4)
    rows = []
    for i in range(4000):
        batch = Data(X).rows(torch.tensor([i % 4]))
        rows.append(objective(program, program.guide, batch, 4)[1])
    rows = torch.stack(rows).reshape(-1, 4).mean(1)
    exact = closed_form_elbo(program, X).mean()
    assert abs(rows.mean() - exact) < Z * rows.std() / len(rows) ** 0.5


def test_iwae_tightens_to_the_evidence():
    program, batch = Scalar(), Data(X)
    evidence = program.log_prob(X).mean().item()
    values = [
        torch.stack([make_objective("iwae", k)(program, program.guide, batch, 4)[1] for _ in range(300)])
        for k in (1, 10, 200)
    ]
    means = [v.mean().item() for v in values]
    errors = [v.std().item() / 300**0.5 for v in values]
    assert means[0] < means[1] < means[2] < evidence + Z * errors[2]
    assert abs(means[0] - closed_form_elbo(program, X).mean().item()) < Z * errors[0]
    # Burda et al. 2016: the gap falls like the variance of the weights over 2 K.
    assert evidence - means[2] < (evidence - means[0]) / 20


def test_renyi_of_one_half_lies_between_elbo_and_evidence():
    program, batch = Scalar(), Data(X)
    values = torch.stack([make_objective("renyi", 200, 0.5)(program, program.guide, batch, 4)[1] for _ in range(300)])
    assert closed_form_elbo(program, X).mean() < values.mean() < program.log_prob(X).mean()


def test_exact_objective_is_the_log_likelihood():
    program = Scalar()
    loss, bound = make_objective("exact")(program, program.guide, Data(X), 4)
    torch.testing.assert_close(bound, program.log_prob(X).mean().detach())
    torch.testing.assert_close(loss.detach(), -bound)


def test_kl_annealing_weighs_the_kl():
    program, batch = Scalar(), Data(X)
    objective = make_objective("mean_field")
    s2 = (2 * program.log_s).exp()
    kl = (0.5 * ((program.a * X) ** 2 + s2 - 1) - program.log_s).mean()
    torch.manual_seed(3)
    full = objective(program, program.guide, batch, 4, 1.0)[1]
    torch.manual_seed(3)
    half = objective(program, program.guide, batch, 4, 0.5)[1]
    torch.testing.assert_close(half - full, 0.5 * kl.detach())


def test_bad_options_are_refused():
    with pytest.raises(UnknownNameError, match="'mean_field'"):
        make_objective("meanfield")
    with pytest.raises(OptionError, match="at least 2"):
        make_objective("score", 1)
    with pytest.raises(OptionError, match="elbo='trace'"):
        make_objective("renyi", 5, 1.0)


def test_iwae_refuses_minibatches_with_global_latents():
    class Global(Program):
        def model(self, x=None, context=None, size=None):
            m = pyro.sample("m", dist.Normal(torch.zeros(()), 1.0))
            with self.plate(x, context, size):
                return pyro.sample("x", dist.Normal(m, 1.0), obs=x)

        def guide(self, x=None, context=None, size=None):
            pyro.sample("m", dist.Normal(torch.zeros(()), 1.0))

    with pytest.raises(CapabilityError, match="minibatches"):
        make_objective("iwae", 5)(Global(), Global().guide, Data(X), 100)
