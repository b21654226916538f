"""Many fits as one computation: fits that differ only in their numbers, compiled into one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from inference.environment import continued, random_state
from inference.method import Outcome
from inference.training.gradient import Training
from inference.training.loop import _send, compile_together, progress_bar
from inference.training.optimizers import numerics

__all__ = ["Begun", "train_together"]


class Begun:
    """A training after its first step, which is Python's; to be made within the random state of its own fit.

    It is finished in that state too: what a method draws at its end is what it would draw alone.
    """

    def __init__(self, training: Training):
        self.training, self.loop = training, training.loop
        self.rounds = self.loop.rounds(training.validate)
        self.wanted = next(self.rounds, None)
        """How many steps it waits for; None when it has ended."""
        if self.wanted is not None:
            self.give(self.loop.advance(self.wanted))
        self.random = random_state(self.loop.data.x.device)

    def give(self, sums: Mapping[str, Tensor]) -> None:
        """Hands over the metrics, summed over the steps that it wanted."""
        self.wanted = _send(self.rounds, sums)

    def finish(self) -> Outcome:
        """Wraps up."""
        with continued(self.random, self.loop.data.x.device):
            return self.training.finish()


def train_together(fits: Sequence[Begun], progress: bool = False) -> bool:
    """Goes on with fits that differ only in their numbers, as one computation, to their end.

    Returns: False, with nothing done, when their step cannot be compiled or that would not repay it; True where all
    have ended already.
    """
    loops = [each.loop for each in fits]
    if all(each.wanted is None for each in fits):
        return True  # what is settled needs no steps
    if loops[0].compiling == "never" or fits[0].wanted is None:
        return False
    with progress_bar(progress) as bar:
        task = bar.add_task(f"{loops[0].label}, {len(loops)} fits", total=loops[0].total, note="compiling the step ...")
        with numerics(loops[0].schedule.precision, loops[0].data.x.device):
            if not compile_together(loops):
                return False
            compiled = loops[0].compiled
            assert compiled is not None
            while waiting := [each for each in fits if each.wanted is not None]:
                n = waiting[0].wanted
                assert n is not None
                ended = [r for r, each in enumerate(fits) if each.wanted is None]
                found = compiled.advance(n, waiting[0].loop.done, ended)
                for each in waiting:
                    each.loop.done += n
                    each.give(found[fits.index(each)])
                bar.update(task, completed=max(loop.done for loop in loops), note="")
    return True
