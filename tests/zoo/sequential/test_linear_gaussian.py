"""The linear Gaussian state space against the dense normal of all its numbers, Pyro's GaussianHMM and its own EM."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from inference import fit
from inference.evaluation import elbo
from inference.particles import log_weights
from zoo import datasets
from zoo.errors import OptionError
from zoo.program import ClosedFormEM, ExactDensity, ExactPosterior
from zoo.sequential.linear_gaussian import LinearGaussian
from zoo.testing import check_program

CASES = [([5, 3], 2), ([4, 2], 3), ([6], 1), ([2], 2)]


def made(event_shape: list[int], latent_dim: int, seed: int = 0) -> LinearGaussian:
    torch.manual_seed(seed)
    program = LinearGaussian(event_shape, latent_dim).eval()
    with torch.no_grad():
        for parameter in program.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return program


def gaps(x: Tensor) -> Tensor:
    """With a whole step, single numbers, and a whole row gone."""
    x = x.clone()
    x[0, 1] = torch.nan
    x.view(len(x), -1)[1, ::3] = torch.nan
    x[2] = torch.nan
    return x


@torch.no_grad()
def dense(program: LinearGaussian, steps: int | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean and covariance of all states in a row; the matrix and the noise variances of all numbers of x."""
    t, k = steps or program.steps, program.latent_dim
    noise = program.transition_scale @ program.transition_scale.T
    mean, covariance = [program.start], torch.zeros(t * k, t * k)
    block = program.start_scale @ program.start_scale.T
    for i in range(t):
        if i > 0:
            mean.append(program.transition @ mean[-1])
            block = program.transition @ block @ program.transition.T + noise
        ahead = block
        for j in range(i, t):
            covariance[j * k : (j + 1) * k, i * k : (i + 1) * k] = ahead
            covariance[i * k : (i + 1) * k, j * k : (j + 1) * k] = ahead.T
            ahead = program.transition @ ahead
    loading = torch.block_diag(*[program.loading] * t)
    return torch.cat(mean), covariance, loading, program.scale.repeat(t).square()


def dense_density(program: LinearGaussian, row: Tensor) -> Tensor:
    mean, covariance, loading, noise = dense(program)
    there = ~row.isnan()
    if not there.any():
        return torch.zeros(())
    mean = loading @ mean + program.bias.detach().repeat(program.steps)
    covariance = loading @ covariance @ loading.T + noise.diag()
    return MultivariateNormal(mean[there], covariance[there][:, there]).log_prob(row[there])


def dense_posterior(program: LinearGaussian, row: Tensor, steps: int | None = None) -> tuple[Tensor, Tensor]:
    """Of all states given what is there of the first steps, by conditioning the joint normal."""
    mean, covariance, loading, noise = dense(program, steps)
    there = torch.zeros(len(noise), dtype=torch.bool)
    there[: len(row)] = ~row.isnan()
    loading, noise = loading[there], noise[there]
    seen = row[there[: len(row)]] - program.bias.detach().repeat(len(there) // program.dim)[there]
    gain = torch.linalg.solve(loading @ covariance @ loading.T + noise.diag(), loading @ covariance).T
    return mean + gain @ (seen - loading @ mean), covariance - gain @ loading @ covariance


@pytest.mark.parametrize(("shape", "k"), CASES)
@pytest.mark.parametrize("missing", [False, True])
@torch.no_grad()
def test_everything_exact_equals_the_dense_normal(shape, k, missing):
    program = made(shape, k)
    assert isinstance(program, ExactDensity)
    assert isinstance(program, ExactPosterior)
    assert isinstance(program, ClosedFormEM)
    x = program.generate(4)
    x = gaps(x) if missing else x
    density, (means, covariances), filtered = program.log_prob(x), program.smoothed(x), program.filtered(x)
    for i, row in enumerate(x.flatten(1)):
        torch.testing.assert_close(density[i], dense_density(program, row))
        mean, covariance = dense_posterior(program, row)
        torch.testing.assert_close(means[i].flatten(), mean)
        for t in range(shape[0]):
            at = slice(t * k, (t + 1) * k)
            torch.testing.assert_close(covariances[i, t], covariance[at, at])
            mean_now, covariance_now = dense_posterior(program, row[: (t + 1) * program.dim])
            torch.testing.assert_close(filtered.means[i, t], mean_now[at])
            factor = filtered.factors.expand(4, shape[0], k, k)[i, t]
            torch.testing.assert_close(factor @ factor.T, covariance_now[at, at])


@pytest.mark.parametrize("missing", [False, True])
def test_posterior_gives_the_evidence_at_every_draw_and_the_own_guide_less(missing):
    program = made([5, 3], 2)
    x = gaps(program.generate(4)) if missing else program.generate(4)
    weights = log_weights(program, program.posterior, 5, x)[1].local
    torch.testing.assert_close(weights, program.log_prob(x).expand(5, -1))
    bound = elbo(program, program.guide, x, 2000)
    assert bool((bound.values + 5 * bound.monte_carlo_error < program.log_prob(x)).all())


@torch.no_grad()
def test_draws_of_the_posterior_go_together_as_its_states_do():
    """The covariance of neighbouring states, which marginals do not show."""
    program, n = made([3, 2], 2), 40_000
    x = program.generate(1)
    draws = program.smoother(x).sample(torch.Size([n]))[:, 0].flatten(1)
    mean, covariance = dense_posterior(program, x.flatten())
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (draws - mean).T, upper=False)
    # Entries of a sample covariance have standard error at most (2 / n)^1/2; 21 of them, 5 errors.
    torch.testing.assert_close(white @ white.T / n, torch.eye(6), atol=5 * (2 / n) ** 0.5, rtol=0)


