"""What is known of energy-based models exactly, beside what their methods say: `python -m benchmarks.scripts.energies`.

Three tables: the gradient of each kind of chains beside the exact one, on an RBM of 10 and 8 units; log Z by annealing
beside the sum over all states, on RBMs of up to 20 hidden units; deep energies of the plane, by every method, beside
the density that the data were drawn from, on a grid.

    OMP_NUM_THREADS=1 python -m benchmarks.scripts.energies > docs/results/energies-cpu.md
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import hardware, in_words
from inference import fit
from inference.environment import seeded
from inference.evaluation.partition import bracket_log_partition
from inference.methods.cd import ContrastiveDivergence
from inference.training.loop import progress_bar
from zoo import catalogue, datasets
from zoo.datasets.modes import GAUSSIANS
from zoo.energy.deep import DeepEnergy
from zoo.energy.rbm import RBM

__all__ = ["brackets", "gradients", "main", "planes"]

CHAINS: dict[str, dict[str, Any]] = {
    "CD-1": {"chains": "data", "sweeps": 1},
    "CD-5": {"chains": "data", "sweeps": 5},
    "CD-25": {"chains": "data", "sweeps": 25},
    "persistent, 1 sweep": {"chains": "persistent", "sweeps": 1},
    "persistent, 5 sweeps": {"chains": "persistent", "sweeps": 5},
}
PLANE: dict[str, tuple[str, dict[str, Any]]] = {
    "contrastive divergence, replay buffer": ("cd", {"chains": "replay", "sweeps": 20, "lr": 1e-3}),
    "denoising score matching": ("score-matching", {"objective": "denoising", "noise": 0.1, "lr": 3e-3}),
    "sliced score matching": ("score-matching", {"objective": "sliced", "lr": 3e-3}),
    "noise contrast, Gaussian noise": ("nce", {"ratio": 4, "lr": 3e-3}),
}


def random_rbm(units: int, hidden: int, seed: int, size: float) -> RBM:
    """With weights from N(0, size^2) and a base with the program's own biases."""
    with seeded(seed):
        program = RBM([units], hidden, particles=500)
        with torch.no_grad():
            program.weight.copy_(size * torch.randn_like(program.weight))
            program.bias.copy_(0.5 * torch.randn(units))
            program.hidden_bias.copy_(0.5 * torch.randn(hidden))
        program.location.copy_(program.bias.detach())
    return program


def gradients(repeats: int = 200, warm: int = 50) -> Iterator[tuple[str, float, float]]:
    """(chains, |bias|, standard deviation), both relative to the length of the exact gradient.

    At parameters that stand still, with 500 examples of another RBM, as many persistent chains, which have had `warm`
    steps to get there.
    """
    program = random_rbm(10, 8, seed=0, size=1.0)
    with seeded(1):
        x = random_rbm(10, 8, seed=1, size=1.0).draw_exactly(500)
        truth = _gradient(program, ContrastiveDivergence(chains="exact"), x)
        for name, options in CHAINS.items():
            method = ContrastiveDivergence(**options)
            program.restart()
            for _ in range(warm):
                method.negatives(program, x)
            found = torch.stack([_gradient(program, method, x) for _ in range(repeats)])
            spread = found.var(0).sum().sqrt()
            yield name, float((found.mean(0) - truth).norm() / truth.norm()), float(spread / truth.norm())


def _gradient(program: RBM, method: ContrastiveDivergence, x: Tensor) -> Tensor:
    loss = method.loss(program, x)[0]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(program.parameters()))])


def brackets(seeds: int = 10, chains: int = 100, steps: int = 500) -> Iterator[tuple[int, float, float, float, float]]:
    """(hidden units, lower bound - log Z, its error, upper bound - log Z, its error), RBMs of 30 units."""
    for seed in range(seeds):
        hidden = 2 * (seed + 1)
        program = random_rbm(30, hidden, seed, size=0.5)
        truth = float(program.log_partition().detach())
        found = bracket_log_partition(program, chains=chains, steps=steps, seed=seed)
        sides = [(side.mean - truth, float(_error(side.monte_carlo_error))) for side in (found.lower, found.upper)]
        yield hidden, *sides[0], *sides[1]


