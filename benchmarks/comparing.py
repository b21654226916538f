"""`compare(program, data, methods)`: several answers for one posterior, beside the truth, in one call.

    from benchmarks import compare
    found = compare("eight-schools")                   # a table and pictures in a notebook
    found.write("runs/schools")                        # report.html, report.md, plots/
    found.values["svi normal"]["sd_error"]

What is compared are posteriors, so the model is the same for all: its own parameters, if it has any, are fitted once
(where it is given by name) or stay as they are, and no method moves them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.cells.beside import Beside, gap_of, judged, predictions_of
from benchmarks.cells.posterior import default_dtype
from benchmarks.cells.truths import Yardstick, find_truth
from benchmarks.report import document
from benchmarks.report.beside import Differences, build
from benchmarks.suite import Cell, MethodSpec, ProgramSpec
from benchmarks.targets import Truth
from inference import METHODS, Fit, fit, intake, make_method
from inference.environment import seeded
from inference.guides.exact import why_not_exact
from inference.guides.named import AUTOGUIDES, guide_parameters
from inference.training.target import why_no_target
from zoo import catalogue, folders
from zoo.adopted import Adopted
from zoo.datasets import Data
from zoo.errors import CapabilityError, DivergenceError, ImplicitDensityError, OptionError, UnknownNameError
from zoo.options import Count, Seed, check_options
from zoo.program import ImplicitProgram, Program

__all__ = ["Comparison", "compare"]

EXAMPLES = 20
"""Of programs whose examples have posteriors of their own, so many are looked at."""
FULL_RANK = 200
"""Numbers of a posterior up to which a full-rank Gaussian is among the methods that are taken by default."""


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """What `compare` found."""

    program: str
    data: str
    truth: Yardstick
    rows: tuple[Beside, ...]
    notes: tuple[str, ...] = ()
    """What else must be known of program and data."""
    failures: tuple[str, ...] = ()
    """Methods that came to nothing, and why."""

    @property
    def fits(self) -> dict[str, Fit]:
        """Label -> the fit."""
        return {row.label: row.fit for row in self.rows}

    @property
    def values(self) -> dict[str, dict[str, float | None]]:
        """Label -> metric (see `benchmarks.metrics`) -> number; None where it does not apply."""
        return {row.label: {m.metric: m.value for m in row.measured} for row in self.rows}

    @cached_property
    def worst(self) -> dict[str, dict[str, float]]:
        """Numbers of the posterior, the worst first -> label -> how far off, in true standard deviations.

        See `benchmarks.cells.coordinates.distances`.
        """
        found = Differences.of(self.rows, self.truth)
        return {
            found.names[i]: {row.label: float(found.off[k, i]) for k, row in enumerate(self.rows)} for i in found.worst
        }

    @cached_property
    def report(self) -> document.Report:
        """Tables and pictures, as `benchmarks.report.document` has them."""
        return build(f"{self.program} on {self.data}", self.rows, self.truth, self.notes, self.failures)

    @property
    def pictures(self) -> dict[str, Any]:
        """Name -> matplotlib figure; `report` has the sentences."""
        return {picture.name: picture.figure for section in self.report.sections for picture in section.pictures}

    def facts(self) -> dict[str, Any]:
        """All numbers, as JSON has them."""
        said = {
            "program": self.program,
            "data": self.data,
            "truth": self.truth.sentence,
            "exact": self.truth.is_exact,
            "methods": self.values,
            "off": self.worst,
            "notes": list(self.notes),
            "failures": list(self.failures),
        }
        return dict(folders.finite(said))

    def write(self, folder: str | Path) -> Path:
        """Writes report.html, report.md and plots/ to a folder; returns the page."""
        return document.write(self.report, Path(folder))

    def __repr__(self) -> str:
        labels = ", ".join(row.label for row in self.rows)
        labels = labels if len(labels) <= 90 else f"{labels[:87]}..."
        against = "exact" if self.truth.is_exact else self.truth.truth.how
        return f"Comparison({self.program[-30:]} on {self.data[-30:]}: {labels}; truth: {against[:30]})"

    def _repr_html_(self) -> str:
        return document.body(self.report)


@dataclass(frozen=True)
class _Problem:
    """A program with its parameters set, and its data."""

    name: str
    program: Program
    data_name: str
    train: Data
    """What amortised guides learn from."""
    data: Data
    """What posteriors are looked at of: all, or the first examples where each has its own."""
    learnt: frozenset[str] = frozenset()
    """Names of the model's own parameters, which stay as they are."""
    notes: tuple[str, ...] = field(default=())