@pytest.mark.parametrize("missing", [False, True])
@torch.no_grad()
def test_forecast_is_the_dense_conditional_of_later_steps(missing):
    program, steps = made([4, 2], 3), 3
    x = gaps(program.generate(3)) if missing else program.generate(3)
    found = program.forecast(x, steps)
    assert (found.batch_shape, found.event_shape) == ((3, steps), (2,))
    for i, row in enumerate(x.flatten(1)):
        mean, covariance = dense_posterior(program, row, program.steps + steps)
        for t in range(steps):
            at = slice((program.steps + t) * 3, (program.steps + t + 1) * 3)
            expected = program.loading @ mean[at] + program.bias
            torch.testing.assert_close(found.mean[i, t], expected)
            spread = program.loading @ covariance[at, at] @ program.loading.T + program.scale.square().diag()
            torch.testing.assert_close(found.covariance_matrix[i, t], spread)
    with pytest.raises(OptionError, match="steps"):
        program.forecast(x, 0)


@torch.no_grad()
def test_density_equals_pyro():
    """Pyro's model moves once before the first step: its start is one from which a move leads to ours."""
    program = made([5, 3], 2)
    before, noise = torch.eye(2) + 0.2, program.transition_scale @ program.transition_scale.T
    program.start.copy_(program.transition @ torch.tensor([0.5, -1.0]))
    moved = program.transition @ before @ program.transition.T + noise
    program.start_scale = torch.linalg.cholesky(moved)
    peer = dist.GaussianHMM(
        MultivariateNormal(torch.tensor([0.5, -1.0]), before), program.transition.T,
        MultivariateNormal(torch.zeros(2), noise), program.loading.T,
        dist.Normal(program.bias, program.scale).to_event(1), duration=5,
    )  # fmt: skip
    x = program.generate(6)
    torch.testing.assert_close(program.log_prob(x), peer.log_prob(x))


@pytest.mark.parametrize("case", [*CASES, ([3, 2], 4)])
def test_contract(case):
    check_program(made(*case).train())


# EM


def expected(program: LinearGaussian, got: dict[str, Tensor]) -> Tensor:
    """E[log p(x, z)] up to a constant, of noises that vary, the moments of what is left over being given."""
    start, move = program.start_scale, program.transition_scale
    values = [-(got["seen"] * program.scale.log() + got["energy"] / program.scale.square() / 2).sum()]
    for factor, square, count in (
        (start, got["start_square"], got["count"]),
        (move, got["jump_square"], got["count"] * (program.steps - 1)),
    ):
        precision = torch.linalg.inv(factor @ factor.T)
        values.append(-(precision * square).sum() / 2 - count * factor.diagonal().log().sum())
    return torch.stack(values).sum()


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("shape", "k"), CASES)
def test_statistics_are_the_gradient_of_the_evidence(shape, k, missing):
    """Fisher's identity: that of log p(x) is that of E[log p(x, z)], so each statistic is checked by autograd."""
    program = made(shape, k)
    x = program.generate(6)
    x = gaps(x) if missing else x
    value, got = program.e_step(x)
    evidence = program.log_prob(x).sum()
    torch.testing.assert_close(value, evidence.detach())
    names = ["start", "transition", "loading", "bias", "scale_unconstrained", "start_scale_unconstrained"]
    names.append("transition_scale_unconstrained")
    parameters = [getattr(program, name) for name in names]
    gradient = dict(zip(names, torch.autograd.grad(evidence, parameters), strict=True))
    noises = torch.autograd.grad(expected(program, got), parameters[4:])
    for name, found in zip(names[4:], noises, strict=True):
        torch.testing.assert_close(gradient[name], found, msg=name)
    with torch.no_grad():
        start = torch.linalg.inv(program.start_scale @ program.start_scale.T)
        move = torch.linalg.inv(program.transition_scale @ program.transition_scale.T)
        torch.testing.assert_close(gradient["start"], start @ got["start_sum"])
        torch.testing.assert_close(gradient["transition"], move @ got["jump_past"])
        cross = got["cross"] / program.scale.square().unsqueeze(-1)
        torch.testing.assert_close(gradient["loading"], cross[:, :-1])
        torch.testing.assert_close(gradient["bias"], cross[:, -1])


