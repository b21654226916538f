"""The likelihood of a generator that has none: of its output with a little Gaussian noise, by annealing.

Wu, Burda, Salakhutdinov & Grosse, "On the quantitative analysis of decoder-based generative models", ICLR 2017. A
generator G says where images lie, not how probable they are. With a Gaussian around its output there is a density,

    p_sigma(x) = E_p(z)[N(x; G(z), sigma^2 I)],

which `inference.evaluation.annealing` estimates from below (in expectation) and, on data simulated from it, brackets
from both sides. sigma is the value under which validation data are likeliest: too small, and whatever G misses by a
hair counts as impossible; too large, and nothing that G knows matters. So the number is a property of generator *and*
noise. It does not compare with probabilities of binary data, nor with densities of programs that have no such noise.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor

from inference.evaluation.annealing import ais
from inference.evaluation.estimates import Estimate, checked
from zoo.errors import CapabilityError, OptionError
from zoo.program import Implicit, ImplicitProgram, Program, Site

__all__ = ["SIGMAS", "NoisyDecoder", "choose_sigma", "decoder_likelihood"]

SIGMAS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.45)
"""What sigma is chosen from unless told otherwise, for data in [0, 1]."""
BATCH = 100
"""Examples that are annealed together."""


class NoisyDecoder(Program):
    """x ~ N(G(z), sigma^2 I): an implicit program whose image has Gaussian noise, and so a density given z.

    A program like any other, of fixed parameters: `inference.evaluation.annealing.ais` and `bidirectional` take it, for
    instance, so that the error of an estimate can be bounded on data simulated from it.

    Args:
        program: The generator; what is kept is a copy in eval mode, whose parameters want no gradients.
        sigma: Standard deviation of the noise on every number of x.
        codes: Site -> value of one draw; these sites are fixed, and count as observed.

    Raises: CapabilityError for a program that is not implicit, OptionError for a sigma that is not positive.
    """

    family = "implicit"

    def __init__(self, program: Program, sigma: float, codes: Mapping[str, Tensor] | None = None):
        super().__init__()
        if not isinstance(program, ImplicitProgram):
            raise CapabilityError(
                f"{type(program).__name__} has a density of its own; inference.evaluation.annealing.ais and "
                "inference.evaluation.likelihood.log_likelihood take it as it is."
            )
        if not sigma > 0:
            raise OptionError(f"sigma must be positive, got {sigma}.")
        self.event_shape, self.sigma, self.codes = program.event_shape, sigma, dict(codes or {})
        self.context_support = program.context_support
        self.generator = copy.deepcopy(program).eval().requires_grad_(False)

    def example_context(self, n: int) -> Tensor | None:
        """The generator's."""
        return self.generator.example_context(n)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """The generator's model, its implicit site replaced by a Gaussian."""
        with _Noise(self.sigma, self.codes):
            value: Tensor = self.generator.model(x, context, size)
        return value


class _Noise(Messenger):
    """Turns the implicit site into a Gaussian around its value, and fixes codes."""

    def __init__(self, sigma: float, codes: Mapping[str, Tensor]):
        super().__init__()
        self.sigma, self.codes = sigma, codes

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == "x" and isinstance(msg["fn"], Implicit):
            value, event_dim = msg["fn"].value, len(msg["fn"].event_shape)
            msg["fn"] = dist.Normal(value, self.sigma, validate_args=False).to_event(event_dim)
        elif msg["name"] in self.codes:
            code, batch = self.codes[msg["name"]], msg["fn"].batch_shape
            # Enclosing plates (the particles) have not reached the site yet, but networks set codes beside noise.
            for frame in _PYRO_STACK:
                if isinstance(frame, IndepMessenger) and frame.dim is not None and -frame.dim > len(batch):
                    batch = torch.broadcast_shapes(batch, (frame.size, *(1 for _ in range(-frame.dim - 1))))
            msg["value"], msg["is_observed"] = code.expand(batch + code.shape), True


