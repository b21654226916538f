"""Adopted code has the loss and the gradient that Pyro gives it, and leaves nothing in the store of Pyro."""

from __future__ import annotations

import pyro
import pytest
import torch
from pyro import infer, poutine
from torch import Tensor

import zoo
from inference.methods.bounds import make_objective
from tests.zoo.plain_pyro import Case, cases

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
