"""What keeps a critic's slope in bounds, whatever the game: clipping, two penalties, spectral normalisation.

A critic that is free to be as steep as it likes ends flat where the data and the samples are and jumps in between: the
generator learns nothing from it, and a Wasserstein game is not even defined. Each class here acts on the critic alone,
and is one way out:

    clip                Arjovsky, Chintala & Bottou, "Wasserstein generative adversarial networks", ICML 2017
    gradient-penalty    Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017
    spectral-norm       Miyato et al., "Spectral normalization for generative adversarial networks", ICLR 2018
    r1                  Mescheder, Geiger & Nowozin, "Which training methods for GANs do actually converge?", ICML 2018
"""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from inference.games.losses import CriticFn, Game
from zoo.errors import OptionError, ShapeError
from zoo.options import Count, Positive, check_options
from zoo.specs import Spec, make_part

__all__ = [
    "R1",
    "REGULARISERS",
    "Clip",
    "GradientPenalty",
    "Regulariser",
    "SpectralNorm",
    "check_pair",
    "make_regulariser",
    "saturates",
]


class Regulariser(ABC):
    """Acts on the critic alone: before the game, in its loss, or after each of its steps."""

    name: ClassVar[str]
    bounds_slope: ClassVar[bool] = True
    """Whether it bounds the slope everywhere between data and samples, as a Wasserstein game needs."""

    def prepare(self, critic: nn.Module) -> None:  # noqa: B027 (nothing by default)
        """Changes the critic in place before the game, and before its optimizer is made."""

    def penalty(self, critic: CriticFn, real: Tensor, fake: Tensor) -> Tensor | None:
        """What is added to the critic's loss, (), or None; real and fake are (B, *event)."""
        return None

    def after_step(self, critic: nn.Module) -> None:  # noqa: B027 (nothing by default)
        """Changes the critic's parameters in place after one of its steps."""


class Clip(Regulariser):
    """Keeps every parameter of the critic in [-limit, limit].

    The slope is then bounded, by a constant that depends on the architecture and is far from reached. The paper calls
    it a clearly terrible way: large limits take long to reach, small ones leave no gradient in a deep critic.

    Raises: OptionError for a limit that is not positive.
    """

    name = "clip"

    def __init__(self, limit: Positive = 0.01):
        check_options(type(self), {"limit": limit})
        self.limit = limit

    def prepare(self, critic: nn.Module) -> None:
        """The critic of the first step is bounded too."""
        self.after_step(critic)

    @torch.no_grad()
    def after_step(self, critic: nn.Module) -> None:
        """Clips."""
        for parameter in critic.parameters():
            parameter.clamp_(-self.limit, self.limit)


class GradientPenalty(Regulariser):
    """weight E[(|grad T(x)| - 1)^2], x uniform on the line from a real example to a fake one.

    A soft bound: slopes end a little above 1. On the line the best critic of the Wasserstein game has the slope
    1 + |F_q - F_p| / (2 weight r), r the density of x and F the distribution functions, so that its gap is
    W1 + integral (F_q - F_p)^2 / r / (2 weight), by Jensen at least W1 + W1^2 / (2 weight). For two distributions
    that differ by a shift W1, real and fake paired by it, this is exact in any dimension: slope 1 + W1 / (2 weight).

    The critic must judge each example alone: no batch normalisation in it.

    Args:
        weight: Of the penalty.
        one_sided: Penalises slopes above 1 only.

    Raises: OptionError for a weight that is not positive.
    """

    name = "gradient-penalty"

    def __init__(self, weight: Positive = 10.0, one_sided: bool = False):
        check_options(type(self), {"weight": weight, "one_sided": one_sided})
        self.weight, self.one_sided = weight, one_sided

    def penalty(self, critic: CriticFn, real: Tensor, fake: Tensor) -> Tensor:
        """The penalty on a fresh point between each real and fake example.

        Raises: ShapeError where there are not as many of both.
        """
        if real.shape != fake.shape:
            raise ShapeError(
                f"The gradient penalty pairs real and fake examples, got shapes {tuple(real.shape)} and "
                f"{tuple(fake.shape)}; draw as many samples as there are examples."
            )
        between = torch.rand(len(real), *[1] * (real.ndim - 1), dtype=real.dtype, device=real.device)
        excess = _gradient(critic, real + between * (fake - real)).norm(dim=1) - 1
        return self.weight * (excess.relu() if self.one_sided else excess).square().mean()


