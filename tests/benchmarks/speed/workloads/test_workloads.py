"""All contenders of a workload do the same work, in full batches so that no choice of rows differs."""

from __future__ import annotations

import math
from importlib import import_module
from importlib.util import find_spec

import pyro
import pytest
import torch

from benchmarks.speed.contender import (
    NUMPYRO,
    NUMPYRO_CALLS,
    PYRO,
    TORCH_EAGER,
    ZOO_COMPILED,
    ZOO_EAGER,
    Contender,
    Unavailable,
)
from benchmarks.speed.suite import WORKLOADS

SMALL = {
    "eight-schools": {},
    "logistic-10k": {"n": 200, "d": 7, "batch_size": 200},
    "mixture": {"n": 300, "d": 4, "k": 3, "batch_size": 300},
    "hmm-chorales": {"k": 4, "batch_size": 224},
    "vae-128": {"rows": 64, "batch_size": 64},
    "vae-conv": {"rows": 32, "batch_size": 32, "network": "conv"},
}


EXACT = ("mixture", "hmm-chorales")
"""Workloads without noise."""


@pytest.fixture
def float32():
    torch.set_default_dtype(torch.float32)
    yield
    pyro.clear_param_store()  # the contender that is plain Pyro keeps its parameters there


def build(name: str, **options):
    module = import_module(f"benchmarks.speed.workloads.{WORKLOADS[name].module}")
    try:
        job = module.work(**SMALL[name], **options)
    except Unavailable as error:
        pytest.skip(str(error))
    return {contender.name: contender for contender in module.contenders(job)}


def losses(contender: Contender, steps: int, same_noise: bool = True) -> list[float]:
    """Losses of single steps, the noise from torch's generator in a known state: the same in every step, or not."""
    advance, found = contender.prepare(), []
    for step in range(steps):
        torch.manual_seed(1 if same_noise else 1 + step)
        found.append(advance(1))
    return found


def test_every_workload_is_tested():
    assert {WORKLOADS[name].module for name in SMALL} == {w.module for w in WORKLOADS.values()}


@pytest.mark.parametrize("name", SMALL)
def test_ours_pyro_and_pytorch_train_alike_under_the_same_noise(name, float32):
    """The losses of five steps of training: equal losses, gradients, optimizers and parametrisations."""
    contenders = build(name)
    ours, theirs, by_hand = (losses(contenders[who], 5) for who in (ZOO_EAGER, PYRO, TORCH_EAGER))
    assert all(math.isfinite(loss) for loss in ours)
    assert abs(ours[-1] / ours[0] - 1) > 5e-3  # five steps lead somewhere
    # Sums of float32 in other orders; Adam's normalised steps carry what that does to small gradients.
    assert theirs == pytest.approx(ours, rel=2e-4)
    assert by_hand == pytest.approx(ours, rel=2e-4)


@pytest.mark.skipif(find_spec("numpyro") is None, reason="NumPyro is not installed (extra `peers`)")
@pytest.mark.parametrize("name", SMALL)
def test_numpyro_has_the_same_loss(name, float32):
    """At the starting point (with a learning rate of nearly nothing): to rounding, or within the Monte Carlo error."""
    contenders = build(name, lr=1e-12)
    by_hand, fused, calls = (contenders[who] for who in (TORCH_EAGER, NUMPYRO, NUMPYRO_CALLS))
    if name in EXACT:
        want = losses(by_hand, 1)[0]
        assert losses(fused, 1)[0] == pytest.approx(want, rel=1e-4)
        assert losses(calls, 1)[0] == pytest.approx(want, rel=1e-4)
        return
    draws = {"vae-conv": 20, "logistic-10k": 1000}.get(name, 200)
    want = torch.tensor(losses(by_hand, draws, same_noise=False)).double()
    # Both means have the spread of `want`; five standard errors fail once in a million.
    error = float(want.std()) * math.sqrt(2 / draws)
    assert error < 0.05 * abs(float(want.mean()))
    # XLA is slow at convolutions inside a loop on a CPU.
    theirs = calls if name == "vae-conv" else fused
    assert theirs.prepare()(draws) == pytest.approx(float(want.mean()), abs=5 * error)


@pytest.mark.slow
# torch's compiler warns of its own parts.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", SMALL)
def test_our_compiled_step_has_the_same_loss(name, float32):
    """As NumPyro's: at the starting point, to rounding or within the Monte Carlo error. Compiles for seconds each."""
    contenders = build(name, lr=1e-12)
    draws = 1 if name in EXACT else {"logistic-10k": 1000}.get(name, 200)
    want = torch.tensor(losses(contenders[ZOO_EAGER], draws, same_noise=False)).double()
    advance = contenders[ZOO_COMPILED].prepare()
    advance(2)  # the first step is Python's, the second compiles
    tolerance = {"rel": 1e-4} if name in EXACT else {"abs": 5 * float(want.std()) * math.sqrt(2 / draws)}
    assert advance(draws) == pytest.approx(float(want.mean()), **tolerance)


def test_missing_data_skip_a_workload(monkeypatch):
    from benchmarks.speed.workloads import chorales, vae

    monkeypatch.setattr(chorales.sources, "local", lambda file: None)
    with pytest.raises(Unavailable, match="ZOO_DATA"):
        chorales.work()
    assert vae.work(rows=256).facts["data"] == "random pixels"


def test_minibatches_are_rows_without_replacement():
    from benchmarks.speed.workloads import logistic

    job = logistic.work(n=100, d=2, batch_size=30)
    batch = job.batches()
    rows = torch.cat([batch().context for _ in range(3)])
    assert rows.shape == (90, 2)
    assert len(rows.unique(dim=0)) == 90
