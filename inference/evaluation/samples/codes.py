"""What a generator's codes stand for: classes found without labels, and what of an image follows a continuous code.

The questions of Chen et al., "InfoGAN", NeurIPS 2016: does the categorical code recover the classes (section 7.2), and
is a continuous code a visible factor such as slant or width (figure 2)? There these are looked at; here they are
measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy
import torch
from pyro import poutine
from torch import Tensor

from inference.environment import evaluating, seeded
from inference.evaluation.estimates import checked
from inference.particles import draw, flatten_draws
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, EmptyDataError, OptionError, ShapeError
from zoo.program import Implicit, Program

__all__ = [
    "FACTORS", "aggregate_codes", "code_accuracy", "code_effects", "decoded", "guess_codes", "match_codes",
    "prior_latents", "slant", "width",
]  # fmt: skip


@torch.no_grad()
def guess_codes(program: Program, x: Tensor, site: str = "c", batch_size: int = 1000) -> Tensor:
    """The likeliest value of a categorical code under the program's guide, (B, *event_shape) -> (B,) of integers.

    In evaluation mode.

    Raises: OptionError where the guide has no such site, or a continuous one.
    """
    x, guessed = checked(program, x).x, []
    with evaluating(program):
        for rows in x.split(batch_size):
            nodes = poutine.trace(program.guide).get_trace(rows, None, None).nodes
            if site not in nodes or not hasattr(nodes[site]["fn"], "probs"):
                raise OptionError(f"The guide of {type(program).__name__} has no categorical site {site!r}.")
            guessed.append(nodes[site]["fn"].probs.argmax(-1))
    return torch.cat(guessed)


def match_codes(codes: Tensor, labels: Tensor) -> dict[int, int]:
    """Code -> class: the one-to-one assignment under which most examples have their class (Kuhn 1955).

    Of more codes than classes some are left out, and the other way round.

    Args:
        codes: (N,) of integers.
        labels: (N,) of integers.
    """
    _same_length(codes, labels)
    table = np.zeros((int(codes.max()) + 1, int(labels.max()) + 1))
    np.add.at(table, (codes.cpu().numpy(), labels.cpu().numpy()), 1)
    rows, columns = scipy.optimize.linear_sum_assignment(table, maximize=True)
    return dict(zip(rows.tolist(), columns.tolist(), strict=True))


def code_accuracy(codes: Tensor, labels: Tensor, matching: Mapping[int, int]) -> float:
    """Share of examples whose code stands for their class, by a matching that should come from *other* examples.

    Args:
        codes: (N,) of integers; one that the matching does not have is wrong.
        labels: (N,) of integers.
        matching: See `match_codes`.
    """
    _same_length(codes, labels)
    classes = torch.tensor([matching.get(code, -1) for code in codes.tolist()])
    return float((classes == labels.cpu()).double().mean())


def _same_length(codes: Tensor, labels: Tensor) -> None:
    if codes.ndim != 1 or codes.shape != labels.shape:
        raise ShapeError(f"Expected codes (N,) and labels (N,), got {tuple(codes.shape)} and {tuple(labels.shape)}.")
    if len(codes) == 0:
        raise EmptyDataError("There are no codes to match with labels.")


def slant(images: Tensor) -> Tensor:
    """How far an image leans: columns to the right for each row upwards, (B, height, width) -> (B,).

    The shear that makes rows and columns of the ink (non-negative weights) uncorrelated, as in deskewing.
    """
    _, between, down = _second_moments(images)
    return -between / down


def width(images: Tensor) -> Tensor:
    """Standard deviation of the ink's columns once the slant is undone, in pixels, (B, height, width) -> (B,)."""
    across, between, down = _second_moments(images)
    return (across - between.square() / down).clamp(min=0).sqrt()


