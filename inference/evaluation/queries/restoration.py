"""What was blurred by noise or by coarse pixels: whole examples given a noisy or a small one.

    y = x + N(0, sd^2)                          denoise
    y = means of blocks of x + N(0, sd^2)       super_resolve

Both ask for the conditional that the program itself has; for what is missing see
`inference.evaluation.queries.completion.inpaint`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, constraints

from inference.environment import evaluating
from inference.evaluation.queries.annealed import LATENTS, VALUES
from inference.evaluation.queries.completion import MOST_BITS
from inference.evaluation.queries.conditionals import GAUSSIAN, MIXTURE, OWN
from inference.evaluation.queries.questions import (
    Answer,
    Question,
    Sampling,
    Way,
    answered,
    blocks_of,
    observed_values,
)
from zoo.errors import OptionError, ShapeError, SupportError
from zoo.guards import same_support
from zoo.nets import image_shape
from zoo.options import Count, NonNegative, Positive, check_value
from zoo.program import ExactDensity, MakesContexts, Program

__all__ = ["WAYS", "denoise", "super_resolve"]


@torch.no_grad()
def denoise(
    program: Program,
    y: Any,
    sd: float,
    context: Any = None,
    *,
    draws: int = 1,
    how: str = "auto",
    particles: int = 256,
    steps: int = 100,
    seed: int = 0,
) -> Answer:
    """Draws from p(x | y) of y = x + N(0, sd^2).

    Args:
        program: See `how`.
        y: (B, *event_shape), any numbers; NaN where nothing was observed.
        sd: Standard deviation of the noise, above zero.
        context: (B, ...) or None.
        draws: How many for each row.
        how: 'own', a program that was made for this noise; 'gaussian', PPCA and Gaussian mixtures; 'mixture', mixtures
            of bits; 'enumerate', at most 16 bits of any exact density: all these are exact. 'latents', annealed chains
            in the latents of a decoder to bits or normal numbers (VAE); 'values', annealed chains in x itself, of an
            exact density of real numbers (flows). 'auto' is the first that is possible.
        particles: Chains that `draws` are resampled from.
        steps: Temperatures of annealed chains.
        seed: Everything random follows from it.

    Raises: OptionError, EmptyDataError, ShapeError, NonFiniteError; CapabilityError where the way is not possible;
        DivergenceError where no chain explains what was observed.
    """
    sampling = Sampling(draws, particles, steps)
    check_value("sd", sd, Positive)
    y = observed_values(program, y, tuple(program.event_shape))
    y = y.reshape(len(y), -1)
    sites = torch.arange(y.shape[1], device=y.device).unsqueeze(1)
    question = Question("denoise", y, sites, sd=float(sd), context=_context(program, context, len(y)))
    with evaluating(program, None, seed, y.device):
        return answered(program, question, WAYS, how, sampling)


@torch.no_grad()
def super_resolve(
    program: Program,
    y: Any,
    factor: int,
    context: Any = None,
    *,
    sd: float = 0.0,
    draws: int = 1,
    how: str = "auto",
    particles: int = 256,
    steps: int = 100,
    seed: int = 0,
) -> Answer:
    """Draws from p(x | y) of y the means of blocks of factor x factor pixels, and N(0, sd^2).

    Args:
        program: Of images; see `denoise`.
        y: (B, height / factor, width / factor), or with channels before; NaN where nothing was observed.
        factor: Sides of a block; it divides those of the image.
        context: (B, ...) or None.
        sd: Standard deviation of the noise; 0 for none.
        draws, how, particles, steps, seed: See `denoise`.

    Raises: as `denoise`; SupportError for means that bits cannot have.
    """
    sampling = Sampling(draws, particles, steps)
    check_value("factor", factor, Count)
    check_value("sd", sd, NonNegative)
    shape = image_shape(program.event_shape)
    if any(side % factor for side in shape[1:]):
        raise OptionError(f"factor must divide the sides of images of {shape[1:]} pixels, got {factor}.")
    small = (*program.event_shape[:-2], shape[1] // factor, shape[2] // factor)
    y = observed_values(program, y, small).flatten(1)
    _check_means(program, y, factor, sd)
    sites = blocks_of(shape, factor).to(y.device)
    question = Question("super_resolve", y, sites, sd=float(sd), context=_context(program, context, len(y)))
    with evaluating(program, None, seed, y.device):
        return answered(program, question, WAYS, how, sampling)


def _context(program: Program, context: Any, rows: int) -> Tensor | None:
    """What conditions the program, checked; programs that make their contexts of examples need none."""
    if isinstance(program, MakesContexts):
        return None
    context = program.accept_context(context)
    if context is not None and len(context) != rows:
        raise ShapeError(f"{rows} observations but {len(context)} rows of context; they must match.")
    return context


def _check_means(program: Program, y: Tensor, factor: int, sd: float) -> None:
    """Raises SupportError for means without noise that bits cannot have."""
    if sd or not same_support(program.support, constraints.boolean):
        return
    counts = y[~y.isnan()] * factor**2
    if bool(((counts - counts.round().clamp(0, factor**2)).abs() > 1e-3).any()):
        raise SupportError(
            f"Means of {factor} x {factor} bits are multiples of 1/{factor**2} from 0 to 1, got others; say how noisy "
            "they are (sd)."
        )


def _why_no_enumeration(program: Program, question: Question) -> str | None:
    if not isinstance(program, ExactDensity):
        return "it has no exact density"
    if not same_support(program.support, constraints.boolean):
        return f"its values are {program.support}, not bits"
    bits = question.sites.numel()
    return None if bits <= MOST_BITS else f"{bits} bits are too many to enumerate (at most {MOST_BITS})"


def _enumerate(program: Program, question: Question, sampling: Sampling) -> Answer:
    """Every x, weighed by its density and that of the noise."""
    assert isinstance(program, ExactDensity)
    bits, y = question.sites.numel(), question.y
    states = (torch.arange(2**bits, device=y.device).unsqueeze(-1) >> torch.arange(bits, device=y.device) & 1).to(y)
    images = states.reshape(-1, *program.event_shape)
    off = (y.unsqueeze(1) - question.means(states)).nan_to_num(0.0)  # (B, states, M)
    if question.noiseless:
        log_noise = torch.where(off.abs().amax(-1) < 1e-4, 0.0, -torch.inf)
    else:
        log_noise = -(off / question.sd).square().sum(-1) / 2
    if question.context is None:
        log_prior = program.log_prob(images).expand(len(y), -1)
    else:
        log_prior = torch.stack([program.log_prob(images, c.expand(len(images), *c.shape)) for c in question.context])
    chosen = Categorical(logits=log_prior + log_noise).sample(torch.Size([sampling.draws]))
    return Answer.of(states[chosen], "enumerate", True)


WAYS = {
    "own": OWN, "gaussian": GAUSSIAN, "mixture": MIXTURE, "enumerate": Way(_why_no_enumeration, _enumerate),
    "latents": LATENTS, "values": VALUES,
}  # fmt: skip
"""Name -> way, the first that is possible first."""
