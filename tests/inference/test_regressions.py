"""Silent wrong answers that users of the field report, each named for where; none of them may happen here."""

from __future__ import annotations

import math
from pathlib import Path

import pyro
import pytest
import torch

from inference import fit
from inference.evaluation.estimates import elbo
from inference.evaluation.likelihood import log_likelihood
from inference.guides.named import build_guide
from inference.methods.bounds import TraceELBO, make_objective
from inference.particles import draw
from tests import processes
from tests.inference.toys import Mean, Rate, linear, posterior_moments
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, ShapeError

ROOT = Path(__file__).parents[2]
SIGMAS = 4.3


# pyro#2220, pyro#3289: a bound that sums the batch before its logsumexp is silently too low.


def test_pyro_2220_iwae_of_a_batch_is_the_sum_of_the_iwaes_of_its_examples():
    program = Rate()
    x = program.generate(30)
    together = log_likelihood(program, Data(x), how="iwae", particles=4000)
    alone = [log_likelihood(program, Data(row), how="iwae", particles=4000, seed=i) for i, row in enumerate(x.split(1))]
    error = math.hypot(float(together.monte_carlo_error.norm()), math.hypot(*(a.mean_error for a in alone)))
    assert abs(float(together.values.sum()) - sum(a.mean for a in alone)) < SIGMAS * error
    assert abs(float((together.values - program.evidence(x)).sum())) < SIGMAS * float(together.monte_carlo_error.norm())


def test_pyro_3289_training_bound_is_tighter_for_each_example_not_for_the_batch():
    program = Rate()
    data = Data(program.generate(60))
    with torch.no_grad():
        bounds = [make_objective("iwae", 400)(program, program.guide, data, data.size)[1] for _ in range(20)]
    bound, truth = float(torch.stack(bounds).mean()), float(program.evidence(data.x).mean())
    # Summed before the logsumexp, 400 particles would win less than log(400) / 60 = 0.1 nats back from the gap.
    gap = truth - elbo(program, None, data, 4000).mean
    assert gap > 0.03
    assert truth - bound < 0.1 * gap


# pyro#3468: an autoguide replaces the model's minibatch by its own, so that the two see different rows.


def test_pyro_3468_model_and_guide_see_the_same_rows():
    program = linear()
    x = program.generate(40)
    index = torch.randperm(40)[:8]
    seen = {}

    def spy(name, original):
        def call(x=None, context=None, size=None):
            seen[name] = (x, size)
            return original(x, context, size)

        return call

    model, guide = program.model, program.guide
    object.__setattr__(program, "model", spy("model", model))
    TraceELBO(pyro.infer.Trace_ELBO)(program, spy("guide", guide), Data(x[index]), 40)
    for name in ("model", "guide"):
        assert torch.equal(seen[name][0], x[index]), f"{name} saw other rows"
        assert seen[name][1] == 40


def test_pyro_3468_a_guide_with_a_factor_for_each_row_refuses_other_rows():
    program = linear()
    x = program.generate(200)
    with pytest.raises(CapabilityError, match="minibatches"):
        fit(program, x, "svi", guide="normal", steps=2, batch_size=50)
    guide = build_guide({"kind": "auto", "name": "normal"}, program, Data(x))
    with pytest.raises(ShapeError, match="200"):
        elbo(program, guide, Data(x[:50]), 2)


# pyro#3209: parameters of one fit leak into the next through the global store.


def fit_linear(seed: int = 0):
    torch.manual_seed(1)
    program = linear()
    x = program.generate(64)
    found = fit(program, x, "svi", steps=25, seed=seed, lr=0.05)
    return {name: value.clone() for name, value in found.program.state_dict().items()}


def fit_mean(guide: str):
    torch.manual_seed(2)
    program = Mean()
    found = fit(program, program.generate(20), "svi", guide=guide, steps=25, lr=0.05)
    module = found.guide if isinstance(found.guide, torch.nn.Module) else found.program
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_pyro_3209_two_fits_in_one_process_do_not_know_of_each_other():
    alone = [fit_linear(), fit_mean("own"), fit_mean("normal")]
    again = [fit_mean("normal"), fit_linear(), fit_mean("own"), fit_linear(seed=5)]
    for first, second in ((alone[0], again[1]), (alone[1], again[2]), (alone[2], again[0])):
        assert first.keys() == second.keys()
        for name in first:
            assert torch.equal(first[name], second[name]), name
    assert not torch.equal(alone[0]["weight"], again[3]["weight"])
    assert len(pyro.get_param_store()) == 0


def test_pyro_3209_a_fit_in_a_fresh_process_is_the_same(tmp_path):
    fit_mean("multivariate_normal")  # whatever this process did before must not matter
    code = (
        "import torch; torch.set_num_threads(1); torch.set_default_dtype(torch.float64)\n"
        "from tests.inference.test_regressions import fit_linear\n"
        "print({k: v.tolist() for k, v in fit_linear().items()})"
    )
    assert eval(run(tmp_path, code)) == {name: value.tolist() for name, value in fit_linear().items()}


# PyTorch-VAE#56: a KL term with a weight or a sign that is not the ELBO's.


