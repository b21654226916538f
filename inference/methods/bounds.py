"""Bounds on the evidence, and their gradients: what SVI maximises.

Each objective takes (program, guide, batch, size) and returns (surrogate loss, bound), both per example of the full
data: the gradient of the surrogate is the (unbiased) gradient of minus the bound. No value leaves its tensor, so that a
step can be compiled. Pyro's estimators serve where they are right; IWAE/Renyi bounds and the score function are built
on per-example particles.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import pyro.infer as infer
import torch
from pyro import poutine
from pyro.distributions.util import is_identically_zero, scale_and_mask
from pyro.infer.trace_elbo import _compute_log_r
from pyro.infer.traceenum_elbo import _compute_dice_elbo
from pyro.infer.util import is_validation_enabled
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import kl_divergence

from inference.densities import NoneMasked, ZeroWeighed
from inference.particles import draw, guide_log_prob, log_joint, log_weights, unit_log_weights
from inference.vectorised import bears_particles
from zoo.arguments import Arguments
from zoo.datasets.data import Data
from zoo.errors import CapabilityError, OptionError, UnknownNameError
from zoo.guards import unguarded
from zoo.program import ExactDensity, ExactEvidence, Program
from zoo.weights import Weighted, weighing

__all__ = ["OBJECTIVES", "ExactLikelihood", "Objective", "Renyi", "ScoreFunction", "TraceELBO", "make_objective"]


class ScaleLatents(Messenger):
    """Weighs every latent site by beta: ELBO = E[log p(x|z)] - beta KL, for annealing (Bowman et al. 2016)."""

    def __init__(self, beta: float | Tensor):
        super().__init__()
        self.beta = beta

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"]:
            msg["scale"] = msg["scale"] * self.beta


class Objective(ABC):
    """A bound on the evidence."""

    @abstractmethod
    def __call__(
        self, program: Program, guide: Callable[..., Any], batch: Data, size: int, beta: float | Tensor = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Returns (surrogate loss (), bound ()), in nats per example."""

    def prepare(self, program: Program, guide: Callable[..., Any], data: Data) -> None:  # noqa: B027
        """Looks at what it will be called with, once before a fit; by default does nothing."""


