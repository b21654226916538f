"""MADE and EoNADE: total mass, who sees whom under every mask and order, draws, completion, training's estimate."""

from __future__ import annotations

import itertools

import pytest
import scipy.stats as stats
import torch

from inference import fit
from tests.conftest import FAILURE_RATE
from tests.inference.steps import both, ready
from tests.zoo.densities import agrees, perturbed, states
from zoo.autoregressive.eonade import EoNADE
from zoo.autoregressive.made import MADE
from zoo.datasets import Data
from zoo.errors import CapabilityError, OptionError, ShapeError, UnknownNameError
from zoo.testing import check_program

LEVELS = {"likelihood": {"name": "levels", "values": 3}}
GAUSSIANS = {"likelihood": {"name": "gaussian-mixture", "components": 2}}
DEEP = {"hidden": [40, 30], "masks": {"count": 3, "shuffle": True, "aware": True}, "direct": True, "activation": "tanh"}

BINARY = {
    "one-mask": lambda: MADE([12], [20]),
    "one-mask-deep": lambda: MADE([3, 4], [20, 15, 10], direct=True),
    "masks": lambda: MADE([3, 4], [20, 15], masks={"count": 3, "aware": True}),
    "masks-and-orders": lambda: MADE([12], **DEEP),
    "eonade": lambda: EoNADE([12], [20], orders=3),
    "eonade-no-mask": lambda: EoNADE([3, 4], [20], orders=2, input_mask=False),
    "deep-nade": lambda: EoNADE([3, 4], [15, 10, 10], orders=2, activation="tanh"),
    "deep-nade-one-order": lambda: EoNADE([12], [15, 10], orders=1),
}
OTHERS = {
    "made-levels": lambda: MADE([2, 3], [20], masks={"count": 2, "shuffle": True}, direct=True, **LEVELS),
    "made-gaussian": lambda: MADE([5], [30, 20], masks={"count": 2, "aware": True}, **GAUSSIANS),
    "made-grid": lambda: MADE([4], [20], likelihood={"name": "logistic-mixture", "values": 8, "components": 2}),
    "eonade-scale-of-each": lambda: EoNADE([2, 3], [20], orders=2, likelihood={"name": "normal", "scale": "pixel"}),
    "eonade-levels": lambda: EoNADE([2, 3], [20, 10], orders=2, **LEVELS),
    "eonade-gaussian": lambda: EoNADE([5], [20], orders=2, **GAUSSIANS),
}
ALL = {**BINARY, **OTHERS}


@pytest.fixture(params=BINARY, name="binary")
def _binary(request):
    return perturbed(BINARY[request.param]())


@pytest.fixture(params=ALL, name="program")
def _program(request):
    # Unbounded draws through unbounded units soon leave the range of floating point.
    return perturbed(ALL[request.param](), 0.5 if request.param in BINARY else 0.1)


# Density.


def test_probabilities_of_all_states_sum_to_one(binary):
    every = states(binary.event_shape)
    torch.testing.assert_close(binary.log_prob(every).exp().sum(), torch.tensor(1.0), atol=1e-10, rtol=0)
    for k in range(binary.members):
        with binary.member(k):
            torch.testing.assert_close(binary.log_prob(every).exp().sum(), torch.tensor(1.0), atol=1e-10, rtol=0)


@pytest.mark.parametrize("cls", [MADE, EoNADE])
@pytest.mark.parametrize("values", [2, 4])
def test_levels_sum_to_one(cls, values):
    program = perturbed(cls([5], [20, 10], likelihood={"name": "levels", "values": values}))
    torch.testing.assert_close(program.log_prob(states(program.event_shape, values)).exp().sum(), torch.tensor(1.0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: MADE([2], [10], masks={"count": 3, "shuffle": True}, direct=True, **GAUSSIANS),
        lambda: EoNADE([2], [10, 5], orders=2, **GAUSSIANS),
    ],
    ids=["made", "eonade"],
)
def test_a_continuous_density_integrates_to_one(make):
    torch.manual_seed(3)
    program = perturbed(make(), 0.2)
    at = torch.linspace(-32, 32, 641)  # of 40 draws of the weights, one has a tail of 3e-6 beyond 16
    density = program.log_prob(torch.cartesian_prod(at, at)).exp().reshape(641, 641)
    torch.testing.assert_close(torch.trapezoid(torch.trapezoid(density, at), at), torch.tensor(1.0), atol=1e-4, rtol=0)


