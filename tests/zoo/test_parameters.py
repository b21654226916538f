"""`pyro.param` in models and guides: trained, saved, moved and isolated like any parameter of the program."""

from __future__ import annotations

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDelta
from torch import nn
from torch.distributions import constraints

from inference import fit
from inference.fitted import Fit
from tests.inference.steps import both, ready
from zoo import adopt, catalogue, errors
from zoo.datasets import Data
from zoo.program import Program
from zoo.testing import check_program


def value(module: nn.Module, name: str) -> float:
    return float(module.pyro_params.get(name).detach())


class Mean(Program):
    """mu ~ N(0, 1), x ~ N(mu, 1), all written with `pyro.param`."""

    event_shape = torch.Size([])

    def model(self, x=None, context=None, size=None):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    def guide(self, x=None, context=None, size=None):
        loc = pyro.param("q.loc", lambda: torch.randn(()))
        pyro.sample("mu", dist.Normal(loc, pyro.param("type", torch.tensor(1.0), constraint=constraints.positive)))


class Noisy(Mean):
    """Its noise is a statement of the model."""

    def model(self, x=None, context=None, size=None):
        noise = pyro.param("noise", torch.tensor(2.0), constraint=constraints.positive)
        mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Normal(mu, noise), obs=x)


def test_the_rules_hold_for_programs_of_statements():
    check_program(Mean())
    check_program(Noisy())


def test_a_fit_reaches_the_posterior_and_is_loaded_as_it_was(tmp_path):
    x = torch.randn(20) + 2.0
    found = fit(Mean(), x, "svi", steps=200, lr=0.1, particles=10, out=tmp_path / "fit")
    got = dict(found.program.named_parameters())
    assert set(got) == {"pyro_params.q.loc", "pyro_params.type"}
    # mu | x ~ N(sum x / 21, 1 / 21).
    assert value(found.program, "q.loc") == pytest.approx(float(x.sum() / 21), abs=0.05)
    assert value(found.program, "type") == pytest.approx(21**-0.5, rel=0.1)
    assert got["pyro_params.type"].exp() == value(found.program, "type")
    assert found.gradient_evaluations == 2000
    assert len(pyro.get_param_store()) == 0
    again = Fit.load(tmp_path / "fit", program=Mean)
    assert torch.equal(again.draw(5, x)["mu"], found.draw(5, x)["mu"])
    assert type(again.program.pyro_params.constraints["type"]) is type(constraints.positive)


def test_two_programs_and_a_copy_do_not_share():
    x = torch.randn(5)
    first, second = Mean(), Mean()
    first.declare(x)
    second.declare(x)
    third = copy.deepcopy(first)
    with torch.no_grad():
        first.pyro_params.get("type", torch.ones(())).unconstrained().fill_(3.0)
    assert value(second, "type") == value(third, "type") == 1.0
    assert first.double().pyro_params.get("type").dtype == torch.float64
    assert first.to("meta").pyro_params.get("type").device.type == "meta"


