r"""The adversarial autoencoder: an autoencoder whose codes are made to follow a prior by a critic of codes.

Makhzani, Shlens, Jaitly, Goodfellow & Frey, "Adversarial autoencoders", ICLR workshop 2016.

    z ~ p(z),   x | z ~ prod_i p(x_i | f(z)_i),   z = g(x), q(z | x) = N(m(x), S(x)) or z = g(x, noise)

    z --> x      sites: z (k,) local; x (*event_shape)

The prior is one that can be drawn from, with a density or without. The paper's method makes the aggregate posterior
q(z) = E_data[q(z | x)] equal to it; it is `inference.games.aae`, and takes other programs too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from zoo.latent.heads import HEADS, IMPLICIT_HEADS
from zoo.latent.priors import make_prior
from zoo.latent.vae import VAE
from zoo.options import Count, Counts, Shape
from zoo.program import Preset
from zoo.specs import Spec, make_part

__all__ = ["AAE"]

SMALL = {"steps": 16_000, "batch_size": 100, "lr": 1e-3, "weight": 0.01}


class AAE(VAE):
    """A VAE's networks with a prior and a guide of the adversarial autoencoder's kinds.

    Without a density, of the prior or of the guide, there is no evidence bound, and who asks for it gets an
    `ImplicitDensityError`. `encode` and `decode` are the VAE's: `encode(x).sample()` is a code.

    Args:
        event_shape, latent_dim, hidden, likelihood, network, activation: As in `zoo.latent.vae.VAE`.
        guide: 'deterministic', a code is a function of x; 'universal', of x and noise; both have no density. Or one of
            the VAE's. {"name": "universal", "noise": 10}; see `zoo.latent.heads`.
        prior: 'gaussian', N(0, I); 'mixture', the petals of a flower; 'swiss-roll', a spiral in the first two
            dimensions and N(0, 1) in the others, which has no density. All have a `scale` that draws are multiplied by
            (5 for the paper's likelihoods), the mixture `components`; see `zoo.latent.priors`.

    Raises: UnknownNameError, OptionError, ShapeError (convolutions over what is no image).
    """

    paper = "Makhzani et al., Adversarial autoencoders, 2016"
    dataset = "mnist10k-binary"
    takes_missing = False  # its critics look at whole examples

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        latent_dim: Count = 2,
        hidden: Counts = (64, 64),
        likelihood: Spec = "bernoulli",
        network: str = "mlp",
        activation: str = "relu",
        guide: Spec = "diagonal",
        prior: Spec = "mixture",
    ):
        width = hidden[-1] if hidden else latent_dim
        head = make_part("guide", guide, {**HEADS, **IMPLICIT_HEADS}, latent_dim=latent_dim, width=width)
        has_density = type(head) in HEADS.values()
        super().__init__(
            event_shape, latent_dim, hidden, likelihood=likelihood, network=network, activation=activation,
            guide=guide if has_density else "diagonal",
        )  # fmt: skip
        self.code_prior = make_prior(prior, latent_dim)
        if not has_density:
            self.encoder = self.coders.encoder(head.size)
            head.build(activation)
            self.head = head

    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset({"latent_dim": 8, "hidden": [256, 256], "guide": "deterministic"}, "aae", SMALL),
        "digits": Preset(  # 8x8: fewer pixels, so that each has to count for more
            {"latent_dim": 8, "hidden": [256, 256], "guide": "deterministic"}, "aae",
            {**SMALL, "steps": 3000, "weight": 0.1}, data="digits-binary",
        ),
        "plane": Preset(  # the paper's pictures: two latents
            {"latent_dim": 2, "hidden": [256, 256], "guide": "deterministic"}, "aae", SMALL
        ),
        "paper": Preset(
            {"latent_dim": 8, "hidden": [1000, 1000], "prior": {"name": "gaussian", "scale": 5.0},
             "guide": "deterministic"},
            "aae", {"epochs": 1000, "batch_size": 100, "lr": 1e-3, "weight": 0.01, "critic_hidden": [1000, 1000]},
        ),
    }  # fmt: skip