@pytest.mark.parametrize("missing", [False, True])
def test_em_never_falls_and_ends_where_the_gradient_vanishes(missing):
    torch.manual_seed(1)
    truth = LinearGaussian([6, 2], 1)
    with torch.no_grad():
        truth.transition.fill_(0.8)
        truth.loading.copy_(torch.tensor([[1.5], [-1.0]]))
        truth.scale = torch.tensor([0.5, 0.5])
    x = truth.generate(40)
    x = gaps(x) if missing else x
    program = LinearGaussian([6, 2], 1)
    with torch.no_grad():
        program.initialise(x)
    names = [name for name, _ in program.named_parameters() if not name.startswith("encoder")]

    def steepest() -> float:
        gradient = torch.autograd.grad(program.log_prob(x).mean(), [getattr(program, name) for name in names])
        return max(float(part.abs().max()) for part in gradient)

    before = steepest()
    found = fit(program, x, "em", iterations=150, tolerance=0.0)
    losses = torch.tensor([row["loss"] for row in found.history.rows])
    assert float(losses.diff().max()) < 1e-9
    assert -float(losses[-1]) > float(truth.log_prob(x).detach().mean())  # the maximum is above the truth
    assert missing or steepest() < 0.01 * before  # EM arrives at a linear rate, more slowly the less there is


def test_statistics_add_over_minibatches():
    program = made([4, 2], 2)
    x = program.generate(7)
    whole, parts = program.e_step(x), [program.e_step(part) for part in x.split(3)]
    for name, value in whole[1].items():
        torch.testing.assert_close(value, sum(part[1][name] for part in parts))


def test_a_constant_number_keeps_the_likelihood_bounded():
    """Half of the pixels at the edge of a digit never change."""
    x = datasets.load("digits").train.x[:200].double()
    program = LinearGaussian([8, 8], 4)
    with torch.no_grad():
        program.initialise(x)
    found = fit(program, x, "em", iterations=5)
    losses = [row["loss"] for row in found.history.rows]
    assert losses == sorted(losses, reverse=True)
    assert all(bool(p.isfinite().all()) for p in program.parameters())
    assert float(program.scale.detach().min()) == pytest.approx(program.min_scale)


def test_a_number_that_no_example_has_keeps_its_weights():
    program = made([3, 2], 1)
    x = program.generate(5)
    x[:, :, 1] = torch.nan
    before = [p.detach()[1].clone() for p in (program.loading, program.bias, program.scale)]
    program.m_step(program.e_step(x)[1])
    for p, kept in zip((program.loading, program.bias, program.scale), before, strict=True):
        torch.testing.assert_close(p.detach()[1], kept)


@torch.no_grad()
def test_single_precision_keeps_its_digits_where_noises_are_small():
    program = made([8, 4], 2)
    program.scale = torch.full((4,), 0.02)
    x = program.generate(5)
    exact = program.log_prob(x)
    torch.testing.assert_close(program.float().log_prob(x.float()).double(), exact, rtol=1e-4, atol=1e-2)


def test_bad_options_are_named():
    with pytest.raises(OptionError, match="at least two steps"):
        LinearGaussian([1, 3])
    with pytest.raises(OptionError, match="window must be odd"):
        LinearGaussian(window=4)


def test_states_that_move_say_more_of_digits_than_rows_on_their_own():
    """The preset, beside one normal distribution of all covariances for every row."""
    data = datasets.load("digits")
    train, test = data.train.x.double(), data.test.x.double()
    options = LinearGaussian.presets["small"]
    program = LinearGaussian.for_data(train, **options.program)
    fit(program, train, options.method, **{**options.fit, "iterations": 15})
    rows = train.flatten(0, 1)
    covariance = torch.cov(rows.T, correction=0) + program.min_scale**2 * torch.eye(8)
    still = MultivariateNormal(rows.mean(0), covariance).log_prob(test).sum(-1).mean()
    assert float(program.log_prob(test).detach().mean() - still) > 8  # nats an example, one a row
