"""Contenders: the same minibatches for everyone, the same losses from the same seed, and who cannot take part."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from benchmarks.speed import contender
from benchmarks.speed.contender import (
    PYRO,
    TORCH_COMPILED,
    TORCH_EAGER,
    TORCH_WHOLE,
    ZOO_EAGER,
    ByHand,
    Turn,
    Work,
    numpyro_contenders,
    pyro_contender,
    torch_contenders,
    turn_contenders,
    zoo_contenders,
)
from tests.inference.toys import Mean
from zoo.datasets import Data


def test_minibatches_are_rows_without_replacement_and_the_same_for_everyone():
    work = Work(Data(torch.arange(10.0)), batch_size=4, lr=0.1, seed=3)
    batch, again, other = work.batches(), work.batches(), Work(work.data, 4, 0.1, seed=4).batches()
    epochs = [[batch().x for _ in range(2)] for _ in range(3)]
    for epoch in epochs:
        assert len(torch.cat(epoch).unique()) == 8  # no row twice; the two that are left wait for the next epoch
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))
    assert all(torch.equal(again().x, x) for epoch in epochs for x in epoch)
    assert not torch.equal(other().x, epochs[0][0])


def test_one_batch_is_all_the_data():
    work = Work(Data(torch.arange(4.0)), batch_size=4, lr=0.1)
    assert work.batches()() is work.data


def test_every_one_starts_afresh_and_climbs_the_same_bound():
    """mu ~ N(0, 1), x ~ N(mu, 1): ours, Pyro's and by hand, with the noise of one generator."""
    work = Work(Data(torch.tensor([1.0, 2.0, 0.5])), batch_size=3, lr=0.05, seed=1)

    def ours():
        return Mean(), {"elbo": "trace"}

    def theirs():
        program = Mean()

        def model(x: Tensor, context: Tensor | None) -> None:
            program.model(x)

        def guide(x: Tensor, context: Tensor | None) -> None:
            pyro.module("mean", program)
            program.guide(x)

        return model, guide, pyro.infer.Trace_ELBO()

    def by_hand():
        loc, log_scale = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor(-0.5))

        def loss(x: Tensor, context: Tensor | None) -> Tensor:
            q = dist.Normal(loc, log_scale.exp())
            mu = q.rsample()
            bound = dist.Normal(torch.tensor(0.0), 1.0).log_prob(mu) - q.log_prob(mu)
            return -(bound + dist.Normal(mu, 1.0).log_prob(x).sum()) / len(x)

        return [loc, log_scale], loss

    found = {}
    with pyro.settings.context(module_local_params=False):
        for each in (
            *zoo_contenders(ours, work),
            pyro_contender(theirs, work, 3, ""),
            *torch_contenders(by_hand, work),
        ):
            if each.name in (ZOO_EAGER, PYRO, TORCH_EAGER):
                found[each.name] = []
                for _ in range(2):  # afresh each time
                    advance = each.prepare()
                    losses = []
                    for step in range(4):
                        torch.manual_seed(step)
                        losses.append(advance(1))
                    found[each.name].append(losses)
    pyro.clear_param_store()
    for losses in found.values():
        assert losses[0] == losses[1]
        # Adam's 1e-8 beside the root of the second moment is added before or after the bias is corrected.
        assert losses[0] == pytest.approx(found[TORCH_EAGER][0], rel=1e-7)


def duel(counts: list[int]) -> ByHand:
    """a runs from b, b follows a; neither turn moves both."""
    a, b = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(-1.0))

    def apart(x: Tensor, context: Tensor | None) -> Tensor:
        counts.append(a.requires_grad + 2 * b.requires_grad)
        return -(a - b).square() * x.mean()

    return ByHand([Turn([a], apart, 0.1), Turn([b], lambda *given: -apart(*given), 0.2)], lambda: counts.append(0))


def test_turns_move_one_player_each_and_compile_what_their_names_say(monkeypatch):
    """Beside the same steps derived on paper: while slopes keep their signs, Adam's steps are nearly the rates."""
    compiled: list[str] = []
    monkeypatch.setattr(torch, "compile", lambda f, **options: compiled.append(f.__name__) or f)
    work, found = Work(Data(torch.ones(3)), batch_size=3, lr=1.0), {}
    slopes: list[int] = []
    for each in turn_contenders(lambda: duel(slopes), work):
        slopes.clear()
        compiled.clear()
        found[each.name] = each.prepare()(2)
        assert slopes == [1, 2, 0] * 2
        losses, others = ["apart", "<lambda>"], ["step", "step", "<lambda>"]
        assert compiled == {TORCH_EAGER: [], TORCH_COMPILED: losses, TORCH_WHOLE: losses + others}[each.name]
    # a: 0.5, 0.6, 0.7; b: -1, -0.8; the loss of a step is that of b's turn, after a's.
    assert found[TORCH_EAGER] == pytest.approx((1.6**2 + 1.5**2) / 2, rel=1e-2)
    assert found[TORCH_COMPILED] == found[TORCH_EAGER]
    assert found[TORCH_WHOLE] == pytest.approx(found[TORCH_EAGER], rel=1e-6)


def test_who_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(contender, "find_spec", lambda name: None)
    work = Work(Data(torch.zeros(3)), batch_size=3, lr=0.1)
    for each in numpyro_contenders(lambda: None, work, 3):
        assert each.absent == "NumPyro is not installed: pip install 'pyro-model-zoo[peers]'"
        assert each.imports == ()
