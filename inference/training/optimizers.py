"""Optimizers by name, learning rates over a run, and the arithmetic of training steps."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from inference.environment import convolutions
from inference.processes import average_gradients
from zoo.errors import OptionError
from zoo.options import NonNegative, check_value

__all__ = [
    "DECAYS", "OPTIMIZERS", "Rate", "adam", "check_optimizer", "descend", "make_optimizer", "numerics", "rate",
    "set_rate",
]  # fmt: skip


Rate = Callable[[int], float]
"""A scheduled quantity, from the number of steps done."""
DECAYS = ("cosine", "constant")


# L-BFGS wants to evaluate the loss itself, SparseAdam sparse gradients, Muon matrices alone.
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    name.lower(): found
    for name, found in vars(torch.optim).items()
    if isinstance(found, type) and issubclass(found, torch.optim.Optimizer)
    if name not in ("Optimizer", "LBFGS", "SparseAdam", "Muon")
}
"""Name -> class, of torch.optim."""

FUSED = (torch.optim.Adam, torch.optim.AdamW)
"""Those that update all parameters by one operation, where they would take a dozen for each."""


def rate(decay: str, start: float, total: int, end: float = 0.0) -> Rate:
    """Learning rate by number of steps done.

    Args:
        decay: 'constant', or 'cosine': half a wave from `start` to `end` (Loshchilov & Hutter 2017, without restarts).
        start: At the first step.
        total: Length of the run in steps.
        end: At its end.

    Raises: OptionError.
    """
    if decay == "constant":
        return lambda done: start
    if decay != "cosine":
        raise OptionError(f"decay must be 'cosine' or 'constant', got {decay!r}.")
    return lambda done: end + (start - end) * (1 + math.cos(math.pi * min(done / total, 1.0))) / 2


def set_rate(optimizer: torch.optim.Optimizer, value: Any) -> None:
    """Sets the learning rate of all groups, a number or, in a compiled step, a tensor ()."""
    for group in optimizer.param_groups:
        group["lr"] = value


def descend(
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    lr: Any,
    *,
    clip_norm: float | None = None,
    inputs: Sequence[Tensor] | None = None,
) -> None:
    """One step down the slope of a loss, which is that of all processes where several share the step.

    Args:
        optimizer: Moves its own parameters.
        loss: (), differentiable in them.
        lr: The learning rate of this step, see `set_rate`.
        clip_norm: Clips the norm of the whole gradient; None does not.
        inputs: The slope is taken for these alone; None is whatever the loss depends on.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward(inputs=inputs)
    moved = [p for group in optimizer.param_groups for p in group["params"]]
    average_gradients(moved)
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(moved, clip_norm, foreach=False)
    set_rate(optimizer, lr)
    optimizer.step()


def make_optimizer(
    name: str | Callable[..., torch.optim.Optimizer], params: Any, lr: float, weight_decay: float | None = None
) -> torch.optim.Optimizer:
    """An optimizer by its torch.optim name in any case ('adam', 'adamw', 'sgd'), or from a factory (params, lr=...).

    Args:
        name: What to make.
        params: Tensors to optimise.
        lr: Learning rate.
        weight_decay: Of matrices and larger tensors; biases and scales have none. None leaves all as the optimizer
            has it by itself.

    Raises: OptionError.
    """
    if weight_decay is not None:
        check_value("weight_decay", weight_decay, NonNegative)
        params = list(params)
        weights, others = [p for p in params if p.ndim > 1], [p for p in params if p.ndim < 2]
        groups = ((weights, weight_decay), (others, 0.0))
        params = [{"params": group, "weight_decay": decay} for group, decay in groups if group]
    check_optimizer(name)
    factory: Any = name if callable(name) else OPTIMIZERS[name.lower()]
    params = list(params)
    try:
        made = factory(params, lr=lr, **_fused(factory, params))
    except TypeError as error:
        raise OptionError(f"optimizer must take (params, lr=...), as {factory!r} does not: {error}.") from error
    if not isinstance(made, torch.optim.Optimizer):
        raise OptionError(f"optimizer must make a torch.optim.Optimizer, but {factory!r} made a {type(made).__name__}.")
    return made


def adam(params: Iterable[Tensor], lr: float, betas: tuple[float, float]) -> torch.optim.Adam:
    """Adam with decay rates of its own, as games want it."""
    params = list(params)
    return torch.optim.Adam(params, lr, betas, **_fused(torch.optim.Adam, params))


def _fused(factory: Any, params: Sequence[Any]) -> dict[str, Any]:
    return {"fused": True} if factory in FUSED and _one_kind(params) else {}


def _one_kind(params: Sequence[Any]) -> bool:
    """Whether one operation can update all parameters: its count of steps has the accuracy of their 32 bits."""
    tensors = [p for group in params for p in (group["params"] if isinstance(group, dict) else [group])]
    return all(p.dtype == torch.float32 and p.device.type in ("cpu", "cuda") for p in tensors)


def check_optimizer(name: str | Callable[..., torch.optim.Optimizer]) -> None:
    """Raises OptionError for a name that is none of an optimizer that can take any program's steps."""
    if not callable(name) and name.lower() not in OPTIMIZERS:
        raise OptionError(f"Unknown optimizer {name!r}; there are {', '.join(sorted(OPTIMIZERS))}.")


OMP_PAUSE_HARD = 2


@contextmanager
def numerics(precision: str, device: torch.device) -> Iterator[None]:
    """Arithmetic of training steps: products of matrices and convolutions as `precision` says, no denormal numbers.

    Numbers below 1e-38 (float32) are set to zero, as XLA does. Responsibilities of far components and Adam's moments of
    parameters that no longer move get there, and a processor is up to a hundred times slower on them.
    """
    before, flushed = torch.get_float32_matmul_precision(), flushes_denormals()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else before)
    _flush_denormals(True, flushed)
    try:
        rounded = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)
        with rounded, convolutions(precision == "tf32"):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
        _flush_denormals(flushed, True)


def _flush_denormals(flush: bool, before: bool) -> None:
    """Sets it for this thread and its team of OpenMP, whose members take it over when they are started only."""
    if flush == before:
        return
    torch.set_flush_denormal(flush)
    end_team = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None) if os.name == "posix" else None
    if end_team is not None:  # OpenMP 5; the next parallel loop starts a new one
        end_team(OMP_PAUSE_HARD)


def flushes_denormals() -> bool:
    """Whether this thread takes denormal numbers for zero; torch sets that but does not tell."""
    return bool(torch.full((), 1e-310, dtype=torch.float64) * 1.0 == 0)
