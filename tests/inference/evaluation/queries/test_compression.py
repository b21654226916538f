"""Codes give the images back, bit for bit, and are as long as the density says."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch

from inference.evaluation.queries.anomalies import code_length
from inference.evaluation.queries.compression import OVERHEAD, decode, encode
from tests.inference.evaluation.queries.programs import Linear, Two
from zoo import catalogue
from zoo.autoregressive.base import Autoregressive
from zoo.autoregressive.ensemble import OrderEnsemble
from zoo.chains.independent import Independent
from zoo.datasets import Data
from zoo.errors import CapabilityError, DatasetError, OptionError, SupportError

CODABLE = [
    name
    for name in catalogue.BUILTIN
    if issubclass(catalogue.get(name), Autoregressive) and catalogue.create(name).support.is_discrete
]


def cases() -> list[Autoregressive]:
    return [
        Linear([3, 4]),
        Linear([2, 3], "levels", values=7),
        Linear([2, 2, 2], "levels", values=256),
        Linear([3, 3], "logistic-mixture", values=16),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_codes_give_the_examples_back_bit_for_bit(dtype):
    for program in cases():
        program = program.to(dtype)
        torch.set_default_dtype(dtype)
        x = program.generate(20)
        code = encode(program, x)
        torch.set_default_dtype(torch.float64)
        assert torch.equal(decode(program, code, 20), x)
        ideal = code_length(program, Data(x)).sum().item()
        # Every count is at least 1 of 2^24, which takes up to m 2^-24 from the others: less than 1e-3 bits in all.
        assert ideal - 0.1 < 8 * len(code) < ideal + OVERHEAD + 0.1


def test_a_model_that_knows_the_data_compresses_them():
    program = Linear([16])
    with torch.no_grad():
        program.bias.fill_(-4.0)
        program.weight.fill_(0.0)
    x = program.generate(200)
    entropy = 200 * 16 * torch.distributions.Bernoulli(logits=torch.tensor(-4.0)).entropy().item() / math.log(2)
    code = encode(program, x)
    assert torch.equal(decode(program, code, 200), x)
    # Bits of the message vary by sqrt(n p (1 - p)) * 4 / ln 2 = 44 about the entropy; five times that.
    assert 8 * len(code) == pytest.approx(entropy + OVERHEAD, abs=5 * 44)
    assert 8 * len(code) < 200 * 16 / 4


def test_values_that_the_model_calls_impossible_are_coded_too():
    program = Linear([4])
    with torch.no_grad():
        program.weight.fill_(0.0)
        program.bias.fill_(-200.0)
    x = torch.ones(3, 4)
    code = encode(program, x)
    assert torch.equal(decode(program, code, 3), x)
    assert 8 * len(code) == pytest.approx(3 * 4 * 24, abs=OVERHEAD)


def test_codes_with_a_context_and_of_a_member():
    program, context = Linear([6], classes=3), torch.tensor([0, 1, 2, 1])
    program.example_context = lambda n: torch.zeros(n)
    x = (torch.rand(4, 6) < 0.5).double()
    assert torch.equal(decode(program, encode(program, x, context.double()), 4, context.double()), x)
    mixture = Two([6])
    with pytest.raises(CapabilityError, match=r"program\.member"):
        encode(mixture, x)
    with mixture.member(1):
        assert torch.equal(decode(mixture, encode(mixture, x), 4), x)


def test_damaged_codes_are_refused():
    program = Linear([12])
    x = program.generate(30)
    code = encode(program, x)
    flipped = bytes([code[0], code[1] ^ 16, *code[2:]])
    for bad in (b"", code[:-4], code + b"\0\0\0\0", flipped):
        with pytest.raises(DatasetError, match="cannot be read"):
            decode(program, bad, 30)
    with pytest.raises(DatasetError, match="another number"):
        decode(program, code, 29)
    with pytest.raises(OptionError, match="n must"):
        decode(program, code, 0)
    with pytest.raises(SupportError):
        encode(program, x + 0.5)
    with pytest.raises(CapabilityError, match="not autoregressive"):
        encode(Independent([12]), x)
    with pytest.raises(CapabilityError, match="only bits and levels"):
        encode(Linear([4], "gaussian-mixture"), torch.randn(3, 4))


@pytest.mark.parametrize("name", CODABLE)
def test_every_autoregressive_program_of_bits_or_levels_is_a_code(name):
    program = catalogue.create(name)
    context, single = program.example_context(3), contextlib.nullcontext()
    if isinstance(program, OrderEnsemble):
        single = program.member(0)
    with single:
        x = program.generate(3, context)
        code = encode(program, x, context)
        assert torch.equal(decode(program, code, 3, context), x)
        assert 8 * len(code) < code_length(program, Data(x, context)).sum().item() + OVERHEAD + 1
