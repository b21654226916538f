"""Sequential Monte Carlo beside evidences and posteriors that are known, with the error that it states."""

from __future__ import annotations

import math

import pytest
import torch

import zoo
from benchmarks import targets
from inference import Fit, fit
from inference.checkpoint import Checkpoint
from inference.methods import smc
from tests.inference.killed import killed_after
from tests.inference.methods.test_nuts import Switch
from tests.inference.posteriors import FAR_EVIDENCE, FAR_MEAN, FAR_SD, far, flat, square, square_evidence
from tests.inference.toys import Rate, Sampler, linear, posterior_moments
from zoo import create
from zoo.bayes.regression import BayesianLinearRegression
from zoo.datasets import Data
from zoo.errors import CapabilityError, DivergenceError, OptionError

FEW = {"particles": 200, "moves": 2, "leapfrog": 3}


def one_weight() -> tuple[BayesianLinearRegression, Data]:
    """w ~ N(0, 1), x ~ N(w, 0.5), x = 12."""
    return BayesianLinearRegression(1, prior_scale=1.0, noise_scale=0.5), Data(torch.tensor([12.0]), torch.ones(1, 1))


def pulls(found: Fit, truth: torch.Tensor) -> torch.Tensor:
    """Errors of the log evidence of each unit, in stated errors."""
    values, errors = torch.tensor(found.info["log_evidences"]), torch.tensor(found.info["log_evidence_errors"])
    return (values - truth) / errors


def test_a_datum_far_from_the_prior_over_ten_seeds() -> None:
    """The prior's draws see the posterior at twenty of their sds: weights alone would be worth one draw."""
    off = []
    for seed in range(10):
        found = fit(*one_weight(), "smc", seed=seed, particles=400, moves=2, leapfrog=3)
        off.append((found.info["log_evidence"] - FAR_EVIDENCE) / found.info["log_evidence_error"])
        assert found.info["convergence"] == {"verdict": "converged"}
    assert max(map(abs, off)) < 3
    assert 0.5 < math.sqrt(sum(each**2 for each in off) / 10) < 1.8  # nor are the errors that it states far too large
    w = found.samples["w"]
    assert w.shape == (400, 1)
    assert abs(float(w.mean()) - FAR_MEAN) < 4.3 * FAR_SD / math.sqrt(200)
    assert abs(float(w.std()) / FAR_SD - 1) < 4.3 / math.sqrt(400)


def test_units_of_their_own_have_evidences_of_their_own() -> None:
    program = linear(5, 2)
    x = program.generate(40)
    found = fit(program, x, "smc", **FEW)
    off = pulls(found, program.log_prob(x).detach())
    assert float(off.abs().max()) < 4
    assert 0.6 < float(off.square().mean().sqrt()) < 1.4
    assert found.info["log_evidence"] == pytest.approx(sum(found.info["log_evidences"]))
    z = found.draw(200)["z"]
    assert z.shape == (200, 40, 2)
    mean, covariance = posterior_moments(program, x)
    sd = covariance.diagonal().sqrt()
    assert float((z.mean(0) - mean).div(sd / math.sqrt(100)).abs().max()) < 4.3
    assert float((z.std(0) / sd).mean()) == pytest.approx(1.0, abs=0.03)


def test_a_constrained_latent() -> None:
    program = Rate()
    x = program.generate(20)
    found = fit(program, x, "smc", **FEW)
    assert float(pulls(found, program.evidence(x)).abs().max()) < 4
    # Gamma(x + 2, 2) has mean (x + 2) / 2 and sd sqrt(x + 2) / 2.
    off = (found.samples["rate"].mean(0) - (x + 2) / 2) / ((x + 2).sqrt() / 2 / math.sqrt(100))
    assert float(off.abs().max()) < 4.3


def test_both_modes_keep_their_mass() -> None:
    found = fit(zoo.adopt(square), {"y": torch.tensor(4.0)}, "smc")
    share = float((found.samples["z"] > 0).double().mean())
    assert 0.3 < share < 0.7
    assert abs(found.info["log_evidence"] - square_evidence(4.0)) < 3 * found.info["log_evidence_error"]


