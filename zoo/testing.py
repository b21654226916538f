"""The contract as a test: `check_program` runs every rule of `zoo.program` on a program, yours included.

    from zoo.testing import check_program
    def test_my_program():
        check_program(MyProgram())

The rules that need no data set are checked on the program's own draws.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from zoo import catalogue
from zoo.errors import EmptyDataError, ImplicitDensityError, NonFiniteError, ShapeError, ZooError
from zoo.program import ExactDensity, ExactEvidence, ExactPosterior, Implicit, ImplicitProgram, Program

__all__ = ["ContractError", "check_program", "checks"]

BATCH = 6


class ContractError(AssertionError):
    """A rule of the contract that a program breaks."""


def require(condition: bool, message: str) -> None:
    """Raises ContractError(message) unless the condition holds."""
    if not condition:
        raise ContractError(message)


def draw_data(program: Program, n: int = BATCH) -> tuple[Tensor, Tensor | None]:
    """(x, context): n examples of the program's own, detached; its `pyro.param` statements are parameters then."""
    context = program.example_context(n)
    torch.manual_seed(1)
    x = program.generate(n, context).detach()
    program.declare(x, context)
    return x, context


def _sites(fn: Callable[..., Any], *args: Any) -> dict[str, Any]:
    trace = poutine.trace(fn).get_trace(*args)
    return {k: s for k, s in trace.nodes.items() if s["type"] == "sample" and not site_is_subsample(s)}


@torch.no_grad()
def check_shapes(program: Program) -> None:
    """`model(None, size=n)` and `model(x)` return (n, *event_shape); x is observed in the data plate alone."""
    x, context = draw_data(program)
    require(
        tuple(x.shape) == (BATCH, *program.event_shape),
        f"model(size={BATCH}) returned {tuple(x.shape)}, expected {(BATCH, *program.event_shape)}",
    )
    program.check(x, context)
    sites = _sites(program.model, x, context, None)
    require("x" in sites and sites["x"]["is_observed"], "the model must observe its data at a site named 'x'")
    if not isinstance(program, ImplicitProgram):
        fn = sites["x"]["fn"]
        require(
            tuple(fn.event_shape) == tuple(program.event_shape),
            f"site 'x' has event_shape {tuple(fn.event_shape)}, expected {tuple(program.event_shape)}: use .to_event",
        )
    for name, site in sites.items():
        plates = [frame.name for frame in site["cond_indep_stack"]]
        require(plates in ([], ["data"]), f"site {name!r} is in plates {plates}; only self.plate(...) is allowed")


@torch.no_grad()
def check_guide(program: Program) -> None:
    """The guide samples the model's latent sites with their shapes; what it leaves out can be summed out exactly."""
    x, context = draw_data(program)
    latent = {k: s for k, s in _sites(program.model, x, context, None).items() if not s["is_observed"]}
    guided = _sites(program.guide, x, context, None)
    require(set(guided) <= set(latent), f"guide sites {sorted(set(guided) - set(latent))} are not in the model")
    for name, site in guided.items():
        want, got = latent[name]["value"].shape, site["value"].shape
        require(want == got, f"site {name!r}: the guide draws shape {tuple(got)}, the model {tuple(want)}")
    if isinstance(program, ImplicitProgram):
        return  # Its latents are marginalised by the game, not inferred.
    for name in set(latent) - set(guided):
        enumerable = bool(latent[name]["fn"].has_enumerate_support)
        require(
            enumerable or isinstance(program, ExactDensity),
            f"the guide leaves out {name!r}, which can neither be enumerated nor is summed out by log_prob",
        )


@torch.no_grad()
def check_particles(program: Program) -> None:
    """Latents may carry a particle dimension: the vectorised density equals that of each particle alone."""
    if isinstance(program, ImplicitProgram):
        return
    x, context = draw_data(program)
    n = 3
    with pyro.plate("particles", n, dim=-2):
        drawn = {k: s["value"] for k, s in _sites(program.model, None, context, BATCH).items() if k != "x"}
    if not drawn:
        return
    with pyro.plate("particles", n, dim=-2):
        together = _log_joint(program, drawn, x, context).reshape(n, -1).sum(-1)
    is_global = {k: s.is_global for k, s in program.sites().items()}
    for i in range(n):
        alone = {k: v[i, 0] if is_global[k] else v[i] for k, v in drawn.items()}
        single = _log_joint(program, alone, x, context).sum()
        require(
            torch.allclose(together[i], single, rtol=1e-4 if single.dtype == torch.float32 else 1e-8),
            f"log joint with particles {together[i]:.6g} differs from that of the particle alone {single:.6g}",
        )


