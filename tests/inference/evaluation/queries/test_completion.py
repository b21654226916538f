"""Queries of a fitted density against enumeration, ROC curves known by hand, and codes that give the images back."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from inference.evaluation.queries.anomalies import anomaly_scores, auroc, code_length
from inference.evaluation.queries.completion import completion_probabilities, inpaint
from inference.evaluation.queries.compression import OVERHEAD, decode, encode
from tests.conftest import FAILURE_RATE
from tests.zoo.test_chains import all_states, chi_square, randomise
from zoo import catalogue
from zoo.autoregressive.base import Autoregressive
from zoo.autoregressive.ensemble import OrderEnsemble
from zoo.bayes.coin import BetaBernoulli
from zoo.chains.chow_liu import ChowLiuTree
from zoo.chains.independent import Independent
from zoo.datasets import Data
from zoo.errors import CapabilityError, DatasetError, NonFiniteError, OptionError, ShapeError, SupportError

CODABLE = [
    name
    for name in catalogue.BUILTIN
    if issubclass(catalogue.get(name), Autoregressive) and catalogue.create(name).support.is_discrete
]


class Linear(Autoregressive):
    """What each site's likelihood wants is linear in the sites before it, in a shuffled order."""

    def __init__(self, event_shape: list[int], likelihood: str = "bernoulli", values: int = 5, classes: int = 0):
        options = {"levels": {"values": values}, "logistic-mixture": {"values": values, "components": 2}}
        super().__init__(event_shape, {"name": likelihood, **options.get(likelihood, {})})
        n = self.event_shape.numel()
        self.register_buffer("permutation", torch.randperm(n))
        place = torch.empty(n).index_put((self.permutation,), torch.arange(n).to(torch.empty(())))
        self.register_buffer("mask", (place[:, None] > place).to(place).unsqueeze(-1))
        self.weight = nn.Parameter(0.8 * torch.randn(n, n, self.likelihood.size))
        self.bias = nn.Parameter(torch.randn(n, self.likelihood.size))
        self.shift = nn.Parameter(torch.randn(classes, n, self.likelihood.size)) if classes else None

    @property
    def order(self) -> Tensor:
        return self.permutation

    def outputs(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        seen = self.likelihood.embed(x).reshape(len(x), -1)
        found = torch.einsum("bj,ijs->bis", seen, self.weight * self.mask) + self.bias
        if self.shift is not None and context is not None:
            found = found + self.shift[context.long()]
        return found.reshape(*x.shape, -1)


class Two(OrderEnsemble):
    """A mixture of two of them."""

    def __init__(self, event_shape: list[int]):
        super().__init__(event_shape, "bernoulli")
        self.each = nn.ModuleList([Linear(event_shape), Linear(event_shape)])
        self.register_buffer("permutations", torch.stack([p.permutation for p in self.each]))

    def outputs_of(self, x: Tensor, k: int | Tensor, context: Tensor | None = None) -> Tensor:
        return self.each[int(k)].outputs(x, context)


def prefix_mask(program: Autoregressive, known: int) -> Tensor:
    mask = torch.zeros(program.event_shape.numel(), dtype=torch.bool)
    mask[program.order[:known]] = True
    return mask.reshape(program.event_shape)


def p_value(program, x: Tensor, known: Tensor, drawn: Tensor) -> float:
    """Whether draws (S, B, *event_shape) follow the enumerated posterior: the least of the rows, corrected."""
    states, log_probs = completion_probabilities(program, x, known)
    hidden = ~known.flatten()
    place = 2 ** torch.arange(int(hidden.sum()) - 1, -1, -1)
    index = (drawn.flatten(2)[..., hidden].long() * place).sum(-1)
    rows = [chi_square(log_probs[b].exp(), torch.bincount(index[:, b], minlength=len(states))) for b in range(len(x))]
    return min(rows) * len(rows)


# Completions


def test_enumeration_is_bayes_rule_over_all_states():
    program = Linear([3, 4])
    states = all_states([3, 4])
    x, known = states[torch.tensor([5, 2000])], torch.rand(3, 4) < 0.5
    hidden = ~known
    found, log_probs = completion_probabilities(program, x, known)
    assert found.shape == (2 ** int(hidden.sum()), int(hidden.sum()))
    density = program.log_prob(states).detach().exp()
    for b in range(2):
        agrees = (states[:, known] == x[b, known]).all(-1)
        # States come in counting order, and so do those of their hidden sites.
        assert torch.equal(states[agrees][:, hidden], found)
        torch.testing.assert_close(log_probs[b].exp(), density[agrees] / density[agrees].sum())


@pytest.mark.parametrize("known", [0, 7, 11])
def test_a_prefix_is_completed_exactly(known):
    program = Linear([3, 4])
    x, mask = (torch.rand(2, 3, 4) < 0.5).double(), prefix_mask(program, known)
    found = inpaint(program, x, mask, draws=4000)
    assert (found.how, found.effective) == ("prefix", None)
    assert torch.equal(found.values[..., mask], x[:, mask].expand(4000, -1, -1))
    assert p_value(program, x, mask, found.values) > FAILURE_RATE
    assert torch.equal(inpaint(program, x, torch.ones(3, 4).bool()).values[0], x)


def test_any_few_bits_are_completed_exactly():
    program = Linear([3, 4])
    x, mask = (torch.rand(2, 3, 4) < 0.5).double(), ~prefix_mask(program, 5)
    found = inpaint(program, x, mask, draws=4000)
    assert (found.how, found.effective) == ("enumerate", None)
    assert torch.equal(found.values[..., mask], x[:, mask].expand(4000, -1, -1))
    assert p_value(program, x, mask, found.values) > FAILURE_RATE


@pytest.mark.parametrize("make", [Linear, Two])
def test_importance_resampling_comes_to_the_exact_answer(make):
    program = make([8])
    x, mask = (torch.rand(3, 8) < 0.5).double(), torch.tensor([0, 1, 1, 0, 1, 0, 1, 1]).bool()
    found = inpaint(program, x, mask, draws=1, how="importance", particles=40_000)
    assert found.how == "importance"
    assert (found.effective > 1000).all()
    assert torch.equal(found.values[..., mask], x[:, mask].expand(1, -1, -1))
    # Draws that are resampled from one set are not independent of it: one of each of many sets is.
    many = [inpaint(program, x, mask, how="importance", particles=400, seed=seed).values for seed in range(600)]
    assert p_value(program, x, mask, torch.cat(many)) > FAILURE_RATE


def test_without_known_sites_importance_draws_from_the_prior():
    program = Linear([6])
    found = inpaint(program, torch.zeros(1, 6), torch.zeros(6).bool(), how="importance", particles=50)
    assert found.effective.item() == pytest.approx(50)


def test_completions_given_a_context():
    program = Linear([6], classes=2)
    x, mask, context = torch.ones(2, 6), torch.arange(6) < 2, torch.tensor([0, 1])
    states, log_probs = completion_probabilities(program, x, mask, context)
    for way in ("enumerate", "importance"):
        drawn = inpaint(program, x, mask, context, draws=2000, how=way, particles=20_000).values
        index = (drawn[..., 2:].long() * torch.tensor([8, 4, 2, 1])).sum(-1)
        for b in range(2):
            share = torch.bincount(index[:, b], minlength=16) / 2000
            # Largest deviation of 2,000 draws: 0.06 is five standard errors of any share, resampling included.
            assert (share - log_probs[b].exp()).abs().max() < 0.06
    assert len(states) == 16


def test_mixtures_over_orders_complete_exactly_what_they_can():
    program = Two([6])
    x = (torch.rand(2, 6) < 0.5).double()
    assert inpaint(program, x, torch.zeros(6).bool()).how == "prefix"
    assert inpaint(program, x, prefix_mask(program.each[0], 3)).how == "enumerate"
    with program.member(1):
        assert inpaint(program, x, prefix_mask(program.each[1], 3)).how == "prefix"


def test_a_tree_is_conditioned_by_enumeration():
    program = randomise(ChowLiuTree([6]))
    x, mask = (torch.rand(2, 6) < 0.5).double(), torch.tensor([1, 0, 0, 1, 0, 1]).bool()
    found = inpaint(program, x, mask, draws=3000)
    assert found.how == "enumerate"
    assert p_value(program, x, mask, found.values) > FAILURE_RATE


def test_completions_of_levels():
    program = Linear([5], "levels", values=4)
    x, mask = torch.randint(4, (2, 5)) / 3, ~prefix_mask(program, 2)
    found = inpaint(program, x, mask, draws=3000, particles=30_000)
    assert found.how == "importance"
    program.check(found.values.flatten(0, 1))
    rows = all_states([2], 4) / 3
    for b in range(2):
        full = x[b].repeat(16, 1)
        full[:, ~mask] = rows
        exact = program.log_prob(full).detach().softmax(-1)
        index = (found.values[:, b][:, ~mask] * 3).round().long() @ torch.tensor([4, 1])
        share = torch.bincount(index, minlength=16) / 3000
        assert (share - exact).abs().max() < 0.06


def test_the_same_seed_gives_the_same_completions():
    program = Linear([6])
    x, mask = torch.zeros(2, 6), torch.arange(6) < 3
    for way in ("enumerate", "importance"):
        one, same, other = (inpaint(program, x, mask, draws=20, how=way, seed=s).values for s in (1, 1, 2))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


def test_what_cannot_be_completed_says_why():
    program, x = Linear([6]), torch.zeros(2, 6)
    scattered = prefix_mask(program, 6)
    scattered[program.order[0]] = False
    with pytest.raises(CapabilityError, match="do not come first in its order"):
        inpaint(program, x, scattered, how="prefix")
    with pytest.raises(CapabilityError, match="20 hidden bits are too many"):
        inpaint(Linear([20]), torch.zeros(1, 20), torch.zeros(20).bool(), how="enumerate")
    with pytest.raises(CapabilityError, match="cannot be conditioned: it is not autoregressive"):
        inpaint(catalogue.create("ppca"), torch.zeros(1, 8, 8), torch.zeros(8, 8).bool())
    with pytest.raises(ShapeError, match="booleans of shape"):
        inpaint(program, x, torch.zeros(6))
    with pytest.raises(OptionError, match="'guess'"):
        inpaint(program, x, scattered, how="guess")
    with pytest.raises(OptionError, match="draws"):
        inpaint(program, x, scattered, draws=0)


# Anomalies


def test_scores_are_bits_per_dimension():
    program = Linear([3, 4])
    x = (torch.rand(5, 3, 4) < 0.5).double()
    torch.testing.assert_close(anomaly_scores(program, x), -program.log_prob(x).detach() / 12 / math.log(2))
    fair = Independent([12])
    torch.testing.assert_close(anomaly_scores(fair, x.reshape(5, 12)), torch.ones(5))
    with pytest.raises(CapabilityError, match="global latents"):
        anomaly_scores(BetaBernoulli(), torch.ones(4))


def test_auroc_by_hand():
    assert auroc(torch.tensor([0.0, 1.0]), torch.tensor([2.0, torch.inf])) == 1.0
    assert auroc(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])) == 0.0
    assert auroc(torch.zeros(5), torch.zeros(3)) == 0.5
    # Pairs (normal, anomalous) in the right order: 1<2, 1<4, 3<4; a tie 2=2 is half; 3>2 is none.
    assert auroc(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0])) == pytest.approx((2 + 1.5 + 1) / 6)
    with pytest.raises(NonFiniteError):
        auroc(torch.tensor([torch.nan]), torch.zeros(1))
    with pytest.raises(ShapeError):
        auroc(torch.zeros(0), torch.zeros(1))