def test_pytorch_vae_56_elbo_is_expected_log_likelihood_minus_kl():
    program = linear()
    x = program.generate(1000)
    loc, scale = program.encoder(x).detach(), program.encoder_scale.detach()
    kl = 0.5 * (loc.square() + scale.square() - 1 - 2 * scale.log()).sum(-1)
    w, variance = program.weight.detach(), program.scale.detach() ** 2
    residual = (x - program.mean.detach() - loc @ w.T).square().sum(-1) + (w.square() * scale.square()).sum()
    likelihood = -0.5 * residual / variance - 2.5 * torch.log(2 * math.pi * variance)
    truth = likelihood - kl
    assert float(kl.mean()) > 0.2  # so that a wrong weight shows

    found = elbo(program, None, Data(x), 400)
    assert abs(found.mean - float(truth.mean())) < SIGMAS * found.mean_error

    # The analytic-KL estimator, on a minibatch that stands for all: its likelihood term alone is noisy.
    rows = torch.arange(100)
    with torch.no_grad():
        runs = torch.stack(
            [
                TraceELBO(pyro.infer.TraceMeanField_ELBO)(program, program.guide, Data(x[rows]), 1000)[1]
                for _ in range(200)
            ]
        )
    assert abs(float(runs.mean() - truth[rows].mean())) < SIGMAS * float(runs.std()) / math.sqrt(200)

    # Beta weighs the KL and nothing else.
    with torch.no_grad():
        runs = torch.stack(
            [
                TraceELBO(pyro.infer.TraceMeanField_ELBO)(program, program.guide, Data(x), 1000, beta=0.25)[1]
                for _ in range(100)
            ]
        )
    weighed = float((likelihood - 0.25 * kl).mean())
    assert abs(float(runs.mean()) - weighed) < SIGMAS * float(runs.std()) / math.sqrt(100)


def test_minibatch_elbo_is_an_unbiased_estimate_of_the_full_one():
    program, n = Mean(), 12
    x = program.generate(n)
    loc, scale = program.loc.detach(), program.log_scale.exp().detach()
    kl = 0.5 * (loc**2 + scale**2 - 1 - 2 * scale.log())
    truth = (-0.5 * ((x - loc) ** 2 + scale**2) - 0.5 * math.log(2 * math.pi)).sum() - kl
    objective = TraceELBO(pyro.infer.Trace_ELBO, 1)
    with torch.no_grad(), pyro.validation_enabled(False):
        runs = torch.stack(
            [objective(program, program.guide, Data(x[torch.randperm(n)[:3]]), n)[1] * n for _ in range(4000)]
        )
    assert abs(float(runs.mean() - truth)) < SIGMAS * float(runs.std()) / math.sqrt(4000)


def test_minibatch_gradient_is_an_unbiased_estimate_of_the_full_one():
    program, n = Mean(), 12
    x = program.generate(n)
    objective = TraceELBO(pyro.infer.Trace_ELBO, 1)
    grads = []
    for _ in range(2000):
        with pyro.validation_enabled(False):
            loss, _ = objective(program, program.guide, Data(x[torch.randperm(n)[:3]]), n)
        grads.append(torch.stack(torch.autograd.grad(-loss * n, [program.loc, program.log_scale])))
    found = torch.stack(grads)
    loc, scale = program.loc.detach(), program.log_scale.exp().detach()
    truth = torch.stack([(x - loc).sum() - loc, -(n + 1) * scale**2 + 1])
    error = found.std(0) / math.sqrt(len(found))
    assert bool(((found.mean(0) - truth).abs() < SIGMAS * error).all())


# pyro#3137: a saved model that does not reproduce its predictions.


def run(scratch: Path, code: str, *args: str) -> str:
    done = processes.run(code, args, scratch=scratch)
    assert done.returncode == 0, done.stderr
    return done.stdout


PREDICT = """
import sys, torch
from inference.evaluation import elbo
from inference.fit import Fit
from zoo.datasets.data import Data

def predict(folder):
    found, x = Fit.load(folder), torch.load(folder + "/x.pt")
    score = elbo(found.program, found.guide, Data(x), 5).values
    return {"z": found.draw(3, x)["z"], "log_prob": found.program.log_prob(x).detach(), "elbo": score}
"""


def test_pyro_3137_a_saved_fit_predicts_the_same_bits_here_and_in_another_process(tmp_path):
    folders, before = [], []
    for guide in ("own", "normal"):
        program = linear()
        x = program.generate(16)
        folder = tmp_path / guide
        found = fit(program, x, "svi", guide=guide, steps=10, out=folder)
        torch.save(x, folder / "x.pt")
        score = elbo(found.program, found.guide, Data(x), 5).values
        before.append({"z": found.draw(3, x)["z"], "log_prob": program.log_prob(x).detach(), "elbo": score})
        folders.append(str(folder))
    here: dict = {}
    exec(PREDICT, here)
    run(
        tmp_path,
        PREDICT
        + "torch.set_num_threads(1)\nfor folder in sys.argv[1:]: torch.save(predict(folder), folder + '/there.pt')",
        *folders,
    )
    for folder, values in zip(folders, before, strict=True):
        loaded, there = here["predict"](folder), torch.load(f"{folder}/there.pt")
        for name, value in values.items():
            assert torch.equal(value, loaded[name]), f"{name} of {folder} differs after loading"
            assert torch.equal(value, there[name]), f"{name} of {folder} differs in a fresh process"


def test_draws_of_a_guide_are_those_of_its_own_examples():
    """Particles must not mix examples: the mean of many draws is each example's own posterior mean."""
    program = linear()
    x = program.generate(6)
    values = draw(program.posterior, 4000, x).values["z"].detach()
    mean, covariance = posterior_moments(program, x)
    error = covariance.diagonal().sqrt() / math.sqrt(4000)
    assert bool(((values.mean(0) - mean).abs() < SIGMAS * error).all())
