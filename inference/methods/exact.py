"""Exact inference: the ground truth that every other method is measured against.

A program answers for itself where it can (conjugacy, forward-backward, linear-Gaussian closed forms: the capabilities
of `zoo.program`). Otherwise one discrete latent is enumerated, and one or two continuous dimensions are integrated on
an adaptive grid. The answer is always a guide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from inference.guides.exact import EnumeratedGuide, JointEnumeration, exact_guide, why_not_exact
from inference.guides.grid import GridGuide
from inference.method import Method, Outcome, Run
from zoo.options import Range
from zoo.program import Program

__all__ = ["Exact"]


@dataclass(frozen=True, kw_only=True)
class Exact(Method):
    """The exact posterior at the program's present parameters; nothing is trained.

    Args:
        points: Grid points per dimension, where a grid is used; None chooses.
    """

    name: ClassVar[str] = "exact"
    moves_program: ClassVar[bool] = False

    points: Annotated[int, Range(least=3)] | None = None

    def why_not(self, program: Program) -> str | None:
        """Needs a closed form, one enumerable latent, or at most two continuous dimensions."""
        return why_not_exact(program)

    def run(self, program: Program, run: Run) -> Outcome:
        """Returns the guide that is the posterior."""
        guide = exact_guide(program, points=self.points)
        kinds = {GridGuide: "grid", EnumeratedGuide: "enumeration", JointEnumeration: "enumeration"}
        kind = kinds.get(type(guide), "posterior")
        spec = {"kind": kind, "points": self.points} if kind == "grid" else {"kind": kind}
        return Outcome(guide, spec)
