"""Completions against enumeration, and the density of what was hidden."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inference.evaluation import log_likelihood
from inference.evaluation.queries.completion import completion_probabilities, hidden_log_likelihood, inpaint
from tests.conftest import FAILURE_RATE
from tests.inference.evaluation.queries.programs import Linear, Two
from tests.zoo.test_chains import all_states, chi_square, randomise
from zoo import catalogue
from zoo.autoregressive.base import Autoregressive
from zoo.chains.chow_liu import ChowLiuTree
from zoo.errors import CapabilityError, OptionError, ShapeError
from zoo.latent.cvae import RestoringVAE
from zoo.latent.vae import VAE
from zoo.mixtures.bernoulli import BernoulliMixture


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
    with pytest.raises(CapabilityError, match="GAN cannot inpaint: it was not made to restore images"):
        inpaint(catalogue.create("gan"), torch.zeros(1, 8, 8), torch.zeros(8, 8).bool())
    with pytest.raises(ShapeError, match="booleans of shape"):
        inpaint(program, x, torch.zeros(6))
    with pytest.raises(OptionError, match="'guess'"):
        inpaint(program, x, scattered, how="guess")
    with pytest.raises(OptionError, match="draws"):
        inpaint(program, x, scattered, draws=0)


def test_regions_may_differ_from_row_to_row():
    program = Linear([6])
    x, known = (torch.rand(3, 6) < 0.5).double(), torch.rand(3, 6) < 0.5
    found = inpaint(program, x, known, draws=50, how="enumerate", seed=1)
    assert torch.equal(found.values[:, known], x[known].expand(50, -1))
    for row in range(3):
        probabilities = completion_probabilities(program, x[row : row + 1], known[row])
        states, shares = probabilities[0], probabilities[1][0].exp()
        mean = inpaint(program, x[row : row + 1], known[row : row + 1], draws=4000).mean[0, ~known[row]]
        assert ((mean - shares @ states).abs() < 6 * 0.5 / 4000**0.5).all()
    for wrong in (known[:2], known[:, :5], known.double()):
        with pytest.raises(ShapeError, match="known"):
            inpaint(program, x, wrong)
    with pytest.raises(ShapeError, match="same for all rows"):
        completion_probabilities(program, x, known)


def test_the_density_of_what_was_hidden():
    program = randomise(BernoulliMixture([2, 3], 3))
    x, known = (torch.rand(2, 2, 3) < 0.5).double(), torch.tensor([[1, 0, 0], [1, 0, 1]]).bool()
    found = hidden_log_likelihood(program, x, known)
    assert (found.how, found.bound, found.monte_carlo_error) == ("exact", False, None)
    states, log_probs = completion_probabilities(program, x, known)
    for row in range(2):
        mine = (states == x[row][~known]).all(-1)
        torch.testing.assert_close(found.values[row], log_probs[row][mine].squeeze())
    nothing = hidden_log_likelihood(program, x, torch.zeros(2, 3).bool())
    torch.testing.assert_close(nothing.values, program.log_prob(x).detach())
    restorer = RestoringVAE([2, 4], latent_dim=2, hidden=[4])
    bits = (torch.rand(3, 2, 4) < 0.5).double()
    mine = hidden_log_likelihood(restorer, bits, restorer.task.where, particles=5)
    torch.testing.assert_close(mine.values, log_likelihood(restorer, bits, particles=5).values)
    sampled = hidden_log_likelihood(VAE([2, 3], 1, hidden=[3]), x, known, particles=10)
    assert sampled.how == "IWAE-10 less IWAE-10, no bound"
    assert sampled.monte_carlo_error is not None
    with pytest.raises(CapabilityError, match="takes no missing values"):
        hidden_log_likelihood(Linear([6]), x.flatten(1), known.flatten())