class SpectralNorm(Regulariser):
    """Divides every weight matrix of the critic by its largest singular value, found by power iteration.

    Layers that are linear, convolutions, or embeddings (of labels) then do not stretch distances; with activations and
    pooling that do not either, the critic's slope is at most 1. Not so exactly: a convolution's weight is taken as a
    matrix with a row for each output channel, as in the paper, which bounds its slope by the root of the number of
    positions of its kernel instead of by 1; the power iteration lags a step behind the weight; and what is neither of
    these layers (the gains of a normalisation, parameters of a module of its own) stays free.

    Args:
        iterations: Steps of power iteration each time the critic is called in training.

    Raises: OptionError for less than one iteration.
    """

    name = "spectral-norm"
    LAYERS: ClassVar[tuple[type[nn.Module], ...]] = (
        nn.Linear,
        nn.Embedding,
        nn.Conv1d,
        nn.Conv2d,
        nn.Conv3d,
        nn.ConvTranspose1d,
        nn.ConvTranspose2d,
        nn.ConvTranspose3d,
    )

    def __init__(self, iterations: Count = 1):
        check_options(type(self), {"iterations": iterations})
        self.iterations = iterations

    def prepare(self, critic: nn.Module) -> None:
        """Normalises the layers that are not normalised yet; what the power iteration knows goes into the state_dict.

        Raises: OptionError when there is no such layer, or a weight is zero.
        """
        layers = [layer for layer in critic.modules() if isinstance(layer, self.LAYERS)]
        if not layers:
            raise OptionError(
                f"{type(critic).__name__} has no layer to normalise (linear, convolution, embedding); choose another "
                "regulariser."
            )
        for layer in layers:
            if _is_normalised(layer):
                continue
            weight = layer.weight
            assert isinstance(weight, Tensor)
            if not bool(weight.any()):
                raise OptionError(
                    f"A {type(layer).__name__} of {type(critic).__name__} starts with a weight of zero, which has no "
                    "direction to normalise; start it from small random numbers."
                )
            parametrizations.spectral_norm(layer, n_power_iterations=self.iterations)


class R1(Regulariser):
    """weight / 2 E_p[|grad T(x)|^2] on data alone.

    Once the samples are the data the critic has to be flat there, so that the game comes to rest; without it, or with
    a penalty on the slope in between, it may circle for ever. It bounds no slope where there are no data.

    Raises: OptionError for a weight that is not positive.
    """

    name = "r1"
    bounds_slope = False

    def __init__(self, weight: Positive = 10.0):
        check_options(type(self), {"weight": weight})
        self.weight = weight

    def penalty(self, critic: CriticFn, real: Tensor, fake: Tensor) -> Tensor:
        """The penalty on the real examples."""
        return self.weight / 2 * _gradient(critic, real).square().sum(1).mean()


REGULARISERS: dict[str, type[Regulariser]] = {
    regulariser.name: regulariser for regulariser in (Clip, GradientPenalty, SpectralNorm, R1)
}
"""Name -> class."""


def make_regulariser(regulariser: Spec | Regulariser | None) -> Regulariser | None:
    """A regulariser by its name, by its name and options ({"name": "clip", "limit": 0.1}), itself, or None.

    Raises: UnknownNameError for a name or an option that there is not; OptionError for a bad value of one.
    """
    if regulariser is None or isinstance(regulariser, Regulariser):
        return regulariser
    return make_part("regulariser", regulariser, REGULARISERS)


def check_pair(game: Game, regulariser: Regulariser | None) -> None:
    """Raises OptionError where a game means nothing without a bound on the slope."""
    if game.needs_slope and (regulariser is None or not regulariser.bounds_slope):
        able = ", ".join(repr(name) for name, cls in sorted(REGULARISERS.items()) if cls.bounds_slope)
        why = "has none" if regulariser is None else f"{regulariser.name!r} bounds its slope on data alone"
        raise OptionError(
            f"The game {game.name!r} needs a critic of bounded slope, and it {why}: set regulariser to one of {able}."
        )


def saturates(game: Game, regulariser: Regulariser | None) -> bool:
    """Whether a critic that tells all apart leaves the generator without direction: nothing bounds its slope."""
    return game.saturates and (regulariser is None or not regulariser.bounds_slope)


def _gradient(critic: CriticFn, x: Tensor) -> Tensor:
    """Of the critic (of its mean over patches) in each example, (B, d), differentiable in the critic's parameters."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).reshape(len(x), -1).mean(1).sum(), x, create_graph=True)
    return gradient.reshape(len(x), -1)


def _is_normalised(layer: nn.Module) -> bool:
    if not parametrize.is_parametrized(layer, "weight"):
        return False
    present = layer.get_submodule("parametrizations.weight").children()
    return any(isinstance(each, parametrizations._SpectralNorm) for each in present)
