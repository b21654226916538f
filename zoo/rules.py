"""What a broken rule of the contract gets: an error that names the rule, the site, the line, and what to do."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from zoo.errors import ZooError
from zoo.process import set_seed
from zoo.program import Program

__all__ = ["BATCH", "Check", "ContractError", "Position", "draw_data", "require", "rule", "said", "sample_sites"]

BATCH = 6
"""How many examples are checked."""

Check = Callable[[Program], None]
"""A check of one rule; it returns, or raises ContractError."""


class ContractError(AssertionError):
    """A rule of the contract that a program breaks."""


def require(condition: bool, message: str) -> None:
    """Raises ContractError(message) unless the condition holds."""
    if not condition:
        raise ContractError(message)


def draw_data(program: Program, n: int = BATCH) -> tuple[Tensor, Tensor | None]:
    """(x, context): n examples of the program's own, detached; its `pyro.param` statements are parameters then."""
    context = program.example_context(n)
    set_seed(1)
    x = program.generate(n, context).detach()
    program.declare(x, context)
    return x, context


def sample_sites(fn: Callable[..., Any], *args: Any) -> dict[str, Any]:
    """Name -> site of Pyro's trace, of all sample sites that a run reaches, in its order."""
    trace = poutine.trace(fn).get_trace(*args)
    return {k: s for k, s in trace.nodes.items() if s["type"] == "sample" and not site_is_subsample(s)}


class Position(Messenger):
    """Which site a model has come to, as long as this handler lasts.

    Args:
        order: Names of all its sites, if they are known.
    """

    def __init__(self, order: list[str] | None = None):
        super().__init__()
        self.order = order or []
        self.site: str | None = None
        self.inside = False

    def _process_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and not site_is_subsample(msg):
            self.site, self.inside = msg["name"], True

    def _postprocess_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and not site_is_subsample(msg):
            self.inside = False

    def __str__(self) -> str:
        if self.inside:
            return f"at the site {self.site!r}"
        following = self.order[self.order.index(self.site) + 1 if self.site in self.order else 0 :]
        before = f"before the site {following[0]!r}" if following else ""
        after = "" if self.site is None else f"after the site {self.site!r}"
        return " and ".join(part for part in (after, before) if part) or "before the first site"


def said(error: Exception, position: Position) -> str:
    """What an exception says, without a full stop; with the line and the site where a program's own code raised it."""
    text = str(error) if isinstance(error, ZooError) else (str(error).strip().splitlines() or [""])[0]
    kind, where = type(error).__name__, f" {position}" if position.inside else ""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.name in ("model", "guide", "posterior"):
            where = f" in {frame.name} ({Path(frame.filename).name}, line {frame.lineno}), {position}"
            break
    return f"{kind}{where}: {text.rstrip('.')}"


def rule(number: int, remedy: str) -> Callable[[Check], Check]:
    """Makes a check name its rule, and turn any exception into a ContractError that says what to do.

    Args:
        number: Of the rule in docs/write-a-model.md.
        remedy: A sentence for exceptions that the check does not foresee.
    """

    def wrapped(check: Check) -> Check:
        @functools.wraps(check)
        def checked(program: Program) -> None:
            position = Position()
            try:
                with position:
                    check(program)
            except ContractError as error:
                raise ContractError(f"rule {number}: {error}") from error
            except Exception as error:
                raise ContractError(f"rule {number}: {said(error, position)}. {remedy}") from error

        return checked

    return wrapped
