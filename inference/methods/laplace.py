"""Laplace's approximation: the Gaussian whose mean is the mode and whose precision is minus the Hessian there.

Laplace 1774; MacKay, "Information theory, inference, and learning algorithms", 2003, chapter 27. In the unconstrained
space of the latents, with the Jacobian of the map from there, as Stan and Pyro's `AutoLaplaceApproximation` have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from inference.guides.named import build_guide, guide_spec
from inference.method import Method, Outcome, Run
from inference.methods.settling import STARTS, Place
from inference.training.importance import Weighed
from inference.training.loop import progress_bar
from inference.training.modes import Mode, find_modes
from inference.training.target import Target, following, make_target, why_no_vector
from zoo.errors import CapabilityError
from zoo.options import Count
from zoo.program import Program

__all__ = ["Laplace"]

JUDGED_BY = 1000
"""Draws that say how far the posterior is from the Gaussian."""


@dataclass(frozen=True, kw_only=True)
class Laplace(Method):
    """The Gaussian at the best mode of the posterior of all continuous latents; the program's parameters are held.

    The mode is found by Newton's method with exact curvature, and the answer is the guide 'multivariate_normal'.
    `Fit.info` has Laplace's estimate of the log evidence, the number of modes that were seen, and k-hat of importance
    weights, which says whether the posterior is like that Gaussian.

    Args:
        starts: Places from which a mode is looked for: the origin, and draws of the prior.
    """

    name: ClassVar[str] = "laplace"
    moves_program: ClassVar[bool] = False

    starts: Count = STARTS

    def why_not(self, program: Program) -> str | None:
        """Needs a density of continuous latents of which some are global."""
        return why_no_vector(program)

    def run(self, program: Program, run: Run) -> Outcome:
        """Finds the mode.

        Raises: CapabilityError where there is none around which the log density is curved downwards in all directions.
        """
        label = f"laplace {type(program).__name__}"
        with progress_bar(run.progress) as bar, following("laplace", program):
            bar.add_task(label, total=None, note="looking for modes")
            target = make_target("laplace", program, run.train)
            modes = find_modes(target, target.starts(self.starts))
        if not modes:
            raise CapabilityError(
                f"{label}: none of {self.starts} starts led to a maximum around which minus the Hessian of the log "
                "density is positive definite (the density grows without end, or is flat along a direction); take "
                "guide='multivariate_normal' of 'svi', 'smc' or 'nuts', or another parametrisation."
            )
        spec = guide_spec("multivariate_normal")
        guide = build_guide(spec, program, run.train.plain())
        Place(target, modes, self.starts).put("multivariate_normal", guide)  # type: ignore[arg-type]
        info = {"modes": len(modes), "starts": self.starts, **_judged(target, modes[0])}
        if len(modes) > 1:
            other = f"{len(modes)} modes were found, and this is the Gaussian at one of them"
            info["warning"] = f"{other}; {info['warning']}" if "warning" in info else f"{other}."
        return Outcome(guide, spec, gradient_evaluations=target.evaluations, info=info)


def _judged(target: Target, mode: Mode) -> dict[str, Any]:
    """Laplace's evidence, and how like its Gaussian the posterior is."""
    e = torch.randn(JUDGED_BY, target.size).to(mode.place)
    # The Gaussian's log density, up to the constant that makes the weight at the mode the evidence.
    log_weights = target(mode.place + e @ mode.factor.T) - mode.log_density + e.square().sum(-1) / 2
    weighed = Weighed(log_weights + mode.log_evidence)
    info = {
        "log_evidence": mode.log_evidence,
        "k_hat": weighed.k_hat,
        "convergence": {"verdict": "converged"},
    }
    return info if weighed.doubt is None else {**info, "warning": weighed.doubt}
