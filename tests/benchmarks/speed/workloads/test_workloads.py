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
from inference.games.gan import GANGame
from zoo.datasets import sources

SMALL = {
    "eight-schools": {},
    "logistic-10k": {"n": 200, "d": 7, "batch_size": 200},
    "mixture": {"n": 300, "d": 4, "k": 3, "batch_size": 300},
    "hmm-chorales": {"k": 4, "batch_size": 224},
    "vae-128": {"rows": 64, "batch_size": 64},
    "vae-conv": {"rows": 32, "batch_size": 32, "network": "conv"},
    "made": {"rows": 32, "batch_size": 32, "hidden": [16]},
    "gated-pixelcnn": {"network": "gated-pixelcnn", "rows": 8, "batch_size": 8, "features": 4, "layers": 3},
    "dcgan": {"rows": 16, "batch_size": 16, "channels": [8, 4]},
}


EXACT = ("mixture", "hmm-chorales", "made", "gated-pixelcnn")
"""Workloads without noise."""
WITHOUT_NUMPYRO = ("made", "gated-pixelcnn", "dcgan")
WITHOUT_PYRO = ("dcgan",)
STILL = {name: {"lr": 1e-12} for name in SMALL} | {"dcgan": {"lr": 1e-12, "critic_lr": 1e-12}}
"""Options with which nobody gets anywhere."""

WITH_NUMPYRO = pytest.mark.skipif(find_spec("numpyro") is None, reason="NumPyro is not installed (extra `peers`)")


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
    ours = losses(contenders[ZOO_EAGER], 5)
    assert all(math.isfinite(loss) for loss in ours)
    assert abs(ours[-1] / ours[0] - 1) > 5e-3  # five steps lead somewhere
    for who in (TORCH_EAGER,) if name in WITHOUT_PYRO else (PYRO, TORCH_EAGER):
        # Sums of float32 in other orders; Adam's normalised steps carry what that does to small gradients.
        assert losses(contenders[who], 5) == pytest.approx(ours, rel=2e-4)


def test_a_game_by_hand_leaves_the_weights_and_averages_that_ours_leaves(monkeypatch, float32):
    """Those of both players; the averages have the generator's running moments too."""
    from benchmarks.speed.workloads import gan

    kept, by_hand, prepare = [], gan.by_hand, GANGame.prepare

    def keep(found):
        kept.append(found)
        return found

    monkeypatch.setattr(gan, "by_hand", lambda job: keep(by_hand(job)))
    monkeypatch.setattr(GANGame, "prepare", lambda method, *given: keep(prepare(method, *given)))
    contenders = build("dcgan")
    for who in (ZOO_EAGER, TORCH_EAGER):
        losses(contenders[who], 5)
    ours, theirs = kept
    parts, (critic, generator) = ours.loop.parts, theirs.turns
    pairs = [
        *zip(critic.parameters, parts["critic"].parameters(), strict=True),
        *zip(generator.parameters, parts["program"].parameters(), strict=True),
        *zip(theirs.after.values, parts["average"].buffers(), strict=True),
    ]
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(theirs.after.values[0], generator.parameters[0], rtol=1e-2)


@WITH_NUMPYRO
@pytest.mark.parametrize("name", [name for name in SMALL if name not in WITHOUT_NUMPYRO])
def test_numpyro_has_the_same_loss(name, float32):
    """At the starting point (with a learning rate of nearly nothing): to rounding, or within the Monte Carlo error."""
    contenders = build(name, **STILL[name])
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


@WITH_NUMPYRO
def test_numpyros_eight_schools_have_the_density_of_ours(float32):
    """At points where every prior counts; of a loss with Monte Carlo error, a prior's mean is a small part."""
    from numpyro.infer.util import log_density

    from benchmarks.speed.workloads import eight_schools

    job = eight_schools.work()
    model = eight_schools.by_numpyro()[0]
    data = tuple(jax_array(part) for part in job.data)
    generator = torch.Generator().manual_seed(0)
    for scale in (0.5, 4.0):
        at = {"mu": scale * torch.randn((), generator=generator), "eta": scale * torch.randn(8, generator=generator)}
        at["tau"] = scale * torch.rand((), generator=generator)
        given = pyro.poutine.condition(eight_schools.EightSchools().model, at)
        want = pyro.poutine.trace(given).get_trace(*job.data).log_prob_sum()
        found, _ = log_density(model, data, {}, {name: jax_array(value) for name, value in at.items()})
        assert float(found) == pytest.approx(float(want), rel=1e-5)


@WITH_NUMPYRO
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_numpyros_networks_are_torchs(network, monkeypatch, float32):
    """With every weight moved away from where it starts: biases start at zero, and zero has no sign."""
    from benchmarks.speed.workloads import vae

    job = vae.work(rows=8, batch_size=8, network=network)
    program, options = vae.by_zoo(job)
    with torch.no_grad():
        for parameter in program.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    monkeypatch.setattr(vae, "by_zoo", lambda job: (program, options))
    made = vae._jax_conv if network == "conv" else vae._jax_mlp
    encode, down, decode, up = made(*vae.networks(job)[:2])
    z = torch.randn(8, vae.LATENT, generator=torch.Generator().manual_seed(1))
    x = job.data.x
    with torch.no_grad():
        codes = program.encoder(x[:, None] if network == "conv" else x.flatten(1))
        logits = program.decoder(z).reshape(8, 28, 28)
    torch.testing.assert_close(torch.tensor(encode(down, jax_array(x)).tolist()), codes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.tensor(decode(up, jax_array(z)).tolist()), logits, rtol=1e-4, atol=1e-4)


def jax_array(tensor: torch.Tensor | None):
    import jax.numpy as jnp

    return None if tensor is None else jnp.asarray(tensor.numpy())


@pytest.mark.slow
# torch's compiler warns of its own parts.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", SMALL)
def test_our_compiled_step_has_the_same_loss(name, float32):
    """As NumPyro's: at the starting point, to rounding or within the Monte Carlo error. Compiles for seconds each."""
    contenders = build(name, **STILL[name])
    draws = 1 if name in EXACT else {"logistic-10k": 1000}.get(name, 200)
    want = torch.tensor(losses(contenders[ZOO_EAGER], draws, same_noise=False)).double()
    advance = contenders[ZOO_COMPILED].prepare()
    advance(2)  # the first step is Python's, the second compiles
    tolerance = {"rel": 1e-4} if name in EXACT else {"abs": 5 * float(want.std()) * math.sqrt(2 / draws)}
    assert advance(draws) == pytest.approx(float(want.mean()), **tolerance)


def test_missing_data_skip_a_workload(monkeypatch):
    from benchmarks.speed.workloads import autoregressive, chorales, gan, vae

    monkeypatch.setattr(sources, "local", lambda file: None)
    for module in (autoregressive, chorales, gan):
        with pytest.raises(Unavailable, match="set ZOO_DATA"):
            module.work()
    job = vae.work(rows=256)
    assert job.facts["data"] == "random pixels"
    assert job.data.x.shape == (256, *vae.by_zoo(job)[0].event_shape)


def test_minibatches_are_rows_without_replacement():
    from benchmarks.speed.workloads import logistic

    job = logistic.work(n=100, d=2, batch_size=30)
    batch = job.batches()
    rows = torch.cat([batch().context for _ in range(3)])
    assert rows.shape == (90, 2)
    assert len(rows.unique(dim=0)) == 90
