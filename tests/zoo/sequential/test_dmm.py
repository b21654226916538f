"""The deep Markov model: linear it is the Kalman filter, padding counts nothing, and the guide looks ahead only."""

from __future__ import annotations

import pytest
import torch
from pyro import poutine
from torch import Tensor

from inference import fit
from inference.evaluation import elbo, log_likelihood
from inference.particles import guide_log_prob, log_joint, log_weights
from inference.training.compiled import CompileNotice
from zoo import datasets
from zoo.errors import OptionError, UnknownNameError
from zoo.sequential import neural_path
from zoo.sequential.dmm import CELLS, DMM, LEAST
from zoo.sequential.linear_gaussian import LinearGaussian
from zoo.testing import check_program

COMBINER = {"name": "combiner", "hidden": 4}
SMALL = {"event_shape": [4, 3], "latent_dim": 2, "hidden": 5, "emission": [6], "guide": COMBINER}


def dmm(**options) -> DMM:
    return DMM(**{**SMALL, **options})


def rows(program: DMM, n: int = 4) -> tuple[Tensor, Tensor | None]:
    context = program.example_context(n)
    return program.generate(n, context), context


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lengths": True},
        {"likelihood": "normal", "emission": []},
        {"likelihood": {"name": "categorical", "values": 3}, "lengths": True, "event_shape": [1, 3]},
        *({"lengths": True, "guide": {**COMBINER, "cell": cell, "flows": 1}} for cell in CELLS),
    ],
    ids=str,
)
def test_contract(options):
    check_program(dmm(**options))


@torch.no_grad()
def kalman_pair(padded: bool = False) -> tuple[DMM, LinearGaussian]:
    """A DMM whose networks are made linear, and the state space that it then is."""
    deep = dmm(emission=[], likelihood={"name": "normal", "scale": "pixel"}, lengths=padded).eval()
    move = deep.transition
    move.gate[-1].weight.zero_()
    move.gate[-1].bias.fill_(-1e9)  # the gate is shut: the mean is the linear one
    move.linear.weight.copy_(torch.randn(2, 2))
    move.linear.bias.zero_()
    move.scale.weight.zero_()
    deep.start.copy_(torch.randn(2))
    deep.likelihood.scale = torch.tensor([0.5, 0.7, 1.1])
    linear = LinearGaussian([4, 3], 2).eval()
    spread = (torch.nn.functional.softplus(move.scale.bias) + LEAST).diag()
    linear.start.copy_(move.linear.weight @ deep.start)
    linear.transition.copy_(move.linear.weight)
    linear.start_scale = linear.transition_scale = spread
    linear.loading.copy_(deep.emitter[-1].weight)
    linear.bias.copy_(deep.emitter[-1].bias)
    linear.scale = deep.likelihood.scale
    return deep, linear


def test_with_linear_networks_it_is_the_kalman_filter():
    """Under the exact posterior of the linear program every importance weight of the deep one is the evidence."""
    deep, linear = kalman_pair()
    x = deep.generate(5)
    weights = log_weights(deep, linear.posterior, 6, x)[1].local
    torch.testing.assert_close(weights, linear.log_prob(x).expand(6, -1))
    values = {"z": torch.randn(3, 5, 4, 2)}
    torch.testing.assert_close(log_joint(deep, values, x).local, log_joint(linear, values, x).local)


def test_linear_and_padded_it_is_the_kalman_filter_of_what_is_there():
    """To the linear program padded steps are missing; its posterior there is not standard normal, so we draw that."""
    deep, linear = kalman_pair(padded=True)
    x, context = rows(deep)
    absent = torch.arange(4) >= context[:, None]
    z = torch.randn(1, 4, 4, 2)
    gone = torch.where(absent[..., None], torch.nan, x)
    found = log_joint(deep, {"z": z}, x, context).local[0]
    for i, length in enumerate(context.long().tolist()):
        short = LinearGaussian([max(length, 2), 3], 2)
        short.load_state_dict({k: v for k, v in linear.state_dict().items() if "encoder_scale" not in k}, strict=False)
        expected = short.log_prob(gone[i : i + 1, : max(length, 2)])
        # log p(x, z) = log p(x) + log p(z | x) of the steps that are there, and the normal of those that are not.
        path = short.smoother(gone[i : i + 1, : max(length, 2)])
        if length >= 2:
            rest = torch.distributions.Normal(0.0, 1.0).log_prob(z[0, i, length:]).sum()
            torch.testing.assert_close(found[i], (expected + path.log_prob(z[0, i : i + 1, :length]))[0] + rest)


def weights(program: DMM, values: dict[str, Tensor], x: Tensor, context: Tensor | None = None) -> Tensor:
    """log p(x, z) - log q(z | x) at given paths."""
    return log_joint(program, values, x, context).local - guide_log_prob(program.guide, values, x, context).local


