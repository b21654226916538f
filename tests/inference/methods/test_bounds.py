"""Bounds and their gradients against a Gaussian model whose ELBO, gradients and evidence are known in closed form.

z ~ N(0, 1), x | z ~ N(w z, 1), q(z | x) = N(a x, s^2) for each example:
ELBO(x) = -log 2 pi / 2 - [(x - w a x)^2 + w^2 s^2] / 2 - KL, KL = [a^2 x^2 + s^2 - 1] / 2 - log s.
"""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import fit
from inference.methods.bounds import make_objective
from inference.methods.svi import SVI
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
    for _ in range(600):
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
    objective = make_objective(name, 20)
    rows = []
    for i in range(800):
        batch = Data(X).rows(torch.tensor([i % 4]))
        rows.append(objective(program, program.guide, batch, 4)[1])
    rows = torch.stack(rows).reshape(-1, 4).mean(1)
    exact = closed_form_elbo(program, X).mean()
    assert abs(rows.mean() - exact) < Z * rows.std() / len(rows) ** 0.5


def test_iwae_tightens_to_the_evidence():
    program, batch = Scalar(), Data(X)
    evidence = program.log_prob(X).mean().item()
    values = [
        torch.stack([make_objective(name, k)(program, program.guide, batch, 4)[1] for _ in range(300)])
        for name, k in (("trace", 1), ("iwae", 10), ("iwae", 200))
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


class Switch(Program):
    """z in {0, 1}, y | z ~ N(z, 1), x | y ~ N(y, 1/2); each of B examples has its own two numbers in the guide.

    So the gradient of one batch is B independent estimates.
    """

    event_shape = torch.Size([])

    def __init__(self, batch: int):
        super().__init__()
        self.logit = torch.nn.Parameter(torch.full((batch,), 0.4))
        self.loc = torch.nn.Parameter(torch.full((batch,), -0.3))

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.3)))
            y = pyro.sample("y", dist.Normal(z, 1.0))
            return pyro.sample("x", dist.Normal(y, 0.5), obs=x)

    def guide(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Bernoulli(logits=self.logit[: len(x)]))
            pyro.sample("y", dist.Normal(self.loc[: len(x)] + z, 0.8))


def two_particle_bound(logit, loc, x, alpha):
    """The expected bound of two particles: both z by enumeration, both y by Gauss-Hermite quadrature."""
    nodes, weights = (torch.as_tensor(v) for v in np.polynomial.hermite_e.hermegauss(32))
    weights, z = weights / weights.sum(), torch.tensor([0.0, 1.0])
    q_z = torch.stack([torch.sigmoid(-logit), torch.sigmoid(logit)])
    y = loc + z[:, None] + 0.8 * nodes  # (2, nodes)
    log_p = dist.Bernoulli(0.3).log_prob(z)[:, None] + dist.Normal(z[:, None], 1.0).log_prob(y)
    log_q = q_z.log()[:, None] + dist.Normal(loc + z[:, None], 0.8).log_prob(y)
    log_w = (log_p + dist.Normal(y, 0.5).log_prob(x) - log_q).flatten()
    mass = (q_z[:, None] * weights).flatten()
    pairs = torch.stack(torch.broadcast_tensors(log_w[:, None], log_w[None, :]))
    bound = (torch.logsumexp((1 - alpha) * pairs, 0) - math.log(2)) / (1 - alpha)
    return (mass[:, None] * mass * bound).sum()


@pytest.mark.parametrize(("name", "alpha"), [("iwae", 0.0), ("renyi", 0.5), ("renyi", -1.0)])
def test_bounds_of_several_particles_have_the_right_gradient_where_draws_carry_none(name, alpha):
    program, x, batch = Switch(40_000), torch.tensor(1.2), 40_000
    loss, bound = make_objective(name, 2, alpha)(program, program.guide, Data(x.expand(batch)), batch)
    got = [g * batch for g in torch.autograd.grad(loss, [program.logit, program.loc])]
    at = [torch.tensor(0.4, requires_grad=True), torch.tensor(-0.3, requires_grad=True)]
    exact = two_particle_bound(*at, x, alpha)
    for estimate, want in zip(got, torch.autograd.grad(-exact, at), strict=True):
        assert abs(estimate.mean() - want) < Z * estimate.std() / batch**0.5
        assert abs(want) > 3 * Z * estimate.std() / batch**0.5  # so that the wrong sign would be seen
    assert abs(bound - exact) < 0.05


def test_a_discrete_guide_learns_the_posterior_by_iwae():
    class Coin(Switch):
        def model(self, x=None, context=None, size=None):
            with self.plate(x, context, size):
                z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
                return pyro.sample("x", dist.Bernoulli(0.1 + 0.8 * z), obs=x)

        def guide(self, x=None, context=None, size=None):
            with self.plate(x, context, size):
                pyro.sample("z", dist.Bernoulli(logits=self.logit.mean() * (2 * x - 1)))

    x = torch.ones(64)
    found = fit(Coin(1), x, "svi", elbo="iwae", particles=5, steps=200, lr=0.1, train_program=True)
    assert float(found.program.logit.detach().sigmoid().mean()) == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("name", ["iwae", "renyi"])
def test_one_particle_is_refused_where_it_would_be_the_plain_elbo(name):
    with pytest.raises(OptionError, match="plain ELBO"):
        fit(Scalar(True), X, "svi", elbo=name, alpha=0.5)


def test_an_analytic_kl_is_refused_where_draws_carry_no_gradient():
    with pytest.raises(CapabilityError, match=r"'z' .*carry no gradient"):
        fit(Switch(4), torch.zeros(4), "svi", elbo="mean_field", steps=1)


def test_auto_sums_out_what_the_guide_marks():
    class Marked(Switch):
        def guide(self, x=None, context=None, size=None):
            with self.plate(x, context, size):
                z = pyro.sample("z", dist.Bernoulli(logits=self.logit[: len(x)]), infer={"enumerate": "parallel"})
                pyro.sample("y", dist.Normal(self.loc[: len(x)] + z, 0.8))

    for cls, want in ((Marked, "enum"), (Switch, "trace")):
        program, data = cls(4), Data(torch.zeros(4))
        assert SVI()._choose_elbo(program, program.guide, data) == want
    fit(Marked(4), torch.zeros(4), "svi", steps=1)