def _log_joint(program: Program, values: dict[str, Tensor], x: Tensor, context: Tensor | None) -> Tensor:
    total: Tensor | float = 0.0
    for site in _sites(poutine.condition(program.model, data=values), x, context, None).values():
        log_prob = site["fn"].log_prob(site["value"])
        # Sum the data dimension only, so that particles stay apart.
        local = any(frame.name == "data" for frame in site["cond_indep_stack"])
        total = total + (
            log_prob.sum(-1)
            if local
            else log_prob.reshape(*log_prob.shape[:-1], -1).sum(-1)
            if log_prob.ndim
            else log_prob
        )
    return torch.as_tensor(total)


@torch.no_grad()
def check_minibatch(program: Program) -> None:
    """`size` scales the data plate by size / B and leaves global sites alone, in model and guide."""
    if isinstance(program, ImplicitProgram):
        return
    x, context = draw_data(program)
    for what, fn in (("model", program.model), ("guide", program.guide)):
        for name, site in _sites(fn, x, context, 5 * BATCH).items():
            local = any(frame.name == "data" for frame in site["cond_indep_stack"])
            want = 5.0 if local else 1.0
            require(
                float(site["scale"]) == want,
                f"{what} site {name!r} has scale {float(site['scale'])} in a minibatch of 1/5; expected {want}",
            )


def check_gradients(program: Program) -> None:
    """The evidence bound reaches every parameter with a finite gradient.

    Of an implicit program: the generated x, and the density of the guide's own draws, or these where it has none.
    """
    program = copy.deepcopy(program)
    x, context = draw_data(program)
    parameters = dict(program.named_parameters())
    if not parameters:
        return
    for p in parameters.values():
        p.grad = None
    if isinstance(program, ImplicitProgram):
        loss = program.model(None, context, BATCH).square().sum()
        for site in _sites(program.guide, x, context, None).values():
            if isinstance(site["fn"], Implicit):
                loss = loss + site["value"].square().sum()
            else:
                loss = loss - site["fn"].log_prob(site["value"].detach()).sum()
        loss.backward()
    else:
        guided = set(_sites(program.guide, x, context, None))
        if set(program.sites()) - guided and isinstance(program, ExactDensity):
            loss = -program.log_prob(x, context).sum()
            if guided:  # the guide is an alternative to summing out: train it by the plain ELBO
                loss = loss + Trace_ELBO().differentiable_loss(program.model, program.guide, x, context, None)
        elif set(program.sites()) - guided:
            elbo = TraceEnum_ELBO(max_plate_nesting=1)
            loss = elbo.differentiable_loss(config_enumerate(program.model), program.guide, x, context, None)
        else:
            loss = Trace_ELBO().differentiable_loss(program.model, program.guide, x, context, None)
        loss.backward()
    for name, p in parameters.items():
        require(p.grad is not None, f"no gradient reaches the parameter {name!r}")
        require(bool(torch.isfinite(p.grad).all()), f"the gradient of {name!r} is not finite")


@torch.no_grad()
def check_exactness(program: Program) -> None:
    """Declared exact answers agree: log p(x, z) - log q(z | x) under `posterior` is the log evidence, at every draw.

    In evaluation mode: while training, a site may give an unbiased estimate (one order of many, say).
    """
    program = copy.deepcopy(program).eval()
    x, context = draw_data(program)
    if isinstance(program, ImplicitProgram):
        require(not isinstance(program, ExactDensity | ExactEvidence), "an implicit program cannot have a density")
        try:
            _sites(program.model, x, context, None)["x"]["fn"].log_prob(x)
        except ImplicitDensityError:
            return
        raise ContractError("asking an implicit site for its density must raise ImplicitDensityError")
    if isinstance(program, ExactDensity):
        got = program.log_prob(x, context)
        require(tuple(got.shape) == (BATCH,), f"log_prob returned shape {tuple(got.shape)}, expected ({BATCH},)")
        if not program.sites():
            site = _sites(program.model, x, context, None)["x"]
            require(torch.allclose(site["fn"].log_prob(x), got), "log_prob differs from the density of the site 'x'")
    if not isinstance(program, ExactPosterior):
        return
    tolerance = 1e-3 if x.dtype == torch.float32 else 1e-8
    values = []
    for _ in range(4):
        q = poutine.trace(program.posterior).get_trace(x, context, None)
        p = poutine.trace(poutine.replay(program.model, trace=q)).get_trace(x, context, None)
        values.append(p.log_prob_sum() - q.log_prob_sum())
    evidence = torch.stack(values)
    require(
        float(evidence.max() - evidence.min()) < tolerance * (1 + float(evidence.abs().max())),
        f"the posterior is not exact: log p(x, z) - log q(z | x) varies over draws, {evidence.tolist()}",
    )
    exact = None
    if isinstance(program, ExactDensity):
        exact = program.log_prob(x, context).sum()
    elif isinstance(program, ExactEvidence):
        exact = program.log_evidence(x, context)
    if exact is not None:
        require(
            torch.allclose(exact, evidence[0], rtol=tolerance, atol=tolerance),
            f"log evidence {float(exact):.8g} differs from log p(x, z) - log q(z | x) = {float(evidence[0]):.8g}",
        )


