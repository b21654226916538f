"""Plain Pyro code, adopted: the same sites, parameters and numbers as under Pyro itself."""

from __future__ import annotations

from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroSample

import zoo
from inference import Fit, fit
from tests.zoo.plain_pyro import cases, mixture, subsampled, subsampled_guide
from zoo.errors import (
    BrokenProgramError,
    CapabilityError,
    CheckpointError,
    EmptyDataError,
    NonFiniteError,
    OptionError,
    ShapeError,
    SupportError,
    UnknownNameError,
)


class Slope(PyroModule):
    def __init__(self):
        super().__init__()
        self.inner = PyroModule()
        self.inner.weight = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self, x, y=None):
        with pyro.plate("rows", len(x)):
            return pyro.sample("y", dist.Normal(self.inner.weight * x, 1.0), obs=y)


def test_the_sites_and_parameters_of_pyros_modules_keep_their_names():
    model = Slope()
    program = zoo.adopt(model, AutoNormal(model))
    data = program.take({"x": torch.ones(3), "y": torch.ones(3)})
    program.declare(*data)
    assert list(program.sites()) == ["inner.weight"]
    params = poutine.trace(program.guide, param_only=True).get_trace(*data, None)
    assert list(params.nodes) == ["AutoNormal.locs.inner.weight", "AutoNormal.scales.inner.weight"]


def test_an_argument_may_be_called_model():
    def conditioned(model, y):
        return poutine.condition(model, data={"y": y})()

    def model():
        return pyro.sample("y", dist.Normal(0.0, 1.0))

    program = zoo.adopt(conditioned, model=model)
    data = program.take(torch.tensor(2.0))
    trace = poutine.trace(program.model).get_trace(*data, None)
    assert float(trace.log_prob_sum()) == float(dist.Normal(0.0, 1.0).log_prob(torch.tensor(2.0)))


# Programs that share names, and what stays behind.


def point(x):
    loc = pyro.param("loc", torch.zeros(()))
    pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def test_two_programs_of_the_same_code_have_their_own_parameters():
    first, second = zoo.adopt(point), zoo.adopt(point)
    for program, x in ((first, 3.0), (second, -3.0)):
        fit(program, torch.tensor(x), "svi", steps=300, lr=0.1)
    found = [dict(program.named_parameters())["pyro_params.loc"].item() for program in (first, second)]
    assert found == pytest.approx([3.0, -3.0], abs=0.02)
    assert not list(pyro.get_param_store().keys())


def test_what_pyro_has_in_its_store_is_neither_read_nor_changed():
    pyro.param("loc", torch.tensor(50.0))
    try:
        program = zoo.adopt(point)
        program.declare(*program.take(torch.tensor(1.0)))
        assert dict(program.named_parameters())["pyro_params.loc"].item() == 0.0
        assert pyro.param("loc").item() == 50.0
    finally:
        pyro.clear_param_store()


@pytest.mark.parametrize("name", list(cases()))
def test_a_fit_comes_back_from_its_folder(name: str, tmp_path: Path):
    case = cases()[name]
    found = fit(zoo.adopt(case.model, case.guide, **case.static), case.data, "svi", steps=3, out=tmp_path / "fit")
    again = Fit.load(tmp_path / "fit", program=zoo.adopt(case.model, case.guide, **case.static))
    ours, theirs = found.draw(4, case.data, seed=1), again.draw(4, case.data, seed=1)
    assert set(ours) == set(theirs) == set(found.program.sites()) & set(ours)
    assert ours
    assert all(torch.equal(ours[site], theirs[site]) for site in ours)


def around(y: torch.Tensor) -> None:
    loc = pyro.param("q_loc", torch.tensor(0.0))
    pyro.sample("z", dist.Normal(loc, 1.0))


def far(y: torch.Tensor) -> None:
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def test_a_folder_says_how_its_functions_are_given(tmp_path: Path):
    for name, functions in (("far", (far,)), ("far, around", (far, around))):
        folder = tmp_path / name
        fit(zoo.adopt(*functions), torch.tensor(1.0), "svi", steps=3, out=folder)
        with pytest.raises(CheckpointError, match=rf"program=zoo\.adopt\({name}\)"):
            Fit.load(folder)
        with pytest.raises(OptionError, match=r"zoo\.adopt\(model, guide\); got <function far"):
            Fit.load(folder, program=far)  # type: ignore[arg-type]
        assert Fit.load(folder, program=zoo.adopt(*functions)).draw(2, torch.tensor(1.0))["z"].shape[0] == 2


def test_sites_have_their_plates_as_dimensions_of_the_event():
    case = cases()["nested"]
    program = zoo.adopt(case.model, case.guide, **case.static)
    program.take(case.data)
    sites = program.sites()
    assert {name: tuple(site.event_shape) for name, site in sites.items()} == {"mu": (), "theta": (2, 1), "b": (2, 5)}
    assert {name: site.plates for name, site in sites.items()} == {"mu": 0, "theta": 2, "b": 2}
    assert all(site.is_global for site in sites.values())


def test_code_under_pyros_decorators_keeps_its_name():
    assert type(zoo.adopt(mixture)).__name__ == "mixture"


def test_tensors_keep_their_dtype_until_the_program_has_one():
    network = torch.nn.Linear(2, 1).double()

    def regression(x, y):
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(network(x).squeeze(-1), 1.0), obs=y)

    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        data = zoo.adopt(regression).take((torch.ones(3, 2, dtype=torch.float64), torch.ones(3)))
        assert [value.dtype for value in data.context.values()] == [torch.float64, torch.float32]
        lists = zoo.adopt(point).take([0.5])
        assert lists.context["x"].dtype == torch.float32
    finally:
        torch.set_default_dtype(default)


