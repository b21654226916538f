"""`fit(program, data, method)`: the one door to every method; its answer is a `Fit`."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inference.environment import resolve_device, seeded
from inference.fitted import Fit
from inference.method import Method, Outcome, Run
from inference.training.gradient import Trainable
from inference.training.together import Begun, train_together
from zoo import catalogue, datasets
from zoo.datasets import Data, Dataset
from zoo.errors import CapabilityError, OptionError, UnknownNameError
from zoo.program import Program

__all__ = ["METHODS", "final_loss", "fit", "fit_many", "make_method", "methods_for"]

METHODS: dict[str, str] = {
    "exact": "inference.methods.exact:Exact",
    "svi": "inference.methods.svi:SVI",
    "em": "inference.methods.em:EM",
    "cavi": "inference.methods.em:CAVI",
    "mcem": "inference.methods.mcem:MonteCarloEM",
    "wake-sleep": "inference.methods.wake_sleep:WakeSleep",
    "nuts": "inference.methods.nuts:NUTS",
    "gan": "inference.games.gan:GANGame",
    "avb": "inference.games.avb:AVB",
    "aae": "inference.games.aae:AAEGame",
    "ali": "inference.games.ali:ALIGame",
}
"""Name -> where the method lives. `fit(..., method=NAME, **options)` builds it."""


def make_method(method: str | Method, **options: Any) -> Method:
    """A method from its name and options, checked.

    Raises: UnknownNameError, OptionError (unknown option, bad value).
    """
    if isinstance(method, Method):
        if options:
            raise OptionError(
                f"Options {sorted(options)} were given beside a {type(method).__name__} object; set them on it."
            )
        return method
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS)
    module, name = METHODS[method].split(":")
    cls = getattr(import_module(module), name)
    known = cls.option_names()
    for option in options:
        if option not in known:
            raise UnknownNameError(f"option of {method}", option, known)
    return cls(**options)


def methods_for(program: Program) -> list[str]:
    """Names of the methods that can take a program."""
    return [name for name in METHODS if make_method(name).why_not(program) is None]


def as_dataset(data: Any, program: Program | None = None) -> tuple[str, Data, Data | None]:
    """(name, train, valid) from a name, file, Dataset, Data, tensor or (x, context); None is the program's default."""
    if data is None:
        if program is None:
            raise OptionError("Give data (a name, a file, a tensor or a Dataset).")
        data = type(program).dataset
    if isinstance(data, (str, Path)):
        data = datasets.load(data)
    if isinstance(data, Dataset):
        return data.name, data.train, data.valid
    if isinstance(data, Tensor):
        return "tensor", Data(data), None
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], Tensor):
        return "tensor", Data(*data), None
    raise OptionError(f"Cannot read data of type {type(data).__name__}; give a name, a file, a tensor or (x, context).")


@dataclass(frozen=True)
class _Job:
    """One fit before it is run: everything checked, program and data on the device."""

    program: Program
    method: Method
    run: Run
    data: str
    device: torch.device
    initialise: bool

    @contextmanager
    def started(self) -> Iterator[None]:
        """From the seed, with the program at its start."""
        with seeded(self.run.seed, self.device):
            if self.initialise:
                with torch.no_grad():
                    self.program.initialise(*self.run.train)
            yield

    def fit(self, outcome: Outcome, seconds: float) -> Fit:
        """Wraps an outcome."""
        self.program.eval()
        prototype = None
        if isinstance(outcome.guide, nn.Module):
            local = any(not s.is_global for s in self.program.sites().values())
            prototype = self.run.train if local else self.run.train.rows(slice(0, 2))
        return Fit(
            self.program, self.method.name, self.method.options(), self.data, self.run.seed, str(self.device), seconds,
            outcome.history, outcome.gradient_evaluations, outcome.guide, outcome.guide_spec, outcome.samples,
            outcome.info, prototype=prototype, modules=outcome.modules,
        )  # fmt: skip


def _job(
    program: Program | str,
    data: Any,
    method: Method,
    seed: int,
    device: str,
    progress: bool,
    folder: Path | None,
    initialise: bool,
) -> _Job:
    name, train, valid = as_dataset(data, None if isinstance(program, str) else program)
    if isinstance(program, str):
        with seeded(seed):
            program = catalogue.create_for(program, train)
    reason = method.why_not(program)
    if reason is not None:
        able = ", ".join(methods_for(program)) or "none"
        raise CapabilityError(
            f"Method {method.name!r} cannot fit {type(program).__name__}: {reason}. Methods that can: {able}."
        )
    program.check(*train)
    where = resolve_device(device)
    program.to(where)
    run = Run(train.to(where), None if valid is None else valid.to(where), seed, progress, folder)
    return _Job(program, method, run, name, where, initialise)


