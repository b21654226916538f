"""Our VAE, VampPrior and total correlation beside Pythae's, on mnist10k binarised: one set of networks, one evaluator.

Pythae (Chadebec, Vincent & Allassonniere, NeurIPS 2022) is no extra of this project: install it where this project is,

    pip install --no-deps pythae==0.1.2 imageio
    OMP_NUM_THREADS=1 python -m benchmarks.scripts.pythae_peer > docs/results/pythae-cpu.md

(it asks for an old package `dataclasses` besides, which --no-deps leaves out). Both sides have the very same modules
for encoder and decoder, Adam at one rate without decay, the same epochs and batch size, and no validation data. What
differs is each library's own: where biases and pseudo-inputs start, the analytic or sampled divergence, how the density
of codes is estimated in a minibatch. Not here: the VQ-VAE, since Pythae's has no density of images.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.distributions import Independent, Normal
from torch import Tensor, nn

from benchmarks.machine import hardware, in_words
from inference import fit
from inference.environment import seeded
from inference.methods.disentangling import total_correlation
from inference.training.loop import progress_bar
from zoo import datasets
from zoo.datasets import Data
from zoo.errors import CapabilityError
from zoo.latent.vae import VAE
from zoo.nets import mlp

__all__ = ["KINDS", "Coded", "main", "ours", "score", "theirs"]

KINDS: dict[str, str] = {
    "vae": "VAE",
    "vamp": "VampPrior, 100 pseudo-inputs",
    "beta-tc": "beta-TCVAE, weight 6 of the total correlation",
}
LATENTS, HIDDEN, PSEUDO, TC = 20, [300], 100, 6.0
LR, BATCH = 1e-3, 100


@dataclass(frozen=True)
class Coded:
    """A trained autoencoder of bits, of either side.

    Args:
        encode: x (B, d) to q(z | x), of batch shape (B,).
        decode: Codes (..., k) to logits (..., d).
        log_prior: Codes (..., k) to log p(z), (...).
        seconds: Of the training.
    """

    encode: Callable[[Tensor], Any]
    decode: Callable[[Tensor], Tensor]
    log_prior: Callable[[Tensor], Tensor]
    seconds: float = 0.0


@torch.no_grad()
def score(coded: Coded, x: Tensor, particles: int = 100, seed: int = 0) -> tuple[float, float, float]:
    """(ELBO, IWAE bound of so many particles, total correlation of 1,000 codes), nats; means over x (N, d)."""
    bounds: list[Tensor] = []
    tight: list[Tensor] = []
    with seeded(seed):
        for rows in x.split(100):
            q = coded.encode(rows)
            z = q.sample(torch.Size([particles]))
            likelihood = -nn.functional.binary_cross_entropy_with_logits(
                coded.decode(z), rows.expand(particles, *rows.shape), reduction="none"
            ).sum(-1)
            weights = likelihood + coded.log_prior(z) - q.log_prob(z)
            bounds.append(weights.mean(0))
            tight.append(weights.logsumexp(0) - math.log(particles))

        def guide(few: Tensor, context: None = None, size: None = None) -> None:
            with pyro.plate("data", len(few)):
                pyro.sample("z", coded.encode(few))

        few = x[:1000]
        together = total_correlation(guide, Data(few), len(few))
    return float(torch.cat(bounds).mean()), float(torch.cat(tight).mean()), float(together)


def ours(kind: str, x: Tensor, epochs: int, seed: int) -> Coded:
    """This project's, fitted to bits (N, d)."""
    prior: Any = {"name": "vamp", "components": PSEUDO} if kind == "vamp" else "gaussian"
    with seeded(seed):
        program = VAE([x.shape[1]], LATENTS, HIDDEN, prior=prior)
    options: dict[str, Any] = {"tc": TC} if kind == "beta-tc" else {}
    started = time.perf_counter()
    fit(
        program, x, "svi", seed=seed, elbo="mean_field", epochs=epochs, batch_size=BATCH, lr=LR, decay="constant",
        device="cpu", **options,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    return Coded(
        program.encode,
        lambda z: program.decoder(z) + program.bias.flatten(),
        lambda z: program.prior().log_prob(z),
        seconds=seconds,
    )


def theirs(kind: str, x: Tensor, epochs: int, seed: int) -> Coded:
    """Pythae's, by its own trainer.

    Raises: CapabilityError where Pythae is not installed.
    """
    try:
        from pythae.data.datasets import BaseDataset
        from pythae.models import VAE as Plain
        from pythae.models import VAMP, BetaTCVAE, BetaTCVAEConfig, VAEConfig, VAMPConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
        from pythae.trainers import BaseTrainer, BaseTrainerConfig
    except ImportError as error:
        raise CapabilityError(f"Pythae is not here ({error}): pip install --no-deps pythae==0.1.2 imageio") from error
    d = x.shape[1]

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(d, HIDDEN, 2 * LATENTS, "softplus")

        def forward(self, x: Tensor) -> Any:
            loc, log_scale = self.net(x.reshape(len(x), -1)).chunk(2, -1)
            return ModelOutput(embedding=loc, log_covariance=2 * log_scale)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(LATENTS, HIDDEN[::-1], d, "softplus")

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.net(z).sigmoid())

    common: dict[str, Any] = {"input_dim": (d,), "latent_dim": LATENTS, "reconstruction_loss": "bce"}
    kinds: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "vae": (Plain, VAEConfig, {}),
        "vamp": (VAMP, VAMPConfig, {"number_components": PSEUDO}),
        "beta-tc": (BetaTCVAE, BetaTCVAEConfig, {"beta": TC}),
    }
    model_class, config_class, options = kinds[kind]
    with seeded(seed), tempfile.TemporaryDirectory() as folder:
        model = model_class(config_class(**common, **options), encoder=Encoder(), decoder=Decoder())
        settings = BaseTrainerConfig(
            output_dir=folder, num_epochs=epochs, learning_rate=LR, per_device_train_batch_size=BATCH, seed=seed,
            no_cuda=True,
        )  # fmt: skip
        trainer = BaseTrainer(model, BaseDataset(x, torch.zeros(len(x))), training_config=settings)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    return Coded(*_opened(model.eval(), kind == "vamp"), seconds=seconds)


