"""Stein variational gradient descent: its forces by hand and by Pyro's kernel, its moments where they are known."""

from __future__ import annotations

import math

import pytest
import torch
from pyro.infer import RBFSteinKernel

import zoo
from inference import Fit, fit
from inference.methods.svgd import SVGD, stein
from inference.training.loop import Loop
from inference.training.target import make_target
from tests.inference.killed import killed_after
from tests.inference.posteriors import FAR, FAR_MEAN, FAR_SD, dense, far, slopes_counted, square
from tests.inference.toys import Sampler
from zoo.errors import CapabilityError, OptionError


def test_forces_of_one_number_are_those_of_pyros_kernel() -> None:
    """In one dimension its width for each number is that of all; its median leaves nothing out but the diagonal."""
    z, slope = torch.randn(7, 1), torch.randn(7, 1)
    log_kernel, gradient = RBFSteinKernel().log_kernel_and_grad(z)
    # Pyro has log(n + 1) where the paper has log(n).
    log_kernel, gradient = (each * math.log(7) / math.log(8) for each in (log_kernel, gradient))
    kernel = log_kernel.sum(-1).exp()
    pull, push, _ = stein(z, slope)
    torch.testing.assert_close(pull, kernel @ slope / 7)
    # Its push goes against the descent that its optimizer does.
    torch.testing.assert_close(push, -torch.einsum("nm,nmd->nd", kernel, gradient) / 7)


def test_the_discrepancy_is_that_of_differentiating_the_kernel() -> None:
    z, slope = torch.randn(5, 3), torch.randn(5, 3)
    squares = (z[:, None] - z).square().sum(-1)
    width = squares[~torch.eye(5, dtype=torch.bool)].median() / math.log(5)

    def kernel(a, b):
        return (-(a - b).square().sum() / width).exp()

    total = 0.0
    for a, s in zip(z, slope, strict=True):
        for b, t in zip(z, slope, strict=True):
            mixed = torch.func.jacrev(torch.func.grad(kernel, 0), 1)(a, b).trace()
            total += s @ t * kernel(a, b) + s @ torch.func.grad(kernel, 1)(a, b) + t @ torch.func.grad(kernel, 0)(a, b)
            total += mixed
    torch.testing.assert_close(stein(z, slope)[2], (total / 25).sqrt())


@pytest.mark.parametrize(("start", "lr"), [("modes", 0.1), ("prior", 0.5)])
def test_a_datum_far_from_the_prior(start: str, lr: float) -> None:
    """The prior's draws have twenty of the posterior's sds to go."""
    found = fit(zoo.adopt(far), FAR, "svgd", particles=50, steps=300, start=start, lr=lr)
    m = found.samples["m"]
    assert float(m.mean()) == pytest.approx(FAR_MEAN, abs=0.02)
    assert float(m.std()) == pytest.approx(FAR_SD, rel=0.1)
    assert found.info["convergence"] == {"verdict": "converged"}
    losses = found.history.series("loss")[1]
    assert losses[-1] < losses[0]


def test_particles_at_draws_of_the_prior_are_where_they_were_drawn() -> None:
    """Whatever the units of the steps: the draws' own spread."""
    program, data = dense()
    target = make_target("svgd", program, data, 8)
    torch.manual_seed(1)
    started, _ = SVGD(particles=8, start="prior")._start(target)
    torch.manual_seed(1)
    torch.testing.assert_close(started.z(), target.starts(33)[1:9])
    torch.testing.assert_close(started.at.std(0).detach(), torch.ones(4, dtype=torch.float64))


def test_a_run_that_is_cut_says_so() -> None:
    found = fit(zoo.adopt(far), FAR, "svgd", particles=10, steps=5, start="prior")
    assert found.info["convergence"] == {"verdict": "still improving"}


def test_a_gaussian_of_several_numbers() -> None:
    """The mean is found; scales come out too small, the more so the more numbers there are to a particle."""
    program, data = dense()
    found = fit(program, data, "svgd", particles=100, steps=400)
    (draws,) = found.samples.values()
    rows = data.context
    precision = rows.T @ rows / 0.25 + torch.eye(4) / 100
    mean, sd = torch.linalg.solve(precision, rows.T @ data.x / 0.25), torch.linalg.inv(precision).diagonal().sqrt()
    assert float((draws.mean(0) - mean).div(sd).abs().max()) < 0.1
    ratio = draws.std(0) / sd
    assert 0.75 < float(ratio.min()) <= float(ratio.max()) < 1.05


@pytest.mark.parametrize("start", ["modes", "prior"])
def test_both_modes_have_particles(start: str) -> None:
    found = fit(zoo.adopt(square), {"y": torch.tensor(4.0)}, "svgd", particles=60, steps=300, start=start)
    z = found.samples["z"]
    assert 0.25 < float((z > 0).double().mean()) < 0.75
    assert float(z.abs().mean()) == pytest.approx(2.0, abs=0.05)


def test_gradients_are_counted(monkeypatch) -> None:
    program, data = dense()
    with slopes_counted(monkeypatch) as seen:
        found = fit(program, data, "svgd", particles=7, steps=5)
    assert found.gradient_evaluations == sum(seen) > 0


def test_a_killed_run_goes_on_where_it_was(tmp_path) -> None:
    def run(out=None, seed=1) -> Fit:
        options = {"particles": 8, "steps": 6, "checkpoint_seconds": 0.0}
        return fit("eight-schools", None, "svgd", seed=seed, out=out, **options)

    straight = run()
    with killed_after(Loop, "save", 3):
        run(tmp_path)
    resumed = run(tmp_path)
    assert all(torch.equal(value, resumed.samples[name]) for name, value in straight.samples.items())
    assert resumed.gradient_evaluations == straight.gradient_evaluations
    assert resumed.info == straight.info
    assert {name: tuple(v.shape) for name, v in resumed.samples.items()} == {"mu": (8,), "tau": (8,), "eta": (8, 8)}
    assert torch.equal(Fit.load(tmp_path).draw(5)["eta"], resumed.draw(5)["eta"])
    assert not torch.equal(run(seed=2).samples["mu"], straight.samples["mu"])


def test_what_it_refuses() -> None:
    with pytest.raises(CapabilityError, match="it is implicit"):
        fit(Sampler(), torch.zeros(3), "svgd")
    with pytest.raises(OptionError, match="start must be one of 'modes', 'prior'"):
        fit("coin", "coin", "svgd", start="middle")
    with pytest.raises(OptionError, match="particles must be at least 4"):
        fit("coin", "coin", "svgd", particles=3)
