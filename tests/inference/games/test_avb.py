"""Adversarial variational Bayes against truth: posteriors by closed form and grid, by each of the three contrasts."""

from __future__ import annotations

import statistics

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from inference import Fit, fit
from inference.evaluation.two_samples import c2st, gaussian_kl
from inference.games.avb import AVB
from inference.guides.ratio import estimated_log_prob
from inference.particles import draw, guide_log_prob, log_joint
from inference.requirements import why_no_implicit_guide
from tests.inference.latents import Counts, Levels, NoLatents, NormalMean, Rate
from zoo.bayes.banana import Banana
from zoo.bayes.two_modes import TwoModes
from zoo.errors import DivergenceError, OptionError, UnknownNameError
from zoo.implicit.gan import GAN
from zoo.latent.ppca import PPCA
from zoo.program import Program

SMALL = {"hidden": [32, 32], "critic_hidden": [32, 32], "particles": 128, "moments": 128}
"""Enough for a posterior of one number."""


def test_avb_finds_a_conjugate_global_posterior() -> None:
    program = NormalMean()
    x = 1.5 + torch.randn(30)
    exact = program.exact(x)
    found = fit(program, x, "avb", steps=300, compile="traced", **SMALL)
    mu = found.draw(20_000, x)["mu"]
    assert mu.shape == (20_000,)
    # Training error, on top of the Monte Carlo error of 0.007: over four seeds at most 0.004 and 0.019.
    assert abs(float((mu.mean() - exact.mean) / exact.stddev)) < 0.05
    assert abs(float(mu.std() / exact.stddev) - 1) < 0.05
    # The estimated ELBO is no bound but near the evidence, which it would equal: over four seeds within 0.003 nats.
    assert abs(-found.history.last("loss") * len(x) - float(program.log_evidence(x))) < 0.01


def test_avb_maps_to_the_support() -> None:
    x = dist.Exponential(3.0).sample((20,))
    rate = fit(Rate(), x, "avb", steps=300, compile="traced", **SMALL).draw(20_000, x)["rate"]
    exact = dist.Gamma(22.0, 1 + x.sum())
    assert bool((rate > 0).all())
    assert abs(float((rate.mean() - exact.mean) / exact.stddev)) < 0.05
    assert abs(float(rate.std() / exact.stddev) - 1) < 0.05


def known_ppca() -> tuple[PPCA, Tensor]:
    """PPCA with fixed parameters and 200 examples of it."""
    torch.manual_seed(0)
    program = PPCA([5], 2)
    with torch.no_grad():
        program.weight.normal_()
        program.scale = torch.tensor(0.7)
    return program, program.generate(200)


@pytest.fixture(scope="module")
def ppca() -> tuple[PPCA, Tensor, Fit]:
    """The same, fitted in float64."""
    torch.set_default_dtype(torch.float64)
    program, x = known_ppca()
    small = {"hidden": [32, 32], "critic_hidden": [32, 32], "steps": 250, "batch_size": 32}
    return program, x, fit(program, x, "avb", train_program=False, initialise=False, compile="traced", **small)


def test_avb_finds_the_amortised_posterior_of_ppca(ppca) -> None:
    program, _, found = ppca
    test = program.generate(100)
    mine, exact = found.draw(4000, test)["z"], draw(program.posterior, 4000, test).values["z"].detach()
    scale = exact.std(0)
    assert mine.shape == (4000, 100, 2)
    # On examples not trained on; the Monte Carlo error alone is 0.02.
    assert float(((mine.mean(0) - exact.mean(0)) / scale).square().mean().sqrt()) < 0.15
    assert float((mine.std(0) / scale - 1).abs().max()) < 0.15


def mean_kl(program: PPCA, found: Fit, x: Tensor, n: int = 4000) -> float:
    """KL(guide || posterior) by the moments of n draws, mean over examples; exact draws score 2.5 / n."""
    mine, exact = (draw(guide, n, x, density=False).values["z"].detach() for guide in (found.guide, program.posterior))
    return statistics.mean(gaussian_kl(mine[:, i], exact[:, i]) for i in range(len(x)))


def test_avb_in_prior_contrast_finds_the_amortised_posterior_of_ppca() -> None:
    program, x = known_ppca()
    options = {"contrast": "prior", "train_program": False, "initialise": False, "batch_size": 32}
    start = fit(program, x, "avb", steps=1, **options)
    found = fit(program, x, "avb", steps=250, compile="traced", **options)
    test = program.generate(10)
    assert mean_kl(program, found, test) < 0.05
    assert mean_kl(program, start, test) > 1.0


def test_estimated_density_is_calibrated_on_ppca(ppca) -> None:
    program, x, found = ppca
    few = x[:50]
    values = draw(program.posterior, 200, few).values
    estimate = estimated_log_prob(found.guide, found.modules["critic"], values, few)
    exact = guide_log_prob(program.posterior, values, few)
    assert estimate.local.shape == (200, 50)
    assert not estimate.joint
    # Mean over the posterior of log p(z|x) - log q(z|x): their KL divergence if the estimate is a density; 0.7 nats or
    # more if r and T were swapped, the Jacobian lost, or the sign wrong.
    assert abs(float((exact.local - estimate.local).detach().mean())) < 0.1


