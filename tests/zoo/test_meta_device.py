"""On the device 'meta', which holds no values, a tensor that was made on the CPU by mistake is an error: no GPU needed.

Every program of the catalogue runs there, model and guide, forwards and backwards.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from pyro import poutine
from torch import Tensor

from inference.methods.bounds import make_objective
from tests.inference.steps import small
from tests.valueless import without_values
from zoo import catalogue
from zoo.datasets import Data
from zoo.program import Program

WITHOUT_KERNEL = {
    "bayesian-gaussian-mixture": "_sample_dirichlet",
    "coin": "_sample_dirichlet",
    "dirichlet-categorical": "_sample_dirichlet",
    "lda": "_sample_dirichlet",
    "normal": "_standard_gamma_grad",
}
"""Programs that draw by an operation of which torch knows no shapes without values."""
OTHERWISE = {
    "vq-vae": "its matrix products are kept from half precision by torch.autocast, which does not know the device",
}


@pytest.fixture(autouse=True)
def valueless() -> Iterator[None]:
    with without_values():
        yield


def on_meta(name: str) -> tuple[Program, Data]:
    program, data = small(name)
    return program.to("meta"), data.like([tensor.to("meta") for tensor in data.tensors()])


def outcome(program: Program, data: Data) -> Tensor:
    """A number that depends on all that the program computes."""
    if program.family == "implicit":
        made = poutine.trace(program.model).get_trace(None, data.context, size=12).nodes["_RETURN"]["value"]
        return (made if isinstance(made, Tensor) else made[0]).sum()
    if program.family == "energy":
        return program.unnormalised_log_prob(data.x).sum()
    guide = program.guide if program.has_guide else lambda *given, **named: None
    return make_objective("trace")(program, guide, data, 12)[0].sum()


@pytest.mark.parametrize("name", [name for name in catalogue.names() if name not in (*WITHOUT_KERNEL, *OTHERWISE)])
def test_nothing_is_made_on_another_device(name):
    program, data = on_meta(name)
    value = outcome(program, data)
    assert value.device.type == "meta"
    if value.requires_grad:
        value.backward()
    for which, parameter in program.named_parameters():
        assert parameter.grad is None or parameter.grad.device.type == "meta", which


@pytest.mark.parametrize(("name", "operation"), WITHOUT_KERNEL.items())
def test_what_has_no_kernel_there_is_still_so(name, operation):
    """When torch learns the operation, the program can leave the list."""
    with pytest.raises(NotImplementedError, match=operation):
        outcome(*on_meta(name)).backward()


def test_a_tensor_of_the_cpu_is_an_error():
    program, data = on_meta("ppca")
    plain = type(program).model

    class Mistaken(type(program)):
        def model(self, x=None, context=None, size=None):
            return plain(self, x + torch.zeros(len(x), *self.event_shape), context, size)

    program.__class__ = Mistaken
    with pytest.raises(RuntimeError, match="meta"):
        outcome(program, data)