def test_the_density_is_the_mean_over_members_and_has_no_noise(program):
    x = program.generate(20)
    each = []
    for k in range(program.members):
        with program.member(k):
            each.append(program.log_prob(x))
    torch.testing.assert_close(program.log_prob(x).exp(), torch.stack(each).exp().mean(0))
    torch.testing.assert_close(program.log_prob(x), program.log_prob(x), atol=0, rtol=0)


# Causality.


def influence(program, k):
    """(D, D) in the order of member k: how much the conditional of the row's site changes with the column's site."""
    with program.member(k):
        order, x = program.order, program.generate(4)
        moved = (x + 0.1 * torch.rand_like(x)).requires_grad_()
        terms = program.conditionals(moved).log_prob(x).reshape(4, -1)
        rows = []
        for site in order.tolist():
            (gradient,) = torch.autograd.grad(terms[:, site].sum(), moved, retain_graph=True, allow_unused=True)
            rows.append(gradient.reshape(4, -1)[:, order].abs().sum(0))
        return torch.stack(rows)


def test_no_conditional_sees_its_own_or_later_sites(program):
    for k in range(program.members):
        assert influence(program, k).triu().count_nonzero() == 0


@pytest.mark.parametrize("name", ["masks-and-orders", "one-mask-deep", "eonade", "eonade-no-mask", "deep-nade"])
def test_every_earlier_site_is_seen(name):
    """With smooth units or a direct connection; a unit that is rectified away passes no gradient."""
    torch.manual_seed(2)
    program = perturbed(BINARY[name]())
    for k in range(program.members):
        found = influence(program, k)
        assert bool((found[torch.ones_like(found).tril(-1).bool()] > 0).all()), name


def test_with_units_of_all_degrees_nothing_is_blind_without_a_direct_connection():
    program = perturbed(MADE([6], [400, 400], masks={"count": 4, "shuffle": True}, activation="tanh"))
    for k in range(4):
        found = influence(program, k)
        assert bool((found[torch.ones_like(found).tril(-1).bool()] > 0).all())


def test_masks_follow_the_paper():
    program = MADE([10], [300, 200], masks=5)
    for k in range(5):
        rank, first, second = program.degrees(k)
        assert rank.tolist() == list(range(1, 11))
        assert set(first.tolist()) == set(range(1, 10))
        assert int(second.min()) >= int(first.min())
        assert int(second.max()) <= 9
    assert not torch.equal(program.degrees(0)[1], program.degrees(1)[1])
    narrow = MADE([50], [2, 300], masks=20)
    for k in range(20):
        _, first, second = narrow.degrees(k)
        assert int(second.min()) >= int(first.min())
    other = MADE([10], [300, 200], masks={"count": 5, "seed": 1})
    assert not torch.equal(program.degrees_0, other.degrees_0)
    assert torch.equal(program.degrees_0, MADE([10], [300, 200], masks=5).degrees_0)


def test_order_of_pixels_unless_shuffled():
    assert MADE([3, 2, 2], masks=2).order.tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    shuffled = MADE([12], masks={"count": 2, "shuffle": True})
    orders = []
    for k in range(2):
        with shuffled.member(k):
            orders.append(shuffled.order.tolist())
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(12))


# Draws.


