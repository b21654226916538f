"""What went wrong, and how good a bound is on held-out data: asked by all methods that climb one."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from inference.methods.bounds import Objective
from inference.training.convergence import ConvergenceNotice, Path, verdict
from inference.training.loop import Loop
from zoo.datasets.data import Data
from zoo.process import set_seed
from zoo.program import Program

__all__ = []


@torch.no_grad()
def evaluate_objective(
    objective: Objective, program: Program, guide: Callable[..., Any], data: Data, batch_size: int, seed: int
) -> float:
    """Minus the bound per example over a data set; the same noise every time, so that rounds can be compared."""
    was_training = program.training
    program.eval()
    with torch.random.fork_rng():
        set_seed(seed)
        total = sum(
            float(objective(program, guide, batch, batch.size)[1]) * batch.size for batch in data.batches(batch_size)
        )
    program.train(was_training)
    return -total / data.size


DRAWS = 16
"""Evaluations of a bound at each point of a path: of the data, or of as many minibatches."""


def convergence(loop: Loop, objective: Objective, program: Program, guide: Callable[..., Any]) -> dict[str, Any]:
    """Whether a fit has converged (see `inference.training.convergence`), for `Outcome.info`.

    Warns: ConvergenceNotice, where its bound still rises.
    """
    if loop.path is None or not loop.path.parameters:
        return {"verdict": "converged"}  # nothing moves
    if loop.best is not None:
        return {"verdict": "best on validation data"}
    tied = any(site.is_global for site in program.sites().values())
    found = path_gain(loop.path, objective, program, guide, data=loop.data, batch_size=loop.schedule.batch_size)
    losses = loop.history.series("penalised_loss")[1] or loop.history.series("loss")[1]  # of what was climbed
    result = verdict(found, losses, loop.data.size, tied)
    if result["verdict"] == "still improving":
        unit = f"{result['gain'] * loop.data.size:.3g} nats" if tied else f"{result['gain']:.3g} nats per example"
        other = ", or guide='multivariate_normal', which needs no steps" if tied else ""
        warnings.warn(
            f"SVI of {type(program).__name__} was still under way when it ended: its bound rises by another {unit} "
            f"further along the path of the parameters. Take more steps (steps={2 * loop.total}), a larger lr, or "
            f"standardised data{other}; Fit.info['convergence'] has the numbers.",
            ConvergenceNotice,
            stacklevel=2,
        )
    return result


def path_gain(
    path: Path, objective: Objective, program: Program, guide: Callable[..., Any], *, data: Data, batch_size: int
) -> dict[str, float] | None:
    """What a bound gains further along the path of a fit."""

    def bounds(draw: int) -> Tensor:
        generator, found = torch.Generator().manual_seed(draw), list[Tensor]()
        with (
            torch.random.fork_rng([data.x.device] if data.x.device.type == "cuda" else []),
            pyro.validation_enabled(False),
        ):
            set_seed(draw)
            for _ in range(DRAWS):
                batch = data
                if data.size > batch_size:
                    chosen = torch.randperm(data.size, generator=generator)[:batch_size]
                    batch = data.rows(chosen.to(data.x.device))
                found.append(objective(program, guide, batch, data.size)[1])
        return torch.stack(found).double()

    was_training = program.training
    program.eval()
    found = path.gain(bounds)
    program.train(was_training)
    return found


def diagnose(program: Program, guide: Callable[..., Any], batch: Data) -> str:
    """Names the parameter or site that is not finite, for the error message of a diverged fit."""
    for what, module in (("parameter", program), ("guide parameter", guide)):
        if isinstance(module, nn.Module):
            for name, value in module.named_parameters():
                if not bool(torch.isfinite(value).all()):
                    return f"The {what} {name!r} is not finite."
    with torch.no_grad(), pyro.validation_enabled(False):
        guided = poutine.trace(guide).get_trace(*batch, None)
        trace = poutine.trace(poutine.replay(program.model, trace=guided)).get_trace(*batch, None)
        for name, site in itertools.chain(guided.nodes.items(), trace.nodes.items()):
            if site["type"] == "sample" and not bool(torch.isfinite(site["fn"].log_prob(site["value"])).all()):
                return f"The log density of site {name!r} is not finite."
    return ""
