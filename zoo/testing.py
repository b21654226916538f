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
from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from torch import Tensor
from torch.distributions import biject_to

from zoo import catalogue
from zoo.broadcasting import REMEDY, check_particles
from zoo.energy.base import EnergyProgram
from zoo.errors import EmptyDataError, ImplicitDensityError, NonFiniteError, ShapeError, ZooError
from zoo.process import set_seed
from zoo.program import ExactDensity, ExactEvidence, ExactPosterior, Implicit, ImplicitProgram, Program
from zoo.rules import BATCH, Check, ContractError, Position, draw_data, require, rule, said, sample_sites

__all__ = ["ContractError", "check_program", "checks"]


@rule(1, "model(None, context, size) must generate `size` examples, and model(x, context, size) observe x.")
@torch.no_grad()
def check_shapes(program: Program) -> None:
    """`model(None, size=n)` and `model(x)` return (n, *event_shape); all that is generated is observed at site 'x'."""
    x, context = draw_data(program)
    require(
        tuple(x.shape) == (BATCH, *program.event_shape),
        f"model(size={BATCH}) returned {tuple(x.shape)}, expected {(BATCH, *program.event_shape)}: return the value of "
        "the site 'x', and set event_shape to the shape of one example.",
    )
    program.check(x, context)
    free, sites = sample_sites(program.model, None, context, BATCH), sample_sites(program.model, x, context, None)
    observed = [name for name, site in sites.items() if site["is_observed"]]
    require(
        "x" in observed,
        f"the model must observe its data at a site named 'x'; given x it observes {observed}: end in "
        "pyro.sample('x', ..., obs=x).",
    )
    for name in observed:
        require(
            name == "x" or name not in free or free[name]["is_observed"],
            f"site {name!r} is observed when x is given, and drawn, as a latent is, when it is not: what the model "
            "generates is one site 'x' (a vector, say, with .to_event), other observations come from the context; or "
            "take the model as it is, by zoo.adopt.",
        )
    if not isinstance(program, ImplicitProgram):
        fn = sites["x"]["fn"]
        require(
            tuple(fn.event_shape) == tuple(program.event_shape),
            f"site 'x' has event_shape {tuple(fn.event_shape)}, expected {tuple(program.event_shape)}: use .to_event",
        )


@rule(7, "A guide samples the latent sites of the model with the same shapes, from x and context alone.")
@torch.no_grad()
def check_guide(program: Program) -> None:
    """The guide samples the model's latent sites with their shapes; what it leaves out can be summed out exactly.

    A program without a guide is for autoguides and NUTS: its latents are numbers that map to all numbers, or can be
    summed out.
    """
    x, context = draw_data(program)
    sites = sample_sites(program.model, x, context, None)
    latent = {k: s for k, s in sites.items() if not s["is_observed"]}
    guided = {k: s for k, s in sample_sites(program.guide, x, context, None).items() if not s["is_observed"]}
    for name, site in guided.items():
        what = "which the model observes" if name in sites else f"which is not in the model (it has {list(latent)})"
        require(
            name in latent, f"the guide samples {name!r}, {what}: guide sites have the names of the model's latents."
        )
        want, got = latent[name]["value"].shape, site["value"].shape
        require(want == got, f"site {name!r}: the guide draws shape {tuple(got)}, the model {tuple(want)}")
    if isinstance(program, ImplicitProgram | ExactDensity):
        return  # Latents are marginalised by the game, or by log_prob.
    for name, site in latent.items():
        if name not in guided and not program.has_guide:
            require(
                _enumerable(site) or _continuous(site),
                f"the program has no guide, and its latent {name!r} ({type(site['fn']).__name__}) can neither be "
                "enumerated nor mapped to all numbers: write a guide for it.",
            )
        elif name not in guided:
            require(
                _enumerable(site),
                f"the guide leaves out {name!r}, which can neither be enumerated nor is summed out by log_prob: sample "
                "it in the guide, or write no guide at all and take an autoguide (guide='normal').",
            )


def _enumerable(site: Mapping[str, Any]) -> bool:
    return bool(site["fn"].has_enumerate_support)


def _continuous(site: Mapping[str, Any]) -> bool:
    try:
        biject_to(site["fn"].support)
    except NotImplementedError:
        return False
    return not site["fn"].support.is_discrete