def test_fast_completion_is_the_naive_one(program):
    sites = program.event_shape.numel()
    noise = torch.rand(8, sites, program.likelihood.noise)
    for k, known in itertools.product(range(program.members), (0, 1, sites // 2, sites)):
        with program.member(k):
            x = program.generate(8)
            kept = torch.zeros(sites, dtype=torch.bool)
            kept[program.order[:known]] = True
            start = (x.reshape(8, -1) * kept).reshape(x.shape)
            fast = program.continue_from(start, known, None, noise)
            torch.testing.assert_close(fast, program.continue_naively(start, known, None, noise))
            torch.testing.assert_close(fast.reshape(8, -1)[:, kept], x.reshape(8, -1)[:, kept], atol=0, rtol=0)


def count(x):
    """How often each state of bits (n, ...) occurs, in the order of `states`."""
    flat = x.reshape(len(x), -1)
    return torch.bincount(
        (flat @ 2 ** torch.arange(flat.shape[1] - 1, -1, -1).to(flat)).long(), minlength=2 ** flat.shape[1]
    )


SMALL = {
    "made": lambda: MADE([5], [20]),
    "made-mixture": lambda: MADE([5], [20, 10], masks={"count": 3, "shuffle": True, "aware": True}),
    "eonade": lambda: EoNADE([5], [20], orders=3),
    "deep-nade": lambda: EoNADE([5], [10, 10], orders=2),
}


@pytest.mark.parametrize("name", SMALL)
def test_draws_follow_the_density(name):
    program = perturbed(SMALL[name](), 1.0)
    counts = count(program.generate(20_000)).double()
    assert agrees(counts, program.log_prob(states(program.event_shape)).exp().detach())
    # The test would notice another program of the same kind.
    other = perturbed(SMALL[name](), 1.0)
    assert not agrees(counts, other.log_prob(states(other.event_shape)).exp().detach())


@pytest.mark.parametrize("options", [{}, {"masks": {"count": 4, "aware": True}}], ids=["one", "mixture"])
def test_completion_is_the_conditional_of_the_density(options):
    """A mixture over masks in one order: members are weighted by what they say of the known sites."""
    program = perturbed(MADE([5], [20], **options), 2.0)
    known = torch.tensor([1.0, 0.0, 1.0, torch.nan, torch.nan])  # what unknown sites hold does not matter
    counts = count(program.complete(known.expand(20_000, 5), 3)[:, 3:]).double()
    every = states(program.event_shape)
    fits = (every[:, :3] == known[:3]).all(1)
    assert agrees(counts, program.log_prob(every[fits]).exp().detach())


def test_a_mixture_over_orders_refuses_what_needs_one():
    for program in (MADE([5], masks={"count": 2, "shuffle": True}), EoNADE([5], orders=2)):
        x = program.generate(3)
        with pytest.raises(CapabilityError, match="member"):
            program.conditionals(x)
        with pytest.raises(CapabilityError, match="member"):
            _ = program.order
        with pytest.raises(CapabilityError, match="member"):
            program.complete(x, 2)
        torch.testing.assert_close(program.complete(x, 5), x, atol=0, rtol=0)
        with program.member(1):
            completed = program.complete(x, 2)
            first = program.order[:2]
        torch.testing.assert_close(completed[:, first], x[:, first], atol=0, rtol=0)
        with pytest.raises(ShapeError, match="between 0"):
            program.complete(x, 6)
        with pytest.raises(OptionError, match="between 0 and 1"), program.member(2):
            pass
        assert program.which is None


# Training.


def test_the_estimate_of_made_is_a_mean_over_masks():
    program = perturbed(MADE([6], [20], masks={"count": 4, "shuffle": True}))
    x = program.generate(5)
    each = torch.stack([program.site_log_probs(x, k).sum(-1) for k in range(4)])
    draws = torch.stack([program.training_log_prob(x) for _ in range(400)])
    nearest = (draws[:, None] - each).abs().sum(-1).argmin(1)
    torch.testing.assert_close(draws, each[nearest])
    assert stats.chisquare(torch.bincount(nearest, minlength=4).numpy()).pvalue > FAILURE_RATE
    assert bool((each.mean(0) <= program.log_prob(x)).all())


@pytest.mark.parametrize("hidden", [[20], [10, 10]])
def test_the_estimate_of_eonade_is_unbiased_for_the_mean_over_all_orders(hidden):
    program = perturbed(EoNADE([4], hidden, orders=1))
    x = program.generate(3)
    every = []
    for order in itertools.permutations(range(4)):
        program.permutations.copy_(torch.tensor([order]))
        every.append(program.log_prob(x))
    exact = torch.stack(every).mean(0).detach()
    with torch.no_grad():
        draws = program.training_log_prob(x.repeat(40_000, 1)).reshape(40_000, 3)
    error = (draws.mean(0) - exact).abs() / (draws.std(0) / 40_000**0.5)
    assert float(error.max()) < stats.norm.isf(FAILURE_RATE / 6)


def test_the_walk_of_eonade_is_the_masked_network():
    program = perturbed(EoNADE([6], [20, 10], orders=2))
    x = program.generate(7)
    for k in range(2):
        order = program.permutations[k]
        outputs = program.outputs_of(x, k)
        for i in range(6):
            known = torch.zeros(7, 6)
            known[:, order[:i]] = 1
            torch.testing.assert_close(outputs[:, order[i]], program.given(x, known)[:, order[i]])


@pytest.mark.parametrize("name", ["masks-and-orders", "deep-nade", "made-gaussian", "eonade-levels"])
def test_contract(name):
    check_program(ALL[name]())


@pytest.mark.parametrize(
    ("kind", "options"),
    [(MADE, {"hidden": [20], "masks": 3}), (MADE, {"hidden": [20, 10]}), (EoNADE, {"hidden": [20]})],
    ids=["masks", "made", "eonade"],
)
def test_training_finds_structure(kind, options):
    """Copies of two fair bits: 2 log 2 nats, where independent sites need 6 log 2."""
    program = kind([6], **options)
    x = torch.randint(0, 2, (400, 2)).double().repeat(1, 3)
    result = fit(program.double(), x, "svi", lr=1e-2, steps=600, batch_size=100, compile="never")
    nats = -float(result.program.eval().log_prob(x).mean().detach())
    assert nats < 2.0


def test_initialise_starts_the_outputs_at_the_frequencies():
    x = (torch.rand(500, 6) < torch.linspace(0.1, 0.9, 6)).double()
    for program in (MADE([6], masks=2), EoNADE([6])):
        with torch.no_grad():
            program.initialise(x)
            last = program.layers[-1] if isinstance(program, MADE) else program.last
            torch.testing.assert_close(last.bias, ((x.sum(0) + 0.5) / 501).logit())


def test_wrong_options_are_refused():
    for cls, number in ((MADE, "masks"), (EoNADE, "orders")):
        with pytest.raises(OptionError, match="hidden"):
            cls(hidden=[])
        with pytest.raises(OptionError, match="hidden"):
            cls(hidden=[10, 0])
        with pytest.raises(OptionError, match=number):
            cls(**{number: 0})
        cls(hidden=[1])  # the narrowest there is
        with pytest.raises(UnknownNameError, match="relu"):
            cls(activation="relo")
        with pytest.raises(UnknownNameError, match="bernoulli"):
            cls(likelihood="bernouli")


def test_options_of_masks_are_known_by_name():
    with pytest.raises(UnknownNameError, match="shuffle"):
        MADE(masks={"count": 2, "shufle": True})


def test_only_with_the_mask_is_a_zero_not_the_unknown():
    x, nothing, one = torch.zeros(1, 6), torch.zeros(1, 6), torch.eye(6)[:1]
    for input_mask in (True, False):
        program = perturbed(EoNADE([6], [20], input_mask=input_mask, activation="tanh"))
        assert torch.equal(program.given(x, nothing), program.given(x, one)) is not input_mask


def test_one_site():
    for program in (MADE([1], masks=2, direct=True), EoNADE([1])):
        total = perturbed(program).log_prob(torch.tensor([[0.0], [1.0]])).exp().sum()
        torch.testing.assert_close(total, torch.tensor(1.0))


@pytest.mark.parametrize("name", ["masks-and-orders", "deep-nade"])
def test_traced_steps_are_those_of_python(name):
    """Masks and orders drawn within a step are no constants of its trace."""
    program = ALL[name]()
    x = program.generate(40)
    for ours, theirs in zip(*both(ready(program, Data(x), batch_size=10)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


def test_one_mask_is_made_once_and_again_where_other_degrees_are_loaded():
    first, other = (MADE((3, 3), [8], masks={"count": 1, "shuffle": True, "seed": seed}) for seed in (0, 1))
    assert not torch.equal(first.mask_0, other.mask_0)
    assert not any(name.startswith("mask_") for name in first.state_dict())
    first.load_state_dict(other.state_dict())
    for i, mask in enumerate(other.masks_of(0)):
        torch.testing.assert_close(getattr(first, f"mask_{i}"), mask.to(first.mask_0), rtol=0, atol=0)
    x = torch.bernoulli(torch.full((5, 3, 3), 0.5))
    torch.testing.assert_close(first.log_prob(x), other.log_prob(x), rtol=0, atol=0)
