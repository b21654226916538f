"""Many training steps as one compiled call: what Pyro's handlers and torch's optimizers do is traced once, then fused.

Why it works: under `make_fx`, one step of Python (model, guide, bound, backward, optimizer) leaves a list of tensor
operations. That list is a pure function (parameters, optimizer state, minibatch, noise) -> (the same, metrics). It is
put into a loop that also chooses the minibatch, and inductor makes one C++ library of it (a CUDA graph on the GPU):
no Python runs between steps. The library is kept on disk under a hash of the list. See docs/speed.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.func import vmap

from inference.training.noise import Noise
from inference.training.runners import Runner, captured_loop, graph_loop, library_loop, scripted_loop
from inference.training.scripted import INSTEAD, simplify, update_in_place
from inference.training.tracing import NotStatic, State, Step, trace_step
from zoo.datasets.data import Data

__all__ = [
    "COMPILE",
    "CompileNotice",
    "Compiled",
    "NotStatic",
    "Reference",
    "Replica",
    "State",
    "Step",
    "gear",
    "reference",
]

COMPILE = ("auto", "always", "traced", "never")
"""Values of the option `compile`: by `gear`, a compiled library, the traced operations, or Python."""

CHUNK_STEPS = 1024
"""Most steps in one call."""

CHUNK_BYTES = 32 * 2**20
"""Most memory for the noise and minibatch indices of one fit in one call."""

PACKED_UP_TO = 1024
"""Numbers in a tensor that is handed on together with others."""

TRACED_FROM = 1_000
"""Steps of a run that 'auto' traces."""

COMPILED_FROM, STEPS_PER_CALL = 5_000_000, 20
"""'auto' compiles where as many calls of torch functions as the first lie beyond so many steps for each in a step."""


class CompileNotice(UserWarning):
    """Says that a fit goes on eagerly, and why."""


def gear(steps: int, calls: int) -> str:
    """The rule of `compile='auto'`: 'eager', 'scripted' or 'library'.

    It knows no clock: a seed gives the same fit however busy the machine is. What tracing costs and what it saves a
    step both grow with the calls in a step, so that steps alone decide; what a library costs grows with their square.

    Args:
        steps: Steps of the run.
        calls: torch functions called in one step.
    """
    if (steps - STEPS_PER_CALL * calls) * calls >= COMPILED_FROM:
        return "library"
    return "scripted" if steps >= TRACED_FROM else "eager"


def _runner(gear: str, device: str) -> Callable[[Any, int, list[Any]], Runner]:
    """What makes the loop of a gear on a kind of device."""
    if device == "cuda":
        return graph_loop if gear == "library" else captured_loop
    return library_loop if gear == "library" and device == "cpu" else scripted_loop


class Replica(Protocol):
    """One fit, as the compiled loop sees it."""

    @property
    def step(self) -> Step:
        """The step itself, bound to this fit's modules."""
        ...

    @property
    def data(self) -> Data:
        """All of its training data."""
        ...

    @property
    def parts(self) -> Mapping[str, Any]:
        """Modules and optimizers."""
        ...

    def indices(self, n: int) -> Tensor | None:
        """Rows of the next n minibatches (n, rows), or None where each is all the data."""
        ...

    @property
    def done(self) -> int:
        """Steps taken so far."""
        ...

    def scalars(self, start: int, n: int) -> dict[str, list[float]]:
        """Values of the scheduled quantities (learning rate, ...) at n steps from the one after `start` steps."""
        ...

    @property
    def generator(self) -> torch.Generator:
        """Where its noise comes from."""
        ...


@dataclass(frozen=True)
class Reference:
    """Two steps of a fit in Python: the noise they drew, the metrics they gave, the torch functions each called."""

    noise: list[tuple[Tensor, Tensor]]
    metrics: list[dict[str, Tensor]]
    calls: int


def _first(replica: Replica) -> tuple[Data, dict[str, Tensor]]:
    """The first rows and the next scalars: what a step is traced and checked on."""
    index, data = replica.indices(0), replica.data
    batch = data if index is None else data.rows(_from_the_start(index.shape[1], data).to(data.x.device))
    return batch, {name: data.x.new_tensor(values[0]) for name, values in replica.scalars(replica.done, 1).items()}


def _from_the_start(n: int, data: Data) -> Tensor:
    """The first n rows, which begin anew where a step of several minibatches takes more than there are."""
    return torch.arange(n) % data.size