def test_padding_counts_nothing():
    """Neither its values nor its room: the bound is that of the program that has only the steps that are there."""
    program = dmm(lengths=True).eval()
    x, context = rows(program)
    values = {"z": torch.randn(2, 4, 4, 2)}
    bound = weights(program, values, x, context)
    padding = torch.arange(4) >= context[:, None]
    assert bool((x[padding] == 0).all())
    other = torch.where(padding[..., None], 1.0, x)
    torch.testing.assert_close(weights(program, values, other, context), bound)
    for i, length in enumerate(context.long().tolist()):
        short = dmm(event_shape=[length, 3]).eval()
        short.load_state_dict(program.state_dict())
        given, one = {"z": values["z"][:, i : i + 1, :length]}, x[i : i + 1, :length]
        torch.testing.assert_close(bound[:, i : i + 1], weights(short, given, one))


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_the_guide_sees_what_is_ahead_and_nothing_behind(cell):
    program = dmm(lengths=True, guide={**COMBINER, "cell": cell}).eval()
    x, context = torch.zeros(1, 4, 3), torch.tensor([3.0])
    for changed in range(4):
        other = x.clone()
        other[0, changed] = 1.0
        masked = [each * (torch.arange(4) < 3)[:, None] for each in (x, other)]
        before, after = (program.combiner(each, context).features[0, :3] for each in masked)
        differs = [bool((a != b).any()) for a, b in zip(before, after, strict=True)]
        assert differs == [changed < 3 and t <= changed for t in range(3)]


def test_missing_numbers_are_left_out():
    program = dmm().eval()
    x = program.generate(2)
    values = {"z": torch.randn(1, 2, 4, 2)}
    z = values["z"]
    logits = program.emitter(z).sigmoid()[0]
    each = torch.where(x == 1, logits, 1 - logits).log()
    holes = x.clone()
    holes[0, 1, 2] = torch.nan
    difference = log_joint(program, values, x).local - log_joint(program, values, holes).local
    torch.testing.assert_close(difference[0], torch.stack([each[0, 1, 2], torch.zeros(())]))


def test_the_first_emission_is_the_frequency_of_each_number():
    program = dmm(lengths=True)
    x, context = torch.zeros(4, 4, 3), torch.tensor([4.0, 3.0, 2.0, 1.0])
    x[:, 0, 0], x[:, 0, 1] = 1.0, torch.tensor([1.0, 0.0, 0.0, 0.0])
    program.initialise(x, context)
    expected = (torch.tensor([4.0, 1.0, 0.0]) + 0.5) / 11  # ten steps are there
    torch.testing.assert_close(program.emitter[-1].bias.sigmoid(), expected)


def test_bad_options_are_named():
    with pytest.raises(OptionError, match=r"shape \(T, D\)"):
        DMM([4])
    with pytest.raises(UnknownNameError, match="guide"):
        dmm(guide="mean-field")
    with pytest.raises(OptionError, match="cell"):
        dmm(guide={**COMBINER, "cell": "transformer"})


@pytest.mark.parametrize("flows", [0, 1])
def test_a_short_fit_finds_what_steps_have_in_common(flows):
    """Bits mostly on in half of the sequences and off in the others: 16.6 nats on their own, 8.5 together."""
    x = (torch.rand(300, 6, 4) < torch.where(torch.rand(300) < 0.5, 0.9, 0.1)[:, None, None]).double()
    program = dmm(event_shape=[6, 4], guide={**COMBINER, "flows": flows})
    found = fit(program, x[:200], "svi", steps=80, lr=0.03, batch_size=200, clip_norm=10.0, compile="never")
    assert elbo(program, found.guide, x[200:], 10).mean > -13


@pytest.mark.parametrize("flows", [0, 1])
def test_what_is_cut_after_the_longest_changes_nothing(flows, monkeypatch):
    """Of long paths the steps after the longest of a minibatch are not computed; padding is as random as before."""
    program = dmm(lengths=True, guide={**COMBINER, "flows": flows}).eval()
    x, context = rows(program)
    context = context.clamp(max=3.0)
    found = []
    for first in (neural_path.CUT_FROM, 0):
        monkeypatch.setattr(neural_path, "CUT_FROM", first)
        torch.manual_seed(3)
        with poutine.trace() as taken:
            program.guide(x, context)
        z = taken.trace.nodes["z"]
        taken.trace.compute_log_prob()
        bound = weights(program, {"z": z["value"].unsqueeze(0)}, x, context)
        found.append((z["value"], z["log_prob"], bound, torch.autograd.grad(bound.sum(), list(program.parameters()))))
    torch.testing.assert_close(found[1], found[0])


def test_short_padded_paths_are_traced_and_long_ones_say_that_they_are_not(monkeypatch):
    """How far a batch of long ones goes depends on its lengths."""
    program = dmm(lengths=True)
    x, context = rows(program, 8)
    assert "compile_seconds" in fit(program, (x, context), "svi", steps=4, compile="traced").info
    monkeypatch.setattr(neural_path, "CUT_FROM", 4)
    with pytest.warns(CompileNotice, match="goes on eagerly"):
        fit(program, (x, context), "svi", steps=4, compile="traced")


@pytest.mark.slow
def test_the_preset_reaches_its_criterion_on_chorales(zoo_data):
    """Per time step: below a hidden Markov model's exact value, and below 7.8 nats (independent keys have 11.06)."""
    torch.set_default_dtype(torch.float32)
    data = datasets.load("jsb")
    found = fit("dmm", data, preset="small")
    steps = data.test.context.sum()
    bound = elbo(found.program, found.guide, data.test, 8).values.sum() / steps
    chain = fit("hmm", data, preset="chorales")
    assert -bound < min(7.8, float(-chain.program.log_prob(*data.test).detach().sum() / steps) - 0.3)
    tighter = log_likelihood(found, data.test, particles=64, chunk=512).values.sum() / steps
    assert bound < tighter
