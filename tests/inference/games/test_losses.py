"""The games against truth, on Gaussians: best critics by closed form, divergences by integral.

No Monte Carlo: quantiles stand for samples, and the critics that are trained are convex problems.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference.games.losses import GAMES, Game, Hinge, LeastSquares, Minimax, NonSaturating, Wasserstein, make_game
from zoo.errors import OptionError, UnknownNameError

LINE = torch.linspace(-12, 14, 20_001, dtype=torch.float64)
FREE = [name for name, game in GAMES.items() if not game.needs_slope]

Normal = dist.Normal
Density = Tensor
"""A log density on LINE."""


def quantiles(q: Normal, n: int = 20_000) -> Tensor:
    """Means over them are integrals to 1e-4 and better."""
    return q.icdf((torch.arange(n) + 0.5) / n)


def kl(p: Density, q: Density) -> Tensor:
    return torch.trapezoid(p.exp() * (p - q), LINE)


def middle(p: Density, q: Density) -> Density:
    return torch.logaddexp(p, q) - math.log(2)


def jsd(p: Density, q: Density) -> Tensor:
    return (kl(p, middle(p, q)) + kl(q, middle(p, q))) / 2


def chi2(p: Density, q: Density) -> Tensor:
    """Pearson's, of p from q."""
    return torch.trapezoid((p.exp() - q.exp()).square() / q.exp(), LINE)


def chi2_to_middle(p: Density, q: Density) -> Tensor:
    return chi2(p, middle(p, q))


def tv(p: Density, q: Density) -> Tensor:
    return torch.trapezoid((p.exp() - q.exp()).abs(), LINE) / 2


DIVERGENCES: dict[str, Callable[[Density, Density], Tensor]] = {
    "minimax": jsd,
    "non-saturating": jsd,
    "least-squares": chi2_to_middle,
    "hinge": tv,
}
CEILINGS = {"minimax": math.log(2), "non-saturating": math.log(2), "least-squares": 1.0, "hinge": 1.0}
BEST: dict[str, Callable[[Tensor], Tensor]] = {
    "minimax": lambda log_ratio: log_ratio,
    "non-saturating": lambda log_ratio: log_ratio,
    "least-squares": torch.sigmoid,
    "hinge": torch.sign,
}
"""The best critic, from log p/q."""

PAIRS = {
    "shifted": (Normal(0.0, 1.0), Normal(1.5, 1.0)),
    "wider": (Normal(0.0, 1.0), Normal(0.0, 2.0)),
    "both": (Normal(0.0, 1.0), Normal(1.0, 1.5)),
}


def best(name: str, p: Normal, q: Normal) -> Callable[[Tensor], Tensor]:
    return lambda x: BEST[name](p.log_prob(x) - q.log_prob(x))


def exact(name: str, p: Normal, q: Normal) -> float:
    return float(DIVERGENCES[name](p.log_prob(LINE), q.log_prob(LINE)))


