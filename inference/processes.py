"""One fit on several processes: each takes its share of the rows of every minibatch, and gradients are averaged.

`torchrun --nproc-per-node 4 -m benchmarks.cli fit ...` starts the processes, `joined` makes them a team. A loss is a
mean over rows, so the gradient of the whole minibatch is the mean of the shares' gradients, weighted by their rows:

    g = sum_r (n_r / n) g_r,     n = sum_r n_r

and N processes take the step that one takes on the same minibatch, but for their noise, which each draws for itself.
The gradients go as one flat tensor, by `all_reduce`, between backward and clipping. DistributedDataParallel hooks
into one module's `forward`; here model, guide and critic are called by Pyro's handlers, in parts and in turns, and
several optimizers move them. What that costs: gradients are not sent while others are still computed.

Without `torch.distributed`, or with one process, nothing here does anything.
"""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from zoo.errors import OptionError
from zoo.process import set_seed

__all__ = ["ProcessesNotice", "Team", "average_gradients", "joined", "leads"]

T = TypeVar("T")

MEASURED = range(2, 22)
"""Steps of which the time is taken: the first ones set things up."""


class ProcessesNotice(UserWarning):
    """Says that a fit on several processes spends most of its time on waiting for each other."""


def running() -> bool:
    """Whether `torch.distributed` is initialised in this process."""
    return dist.is_available() and dist.is_initialized()


def leads() -> bool:
    """Whether this process is the one that writes and speaks: the first, or the only one."""
    return not running() or dist.get_rank() == 0


@dataclass
class Team:
    """The processes that share a fit, as one of them sees them; by default it is alone.

    Args:
        rank: Its number, from 0.
        size: How many they are.
    """

    rank: int = 0
    size: int = 1
    steps: int = 0
    """Taken since the fit started or was resumed."""
    spent: dict[str, float] = field(default_factory=lambda: {"step": 0.0, "waiting": 0.0})
    """Seconds of the measured steps, and those of them in communication."""

    @classmethod
    def now(cls) -> Team:
        """That of this process."""
        return cls(dist.get_rank(), dist.get_world_size()) if running() else cls()

    @property
    def alone(self) -> bool:
        """Whether there is nobody to share with."""
        return self.size == 1

    def share(self, n: int) -> slice:
        """Which of n rows are its own; sizes differ by one at most."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def weight(self, n: int) -> float:
        """Its part of a mean over n rows."""
        rows = self.share(n)
        return (rows.stop - rows.start) / n

    def told(self, value: T) -> T:
        """What the first process has for a value, of tensors, numbers, strings, lists and dictionaries."""
        if self.alone:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    @torch.no_grad()
    def level(self, parts: Iterable[Any]) -> None:
        """Gives all modules among the parts the state of the first process."""
        if not self.alone:
            modules = (part for part in parts if isinstance(part, nn.Module))
            for value in (value for module in modules for value in module.state_dict().values()):
                sent = value.detach().contiguous()
                dist.broadcast(sent, src=0)
                value.copy_(sent)

    def mean(self, values: Mapping[str, Tensor], n: int) -> Mapping[str, Tensor]:
        """Means over each process's share of n rows, (), to means over all."""
        if self.alone:
            return values
        flat = torch.stack([value.detach().double() for value in values.values()]) * self.weight(n)
        dist.all_reduce(flat)
        return {name: mean.to(value) for (name, value), mean in zip(values.items(), flat, strict=True)}

    @contextmanager
    def step(self, n: int, seed: int, done: int) -> Iterator[None]:
        """Around a training step on n rows in all: its gradients are averaged, and its noise is this process's own.

        The first process draws on where it stands, as it would alone; the noise of the others follows from the seed,
        their number and the steps done, so that checkpoints need not keep it.
        """
        if self.alone:
            yield
            return
        if self.rank:
            said = hashlib.sha256(f"{seed} {self.rank} {done}".encode()).digest()
            set_seed(int.from_bytes(said[:7], "big"))
        token, started = STEP.set(_Step(self, self.weight(n))), time.perf_counter()
        try:
            yield
        finally:
            STEP.reset(token)
        if self.measures:
            self.spent["step"] += time.perf_counter() - started
        self.steps += 1
        if self.steps == MEASURED.stop:
            self._advise()

    @property
    def measures(self) -> bool:
        """Whether the time of this step is taken."""
        return self.steps in MEASURED

    def _advise(self) -> None:
        share = self.spent["waiting"] / max(self.spent["step"], 1e-9)
        if share > 0.5 and self.rank == 0:
            warnings.warn(
                f"{self.size} processes spend {100 * share:.0f}% of a step on exchanging gradients and waiting, so "
                "fewer are probably faster: take a larger batch_size, fewer processes, or one (without torchrun, where "
                "steps can be compiled).",
                ProcessesNotice,
                stacklevel=2,
            )


@dataclass(frozen=True)
class _Step:
    """A step that is being taken by a team."""

    team: Team
    weight: float

    @torch.no_grad()
    def average(self, parameters: list[Tensor]) -> None:
        for dtype in dict.fromkeys(p.dtype for p in parameters):
            mine = [p for p in parameters if p.dtype == dtype]
            # A parameter may have no gradient here and one elsewhere; one that has none anywhere is left alone.
            has = [p.grad is not None for p in mine]
            grads = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in mine]
            flat = torch.cat([torch.cat(grads) * self.weight, mine[0].new_tensor(has)])
            dist.all_reduce(flat)
            *found, had = flat.split([*(p.numel() for p in mine), len(mine)])
            there = has if all(has) else had.tolist()  # a look that a GPU is waited for
            for p, grad, known in zip(mine, found, there, strict=True):
                p.grad = grad.view_as(p) if known else None


STEP: ContextVar[_Step | None] = ContextVar("STEP", default=None)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Averages `.grad` over the processes that take this step together; alone, and outside of steps, nothing.

    Args:
        parameters: All that the optimizer moves, in the same order everywhere.
    """
    now = STEP.get()
    if now is None:
        return
    mine = list(parameters)
    timed = now.team.measures
    if timed:
        _wait(mine[0].device)
    started = time.perf_counter()
    now.average(mine)
    if timed:
        _wait(mine[0].device)
        now.team.spent["waiting"] += time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def joined(device: str = "auto") -> Iterator[bool]:
    """Makes a team of the processes that `torchrun` has started; alone, nothing. Gives whether this one `leads`.

    NCCL where they compute on CUDA, each on the GPU of its number on the machine; else gloo. Only the first process
    warns. When one fails, all end: the first that fails raises its error, the others leave with exit code 1 in silence.

    Args:
        device: As `fit` is given it.

    Raises: SystemExit, see above; OptionError for more processes than GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or running():
        yield leads()
        return
    on_cuda = device.partition(":")[0] in ("auto", "cuda") and torch.cuda.is_available()
    if on_cuda:
        place, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if place >= gpus:
            raise OptionError(f"Each process takes a GPU, and there are {gpus}: start at most {gpus}, or --device cpu.")
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if on_cuda else "gloo")
    store = dist.distributed_c10d._get_default_store()
    try:
        with warnings.catch_warnings():
            if not leads():
                warnings.simplefilter("ignore")
            yield leads()
    except BaseException as error:
        if not _fails_first(store):
            raise SystemExit(1) from error
        raise
    dist.destroy_process_group()


def _fails_first(store: Any) -> bool:
    """Whether no other process has failed before: what it then meets is a closed connection."""
    try:
        return bool(store.add("zoo failed", 1) == 1)
    except RuntimeError:  # the store went with the process that held it
        return False
