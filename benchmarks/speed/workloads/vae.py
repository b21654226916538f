"""The variational autoencoder, 784-400-20 or convolutional, by every contender, from the same weights.

All networks are the zoo's (`zoo.nets`); NumPyro's are the same layers in jax, the convolutions with channels last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from benchmarks.speed.contender import (
    Contender,
    Unavailable,
    Work,
    at_hand,
    numpyro_contenders,
    pyro_contender,
    torch_contenders,
    zoo_contenders,
)
from zoo.datasets import Data
from zoo.latent.vae import VAE

__all__ = ["contenders", "work"]

LATENT = 20
ROWS = 8192
"""So that batches of 128 and of 4096 come out even."""


def work(
    device: str = "cpu", seed: int = 0, batch_size: int = 128, network: str = "mlp", rows: int = ROWS, lr: float = 1e-3
) -> Work:
    """Binary digits; random pixels of the same shape where MNIST is not on this machine (the work is the same)."""
    try:
        loaded, source = at_hand("mnist10k-binary"), "mnist10k-binary"
        x = torch.cat([loaded.train.x, loaded.valid.x])[:rows].float()
    except Unavailable:
        generator = torch.Generator().manual_seed(seed)
        x, source = torch.rand(rows, 28, 28, generator=generator, dtype=torch.float32).lt(0.13).float(), "random pixels"
    facts = {"network": network, "latent_dim": LATENT, "data": source, "estimator": "one draw of the ELBO"}
    return Work(Data(x.to(torch.device(device))), batch_size, lr, seed=seed, facts=facts)


def contenders(job: Work) -> list[Contender]:
    """Everyone."""
    return [
        *zoo_contenders(lambda: by_zoo(job), job),
        pyro_contender(
            lambda: by_pyro(job), job, job.batch_size, "pyro.module, as in Pyro's VAE tutorial; Trace_ELBO, Adam"
        ),
        *torch_contenders(lambda: by_torch(job), job),
        *numpyro_contenders(
            lambda: by_numpyro(job), job, job.batch_size, "the weights as one numpyro.param, Trace_ELBO"
        ),
    ]


def by_zoo(job: Work) -> tuple[VAE, Mapping[str, Any]]:
    """The program of the zoo; its weights, drawn from the seed, are where everyone starts."""
    hidden = [400] if job.facts["network"] == "mlp" else [32, 64]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        program = VAE(
            [28, 28], job.facts["latent_dim"], hidden, network=job.facts["network"], activation="relu"
        )  # fmt: skip
    return program.float().to(job.device), {"elbo": "trace"}


def networks(job: Work) -> tuple[nn.Module, nn.Module, nn.Parameter]:
    """Encoder (..., 28, 28 or 784) -> (..., 2 k), decoder (..., k) -> logits but for the last bias, and that bias."""
    program, _ = by_zoo(job)
    return program.encoder, program.decoder, program.bias


def by_pyro(job: Work) -> tuple[Any, Any, Trace_ELBO]:
    """Plain Pyro."""
    encoder, decoder, bias = networks(job)
    decoder.register_parameter("last_bias", bias)
    shape = (1, 28, 28) if job.facts["network"] == "conv" else (784,)

    def model(x: Tensor, context: None) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(LATENT), 1.0).to_event(1))
            logits = decoder(z).reshape(len(x), 28, 28) + decoder.last_bias
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(2), obs=x)

    def guide(x: Tensor, context: None) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = encoder(x.reshape(len(x), *shape)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return model, guide, Trace_ELBO()


def by_torch(job: Work) -> tuple[list[nn.Parameter], Any]:
    """Networks, noise and the bound; the same one-draw estimator, with log q at the draw in terms of the noise."""
    encoder, decoder, bias = networks(job)
    shape = (1, 28, 28) if job.facts["network"] == "conv" else (784,)

    def loss(x: Tensor, context: Tensor | None) -> Tensor:
        n = len(x)
        loc, log_scale = encoder(x.reshape(n, *shape)).chunk(2, -1)
        noise = torch.randn_like(loc)
        z = loc + log_scale.exp() * noise
        logits = decoder(z).reshape(n, 28, 28) + bias
        reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = 0.5 * ((z * z).sum() - (noise * noise).sum()) - log_scale.sum()
        return (reconstruction + kl) / n

    return [*encoder.parameters(), *decoder.parameters(), bias], loss


def by_numpyro(job: Work) -> tuple[Any, Any, Any]:
    """Plain NumPyro."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as npd
    from numpyro.infer import Trace_ELBO as Elbo

    encoder, decoder, bias = networks(job)
    encode, encoder_weights, decode, decoder_weights = (_jax_conv if job.facts["network"] == "conv" else _jax_mlp)(
        encoder, decoder
    )
    start = {"layers": decoder_weights, "bias": jnp.asarray(bias.detach().cpu().numpy())}

    def model(x: Any, context: None = None) -> None:
        weights = numpyro.param("decoder", start)
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", npd.Normal(jnp.zeros(LATENT), 1.0).to_event(1))
            logits = decode(weights["layers"], z) + weights["bias"]
            numpyro.sample("x", npd.Bernoulli(logits=logits).to_event(2), obs=x)

    def guide(x: Any, context: None = None) -> None:
        weights = numpyro.param("encoder", encoder_weights)
        with numpyro.plate("data", len(x)):
            loc, log_scale = jnp.split(encode(weights, x), 2, -1)
            numpyro.sample("z", npd.Normal(loc, jnp.exp(log_scale)).to_event(1))

    return model, guide, Elbo()


