"""Sequential Monte Carlo from the prior to the posterior: draws, and the evidence with its error.

Del Moral, Doucet & Jasra, "Sequential Monte Carlo samplers", JRSS B 68, 2006; temperatures by effective sample size,
Jasra, Stephens, Doucet & Tsagaris 2011; the error by who descends from whom, Lee & Whiteley, "Variance estimation in
the particle filter", Biometrika 105, 2018. Moves are Hamiltonian, in units of the particles' own spread.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import pyro
import torch
from torch import Tensor

from inference.history import History
from inference.method import Method, Outcome, Run
from inference.tempering import TARGET_ACCEPTANCE, Tempered, move, why_no_tempering
from inference.training.loop import progress_bar
from zoo.errors import CapabilityError, DivergenceError
from zoo.options import Count, NonNegative, Probability, Range
from zoo.program import Program

__all__ = ["SMC"]

MOST = 2**26
"""Particles times numbers of the data, all of which are moved together."""
FEWEST_ROOTS = 10
LOWEST_ACCEPTANCE = 0.2
LEAST_RISE = 1e-9


@dataclass
class _State:
    """Where a run stands; what a checkpoint keeps."""

    z: Tensor
    """(S, U, D)."""
    rest: Tensor
    """log p(x | z) there, (S, U)."""
    roots: Tensor
    """The first particle that each descends from, (S, U)."""
    log_size: Tensor
    """Of the step (U,)."""
    log_evidence: Tensor
    """(U,)."""
    variance: Tensor
    """Of the evidence, relative, as if particles had forgotten each other at each temperature, (U,)."""
    by_roots: Tensor
    """The same by descent, (U,)."""
    beta: float = 0.0
    gradients: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)

    def error(self) -> Tensor:
        """Standard error of the log evidence (U,): of two estimates of its variance the larger."""
        return torch.maximum(self.variance, self.by_roots).sqrt()

    def count_roots(self) -> int:
        """How many first particles still have descendants, in the unit that has fewest."""
        return min(len(unit.unique()) for unit in self.roots.unbind(1))


@dataclass(frozen=True, kw_only=True)
class SMC(Method):
    """Particles from the prior to the posterior by degrees; the program's parameters are held.

    At each inverse temperature they are weighted, resampled and moved. The next temperature is where the weights of
    the unit that suffers most are worth `ess` of the particles. `samples` are the particles at the end, which several
    modes can share by their mass; `Fit.info` has the log evidence of all data, its standard error, and for units of
    their own (latents of single examples alone) those of each.

    Args:
        particles: S, of each unit.
        ess: Effective share of the particles that a temperature leaves.
        moves: Hamiltonian transitions at each temperature.
        leapfrog: Leapfrog steps of each; each costs a gradient, and the start one more.
        checkpoint_seconds: Time between two checkpoints, where there is a folder for them.
    """

    name: ClassVar[str] = "smc"
    moves_program: ClassVar[bool] = False

    particles: Annotated[int, Range(least=4)] = 1000
    ess: Probability = 0.5
    moves: Count = 3
    leapfrog: Count = 5
    checkpoint_seconds: NonNegative = 30.0

    def why_not(self, program: Program) -> str | None:
        """Needs a prior that can be drawn from, continuous latents, and discrete ones only where they sum out."""
        return why_no_tempering(program)

    def run(self, program: Program, run: Run) -> Outcome:
        """Takes the particles from the prior to the posterior.

        Raises: CapabilityError for more particles than are moved together; DivergenceError where no draw of the prior
            makes the data possible.
        """
        numbers = sum(value.numel() for value in run.train.tensors())
        if self.particles * numbers > MOST:
            raise CapabilityError(
                f"smc moves all particles of all examples together, and {self.particles:,} particles of {numbers:,} "
                f"numbers of data are more than {MOST:,}: take fewer particles, or 'svi'."
            )
        program.eval()
        started, saved = time.perf_counter(), time.perf_counter()
        with progress_bar(run.progress) as bar, pyro.validation_enabled(False):
            task = bar.add_task(f"smc {type(program).__name__}", total=100, note="")
            problem = Tempered(program, *run.train)
            found = None if run.checkpoint is None else run.checkpoint.take()
            state = self._start(program, problem) if found is None else _resumed(found, run.train.x.device)
            started -= state.rows[-1]["seconds"] if state.rows else 0.0
            while state.beta < 1:
                self._rise(problem, state)
                state.rows[-1]["seconds"] = time.perf_counter() - started
                bar.update(task, completed=int(100 * state.beta), note=f"{len(state.rows)} temperatures")
                run.listeners.report(state.rows)
                if run.checkpoint is not None and time.perf_counter() - saved >= self.checkpoint_seconds:
                    run.checkpoint.write(vars(state))
                    run.listeners.tell("on_checkpoint", len(state.rows), run.checkpoint.path)
                    saved = time.perf_counter()
        values, _ = problem.coordinates.unpack(state.z)
        sites = problem.coordinates.sites
        samples = {n: (v[:, 0] if sites[n].is_global else v).contiguous() for n, v in values.items()}
        return Outcome(
            samples=samples, history=History(state.rows), gradient_evaluations=state.gradients,
            info=self._told(state),
        )  # fmt: skip

    def _start(self, program: Program, problem: Tempered) -> _State:
        """Draws of the prior."""
        z = problem.draw_start(self.particles)
        with torch.no_grad():
            rest = _possible(problem.log_densities(z)[1])
        if not bool(torch.isfinite(rest).any(0).all()):
            raise DivergenceError(
                f"smc {type(program).__name__}: the data are impossible under all {self.particles} draws of the prior. "
                "Check the scale of the data and the priors, or take more particles."
            )
        zero, d = rest.new_zeros(rest.shape[1]), z.shape[-1]
        roots = torch.arange(len(z)).to(z.device)[:, None].expand(rest.shape).clone()
        return _State(
            z, rest, roots=roots, log_size=zero - math.log(d) / 4, log_evidence=zero, variance=zero, by_roots=zero
        )

    def _rise(self, problem: Tempered, state: _State) -> None:
        """Weighs, resamples and moves, at the next temperature."""
        n, beta = self.particles, self._next(state)
        log_weights = (beta - state.beta) * state.rest
        state.log_evidence = state.log_evidence + log_weights.logsumexp(0) - math.log(n)
        weights = log_weights.softmax(0)
        state.variance = state.variance + weights.square().sum(0) - 1 / n
        # Lee & Whiteley, for as many resamplings as there were before these weights; multinomial ones.
        shares = torch.zeros_like(weights).scatter_add(0, state.roots, weights)
        grown = (n / (n - 1)) ** (len(state.rows) + 1)
        state.by_roots = 1 - grown * (1 - shares.square().sum(0))
        centre, factor = _spread(state.z, weights)
        chosen = torch.multinomial(weights.T, n, replacement=True).T
        state.z = state.z.gather(0, chosen[..., None].expand_as(state.z))
        state.roots = state.roots.gather(0, chosen)

        def placed(e: Tensor) -> Tensor:
            return centre + (factor @ e[..., None])[..., 0]

        e = torch.linalg.solve_triangular(factor, (state.z - centre)[..., None], upper=False)[..., 0]
        rates, at = [], torch.as_tensor(beta).to(e)
        for _ in range(self.moves):
            e, state.rest, rate = move(
                lambda e: problem.log_densities(placed(e)), e, at, state.log_size.exp(), self.leapfrog
            )
            state.log_size = state.log_size + rate - TARGET_ACCEPTANCE
            rates.append(rate)
        state.z, state.rest, state.beta = placed(e), _possible(state.rest), beta
        state.gradients += n * self.moves * (self.leapfrog + 1)
        row = {"inverse_temperature": beta, "acceptance": float(torch.stack(rates).mean())}
        state.rows.append({"step": len(state.rows) + 1, "seconds": 0.0, **row})

    def _next(self, state: _State) -> float:
        """The inverse temperature that leaves the wanted effective share of the particles."""

        def left(rise: float) -> float:
            weights = (rise * state.rest).softmax(0)
            return float((1 / weights.square().sum(0)).min()) / self.particles

        low, high = LEAST_RISE, 1 - state.beta
        if high <= low or left(high) >= self.ess:
            return 1.0
        for _ in range(60):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if left(middle) >= self.ess else (low, middle)
        return state.beta + low

    def _told(self, state: _State) -> dict[str, Any]:
        """What the run says of itself."""
        rates, roots = [row["acceptance"] for row in state.rows], state.count_roots()
        error = state.error()
        info: dict[str, Any] = {
            "log_evidence": float(state.log_evidence.sum()),
            "log_evidence_error": float(error.square().sum().sqrt()),
            "temperatures": [row["inverse_temperature"] for row in state.rows],
            "acceptance": sum(rates) / len(rates),
            "roots": roots,
        }
        if len(error) > 1:
            info |= {"log_evidences": state.log_evidence.tolist(), "log_evidence_errors": error.tolist()}
        trouble = []
        if roots < min(FEWEST_ROOTS, self.particles // 4):
            trouble.append(f"all particles descend from {roots} draws of the prior; take more particles")
        if min(rates) < LOWEST_ACCEPTANCE:
            trouble.append(f"moves were accepted at a rate of {min(rates):.2f} at worst; take more moves")
        info["convergence"] = {"verdict": "not to be trusted" if trouble else "converged"}
        return info if not trouble else {**info, "warning": "; ".join(trouble) + "."}


def _resumed(found: dict[str, Any], device: torch.device) -> _State:
    there: dict[str, Any] = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in found.items()}
    return _State(**there)


def _possible(rest: Tensor) -> Tensor:
    """A log density without NaN: where it has none, the data are impossible."""
    return rest.nan_to_num(-torch.inf, posinf=-torch.inf, neginf=-torch.inf)


def _spread(z: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (U, D) and a lower factor (U, D, D) of the covariance of weighted particles, the latter shrunk.

    The share that correlations lose, D / (D + S), keeps a few particles from telling of more than they can.
    """
    n, d = len(z), z.shape[-1]
    centre = (weights[..., None] * z).sum(0)
    apart = (z - centre) * weights[..., None].sqrt()
    covariance = torch.einsum("sud,sue->ude", apart, apart)
    diagonal = covariance.diagonal(dim1=-2, dim2=-1).clamp(min=1e-300 if z.dtype == torch.float64 else 1e-30)
    scale = diagonal.sqrt()
    correlation = covariance / scale[:, :, None] / scale[:, None, :] * (n / (n + d))
    eye = torch.eye(d).to(z)
    correlation = torch.where(eye.bool(), eye, correlation)
    return centre, scale[:, :, None] * torch.linalg.cholesky(correlation)