def decoder_likelihood(
    program: Program,
    data: Any,
    valid: Any = None,
    *,
    sigma: float | None = None,
    sigmas: Sequence[float] = SIGMAS,
    chains: int = 16,
    steps: int = 500,
    leapfrog: int = 5,
    seed: int = 0,
) -> tuple[Estimate, float]:
    """log p_sigma(x) of each example, annealed from the prior of the latents to their posterior.

    Any number of continuous latents is taken, in unconstrained coordinates. Discrete ones with finitely many values (a
    class code) are summed out: log sum_c p(x, c), an anneal for each value, unbiased as a sum of unbiased terms.

    Args:
        program: An implicit program.
        data: Examples, with their contexts.
        valid: Examples on which sigma is chosen (`choose_sigma`); needed if it is not given.
        sigma: The noise, if it is known.
        sigmas: What it is chosen from.
        chains: Independent chains for each example.
        steps: Temperatures. Too few of either make the estimate too low, never too high, in expectation.
        leapfrog: Leapfrog steps of a transition.
        seed: Everything random follows from it.

    Returns: the estimate (B,), a lower bound in expectation, and sigma.

    Raises: CapabilityError for a program that has a density, no continuous latents, or discrete ones that cannot be
        summed out; OptionError.
    """
    data = checked(program, data, complete=True)
    if sigma is None:
        if valid is None:
            raise OptionError("Give sigma, or valid: examples on which sigma is chosen.")
        sigma = choose_sigma(program, valid, sigmas, leapfrog=leapfrog, seed=seed)
    options: dict[str, Any] = {"chains": chains, "steps": steps, "leapfrog": leapfrog, "seed": seed}
    found = []
    for codes in _assignments(program):
        decoder = NoisyDecoder(program, sigma, codes)
        parts = [ais(decoder, *batch, **options) for batch in data.batches(BATCH)]
        errors = [p.monte_carlo_error for p in parts if p.monte_carlo_error is not None]
        found.append((torch.cat([p.values for p in parts]), torch.cat(errors) if errors else None))
    values = torch.stack([each for each, _ in found])
    total = values.logsumexp(0)
    # The delta method: each term's error counts by its share of the sum.
    squares = [((v - total).exp() * e).square() for v, e in found if e is not None]
    error = torch.stack(squares).sum(0).sqrt() if squares else None
    return Estimate(total, f"AIS-{steps}x{chains}", True, monte_carlo_error=error), sigma


def choose_sigma(
    program: Program,
    valid: Any,
    sigmas: Sequence[float] = SIGMAS,
    *,
    examples: int = 32,
    chains: int = 4,
    steps: int = 50,
    leapfrog: int = 5,
    seed: int = 0,
) -> float:
    """The sigma under which validation examples are likeliest, by shorter runs on a few of them.

    Args:
        program: An implicit program.
        valid: Examples that the program was not fitted on.
        sigmas: What to choose from.
        examples: How many of the first ones are used.
        chains, steps, leapfrog, seed: See `decoder_likelihood`.
    """
    if not sigmas:
        raise OptionError("sigmas is empty; give at least one value to choose from.")
    if len(sigmas) == 1:
        return sigmas[0]
    few = checked(program, valid, complete=True).rows(slice(0, examples))
    run: dict[str, Any] = {"chains": chains, "steps": steps, "leapfrog": leapfrog, "seed": seed}
    scores = [decoder_likelihood(program, few, sigma=sigma, **run)[0].mean for sigma in sigmas]
    return sigmas[scores.index(max(scores))]


def _assignments(program: Program) -> Iterator[dict[str, Tensor]]:
    """Every combination of values of the discrete latents; one empty combination where there are none."""
    discrete = {name: site for name, site in program.sites().items() if site.is_discrete}
    values = {name: _values(program, site) for name, site in discrete.items()}
    for chosen in itertools.product(*values.values()):
        yield dict(zip(values, chosen, strict=True))


def _values(program: Program, site: Site) -> Tensor:
    """What a discrete site can be, (K, *event_shape)."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        fn: Any = poutine.trace(program.model).get_trace(None, program.example_context(2), 2).nodes[site.name]["fn"]
    if site.is_global or not fn.has_enumerate_support or fn.event_dim > 1:
        raise CapabilityError(
            f"The discrete site {site.name!r} of {type(program).__name__} cannot be summed out: it is not local with "
            "finitely many values. Its decoder has no likelihood by annealing."
        )
    support: Tensor = fn.enumerate_support(expand=False)
    return support.reshape(-1, *site.event_shape)