def _array(tensor: Tensor) -> Any:
    import jax.numpy as jnp

    return jnp.asarray(tensor.detach().cpu().numpy())


def _jax_mlp(encoder: nn.Module, decoder: nn.Module) -> tuple[Any, Any, Any, Any]:
    """(encode, its weights, decode, its weights) of two perceptrons with one hidden layer."""
    import jax

    def weights(net: nn.Module) -> list[Any]:
        linear = [m for m in net.modules() if isinstance(m, nn.Linear)]
        return [(_array(m.weight).T, None if m.bias is None else _array(m.bias)) for m in linear]

    def apply(layers: Any, x: Any) -> Any:
        for i, (w, b) in enumerate(layers):
            x = (jax.nn.relu(x) if i else x) @ w
            x = x if b is None else x + b
        return x

    def encode(layers: Any, x: Any) -> Any:
        return apply(layers, x.reshape(len(x), 784))

    def decode(layers: Any, z: Any) -> Any:
        return apply(layers, z).reshape(len(z), 28, 28)

    return encode, weights(encoder), decode, weights(decoder)


def _jax_conv(encoder: nn.Module, decoder: nn.Module) -> tuple[Any, Any, Any, Any]:
    """The same for strided 3x3 convolutions and their transposes, channels last, as XLA likes them on a CPU."""
    import jax

    convolutions = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    transposed = [m for m in decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    last = next(m for m in encoder.modules() if isinstance(m, nn.Linear))
    first = next(m for m in decoder.modules() if isinstance(m, nn.Linear))
    channels = transposed[0].in_channels
    side = math.isqrt(first.out_features // channels)

    def pairs(layers: list[Any], order: tuple[int, ...], flip: bool) -> list[Any]:
        kernels = [m.weight.flip(2, 3) if flip else m.weight for m in layers]
        biases = [None if m.bias is None else _array(m.bias) for m in layers]
        return [(_array(k.permute(order).contiguous()), b) for k, b in zip(kernels, biases, strict=True)]

    # torch flattens (channels, height, width); here it is (height, width, channels).
    flat = last.weight.unflatten(1, (channels, side, side)).permute(0, 2, 3, 1).flatten(1)
    wide = first.weight.unflatten(0, (channels, side, side)).permute(1, 2, 0, 3).flatten(0, 2)
    assert first.bias is not None
    wide_bias = first.bias.unflatten(0, (channels, side, side)).permute(1, 2, 0).flatten()
    down = {
        "convolutions": pairs(convolutions, (2, 3, 1, 0), False),
        "linear": (_array(flat).T, _array(last.bias)),
    }
    up = {"linear": (_array(wide).T, _array(wide_bias)), "convolutions": pairs(transposed, (2, 3, 0, 1), True)}
    kinds = ("NHWC", "HWIO", "NHWC")

    def encode(weights: Any, x: Any) -> Any:
        x = x[..., None]
        for kernel, b in weights["convolutions"]:
            x = jax.lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=kinds) + b
            x = jax.nn.relu(x)
        w, b = weights["linear"]
        return x.reshape(len(x), -1) @ w + b

    def decode(weights: Any, z: Any) -> Any:
        w, b = weights["linear"]
        x = (z @ w + b).reshape(len(z), side, side, channels)
        for kernel, b in weights["convolutions"]:
            x = jax.nn.relu(x)
            # A transposed convolution of stride 2, padding 1 and output padding 1.
            x = jax.lax.conv_general_dilated(
                x, kernel, (1, 1), ((1, 2), (1, 2)), lhs_dilation=(2, 2), dimension_numbers=kinds
            )
            x = x if b is None else x + b
        return x.squeeze(-1)

    return encode, down, decode, up