@rule(2, "Examples lie in the one plate `with self.plate(x, context, size):`, in model and guide.")
@torch.no_grad()
def check_minibatch(program: Program) -> None:
    """The one plate is `self.plate(x, context, size)`: `size` scales it by size / B, and leaves global sites alone."""
    x, context = draw_data(program)
    for what, fn in (("model", program.model), ("guide", program.guide)):
        for name, site in sample_sites(fn, x, context, 5 * BATCH).items():
            plates = [frame.name for frame in site["cond_indep_stack"]]
            require(
                plates in ([], ["data"]),
                f"{what} site {name!r} is in plates {plates}; only self.plate(...) is allowed: write other plates as "
                "event dimensions (.expand([k]).to_event(1)), or take the model as it is, by zoo.adopt.",
            )
            want = 5.0 if plates else 1.0
            require(
                isinstance(program, ImplicitProgram) or float(site["scale"]) == want,
                f"{what} site {name!r} has scale {float(site['scale'])} in a minibatch of 1/5; expected {want}: hand "
                "`size` to self.plate(x, context, size).",
            )


@rule(8, "The bound on the evidence must be differentiable: draw continuous latents by distributions with rsample.")
def check_gradients(program: Program) -> None:
    """The evidence bound reaches every parameter with a finite gradient.

    Of a program without a guide: its log joint density at draws of the prior, latents that can be summed out left out.
    Of an implicit program: the generated x, and the density of the guide's own draws, or these where it has none.
    """
    program = copy.deepcopy(program)
    x, context = draw_data(program)
    parameters = dict(program.named_parameters())
    if not parameters:
        return
    for p in parameters.values():
        p.grad = None
    if isinstance(program, EnergyProgram):
        program.unnormalised_log_prob(x, context).sum().backward()
    elif isinstance(program, ImplicitProgram):
        loss = program.model(None, context, BATCH).square().sum()
        for site in sample_sites(program.guide, x, context, None).values():
            if isinstance(site["fn"], Implicit):
                loss = loss + site["value"].square().sum()
            else:
                loss = loss - site["fn"].log_prob(site["value"].detach()).sum()
        loss.backward()
    else:
        _loss(program, x, context).backward()
    for name, p in parameters.items():
        require(
            p.grad is not None, f"no gradient reaches the parameter {name!r}: use it in model or guide, or delete it."
        )
        require(bool(torch.isfinite(p.grad).all()), f"the gradient of {name!r} is not finite at the first draws.")


def _loss(program: Program, x: Tensor, context: Tensor | None) -> Tensor:
    """What training lowers: minus the log density or a bound on it, whichever the program allows."""
    model, guided = program.model, sample_sites(program.guide, x, context, None)
    left_out = [name for name in program.sites() if name not in guided]
    if left_out and isinstance(program, ExactDensity):
        loss = -program.log_prob(x, context).sum()
        if guided:  # the guide is an alternative to summing out: train it by the plain ELBO
            loss = loss + Trace_ELBO().differentiable_loss(model, program.guide, x, context, None)
        return loss
    if not left_out:
        enumerates = any(site["infer"].get("enumerate") for site in guided.values())
        elbo: ELBO = TraceEnum_ELBO(max_plate_nesting=1) if enumerates else Trace_ELBO()
        return elbo.differentiable_loss(model, program.guide, x, context, None)
    if not program.has_guide:
        prior = sample_sites(model, None, context, BATCH)
        given = {name: prior[name]["value"].detach() for name in left_out if not _enumerable(prior[name])}
        model, left_out = poutine.condition(model, data=given), [name for name in left_out if name not in given]
        if not left_out:
            return Trace_ELBO().differentiable_loss(model, program.guide, x, context, None)
    position = Position()
    try:
        with position:
            elbo = TraceEnum_ELBO(max_plate_nesting=1)
            return elbo.differentiable_loss(config_enumerate(model), program.guide, x, context, None)
    except Exception as error:
        raise ContractError(
            f"{left_out} cannot be summed out, for which a latent has a dimension more on its left (rule 3): "
            f"{said(error, position)}. {REMEDY}"
        ) from error


@rule(9, "Only what is exact may be called log_prob, log_evidence or posterior: delete it, or mend it.")
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
            sample_sites(program.model, x, context, None)["x"]["fn"].log_prob(x)
        except ImplicitDensityError:
            return
        raise ContractError("asking an implicit site for its density must raise ImplicitDensityError")
    if isinstance(program, ExactDensity):
        got = program.log_prob(x, context)
        require(tuple(got.shape) == (BATCH,), f"log_prob returned shape {tuple(got.shape)}, expected ({BATCH},)")
        if not program.sites():
            joint = poutine.trace(program.model).get_trace(x, context, None)
            joint.compute_log_prob()
            parts = [site["log_prob"] for site in joint.nodes.values() if site["type"] == "sample"]
            total = sum(part for part in parts if isinstance(part, Tensor))
            require(
                torch.allclose(torch.as_tensor(total), got), "log_prob differs from the density of the observed sites"
            )
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


