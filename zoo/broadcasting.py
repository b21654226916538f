"""Rule 3 of the contract as a test: latent values may carry particle dimensions, and nothing changes for each alone."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.overrides import TorchFunctionMode

from zoo.program import ImplicitProgram, Program
from zoo.rules import BATCH, ContractError, Position, draw_data, require, rule, said, sample_sites

__all__ = ["REMEDY", "check_particles"]

PARTICLES = 3
REMEDY = (
    "Let leading dimensions broadcast: pyro.ops.indexing.Vindex(a)[..., index] for a[index] and a[..., index], "
    "(context * w).sum(-1) for context @ w, scale[..., None] where a number meets a vector."
)
"""What models that do not broadcast should write instead."""

Densities = dict[str, tuple[Tensor, Tensor]]
"""Site -> its log density and the sum of its terms' sizes, (S,) or () for a particle alone."""


class Blind(TorchFunctionMode):
    """Finds the lines that take an element, or a matrix product, of a tensor with particles as if it had none.

    Where a model goes wrong is seen later, if at all: at a site whose shape, or density, is another.
    """

    LIBRARIES = ("torch", "pyro")
    PRODUCTS = (Tensor.matmul, torch.matmul, Tensor.__matmul__, Tensor.__rmatmul__, torch.mv, Tensor.mv)

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[tuple[str, int], str] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__getitem__:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if not index or index[0] is not Ellipsis or any(isinstance(part, Tensor) for part in index):
                self._note(args[0])
        elif func in self.PRODUCTS:
            for factor in args[:2]:
                self._note(factor)
        return func(*args, **(kwargs or {}))

    def _note(self, value: Any) -> None:
        if not (isinstance(value, Tensor) and value.ndim > 2 and value.shape[:2] == (PARTICLES, 1)):
            return
        frame = sys._getframe(2)
        if frame.f_globals.get("__name__", "").partition(".")[0] not in self.LIBRARIES:
            name, line = frame.f_code.co_filename, frame.f_lineno
            self.lines[name, line] = linecache.getline(name, line).strip()

    def __str__(self) -> str:
        said = [f"{Path(name).name}, line {line}: {text}" for (name, line), text in self.lines.items()]
        return f" What carries particles is taken as if it had none in {'; '.join(said)}." if said else ""


@rule(3, REMEDY)
@torch.no_grad()
def check_particles(program: Program) -> None:
    """Latents may carry a particle dimension: each site's density is that of each particle alone.

    In evaluation mode: dropout and batch normalisation mix examples while they train.
    """
    if isinstance(program, ImplicitProgram):
        return
    training = program.training
    program.eval()
    try:
        _check_particles(program)
    finally:
        program.train(training)


def _check_particles(program: Program) -> None:
    x, context = draw_data(program)
    runs = [sample_sites(program.model, None, context, BATCH) for _ in range(PARTICLES)]
    names = [name for name, site in runs[0].items() if not site["is_observed"] and name != "x"]
    if not names:
        return
    alone = {name: torch.stack([run[name]["value"] for run in runs]) for name in names}
    together = {name: value if _is_local(runs[0][name]) else value[:, None] for name, value in alone.items()}
    found = _difference(program, x, context, alone, together)
    if found is not None:
        guilty, found = _guilty(program, x, context, alone, together) or (names, found)
        shapes = ", ".join(
            f"{name!r} of shape {tuple(together[name].shape)} where alone it has {tuple(alone[name].shape[1:])}"
            for name in guilty
        )
        raise ContractError(f"{found} This is with particles in {shapes}. {REMEDY}")
    for what, sites in (
        ("model", _under_particles(program.model, None, context, BATCH)),
        ("guide", _under_particles(program.guide, x, context, None)),
    ):
        for name in names:
            got, want = tuple(sites[name]["value"].shape) if name in sites else (), tuple(together[name].shape)
            require(
                name not in sites or got == want,
                f"{what} site {name!r} draws {PARTICLES} particles as {got}, expected {want}. {REMEDY}",
            )


def _is_local(site: Mapping[str, Any]) -> bool:
    return any(frame.name == "data" for frame in site["cond_indep_stack"])


def _under_particles(fn: Callable[..., Any], *args: Any) -> dict[str, Any]:
    with pyro.plate("particles", PARTICLES, dim=-2):
        return sample_sites(fn, *args)


def _guilty(
    program: Program, x: Tensor, context: Tensor | None, alone: dict[str, Tensor], together: dict[str, Tensor]
) -> tuple[list[str], str] | None:
    """The first latent that makes a difference where it alone carries particles, with that difference."""
    for name in alone:
        first = {other: value[0] for other, value in alone.items()}
        varied = {other: value[:1].expand_as(value) for other, value in alone.items()} | {name: alone[name]}
        found = _difference(program, x, context, varied, first | {name: together[name]})
        if found is not None:
            return [name], found
    return None


def _difference(
    program: Program, x: Tensor, context: Tensor | None, alone: Mapping[str, Tensor], together: Mapping[str, Tensor]
) -> str | None:
    """How, and at which site, vectorised densities differ from those of each particle alone; None where none does.

    Args:
        program: Any with a density.
        x: Examples (B, *event_shape).
        context: Theirs, or None.
        alone: Latent -> values of the particles (S, *its shape).
        together: The same values with particle dimensions.
    """
    each = []
    for i in range(PARTICLES):
        each.append(_densities(program, {name: v[i] for name, v in alone.items()}, x, context, Position()))
    position, blind = Position(list(each[0])), Blind()
    try:
        with pyro.plate("particles", PARTICLES, dim=-2), position, blind:
            found = _densities(program, together, x, context, position)
    except Exception as error:
        return f"{said(error, position)}.{blind}"
    for name, (got, _) in found.items():
        want, size = (torch.stack([densities[name][k] for densities in each]) for k in (0, 1))
        close = (got - want).abs() <= (1e-4 if want.dtype == torch.float32 else 1e-8) * size
        if not bool((close | (got == want)).all()):
            numbers = (", ".join(f"{v:.6g}" for v in values.flatten()) for values in (got, want))
            return "the log density of the site {!r} is {}, expected {} as of each particle alone.{}".format(
                name, *numbers, blind
            )
    return None


def _densities(
    program: Program, values: Mapping[str, Tensor], x: Tensor, context: Tensor | None, position: Position
) -> Densities:
    found = {}
    for name, site in sample_sites(poutine.condition(program.model, data=dict(values)), x, context, None).items():
        position.site, position.inside = name, True
        log_prob = torch.as_tensor(scale_and_mask(site["fn"].log_prob(site["value"]), site["scale"], site["mask"]))
        particles = [frame.size for frame in site["cond_indep_stack"] if frame.name == "particles"]
        # Sum over the data dimension only, so that particles stay apart.
        terms = log_prob.broadcast_to((*particles, len(x) if _is_local(site) else 1))
        found[name] = (terms.sum(-1), terms.nan_to_num(neginf=0.0, posinf=0.0).abs().sum(-1))
    return found
