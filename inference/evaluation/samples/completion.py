"""How good are completions: what was drawn where pixels are missing, of images of which the rest is known?

Completions have shape (S, B, *event): S answers to each of B puzzles; a method that has one answer gives S = 1. What
they must be better than is here too: the exact conditional of a Gaussian, and the training image that fits best.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pyro import poutine
from torch import Tensor

from inference.environment import evaluating
from inference.evaluation.estimates import checked
from inference.evaluation.samples.quality import distances, frechet
from zoo.errors import EmptyDataError, OptionError, ShapeError
from zoo.latent.ppca import PPCA
from zoo.options import Count, Seed, check_value

__all__ = [
    "CompletionScores", "completion_scores", "frechet_in_components", "gaussian_completion", "nearest_completion",
]  # fmt: skip


@dataclass(frozen=True)
class CompletionScores:
    """Of S completions of each image, over all missing pixels together."""

    kept: float
    """Largest difference between a completion and the image where pixels are known; 0 where they are kept."""
    rmse: float
    """Root mean squared error of the mean of the S completions."""
    crps: float
    """Continuous ranked probability score of a pixel, E|X - x| - E|X - X'| / 2, estimated without bias from S >= 2
    completions; of one, the absolute error. Least for whoever knows the true distribution of each pixel."""
    spread: float
    """Root mean variance of the completions, 0 for S = 1. As far as they are spread as they should be, it is
    rmse / (1 + 1 / S)^1/2."""
    completions: int


@torch.no_grad()
def completion_scores(completions: Tensor, x: Tensor, known: Tensor) -> CompletionScores:
    """How near completions are to what was missing, and how honest their spread.

    Args:
        completions: (S, B, *event).
        x: The whole images (B, *event).
        known: Booleans (B, *event).

    Raises: ShapeError, EmptyDataError where nothing is missing.
    """
    _check(x, known)
    if completions.shape[1:] != x.shape or len(completions) == 0:
        raise ShapeError(f"Completions must have shape (S, *{tuple(x.shape)}), got {tuple(completions.shape)}.")
    if bool(known.all()):
        raise EmptyDataError("Every pixel is known, so there is nothing to be completed; hide some.")
    found, truth = completions[:, ~known].double(), x[~known].double()
    s = len(found)
    crps = (found - truth).abs().mean()
    if s > 1:
        pairs = torch.stack([(found - one).abs().mean(1).sum() for one in found]).sum()
        crps = crps - pairs / (2 * s * (s - 1))
    apart = (completions - x).abs()[:, known]
    return CompletionScores(
        kept=float(apart.max()) if apart.numel() else 0.0,
        rmse=float((found.mean(0) - truth).square().mean().sqrt()),
        crps=float(crps),
        spread=float(found.var(0).mean().sqrt()) if s > 1 else 0.0,
        completions=s,
    )


@torch.no_grad()
def frechet_in_components(completed: Tensor, x: Tensor, train: Tensor, components: Count = 24) -> float:
    """The Fréchet distance of completed and whole images in the first principal components of the training images.

    Images of which nobody has a classifier have more pixels than there are of them, and no covariance in these.

    Args:
        completed: One completion of each image (B, *event).
        x: The images.
        train: (N, *event).
        components: How many.

    Raises: OptionError for more components than there are images or pixels; ShapeError.
    """
    check_value("components", components, Count)
    rows = [each.flatten(1).double() for each in (completed, x, train)]
    most = min(len(rows[0]) - 1, len(rows[1]) - 1, *rows[2].shape)
    if components > most:
        raise OptionError(f"components must be at most {most} for these images, got {components}.")
    mean = rows[2].mean(0)
    directions = torch.linalg.svd(rows[2] - mean, full_matrices=False).Vh[:components]
    a, b = ((each - mean) @ directions.T for each in rows[:2])
    return frechet(a, b).value


@torch.no_grad()
def gaussian_completion(
    program: PPCA, x: Tensor, known: Tensor, draws: Count = 1, seed: Seed = 0
) -> tuple[Tensor, Tensor]:
    """The exact conditional of missing pixels under probabilistic PCA: its mean, and draws from it.

    Of x ~ N(mu, W W' + sigma^2 I) the missing part given the known one is W z + mu + noise, with z from the exact
    posterior given the known part.

    Args:
        program: Fitted; by `maximum_likelihood`, say.
        x: (B, *event); what it holds where it is not known does not matter.
        known: Booleans (B, *event).
        draws: S.
        seed: Of the draws.

    Returns: Mean (B, *event) and draws (S, B, *event), both x itself where it is known.

    Raises: ShapeError, OptionError; what `Program.take` raises.
    """
    check_value("draws", draws, Count)
    check_value("seed", seed, Seed)
    _check(x, known)
    x = checked(program, x.masked_fill(~known, 0.0)).x
    with evaluating(program, None, seed, x.device):
        gaps = x.masked_fill(~known, torch.nan)
        z = poutine.trace(program.posterior).get_trace(gaps).nodes["z"]["fn"]
        codes = torch.cat([z.mean[None], z.sample(torch.Size([draws]))])
        means = (codes @ program.weight.T + program.mean).reshape(-1, *x.shape)
        means[1:] += program.scale * torch.randn_like(means[1:])
    found = torch.where(known, x, means)
    return found[0], found[1:]


@torch.no_grad()
def nearest_completion(x: Tensor, known: Tensor, train: Tensor) -> Tensor:
    """What is missing is copied from the training image that is nearest where pixels are known, (B, *event).

    Args:
        x: (B, *event).
        known: Booleans (B, *event).
        train: (N, *event).

    Raises: ShapeError.
    """
    _check(x, known)
    flat = train.flatten(1)
    nearest = [
        next(distances(row[None, here], flat[:, here])).argmin() if bool(here.any()) else torch.tensor(0)
        for row, here in zip(x.flatten(1), known.flatten(1), strict=True)
    ]
    return torch.where(known, x, train[torch.stack(nearest)])


def _check(x: Tensor, known: Tensor) -> None:
    if known.dtype != torch.bool or known.shape != x.shape:
        raise ShapeError(
            f"known must be booleans of shape {tuple(x.shape)}, got {known.dtype} of shape {tuple(known.shape)}."
        )