def test_the_programs_parameters_train_only_if_asked() -> None:
    x = torch.randn(50, 3) @ torch.randn(3, 3)
    for train, same in ((True, False), (False, True)):
        program = PPCA([3], 1)
        before = program.weight.detach().clone()
        fit(program, x, "avb", train_program=train, steps=3)
        assert torch.equal(program.weight, before) == same


@pytest.mark.parametrize("contrast", ["adaptive", "prior"])
def test_global_local_and_enumerated_latents_together(contrast: str) -> None:
    x = torch.randn(12) + 1
    found = fit(Levels(), x, "avb", steps=20, contrast=contrast)
    assert found.draw(6, x)["z"].shape == (6, 12)
    assert found.draw(6, x)["level"].shape == (6,)
    values = draw(found.guide, 5, x, density=False).values
    assert {name: tuple(v.shape) for name, v in values.items()} == {"level": (5, 1), "z": (5, 12)}
    estimate = estimated_log_prob(found.guide, found.modules["critic"], values, x)
    assert estimate.joint
    assert estimate.local.shape == (5, 12)
    assert estimate.globals.shape == (5,)
    assert bool(torch.isfinite(estimate.total).all())


@pytest.mark.parametrize("make", [lambda: (NormalMean(), torch.randn(9)), lambda: (PPCA([3], 2), torch.randn(9, 3))])
def test_an_implicit_guide_survives_saving(make, tmp_path) -> None:
    program, x = make()
    found = fit(program, x, "avb", steps=5, hidden=[16], out=tmp_path / "fit")
    loaded = Fit.load(tmp_path / "fit", program=type(program))
    for name, value in found.draw(10, x).items():
        assert torch.equal(value, loaded.draw(10, x)[name])


