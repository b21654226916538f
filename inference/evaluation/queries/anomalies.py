"""What is odd, and how short a code would be: -log2 p(x) of examples, and how well it tells two kinds apart."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor

from inference.evaluation.estimates import checked
from inference.evaluation.likelihood import log_likelihood
from inference.evaluation.partition import unnormalised
from inference.fitted import Fit
from zoo.arrays import as_tensor
from zoo.datasets.data import Data
from zoo.energy.base import EnergyProgram
from zoo.errors import CapabilityError, NonFiniteError, ShapeError, UnknownNameError
from zoo.process import guest
from zoo.program import Program

__all__ = ["anomaly_scores", "auroc", "code_length"]

KNOWN = tuple(inspect.signature(log_likelihood).parameters)[2:]
"""Options of programs with a density, of which energies need the seed alone."""


@torch.no_grad()
def anomaly_scores(program: Program | Fit, x: Any, context: Any = None, **options: Any) -> Tensor:
    """How improbable each example is, (N,): -log2 p(x) per dimension, in bits.

    Of energy-based models (a critic's is relative to its generator) it is that up to the constant log2 Z, which tells
    no two examples apart; of some a bound of it (`inference.evaluation.partition.unnormalised`).

    A high score says that the model gives little density, not that the example is of another kind: a smooth image can
    be more probable than what the model was trained on (Nalisnick et al. 2019).

    Args:
        program: A program with a density, or a fit of one (which a program with global latents needs).
        x: (N, *event_shape).
        context: (N, ...) or None.
        options: Of `inference.evaluation.likelihood.log_likelihood`, such as `guide` and `particles` where there are
            latents; of energy-based models only `seed` says something.

    Raises: CapabilityError where the examples have one density together; what `log_likelihood` raises.
    """
    made = _program(program)
    x, context = checked(made, x, context)
    if isinstance(made, EnergyProgram):
        for option in options:
            if option not in KNOWN:
                raise UnknownNameError("option of anomaly_scores", option, KNOWN)
        return _bits(made, unnormalised(made, Data(x, context), seed=options.get("seed", 0))[0])
    return _bits(made, _log_densities(program, Data(x, context), **options))


def auroc(normal: Tensor, anomalous: Tensor) -> float:
    """Area under the ROC curve: how often an anomaly scores higher than a normal example; ties count half.

    Args:
        normal: Scores (N,).
        anomalous: Scores (M,).

    Raises: ShapeError when either is empty, NonFiniteError.
    """
    if min(len(normal), len(anomalous)) == 0:
        raise ShapeError(f"auroc needs scores of both kinds, got {len(normal)} normal and {len(anomalous)} anomalous.")
    scores = torch.cat([as_tensor(part, "scores").detach().cpu().double() for part in (normal, anomalous)])
    if bool(scores.isnan().any()):
        raise NonFiniteError(f"{int(scores.isnan().sum())} scores are NaN.")
    is_anomalous = torch.arange(len(scores)) >= len(normal)
    # An impossible example scores infinitely; ranks are all that counts.
    ranks = scores.unique(return_inverse=True)[1]
    return float(guest("sklearn.metrics").roc_auc_score(is_anomalous.numpy(), ranks.numpy()))


@torch.no_grad()
def code_length(program: Program | Fit, data: Any, **options: Any) -> Tensor:
    """Bits of an ideal lossless code for each example, -log2 p(x): (N,). `inference.evaluation.queries.compression`
    makes such a code.

    Args:
        program: A program with a density over discrete values; under a bound (IWAE) the length is one above.
        data: Examples.
        options: Of `inference.evaluation.likelihood.log_likelihood`.

    Raises: CapabilityError for real values, whose codes would be endless.
    """
    made = _program(program)
    if not made.support.is_discrete:
        raise CapabilityError(
            f"{type(made).__name__} is a density of real numbers ({made.support}): no finite code is lossless. "
            "Use a program over bits or levels."
        )
    return _bits(made, _log_densities(program, checked(made, data), **options)) * made.event_shape.numel()


def _log_densities(program: Program | Fit, data: Data, **options: Any) -> Tensor:
    """log p(x) of each example, (N,)."""
    values = log_likelihood(program, data, **options).values
    if len(values) != data.size:
        raise CapabilityError("This guide holds factors for its examples together, so one has no density of its own.")
    return values


def _bits(program: Program, values: Tensor) -> Tensor:
    """Nats of examples as bits per dimension, of the other sign."""
    return -values / (program.event_shape.numel() * math.log(2.0))


def _program(program: Program | Fit) -> Program:
    return program.program if isinstance(program, Fit) else program