# What cannot be.


def sums(x):
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Poisson((a + b).exp()), obs=x)


def guides(**shapes):
    def guide(x):
        for name, shape in shapes.items():
            loc = pyro.param(f"{name}_loc", torch.zeros(shape))
            pyro.sample(name, dist.Normal(loc, 1.0).to_event(len(shape)))

    return guide


def twice(x):
    pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)
    pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


def blind(x):
    pyro.deterministic("twice", 2 * pyro.sample("a", dist.Normal(x, 1.0)))


@pytest.mark.parametrize(
    ("model", "guide", "data", "error", "says"),
    [
        (blind, None, torch.tensor(1.0), CapabilityError, "blind observes nothing on these data"),
        (twice, None, torch.tensor(1.0), BrokenProgramError, "twice fails on these data .* sites named 'x'"),
        (sums, guides(a=()), torch.tensor(1.0), CapabilityError, "does not sample the latent sites \\['b'\\]"),
        (sums, guides(a=(), b=(), c=()), torch.tensor(1.0), CapabilityError, "'c', which is no latent .* \\(a, b\\)"),
        (sums, guides(a=(), b=(), x=()), torch.tensor(1.0), CapabilityError, "'x', which is no latent"),
        (sums, guides(a=(3,), b=()), torch.tensor(1.0), ShapeError, "'a' with event_shape \\(3,\\), the model with"),
        (sums, lambda: None, torch.tensor(1.0), BrokenProgramError, "fails on these data .*: TypeError"),
        (sums, None, torch.tensor(-1.0), SupportError, "values at 'x' outside the support of Poisson, .*-1 to -1"),
        (sums, None, torch.tensor(float("nan")), NonFiniteError, "argument 'x'"),
        (sums, None, torch.zeros(0), EmptyDataError, "argument 'x' is empty"),
        (sums, None, {}, OptionError, "^sums needs the argument x: .*zoo.adopt\\(..., x=...\\).$"),
        (sums, None, {"y": torch.ones(2)}, UnknownNameError, "Unknown argument of sums 'y'. Known: x."),
        (sums, None, {"x": 3}, OptionError, "argument 'x' is 3, and data are tensors or arrays"),
    ],
)
def test_what_cannot_be_fitted_says_why(model, guide, data, error, says):
    with pytest.raises(error, match=says):
        fit(zoo.adopt(model, guide), data, "svi", steps=2)


@pytest.mark.parametrize(
    ("code", "options", "error", "says"),
    [
        (dist.Normal, {}, OptionError, "must be a function, a module or a method"),
        (sums, {"rate": 2}, UnknownNameError, "argument of sums 'rate'"),
        (lambda *values: None, {}, OptionError, "takes \\*arguments"),
    ],
)
def test_what_cannot_be_adopted_says_why(code, options, error, says):
    with pytest.raises(error, match=says):
        zoo.adopt(code, **options)


def test_a_plate_that_draws_a_subsample_is_for_bounds_that_average_over_it():
    data = {"x": torch.linspace(-1, 1, 7)}
    assert fit(zoo.adopt(subsampled, subsampled_guide), data, "svi", steps=2).history.last("loss") > 0
    for method, options in (
        ("nuts", {"draws": 4, "warmup": 4, "chains": 1}),
        ("svi", {"elbo": "iwae", "particles": 2, "steps": 2}),
    ):
        with pytest.raises(CapabilityError, match="subsample"):
            fit(zoo.adopt(subsampled, subsampled_guide), data, method, **options)


def test_what_pyro_refuses_at_the_first_step_is_an_error_with_a_name():
    def loose(y):  # a batch that no plate declares and .to_event does not make an event
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(z.sum(), 1.0), obs=y)

    with pytest.raises(BrokenProgramError, match='Pyro refuses loose at the first step: at site "z", invalid log_prob'):
        fit(zoo.adopt(loose), torch.ones(2), "svi", steps=2)


def test_a_network_that_code_only_closes_over_is_not_trained_from_several_seeds():
    network = torch.nn.Linear(1, 1)

    def line(x, y):
        pyro.module("network", network)
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(network(x)[:, 0], 1.0), obs=y)

    data = (torch.ones(4, 1), torch.ones(4))
    with pytest.raises(CapabilityError, match=r"network of pyro.module\('network'\) is not the program's own"):
        fit(zoo.adopt(line), data, "svi", steps=2, num_restarts=2)
    assert fit(zoo.adopt(line), data, "svi", steps=2).history.last("loss") > 0


def test_other_data_lie_as_those_of_the_fit_did():
    def columns(x):
        with pyro.plate("rows", x.shape[-1]):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("inner", x.shape[0]):
                pyro.sample("y", dist.Normal(z, 1.0), obs=x)

    program = zoo.adopt(columns, examples="rows")
    assert program.take(torch.zeros(2, 5)).context["x"].shape == (5, 2)
    square = torch.arange(9.0).reshape(3, 3)  # whose first dimension has as many numbers
    again = program.take(square)
    assert torch.equal(again.context["x"], square.T)
    assert torch.equal(again.context.plain()["x"], square)


def test_data_that_one_program_took_are_met_by_another_of_the_same_code():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(torch.tensor(0.0), 1.0))
        pyro.sample("y", dist.Normal(mu[..., None], 1.0).to_event(1), obs=y)

    data = zoo.adopt(model).take({"y": torch.ones(3)})
    other = zoo.adopt(model)
    assert other.take(data).context is data.context
    assert list(other.sites()) == ["mu"]
    found = fit(zoo.adopt(model), data, "nuts", warmup=5, draws=4, chains=1, device="cpu")
    assert found.samples["mu"].shape == (4,)