def fit(
    program: Program | str,
    data: Any = None,
    method: str | Method = "svi",
    *,
    seed: int = 0,
    device: str = "auto",
    progress: bool = False,
    out: str | Path | None = None,
    initialise: bool = True,
    num_restarts: int = 1,
    **options: Any,
) -> Fit:
    """Fits a program to data by a method, in place.

    Args:
        program: A program, or a name of the catalogue (then built for the data).
        data: A name, a file, a Dataset, a tensor (N, *event_shape) or (x, context); None is the program's default set.
        method: A name of METHODS with `options`, or a method object.
        seed: Everything random follows from it.
        device: 'auto', 'cpu', 'cuda' or 'mps'.
        progress: Shows a bar.
        out: Folder for checkpoints and the fit. A run that was killed continues from it.
        initialise: Calls `program.initialise` on the training data first.
        num_restarts: Fits from so many seeds, `seed` and those after it, and keeps the one with the lowest final loss;
            `Fit.info['restarts']` has all final losses. See `fit_many`.

    Raises: an error of `zoo.errors`, before any compute is spent, for data or options that make no sense;
        DivergenceError during it.
    """
    chosen = make_method(method, **options)
    if num_restarts != 1:
        if num_restarts < 1:
            raise OptionError(f"num_restarts must be at least 1, got {num_restarts}.")
        seeds = range(seed, seed + num_restarts)
        fits = fit_many(program, data, chosen, seeds=seeds, device=device, progress=progress, initialise=initialise)
        losses = [final_loss(each) for each in fits]
        best = fits[losses.index(min(losses))]
        best.info["restarts"] = losses
        if isinstance(program, Program):
            program.to(resolve_device(device)).load_state_dict(best.program.state_dict())
        if out is not None:
            best.save(out)
        return best
    folder = None if out is None else Path(out)
    job = _job(program, data, chosen, seed, device, progress, folder, initialise)
    started = time.perf_counter()
    with job.started():
        outcome = chosen.run(job.program, job.run)
    found = job.fit(outcome, time.perf_counter() - started)
    if folder is not None:
        found.save(folder)
    return found


def final_loss(found: Fit) -> float:
    """The last loss in a fit's history: on validation data if it has any.

    Raises: CapabilityError for a method that has no loss to compare restarts by.
    """
    for name in ("validation_loss", "loss"):
        values = [row[name] for row in found.history.rows if name in row]
        if values:
            return values[-1]
    raise CapabilityError(f"Method {found.method!r} has no loss by which restarts could be compared; fit once.")


def fit_many(
    program: Program | str,
    data: Any = None,
    method: str | Method = "svi",
    *,
    seeds: Sequence[int],
    device: str = "auto",
    progress: bool = False,
    initialise: bool = True,
    **options: Any,
) -> list[Fit]:
    """Fits a program from several seeds, as one vectorised computation where the method's step can be compiled.

    Each fit has a copy of the program, and its own minibatches and noise: what comes out is what `fit` gives for that
    seed with `compile='always'`, to rounding. Where the step cannot be compiled, or `compile` says not to, they run one
    after the other.

    Args:
        program: A program, which is left as it is: each fit has a copy, so that its networks start alike (what
            `initialise` draws does not). Or a name of the catalogue, built anew for each seed.
        data, method, device, progress, initialise, options: As for `fit`.
        seeds: One for each fit.

    Returns: The fits in the order of `seeds`. `Fit.seconds` is the time of all together over their number.
    """
    chosen = make_method(method, **options)

    def jobs() -> list[_Job]:
        copies = [program if isinstance(program, str) else copy.deepcopy(program) for _ in seeds]
        pairs = zip(copies, seeds, strict=True)
        return [_job(each, data, chosen, seed, device, progress, None, initialise) for each, seed in pairs]

    started = time.perf_counter()
    if isinstance(chosen, Trainable) and len(seeds) > 1:
        together = jobs()
        begun = []
        for job in together:
            with job.started():
                begun.append(Begun(chosen.prepare(job.program, job.run)))
        if train_together(begun, progress):
            outcomes = [each.training.finish() for each in begun]
            seconds = (time.perf_counter() - started) / len(seeds)
            return [job.fit(outcome, seconds) for job, outcome in zip(together, outcomes, strict=True)]
    found = []
    for job in jobs():
        started = time.perf_counter()
        with job.started():
            outcome = chosen.run(job.program, job.run)
        found.append(job.fit(outcome, time.perf_counter() - started))
    return found