@rule(4, "Keep constructor arguments numbers, strings or lists of these, and tensors parameters or buffers.")
@torch.no_grad()
def check_save(program: Program) -> None:
    """Saving and loading gives the same class, configuration, tensors and predictions, bit for bit."""
    config = program.config()
    for name in program.option_names():
        require(
            name in config,
            f"the constructor's argument {name!r} is no number, string or list of these, so it is not saved: build "
            "it from such arguments, or keep it in a buffer.",
        )
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
        set_seed(3)
        draws.append(each.eval().generate(BATCH, context))
    require(torch.equal(*draws), "the loaded program generates other examples from the same seed")


@rule(8, "Draw by pyro.sample or torch's own generator alone.")
@torch.no_grad()
def check_seed(program: Program) -> None:
    """The same seed gives the same draws, another seed others, unless nothing is drawn (all sites are `Implicit`)."""
    context = program.example_context(64)
    set_seed(5)
    first = program.generate(64, context)
    set_seed(5)
    second = program.generate(64, context)
    third = program.generate(64, context)
    require(torch.equal(first, second), "the same seed gave different examples")
    draws = any(
        not isinstance(site["fn"], Implicit) for site in sample_sites(program.model, None, context, 64).values()
    )
    require(not (draws and torch.equal(second, third)), "different random states gave the same examples")


@rule(4, "Keep what the program is in its constructor's arguments, parameters and buffers.")
@torch.no_grad()
def check_copy(program: Program) -> None:
    """A copy draws and takes what the program does: nothing depends on which object a constraint is."""
    context, copied = program.example_context(BATCH), copy.deepcopy(program)
    drawn = []
    for each in (program, copied):
        set_seed(5)
        drawn.append(each.generate(BATCH, context))
    require(torch.equal(*drawn), "a copy draws other examples from the same seed")
    copied.check(drawn[1], context)


@rule(4, "Make constants buffers (register_buffer), and new tensors by like.new_zeros(...), never torch.zeros(...).")
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


@rule(4, "Keep parameters in the module.")
@torch.no_grad()
def check_no_global_state(program: Program) -> None:
    """Nothing enters Pyro's global parameter store."""
    x, context = draw_data(program)
    program.guide(x, context, None)
    require(
        not list(pyro.get_param_store().keys()), "parameters leaked into Pyro's global store; keep them in the module"
    )


@rule(9, "Leave check() to Program, and give event_shape and support.")
def check_bad_data(program: Program) -> None:
    """Empty, misshapen and non-finite data are refused with the error that says so, and have no density.

    Where a program `takes_missing`, NaN is accepted, and of a row with nothing else the density is one.
    """
    x, context = draw_data(program)
    wrong = x.clone(memory_format=torch.contiguous_format)
    wrong.view(-1)[0] = float("inf" if program.takes_missing else "nan")
    cases: list[tuple[type[ZooError], Tensor]] = [
        (EmptyDataError, x[:0]), (ShapeError, x[..., None]), (NonFiniteError, wrong)
    ]  # fmt: skip
    for error, bad in cases:
        try:
            program.check(bad, context if context is None else context[: len(bad)])
        except error:
            continue
        raise ContractError(f"check() must refuse {tuple(bad.shape)} data with {error.__name__}")
    if isinstance(program, ExactDensity):
        with torch.no_grad():
            found = copy.deepcopy(program).eval().log_prob(wrong, context)
        require(bool(found[0].isneginf()), f"log_prob must be -inf where x is not finite, got {float(found[0])}")
    if program.takes_missing:
        wrong[0] = float("nan")
        program.check(wrong, context)
        if isinstance(program, ExactDensity):
            with torch.no_grad():
                left = copy.deepcopy(program).eval().log_prob(wrong, context)[0]
            require(abs(float(left)) < 1e-4, f"log_prob must be 0 where all of x is missing, got {float(left)}")


def checks() -> list[Check]:
    """All checks, for parametrised tests."""
    return [
        check_shapes, check_minibatch, check_guide, check_particles, check_gradients, check_exactness, check_save,
        check_seed, check_copy, check_dtype, check_no_global_state, check_bad_data,
    ]  # fmt: skip


def check_program(program: Program) -> None:
    """Runs the whole suite on a program.

    Raises: ContractError, naming the rule that is broken (a number of docs/write-a-model.md), the site where it is one,
        and what to do.
    """
    for check in checks():
        try:
            check(program)
        except ContractError as error:
            raise ContractError(f"{type(program).__name__}: {check.__name__}: {error}") from error
