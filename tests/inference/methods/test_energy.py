"""What methods of energies share: a fit says at its end how its chains mix."""

from __future__ import annotations

import pytest
import torch

from inference import fit
from inference.methods.energy import why_no_energy, why_not_of_examples
from inference.mixing import RHAT_LIMIT, Mixing
from zoo.energy.dbm import DBM
from zoo.energy.deep import DeepEnergy
from zoo.energy.rbm import RBM
from zoo.latent.ppca import PPCA

MIXED = Mixing(torch.randn(4, 50, 1), 1.0, 1)


def test_whom_they_take():
    assert why_no_energy(RBM()) is None
    assert why_no_energy(DBM()) is None
    assert "no energy-based model" in why_no_energy(PPCA([3], 1))
    assert "no energy-based model" in why_not_of_examples(PPCA([3], 1))
    assert why_not_of_examples(RBM()) is None
    assert "hidden states" in why_not_of_examples(DBM())


def test_a_fit_tells_whether_its_chains_mix():
    torch.manual_seed(0)
    x = torch.randn(200, 2)
    good = fit(DeepEnergy([2], step=0.8, particles=32), x, "nce", steps=5)
    assert good.info["mixing"]["rhat"] < RHAT_LIMIT
    assert 0.5 < good.info["mixing"]["moved"] < 1
    assert "warning" not in good.info
    assert "log_partition" in good.info
    bad = fit(DeepEnergy([2], step=1e-4, particles=32), x, "cd", steps=5)
    assert bad.info["mixing"]["rhat"] > RHAT_LIMIT
    assert "chains that start apart are not alike" in bad.info["warning"]
    assert bad.history.last("moved") > 0.9
    assert fit(RBM([3], 2), (x[:, :1] > 0).double().expand(-1, 3), "cd", steps=5).history.last("moved") > 0


class Counting(DeepEnergy):
    """Counts the rows whose density is differentiated."""

    rows = 0

    def tempered(self, x, beta):
        value = super().tempered(x, beta)
        if value.requires_grad:
            value.register_hook(self._count)
        return value

    def _count(self, gradient):
        type(self).rows += len(gradient)


@pytest.mark.parametrize(
    ("method", "options", "each"),
    [
        ("nce", {"ratio": 3}, 4),
        ("nce", {}, 2),
        ("cd", {"sweeps": 3}, 2 + 3 * 2),
        ("cd", {"chains": "persistent"}, 2 + 2),
    ],
)
def test_gradients_are_counted(method, options, each, monkeypatch):
    """Against those of every row, counted from outside; particles are as many as a minibatch.

    In Python: whether it pays to trace a step is found out by two steps that are undone.
    """
    x = torch.randn(32, 2)
    program = Counting([2], hidden=[4], particles=32)
    monkeypatch.setattr(Counting, "rows", 0)
    monkeypatch.setattr("inference.methods.energy.chain_mixing", lambda program, **_: MIXED)
    found = fit(program, x, method, steps=3, batch_size=32, compile="never", **options)
    assert found.gradient_evaluations == 3 * each == Counting.rows / 32


@pytest.mark.parametrize(("objective", "each"), [("denoising", 2), ("sliced", 3)])
def test_gradients_of_slopes_are_counted(objective, each, monkeypatch):
    """Against how often anything is differentiated."""
    calls, grad, backward = [], torch.autograd.grad, torch.Tensor.backward
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: (calls.append(0), grad(*a, **k))[1])
    monkeypatch.setattr(torch.Tensor, "backward", lambda *a, **k: (calls.append(0), backward(*a, **k))[1])
    monkeypatch.setattr("inference.methods.energy.chain_mixing", lambda program, **_: MIXED)
    program, options = DeepEnergy([2], hidden=[4]), {"objective": objective, "steps": 3, "compile": "never"}
    found = fit(program, torch.randn(32, 2), "score-matching", **options)
    assert found.gradient_evaluations == 3 * each == len(calls)