def compare(
    program: Program | str | Fit | Truth,
    data: Any = None,
    methods: Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    truth: Any = "auto",
    options: Mapping[str, Any] | None = None,
    seed: Seed = 0,
    particles: Count = 1000,
    c2st: bool = False,
    gaps: bool = True,
    progress: bool = False,
) -> Comparison:
    """Fits a program's posterior by several methods and holds each against the truth. Computes on the CPU.

    Args:
        program: A program, whose parameters stay as they are; a name of the catalogue or 'file.py:model' (parameters of
            the model are fitted first, by 'em' where it can, else by 'svi'); a fit; or a target of
            `benchmarks.targets`.
        data: What `fit` takes; None is the data of the fit or target, or the program's own.
        methods: Each a name of METHODS; 'svi:GUIDE' with the name of a guide; (name, options); or a `Fit` of the same
            program and data. A mapping has labels. None: SVI with the program's own guide, mean-field and full-rank
            Gaussians, NUTS and the exact posterior, those that can.
        truth: 'auto', the exact posterior where there is one, else NUTS; 'exact'; 'nuts'; a `Truth`; a `Fit` (one of
            `methods`, too); draws, {site: (S, *shape)}.
        options: Of every method that has them, the chain of the truth too; what a method says itself wins.
        seed: Everything random follows from it.
        particles: Draws behind ELBO, KL and k-hat.
        c2st: Also trains a classifier to tell each method's draws from true ones.
        gaps: Also splits log p(x) - ELBO in three, where the evidence is known.
        progress: Shows a bar for each fit.

    Raises: an error of `zoo.errors`, before anything is fitted where it can be known by then. A method that diverges,
        or finds that these data are not for it, is left out and named in `Comparison.failures`.
    """
    given = {"seed": seed, "particles": particles, "c2st": c2st, "gaps": gaps, "progress": progress}
    check_options(compare, given)
    if isinstance(truth, Truth) and not isinstance(program, Truth):
        raise OptionError("A target brings its program and data: give it in the place of the program.")
    with _precise(program):
        problem = _problem(program, data, seed, progress)
        truth = program if isinstance(program, Truth) and isinstance(truth, str) and truth == "auto" else truth
        by_chain = isinstance(truth, str) and (truth == "nuts" or why_not_exact(problem.program) is not None)
        asked = _asked(methods, problem, dict(options or {}), by_chain)
        if isinstance(truth, Fit):
            _check_same(truth, problem, "the truth")
        of_chain = {k: v for k, v in (options or {}).items() if k in type(make_method("nuts")).option_names()}
        true = find_truth(truth, problem.program, problem.data, seed=seed, progress=progress, options=of_chain)
        rows, failures = _rows(asked, problem, true, (seed, particles, c2st, gaps, progress))
    return Comparison(problem.name, problem.data_name, true, rows=rows, notes=problem.notes, failures=failures)


def _rows(
    asked: Sequence[tuple[str, MethodSpec, Fit | None]],
    problem: _Problem,
    true: Yardstick,
    how: tuple[int, int, bool, bool, bool],
) -> tuple[tuple[Beside, ...], tuple[str, ...]]:
    """Each method fitted and judged; and why some came to nothing.

    Raises: DivergenceError where all did.
    """
    seed, particles, c2st, gaps, progress = how
    rows, failures = [], []
    for label, spec, found in asked:
        try:
            found = found or _fitted(spec, problem, seed, progress)
        except (CapabilityError, DivergenceError) as error:  # which only the data have shown
            failures.append(f"{label} failed: {error}")
            continue
        row = judged(label, _cell(problem, spec, seed, particles, c2st), found, true)
        row = gap_of(row, true) if gaps else row
        rows.append(predictions_of(row, seed + 4))
    if not rows:
        raise DivergenceError("No method came to an answer. " + " ".join(failures))
    return tuple(rows), tuple(failures)


@contextmanager
def _precise(program: Any) -> Iterator[None]:
    """Double precision for what is built here; code that somebody else wrote computes in what it was written in."""
    own = isinstance(program, Truth) or (isinstance(program, str) and not issubclass(catalogue.get(program), Adopted))
    with default_dtype(torch.float64) if own else nullcontext():
        yield


# The problem