class TraceELBO(Objective):
    """Pyro's Trace_ELBO, TraceMeanField_ELBO (analytic KL, "SGVB B") and TraceEnum_ELBO, with values kept in tensors.

    The estimators are Pyro's. What is left out is `.item()` and the NaN check, which wait for the device at every step
    and cannot be compiled; the training loop looks at the loss when it reports.
    """

    def __init__(self, elbo: type[infer.ELBO], particles: int = 1):
        self.kind = elbo
        self.elbo = elbo(num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=1)
        self.one_by_one = elbo(num_particles=particles, vectorize_particles=False, max_plate_nesting=1)
        self.together = False
        """Whether adopted code was found to bear several particles in one run."""

    def prepare(self, program: Program, guide: Callable[..., Any], data: Data) -> None:
        """Tries whether adopted code bears several particles in one run."""
        if isinstance(data.context, Arguments) and self.elbo.num_particles > 1:
            args = (data.x, data.context, data.size)
            self.together = bears_particles(self.kind, self._model(program), guide, args, program.plate_nesting)

    def _model(self, program: Program) -> Callable[..., Any]:
        if self.kind is infer.TraceEnum_ELBO:
            return infer.config_enumerate(program.model, "parallel")
        return program.model

    def __call__(
        self, program: Program, guide: Callable[..., Any], batch: Data, size: int, beta: float | Tensor = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Score-function terms for sites that cannot be reparameterised; exact gradients for enumerated ones."""
        model = self._model(program)
        if isinstance(batch.context, Weighted) and getattr(guide, "__self__", None) is not program:
            guide = weighing(guide, program.examples)
        if isinstance(beta, Tensor) or beta != 1.0:
            if self.kind is infer.TraceEnum_ELBO:
                raise OptionError("Pyro cannot scale enumerated sites apart from the data; drop kl_anneal.")
            model, guide = ScaleLatents(beta)(model), ScaleLatents(beta)(guide)
        terms = {
            infer.Trace_ELBO: _sampled,
            infer.TraceMeanField_ELBO: _with_analytic_kl,
            infer.TraceEnum_ELBO: _enumerated,
        }[self.kind]
        # Several particles lie in a plate of one trace, where the program promises to bear that or was found to.
        elbo = self.elbo
        if isinstance(batch.context, Arguments):
            elbo = self.elbo if self.together else self.one_by_one
            elbo.max_plate_nesting = program.plate_nesting + self.together
        found = [terms(*traces) for traces in elbo._get_traces(model, guide, (batch.x, batch.context, size), {})]
        surrogate, bound = (sum(parts[1:], parts[0]) for parts in zip(*found, strict=True))
        particles = elbo.num_particles
        return -surrogate / (particles * size), bound.detach() / (particles * size)


def _samples(trace: poutine.Trace) -> list[dict[str, Any]]:
    return [site for site in trace.nodes.values() if site["type"] == "sample"]


def _sampled(model: poutine.Trace, guide: poutine.Trace) -> tuple[Tensor, Tensor]:
    """(surrogate, ELBO) of log p - log q at the draws."""
    log_p: Any = sum(site["log_prob_sum"] for site in _samples(model))
    log_q: Any = sum(site["log_prob_sum"] for site in _samples(guide))
    surrogate, log_r = log_p, None
    for site in _samples(guide):
        _, score, entropy = site["score_parts"]
        if not is_identically_zero(entropy):
            surrogate = surrogate - entropy.sum()
        if not is_identically_zero(score):
            log_r = _compute_log_r(model, guide) if log_r is None else log_r
            surrogate = surrogate + (log_r.sum_to(site["cond_indep_stack"]) * score).sum()
    return surrogate, torch.as_tensor(log_p - log_q)


def _with_analytic_kl(model: poutine.Trace, guide: poutine.Trace) -> tuple[Tensor, Tensor]:
    """(surrogate, ELBO) with KL(q || p) of a site in closed form where torch.distributions has one."""
    elbo: Any = 0.0
    for site in _samples(model):
        if site["is_observed"]:
            elbo = elbo + site["log_prob_sum"]
            continue
        other = guide.nodes[site["name"]]
        if is_validation_enabled() and not is_identically_zero(other["score_parts"].score_function):
            raise CapabilityError(
                f"elbo='mean_field' differentiates through the guide's draws, and those of {site['name']!r} "
                f"({type(other['fn']).__name__}) carry no gradient; use elbo='trace', 'score' or 'iwae'."
            )
        try:
            kl = kl_divergence(other["fn"], site["fn"])
        except NotImplementedError:
            elbo = elbo + site["log_prob_sum"] - other["score_parts"].entropy_term.sum()
        else:
            elbo = elbo - scale_and_mask(kl, scale=other["scale"], mask=other["mask"]).sum()
    for site in _samples(guide):
        if site["name"] not in model.nodes:
            elbo = elbo - site["score_parts"].entropy_term.sum()
    return elbo, elbo


def _enumerated(model: poutine.Trace, guide: poutine.Trace) -> tuple[Tensor, Tensor]:
    """(surrogate, ELBO) with the enumerated sites summed out."""
    # Probabilities are those of the guide's enumerated sites. Without such sites all are 1. No value is looked at.
    known = not any("_enumerate_dim" in site["infer"] for site in _samples(guide))
    with NoneMasked() if known else ZeroWeighed():
        elbo = torch.as_tensor(_compute_dice_elbo(model, guide))
    return elbo, elbo


class Renyi(Objective):
    """The Renyi bound (Li & Turner 2016) from K particles *of each example*; alpha = 0 is IWAE (Burda et al. 2016).

    log-mean-exp runs over particles before anything is summed over the batch. Sites of the guide whose draws carry no
    gradient get a score-function term with a leave-one-out baseline (VIMCO, Mnih & Rezende 2016). One particle makes it
    the ELBO.
    """

    def __init__(self, particles: int = 10, alpha: float = 0.0):
        if alpha == 1.0:
            raise OptionError("alpha = 1 is the ELBO itself; use elbo='trace'.")
        self.particles, self.alpha = particles, alpha

    def __call__(
        self, program: Program, guide: Callable[..., Any], batch: Data, size: int, beta: float | Tensor = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Mean over examples of 1/(1-alpha) log mean_k w_k^(1-alpha)."""
        if isinstance(beta, Tensor) or beta != 1.0:
            raise OptionError("KL annealing has no meaning for the IWAE/Renyi bound; drop kl_anneal.")
        draws, weights = log_weights(program, guide, self.particles, *batch)
        if weights.joint and size != batch.size:
            raise CapabilityError(
                "The IWAE/Renyi bound of a program with global latents cannot be estimated from minibatches; "
                f"use batch_size >= {size} or elbo='trace'."
            )
        each = unit_log_weights(weights)
        bound = self._bound(each)
        mean = bound.sum() / batch.size
        if draws.score is None:
            return -mean, mean.detach()
        score = draws.score.total[:, None] if weights.joint else draws.score.local
        signal = bound.detach() - (self._without(each.detach()) if self.particles > 1 else 0.0)
        return -(mean + (signal * score).sum() / batch.size), mean.detach()

    def _bound(self, log_weights: Tensor) -> Tensor:
        """(K, U) -> (U,)."""
        power = 1.0 - self.alpha
        return (torch.logsumexp(power * log_weights, 0) - math.log(self.particles)) / power

    def _without(self, log_weights: Tensor) -> Tensor:
        """The bound without each particle in turn, whose log weight is replaced by the mean of the others'; (K, U)."""
        k = self.particles
        one = torch.eye(k, dtype=torch.bool, device=log_weights.device)[..., None]
        others = (log_weights.sum(0) - log_weights) / (k - 1)
        return self._bound(torch.where(one, others, log_weights[:, None]))


class ScoreFunction(Objective):
    """The ELBO with score-function (REINFORCE) gradients for the guide and a leave-one-out baseline (Kool et al. 2019).

    Unbiased for any guide whose density is known, reparameterised or not.
    """

    def __init__(self, particles: int = 8):
        if particles < 2:
            raise OptionError(f"The leave-one-out baseline needs at least 2 particles, got {particles}.")
        self.particles = particles

    def __call__(
        self, program: Program, guide: Callable[..., Any], batch: Data, size: int, beta: float | Tensor = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Surrogate mean_k [(f_k - mean_{j != k} f_j) log q(z_k) + log p(x, z_k)], f = log p - log q."""
        with torch.no_grad():
            values = draw(guide, self.particles, *batch).values
        q = guide_log_prob(guide, values, *batch)
        p = log_joint(program, values, *batch)
        if p.joint or q.joint:
            scale = size / batch.size
            log_q = (q.local.sum(-1) * scale + q.globals)[:, None]
            prior_and_likelihood = (p.local.sum(-1) * scale + p.globals)[:, None]
            units = float(size)
        else:
            log_q, prior_and_likelihood, units = q.local, p.local, float(batch.size)
        if isinstance(beta, Tensor) or beta != 1.0:
            raise OptionError("KL annealing is not available with elbo='score'; drop kl_anneal.")
        signal = (prior_and_likelihood - log_q).detach()
        baseline = (signal.sum(0) - signal) / (self.particles - 1)
        surrogate = ((signal - baseline) * log_q + prior_and_likelihood).mean(0).sum() / units
        return -surrogate, signal.mean(0).sum() / units


class ExactLikelihood(Objective):
    """log p(x) itself, all latents summed out by the program: maximum likelihood, no guide needed.

    Where global latents tie the examples together it is the evidence of all of them, which no minibatch can tell.
    """

    def __call__(
        self, program: Program, guide: Callable[..., Any], batch: Data, size: int, beta: float | Tensor = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Mean log-likelihood, or log-evidence over the number of examples."""
        if isinstance(program, ExactDensity):
            mean = unguarded(program.log_prob)(*batch).mean()
        elif not isinstance(program, ExactEvidence):
            raise CapabilityError(f"{type(program).__name__} has no exact log_prob; use elbo='trace' or 'iwae'.")
        elif size != batch.size:
            raise CapabilityError(
                f"The evidence of {type(program).__name__} is of all examples together and cannot be estimated from "
                f"minibatches; use batch_size >= {size} or elbo='trace'."
            )
        else:
            mean = unguarded(program.log_evidence)(*batch) / size
        return -mean, mean.detach()


def _several(name: str, particles: int, alpha: float) -> Renyi:
    if particles < 2:
        raise OptionError(
            f"elbo={name!r} compares particles, and with {particles} it is the plain ELBO: give particles >= 2, or use "
            "elbo='trace'."
        )
    return Renyi(particles, alpha)


OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "trace": lambda particles, alpha: TraceELBO(infer.Trace_ELBO, particles),
    "mean_field": lambda particles, alpha: TraceELBO(infer.TraceMeanField_ELBO, particles),
    "enum": lambda particles, alpha: TraceELBO(infer.TraceEnum_ELBO, particles),
    "iwae": lambda particles, alpha: _several("iwae", particles, 0.0),
    "renyi": lambda particles, alpha: _several("renyi", particles, alpha),
    "score": lambda particles, alpha: ScoreFunction(particles),
    "exact": lambda particles, alpha: ExactLikelihood(),
}
"""Name -> factory(particles, alpha)."""


def make_objective(name: str, particles: int = 1, alpha: float = 0.0) -> Objective:
    """An objective by name; see OBJECTIVES.

    Raises: UnknownNameError.
    """
    if name not in OBJECTIVES:
        raise UnknownNameError("ELBO", name, OBJECTIVES)
    return OBJECTIVES[name](particles, alpha)
