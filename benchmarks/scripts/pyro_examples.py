"""Pyro's published examples through `zoo.adopt`, beside Pyro itself: same loss, same gradients, time of a step.

    git clone https://github.com/pyro-ppl/pyro
    OMP_NUM_THREADS=1 python -m benchmarks.scripts.pyro_examples pyro [--only HMM] [--rounds 10]

prints the page that docs/results/ has.

Each example is built twice from the same seed, once under Pyro's own settings and once for the zoo; parameters are set
equal, and both losses are drawn from one seed. Pyro's side is the `differentiable_loss` of the ELBO class that the
example's file hands to SVI. A step is loss and gradient, without an optimizer and without Pyro's validation on either
side; the two take turns, after a step that is not counted, and the median is given.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import torch
from pyro import infer, poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor

import zoo
from benchmarks.machine import hardware, in_words
from benchmarks.scripts.pyro_cases import CASES, Case, Problem
from benchmarks.scripts.pyro_checkout import Checkout
from inference.methods.bounds import make_objective
from zoo.errors import CapabilityError, UnknownNameError

__all__ = ["Row", "compare", "main", "outline", "record", "table", "uses"]

OBJECTIVES: dict[type[infer.ELBO], str] = {
    infer.Trace_ELBO: "trace",
    infer.TraceMeanField_ELBO: "mean_field",
    infer.TraceEnum_ELBO: "enum",
}
"""Pyro's ELBO class -> the objective of ours."""
TOLERANCE = 1e-5
"""Of losses and gradients, as a part of the largest: some ten roundings of float32."""
Run = Callable[[], tuple[Tensor, Tensor]]
"""Draws a loss; returns (what is differentiated, the loss)."""


@dataclass(frozen=True)
class Row:
    """One example on both sides; where ours failed, `error` says how and the rest of ours is NaN."""

    name: str
    outline: str = ""
    loss: tuple[float, float] = (float("nan"), float("nan"))
    """Pyro's and ours."""
    gradient: float = float("nan")
    """Largest difference of an entry of any gradient, as a part of the largest entry of Pyro's."""
    parameters: int = 0
    seconds: tuple[float, float] = (float("nan"), float("nan"))
    error: str = ""

    @property
    def same(self) -> bool:
        """Whether losses and gradients agree to the rounding of float32."""
        theirs, ours = self.loss
        return abs(theirs - ours) <= TOLERANCE * max(1.0, abs(theirs)) and self.gradient <= TOLERANCE


def compare(name: str, build: Callable[[], Problem], rounds: int = 10, seed: int = 0) -> Row:
    """One example on both sides.

    Args:
        name: What the row is called.
        build: Makes the example; called twice, from the same seed.
        rounds: How many steps of each side are timed.
        seed: Of parameters, data and draws.
    """
    torch.manual_seed(seed)
    with _pyros_settings():
        problem = build()
    with pyro.get_param_store().scope(), pyro.validation_enabled(problem.validated):
        with _pyros_settings():
            theirs = _pyros(problem)
            outlined = outline(problem)
            parameters = _parameters(theirs)
            values = {name: parameter.detach().clone() for name, parameter in parameters.items()}
            loss, gradients = _measured(theirs, seed)
        try:
            torch.manual_seed(seed)
            ours = _zoos(build())
            _set_equal(_parameters(ours), values)
            our_loss, our_gradients = _measured(ours, seed)
        except Exception as error:
            return Row(name, outlined, (loss, float("nan")), error=f"{type(error).__name__}: {error}")
        return Row(
            name, outlined, (loss, our_loss), gradient=_difference(gradients, our_gradients),
            parameters=sum(value.numel() for value in values.values()), seconds=_seconds(theirs, ours, rounds),
        )  # fmt: skip


@contextmanager
def _pyros_settings() -> Iterator[None]:
    """Pyro as it is without the zoo, which keeps parameters in modules."""
    with pyro.settings.context(module_local_params=False):
        yield


