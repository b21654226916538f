"""What the methods of energy-based models share: whom they take, and a look at the chains when a fit ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from inference.method import Outcome
from inference.mixing import chain_mixing
from inference.training.gradient import GradientMethod
from inference.training.loop import Loop
from zoo.energy.base import EnergyProgram
from zoo.program import Program

__all__ = ["EnergyMethod", "why_no_energy", "why_not_of_examples"]


def why_no_energy(program: Program) -> str | None:
    """Why a program is no energy-based model with something to learn, or None."""
    if isinstance(program, EnergyProgram):
        learns = any(p.requires_grad for p in program.parameters())
        return None if learns else "it has no parameter that is to be learned"
    return "it is no energy-based model (`zoo.energy.base.EnergyProgram`), a density up to a constant"


def why_not_of_examples(program: Program) -> str | None:
    """Why a program's path, chains and f are not all of examples, or None."""
    reason = why_no_energy(program)
    if reason is None and isinstance(program, EnergyProgram) and program.hides:
        return "its chains and its base are of hidden states, not of examples; take 'cd'"
    return reason


@dataclass(frozen=True, kw_only=True)
class EnergyMethod(GradientMethod):
    """Base of the methods that fit energy-based models.

    `Outcome.info['mixing']` says how the program's chains mix at the end: `rhat` and `moved` of
    `inference.mixing.Mixing`; where they do not, `info['warning']` says so.
    """

    takes_missing: ClassVar[bool] = False
    NATS: ClassVar[frozenset[str]] = frozenset()

    def ended(
        self, program: Program, loop: Loop, *, evaluations: int = 1, info: dict[str, Any] | None = None
    ) -> Outcome:
        """As of any method, and a look at the chains that draws will come from."""
        outcome = super().ended(program, loop, evaluations=evaluations, info=info)
        found = chain_mixing(program, seed=loop.run.seed, examples=loop.run.train.x)
        outcome.info["mixing"] = {"rhat": found.rhat, "moved": found.moved}
        if (trouble := found.trouble) is not None:
            outcome.info["warning"] = f"{trouble}."
        return outcome