def test_the_first_run_leaves_the_random_state_and_what_networks_learn_by_running():
    class Normed(Mean):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(1)

        def guide(self, x=None, context=None, size=None):
            self.norm(x[:, None])
            super().guide(x, context, size)

    program, state = Normed(), torch.get_rng_state()
    program.declare(torch.randn(6, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(torch.get_rng_state(), state)
    assert int(program.norm.num_batches_tracked) == 0
    assert program.norm.training


def test_the_seed_of_a_fit_decides_where_statements_start():
    x = torch.randn(6)
    starts = [value(fit(Mean(), x, "svi", steps=1, lr=1e-12, seed=seed).program, "q.loc") for seed in (0, 0, 1)]
    assert starts[0] == starts[1] != starts[2]


def test_a_start_computed_from_data_sees_more_than_the_first_rows():
    class FromData(Mean):
        def guide(self, x=None, context=None, size=None):
            pyro.sample("mu", dist.Normal(pyro.param("start", lambda: x.mean()), 1.0))

    program, x = FromData(), torch.arange(10.0)
    program.declare(x)
    assert value(program, "start") == 4.5


def test_a_guide_given_as_code_is_trained_too():
    def guide(x=None, context=None, size=None):
        pyro.sample("mu", dist.Normal(pyro.param("loc", torch.zeros(())), 21**-0.5))

    x = torch.randn(20) + 2.0
    found = fit(Mean(), x, "svi", guide=guide, steps=200, lr=0.05)
    assert value(found.guide, "loc") == pytest.approx(float(x.sum() / 21), abs=0.01)
    assert len(pyro.get_param_store()) == 0


class Local(Program):
    """z ~ N(0, 1), x ~ N(z, 1) for each example; subclasses say where the guide has its means from."""

    event_shape = torch.Size([])

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def loc(self, x):
        raise NotImplementedError

    def guide(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            pyro.sample("z", dist.Normal(self.loc(x), 0.5**0.5))


@pytest.mark.parametrize(
    "initial", [lambda x: torch.zeros(9), lambda x: torch.zeros(len(x)), lambda x: x.clone()], ids=["N", "len", "data"]
)
@pytest.mark.parametrize("event_dim", [None, 0])
def test_a_value_for_each_example_is_refused(initial, event_dim):
    class Each(Local):
        def loc(self, x):
            return pyro.param("each", lambda: initial(x), event_dim=event_dim)

    program = Each()
    with pytest.raises(errors.CapabilityError, match="'each' has a value for each example"):
        fit(program, torch.randn(9), "svi", steps=2)
    assert not list(program.parameters())


def test_an_event_dim_that_no_plate_would_divide_is_taken():
    class Shared(Local):
        def loc(self, x):
            return pyro.param("a", torch.zeros(1), event_dim=0) * x

    found = fit(Shared(), torch.randn(40), "svi", steps=100, lr=0.05, batch_size=10)
    assert value(found.program, "a") == pytest.approx(0.5, abs=0.1)


def test_a_compiled_step_trains_statements():
    program, x = Noisy(), torch.randn(20) + 2.0
    program.declare(x)
    ours, theirs = both(ready(program, Data(x)))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b)


def test_a_network_told_by_pyro_module_stays_what_it_is():
    class Networked(Local):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(1, 1)

        def loc(self, x):
            pyro.module("net", self.net)
            return self.net(x[:, None])[:, 0]

    program = Networked()
    program.declare(torch.randn(4))
    assert set(dict(program.named_parameters())) == {"net.weight", "net.bias"}


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((torch.tensor(-1.0), constraints.positive), errors.SupportError, "'loc'.*start inside"),
        ((torch.tensor(float("nan")),), errors.SupportError, "'loc'.*start inside"),
        ((torch.tensor(0.0), constraints.nonnegative), errors.SupportError, "'loc'.*start inside"),
        ((torch.tensor(1),), errors.OptionError, "floating point"),
        ((torch.tensor(1.0), constraints.nonnegative_integer), errors.OptionError, "no map"),
        ((), errors.CapabilityError, "read before it has a value"),
    ],
)
def test_a_bad_start_is_refused(arguments, error, match):
    class Bad(Mean):
        def guide(self, x=None, context=None, size=None):
            pyro.sample("mu", dist.Normal(pyro.param("loc", *arguments), 1.0))

    with pytest.raises(error, match=match):
        fit(Bad(), torch.randn(4), "svi", steps=1)


def test_a_simplex_starts_from_any_positive_numbers_as_in_pyro():
    """Models draw them with torch.rand; what counts is their share."""

    class Weighted(Program):
        event_shape = torch.Size([])

        def model(self, x=None, context=None, size=None):
            weights = pyro.param("weights", torch.tensor([1.0, 2.0, 5.0]), constraint=constraints.simplex)
            with self.plate(x, context, size):
                return pyro.sample("x", dist.Categorical(weights), obs=x)

    program = Weighted()
    program.declare(torch.zeros(4, dtype=torch.long))
    assert program.pyro_params.get("weights").tolist() == pytest.approx([0.125, 0.25, 0.625])


def test_what_a_block_hides_from_handlers_is_the_programs_too():
    """The autoguide of a blocked model runs it where no handler outside sees its statements."""

    def model(x):
        noise = pyro.param("noise", lambda: torch.tensor(2.0), constraint=constraints.positive)
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(loc, noise), obs=x)

    program = adopt(model, AutoDelta(poutine.block(model, expose=["loc"])))
    with pyro.get_param_store().scope() as store:
        program.declare(*program.take(torch.randn(10)))
        trace = poutine.trace(program.model).get_trace(*program.met(), None)
    assert not store["params"]
    assert trace.nodes["noise"]["value"].unconstrained() is program.pyro_params._parameters["noise"]


def test_a_loaded_program_asks_for_the_constraint(tmp_path):
    program = Mean()
    program.declare(torch.randn(4))
    catalogue.save(program, tmp_path)
    again = catalogue.load(tmp_path, program=Mean)
    with pytest.raises(errors.CapabilityError, match="constraint"):
        again.pyro_params.get("type")


def test_svi_says_that_there_is_nothing_to_learn():
    class Fixed(Mean):
        def guide(self, x=None, context=None, size=None):
            pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))

    with pytest.raises(errors.CapabilityError, match="neither the program nor its guide has a parameter"):
        fit(Fixed(), torch.randn(4), "svi")