def test_anomalies_of_a_known_kind_are_found_as_often_as_theory_says():
    # Bits of probability 0.8 against fair ones: the score is linear in the number of ones, a binomial variable.
    n, rows = 20, 4000
    program = Independent([n])
    with torch.no_grad():
        program.logits.copy_(torch.tensor([0.2, 0.8]).log())
    normal, odd = ((torch.rand(rows, n) < p).double() for p in (0.8, 0.5))
    k = torch.arange(n + 1)
    p, q = (torch.as_tensor(stats.binom(n, share).pmf(k.numpy())) for share in (0.8, 0.5))
    exact = (p[:, None] * q * ((k < k[:, None]).double() + 0.5 * (k == k[:, None]))).sum()
    found = auroc(anomaly_scores(program, normal), anomaly_scores(program, odd))
    # A rank statistic of 4,000 against 4,000 has a standard error of at most 0.5 / sqrt(4000) = 0.008; five of them.
    assert found == pytest.approx(exact.item(), abs=0.04)


# Codes


def cases() -> list[Autoregressive]:
    return [
        Linear([3, 4]),
        Linear([2, 3], "levels", values=7),
        Linear([2, 2, 2], "levels", values=256),
        Linear([3, 3], "logistic-mixture", values=16),
    ]


def test_an_ideal_code_is_as_long_as_the_density_says():
    program = Linear([12])
    lengths = code_length(program, Data(all_states([12])))
    # Kraft: equality, since no probability is lost.
    assert (2.0**-lengths).sum().item() == pytest.approx(1.0, abs=1e-10)
    with pytest.raises(CapabilityError, match="real numbers"):
        code_length(Linear([4], "gaussian-mixture"), Data(torch.randn(3, 4)))


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
