"""The bounds that stay in tensors equal Pyro's own, value and gradient, at the same seed; and no value leaves them."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pyro.infer as infer
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from inference.guides.named import build_guide, guide_parameters, guide_spec
from inference.methods.bounds import TraceELBO, make_objective
from tests.inference.steps import SUMMED_OUT, bounds, small
from zoo import catalogue
from zoo.datasets import Data
from zoo.program import Program

KINDS = {"trace": infer.Trace_ELBO, "mean_field": infer.TraceMeanField_ELBO, "enum": infer.TraceEnum_ELBO}


def cases() -> list[tuple[str, str]]:
    """Every program with every bound of Pyro's that it supports."""
    found = []
    for name in catalogue.names():
        if not (supported := bounds(name)):
            continue
        found.append((name, "enum"))
        if name not in SUMMED_OUT:
            found.append((name, "trace"))
        if "mean_field" in supported:
            found.append((name, "mean_field"))
    return found


def compare(kind: str, program: Program, guide, batch: Data, size: int, particles: int, seed: int = 5) -> None:
    """Value and gradients of ours and of Pyro's, from the same random numbers."""
    parameters = list(program.parameters())
    if guide is not program.guide:
        parameters += guide_parameters(guide, program, batch)
    parameters = list(dict.fromkeys(parameters))

    def gradients(loss: torch.Tensor) -> list[torch.Tensor]:
        return torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)

    torch.manual_seed(seed)
    loss, bound = TraceELBO(KINDS[kind], particles)(program, guide, batch, size)
    ours = gradients(loss)
    model = infer.config_enumerate(program.model, "parallel") if kind == "enum" else program.model
    elbo = KINDS[kind](num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=1)
    torch.manual_seed(seed)
    theirs = elbo.differentiable_loss(model, guide, *batch, size) / size
    torch.manual_seed(seed)
    value = elbo.loss(model, guide, *batch, size) / size
    torch.testing.assert_close(-bound, torch.as_tensor(value), rtol=1e-10, atol=1e-10)
    wanted = gradients(theirs)
    assert any(bool(g.abs().max() > 0) for g in wanted)
    for a, b in zip(ours, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.filterwarnings("ignore:Found vars in model but not guide", "ignore:TraceEnum_ELBO found no sample sites")
@pytest.mark.parametrize(("name", "kind"), cases())
def test_values_and_gradients_are_those_of_pyro(name, kind):
    # So few states that Pyro can sum over all paths.
    options = {"event_shape": [3, 2], "states": 3} if (name, kind) == ("hmm", "enum") else {}
    program, batch = small(name, 12, **options)
    # Without latents there is nothing to draw several of, and Pyro refuses to.
    for particles in (1, 4) if program.sites() else (1,):
        # A minibatch of a larger set, so that scales matter.
        compare(kind, program, program.guide, batch, 40, particles)


@pytest.mark.parametrize(
    ("guide", "kind"),
    [
        ("normal", "trace"),
        ("normal", "mean_field"),
        ("multivariate_normal", "trace"),
        ("multivariate_normal", "mean_field"),
        ("delta", "trace"),
    ],
)
def test_autoguides_too(guide, kind):
    program, batch = small("eight-schools", 8)
    chosen = build_guide(guide_spec(guide), program, batch)
    compare(kind, program, chosen, batch, batch.size, 3)


class Switch(Program):
    """z ~ Bernoulli(p), w ~ N(0, 1), x | z, w ~ N(z m + w, 1): a discrete and a continuous latent."""

    event_shape = torch.Size([])

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(0.3))
        self.m = nn.Parameter(torch.tensor(2.0))
        self.q = nn.Parameter(torch.tensor(-0.4))
        self.scale = nn.Parameter(torch.tensor(0.5))

    def model(self, x=None, context=None, size=None):
        rate = pyro.sample("rate", dist.Gamma(self.p.new_tensor(2.0), 1.0))
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Bernoulli(self.p.sigmoid()))
            w = pyro.sample("w", dist.Normal(self.p.new_zeros(()), 1.0))
            return pyro.sample("x", dist.Normal(z * self.m + w, rate), obs=x)

    def guide(self, x=None, context=None, size=None):
        pyro.sample("rate", dist.Gamma(self.scale.exp(), 1.0).has_rsample_(False))
        with self.plate(x, context, size):
            pyro.sample("z", dist.Bernoulli((self.q * x).sigmoid()))
            pyro.sample("w", dist.Normal(self.q * x, self.scale.exp()))

    def enumerated_guide(self, x=None, context=None, size=None):
        pyro.sample("rate", dist.Gamma(self.scale.exp(), 1.0).has_rsample_(False))
        with self.plate(x, context, size):
            pyro.sample("z", dist.Bernoulli((self.q * x).sigmoid()), infer={"enumerate": "parallel"})
            pyro.sample("w", dist.Normal(self.q * x, self.scale.exp()))