@torch.no_grad()
def check_save(program: Program) -> None:
    """Saving and loading gives the same class, configuration, tensors and predictions, bit for bit."""
    config = program.config()
    json.dumps(config)  # raises on anything that is not JSON
    with tempfile.TemporaryDirectory() as folder:
        catalogue.save(program, folder)
        again = catalogue.load(folder, program=type(program))
    require(type(again) is type(program), f"loaded a {type(again).__name__}, saved a {type(program).__name__}")
    for name, tensor in program.state_dict().items():
        require(torch.equal(tensor, again.state_dict()[name]), f"{name!r} changed by saving and loading")
    context = program.example_context(BATCH)
    draws = []
    for each in (program, again):
        torch.manual_seed(3)
        draws.append(each.eval().generate(BATCH, context))
    require(torch.equal(*draws), "the loaded program generates other examples from the same seed")


@torch.no_grad()
def check_seed(program: Program) -> None:
    """The same seed gives the same draws, another seed others."""
    context = program.example_context(64)
    torch.manual_seed(5)
    first = program.generate(64, context)
    torch.manual_seed(5)
    second = program.generate(64, context)
    third = program.generate(64, context)
    require(torch.equal(first, second), "the same seed gave different examples")
    require(not torch.equal(second, third), "different random states gave the same examples")


@torch.no_grad()
def check_copy(program: Program) -> None:
    """A copy draws and takes what the program does: nothing depends on which object a constraint is."""
    context, copied = program.example_context(BATCH), copy.deepcopy(program)
    drawn = []
    for each in (program, copied):
        torch.manual_seed(5)
        drawn.append(each.generate(BATCH, context))
    require(torch.equal(*drawn), "a copy draws other examples from the same seed")
    copied.check(drawn[1], context)


@torch.no_grad()
def check_dtype(program: Program) -> None:
    """float32 in, float32 out; float64 likewise."""
    for dtype in (torch.float32, torch.float64):
        moved = copy.deepcopy(program).to(dtype)
        default = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            x, context = draw_data(moved)
            require(x.dtype == dtype, f"a {dtype} program generated {x.dtype}")
            if not isinstance(moved, ImplicitProgram):
                trace = poutine.trace(moved.guide).get_trace(x, context, None)
                p = poutine.trace(poutine.replay(moved.model, trace=trace)).get_trace(x, context, None)
                total = p.log_prob_sum()
                require(total.dtype == dtype, f"a {dtype} program has a {total.dtype} density")
                require(bool(torch.isfinite(total)), f"the log density is not finite in {dtype}")
        finally:
            torch.set_default_dtype(default)


@torch.no_grad()
def check_no_global_state(program: Program) -> None:
    """Nothing enters Pyro's global parameter store."""
    x, context = draw_data(program)
    program.guide(x, context, None)
    require(
        not list(pyro.get_param_store().keys()), "parameters leaked into Pyro's global store; keep them in the module"
    )


def check_bad_data(program: Program) -> None:
    """Empty, misshapen and non-finite data are refused with the error that says so, and have no density."""
    x, context = draw_data(program)
    nan = x.clone()
    nan.view(-1)[0] = float("nan")
    cases: list[tuple[type[ZooError], Tensor]] = [
        (EmptyDataError, x[:0]), (ShapeError, x[..., None]), (NonFiniteError, nan)
    ]  # fmt: skip
    for error, bad in cases:
        try:
            program.check(bad, context if context is None else context[: len(bad)])
        except error:
            continue
        raise ContractError(f"check() must refuse {tuple(bad.shape)} data with {error.__name__}")
    if isinstance(program, ExactDensity):
        with torch.no_grad():
            found = copy.deepcopy(program).eval().log_prob(nan, context)
        require(bool(found[0].isneginf()), f"log_prob must be -inf where x is NaN, got {float(found[0])}")


def checks() -> list[Callable[[Program], None]]:
    """All checks, for parametrised tests."""
    return [
        check_shapes, check_guide, check_particles, check_minibatch, check_gradients, check_exactness, check_save,
        check_seed, check_copy, check_dtype, check_no_global_state, check_bad_data,
    ]  # fmt: skip


def check_program(program: Program) -> None:
    """Runs the whole suite on a program.

    Raises: ContractError, naming the rule that is broken.
    """
    for check in checks():
        try:
            check(program)
        except ContractError as error:
            raise ContractError(f"{type(program).__name__}: {check.__name__}: {error}") from error