def _second_moments(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(Variance of the columns, covariance, variance of the rows) of the ink, (B,) each."""
    if images.ndim != 3:
        raise ShapeError(f"Expected images (B, height, width), got {tuple(images.shape)}.")
    images = images.double()
    ink = images / images.sum((1, 2), keepdim=True)
    rows, columns = (torch.arange(n, device=ink.device, dtype=ink.dtype) for n in images.shape[1:])
    row = rows[:, None] - (ink.sum(2) @ rows)[:, None, None]
    column = columns - (ink.sum(1) @ columns)[:, None, None]
    across, between, down = ((ink * product).sum((1, 2)) for product in (column**2, row * column, row**2))
    return across, between, down


FACTORS: dict[str, Callable[[Tensor], Tensor]] = {"slant": slant, "width": width}
"""What is looked for in images."""


@torch.no_grad()
def code_effects(
    program: Program, *, site: str = "s", given: str | None = "c", n: int = 2000, seed: int = 0
) -> list[dict[str, float]]:
    """Rank correlation of each dimension of a continuous code with what can be seen in the images drawn from it.

    Args:
        program: Draws images (height, width).
        site: The continuous code, (k,).
        given: A categorical code, one-hot: correlations are taken among images that have it in common, and averaged
            over its values, since an eight is wider than a one whatever the code says. None: among all images.
        n: Number of images.
        seed: Of the images.

    Returns: for each of the k dimensions, factor -> Spearman's correlation, between -1 and 1.

    Raises: OptionError for a site that the program lacks.
    """
    with evaluating(program, seed=seed):
        nodes: Mapping[str, Any] = poutine.trace(program.model).get_trace(None, None, n).nodes
    for name in (site, given):
        if name is not None and name not in nodes:
            raise OptionError(f"{type(program).__name__} has no site {name!r}.")
    images, codes = nodes["x"]["value"], nodes[site]["value"].cpu()
    group = nodes[given]["value"].argmax(-1).cpu() if given is not None else torch.zeros(n)
    seen = {name: factor(images).cpu() for name, factor in FACTORS.items()}
    return [
        {name: _within(codes[:, dimension], values, group) for name, values in seen.items()}
        for dimension in range(codes.shape[1])
    ]


def _within(a: Tensor, b: Tensor, group: Tensor) -> float:
    """Spearman's correlation of (n,) and (n,) within each group, averaged over groups by their sizes."""
    total = 0.0
    for value in group.unique():
        own = group == value
        if int(own.sum()) > 2:
            total += float(scipy.stats.spearmanr(a[own], b[own]).statistic) * int(own.sum())
    return total / len(group)


# Latents and what they are decoded to


@torch.no_grad()
def decoded(program: Program, latents: Mapping[str, Tensor], context: Tensor | None = None) -> Tensor:
    """What the program makes of latents: the mean of x where x has a density, else its value.

    Args:
        program: A program whose latents belong to the examples, in eval mode.
        latents: Site -> (n, *event) for all of its sites.
        context: Contexts (n, ...), or None.

    Returns: (n, *event_shape).
    """
    n = len(next(iter(latents.values())))
    trace = poutine.trace(poutine.condition(program.model, data=dict(latents))).get_trace(None, context, n)
    site = trace.nodes["x"]
    value: Tensor = site["value"] if isinstance(site["fn"], Implicit) else site["fn"].mean
    return value


def prior_latents(program: Program, n: int, context: Tensor | None = None) -> dict[str, Tensor]:
    """n draws of the latents from the prior, site -> (n, *event).

    Raises: CapabilityError for a program without latents, or with global ones.
    """
    with torch.no_grad():
        trace = poutine.trace(program.model).get_trace(None, context, n)
    sites = program.sites()
    if not sites or any(site.is_global for site in sites.values()):
        raise CapabilityError(f"{type(program).__name__} has no latents that belong to examples; there is no path.")
    return {name: trace.nodes[name]["value"] for name in sites}


@torch.no_grad()
def aggregate_codes(program: Program, guide: Callable[..., Any], data: Data, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Codes of data and draws of the prior, all latent sites side by side: (n, k) each.

    A code is one draw of the guide for each example; together they are draws of the aggregate posterior
    E_data[q(z | x)], which is the prior if guide and program belong together (figure 2 of Makhzani et al., "Adversarial
    autoencoders", 2016).

    Raises: what `Program.accept` raises; CapabilityError where there are no continuous latents, or the guide leaves
        some of them out.
    """
    data = checked(program, data)
    with seeded(seed, data.x.device):
        codes = draw(guide, 1, *data, density=False).values
        prior = prior_latents(program, data.size, data.context)
    names = [name for name, site in program.sites().items() if not site.is_discrete]
    if not names or not set(names) <= set(codes):
        raise CapabilityError(
            f"The guide of {type(program).__name__} samples {sorted(codes) or 'nothing'} of the continuous latents "
            f"{names}: there are no codes to compare with the prior."
        )
    return (
        flatten_draws({name: codes[name][0] for name in names}),
        flatten_draws({name: prior[name] for name in names}),
    )
