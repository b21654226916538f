r"""The conditional variational autoencoder: what is drawn depends on a context, and so does the prior of its latents.

Sohn, Lee & Yan, "Learning structured output representation using deep conditional generative models", NIPS 2015. Three
networks, and a baseline below them: a deterministic guess that the prior sees beside the context (their "recurrent
connection") and that the decoder corrects.

    g = guess(c),   z ~ N(m(c, g), S(c, g)),   x | z, c ~ prod_i p(x_i | (f(z) + g)_i),   q(z | x, c)

    c --> z --> x      sites: z (k,) local; x (*event_shape), of which numbers that the context tells are not drawn
    c ---------> x

They train the guess first and then leave it as it is; here all is learned at once, from the one bound, and
`latent_dim=0` is the guess alone. A guess that learns from the first step on can leave the codes with nothing to say,
and then the bound ends where that of the guess does: the weight of the KL should grow (`kl_anneal=0.2`).
Not here: their hybrid objective, which adds the likelihood under draws of the prior.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyro
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from zoo.distributions import observed
from zoo.errors import SupportError
from zoo.latent.coders import Coders
from zoo.latent.heads import HEADS, Diagonal
from zoo.likelihoods import make_likelihood
from zoo.nets import activation as make_activation
from zoo.nets import image_shape
from zoo.options import Counts, Natural, Shape
from zoo.program import Preset, Program
from zoo.puzzles import Solves, Task, Told, make_task
from zoo.specs import Spec, make_part

__all__ = ["ConditionalVAE", "RestoringVAE"]

GUESSED = 64
"""Numbers in which the baseline net of convolutions sums up a context."""


class ConditionalVAE(Program):
    """Draws x for a context: a class, numbers, an image of any size.

    Args:
        event_shape: Shape of one example; any for MLPs, (height, width) or (channels, height, width) for convolutions.
        context_shape: Of the context of one example. Convolutions take one of two or three dimensions for an image,
            which is brought to the example's size, and any other number by number, as a plane each.
        latent_dim: Number k of latent dimensions; 0 is the baseline net alone, whose density is exact.
        hidden: Widths of the hidden layers of every network, reversed in the decoder; channels when convolutional.
            None is [128], or channels [16, 32].
        likelihood: What a number of x follows, as of `zoo.latent.vae.VAE`.
        network: 'mlp' or 'conv'.
        activation: A key of `zoo.nets.ACTIVATIONS`; None is 'relu', or 'silu' for convolutions.
        guide: What q(z | x, c) is, one of `zoo.latent.heads.HEADS`, by name or with options.

    Raises: UnknownNameError, OptionError, ShapeError (convolutions over what is no image).
    """

    family = "latent"
    paper = "Sohn, Lee & Yan, Learning structured output representation using deep conditional generative models, 2015"
    dataset = "digits-binary-labelled"
    guess: nn.Module

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        context_shape: Shape = (10,),
        latent_dim: Natural = 8,
        hidden: Counts | None = None,
        likelihood: Spec = "bernoulli",
        network: str = "mlp",
        activation: str | None = None,
        guide: Spec = "diagonal",
    ):
        super().__init__()
        self.event_shape, self.context_shape = torch.Size(event_shape), torch.Size(context_shape)
        self.latent_dim, self.network = latent_dim, network
        self.likelihood = make_likelihood(likelihood, self.event_shape)
        self.support = self.likelihood.support
        conv = network == "conv"
        hidden = ((16, 32) if conv else (128,)) if hidden is None else hidden
        activation = ("silu" if conv else "relu") if activation is None else activation
        coders = Coders(network, self.event_shape, hidden=hidden, activation=activation)
        self._frame = image_shape(event_shape) if conv else None
        size, told = self.likelihood.size, self._planes(self.context_shape)
        whole = coders.shape[0]

        def reader(inputs: int, out: int) -> nn.Module:
            shape = [inputs, *self._frame[1:]] if self._frame else [inputs]
            return Coders(network, shape, hidden=hidden, activation=activation).encoder(out)

        if conv:
            read = nn.Sequential(reader(told, GUESSED), make_activation(activation))
            self.guess = nn.Sequential(read, coders.decoder(GUESSED, size))
        else:
            self.guess = coders.decoder(told, size)
        # The last bias of guess and decoder, one for each pixel also when convolutional: data can set it.
        self.bias = nn.Parameter(torch.zeros(size, *self.event_shape))
        if latent_dim:
            head = make_part("guide", guide, HEADS, latent_dim=latent_dim)
            prior = Diagonal(latent_dim)
            self.recogniser = reader(whole + told, head.size)
            self.foreseer = reader(told + size * whole, prior.size)
            self.decoder = coders.decoder(latent_dim, size)
            head.build(activation)
            self.head, self.prior_head = head, prior

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """A latent from the context's prior, decoded; what the context tells of x is taken from it."""
        assert context is not None
        with self.plate(x, context, size):
            guess = self.guesses(context)
            z = pyro.sample("z", self.prior(context, guess)) if self.latent_dim else None
            drawn = pyro.sample("x", self.decode(z, context, guess), obs=x).to(self.bias.dtype)
        told = self.told(context)
        return drawn if told is None or x is not None else torch.where(told.known, told.values, drawn)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(z | x, c) from the recognition network."""
        assert x is not None
        assert context is not None
        if self.latent_dim:
            with self.plate(x, context, size):
                pyro.sample("z", self.encode(x, context))

    def guesses(self, context: Tensor) -> Tensor:
        """What the baseline net puts out for each site, without the bias: (B, size, *event_shape)."""
        out = self.guess(self._seen(context))
        return out.reshape(len(context), self.likelihood.size, *self.event_shape)

    def prior(self, context: Tensor, guess: Tensor | None = None) -> Any:
        """p(z | c), a distribution of batch shape (B,), event shape (k,)."""
        guess = self.guesses(context) if guess is None else guess
        # Of a bit twice its probability, less one; of anything a bounded number.
        shown = torch.tanh((guess + self.bias) / 2)
        shape = (-1,) if self._frame is None else (-1, *self._frame[1:])
        return self.prior_head(self.foreseer(self._seen(context, shown.reshape(len(shown), *shape))))

    def decode(self, z: Tensor | None, context: Tensor, guess: Tensor | None = None) -> Any:
        """p(x | z, c), a distribution: z (*batch, B, k) -> batch shape (*batch, B), event shape `event_shape`.

        Args:
            z: Codes; None for the guess alone.
            context: (B, *context_shape); numbers of x that it tells count nothing.
            guess: `guesses(context)`, if it is there.
        """
        out = (self.guesses(context) if guess is None else guess) + self.bias
        if z is not None:
            out = out + self.decoder(z).reshape(*z.shape[:-1], *out.shape[1:])
        n, told = len(self.event_shape), self.told(context)
        numbers = self.likelihood.distribution(out.movedim(-1 - n, -1))
        return observed(numbers, None if told is None else ~told.known, n)

    def encode(self, x: Tensor, context: Tensor) -> Any:
        """q(z | x, c), a distribution: x (B, *event_shape) -> batch shape (B,), event shape (k,)."""
        return self.head(self.recogniser(self._seen(self.likelihood.embed(x.to(self.bias.dtype)), context)))

    def told(self, context: Tensor) -> Told | None:
        """Numbers of x that contexts hold as they are."""
        return None

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Sets the last bias to what fits each pixel on its own, and a scale to the spread around it."""
        self.bias.copy_(self.likelihood.initial(x).movedim(-1, 0))

    def example_context(self, n: int) -> Tensor:
        """Rows with a one at one place after the other, (n, *context_shape)."""
        m = self.context_shape.numel()
        places = torch.arange(n, device=self.bias.device) % m
        return nn.functional.one_hot(places, m).to(self.bias.dtype).reshape(n, *self.context_shape)

    def _planes(self, shape: Sequence[int]) -> int:
        """Numbers of a context for an MLP, planes for convolutions."""
        image = self._frame is not None and len(shape) in (2, 3)
        return image_shape(shape)[0] if image else torch.Size(shape).numel()

    def _seen(self, *parts: Tensor) -> Tensor:
        """Contexts and examples (B, ...) side by side, as a network takes them."""
        if self._frame is None:
            return torch.cat([part.flatten(1) for part in parts], 1)
        height, width = self._frame[1:]
        planes = []
        for part in parts:
            if part.ndim in (3, 4):
                image = part.reshape(len(part), -1, *part.shape[-2:])
                planes.append(image if image.shape[-2:] == (height, width) else interpolate(image, (height, width)))
            else:
                planes.append(part.flatten(1)[..., None, None].expand(-1, -1, height, width))
        return torch.cat(planes, 1)

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"latent_dim": 8, "hidden": [128]}, "svi",
            {"elbo": "mean_field", "epochs": 150, "batch_size": 64, "lr": 3e-3},
        ),
        "paper": Preset(
            {"latent_dim": 200, "hidden": [500, 500]}, "svi",
            {
                "elbo": "mean_field", "epochs": 50, "batch_size": 128, "lr": 1e-3, "decay": "constant", "patience": 3,
                "kl_anneal": 0.2,
            },
            data="mnist-binary-labelled",
        ),
    }  # fmt: skip