def _error(error: Tensor | None) -> Tensor:
    assert error is not None
    return error


def planes(data: str = "ring", seeds: int = 3, steps: int = 2000) -> Iterator[tuple[str, list[float], float]]:
    """(method, KL from the data's density on a grid by seed, seconds of the last fit); first that of the Gaussian."""
    points, log_truth = _grid(data)
    train = datasets.load(data).train
    for name, (method, options) in {"its Gaussian alone": ("", {}), **PLANE}.items():
        found, seconds = [], 0.0
        for seed in range(seeds):
            with seeded(seed):
                program = catalogue.create_for("deep-energy", train, hidden=[128, 128], step=0.1)
            assert isinstance(program, DeepEnergy)
            started = time.perf_counter()
            if method:
                fit(program, train, method, seed=seed, steps=steps, batch_size=128, **options)
            else:
                program.initialise(train.x)
            seconds = time.perf_counter() - started
            found.append(_divergence(program, points, log_truth, alone=not method))
        yield name, found, seconds


@torch.no_grad()
def _divergence(program: DeepEnergy, points: Tensor, log_truth: Tensor, alone: bool) -> float:
    """KL(data || program), both normalised on the grid."""
    told = [program.tempered(part, 0.0 if alone else 1.0) for part in points.split(20_000)]
    log_model = torch.cat(told).log_softmax(0)
    return float((log_truth.exp() * (log_truth - log_model)).sum())


def _grid(data: str, side: int = 401) -> tuple[Tensor, Tensor]:
    """Points (n, 2) and the log of what the data were drawn from, normalised on them."""
    mixture = GAUSSIANS[data]
    centres = torch.tensor(mixture.centres, dtype=torch.get_default_dtype())
    edge = float(centres.abs().max()) + 2
    line = torch.linspace(-edge, edge, side)
    points = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    density = -(points[:, None] - centres).square().sum(-1) / (2 * mixture.sd**2)
    return points, density.logsumexp(1).log_softmax(0)


HEADS = (
    "## Gradients of an RBM of 10 and 8 units\n\nRelative to the length of the exact gradient; 500 examples.\n\n"
    "| chains | bias | standard deviation |\n|---|---|---|",
    "\n## log Z of RBMs of 30 units\n\nBy 100 chains of 500 temperatures, less the sum over all states; nats.\n\n"
    "| hidden units | from below | its error | from above | its error |\n|---|---|---|---|---|",
    "\n## Deep energies on `ring`\n\nKL from the data's own density on a grid, 2,000 steps; median, range of 3.\n\n"
    "| method | KL, nats | range | seconds |\n|---|---|---|---|",
)


def main() -> None:
    """Prints the three tables as Markdown."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    where = in_words(hardware("cpu"))
    with progress_bar(True) as bar:
        task = bar.add_task("energies", total=3, note="gradients")
        print(f"# Energy-based models beside what is exact\n\n`python -m benchmarks.scripts.energies` on {where}.\n")
        print(HEADS[0])
        for name, bias, spread in gradients():
            print(f"| {name} | {bias:.3f} | {spread:.3f} |")
        bar.update(task, advance=1, note="log Z")
        print(HEADS[1])
        for hidden, low, low_error, high, high_error in brackets():
            print(f"| {hidden} | {low:+.4f} | {low_error:.4f} | {high:+.4f} | {high_error:.4f} |")
        bar.update(task, advance=1, note="the plane")
        print(HEADS[2])
        for name, found, seconds in planes():
            middle = statistics.median(found)
            print(f"| {name} | {middle:.3f} | {min(found):.3f} to {max(found):.3f} | {seconds:.0f} |")
        bar.update(task, advance=1)


if __name__ == "__main__":
    main()
