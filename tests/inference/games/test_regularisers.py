"""Regularisers against closed forms: penalties by hand, slopes they promise, distances they let a critic estimate."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference.games.losses import GAMES, Minimax, Wasserstein, make_game
from inference.games.regularisers import (
    R1,
    REGULARISERS,
    Clip,
    GradientPenalty,
    Regulariser,
    SpectralNorm,
    check_pair,
    make_regulariser,
    saturates,
)
from inference.training.loop import Loop
from inference.training.noise import Noise
from tests.inference.steps import both, ready, small
from zoo.errors import OptionError, ShapeError, UnknownNameError
from zoo.nets import conv_encoder, mlp

SHIFT = torch.tensor([0.9, -1.2], dtype=torch.float64)


class Critic(nn.Module):
    """A network of one output, squeezed: (B, d) -> (B,); (B,) -> (B,) for d = 0."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x if x.ndim > 1 else x[:, None]).squeeze(-1)


def linear(d: int = 2) -> Critic:
    return Critic(nn.Linear(d, 1))


def shifted(n: int = 500) -> tuple[Tensor, Tensor]:
    """Two sets of points in the plane that differ by SHIFT, of length 1.5, in pairs."""
    real = torch.randn(n, 2) ** 3
    return real, real + SHIFT


def train(
    critic: nn.Module,
    regulariser: Regulariser,
    real: Tensor,
    fake: Tensor,
    steps: int = 300,
    lr: float = 0.05,
    game: Wasserstein | None = None,
) -> float:
    """The Wasserstein game for a critic alone, at a rate that fades; returns the estimate at the end."""
    game = game or Wasserstein()
    regulariser.prepare(critic)
    optimizer = torch.optim.Adam(critic.parameters(), lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-3, steps)
    critic.train()
    for _ in range(steps):
        loss, penalty = game.critic_loss(critic, real, fake), regulariser.penalty(critic, real, fake)
        optimizer.zero_grad()
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        schedule.step()
        regulariser.after_step(critic)
    critic.eval()
    with torch.no_grad():
        return float(game.divergence(critic(real), critic(fake)))


