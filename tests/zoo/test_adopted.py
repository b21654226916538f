"""Plain Pyro code, adopted: the same sites, parameters and numbers as under Pyro itself."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroSample

import zoo


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