def _problem(program: Any, data: Any, seed: int, progress: bool) -> _Problem:
    """Program and data, parameters of the model fitted where that is ours to do."""
    if not isinstance(program, (str, Program, Fit, Truth)):
        raise OptionError(
            f"program must be a program, a name, a fit or a target, got a {type(program).__name__}; plain Pyro code is "
            "adopted first (zoo.adopt)."
        )
    name = program if isinstance(program, str) else None
    if isinstance(program, Truth):
        if data is not None:
            raise OptionError("A target has its own data: leave data out.")
        name, data, made = program.name, program.data, program.program()
    elif isinstance(program, Fit):
        made, data = copy.deepcopy(program.program), program.posterior.training() if data is None else data
    elif isinstance(program, str):
        made = None
        if issubclass(catalogue.get(program), Adopted):
            made = catalogue.create(program)
    else:
        made = copy.deepcopy(program)
    if isinstance(made, Adopted):
        data_name, train, _ = intake.arguments_of(data, made)
    else:
        data_name, train, _ = intake.as_dataset(data, name if made is None else made)
    data_name = program.data if isinstance(program, Fit) and data_name == "tensor" else data_name
    with seeded(seed):
        if made is None:
            assert name is not None
            made = catalogue.create_for(name, train)
        if isinstance(made, ImplicitProgram):
            raise ImplicitDensityError(f"{type(made).__name__} is implicit: it has no posterior that could be known.")
        if not made.sites():
            raise CapabilityError(f"{type(made).__name__} has no latents, so there is no posterior to compare.")
        train = made.take(train)
        made.declare(*train)
    learnt = _learnt(made, train)
    notes, title = [], name or catalogue.name_of(made)
    if learnt and isinstance(program, str):
        method = "em" if make_method("em").why_not(made) is None else "svi"
        cold = copy.deepcopy(made)
        made = fit(made, train, method, seed=seed, device="cpu", progress=progress).program
        _restart_guide(made, cold, learnt)
        notes.append(f"The model's own parameters were fitted first, by {method}; they are the same for all methods.")
    elif learnt:
        notes.append(
            "The model's own parameters stay as they are: what is compared are posteriors. The program's own guide "
            "starts as it was given, trained or not."
        )
    alone = not any(site.is_global for site in made.sites().values()) and not isinstance(program, Truth)
    few = train.rows(slice(0, EXAMPLES)) if alone and train.size > EXAMPLES else train
    if few.size < train.size:
        notes.append(f"Each example has its own posterior; those of the first {few.size} of {train.size} are shown.")
    if isinstance(program, Truth):
        notes.append(program.description)
    return _Problem(
        title, made, title if isinstance(program, Truth) else data_name, train=train, data=few, learnt=learnt,
        notes=tuple(notes),
    )  # fmt: skip


@torch.no_grad()
def _restart_guide(program: Program, cold: Program, learnt: frozenset[str]) -> None:
    """Puts the parameters that are the guide's alone back to where they were, so that no method starts ahead."""
    before = dict(cold.named_parameters())
    for name, parameter in program.named_parameters():
        if name in before and name not in learnt:
            parameter.copy_(before[name])


def _learnt(program: Program, data: Data) -> frozenset[str]:
    """Names of the parameters that belong to the model, not to the guide alone."""
    of_guide = {id(p) for p in guide_parameters(program.guide, program, data)} if program.has_guide else set()
    return frozenset(n for n, p in program.named_parameters() if p.requires_grad and id(p) not in of_guide)


# The methods


def _asked(
    methods: Any, problem: _Problem, options: dict[str, Any], by_chain: bool
) -> list[tuple[str, MethodSpec, Fit | None]]:
    """(label, what is asked for, the fit if it is given); each checked before anything is fitted.

    Options may be those of NUTS too where the truth is `by_chain`.
    """
    if methods is None:
        methods = _able(problem)
    if isinstance(methods, (str, Fit)) or not isinstance(methods, (Sequence, Mapping)) or not methods:
        raise OptionError(f"methods must be a list such as ['svi', 'svi:normal', 'nuts'], got {methods!r}.")
    labelled = isinstance(methods, Mapping)
    found = []
    for label, each in methods.items() if isinstance(methods, Mapping) else ((None, m) for m in methods):
        spec = _spec(each, str(label) if labelled else None, problem, options)
        found.append((spec.label, spec, each if isinstance(each, Fit) else None))
        if isinstance(each, Fit):
            _check_same(each, problem, spec.label)
        else:
            _check_able(spec, problem)
    labels = [label for label, *_ in found]
    names = {spec.method for _, spec, _ in found} | ({"nuts"} if by_chain else set())
    known = {option for name in names for option in type(make_method(name)).option_names()}
    if unknown := sorted(set(options) - known):
        raise UnknownNameError("option of these methods", unknown[0], sorted(known))
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise OptionError(f"Two methods are called {twice[0]!r}; give labels, {{label: method}}.")
    return found


def _able(problem: _Problem) -> list[Any]:
    """What is compared by default: those methods that can take the program."""
    sites = problem.program.sites().values()
    numbers = sum(
        site.event_shape.numel() * (1 if site.is_global else problem.data.size)
        for site in sites
        if not site.is_discrete
    )
    found: list[Any] = []
    if problem.program.has_guide and _learns(problem):
        found.append("svi")
    if numbers:
        found += ["svi:normal", *(["svi:multivariate_normal"] if 1 < numbers <= FULL_RANK else [])]
    found += [name for name in ("laplace", "pathfinder") if why_no_target(problem.program, problem.data) is None]
    if make_method("nuts").why_not(problem.program) is None:
        found.append("nuts")
    if why_not_exact(problem.program) is None:
        found.append("exact")
    return found