def gradients(critic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(critic(x).sum(), x)[0]


# Clipping


def test_clipping_holds_from_the_first_step_to_the_last() -> None:
    critic, regulariser = Critic(mlp(2, [8], 1)), Clip(0.05)
    assert regulariser.penalty(critic, *shifted()) is None
    before = [p.detach().clone() for p in critic.parameters()]
    regulariser.prepare(critic)
    for parameter, value in zip(critic.parameters(), before, strict=True):
        assert torch.equal(parameter, value.clamp(-0.05, 0.05))
    train(critic, regulariser, *shifted(), steps=5, lr=1.0)
    assert max(float(p.abs().max()) for p in critic.state_dict().values()) == 0.05


def test_a_clipped_linear_critic_points_into_the_corner() -> None:
    """T = w x with |w_i| <= c: the largest gap is c |shift|_1, at slope c sqrt(2) in the plane, c on the line."""
    critic = linear()
    estimate = train(critic, Clip(0.02), *shifted())
    assert torch.allclose(critic.net.weight, -0.02 * SHIFT.sign())
    assert abs(estimate - 0.02 * float(SHIFT.abs().sum())) < 1e-9
    real = torch.randn(100)
    assert abs(train(linear(1), Clip(0.02), real, real + 1.5, game=Wasserstein(0.02)) - 1.5) < 1e-9


# The gradient penalty


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("size", [0.3, 2.0])
def test_gradient_penalty_of_a_linear_critic(size: float, one_sided: bool) -> None:
    """weight (|a| - 1)^2 with gradient 2 weight (|a| - 1) a / |a|, wherever the points are."""
    critic, direction = linear(), torch.tensor([0.6, -0.8])
    with torch.no_grad():
        critic.net.weight.copy_(size * direction)
    penalty = GradientPenalty(5.0, one_sided).penalty(critic, *shifted())
    penalty.backward()
    excess = 0.0 if one_sided and size < 1 else size - 1
    assert abs(float(penalty.detach()) - 5 * excess**2) < 1e-12
    assert torch.allclose(critic.net.weight.grad[0], 10 * excess * direction)


@pytest.mark.parametrize("event", [(), (3,), (2, 2)])
def test_gradient_penalty_looks_between_the_pairs(event: tuple[int, ...]) -> None:
    """The gradient of |x|^2 / 2 is x."""
    real, fake, at = torch.randn(6, *event), torch.randn(6, *event), torch.rand(6)
    with Noise(torch.empty(0), at):
        penalty = GradientPenalty(3.0).penalty(lambda x: x.reshape(6, -1).square().sum(1) / 2, real, fake)
    between = torch.stack([(1 - u) * a + u * b for u, a, b in zip(at, real, fake, strict=True)])
    assert torch.allclose(penalty, 3 * (between.reshape(6, -1).norm(dim=1) - 1).square().mean())


def test_gradient_penalty_of_a_flat_critic_is_finite() -> None:
    critic = Critic(mlp(2, [4], 1))
    with torch.no_grad():
        critic.net[-1].weight.zero_()
    penalty = GradientPenalty().penalty(critic, *shifted())
    penalty.backward()
    assert float(penalty.detach()) == 10
    assert all(bool(torch.isfinite(p.grad).all()) for p in critic.parameters() if p.grad is not None)


def test_gradient_penalty_wants_pairs() -> None:
    with pytest.raises(ShapeError, match=r"\(5, 2\) and \(1, 2\)"):
        GradientPenalty().penalty(linear(), torch.zeros(5, 2), torch.zeros(1, 2))


@pytest.mark.parametrize("weight", [1.0, 10.0])
def test_the_penalised_critic_of_a_shift_is_a_little_too_steep(weight: float) -> None:
    """Its slope is 1 + W1 / (2 weight), for a linear critic whatever the pairs."""
    critic = linear()
    estimate = train(critic, GradientPenalty(weight), *shifted())
    slope = 1 + 1.5 / (2 * weight)
    assert torch.allclose(critic.net.weight[0], -slope * SHIFT / 1.5, atol=1e-4)
    assert abs(estimate - 1.5 * slope) < 1e-4


def test_a_network_does_no_better_where_the_pairs_are_those_of_the_shift() -> None:
    estimate = train(Critic(mlp(2, [32, 32], 1, "softplus")), GradientPenalty(10.0), *shifted(300), steps=200, lr=0.02)
    assert 0.99 * 1.5 * 1.075 < estimate < 1.5 * 1.075 + 1e-3


class Cells(nn.Module):
    """Any function on the line, by its slopes in cells."""

    def __init__(self, low: float = -3.0, high: float = 4.5, cells: int = 75):
        super().__init__()
        self.low, self.step = low, (high - low) / cells
        self.slopes = nn.Parameter(torch.zeros(cells))

    def forward(self, x: Tensor) -> Tensor:
        at = ((x - self.low) / self.step).clamp(0, len(self.slopes) - 1e-9)
        cell = at.detach().floor().long()
        left = torch.cat([self.slopes.new_zeros(1), self.slopes.cumsum(0)])[cell]
        return self.step * (left + (at - cell) * self.slopes[cell])


@pytest.mark.parametrize("weight", [1.0, 10.0])
def test_the_bias_of_the_gradient_penalty_on_the_line(weight: float) -> None:
    """Slopes are 1 + |F_q - F_p| / (2 weight r), here for independent pairs."""
    p, q = dist.Normal(0.0, 1.0), dist.Normal(1.0, 1.5)
    points = torch.quasirandom.SobolEngine(3, scramble=True, seed=1).draw(2**15, dtype=torch.float64)
    real, fake, u = p.icdf(points[:, 0]), q.icdf(points[:, 1]), points[:, 2]

    class Fixed(GradientPenalty):
        """The same points at each step, so that they are quadrature."""

        def penalty(self, critic, real, fake):
            with Noise(torch.empty(0), u):
                return super().penalty(critic, real, fake)

    critic = Cells()
    estimate = train(critic, Fixed(weight), real, fake, steps=200, lr=0.1)
    line = torch.linspace(-3, 4.5, 1501)  # the critic is flat beyond
    between = ((torch.arange(200) + 0.5) / 200)[:, None]
    density = dist.Normal(between, ((1 - between) ** 2 + (1.5 * between) ** 2).sqrt()).log_prob(line).exp().mean(0)
    gap = q.cdf(line) - p.cdf(line)
    w1 = float(torch.trapezoid(gap.abs(), line))
    bias = float(torch.trapezoid(gap.square() / density, line)) / (2 * weight)
    assert bias > w1**2 / (2 * weight)
    assert abs(estimate - w1 - bias) < 0.01 * bias
    centres = slice(110, 1301, 20)  # of the cells from -2.5 to 3.5
    expected = (gap.sign() * (1 + gap.abs() / (2 * weight * density)))[centres]
    # A cell has some hundreds of points, which leave its density, and so the excess, uncertain by some per cent.
    assert torch.allclose(gradients(critic, line[centres]), expected, atol=0.25 / weight, rtol=0)


# Spectral normalisation


def jacobian_norm(critic: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """The largest singular value of one example's Jacobian."""
    jacobian = torch.autograd.functional.jacobian(critic, x)
    return float(torch.linalg.matrix_norm(jacobian.reshape(-1, x.numel()), 2))


def warm(critic: nn.Module, x: Tensor, times: int = 200) -> nn.Module:
    """Lets the power iteration come to its end, for weights that stand still."""
    critic.train()
    for _ in range(times):
        critic(x)
    return critic.eval()


@pytest.mark.parametrize("activation", ["relu", "tanh", "leaky_relu"])
@pytest.mark.parametrize("hidden", [[], [16], [8, 32, 8]])
def test_a_normalised_network_has_slopes_of_at_most_one(hidden: list[int], activation: str) -> None:
    critic = Critic(mlp(2, hidden, 1, activation))
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.mul_(7)
    grid = torch.cartesian_prod(torch.linspace(-4, 4, 41), torch.linspace(-4, 4, 41))
    assert float(gradients(critic, grid).norm(dim=1).max()) > 1
    SpectralNorm().prepare(critic)
    warm(critic, grid[:2])
    for layer in critic.modules():
        if isinstance(layer, nn.Linear):
            assert abs(float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) - 1) < 1e-6
    assert float(gradients(critic, grid).norm(dim=1).max()) < 1 + 1e-5


@pytest.mark.parametrize("layer", [nn.Conv2d(2, 3, 3, padding=1), nn.ConvTranspose2d(2, 3, 3, padding=1)])
def test_a_normalised_convolution_is_bounded_by_the_root_of_its_kernels_size(layer: nn.Module) -> None:
    layer = copy.deepcopy(layer).double()
    with torch.no_grad():
        layer.weight.mul_(7)
    SpectralNorm().prepare(layer)
    x = torch.randn(1, 2, 6, 6)
    warm(layer, x)
    rows = layer.weight.detach() if isinstance(layer, nn.Conv2d) else layer.weight.detach().transpose(0, 1)
    assert abs(float(torch.linalg.matrix_norm(rows.flatten(1), 2)) - 1) < 1e-6
    assert jacobian_norm(layer, x) < 3 + 1e-6


def test_all_layers_of_a_convolutional_critic_are_normalised_once() -> None:
    critic = nn.Sequential(conv_encoder((1, 8, 8), [4, 4], 6), nn.LayerNorm(6), nn.Linear(6, 1))
    names = dict(critic.named_parameters())
    for _ in range(2):
        SpectralNorm().prepare(critic)
    normalised = dict(critic.named_parameters())
    # The same parameters, four of them by another name: an optimizer moves the weights before the division.
    assert {id(v) for v in normalised.values()} == {id(v) for v in names.values()}
    assert sum(name.endswith("parametrizations.weight.original") for name in normalised) == 4
    assert sum(name.endswith("_u") for name, _ in critic.named_buffers()) == 4


def test_labels_too() -> None:
    embedding = nn.Embedding(5, 3)
    SpectralNorm(50).prepare(embedding)
    embedding(torch.tensor([0]))
    assert abs(float(torch.linalg.matrix_norm(embedding.weight.detach(), 2)) - 1) < 1e-3


def test_the_power_iteration_is_part_of_the_state() -> None:
    x = torch.randn(5, 2)
    critic, other = Critic(mlp(2, [8], 1)), Critic(mlp(2, [8], 1))
    for each in (critic, other):
        SpectralNorm().prepare(each)
    train(critic, SpectralNorm(), *shifted(), steps=3)
    other.load_state_dict(critic.state_dict())
    copied = copy.deepcopy(critic)
    other.eval()
    assert torch.equal(critic(x), other(x))
    for each in (critic, other, copied):
        each.train()
    assert torch.equal(critic(x), other(x))
    copied(x)
    assert torch.equal(critic(x), copied(x))


def test_what_cannot_be_normalised() -> None:
    with pytest.raises(OptionError, match="no layer to normalise"):
        SpectralNorm().prepare(nn.LayerNorm(3))
    critic = Critic(mlp(2, [4], 1))
    nn.init.zeros_(critic.net[-1].weight)
    with pytest.raises(OptionError, match="weight of zero"):
        SpectralNorm().prepare(critic)


def test_a_normalised_network_estimates_the_transport_from_below() -> None:
    real, fake = shifted(300)
    critic = Critic(mlp(2, [32, 32], 1, "leaky_relu"))
    estimate = train(critic, SpectralNorm(), real, fake, steps=200, lr=0.02)
    assert 1.4 < estimate < 1.5 + 1e-4
    assert float(gradients(critic, torch.cat([real, fake])).norm(dim=1).max()) < 1 + 1e-4


# R1


def test_r1_of_a_quadratic_critic() -> None:
    """weight / 2 E_p |A x + b|^2 for T = x A x / 2 + b x, with its gradient in b, and fake examples as they may."""
    a, b = torch.randn(3, 3), torch.randn(3, requires_grad=True)
    a = a + a.T
    real = torch.randn(40, 3)
    penalty = R1(4.0).penalty(lambda x: (x @ a * x).sum(1) / 2 + x @ b, real, torch.full((1, 3), math.nan))
    slopes = real @ a + b
    assert torch.allclose(penalty, 2 * slopes.square().sum(1).mean())
    assert torch.allclose(torch.autograd.grad(penalty, b)[0], 4 * slopes.mean(0))


@pytest.mark.parametrize(("regulariser", "rests"), [(None, False), (GradientPenalty(1.0), False), (R1(1.0), True)])
def test_r1_brings_the_simplest_game_to_rest(regulariser: Regulariser | None, rests: bool) -> None:
    """Data at 0, one sample, a linear critic (Mescheder et al. 2018): it circles without R1."""
    game, data = Minimax(), torch.zeros(1)
    slope, sample = torch.tensor(0.5, requires_grad=True), torch.tensor([0.5], requires_grad=True)

    def critic(x: Tensor) -> Tensor:
        return slope * x

    def descend(loss: Tensor, player: Tensor) -> None:
        (gradient,) = torch.autograd.grad(loss, player)
        player.data.sub_(0.1 * gradient)

    distances = []
    for _ in range(600):
        loss = game.critic_loss(critic, data, sample.detach())
        if regulariser is not None:
            loss = loss + regulariser.penalty(critic, data, sample.detach())
        descend(loss, slope)
        descend(game.generator_loss(critic, data, sample), sample)
        distances.append(float(sample.detach().abs()))
    assert (max(distances[-200:]) < 1e-4) == rests


# Pairs, names, options


def test_which_games_need_which_regularisers() -> None:
    for name in GAMES:
        game = make_game(name)
        for regulariser in (None, *REGULARISERS):
            made = make_regulariser(regulariser)
            if name == "wasserstein" and regulariser in (None, "r1"):
                with pytest.raises(OptionError, match="'clip', 'gradient-penalty', 'spectral-norm'"):
                    check_pair(game, made)
            else:
                check_pair(game, made)
            assert saturates(game, made) == (name != "wasserstein" and regulariser in (None, "r1"))


@pytest.mark.parametrize(
    "make", [lambda: Clip(0.0), lambda: GradientPenalty(0.0), lambda: R1(-1.0), lambda: SpectralNorm(0)]
)
def test_options(make: Callable[[], Regulariser]) -> None:
    with pytest.raises(OptionError, match=r"must be .*got (0|-1)"):
        make()


def test_names() -> None:
    assert make_regulariser(None) is None
    made = Clip(0.1)
    assert make_regulariser(made) is made
    assert all(make_regulariser(name).name == name for name in REGULARISERS)
    assert make_regulariser({"name": "clip", "limit": 0.5}).limit == 0.5
    with pytest.raises(UnknownNameError, match="weight"):
        make_regulariser({"name": "r1", "wieght": 1.0})
    with pytest.raises(UnknownNameError, match="spectral-norm"):
        make_regulariser("spectral norm")


# In a compiled step


PLAYED = [
    ("wasserstein", "gradient-penalty"),
    ("hinge", "spectral-norm"),
    ("wasserstein", "clip"),
    ("least-squares", "r1"),
]


def step(game: str, regulariser: str, device: str = "cpu") -> Loop:
    program, data = small("gan", hidden=[8], critic_hidden=[8], pieces=2)
    return ready(program.to(device), data.to(device), "gan", game=game, regulariser=regulariser, batch_size=5)


@pytest.mark.parametrize(
    ("game", "regulariser"), [*PLAYED[:2], *(pytest.param(*pair, marks=pytest.mark.slow) for pair in PLAYED[2:])]
)
def test_a_step_traced_is_the_step_in_python(game: str, regulariser: str) -> None:
    for ours, theirs in zip(*both(step(game, regulariser)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("game", "regulariser"), PLAYED)
def test_a_step_compiled_is_the_step_in_python(game: str, regulariser: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for ours, theirs in zip(*both(step(game, regulariser), gear="library"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("game", "regulariser"), PLAYED)
def test_a_step_on_the_gpu_is_the_step_in_python(game: str, regulariser: str) -> None:
    for ours, theirs in zip(*both(step(game, regulariser, "cuda"), gear="library"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