def _pyros(problem: Problem) -> Run:
    model, guide = _pair(problem)

    def run() -> tuple[Tensor, Tensor]:
        with _pyros_settings():
            loss = problem.elbo.differentiable_loss(model, guide)
        return loss, loss.detach()

    return run


def _pair(problem: Problem) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Model and guide with their arguments (one of which may be called as one of the loss is)."""
    arguments = {**problem.data, **problem.static}
    return partial(problem.model, **arguments), partial(problem.guide, **arguments)


def _zoos(problem: Problem) -> Run:
    kind = type(problem.elbo)
    if kind not in OBJECTIVES:
        raise CapabilityError(f"{kind.__name__} has no counterpart among {sorted(OBJECTIVES.values())}.")
    objective = make_objective(OBJECTIVES[kind], problem.elbo.num_particles)
    program = zoo.adopt(problem.model, problem.guide, **problem.static)
    batch = program.take(dict(problem.data))
    program.declare(*batch)
    objective.prepare(program, program.guide, batch)

    def run() -> tuple[Tensor, Tensor]:
        surrogate, bound = objective(program, program.guide, batch, 1)
        return surrogate, -bound

    return run


def _parameters(run: Run) -> dict[str, Tensor]:
    """The free parameters that a run meets, by the name that Pyro's handlers see."""
    with poutine.trace(param_only=True) as seen:
        run()
    return _free(seen.trace)


def _free(trace: poutine.Trace) -> dict[str, Tensor]:
    values = {name: site["value"] for name, site in trace.nodes.items() if site["type"] == "param"}
    return {name: value.unconstrained() if hasattr(value, "unconstrained") else value for name, value in values.items()}