def reference(replica: Replica) -> Reference:
    """Runs two steps and undoes them, random state included.

    Raises: NotStatic when they draw different numbers of random numbers.
    """
    state, (batch, _) = State(replica.parts), _first(replica)
    before = state.copy()
    # As in an eager step: not every setting of an optimizer takes its learning rate as a tensor.
    numbers = {name: values[0] for name, values in replica.scalars(replica.done, 1).items()}
    noise, metrics, calls = [], [], 0
    devices = [batch.x.device] if batch.x.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        for _ in range(2):
            with Noise() as recording:
                found = replica.step(batch, numbers)
            metrics.append({name: value.detach().clone() for name, value in found.items()})
            noise.append(recording.recorded(batch.x))
            calls = recording.calls
    state.restore(before)
    if noise[0][0].shape != noise[1][0].shape or noise[0][1].shape != noise[1][1].shape:
        raise NotStatic("it draws another number of random numbers at each step")
    return Reference(noise, metrics, calls)


class Packing:
    """Small tensors side by side in one of their type: to hand a tensor on costs the loop more than to fill it.

    Args:
        like: The tensors, of which shapes and types count.
        largest: Numbers in a tensor that is still packed.
    """

    def __init__(self, like: Sequence[Tensor], largest: int):
        self.shapes = [value.shape for value in like]
        self.groups: dict[torch.dtype, list[int]] = {}
        self.large: list[int] = []
        for i, value in enumerate(like):
            small = value.numel() <= largest
            (self.groups.setdefault(value.dtype, []) if small else self.large).append(i)

    def __len__(self) -> int:
        return len(self.groups) + len(self.large)

    def pack(self, tensors: Sequence[Tensor], fresh: bool = True) -> list[Tensor]:
        """Fewer tensors, contiguous; `fresh` ones are no views, as a loop wants what it hands on."""
        packed = [torch.cat([tensors[i].reshape(-1) for i in group]) for group in self.groups.values()]
        if fresh:
            return packed + [tensors[i].clone(memory_format=torch.contiguous_format) for i in self.large]
        return packed + [tensors[i].contiguous() for i in self.large]

    def unpack(self, packed: Sequence[Tensor]) -> list[Tensor]:
        """What was packed, as views."""
        found: list[Any] = [None] * len(self.shapes)
        for group, values in zip(self.groups.values(), packed, strict=False):
            parts = values.split([self.shapes[i].numel() for i in group])
            for i, part in zip(group, parts, strict=True):
                found[i] = part.reshape(self.shapes[i])
        for i, value in zip(self.large, packed[len(self.groups) :], strict=True):
            found[i] = value
        return found


def _apart(values: Sequence[Tensor], own: Sequence[Tensor], given: Sequence[Tensor]) -> list[Tensor]:
    """What is handed on, a copy where another one has its memory: the next turn may write to each.

    Args:
        values: What is handed on.
        own: What was handed over in the place of each.
        given: All that was handed over.
    """
    taken = {_memory(value) for value in given}
    found = []
    for value, mine in zip(values, own, strict=True):
        if _memory(value) in taken - {_memory(mine)}:
            value = value.clone(memory_format=torch.contiguous_format)
        taken.add(_memory(value))
        found.append(value)
    return found