def test_discrete_latents_of_examples_are_summed_out() -> None:
    """The evidence is that of a grid of the one mean."""
    x = torch.tensor([-1.0, 1.5, 1.2])
    found = fit(Switch(), x, "smc", **FEW)
    grid = torch.linspace(-10, 10, 4001)[:, None]
    parts = [torch.distributions.Normal(grid + shift, 1.0).log_prob(x) for shift in (0.0, 3.0)]
    likelihood = torch.logaddexp(*parts).sum(-1) - len(x) * math.log(2)
    truth = (torch.distributions.Normal(0.0, 2.0).log_prob(grid[:, 0]) + likelihood).logsumexp(0) + math.log(0.005)
    assert abs(found.info["log_evidence"] - float(truth)) < 3 * found.info["log_evidence_error"]


def test_temperatures_leave_the_share_that_was_asked_for() -> None:
    one, other = (fit(*one_weight(), "smc", ess=ess, **FEW).info["temperatures"] for ess in (0.5, 0.9))
    assert one == sorted(one)
    assert one[-1] == other[-1] == 1.0
    assert len(other) > 1.5 * len(one)


def test_gradients_are_counted(monkeypatch) -> None:
    seen, transition = [], smc.move

    def spy(log_densities, z, *rest):
        def counted(at):
            seen.extend([at.shape[0]] if at.requires_grad else [])
            return log_densities(at)

        return transition(counted, z, *rest)

    monkeypatch.setattr(smc, "move", spy)
    found = fit(linear(3, 2), linear(3, 2).generate(4), "smc", particles=30, moves=2, leapfrog=3)
    assert found.gradient_evaluations == sum(seen) > 0


def test_a_killed_run_goes_on_where_it_was(tmp_path) -> None:
    options = {**FEW, "checkpoint_seconds": 0.0}

    def run(out=None, seed=1) -> Fit:
        return fit("eight-schools", None, "smc", seed=seed, out=out, **options)

    straight = run()
    with killed_after(Checkpoint, "write", 1):
        run(tmp_path)
    resumed = run(tmp_path)
    assert all(torch.equal(value, resumed.samples[name]) for name, value in straight.samples.items())
    assert resumed.info == straight.info
    assert resumed.gradient_evaluations == straight.gradient_evaluations
    assert {n: tuple(v.shape) for n, v in resumed.samples.items()} == {"mu": (200,), "tau": (200,), "eta": (200, 8)}
    loaded = Fit.load(tmp_path)
    assert torch.equal(loaded.draw(9)["eta"], resumed.draw(9)["eta"])
    assert not torch.equal(run(seed=2).samples["mu"], straight.samples["mu"])
    truth = targets.load("eight-schools").total_log_evidence
    assert abs(straight.info["log_evidence"] - truth) < 3 * straight.info["log_evidence_error"]


def test_few_particles_say_so() -> None:
    found = fit("eight-schools", None, "smc", particles=40, ess=0.9, moves=1)
    assert found.info["roots"] < 10
    assert found.info["convergence"] == {"verdict": "not to be trusted"}
    assert "take more particles" in found.info["warning"]


def test_what_it_refuses() -> None:
    with pytest.raises(CapabilityError, match="it is implicit"):
        fit(Sampler(), torch.zeros(3), "smc")
    with pytest.raises(CapabilityError, match="no continuous latent"):
        fit(create("bernoulli-mixture", event_shape=[3]), torch.zeros(4, 3), "smc")
    with pytest.raises(CapabilityError, match="flat"):
        fit(zoo.adopt(flat), {"y": torch.tensor(0.0)}, "smc")
    with pytest.raises(CapabilityError, match="take fewer particles"):
        fit(linear(3, 2), torch.zeros(10, 3), "smc", particles=5_000_000)
    with pytest.raises(OptionError, match=r"ess must be in \(0, 1\), got 1"):
        fit(linear(3, 2), torch.zeros(10, 3), "smc", ess=1.0)
    with pytest.raises(DivergenceError, match="impossible under all 1000 draws"):
        fit(zoo.adopt(far), {"y": torch.tensor(1e200)}, "smc")


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in targets.names() if n not in ("iris-species", "casino")])
def test_evidences_of_the_truth_set(name: str) -> None:
    """Over ten seeds, in stated errors; those without a target have no continuous latents."""
    target = targets.load(name)
    off = []
    for seed in range(10):
        found = fit(target.program(), target.data, "smc", seed=seed, initialise=False)
        off.append((found.info["log_evidence"] - target.total_log_evidence) / found.info["log_evidence_error"])
    assert max(map(abs, off)) < 3