def estimate(game: Game, critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> float:
    with torch.no_grad():
        return float(game.divergence(critic(real), critic(fake)))


def slope(critic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(critic(x).sum(), x)[0]


# The best critics and what they estimate


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", FREE)
def test_the_best_critic_gives_the_divergence(name: str, pair: str) -> None:
    p, q = PAIRS[pair]
    found = estimate(make_game(name), best(name, p, q), quantiles(p), quantiles(q))
    assert abs(found - exact(name, p, q)) < 2e-4


@pytest.mark.parametrize("name", FREE)
def test_the_best_critic_in_the_plane(name: str) -> None:
    """These divergences of N(a, I) and N(b, I) depend on |a - b| alone."""
    uniform = torch.quasirandom.SobolEngine(2, scramble=True, seed=1).draw(2**16, dtype=torch.float64)
    points = Normal(0.0, 1.0).icdf(uniform)
    shift = torch.tensor([0.9, -1.2])
    found = estimate(
        make_game(name),
        lambda x: BEST[name](shift.square().sum() / 2 - x @ shift),  # log N(x; 0, I) / N(x; shift, I)
        points,
        points + shift,
    )
    assert abs(found - exact(name, *PAIRS["shifted"])) < 5e-4


@pytest.mark.parametrize("name", FREE)
def test_no_critic_does_better(name: str) -> None:
    """The best one plus any wave has a larger loss, and so estimates less."""
    p, q = PAIRS["both"]
    game, real, fake = make_game(name), quantiles(p), quantiles(q)
    least, most = game.critic_loss(best(name, p, q), real, fake), estimate(game, best(name, p, q), real, fake)
    for frequency in (0.3, 1.0, 3.0):
        for phase in (0.0, 1.0, 2.0):
            for size in (-1.0, -0.1, 0.1, 1.0):

                def critic(x: Tensor, k: float = frequency, phase: float = phase, size: float = size) -> Tensor:
                    return best(name, p, q)(x) + size * torch.sin(k * x + phase)

                assert game.critic_loss(critic, real, fake) > least + 1e-5
                assert estimate(game, critic, real, fake) < most - 1e-5


class Hats(nn.Module):
    """Any function on the line: linear between knots, constant beyond them."""

    def __init__(self, low: float = -3.2, high: float = 3.2, knots: int = 65):
        super().__init__()
        self.low, self.step = low, (high - low) / (knots - 1)
        self.values = nn.Parameter(torch.zeros(knots))

    def heights(self) -> Tensor:
        return self.values

    def forward(self, x: Tensor) -> Tensor:
        heights = self.heights()
        at = ((x - self.low) / self.step).clamp(0, len(heights) - 1)
        left = at.detach().floor().long().clamp(0, len(heights) - 2)
        return torch.lerp(heights[left], heights[left + 1], at - left)


class Bounded(Hats):
    """The same by its slopes, which are kept in bounds."""

    def __init__(self, most: float):
        super().__init__(-5.2, 6.6, 119)
        self.most, self.slopes = most, nn.Parameter(torch.zeros(118))

    def heights(self) -> Tensor:
        return torch.cat([self.values[:1], self.values[0] + self.step * self.slopes.cumsum(0)])

    @torch.no_grad()
    def bound(self) -> None:
        self.slopes.clamp_(-self.most, self.most)


def train(critic: nn.Module, loss: Callable[[], Tensor]) -> None:
    """To the end, for a smooth loss that is convex in the parameters."""
    optimizer = torch.optim.LBFGS(
        critic.parameters(), max_iter=200, history_size=50, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)


def settle(critic: nn.Module, loss: Callable[[], Tensor], after: Callable[[], None] = lambda: None) -> None:
    """The same for a loss with kinks, or under constraints that are put right after each step."""
    optimizer = torch.optim.Adam(critic.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-3, 200)
    for _ in range(200):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        schedule.step()
        after()


@pytest.mark.parametrize("name", FREE)
def test_a_trained_critic_is_the_best_one_and_estimates_the_divergence(name: str) -> None:
    p, q = PAIRS["both"]
    game, critic, real, fake = make_game(name), Hats(), quantiles(p), quantiles(q)
    (settle if name == "hinge" else train)(critic, lambda: game.critic_loss(critic, real, fake))
    x = torch.linspace(-2.5, 2.5, 51)
    x = x[(p.log_prob(x) - q.log_prob(x)).abs() > 0.1]  # where sign(p - q) jumps, a continuous function cannot
    # The knots are 0.1 apart: a function of curvature 1 strays by 0.1^2 / 8 from the lines between them.
    assert torch.allclose(critic(x), best(name, p, q)(x), atol=2e-2 if name == "hinge" else 3e-3)
    found = estimate(game, critic, real, fake)
    assert exact(name, p, q) - 2e-3 < found < exact(name, p, q) + 1e-4


# Wasserstein


def distribution_gap(p: Normal, q: Normal, x: Tensor) -> Tensor:
    """F_q - F_p."""
    return q.cdf(x) - p.cdf(x)


def w1(p: Normal, q: Normal) -> float:
    return float(torch.trapezoid(distribution_gap(p, q, LINE).abs(), LINE))


def test_the_yardstick_of_transport() -> None:
    """By the integral of |F_q - F_p|; by quantiles; for a shift and for a change of scale by hand."""
    for p, q in PAIRS.values():
        assert abs(w1(p, q) - float((quantiles(p) - quantiles(q)).abs().mean())) < 2e-4
    assert abs(w1(*PAIRS["shifted"]) - 1.5) < 1e-6
    assert abs(w1(*PAIRS["wider"]) - math.sqrt(2 / math.pi)) < 1e-6


@pytest.mark.parametrize("most", [1.0, 0.2])
@pytest.mark.parametrize("pair", PAIRS)
def test_the_best_critic_of_bounded_slope_gives_the_transport(pair: str, most: float) -> None:
    p, q = PAIRS[pair]
    # The sign of F_q - F_p changes where both have the same standardised value.
    crossing = {"shifted": -20.0, "wider": 0.0, "both": -2.0}[pair]

    def critic(x: Tensor) -> Tensor:
        return -most * (x - crossing).abs()

    grid = torch.linspace(-3, 3, 7) + 0.25
    assert torch.allclose(slope(critic, grid), most * distribution_gap(p, q, grid).sign())
    assert abs(estimate(Wasserstein(most), critic, quantiles(p), quantiles(q)) - w1(p, q)) < 5e-4
    # In units that are not known, the gap itself.
    assert abs(estimate(Wasserstein(), critic, quantiles(p), quantiles(q)) - most * w1(p, q)) < 5e-4


def test_transport_in_the_plane() -> None:
    """Two distributions that differ by a shift: the distance is its length, the critic linear."""
    points, shift = torch.randn(100, 2) ** 3, torch.tensor([0.9, -1.2])
    found = estimate(Wasserstein(), lambda x: -(x @ shift) / 1.5, points, points + shift)
    assert abs(found - 1.5) < 1e-12


@pytest.mark.parametrize("pair", PAIRS)
def test_a_trained_critic_of_bounded_slope_estimates_the_transport(pair: str) -> None:
    p, q = PAIRS[pair]
    game, critic, real, fake = Wasserstein(), Bounded(1.0), quantiles(p), quantiles(q)
    settle(critic, lambda: game.critic_loss(critic, real, fake), critic.bound)
    centres = torch.linspace(-2.95, 3.05, 61)  # of the cells between knots
    clear = distribution_gap(p, q, centres).abs() > 0.02
    assert torch.allclose(slope(critic, centres)[clear], distribution_gap(p, q, centres).sign()[clear])
    # The critic is flat beyond its last knots, which are in the tails.
    assert w1(p, q) - 5e-3 < estimate(game, critic, real, fake) < w1(p, q) + 2e-4


@pytest.mark.parametrize("most", [0.5, 2.0])
def test_the_hinge_game_of_bounded_slope_estimates_the_bounded_lipschitz_distance(most: float) -> None:
    """For a shift, the best critic crosses 0 half way, as steeply as it may, and stops at 1 and -1."""
    p, q = PAIRS["shifted"]
    game, real, fake = Hinge(), quantiles(p), quantiles(q)

    def critic(x: Tensor) -> Tensor:
        return (most * (0.75 - x)).clamp(-1, 1)

    distance = float(torch.trapezoid(critic(LINE) * (p.log_prob(LINE).exp() - q.log_prob(LINE).exp()), LINE))
    assert abs(estimate(game, critic, real, fake) - distance / 2) < 1e-4
    trained = Bounded(most)
    settle(trained, lambda: game.critic_loss(trained, real, fake), trained.bound)
    assert distance / 2 - 3e-3 < estimate(game, trained, real, fake) < distance / 2 + 1e-4
    assert distance / 2 < exact("hinge", p, q)


# Far apart


@pytest.mark.parametrize("name", GAMES)
def test_divergences_without_a_bound_on_the_slope_have_a_ceiling(name: str) -> None:
    """How far p and q lie apart, beyond telling them, shows in the transport alone."""
    game, p, q, far = make_game(name), Normal(0.0, 1.0), Normal(30.0, 1.0), Normal(60.0, 1.0)
    if game.saturates:
        for other in (q, far):
            found = estimate(game, best(name, p, other), quantiles(p), quantiles(other))
            assert abs(found - CEILINGS[name]) < 1e-9
    else:
        distances = [estimate(game, torch.neg, quantiles(p), quantiles(other)) for other in (q, far)]
        assert torch.allclose(torch.tensor(distances), torch.tensor([30.0, 60.0]))


# What the makers of samples descend


def still(name: str, location: float) -> Callable[[Tensor], Tensor]:
    """The best critic of N(0, 1) and N(location, 1), which stays as the generator moves."""
    return lambda x: BEST[name](location**2 / 2 - location * x)


def gradient(game: Game, critic: Callable[[Tensor], Tensor], location: float) -> float:
    """Of the loss of samples N(location, 1), in the location of the samples alone."""
    moved, noise = torch.tensor(location, requires_grad=True), quantiles(Normal(0.0, 1.0))
    return float(torch.autograd.grad(game.generator_loss(critic, noise, moved + noise), moved)[0])


def of_divergence(divergence: Callable[[Density, Density], Tensor], location: float) -> float:
    moved = torch.tensor(location, requires_grad=True)
    found = divergence(Normal(0.0, 1.0).log_prob(LINE), Normal(moved, 1.0).log_prob(LINE))
    return float(torch.autograd.grad(found, moved)[0])


@pytest.mark.parametrize("location", [-1.5, 0.5, 2.0])
@pytest.mark.parametrize(
    ("name", "divergence"),
    [
        ("minimax", lambda p, q: 2 * jsd(p, q)),
        ("non-saturating", lambda p, q: kl(q, p) - 2 * jsd(p, q)),  # Arjovsky & Bottou 2017, theorem 2.5
        ("least-squares", lambda p, q: kl(p, middle(p, q)) - chi2_to_middle(p, q) / 4),
    ],
)
def test_the_generators_descend_the_divergences_of_the_table(name: str, divergence, location: float) -> None:
    found = gradient(make_game(name), still(name, location), location)
    assert abs(found - of_divergence(divergence, location)) < 1e-3
    assert found * location > 0  # towards the data, at 0


@pytest.mark.parametrize("location", [-1.5, 2.0])
def test_the_best_critics_of_hinge_and_wasserstein_pull_not_at_all_and_evenly(location: float) -> None:
    assert gradient(Hinge(), still("hinge", location), location) == 0
    pull = gradient(Wasserstein(), lambda x: -math.copysign(1.0, location) * x, location)
    assert abs(pull - math.copysign(1.0, location)) < 1e-12


def test_minimax_is_flat_far_away_where_non_saturating_is_not() -> None:
    assert abs(gradient(Minimax(), still("minimax", 12.0), 12.0)) < 1e-6
    assert abs(gradient(NonSaturating(), still("minimax", 12.0), 12.0)) > 1.0
    assert abs(gradient(LeastSquares(), still("least-squares", 12.0), 12.0)) < 1e-6


DERIVATIVES: dict[str, Callable[[Tensor], Tensor]] = {
    "minimax": lambda t: -torch.sigmoid(t),
    "non-saturating": lambda t: -torch.sigmoid(-t),
    "least-squares": lambda t: t - 1,
    "hinge": lambda t: -torch.ones_like(t),
    "wasserstein": lambda t: -torch.ones_like(t),
}
"""Of the generator's loss on one sample, in the critic's output."""


def mirror(name: str) -> Callable[[Tensor], Tensor]:
    """What the critic says when real and fake change places."""
    return (lambda t: 1 - t) if name == "least-squares" else torch.neg


@pytest.mark.parametrize("name", GAMES)
def test_gradients_at_a_linear_critic(name: str) -> None:
    game, slope, offset = make_game(name), torch.tensor([0.7, -1.1, 0.4]), 0.3
    sides = [torch.randn(5, 3, requires_grad=True), torch.randn(8, 3, requires_grad=True)]
    real, fake = sides

    def critic(x: Tensor) -> Tensor:
        return x @ slope + offset

    (found,) = torch.autograd.grad(game.generator_loss(critic, real.detach(), fake), fake)
    assert torch.allclose(found, DERIVATIVES[name](critic(fake))[:, None] * slope / 8)
    (found,) = torch.autograd.grad(game.real_loss(critic, real), real)
    assert torch.allclose(found, -DERIVATIVES[name](mirror(name)(critic(real)))[:, None] * slope / 5)


@pytest.mark.parametrize("name", GAMES)
def test_real_and_fake_are_on_an_equal_footing(name: str) -> None:
    """With the sides exchanged and the critic turned round, each player has the loss of the other side's."""
    game, turn = make_game(name), mirror(name)
    real, fake = torch.randn(6, 2), 1 + torch.randn(9, 2)

    def critic(x: Tensor) -> Tensor:
        return 2 * torch.sin(x).sum(1)

    def turned(x: Tensor) -> Tensor:
        return turn(critic(x))

    assert torch.allclose(game.critic_loss(critic, real, fake), game.critic_loss(turned, fake, real))
    assert torch.allclose(game.real_loss(critic, real), game.generator_loss(turned, fake, real))
    assert torch.allclose(game.divergence(critic(real), critic(fake)), game.divergence(turned(fake), turned(real)))


@pytest.mark.parametrize("game", [Minimax(), Wasserstein()])
def test_zero_sum(game: Game) -> None:
    """The two makers together lose what the critic wins: V."""
    real, fake = torch.randn(6, 2), 1 + torch.randn(9, 2)

    def critic(x: Tensor) -> Tensor:
        return 2 * torch.sin(x).sum(1)

    together = game.real_loss(critic, real) + game.generator_loss(critic, real, fake)
    assert torch.allclose(together, -game.critic_loss(critic, real, fake))
    if isinstance(game, Minimax):
        value = torch.sigmoid(critic(real)).log().mean() + (1 - torch.sigmoid(critic(fake))).log().mean()
        assert torch.allclose(together, value)


def test_names_and_options() -> None:
    assert set(FREE) == set(DIVERGENCES)
    assert all(make_game(name).name == name for name in GAMES)
    game = Wasserstein(2.0)
    assert make_game(game) is game
    with pytest.raises(UnknownNameError, match="wasserstein"):
        make_game("wassertein")
    with pytest.raises(OptionError, match="slope"):
        Wasserstein(0.0)


def test_drift_pulls_the_critic_of_real_examples_towards_zero() -> None:
    real, fake = torch.randn(20) + 3, torch.randn(20)
    game = make_game({"name": "wasserstein", "drift": 0.01})
    plain = Wasserstein().critic_loss(lambda x: 5 * x, real, fake)
    torch.testing.assert_close(game.critic_loss(lambda x: 5 * x, real, fake), plain + 0.01 * (5 * real).square().mean())
    torch.testing.assert_close(plain, 5 * (fake.mean() - real.mean()))
    assert game.divergence(real, fake) == Wasserstein().divergence(real, fake)
