"""What went wrong, and how good a bound is on held-out data: asked by all methods that climb one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import nn

from inference.methods.bounds import Objective
from zoo.datasets.data import Data
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
        torch.manual_seed(seed)
        total = sum(
            float(objective(program, guide, batch, batch.size)[1]) * batch.size for batch in data.batches(batch_size)
        )
    program.train(was_training)
    return -total / data.size


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
