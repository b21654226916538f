"""Training steps to look at: small data for every program, a loop that stands ready, the same steps done twice."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from inference.fit import make_method
from inference.method import Run
from inference.training.compiled import Compiled, State, reference
from inference.training.gradient import GradientMethod
from inference.training.loop import Loop
from inference.training.noise import Noise
from zoo import catalogue
from zoo.datasets import Data
from zoo.program import ExactDensity, Program

SUMMED_OUT = ("bernoulli-mixture", "gaussian-mixture", "bayesian-gaussian-mixture", "semi-supervised-vae")
"""Their guides leave out the component, or enumerate the class."""
FEWER: dict[str, dict[str, Any]] = {
    "neural-spline": {"layers": 2},
    "realnvp": {"couplings": 2},
    "nice": {"couplings": 2},
    "dequantised-flow": {"flow_options": {"couplings": 2}, "guide_couplings": 1},
    "maf": {"layers": 2},
    "dmm": {"event_shape": [4, 8]},
    "wavenet": {"layers": 2},
    "pixelrnn": {"event_shape": [4, 4]},
    "tag-gan": {"features": {"steps": 5}},
    "text2image": {"channels": [16, 8], "encoder": {"steps": 5}},
    "pix2pix": {"event_shape": [16, 16], "context_shape": [16, 16], "channels": [4, 8, 8, 8]},
    "gan": {"hidden": [32], "critic_hidden": [16]},
}
"""Of layers and rows that are all alike, and take seconds to trace; of steps that teach what reads images or words."""


def small(name: str, n: int = 12, **options: Any) -> tuple[Program, Data]:
    """A program a little away from its start, and n examples that another one of its kind has generated."""
    program = catalogue.create(name, **(options or FEWER.get(name, {})))
    context = program.example_context(n)
    x = program.generate(n, context)
    with torch.no_grad():
        program.initialise(x, context)
        for parameter in program.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return program, Data(x, context)


@cache
def bounds(name: str) -> tuple[str, ...]:
    """The bounds that a program of the catalogue supports with its own guide; asked of each as tests are collected."""
    cls, found = catalogue.get(name), ["auto"]
    if cls.family in ("implicit", "energy"):
        return ()
    latents = catalogue.create(name).sites()
    reparameterised = name not in (*SUMMED_OUT, "hmm")
    if reparameterised:
        found.append("mean_field")
    found.append("iwae")
    if latents and name not in ("bernoulli-mixture", "gaussian-mixture"):
        found.append("score")
    if issubclass(cls, ExactDensity):
        found.append("exact")
    return tuple(found)


def ready(program: Program, data: Data, method: str = "svi", **options: Any) -> Loop:
    """The loop of a fit after its first step, which has made the optimizer's state."""
    made = make_method(method, **{"steps": 40, **options})
    assert isinstance(made, GradientMethod)
    loop = made.prepare(program, Run(data)).loop
    loop.compiling = "never"
    loop.advance(1)
    return loop


def both(loop: Loop, n: int = 5, gear: str = "scripted") -> tuple[list[Tensor], list[Tensor]]:
    """What n steps leave behind, (compiled, eager): state and sums of metrics, by the same noise and minibatches."""
    compiled = Compiled([loop], [reference(loop)], gear)
    state, like = State(loop.parts), loop.data.x
    before, index = state.copy(), loop.indices(n)
    noise = [(torch.randn(compiled.trace.normals).to(like), torch.rand(compiled.trace.uniforms).to(like))]
    noise += [(torch.randn_like(a), torch.rand_like(b)) for a, b in noise * (n - 1)]
    rows = None if index is None else index[:, None]
    (found,) = compiled._run(compiled._inputs(n, loop.done, [noise], rows), n)
    ours = [*state.copy(), *found.values()]
    state.restore(before)
    planned, sums = loop.scalars(loop.done, n), {}
    for i in range(n):
        batch = loop.data if index is None else loop.data.rows(index[i].to(like.device))
        with Noise(*noise[i]):
            metrics = loop.step(batch, {name: values[i] for name, values in planned.items()})
        for name, value in metrics.items():
            sums[name] = sums[name] + value if name in sums else value
    theirs = [*state.copy(), *(sums[name] for name in found)]
    assert any(not torch.equal(a, b) for a, b in zip(before, state.tensors(), strict=True)), "nothing was trained"
    return ours, theirs
