"""What a contender is: one way of training one program, begun afresh by `prepare` and driven by `advance(n)`.

A workload is one job, `Work`: data, batch size, learning rate and seed, the same for every contender. Minibatches are
rows without replacement, epoch by epoch (NumPyro: with replacement, which costs it less), and the optimizer is Adam
with a constant learning rate everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import pyro
import pyro.infer
import torch
from torch import Tensor, nn

from inference.method import Run
from inference.methods.svi import SVI
from zoo.datasets import Data
from zoo.errors import ZooError
from zoo.program import Program

__all__ = [
    "NUMPYRO", "PYRO", "ZOO", "ZOO_COMPILED", "ZOO_EAGER", "ZOO_TRACED", "Advance", "Contender", "Unavailable", "Work",
    "numpyro_contenders", "pyro_contender", "torch_contenders", "zoo_contenders",
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


def zoo_contenders(make: Callable[[], tuple[Program, Mapping[str, Any]]], work: Work) -> list[Contender]:
    """Ours: compiled, traced, and neither.

    Args:
        make: Gives the program, at its starting point, and the options of SVI (guide, elbo).
    """

    def prepare(compiled: str) -> Advance:
        torch.manual_seed(work.seed)
        program, options = make()
        method = SVI(**options, lr=work.lr, decay="constant", batch_size=work.batch_size, steps=10**9, compile=compiled)
        training = method.prepare(program.to(work.device), Run(work.data, seed=work.seed))

        def advance(n: int) -> float:
            loss = float(training.advance(n))
            # The first step is always Python's.
            if compiled != "never" and training.loop.done > 1 and training.loop.compiled is None:
                raise Unavailable("the step could not be compiled and would go on as the eager one")
            return loss

        return advance

    return [
        Contender(ZOO_COMPILED, functools.partial(prepare, "always"), "SVI(compile='always')"),
        Contender(ZOO_TRACED, functools.partial(prepare, "traced"), "SVI(compile='traced')"),
        Contender(ZOO_EAGER, functools.partial(prepare, "never"), "SVI(compile='never')"),
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


def torch_contenders(make: Callable[[], tuple[list[nn.Parameter], Loss]], work: Work, how: str = "") -> list[Contender]:
    """The loss written out: eager; the loss compiled; Adam compiled as well; on CUDA, the step captured as a graph.

    Args:
        make: Gives the parameters and loss(x, context), the mean per example.
        how: How it was written.
    """

    def prepare(compile_loss: bool, compile_adam: bool) -> Advance:
        torch.manual_seed(work.seed)
        parameters, loss_of = make()
        # Adam as one kernel, except where the compiler is to make one of it.
        optimizer = torch.optim.Adam(parameters, lr=work.lr, fused=not compile_adam)
        step: Callable[[], Any] = optimizer.step
        if compile_loss:
            # Shapes never change, so both values mean the same; with one, the second contender would find in memory
            # what was compiled for the first.
            loss_of = torch.compile(loss_of, fullgraph=True, dynamic=None if compile_adam else False)
        if compile_adam:
            step = torch.compile(step, fullgraph=False)
        batch = work.batches()

        def advance(n: int) -> float:
            total = torch.zeros((), device=work.device)
            for _ in range(n):
                loss = loss_of(*batch())
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                step()
                total += loss.detach()
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


def _captured(make: Callable[[], tuple[list[nn.Parameter], Loss]], work: Work) -> Advance:
    """One step as a CUDA graph that is replayed on a batch copied into place."""
    torch.manual_seed(work.seed)
    parameters, loss_of = make()
    optimizer = torch.optim.Adam(parameters, lr=work.lr, capturable=True)
    batch = work.batches()
    first = batch()
    place = Data(first.x.clone(), None if first.context is None else first.context.clone())
    total = torch.zeros((), device=work.device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        loss = loss_of(*place)
        loss.backward()
        optimizer.step()
        total.add_(loss.detach())

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

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
