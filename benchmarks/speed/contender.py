"""What a contender is: one way of training one program, begun afresh by `prepare` and driven by `advance(n)`.

A workload is one job, `Work`: data, batch size, learning rate and seed, the same for every contender. Minibatches are
rows without replacement, epoch by epoch (NumPyro: with replacement, which costs it less), and the optimizer is Adam
with a constant learning rate everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import pyro
import pyro.infer
import torch
from torch import Tensor, nn

from inference.fit import make_method
from inference.method import Run
from inference.training.gradient import GradientMethod
from zoo import datasets
from zoo.datasets import Data, Dataset, base_name, sources
from zoo.datasets.registry import REGISTRY
from zoo.errors import ZooError
from zoo.program import Program

__all__ = [
    "NUMPYRO", "PYRO", "ZOO", "ZOO_COMPILED", "ZOO_EAGER", "ZOO_TRACED", "Advance", "ByHand", "Contender", "Turn",
    "Unavailable", "Work", "at_hand", "numpyro_contenders", "pyro_contender", "torch_contenders", "turn_contenders",
    "zoo_contenders",
]  # fmt: skip

ZOO_COMPILED, ZOO_TRACED, ZOO_EAGER = ZOO = "zoo, compiled", "zoo, traced", "zoo, eager"
PYRO = "Pyro, SVI.step"
TORCH_EAGER, TORCH_COMPILED, TORCH_WHOLE = "PyTorch, eager", "PyTorch, compiled", "PyTorch, compiled with Adam"
TORCH_GRAPH = "PyTorch, CUDA graph"
NUMPYRO, NUMPYRO_CALLS = "NumPyro, fused loop", "NumPyro, a call a step"

Advance = Callable[[int], float]
"""Runs n more steps, waits for the device once at the end, and returns the mean loss per example over them."""


class Unavailable(ZooError):
    """A workload or a contender that cannot be run here; says why and what would change that."""


def at_hand(name: str) -> Dataset:
    """A data set, if it is on this machine: nothing is downloaded to be timed.

    Raises: Unavailable.
    """
    base = base_name(name)
    compact, *originals = REGISTRY[base].card.files
    if not any(all(sources.local(file) for file in way) for way in ([compact], originals) if way):
        raise Unavailable(f"{base} is not on this machine: set ZOO_DATA, or load it once (zoo.datasets, {base!r})")
    return datasets.load(name)


@dataclass(frozen=True)
class Contender:
    """One way of doing the work.

    Args:
        name: What tables call it.
        prepare: Starts afresh from the seed; compiling belongs to it or to the first step.
        how: How it was written, where a reader may ask.
        absent: Why it does not take part; empty when it does.
        imports: What a process that does it imports first, so that libraries do not count as memory.
    """

    name: str
    prepare: Callable[[], Advance]
    how: str = ""
    absent: str = ""
    imports: tuple[str, ...] = ()


@dataclass(frozen=True)
class Work:
    """The job: the data, float32 and on the device, and how they are trained on."""

    data: Data
    batch_size: int
    lr: float
    seed: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else a reader of the record should know: K, D, where the data are from."""

    @property
    def device(self) -> torch.device:
        """Where the data are."""
        return self.data.x.device

    def batches(self) -> Callable[[], Data]:
        """What gives the next minibatch: all the data when they are no more than one."""
        data, size = self.data, self.batch_size
        if data.size <= size:
            return lambda: data
        shuffler = torch.Generator().manual_seed(self.seed)
        left: list[Tensor] = []

        def following() -> Data:
            if not left:
                order = torch.randperm(data.size, generator=shuffler).to(data.x.device)
                left.extend(order[: data.size // size * size].split(size)[::-1])
            return data.rows(left.pop())

        return following


# This project.


def zoo_contenders(
    make: Callable[[], tuple[Program, Mapping[str, Any]]], work: Work, method: str = "svi"
) -> list[Contender]:
    """Ours: compiled, traced, and neither.

    Args:
        make: Gives the program, at its starting point, and the options of the method (guide, elbo).
        method: Name of one that takes gradient steps.
    """

    def prepare(compiled: str) -> Advance:
        torch.manual_seed(work.seed)
        program, options = make()
        shared = {"lr": work.lr, "decay": "constant", "batch_size": work.batch_size, "steps": 10**9}
        made = make_method(method, **options, **shared, compile=compiled)
        assert isinstance(made, GradientMethod)
        training = made.prepare(program.to(work.device), Run(work.data, seed=work.seed))

        def advance(n: int) -> float:
            loss = float(training.advance(n))
            # The first step is always Python's.
            if compiled != "never" and training.loop.done > 1 and training.loop.compiled is None:
                raise Unavailable("the step could not be compiled and would go on as the eager one")
            return loss

        return advance

    gears = {ZOO_COMPILED: "always", ZOO_TRACED: "traced", ZOO_EAGER: "never"}
    return [
        Contender(name, functools.partial(prepare, gear), f"fit(method={method!r}, compile={gear!r})")
        for name, gear in gears.items()
    ]


# Pyro.


def pyro_contender(make: Callable[[], tuple[Any, Any, pyro.infer.ELBO]], work: Work, units: int, how: str) -> Contender:
    """`SVI.step` in a loop, with Pyro's checks switched off.

    Args:
        make: Gives model(x, context), guide(x, context) and the ELBO.
        units: How many examples the loss is the sum over.
        how: How it was written.
    """

    def prepare() -> Advance:
        pyro.clear_param_store()
        torch.manual_seed(work.seed)
        model, guide, elbo = make()
        svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": work.lr}), loss=elbo)
        batch = work.batches()

        def advance(n: int) -> float:
            with pyro.validation_enabled(False):
                return sum(svi.step(*batch()) for _ in range(n)) / n / units

        return advance

    return Contender(PYRO, prepare, how)


# PyTorch by hand.

Loss = Callable[[Tensor, "Tensor | None"], Tensor]


@dataclass(frozen=True)
class Turn:
    """One player's part of a step: Adam on the parameters that it moves, down its loss(x, context), a mean."""

    parameters: Sequence[nn.Parameter]
    loss: Loss
    lr: float
    betas: tuple[float, float] = (0.9, 0.999)

    def adam(self, **kind: bool) -> torch.optim.Adam:
        """Its optimizer."""
        return torch.optim.Adam(self.parameters, lr=self.lr, betas=self.betas, **kind)


@dataclass(frozen=True)
class ByHand:
    """A step written out: turns one after the other, on the same minibatch, and what ends it.

    Args:
        turns: In order; the loss of the last one is that of the step.
        after: Called at the end of each step, an average of weights say; None is nothing.
    """

    turns: Sequence[Turn]
    after: Callable[[], Any] | None = None

    def of(self, optimizers: Sequence[torch.optim.Optimizer], keep: bool = False) -> Callable[[Data], Tensor]:
        """The step as a function of a minibatch, which returns its loss ().

        Args:
            optimizers: One for each turn.
            keep: Gradients stay where they are in memory and are set to zero.
        """
        descents = [optimizer.step for optimizer in optimizers]

        def step(batch: Data) -> Tensor:
            for turn, optimizer, descend in zip(self.turns, optimizers, descents, strict=True):
                if len(self.turns) > 1:  # no slopes for those whose turn it is not
                    for each in self.turns:
                        for parameter in each.parameters:
                            parameter.requires_grad_(each is turn)
                loss = turn.loss(*batch)
                optimizer.zero_grad(set_to_none=not keep)
                loss.backward()
                descend()
            if self.after is not None:
                self.after()
            return loss.detach()

        return step


def torch_contenders(make: Callable[[], tuple[list[nn.Parameter], Loss]], work: Work, how: str = "") -> list[Contender]:
    """One loss, with one Adam; see `turn_contenders`.

    Args:
        make: Gives the parameters and loss(x, context), the mean per example.
        how: How it was written.
    """

    def by_hand() -> ByHand:
        parameters, loss = make()
        return ByHand([Turn(parameters, loss, work.lr)])

    return turn_contenders(by_hand, work, how)


def turn_contenders(make: Callable[[], ByHand], work: Work, how: str = "") -> list[Contender]:
    """Steps written out: eager; losses compiled; all else compiled as well; on CUDA, the step captured as a graph.

    Args:
        make: Gives the step.
        how: How it was written.
    """

    def prepare(compile_losses: bool, compile_adam: bool) -> Advance:
        torch.manual_seed(work.seed)
        hand = make()
        # Adam as one kernel, except where the compiler is to make one of it.
        optimizers = [turn.adam(fused=not compile_adam) for turn in hand.turns]
        if compile_losses:
            # Shapes never change, so both values mean the same; with one, the second contender would find in memory
            # what was compiled for the first.
            compiled = functools.partial(torch.compile, fullgraph=True, dynamic=None if compile_adam else False)
            hand = replace(hand, turns=[replace(turn, loss=compiled(turn.loss)) for turn in hand.turns])
        if compile_adam:
            for optimizer in optimizers:
                optimizer.step = torch.compile(optimizer.step, fullgraph=False)  # type: ignore[method-assign]
            hand = hand if hand.after is None else replace(hand, after=torch.compile(hand.after))
        step, batch = hand.of(optimizers), work.batches()

        def advance(n: int) -> float:
            total = torch.zeros((), device=work.device)
            for _ in range(n):
                total += step(batch())
            return float(total) / n

        return advance

    adam = "; torch.optim.Adam(fused=True)"
    found = [
        Contender(TORCH_EAGER, functools.partial(prepare, False, False), (how + adam).lstrip("; ")),
        Contender(TORCH_COMPILED, functools.partial(prepare, True, False), "torch.compile of the loss" + adam),
        Contender(TORCH_WHOLE, functools.partial(prepare, True, True), "torch.compile of the loss and of Adam's step"),
    ]
    if work.device.type == "cuda":
        graph = functools.partial(_captured, make, work)
        found.append(Contender(TORCH_GRAPH, graph, "loss, gradient and Adam captured"))
    return found


def _captured(make: Callable[[], ByHand], work: Work) -> Advance:
    """One step as a CUDA graph that is replayed on a batch copied into place."""
    torch.manual_seed(work.seed)
    hand = make()
    step = hand.of([turn.adam(capturable=True) for turn in hand.turns], keep=True)
    batch = work.batches()
    first = batch()
    place = Data(first.x.clone(), None if first.context is None else first.context.clone())
    total = torch.zeros((), device=work.device)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            total.add_(step(place))
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        total.add_(step(place))

    def advance(n: int) -> float:
        total.zero_()
        for _ in range(n):
            x, context = batch()
            place.x.copy_(x)
            if place.context is not None and context is not None:
                place.context.copy_(context)
            graph.replay()
        return float(total) / n

    return advance


# NumPyro.


def numpyro_contenders(
    make: Callable[[], tuple[Any, Any, Any]], work: Work, units: int, how: str = ""
) -> list[Contender]:
    """`svi.update` inside `lax.fori_loop`, the minibatch chosen inside; and `jit(svi.update)` called once a step.

    Args:
        make: Gives model(x, context), guide(x, context) and the ELBO; imports NumPyro itself.
        units: How many examples the loss is the sum over.
        how: How it was written.
    """
    absent = _numpyro_absent(work.device)
    return [
        Contender(
            name,
            functools.partial(_numpyro, make, work, units, name == NUMPYRO),
            how,
            absent=absent,
            imports=() if absent else ("jax", "numpyro"),
        )
        for name in (NUMPYRO, NUMPYRO_CALLS)
    ]


def _numpyro_absent(device: torch.device) -> str:
    if find_spec("numpyro") is None:
        return "NumPyro is not installed: pip install 'pyro-model-zoo[peers]'"
    if device.type == "cuda":
        import jax

        if jax.default_backend() != "gpu":
            return "the jax that is installed does not see the GPU: pip install 'jax[cuda12]'"
    return ""


def _numpyro(make: Callable[[], tuple[Any, Any, Any]], work: Work, units: int, fused: bool) -> Advance:
    import jax
    import jax.numpy as jnp
    import numpyro

    model, guide, elbo = make()
    svi = numpyro.infer.SVI(model, guide, numpyro.optim.Adam(work.lr), loss=elbo)
    size, batch_size = work.data.size, min(work.batch_size, work.data.size)
    # Arguments of the compiled loop, not constants inside it.
    data = [None if t is None else jnp.asarray(t.cpu().numpy()) for t in work.data]
    key, start = jax.random.split(jax.random.PRNGKey(work.seed))
    state = svi.init(start, *(None if t is None else t[:batch_size] for t in data))

    def step(state: Any, key: Any, data: list[Any]) -> tuple[Any, Any]:
        if batch_size < size:
            rows = jax.random.randint(key, (batch_size,), 0, size)
            data = [None if t is None else t[rows] for t in data]
        found: tuple[Any, Any] = svi.update(state, *data)
        return found

    @jax.jit
    def loop(state: Any, key: Any, n: Any, data: list[Any]) -> tuple[Any, Any]:
        def body(i: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            state, total = carry
            state, loss = step(state, jax.random.fold_in(key, i), data)
            return state, total + loss

        found: tuple[Any, Any] = jax.lax.fori_loop(0, n, body, (state, jnp.zeros(())))
        return found

    once = jax.jit(step)

    def advance(n: int) -> float:
        nonlocal state, key
        key, now = jax.random.split(key)
        if fused:
            state, total = loop(state, now, n, data)
            return float(total) / n / units
        losses = []
        for _ in range(n):
            state, loss = once(state, now, data)
            losses.append(loss)
        return float(jnp.stack(losses).sum()) / n / units

    return advance