@pytest.mark.parametrize("particles", [1, 5])
@pytest.mark.parametrize(
    ("kind", "guide"), [("trace", "guide"), ("enum", "enumerated_guide"), ("mean_field", "enumerated_guide")]
)
def test_score_function_terms_and_sums_over_discrete_sites(kind, guide, particles):
    """A local and a global site without reparameterisation, each with its own Rao-Blackwellised signal."""
    program = Switch()
    with pyro.validation_enabled(kind != "mean_field"):
        # Without the check, both give mean-field terms without a score term, alike.
        compare(kind, program, getattr(program, guide), Data(torch.randn(6)), 20, particles)


@pytest.mark.parametrize("name", ["banana", "two-modes", "ppca", "vae"])
def test_iwae_is_pyros_renyi_bound_for_one_example(name):
    """Of several, Pyro weighs the product and not each example (pyro#2220), so ours differs there."""
    program, batch = small(name, 1)
    parameters = [p for p in program.parameters() if p.requires_grad]
    torch.manual_seed(3)
    loss, bound = make_objective("iwae", 6)(program, program.guide, batch, 1)
    loss.backward()
    ours = [p.grad for p in parameters]
    program.zero_grad(set_to_none=True)

    def guide(*args):
        pyro.param("gives Pyro a reason to differentiate", torch.zeros(()))
        return program.guide(*args)

    torch.manual_seed(3)
    elbo = infer.RenyiELBO(alpha=0, num_particles=6, vectorize_particles=True, max_plate_nesting=1)
    value = elbo.loss_and_grads(program.model, guide, *batch, 1)
    pyro.clear_param_store()
    assert value == pytest.approx(-float(bound), rel=1e-10)
    for a, p in zip(ours, parameters, strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-9, atol=1e-10)


class NoValueLeaves(TorchDispatchMode):
    """Refuses what hands a number of a tensor to Python: `.item()`, `float()`, `if tensor:`."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            raise AssertionError(f"{func} was called")
        return func(*args, **(kwargs or {}))


def test_the_watch_sees_a_value_that_leaves():
    with NoValueLeaves(), pytest.raises(AssertionError, match="_local_scalar_dense"):
        bool(torch.ones(()) > 0)


@pytest.mark.filterwarnings("ignore:Found vars in model but not guide")
@pytest.mark.parametrize("name", [name for name in catalogue.names() if bounds(name)])
def test_no_value_leaves_its_tensor(name):
    program, batch = small(name)
    program.declare(*batch)  # as a fit does before its steps
    kinds = ["enum" if name in SUMMED_OUT else "trace", *bounds(name)[1:]]
    for kind in kinds:
        particles = {"iwae": 3, "score": 3}.get(kind, 1)
        objective = make_objective(kind, particles)
        with pyro.validation_enabled(False), NoValueLeaves():
            loss, bound = objective(program, program.guide, batch, batch.size)
            loss.backward()
        assert bool(torch.isfinite(bound)), kind


class Ruled(Program):
    """A class of three, one of which model and guide rule out for each example."""

    def __init__(self) -> None:
        super().__init__()
        self.loc, self.logits = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(3))

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            y = pyro.sample("y", dist.Categorical(torch.tensor([0.0, 0.4, 0.6])))
            return pyro.sample("x", dist.Normal(self.loc[y], 1.0), obs=x)

    def guide(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            ruled = torch.tensor([True, False, False])
            q = dist.Categorical(logits=self.logits.masked_fill(ruled, -torch.inf).expand(len(x), 3))
            pyro.sample("y", q, infer={"enumerate": "parallel"})


def test_what_a_guide_rules_out_is_left_out_as_by_pyro():
    program, batch = Ruled(), Data(torch.randn(5))
    with pyro.validation_enabled(False):
        compare("enum", program, program.guide, batch, 20, 1)
        compare("enum", program, program.guide, batch, 20, 3)
