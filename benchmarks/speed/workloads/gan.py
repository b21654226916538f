"""A game on digits: the DCGAN's step, a turn of the critic and one of the generator, and weights averaged over steps.

The networks are the zoo's; the step by hand is plain PyTorch: the critic's turn on the minibatch and on fresh samples,
the generator's on samples of its own, each with its Adam, then the average of the generator's weights and of the
running moments of its normalisations. Ours looks at the game besides, in every step (accuracy of the critic,
divergence, diversity of samples): two more passes of the critic, without slopes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.speed.contender import ByHand, Contender, Turn, Work, at_hand, turn_contenders, zoo_contenders
from zoo.datasets import Data
from zoo.implicit.dcgan import DCGAN
from zoo.program import Program

__all__ = ["Average", "by_hand", "contenders", "players", "work"]

PRESET = DCGAN.presets["small"]
ROWS = 8000
"""So that batches of 32 come out even."""


def work(
    device: str = "cpu",
    seed: int = 0,
    batch_size: int = PRESET.fit["batch_size"],
    channels: Sequence[int] = PRESET.program["channels"],
    rows: int = ROWS,
    lr: float = PRESET.fit["lr"],
    critic_lr: float = PRESET.fit["critic_lr"],
) -> Work:
    """Digits with levels in [0, 1]; what is not given is the preset's.

    Raises: Unavailable when the data are not on this machine.
    """
    x = at_hand("mnist10k").train.x[:rows].to(torch.device(device), torch.float32)
    facts = {
        "channels": list(channels),
        "latent_dim": PRESET.program["latent_dim"],
        "critic_lr": critic_lr,
        "betas": PRESET.fit["betas"],
        "ema": PRESET.fit["ema"],
    }
    return Work(Data(x), batch_size, lr, seed=seed, facts=facts)


def contenders(job: Work) -> list[Contender]:
    """Ours, and the step by hand."""
    return [
        *zoo_contenders(lambda: by_zoo(job), job, "gan"),
        *turn_contenders(lambda: by_hand(job), job, "two turns written out; a loop over the averaged tensors"),
    ]


def players(job: Work) -> tuple[DCGAN, nn.Module]:
    """The program with its generator, and the critic, in training mode; their weights are where everyone starts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        program = DCGAN([28, 28], job.facts["latent_dim"], job.facts["channels"])
        critic = program.critic()
    return program.float().to(job.device).train(), critic.float().to(job.device).train()


def by_zoo(job: Work) -> tuple[Program, Mapping[str, Any]]:
    """The game of the zoo."""
    program, critic = players(job)
    return program, {"critic": critic, **{name: job.facts[name] for name in ("critic_lr", "betas", "ema")}}


def by_hand(job: Work) -> ByHand:
    """Goodfellow's losses, the generator's that which does not saturate."""
    program, critic = players(job)
    generator, latent_dim = program.net, job.facts["latent_dim"]
    betas = (float(job.facts["betas"][0]), float(job.facts["betas"][1]))

    def made(n: int) -> Tensor:
        z = 2 * torch.rand(n, latent_dim, device=job.device) - 1
        return (torch.tanh(generator(z)).reshape(n, 28, 28) + 1) / 2

    def critic_loss(x: Tensor, context: Tensor | None) -> Tensor:
        with torch.no_grad():
            fake = made(len(x))
        return F.softplus(-critic(x)).mean() + F.softplus(critic(fake)).mean()

    def generator_loss(x: Tensor, context: Tensor | None) -> Tensor:
        return F.softplus(-critic(made(len(x)))).mean()

    turns = [
        Turn(list(critic.parameters()), critic_loss, job.facts["critic_lr"], betas=betas),
        Turn(list(generator.parameters()), generator_loss, job.lr, betas=betas),
    ]
    moments = [buffer for buffer in generator.buffers() if buffer.is_floating_point()]
    return ByHand(turns, Average([*generator.parameters(), *moments], job.facts["ema"]))


class Average:
    """An exponential moving average of tensors whose decay is short at first, updated by each call."""

    def __init__(self, tensors: Sequence[Tensor], decay: float):
        self.tensors, self.decay = [tensor.detach() for tensor in tensors], decay
        self.values = [tensor.clone() for tensor in self.tensors]
        # On the device, where a captured step counts too.
        self.done = self.tensors[0].new_zeros(())

    @torch.no_grad()
    def __call__(self) -> None:
        """After each step."""
        weight = 1 - ((1 + self.done) / (10 + self.done)).clamp(max=self.decay)
        for value, tensor in zip(self.values, self.tensors, strict=True):
            value.lerp_(tensor, weight)
        self.done += 1