def _learns(problem: _Problem) -> bool:
    """Whether the program's own guide has parameters that a fit could set."""
    return bool(guide_parameters(problem.program.guide, problem.program, problem.train))


def _spec(asked: Any, label: str | None, problem: _Problem, common: Mapping[str, Any]) -> MethodSpec:
    """What is asked for, with the options that are not said.

    Raises: OptionError, UnknownNameError.
    """
    if isinstance(asked, Fit):
        return MethodSpec(label or asked.method, asked.method, asked.options)
    options: dict[str, Any] = {}
    if isinstance(asked, tuple) and len(asked) == 2 and isinstance(asked[1], Mapping):
        asked, options = asked[0], dict(asked[1])
    if not isinstance(asked, str):
        raise OptionError(f"A method is a name, (name, options) or a fit, got {asked!r}.")
    name, _, guide = asked.partition(":")
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    names = type(make_method(name)).option_names()
    lengths = {"steps", "epochs"} if {"steps", "epochs"} & options.keys() else set()
    said = {k: v for k, v in common.items() if k in names and k not in lengths}
    said |= {**options, **({"guide": guide} if guide else {})}
    label = label or " ".join([name, *([str(said["guide"])] if isinstance(said.get("guide"), str) else [])])
    make_method(name, **said)  # which refuses what makes no sense
    extra: dict[str, Any] = {}
    if not _amortised(said, problem):
        extra["batch_size"] = problem.data.size
    if problem.learnt:
        extra["train_program"] = False
    return MethodSpec(label, name, {**{k: v for k, v in extra.items() if k in names}, **said})


def _amortised(options: Mapping[str, Any], problem: _Problem) -> bool:
    """Whether a guide computes what it says of an example from the example, so that it may learn from all."""
    guide = options.get("guide", "own")
    own = not isinstance(guide, nn.Module) and guide not in AUTOGUIDES and problem.program.has_guide
    return own and problem.train.size > problem.data.size


def _check_able(spec: MethodSpec, problem: _Problem) -> None:
    """Raises CapabilityError for a method that cannot take the program, or would move the model's own parameters."""
    method = make_method(spec.method, **spec.options)
    with seeded(0):
        reason = method.why_not(problem.program)
    if reason is not None:
        raise CapabilityError(f"Method {spec.method!r} cannot fit {type(problem.program).__name__}: {reason}.")
    if problem.learnt and not method.holds_program and spec.method != "cavi":
        raise CapabilityError(
            f"Method {spec.method!r} fits the model's own parameters, so its posterior would be that of another model; "
            "compare by 'svi', 'nuts' or 'exact'."
        )


def _check_same(found: Fit, problem: _Problem, label: str) -> None:
    """Raises OptionError for a fit of another program, of other parameters of the model, or to other data."""
    mine, theirs = dict(problem.program.named_parameters()), dict(found.program.named_parameters())
    same = set(found.program.sites()) == set(problem.program.sites()) and all(
        name in theirs
        and theirs[name].shape == mine[name].shape
        and torch.allclose(theirs[name].to(mine[name]), mine[name])
        for name in problem.learnt
    )
    if not same:
        raise OptionError(
            f"The fit {label!r} is of another program, or of other parameters of the model, so its posterior is "
            "another; compare fits with train_program=False."
        )
    # Of a fit that was loaded without its data nothing is known.
    if found.train is not None and not any(found.train.equals(data) for data in (problem.train, problem.data)):
        raise OptionError(f"The fit {label!r} is to other data, so its posterior is another; fit it to these.")


def _cell(problem: _Problem, spec: MethodSpec, seed: int, particles: int, c2st: bool) -> Cell:
    """What the functions of `benchmarks.cells` are told."""
    return Cell(
        "compare", "posterior", ProgramSpec(problem.name), method=spec, dataset=problem.data_name, split="train",
        metrics=("c2st",) if c2st else (), seed=seed, evaluation={"particles": particles},
    )  # fmt: skip


def _fitted(spec: MethodSpec, problem: _Problem, seed: int, progress: bool) -> Fit:
    """A fit of a fresh copy of the program."""
    trains = type(make_method(spec.method)).moves_program
    data = problem.train if trains and _amortised(spec.options, problem) else problem.data
    return fit(
        copy.deepcopy(problem.program), data, spec.method, seed=seed, device="cpu", initialise=False, progress=progress,
        **spec.options,
    )  # fmt: skip
