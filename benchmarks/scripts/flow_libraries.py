"""Flows against zuko's and normflows' of the same size, trained by one and the same loop: held-out log-likelihood.

    python -m benchmarks.scripts.flow_libraries moons circles ring blobs freyfaces

Same layers, hidden widths, bins, optimizer, weight decay, steps and batches; all see standardised data, stop when the
validation score has not risen for `--patience` looks and keep the parameters of the best one, the start included.
Every line has that validation score, to choose settings by. Grey faces are dequantised afresh for each batch and scored
in logit space by the same draws for everyone, turned into bits per pixel of the grey levels. Each library keeps its own
start, permutations and bound on log scales (ours is tighter than zuko's), so sizes are equal by layers and widths, not
to the parameter: every line says how many there are.
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
from zoo.flows.dequantised import CellGuide, Cells
from zoo.flows.realnvp import RealNVP
from zoo.flows.spline import NeuralSpline

__all__ = ["CONTENDERS", "KINDS", "build", "compare", "examples", "rows", "train"]

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
            else NeuralSpline([d], layers, bins=BINS, bound=BOUND, hidden=hidden)
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
    patience: int | None = None,
    weight_decay: float = 0.0,
) -> tuple[float, int]:
    """AdamW with a cosine decay on -log p; leaves the parameters of the best validation score, the start included.

    Args:
        module, density: What to train, and the log density of rows (B, d) that it gives.
        batches: The minibatch of a step.
        valid: Held-out rows, scored before the first step, each `every` steps and at the end.
        steps: At most.
        lr, weight_decay: Of AdamW.
        every: See valid.
        patience: Looks at the validation score in a row that may fail to raise it; None goes on to the end.

    Returns the best validation score and the step it was seen at.
    """
    optimizer = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    @torch.no_grad()
    def look() -> float:
        return float(density(valid).mean())

    best, found, kept, failed = look(), 0, copy.deepcopy(module.state_dict()), 0
    for step in range(steps):
        optimizer.zero_grad()
        loss = -density(batches(step)).mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % every == 0 or step == steps - 1:
            score = look()
            if score > best:
                best, found, kept, failed = score, step + 1, copy.deepcopy(module.state_dict()), 0
            else:
                failed += 1
                if failed == patience:
                    break
    module.load_state_dict(kept)
    return best, found


def compare(
    name: str,
    kind: str,
    who: str,
    seed: int,
    *,
    layers: int,
    hidden: list[int],
    steps: int,
    batch_size: int,
    lr: float,
    shuffled: bool = False,
    **stopping: Any,
) -> dict[str, Any]:
    """One fit: test log-likelihood in nats for points of the plane, bits per pixel for grey faces.

    `shuffled` is that of `examples`; `stopping` is `every`, `patience` and `weight_decay` of `train`.
    """
    grey, parts = name == "freyfaces", examples(name, shuffled)
    d = parts[0][0].numel()
    torch.manual_seed(1000)  # the same draws of held-out noise for everyone
    start, valid, test = (rows(x, grey) for x in parts)
    inside = [
        _within_levels(x, u) if grey else torch.zeros(len(x)) for x, u in zip(parts[1:], (valid, test), strict=True)
    ]
    loc, scale = start.mean(0), start.std(0, correction=0)
    generator = torch.Generator().manual_seed(seed)
    chosen = [torch.randint(len(parts[0]), (batch_size,), generator=generator) for _ in range(steps)]
    torch.manual_seed(seed)
    module, density = build(who, kind, d, layers, hidden)
    torch.manual_seed(seed)  # the same noise, whatever building drew

    def batch(step: int) -> Tensor:
        return (rows(parts[0][chosen[step]], grey) - loc) / scale

    begun = time.perf_counter()
    best, stopped = train(module, density, batch, (valid - loc) / scale, steps, lr, **stopping)
    seconds = time.perf_counter() - begun

    def in_units(log_prob: Tensor, inside: Tensor) -> Tensor:
        found = log_prob - scale.log().sum() - inside
        return -found / (d * math.log(2)) if grey else found

    with torch.no_grad():
        score = in_units(density((test - loc) / scale), inside[1])
    return {
        "data": name + " (shuffled)" * shuffled, "kind": kind, "who": who, "seed": seed, "score": float(score.mean()),
        "valid": float(in_units(torch.tensor(best), inside[0].mean())), "step": stopped,
        "error": float(score.std() / len(score) ** 0.5), "unit": "bits/pixel" if grey else "nats",
        "parameters": sum(p.numel() for p in module.parameters()), "seconds": round(seconds, 1),
    }  # fmt: skip


def examples(name: str, shuffled: bool) -> list[Tensor]:
    """Training, validation and test examples.

    `shuffled` splits them at random, the same way for everyone, instead of as the data set does: the splits of
    freyfaces are consecutive blocks of a film, and its test block looks unlike the others.
    """
    data = datasets.load(name)
    parts = [part.x.float() for part in (data.train, data.valid, data.test)]
    if not shuffled:
        return parts
    order = torch.randperm(sum(map(len, parts)), generator=torch.Generator().manual_seed(0))
    return list(torch.cat(parts)[order].split([len(part) for part in parts]))


def rows(x: Tensor, grey: bool) -> Tensor:
    """Examples as rows (B, d), levels of grey with fresh noise and in logit space."""
    return _cells(x).rsample() if grey else x.flatten(1)


def _within_levels(x: Tensor, u: Tensor) -> Tensor:
    """Log density (B,) of the noise that made rows u of grey levels x."""
    return _cells(x).log_prob(u)


def _cells(x: Tensor) -> CellGuide:
    return CellGuide(x.flatten(1), Cells(256, 0.05), 1)


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
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--patience", type=int, default=None)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--shuffled", action="store_true", help="split the examples at random")
    given = parser.parse_args()
    for name in given.data:
        for kind in given.kinds:
            for seed in range(given.seeds):
                for who in given.who:
                    found = compare(
                        name, kind, who, seed, layers=given.layers, hidden=given.hidden, steps=given.steps,
                        batch_size=given.batch_size, lr=given.lr, shuffled=given.shuffled, every=given.every,
                        patience=given.patience, weight_decay=given.weight_decay,
                    )  # fmt: skip
                    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
