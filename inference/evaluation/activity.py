"""Which latents a program uses: how much of each its posterior mean moves from example to example.

Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", ICLR 2016, section 5.2: a unit is active if
Cov_x(E_q(z|x)[z]) is above 0.01. One that says nothing of x has its prior for a posterior, and stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inference.environment import evaluating
from inference.evaluation.estimates import BATCH, checked
from inference.fitted import Fit
from inference.guides.named import needs_full_batch
from inference.particles import draw
from inference.requirements import why_not_local
from zoo.errors import CapabilityError, EmptyDataError
from zoo.options import Values, check_value
from zoo.program import Program

__all__ = ["ACTIVE", "activity"]

ACTIVE = 0.01
"""Variance of the posterior mean from which on a unit counts as active."""


@torch.no_grad()
def activity(
    program: Program | Fit,
    data: Any,
    *,
    guide: Callable[..., Any] | None = None,
    particles: int = 20,
    seed: int = 0,
) -> dict[str, Tensor]:
    """The variance over examples of the posterior mean of each latent number: site -> (*event_shape).

    `(values > ACTIVE).sum()` counts the active ones of a site. Two halves of the draws have independent errors, whose
    product has mean zero: the estimate has no bias, and may be a little below zero.

    Args:
        program: A program whose latents are continuous and of single examples, or a fit of one.
        data: Examples, of any kind that `Data.of` takes; two or more.
        guide: None is that of the fit, or the program's own.
        particles: Draws for each example, at least 2.
        seed: Everything random follows from it.

    Raises: CapabilityError for other latents; EmptyDataError for a single example; OptionError.
    """
    check_value("particles", particles, Values)
    if isinstance(program, Fit):
        program, guide = program.program, program.guide if guide is None else guide
    reason = why_not_local(program)
    if reason is not None:
        raise CapabilityError(f"{type(program).__name__} has no units that could be active: {reason}.")
    if guide is None and not program.has_guide:
        raise CapabilityError(f"{type(program).__name__} has no guide, by whose means units are told apart; fit one.")
    if guide is not None and needs_full_batch(guide, program):
        raise CapabilityError(
            f"This guide of {type(program).__name__} holds factors of the examples that it was fitted to, and knows "
            "nothing of others; take a guide that reads examples."
        )
    given, data = guide if guide is not None else program.guide, checked(program, data)
    if data.size < 2:
        raise EmptyDataError("A variance over examples takes two of them or more; got one.")
    found: dict[str, list[Tensor]] = {}
    with evaluating(program, guide, seed, data.x.device):
        for batch in data.batches(BATCH):
            for name, values in draw(given, particles, *batch, density=False).values.items():
                half = particles // 2
                found.setdefault(name, []).append(torch.stack([values[:half].mean(0), values[half:].mean(0)]))
    means = {name: torch.cat(parts, 1) for name, parts in found.items()}
    moved = {name: value - value.mean(1, keepdim=True) for name, value in means.items()}
    return {name: (a * b).sum(0) / (data.size - 1) for name, (a, b) in moved.items()}