@torch.no_grad()
def _set_equal(parameters: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    """Raises: CapabilityError where the two sides do not have the same parameters."""
    if set(parameters) != set(values):
        raise CapabilityError(f"Parameters are {sorted(parameters)}, Pyro's {sorted(values)}.")
    for name, value in values.items():
        parameters[name].copy_(value)


def _measured(run: Run, seed: int) -> tuple[float, dict[str, Tensor]]:
    """The loss and all gradients from a seed."""
    torch.manual_seed(seed + 1)
    with poutine.trace(param_only=True) as seen:
        surrogate, loss = run()
    learnt = {name: parameter for name, parameter in _free(seen.trace).items() if parameter.requires_grad}
    found = torch.autograd.grad(surrogate, list(learnt.values()), allow_unused=True)
    return float(loss), {name: gradient for name, gradient in zip(learnt, found, strict=True) if gradient is not None}


def _difference(theirs: dict[str, Tensor], ours: dict[str, Tensor]) -> float:
    if set(theirs) != set(ours):
        return float("inf")
    largest = max((float(gradient.abs().max()) for gradient in theirs.values()), default=1.0)
    return max((float((theirs[n] - ours[n]).abs().max()) for n in theirs), default=0.0) / max(largest, 1e-30)


def _seconds(theirs: Run, ours: Run, rounds: int) -> tuple[float, float]:
    """Medians of loss and gradient, the sides taking turns."""

    def step(run: Run) -> float:
        start = time.perf_counter()
        run()[0].backward()
        return time.perf_counter() - start

    with pyro.validation_enabled(False):
        step(theirs), step(ours)
        turns = [(step(theirs), step(ours)) for _ in range(rounds)]
    return statistics.median(t for t, _ in turns), statistics.median(o for _, o in turns)


def outline(problem: Problem) -> str:
    """Sites and plates of a model in a few words, as its ELBO meets them."""
    trace, _ = next(iter(problem.elbo._get_traces(*_pair(problem), (), {})))
    sites = [site for site in trace.nodes.values() if site["type"] == "sample" and not site_is_subsample(site)]
    latent = sum(not site["is_observed"] for site in sites)
    plates = {frame.name: frame.size for site in sites for frame in site["cond_indep_stack"]}
    plates.pop("num_particles_vectorized", None)
    names = [f"{name} {size}".removesuffix(" -1") for name, size in plates.items()]
    named = ", ".join(names[:4] + ["..."] * (len(names) > 4))
    return f"{latent} latent, {len(sites) - latent} observed; {'plates ' + named if plates else 'no plate'}"


def table(rows: list[Row]) -> str:
    """The rows in Markdown; failures are named below."""
    lines = [
        "| example | sites | parameters | loss, Pyro | loss, zoo | gradients differ by | ms, Pyro | ms, zoo | same |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        theirs, ours = row.loss
        times = " | ".join(f"{1000 * seconds:.2f}" for seconds in row.seconds)
        lines.append(
            f"| {row.name} | {row.outline} | {row.parameters:,} | {theirs:.7g} | {ours:.7g} | {row.gradient:.1g} | "
            f"{times} | {'yes' if row.same else 'no'} |"
        )
    failed = [f"- {row.name}: {row.error}" for row in rows if row.error]
    return "\n".join([*lines, *(["", "Failures:", "", *failed] if failed else [])])


def uses(cases: dict[str, Case]) -> str:
    """Which file each example is, and what of Pyro it uses, in Markdown."""
    lines = ["| example | file | uses |", "|---|---|---|"]
    return "\n".join(lines + [f"| {name} | `{case.source}` | {case.features} |" for name, case in cases.items()])


def record(rows: list[Row], cases: dict[str, Case], checkout: Checkout, rounds: int) -> str:
    """What is printed: the page of the record, in Markdown."""
    ratios = [ours / theirs for theirs, ours in (row.seconds for row in rows if not row.error)]
    q = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    files = len({case.source for case in cases.values()})
    return f"""# Pyro's own examples

Is the loss of a program that was adopted (`zoo.adopt`) the loss that Pyro computes, and are its gradients the same?

{len(rows)} models and guides from {files} of Pyro's published example files and tutorials, unchanged, on small data.
**{sum(row.same for row in rows)} of {len(rows)} agree.** A step of ours takes {q[1]:.2f} times as long as Pyro's,
neither compiled (median of the examples; quartiles {q[0]:.2f} to {q[2]:.2f}).

<details markdown="1">
<summary>What the columns mean</summary>

- sites: as the ELBO meets them, plates with their sizes
- parameters: free numbers
- loss: minus the ELBO, at the same parameters and seed; Pyro's by the ELBO class of the example's own file
- gradients differ by: largest difference of an entry of any gradient, as a part of the largest entry
- ms: milliseconds of loss and gradient, median of {rounds}, the two sides taking turns, Pyro's validation off
- same: losses and gradients differ by less than {TOLERANCE:g} of their size, some ten roundings of float32

</details>

{table(rows)}

## What they use

{uses(cases)}

Where a file samples by NUTS, an autoguide and the plain ELBO stand in. In LKJ and eight schools by mcmc.py, dimensions
lie in no plate, which Pyro's SVI refuses while it validates; there both sides are compared without validation.

- Machine: {in_words(hardware("cpu"))}
- torch {torch.__version__}, Pyro {pyro.__version__}; Pyro's files {checkout.revision}
- `OMP_NUM_THREADS=1 python -m benchmarks.scripts.pyro_examples CHECKOUT --rounds {rounds}`"""


def main(arguments: list[str] | None = None) -> None:
    """Prints the record; progress goes to the error stream."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", help="folder of a checkout of Pyro")
    parser.add_argument("--only", default="", help="examples whose name contains this")
    parser.add_argument("--rounds", type=int, default=10, help="timed steps of each side")
    given = parser.parse_args(arguments)
    checkout = Checkout(given.checkout)
    chosen = {name: case for name, case in CASES.items() if given.only.lower() in name.lower()}
    if not chosen:
        raise UnknownNameError("example", given.only, CASES)
    rows = []
    for name, case in chosen.items():
        rows.append(compare(name, partial(case.build, checkout), given.rounds))
        print(f"{name}: {'same' if rows[-1].same else 'DIFFERS ' + rows[-1].error[:200]}", file=sys.stderr, flush=True)
    print(record(rows, chosen, checkout, given.rounds))


if __name__ == "__main__":
    main()