def test_same_seed_same_guide() -> None:
    x = torch.randn(10)
    draws = [fit(NormalMean(), x, "avb", steps=20, seed=seed).draw(5, x, seed=0)["mu"] for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_avb_refuses_before_compute() -> None:
    for program, contrast, why in (
        (Levels(), "adaptive", None),
        (Levels(), "prior", None),
        (Levels(), "joint", "'level' is global"),
        (Counts(), "adaptive", "'k' cannot be summed out"),
        (Counts(), "prior", "'k' cannot be summed out"),
        (Counts(), "joint", None),
        (NoLatents(), "adaptive", "no latent sites"),
        (NoLatents(), "joint", "no latent sites"),
        (GAN([2]), "adaptive", "implicit"),
        (GAN([2]), "prior", "implicit"),
        (GAN([2]), "joint", None),
    ):
        reason = AVB(contrast=contrast, train_program=contrast != "joint").why_not(program)
        assert reason == why_no_implicit_guide(program, contrast)
        assert (reason is None) if why is None else (reason is not None and why in reason), (program, contrast, reason)
    with pytest.raises(OptionError, match="'ali'"):
        AVB(contrast="joint")
    with pytest.raises(UnknownNameError, match="adaptive"):
        AVB(contrast="adaptiv")


@pytest.mark.parametrize(
    "options", [{"lr": -1.0}, {"critic_steps": 0}, {"particles": 0}, {"anneal": 1.5}, {"moments": 1}]
)
def test_avb_options_are_checked(options: dict) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        AVB(**options)


def test_divergence_stops_with_a_hint() -> None:
    with pytest.raises(DivergenceError, match="avb NormalMean"):
        fit(NormalMean(), torch.full((3,), 1e200), "avb", steps=200)


# The point of it: posteriors that no Gaussian fits

PROBLEMS = {"banana": (Banana, [[0.5, 0.0]]), "two modes": (TwoModes, [[1.0, 0.5]])}


def grid_posterior(program: Program, x: Tensor, reach: float = 4.0, n: int = 400) -> tuple[Tensor, Tensor]:
    """Cell centres (n^2, 2) and log masses (n^2,) of the exact posterior."""
    edge = torch.linspace(-reach, reach, n)
    cells = torch.stack(torch.meshgrid(edge, edge, indexing="ij"), -1).reshape(-1, 2)
    with torch.no_grad():
        log_mass = log_joint(program, {"z": cells[:, None]}, x).local[:, 0].log_softmax(0)
    return cells, log_mass


def grid_draws(cells: Tensor, log_mass: Tensor, n: int) -> Tensor:
    width = cells[1, 1] - cells[0, 1]
    chosen = cells[torch.multinomial(log_mass.exp(), n, replacement=True)]
    return chosen + width * (torch.rand_like(chosen) - 0.5)


def histogram_kl(draws: Tensor, cells: Tensor, log_mass: Tensor, bins: int = 50) -> float:
    """KL(draws || exact) over bins x bins cells; draws of the exact posterior itself score (bins hit - 1) / (2 n)."""
    low, high = float(cells.min()), float(cells.max())
    width = (high - low) * (1 + 1e-9) / bins

    def counts(points: Tensor, weight: Tensor) -> Tensor:
        index = ((points.clamp(low, high) - low) / width).long()
        return torch.zeros(bins, bins).index_put((index[:, 0], index[:, 1]), weight, accumulate=True)

    q = counts(draws, torch.full((len(draws),), 1 / len(draws)))
    p = counts(cells, log_mass.exp())
    hit = q > 0
    return float((q[hit] * (q[hit] / p[hit].clamp_min(1e-12)).log()).sum())


def compare(problem: str, seed: int, steps: int, judged: int = 0) -> dict[str, list[float]]:
    """Method -> histogram KL to the exact posterior; and C2ST, which is slow, on so many draws a side if any."""
    make, row = PROBLEMS[problem]
    program, x = make(), torch.tensor(row)
    cells, log_mass = grid_posterior(program, x)
    torch.manual_seed(seed)
    exact = grid_draws(cells, log_mass, max(judged, 1))
    found = {}
    for method, options in (
        ("svi", {"guide": "multivariate_normal", "particles": 16, "steps": 1000}),
        ("avb", {"steps": steps, "compile": "traced"}),
    ):
        draws = fit(program, x, method, train_program=False, seed=seed, **options).draw(20_000, x)["z"].reshape(-1, 2)
        found[method] = [histogram_kl(draws, cells, log_mass)]
        if judged:
            found[method].append(c2st(exact, draws[:judged], seed=seed).accuracy)
    return found


def test_the_yardsticks_know_the_exact_posterior() -> None:
    program, x = TwoModes(), torch.tensor([[1.0, 0.5]])
    cells, log_mass = grid_posterior(program, x)
    exact = grid_draws(cells, log_mass, 20_000)
    assert histogram_kl(exact, cells, log_mass) < 0.03
    assert histogram_kl(exact[exact[:, 0] > 0], cells, log_mass) > 0.6  # log 2 for half of it
    accuracy = c2st(grid_draws(cells, log_mass, 1000), exact[:1000])
    assert accuracy.accuracy < 0.5 + 5 * accuracy.standard_error


def test_avb_beats_the_gaussian_guide_on_two_modes() -> None:
    """One seed and fewer steps than the real test below, by the distance that has no classifier to train."""
    found = compare("two modes", seed=0, steps=700)
    assert found["avb"][0] < 0.6 * found["svi"][0]


@pytest.mark.slow
@pytest.mark.parametrize("problem", PROBLEMS)
def test_avb_beats_the_gaussian_guide_in_the_median_of_five_seeds(problem: str) -> None:
    runs = [compare(problem, seed, steps=2000, judged=2000) for seed in range(5)]
    for metric in range(2):
        median = {m: statistics.median(run[m][metric] for run in runs) for m in ("svi", "avb")}
        assert median["avb"] < median["svi"], (problem, metric, runs)


@pytest.mark.slow
@pytest.mark.parametrize(("problem", "contrast", "most"), [("two modes", "prior", 0.6), ("banana", "joint", 0.8)])
def test_the_other_contrasts_beat_the_gaussian_guide(problem: str, contrast: str, most: float) -> None:
    """By histogram KL: 0.34 against 0.76 on two modes, 0.21 against 0.39 on the banana, in one run.

    On two modes the critic of pairs does not always: 0.55 in one run, and in a shorter one 1.08.
    """
    make, row = PROBLEMS[problem]
    program, x = make(), torch.tensor(row)
    cells, log_mass = grid_posterior(program, x)
    # Pairs are learned from data like the program's; the ratio to the prior from the one example.
    data, options = (program.generate(4000), {"particles": 1, "batch_size": 64}) if contrast == "joint" else (x, {})
    gaussian = {"guide": "multivariate_normal", "particles": 16, "steps": 1000}
    found = []
    for fitted in (
        fit(program, x, "svi", train_program=False, **gaussian),
        fit(program, data, "avb", train_program=False, contrast=contrast, steps=700, **options),
    ):
        found.append(histogram_kl(fitted.draw(20_000, x)["z"].reshape(-1, 2), cells, log_mass))
    assert found[1] < most * found[0], found


@pytest.mark.slow
def test_avb_by_pairs_finds_the_amortised_posterior_of_ppca() -> None:
    program, _ = known_ppca()
    options = {"contrast": "joint", "steps": 400, "batch_size": 64, "particles": 1, "moments": 128}
    found = fit(program, program.generate(1000), "avb", train_program=False, initialise=False, **options)
    # 0.10 in one run; the guide starts as wide as the prior, above 1.
    assert mean_kl(program, found, program.generate(20)) < 0.25