def _opened(model: Any, vamp: bool) -> tuple[Callable[[Tensor], Any], Callable[[Tensor], Tensor], Any]:
    """Encoder, decoder and prior of a model of Pythae."""

    def encode(x: Tensor) -> Any:
        out = model.encoder(x)
        return Independent(Normal(out.embedding, (0.5 * out.log_covariance).exp()), 1)

    def log_prior(z: Tensor) -> Tensor:
        if not vamp:
            return Normal(0.0, 1.0).log_prob(z).sum(-1)
        each = encode(model.pseudo_inputs(model.idle_input)).log_prob(z.unsqueeze(-2))
        return each.logsumexp(-1) - math.log(each.shape[-1])

    return encode, model.decoder.net, log_prior


SIDES: dict[str, Callable[[str, Tensor, int, int], Coded]] = {"ours": ours, "Pythae": theirs}


def compare(
    kinds: list[str], epochs: int, seeds: int, particles: int
) -> Iterator[tuple[str, str, list[tuple[float, float, float]], float]]:
    """(kind, side, scores by seed, mean seconds of training)."""
    data = datasets.load("mnist10k-binary")
    train, test = (part.x.flatten(1).float() for part in (data.train, data.test))
    for kind in kinds:
        for side, make in SIDES.items():
            made = [make(kind, train, epochs, seed) for seed in range(seeds)]
            yield kind, side, [score(each, test, particles) for each in made], statistics.mean(m.seconds for m in made)


def main() -> None:
    """Prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=list(KINDS), help=", ".join(KINDS))
    for name, default in (("epochs", 20), ("seeds", 2), ("particles", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    where = in_words(hardware("cpu"))
    print(f"# Autoencoders beside Pythae's\n\n`python -m benchmarks.scripts.pythae_peer` on {where}.\n")
    print(
        f"mnist10k binarised; {HIDDEN[0]} hidden units, {LATENTS} latents, Adam {LR:g}, {options.epochs} epochs of "
        f"batches of {BATCH}; test images, nats, by one evaluator; means over {options.seeds} seeds and their range.\n"
    )
    print(f"| model | by | ELBO | IWAE, {options.particles} | total correlation | seconds of training |")
    print("|---|---|---|---|---|---|")
    with progress_bar(True) as bar:
        task = bar.add_task("pythae", total=len(options.kinds) * len(SIDES), note="")
        for kind, side, found, seconds in compare(options.kinds, options.epochs, options.seeds, options.particles):
            cells = [f"{statistics.mean(v):.2f} ({min(v):.2f} to {max(v):.2f})" for v in zip(*found, strict=True)]
            print(f"| {KINDS[kind]} | {side} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)
            bar.update(task, advance=1)


if __name__ == "__main__":
    main()