class RestoringVAE(Solves, ConditionalVAE):
    """Restores an image from parts of it, a coarser or a noisy one, which are made of the images of the data.

    Contexts of parts are (channels + 1, height, width): the image where it is given, 0 elsewhere, and a plane that is
    1 where it is given; what is given stays as it is, and only the rest has a density.

    Args:
        task: What is restored from what, one of `zoo.puzzles.TASKS`: 'quadrants' (bottom left; {"name": "quadrants",
            "given": 2} the left half, 3 all but the bottom right), 'patches', 'low-resolution', 'noisy'.
        event_shape: (height, width) or (channels, height, width).
        latent_dim, hidden, likelihood, network, activation, guide: As of `ConditionalVAE`.

    Raises: what `ConditionalVAE` raises; OptionError for options of the task.
    """

    dataset = "digits-binary"

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        task: Spec = "quadrants",
        latent_dim: Natural = 8,
        hidden: Counts | None = None,
        likelihood: Spec = "bernoulli",
        network: str = "mlp",
        activation: str | None = None,
        guide: Spec = "diagonal",
    ):
        made: Task = make_task(task, event_shape)
        super().__init__(
            event_shape, made.context_shape, latent_dim, hidden=hidden, likelihood=likelihood, network=network,
            activation=activation, guide=guide,
        )  # fmt: skip
        self.task = made

    def told(self, context: Tensor) -> Told | None:
        """What the task tells."""
        return self.task.told(context)

    def check(self, x: Tensor, context: Tensor | None = None) -> None:
        """As every program; and an example must be what its context tells of it.

        Raises: SupportError; what `Program.check` raises.
        """
        super().check(x, context)
        told = None if context is None else self.told(context)
        if told is not None:
            apart = torch.where(told.known, (x.to(told.values) - told.values).abs(), 0.0).flatten(1).amax(1) > 1e-6
            if bool(apart.any()):
                raise SupportError(
                    f"{int(apart.sum())} of {len(x)} examples differ from what their contexts tell of them; make the "
                    "contexts of these very examples (`puzzles`), or give none."
                )

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"latent_dim": 16, "hidden": [256, 256]}, "svi",
            {"elbo": "mean_field", "epochs": 40, "batch_size": 128, "lr": 2e-3, "kl_anneal": 0.2},
            data="mnist10k-binary",
        ),
        # Of Pyro's tutorial, whose three tasks are given=1, 2 and 3.
        "paper": Preset(
            {"latent_dim": 200, "hidden": [500, 500]}, "svi",
            {
                "elbo": "mean_field", "epochs": 50, "batch_size": 128, "lr": 1e-3, "decay": "constant", "patience": 3,
                "kl_anneal": 0.2,
            },
            data="mnist-binary",
        ),
    }  # fmt: skip
