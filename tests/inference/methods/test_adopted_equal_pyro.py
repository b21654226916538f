"""Plain Pyro code that is adopted has the loss and the gradient that Pyro gives it, and the answers that are true."""

from __future__ import annotations

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import infer, poutine
from torch import Tensor

import zoo
from inference import fit
from inference.evaluation import log_evidence
from inference.guides.named import AUTOGUIDES
from inference.methods.bounds import make_objective
from tests.zoo.plain_pyro import Case, cases
from zoo.errors import CapabilityError

KINDS = {"trace": infer.Trace_ELBO, "mean_field": infer.TraceMeanField_ELBO, "enum": infer.TraceEnum_ELBO}


def by_pyro(case: Case, kind: str, particles: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients by parameter, of Pyro's own class on its own store."""
    pyro.clear_param_store()
    elbo = KINDS[kind](num_particles=particles, max_plate_nesting=case.nesting)
    arguments = (*case.data.values(), *case.static.values())
    torch.manual_seed(1)
    for code in (case.guide, case.model):
        poutine.trace(code).get_trace(*arguments)  # parameters exist
    torch.manual_seed(2)
    loss = elbo.differentiable_loss(case.model, case.guide, *arguments)
    names = {name: pyro.get_param_store().get_param(name).unconstrained() for name in pyro.get_param_store()}
    loss.backward()
    torch.manual_seed(2)
    value = elbo.loss(case.model, case.guide, *arguments)
    found = {name: parameter.grad for name, parameter in names.items()}
    pyro.clear_param_store()
    return torch.as_tensor(value), found


def adopted(case: Case, kind: str, particles: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The same by the program's own parameters."""
    program = zoo.adopt(case.model, case.guide, **case.static).double()
    data = program.take(case.data)
    program.declare(*data)
    for parameter in program.parameters():
        parameter.grad = None
    torch.manual_seed(2)
    loss, bound = make_objective(kind, particles)(program, program.guide, data, 1)
    loss.backward()
    stated = {name.removeprefix("pyro_params."): p.grad for name, p in program.named_parameters()}
    return -bound, stated


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("name", list(cases()))
def test_loss_and_gradient_are_those_of_pyro(name: str, particles: int) -> None:
    case = cases()[name]
    value, wanted = by_pyro(cases()[name], case.elbo, particles)
    bound, found = adopted(case, case.elbo, particles)
    torch.testing.assert_close(bound, value.to(bound), rtol=1e-10, atol=1e-10)
    assert set(found) == set(wanted)
    for parameter, gradient in wanted.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-9, atol=1e-10)
    assert not list(pyro.get_param_store().keys())


# The answers, where they are known: mu ~ N(0, 1), x_i ~ N(mu, 1).


def mean_of(x):
    mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


X = torch.tensor([0.5, 1.5, -0.2, 2.0])
POSTERIOR = dist.Normal(X.sum() / 5, 5**-0.5)
EVIDENCE = dist.MultivariateNormal(torch.zeros(4), torch.eye(4) + 1).log_prob(X)


@pytest.mark.parametrize("guide", [name for name in AUTOGUIDES if name != "delta"])
def test_every_autoguide_finds_the_posterior(guide: str) -> None:
    steps = 500 if guide in ("iaf", "spline") else 150  # flows have the most to learn
    found = fit(
        zoo.adopt(mean_of), X, "svi", guide=guide, steps=steps, lr=0.1, compile="traced" if steps > 200 else "never"
    )
    mu = found.draw(200)["mu"]
    assert float(mu.mean()) == pytest.approx(float(POSTERIOR.mean), abs=0.12)
    assert float(mu.std()) == pytest.approx(float(POSTERIOR.stddev), abs=0.12)
    # Importance weights are unbiased whatever the guide.
    score = log_evidence(found.program, X, guide=found.guide, particles=200)
    assert float(score.values) == pytest.approx(float(EVIDENCE), abs=0.05)


@pytest.mark.parametrize(("method", "options"), [
    ("nuts", {"draws": 300, "warmup": 100, "chains": 1}), ("exact", {}), ("laplace", {}), ("pathfinder", {}),
    ("smc", {"particles": 300}), ("svgd", {"particles": 50, "steps": 100}),
    ("avb", {"steps": 100, "moments": 64, "compile": "never"}),
    ("svi", {"elbo": "iwae", "particles": 5, "steps": 150, "lr": 0.1, "compile": "never"}),
    ("svi", {"elbo": "renyi", "particles": 5, "alpha": 0.5, "steps": 150, "lr": 0.1, "compile": "never"}),
])  # fmt: skip
def test_every_method_finds_the_posterior(method: str, options: dict) -> None:
    mu = fit(zoo.adopt(mean_of), X, method, **options).draw(300)["mu"]
    assert float(mu.mean()) == pytest.approx(float(POSTERIOR.mean), abs=0.12)
    assert float(mu.std()) == pytest.approx(float(POSTERIOR.stddev), abs=0.12)


def test_a_minibatch_is_an_unbiased_estimate_of_all() -> None:
    """With the plate of examples named, the mean over all batches of a size is the whole, gradient and value."""
    program = zoo.adopt(
        mean_of, lambda x: pyro.sample("mu", dist.Normal(pyro.param("m", torch.zeros(())), 1.0)), examples="rows"
    )
    data = program.take(X)
    program.declare(*data)
    objective = make_objective("trace")

    def at(index: slice) -> tuple[Tensor, Tensor]:
        torch.manual_seed(4)  # the same mu
        loss, bound = objective(program, program.guide, data.rows(index), 4)
        return bound, torch.autograd.grad(loss, list(program.parameters()))[0]

    whole, parts = at(slice(0, 4)), [at(slice(i, i + 1)) for i in range(4)]
    for k in (0, 1):
        torch.testing.assert_close(torch.stack([part[k] for part in parts]).mean(0), whole[k])


def test_structure_that_depends_on_data_stays_eager_and_says_so() -> None:
    def looks(x):
        a = pyro.sample("a", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(2 * a if a.item() > 0 else a, 1.0), obs=x)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = fit(zoo.adopt(looks), torch.tensor(1.0), "svi", steps=30, compile="always")
    assert any(
        "svi looks goes on eagerly: its Python code looks at the value of a tensor" in str(w.message) for w in said
    )
    assert "compile_seconds" not in found.info


def test_the_analytic_kl_needs_a_guide_over_every_latent() -> None:
    case = cases()["mixture"]
    with pytest.raises(CapabilityError, match="leaves out 'z'; use elbo='enum'"):
        fit(zoo.adopt(case.model, case.guide), case.data, "svi", elbo="mean_field", steps=2)