def _memory(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()


class Compiled:
    """`advance(n)`: n training steps of one fit, or of several that differ only in their numbers, without Python.

    Several fits run as one vectorised computation (`torch.func.vmap` over the traced step) and give what each would
    give alone, since each keeps its own minibatches and noise.

    Args:
        replicas: The fits; their data must be the same.
        references: What their steps do in Python, from `reference`.
        gear: 'library', compiled for the device, or 'scripted', the traced operations one by one without Python.

    Raises: NotStatic when the step cannot be traced, cannot be compiled here, or gives something else compiled.
    """

    def __init__(self, replicas: Sequence[Replica], references: Sequence[Reference], gear: str = "library"):
        started = time.perf_counter()
        self.replicas = list(replicas)
        self.states = [State(replica.parts) for replica in self.replicas]
        first = self.replicas[0]
        self.data = first.data
        batch, now = _first(first)
        index = first.indices(0)
        self.rows = None if index is None else index.shape[1]
        # What a step draws beside the noise must not move the random state of a fit that then goes on eagerly.
        with torch.random.fork_rng([batch.x.device] if batch.x.device.type == "cuda" else []):
            fused = gear == "scripted" and len(self.replicas) == 1
            self.trace = trace_step(first.step, self.states[0], batch, now, references[0].noise[0], fused)
        numbers = self.trace.normals + self.trace.uniforms + 2 * (self.rows or 0)
        # The same for one fit and for many: noise drawn in other pieces is other noise.
        per_step = max(1, numbers * self.data.x.element_size())
        self.chunk = max(2, min(CHUNK_STEPS, CHUNK_BYTES // per_step))
        nodes = list(self.trace.graph.graph.nodes)
        ends, starts = list(nodes[-1].args[0]), [node for node in nodes if node.op == "placeholder"]
        self.n_state = len(ends) - len(self.trace.metrics)
        self.changed = [i for i in range(self.n_state) if ends[i] is not starts[i]]
        self.fixed = [i for i in range(self.n_state) if ends[i] is starts[i]]
        # Kept from call to call: fresh memory costs more than what is written to it.
        self.index: Tensor | None = None
        self.drawn: Tensor | None = None
        moving, still = self._moving_and_still()
        self.alone = gear == "scripted"  # what is handed on is a copy only where it must be
        packed = 0 if self.alone else PACKED_UP_TO
        self.moving, self.still = Packing(moving, packed), Packing(still, packed)
        inputs = self._inputs(2, first.done, [[r.noise[0], r.noise[1]] for r in references], self._first_rows(2))
        make = _runner(gear, self.data.x.device.type)
        try:
            self.step = self._step(gear, INSTEAD if make is scripted_loop else {})
            self.run = make(self.body, len(self.moving), inputs)
            self._check(references)
        except NotStatic:
            raise
        except Exception as error:
            # No compiler on this machine, no room on the disk, an operation that inductor does not know, ...
            reason = str(error).strip().split("\n")[0]
            raise NotStatic(f"it cannot be compiled on this machine ({type(error).__name__}: {reason})") from error
        self.seconds = time.perf_counter() - started
        """Time that tracing and compiling took."""

    def body(self, i: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """One turn of the loop: (i, changed state and sums, stop, data, indices, noise, scalars, the rest).

        Returns: (i + 1, changed state and sums).
        """
        values, trace = list(rest), self.trace

        def take(n: int) -> list[Tensor]:
            taken, values[:] = values[:n], values[n:]
            return taken

        moving = self.moving.unpack(take(len(self.moving)))
        _stop, *data = take(1 + len(self.data.tensors()))
        at = i.reshape(1)
        if self.rows is not None:
            chosen = take(1)[0].index_select(0, at)[0]
            data = [v.index_select(0, chosen.flatten()).reshape(*chosen.shape, *v.shape[1:]) for v in data]
        noise, scalars = (v.index_select(0, at)[0] for v in take(2))
        still = self.still.unpack(values)
        state: list[Any] = [None] * self.n_state
        for position, value in (*zip(self.changed, moving, strict=False), *zip(self.fixed, still, strict=False)):
            state[position] = value
        constants = still[len(self.fixed) :]
        now = list(scalars)
        arguments = [*state, *data, noise[..., : trace.normals], noise[..., trace.normals :], *now, *constants]
        outputs = self.step(*arguments)
        sums = [a + b for a, b in zip(moving[len(self.changed) :], outputs[self.n_state :], strict=True)]
        handed = [*(outputs[k] for k in self.changed), *sums]
        if self.alone:
            return (i + 1, *self.moving.pack(_apart(handed, moving, rest), fresh=False))
        return (i + 1, *self.moving.pack(handed))

    def _step(self, gear: str, instead: Mapping[Any, Any]) -> Callable[..., Sequence[Tensor]]:
        """The traced step of one fit, or of all at once."""
        if len(self.replicas) > 1:
            rows = [None if self.rows is None else 0] * len(self.data.tensors())
            inputs = sum(node.op == "placeholder" for node in self.trace.graph.graph.nodes)
            dims = [*[0] * self.n_state, *rows, 0, 0]
            dims += [None] * (inputs - len(dims))
            return vmap(lambda *a: tuple(self.trace.graph(*a)), tuple(dims))
        if gear == "scripted":
            simplify(self.trace.graph, instead)
            update_in_place(self.trace.graph, self.changed)
        return cast("Callable[..., Sequence[Tensor]]", self.trace.graph)

    def _moving_and_still(self) -> tuple[list[Tensor], list[Tensor]]:
        """What the loop hands on (changed state, sums of metrics), and what it does not (other state, constants)."""
        x, many = self.data.x, len(self.replicas) > 1
        tensors = [[tensor.detach() for tensor in state.tensors()] for state in self.states]
        state = [torch.stack(group) for group in zip(*tensors, strict=True)] if many else tensors[0]
        sums = [x.new_zeros((len(self.replicas),) if many else ()) for _ in self.trace.metrics]
        return [*(state[i] for i in self.changed), *sums], [*(state[i] for i in self.fixed), *self.trace.constants]

    def _first_rows(self, n: int) -> Tensor | None:
        """The minibatches of the check: the first rows, for each replica (n, R, rows)."""
        if self.rows is None:
            return None
        return _from_the_start(self.rows, self.data).expand(n, len(self.replicas), self.rows)

    def _inputs(
        self, n: int, done: int, noise: Sequence[Sequence[tuple[Tensor, Tensor]]] | None, index: Tensor | None
    ) -> list[Any]:
        """Arguments of `body` for n steps; `noise` of each replica and step, or None to draw it."""
        x, many = self.data.x, len(self.replicas) > 1
        moving, still = self._moving_and_still()
        lead = (len(self.replicas),) if many else ()
        arguments: list[Any] = [
            torch.zeros((), dtype=torch.long, device=x.device),
            *self.moving.pack(moving, fresh=False),
        ]
        arguments += [torch.tensor(n, device=x.device), *self.data.tensors()]
        if index is not None:
            if self.index is None:
                self.index = torch.zeros(self.chunk, *lead, index.shape[-1], dtype=torch.long, device=x.device)
            self.index[:n] = index if many else index[:, 0]
            arguments.append(self.index)
        normals, uniforms = self.trace.normals, self.trace.uniforms
        if self.drawn is None:
            self.drawn = x.new_zeros(self.chunk, *lead, normals + uniforms)
        drawn = self.drawn
        for r, replica in enumerate(self.replicas):
            mine = drawn[:, r] if many else drawn
            if noise is not None:
                mine[:n] = torch.stack([torch.cat(step) for step in noise[r]])
            else:
                mine[:n, :normals] = x.new_empty(n, normals).normal_(generator=replica.generator)
                mine[:n, normals:] = x.new_empty(n, uniforms).uniform_(generator=replica.generator)
        planned = self.replicas[0].scalars(done, n)
        scalars = x.new_zeros(self.chunk, len(planned))
        scalars[:n] = torch.tensor(list(planned.values()), dtype=x.dtype).T
        return [*arguments, drawn, scalars, *self.still.pack(still, fresh=False)]

    @torch.no_grad()
    def advance(self, n: int, done: int, ended: Collection[int] = ()) -> list[dict[str, Tensor]]:
        """n further steps.

        Args:
            n: Number of steps.
            done: Steps taken so far.
            ended: Replicas that have ended: their state is left alone.

        Returns: The metrics of each replica, summed over the steps.
        """
        totals: list[dict[str, Tensor]] = [{} for _ in self.replicas]
        while n > 0:
            k = min(n, self.chunk)
            rows = [replica.indices(k) for replica in self.replicas]
            index = None if self.rows is None else torch.stack([row for row in rows if row is not None], 1)
            found = self._run(self._inputs(k, done, None, index), k, ended)
            for total, part in zip(totals, found, strict=True):
                for name, value in part.items():
                    total[name] = total[name] + value if name in total else value
            n, done = n - k, done + k
        return totals

    @torch.no_grad()
    def _run(self, arguments: list[Any], n: int, ended: Collection[int] = ()) -> list[dict[str, Tensor]]:
        """Runs the loop, writes the state back, returns each replica's sums of metrics."""
        many = len(self.replicas) > 1
        moving = self.moving.unpack(self.run(arguments, n)[1:])
        new, sums = moving[: len(self.changed)], moving[len(self.changed) :]
        for r, state in enumerate(self.states):
            if r in ended:
                continue
            tensors = state.tensors()
            for i, value in zip(self.changed, new, strict=True):
                tensors[i].copy_(value[r] if many else value)
        return [
            {name: (value[r] if many else value) for name, value in zip(self.trace.metrics, sums, strict=True)}
            for r in range(len(self.replicas))
        ]

    @torch.no_grad()
    def _check(self, references: Sequence[Reference]) -> None:
        """Two steps of each replica must give the metrics that Python gave; the state is left as it was.

        The second step sees what the first has changed. Parameters themselves are not compared: where a gradient is
        zero but for rounding, Adam turns the rounding into a step.
        """
        before = [state.copy() for state in self.states]
        tolerance = 1e-6 if self.data.x.dtype == torch.float64 else 2e-3
        try:
            for k in range(2):
                noise = [[r.noise[k]] for r in references]
                found = self._run(self._inputs(1, self.replicas[0].done, noise, self._first_rows(1)), 1)
                for reference, metrics in zip(references, found, strict=True):
                    for name, value in metrics.items():
                        expected = reference.metrics[k][name].to(value)
                        if not torch.allclose(value, expected, rtol=tolerance, atol=tolerance, equal_nan=True):
                            raise NotStatic(
                                f"its compiled form gives {name} = {float(value):.6g} where Python gives "
                                f"{float(expected):.6g}: the step does not do the same every time"
                            )
        finally:
            for state, values in zip(self.states, before, strict=True):
                state.restore(values)
