"""Contrastive divergence against the exact gradient of the log-likelihood, on an RBM of 10 and 8 units."""

from __future__ import annotations

import copy

import pytest
import torch

from inference import fit
from inference.methods.cd import ContrastiveDivergence
from inference.training.compiled import CompileNotice
from zoo.energy.dbm import DBM
from zoo.energy.deep import DeepEnergy
from zoo.energy.rbm import RBM
from zoo.errors import CapabilityError, OptionError


@pytest.fixture
def rbm() -> RBM:
    """10 visible and 8 hidden units with strong weights: chains mix, but not in one sweep."""
    torch.manual_seed(0)
    program = RBM([10], 8, particles=2000)
    with torch.no_grad():
        program.weight.copy_(torch.randn(10, 8))
        program.bias.copy_(0.3 * torch.randn(10))
    return program


def data(n: int = 500) -> torch.Tensor:
    """Rows that the program is not yet right about."""
    torch.manual_seed(5)
    first = torch.bernoulli(torch.full((n, 1), 0.4))
    return torch.bernoulli((0.15 + 0.7 * first).expand(n, 10))


@torch.no_grad()
def nats(program: RBM, x: torch.Tensor) -> float:
    return float(program.log_partition() - program.unnormalised_log_prob(x).mean())


def gradient(program: RBM, method: ContrastiveDivergence, x: torch.Tensor) -> torch.Tensor:
    program = copy.deepcopy(program)
    method.loss(program, x)[0].backward()
    return torch.cat([p.grad.flatten() for p in program.parameters()])


def test_the_exact_gradient_is_that_of_the_sum(rbm):
    x = data()
    want = torch.autograd.grad(
        rbm.log_partition() - rbm.unnormalised_log_prob(x).mean(), [rbm.weight, rbm.bias, rbm.hidden_bias]
    )
    got = gradient(rbm, ContrastiveDivergence(chains="exact"), x)
    torch.testing.assert_close(got, torch.cat([g.flatten() for g in want]))


def estimates(rbm: RBM, x: torch.Tensor, n: int, **options) -> torch.Tensor:
    torch.manual_seed(1)
    method = ContrastiveDivergence(**options)
    return torch.stack([gradient(rbm, method, x) for _ in range(n)])


def test_chains_that_start_at_the_model_give_an_unbiased_gradient(rbm):
    """Persistent chains at exact draws: the mean of 100 estimates lies within 4.5 standard errors in each of 98
    coordinates (1 in 1,500 for one that is right)."""
    x = data()
    truth = gradient(rbm, ContrastiveDivergence(chains="exact"), x)
    torch.manual_seed(2)
    rbm.particles.copy_(rbm.draw_exactly(len(rbm.particles)))
    found = estimates(rbm, x, 100, chains="persistent", sweeps=1)
    # Every copy starts at the same particles: their own error does not average out.
    error = (found.var(0) * (1 / 100 + 1)).sqrt()
    assert bool(((found.mean(0) - truth).abs() < 4.5 * error).all())


def test_more_sweeps_from_the_data_are_less_biased(rbm):
    """CD-k's gradient is biased towards the data; the bias falls with k, and CD-50 is near the truth."""
    x = data(1000)
    truth = gradient(rbm, ContrastiveDivergence(chains="exact"), x)
    bias = {k: float((estimates(rbm, x, 10, sweeps=k).mean(0) - truth).norm() / truth.norm()) for k in (1, 5, 50)}
    assert bias[1] > 1.5 * bias[5]
    assert bias[50] < 0.1 < bias[1]


@pytest.mark.parametrize("chains", ["data", "persistent", "replay", "exact"])
def test_every_kind_of_chains_makes_the_data_likelier(chains):
    x = data()
    program = RBM([10], 8, particles=500)
    program.initialise(x)
    before = nats(program, x)
    found = fit(program, x, "cd", chains=chains, sweeps=5, steps=400, lr=0.02, seed=1)
    after = nats(found.program, x)
    assert after < before - 0.5
    if chains == "exact":
        assert found.history.rows[-1]["loss"] == pytest.approx(after, abs=0.3)  # in nats, of minibatches


def test_a_killed_fit_goes_on_with_its_chains(tmp_path, monkeypatch):
    x, options = data(), {"chains": "persistent", "steps": 20, "checkpoint_seconds": 0.0, "seed": 3}
    whole = fit("rbm", x, "cd", out=tmp_path / "whole", **options)
    sweep, calls = RBM.sweep, []

    def killed(program: RBM, x: torch.Tensor, beta: float = 1.0) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return sweep(program, x, beta)

    monkeypatch.setattr(RBM, "sweep", killed)
    with pytest.raises(KeyboardInterrupt):
        fit("rbm", x, "cd", out=tmp_path / "part", **options)
    monkeypatch.setattr(RBM, "sweep", sweep)
    part = fit("rbm", x, "cd", out=tmp_path / "part", **options)
    assert torch.equal(whole.program.particles, part.program.particles)
    assert torch.equal(whole.program.weight, part.program.weight)


def test_energies_do_not_run_away_with_regularisation():
    torch.manual_seed(0)
    x = torch.randn(300, 2) * torch.tensor([1.0, 0.2])
    found = fit(
        DeepEnergy([2], hidden=[16], particles=200), x, "cd",
        chains="replay", sweeps=5, steps=100, regularise=0.1, lr=1e-3,
    )  # fmt: skip
    told = found.program.unnormalised_log_prob(x) - found.program.base().log_prob(x)
    assert float(told.detach().abs().max()) < 5


def test_what_it_refuses():
    with pytest.raises(CapabilityError, match=r"2\^25 states"):
        fit(RBM([30], 25), torch.zeros(4, 30), "cd", chains="exact", steps=1)
    with pytest.raises(CapabilityError, match="cannot be summed"):
        fit(DeepEnergy([2]), torch.zeros(4, 2), "cd", chains="exact", steps=1)
    with pytest.raises(OptionError):
        ContrastiveDivergence(chains="noise")


def test_validation_is_in_nats_where_the_sum_is_possible():
    x = data()
    found = fit("rbm", _dataset(x), "cd", steps=60, chains="persistent", patience=3)
    assert any("validation_loss" in row for row in found.history.rows)


def _dataset(x: torch.Tensor):
    from zoo.datasets import Dataset

    return Dataset.of(x[:400], x[400:450], x[450:])


def test_a_mean_field_that_stops_when_nothing_changes_is_not_traced(recwarn) -> None:
    """Without a notice, since nobody asked for it."""
    x = (torch.rand(40, 5) < 0.4).double()
    found = fit(DBM([5], [4, 3], particles=20), x, "cd", chains="persistent", steps=1000, batch_size=20)
    assert not [each for each in recwarn if issubclass(each.category, CompileNotice)]
    assert "compile_seconds" not in found.info
