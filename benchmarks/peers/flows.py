"""Flows against zuko's and normflows' of the same size, trained by one and the same loop: held-out log-likelihood.

    python -m benchmarks.peers.flows moons circles ring blobs freyfaces

Same layers, hidden widths, bins, optimizer, steps and batches; all see standardised data and keep the parameters of
their best validation score. Grey faces are dequantised afresh for each batch and scored in logit space by the same
draws for everyone, turned into bits per pixel of the grey levels. Each library keeps its own start, permutations and
bound on log scales (ours is tighter than zuko's), so sizes are equal by layers and widths, not to the parameter: every
line says how many there are.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zoo import datasets
from zoo.flows.dequantised import CellGuide
from zoo.flows.realnvp import RealNVP
from zoo.flows.spline import NeuralSpline

__all__ = ["CONTENDERS", "KINDS", "build", "compare", "train"]

CONTENDERS = ("zoo", "zuko", "normflows")
KINDS = ("realnvp", "spline")
BINS, BOUND = 8, 5.0
Density = Callable[[Tensor], Tensor]


def build(who: str, kind: str, d: int, layers: int, hidden: list[int]) -> tuple[nn.Module, Density]:
    """A module, and the log density of rows (B, d) that it gives."""
    if who == "zoo":
        program = (
            RealNVP([d], layers, hidden)
            if kind == "realnvp"
            else NeuralSpline([d], layers, BINS, BOUND, hidden)
        )  # fmt: skip
        return program, program.log_prob
    if who == "zuko":
        return _zuko(kind, d, layers, hidden)
    return _normflows(kind, d, layers, hidden)


def _zuko(kind: str, d: int, layers: int, hidden: list[int]) -> tuple[nn.Module, Density]:
    import zuko

    flow: Any
    if kind == "realnvp":
        flow = zuko.flows.RealNVP(d, transforms=layers, hidden_features=hidden)
    else:
        flow = zuko.flows.NSF(d, bins=BINS, transforms=layers, hidden_features=hidden, passes=2)
    return flow, lambda x: flow().log_prob(x)


def _normflows(kind: str, d: int, layers: int, hidden: list[int]) -> tuple[nn.Module, Density]:
    import normflows as nf

    steps: list[nn.Module] = []
    for i in range(layers):
        if kind == "realnvp":
            net = nf.nets.MLP([(d + 1) // 2, *hidden, 2 * (d // 2)], init_zeros=True)
            steps += [nf.flows.AffineCouplingBlock(net), nf.flows.Permute(d, mode="swap")]
        else:  # its residual network has two layers of this width in each block
            steps.append(
                nf.flows.CoupledRationalQuadraticSpline(
                    d, 1, hidden[0], num_bins=BINS, tail_bound=BOUND, reverse_mask=bool(i % 2)
                )
            )
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(d, trainable=False), steps)
    return flow, flow.log_prob


def train(
    module: nn.Module,
    density: Density,
    batches: Callable[[int], Tensor],
    valid: Tensor,
    steps: int,
    lr: float,
    every: int = 100,
) -> None:
    """Adam with a cosine decay on -log p; leaves the parameters of the best validation score."""
    optimizer = torch.optim.Adam(module.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    best, kept = -math.inf, copy.deepcopy(module.state_dict())
    for step in range(steps):
        optimizer.zero_grad()
        loss = -density(batches(step)).mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % every == 0 or step == steps - 1:
            with torch.no_grad():
                score = float(density(valid).mean())
            if score > best:
                best, kept = score, copy.deepcopy(module.state_dict())
    module.load_state_dict(kept)


def compare(
    name: str, kind: str, who: str, seed: int, layers: int, hidden: list[int], steps: int, batch_size: int, lr: float
) -> dict[str, Any]:
    """One fit: test log-likelihood in nats for points of the plane, bits per pixel for grey faces."""
    data, grey = datasets.load(name), name == "freyfaces"
    generator = torch.Generator().manual_seed(seed)
    parts = [part.x.float() for part in (data.train, data.valid, data.test)]
    d = parts[0][0].numel()

    def rows(x: Tensor) -> Tensor:
        return CellGuide(x.flatten(1), 256, 0.05, 1).rsample() if grey else x.flatten(1)

    torch.manual_seed(1000)  # the same draws of held-out noise for everyone
    start, valid, test = (rows(x) for x in parts)
    inside = CellGuide(parts[2].flatten(1), 256, 0.05, 1).log_prob(test) if grey else 0.0
    loc, scale = start.mean(0), start.std(0, correction=0)
    chosen = [torch.randint(len(parts[0]), (batch_size,), generator=generator) for _ in range(steps)]
    torch.manual_seed(seed)
    module, density = build(who, kind, d, layers, hidden)
    torch.manual_seed(seed)  # the same noise, whatever building drew
    begun = time.perf_counter()
    train(
        module, density, lambda i: (rows(parts[0][chosen[i]]) - loc) / scale, (valid - loc) / scale, steps, lr
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    with torch.no_grad():
        log_prob = density((test - loc) / scale) - scale.log().sum()
        score = -(log_prob - inside) / (d * math.log(2)) if grey else log_prob
    parameters = sum(p.numel() for p in module.parameters())
    return {
        "data": name, "kind": kind, "who": who, "seed": seed, "score": float(score.mean()),
        "error": float(score.std() / len(score) ** 0.5), "unit": "bits/pixel" if grey else "nats",
        "parameters": parameters, "seconds": round(seconds, 1),
    }  # fmt: skip


def main() -> None:
    """A line of JSON for each fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--who", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 64])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=5e-3)
    given = parser.parse_args()
    for name in given.data:
        for kind in given.kinds:
            for seed in range(given.seeds):
                for who in given.who:
                    found = compare(
                        name, kind, who, seed, given.layers, given.hidden, given.steps, given.batch_size, given.lr
                    )
                    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
