"""`fit(program, data, method)`: the one door to every method; its answer is a `Fit`."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from inference import intake
from inference.callbacks import Callback, Listeners, Start
from inference.checkpoint import Checkpoint, fingerprint
from inference.environment import resolve_device, seeded
from inference.fitted import Fit, why_not_saved
from inference.method import Method, Outcome, Run
from inference.processes import Team, leads
from inference.restarts import count_modes, final_loss
from inference.training.gradient import GradientMethod, check_team
from inference.training.loop import Schedule, progress_bar
from inference.training.together import Begun, train_together
from zoo import catalogue, folders
from zoo.adopted import Adopted
from zoo.errors import CapabilityError, CheckpointError, OptionError, UnknownNameError
from zoo.options import Count, Seed, check_options, plain
from zoo.parameters import Stated
from zoo.process import one_at_a_time
from zoo.program import Program

__all__ = ["METHODS", "fit", "fit_many", "make_method", "methods_for"]

METHODS: dict[str, str] = {
    "exact": "inference.methods.exact:Exact",
    "svi": "inference.methods.svi:SVI",
    "em": "inference.methods.em:EM",
    "cavi": "inference.methods.em:CAVI",
    "mcem": "inference.methods.mcem:MonteCarloEM",
    "wake-sleep": "inference.methods.wake_sleep:WakeSleep",
    "cd": "inference.methods.cd:ContrastiveDivergence",
    "score-matching": "inference.methods.score_matching:ScoreMatching",
    "nce": "inference.methods.nce:NoiseContrastive",
    "nuts": "inference.methods.nuts:NUTS",
    "laplace": "inference.methods.laplace:Laplace",
    "pathfinder": "inference.methods.pathfinder:Pathfinder",
    "smc": "inference.methods.smc:SMC",
    "svgd": "inference.methods.svgd:SVGD",
    "gan": "inference.games.gan:GANGame",
    "cycle": "inference.games.cycle:CycleGame",
    "gan-cls": "inference.games.captions:CaptionGame",
    "avb": "inference.games.avb:AVB",
    "aae": "inference.games.aae:AAEGame",
    "ali": "inference.games.ali:ALIGame",
    "star": "inference.games.star:StarGame",
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
    return cls(**plain(options))


def methods_for(program: Program) -> list[str]:
    """Names of the methods that can take a program."""
    return [name for name in METHODS if make_method(name).why_not(program) is None]


@dataclass(frozen=True)
class _Wish:
    """What is to be fitted and how, once presets and options are sorted out."""

    program: Program | str
    options: dict[str, Any]
    """Of the constructor, where the program is given by name."""
    method: Method
    data: str | None
    """The preset's data set; None where it names none."""


def _wish(program: Program | str, method: str | Method | None, preset: str | None, given: Mapping[str, Any]) -> _Wish:
    """Sorts options into those of the program and of the method, over a preset's.

    'program.x' and 'method.x' say whose, where both have an x.

    Raises: UnknownNameError, OptionError.
    """
    if not isinstance(program, str):
        if preset is not None:
            raise OptionError(
                f"A preset says how to build a program too, and this {type(program).__name__} is built: give its name."
            )
        return _Wish(program, {}, make_method(method or "svi", **given), data=None)
    cls = catalogue.get(program)
    chosen = cls.preset(preset)
    named = method if isinstance(method, str) else chosen.method
    of_method = type(method if isinstance(method, Method) else make_method(named)).option_names()
    mine, theirs = _sorted(program, named, given, set(cls.option_names()), set(of_method))
    merged = chosen.merged(mine, named, theirs)
    if isinstance(method, Method):
        return _Wish(program, dict(merged.program), make_method(method, **theirs), data=chosen.data)
    return _Wish(program, dict(merged.program), make_method(named, **merged.fit), data=chosen.data)


def _sorted(
    program: str, method: str, given: Mapping[str, Any], of_program: set[str], of_method: set[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {"program": {}, "method": {}}
    known = {"program": of_program, "method": of_method}
    for option, value in given.items():
        scope, dot, short = option.partition(".")
        if dot and scope in found:
            if short not in known[scope]:
                raise UnknownNameError(f"option of {program if scope == 'program' else method}", short, known[scope])
            found[scope][short] = value
        elif option in of_program and option in of_method:
            raise OptionError(
                f"Both {program} and {method} have an option {option!r}: write program.{option} or method.{option}."
            )
        elif option in of_program:
            found["program"][option] = value
        elif option in of_method:
            found["method"][option] = value
        else:
            raise UnknownNameError(f"option of {program} or {method}", option, of_program | of_method)
    return found["program"], found["method"]


@dataclass(frozen=True, kw_only=True)
class _Where:
    """The circumstances that `fit` and `fit_many` are given."""

    device: str | torch.device
    progress: bool
    initialise: bool | None
    weights: Any
    callbacks: Sequence[Callback] = ()


@dataclass(frozen=True)
class _Job:
    """One fit before it is run: everything checked, program and data on the device."""

    program: Program
    method: Method
    run: Run
    data: str
    initialise: bool

    @classmethod
    def of(cls, wish: _Wish, data: Any, seed: int, where: _Where) -> _Job:
        """Builds the program if it is given by name, and checks what can be checked.

        Raises: an error of `zoo.errors`.
        """
        program = wish.program
        if isinstance(program, str) and issubclass(catalogue.get(program), Adopted):
            program = catalogue.create(program, **wish.options)
        if isinstance(program, Adopted):
            name, train, valid = intake.arguments_of(data, program)
        else:
            name, train, valid = intake.as_dataset(wish.data if data is None else data, program)
        if isinstance(program, str):
            with seeded(seed):
                program = catalogue.create_for(program, train, **wish.options)
        with seeded(seed):  # `pyro.param` statements of the model start at its first run
            reason = wish.method.why_not(program)
        if reason is not None:
            able = ", ".join(methods_for(program)) or "none"
            raise CapabilityError(
                f"Method {wish.method.name!r} cannot fit {type(program).__name__}: {reason}. Methods that can: {able}."
            )
        train = program.take(train)
        valid = None if valid is None else intake.accepted(program, valid)
        intake.check_missing(wish.method, train, valid)
        check_team(Team.now(), wish.method, program, train.size)
        if where.weights is not None:
            train = intake.weighted(wish.method, program, train, where.weights)
        device = resolve_device(where.device)
        program.to(device)
        train, held_out = train.to(device), None if valid is None else valid.to(device)
        with seeded(seed, device):
            program.declare(*train)
        heard = Listeners(where.callbacks, program)
        run = Run(train, held_out, seed, progress=where.progress, listeners=heard, team=Team.now())
        held = isinstance(wish.program, Program) and wish.method.holds_program
        initialise = not held if where.initialise is None else where.initialise
        return cls(program, wish.method, run, data=name, initialise=initialise)

    def kept(self, folder: Path, given: bool, restart: bool) -> _Job:
        """The job with the checkpoint of its folder.

        Args:
            folder: Where; held by the caller.
            given: Whether the program was given, rather than built from the seed.
            restart: Whether a checkpoint that is there is thrown away.

        Raises: CheckpointError when the checkpoint there is damaged or of another fit.
        """
        method, run = self.method, self.run
        steps = Schedule.of(method).total_steps(run.train.size) if isinstance(method, GradientMethod) else None
        of = fingerprint(
            self.program, method, run.train, run.valid, seed=run.seed, initialise=self.initialise, steps=steps,
            given=given,
        )  # fmt: skip
        return replace(self, run=replace(run, checkpoint=Checkpoint(folder, of, restart)))

    @contextmanager
    def started(self) -> Iterator[None]:
        """From the seed, with the program at its start."""
        with seeded(self.run.seed, self.run.train.x.device):
            if self.initialise:
                # How long it takes nobody knows: most programs look at the data once, some train a small network.
                with torch.no_grad(), progress_bar(self.run.progress) as bar:
                    bar.add_task(f"initialise {type(self.program).__name__}", total=None, note="")
                    self.program.initialise(*self.run.train.plain().beginning())
            yield

    def done(self) -> Fit:
        """Runs the method."""
        started = time.perf_counter()
        with self.started():
            self.run.listeners.tell("on_start", self.start())
            outcome = self.method.run(self.program, self.run)
        self.run.listeners.report(outcome.history.rows)
        before = 0.0 if self.run.checkpoint is None else self.run.checkpoint.seconds
        return self.fit(outcome, before + time.perf_counter() - started)

    def heard(self, out: str | Path | None) -> Fit:
        """Runs the method and saves the fit, while callbacks listen."""
        with self.run.listeners.failing():
            found = self.done()
            if out is not None:
                found.save(out)
            self.run.listeners.tell("on_end", found)
        return found

    def start(self) -> Start:
        """What callbacks are told first."""
        train = self.run.train
        return Start(
            self.program, self.method.name, self.method.options(), data=self.data, examples=train.size,
            seed=self.run.seed, device=str(train.x.device),
        )  # fmt: skip

    def fit(self, outcome: Outcome, seconds: float) -> Fit:
        """Wraps an outcome."""
        self.program.eval()
        return Fit(
            program=self.program,
            method=self.method.name,
            options=self.method.options(),
            data=self.data,
            seed=self.run.seed,
            device=str(self.run.train.x.device),
            seconds=seconds,
            history=outcome.history,
            gradient_evaluations=outcome.gradient_evaluations,
            guide=outcome.guide,
            guide_spec=outcome.guide_spec,
            samples=outcome.samples,
            info=outcome.info,
            train=self.run.train.plain(),
            modules=outcome.modules,
        )


@one_at_a_time
def fit(
    program: Program | str,
    data: Any = None,
    method: str | Method | None = None,
    *,
    preset: str | None = None,
    seed: Seed = 0,
    device: str | torch.device = "auto",
    progress: bool = False,
    out: str | Path | None = None,
    restart: bool = False,
    initialise: bool | None = None,
    num_restarts: Count = 1,
    weights: Any = None,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> Fit:
    """Fits a program to data by a method; a built program in place. Fits in threads run one after the other.

    Args:
        program: A program, or a name of the catalogue (then built for the data).
        data: A name, a file, a Dataset, examples (N, *event_shape) or (x, context) of any kind that `Data.of` takes;
            None is the data set that the preset is for, or the program's default. All splits are checked, and converted
            to the program's dtype (torch's default where it is given by name). NaN in x is a missing value, for
            programs that `takes_missing`. Of adopted code, its arguments by name, in order, or in a file.
        method: A name of METHODS, or a method object; None is the preset's, or 'svi'.
        preset: A named configuration of the program, see `Program.presets`: how to build it, a method, its options.
        seed: Everything random follows from it.
        device, progress: 'auto', 'cpu', 'cuda' or 'mps'; shows a bar.
        out: Folder for checkpoints and the fit, tried before anything is computed. A run that was killed goes on from
            it if the same is asked for: program, options, data and seed. An older fit there stays until this is saved.
        restart, initialise: Throws a killed run's checkpoint away; has `program.initialise` set parameters by the data
            first. None does, but not of a built program that the method holds (exact, NUTS, `train_program=False`).
        num_restarts: Fits from so many seeds, `seed` and those after it, and keeps the one with the lowest final loss;
            `Fit.info['restarts']` has all final losses, `['modes']` in how many places they ended. See `fit_many`.
        callbacks: Are told of start, reports, checkpoints and end (`inference.callbacks`); of one fit, no restarts.
        weights: How much each training example counts, (N,); for 'svi' (bounds 'trace', 'mean_field') and 'nuts'.
        options: Of the method and, where the program is given by name, of its constructor; they win over the preset's.
            Where both have an option x, `**{"program.x": ..., "method.x": ...}`.

    Raises: an error of `zoo.errors` before any compute (CheckpointError: `out` is in use); DivergenceError during it.
    """
    seed, num_restarts = plain(seed), plain(num_restarts)
    out, restart, progress, callbacks = (out, restart, progress, callbacks) if leads() else (None, False, False, ())
    given: dict[str, Any] = {"program": program, "method": method, "preset": preset, "seed": seed, "progress": progress}
    given |= {"initialise": initialise, "device": device, "num_restarts": num_restarts, "out": out, "restart": restart}
    _check_call({**given, "callbacks": callbacks})
    wish = _wish(program, method, preset, options)
    where = _Where(device=device, progress=progress, initialise=initialise, weights=weights, callbacks=callbacks)
    job = _Job.of(wish, data, seed, where) if num_restarts == 1 else None
    _check_saved(out, wish, wish.program if job is None else job.program)
    with nullcontext() if out is None else folders.opened(out):
        if job is not None:
            return (job if out is None else job.kept(Path(out), isinstance(wish.program, Program), restart)).heard(out)
        if out is not None:
            Checkpoint(Path(out), None, restart)
        found = _best(wish, data, range(seed, seed + num_restarts), where)
        if out is not None:
            found.save(out)
    return found


def _check_saved(out: str | Path | None, wish: _Wish, program: Program | str) -> None:
    """Raises CheckpointError for a fit that is to be saved and could not be."""
    why_not = None if out is None else why_not_saved(program, wish.method.options().get("guide"))
    if why_not is not None:
        raise CheckpointError(f"This fit could not be saved in {out}: {why_not}")


def _check_call(given: Mapping[str, Any]) -> None:
    """Checks what `fit` was given, beside data and options.

    Raises: OptionError.
    """
    check_options(fit, given)
    out, restart = given["out"], given["restart"]
    if out == "":
        raise OptionError("out is '', which is no folder; name one ('.' is this one), or leave it out.")
    if given["callbacks"] and given["num_restarts"] > 1:
        raise OptionError(
            f"callbacks listen to one fit, and num_restarts={given['num_restarts']} are several; leave one out."
        )
    if restart and out is None:
        raise OptionError("restart=True throws away the checkpoint of a folder: give the folder, out=.")


def _best(wish: _Wish, data: Any, seeds: Sequence[int], where: _Where) -> Fit:
    """The fit with the lowest final loss; a program that was given has its parameters."""
    fits = _many(replace(wish, method=wish.method.for_restarts()), data, seeds, where)
    losses = [final_loss(each) for each in fits]
    best = fits[losses.index(min(losses))]
    best.info["restarts"] = losses
    if (seen := count_modes(fits)) is not None:
        best.info["modes"] = seen
    if isinstance(wish.program, Program):
        wish.program.to(resolve_device(where.device)).load_state_dict(best.program.state_dict())
    return best


@one_at_a_time
def fit_many(
    program: Program | str,
    data: Any = None,
    method: str | Method | None = None,
    *,
    seeds: Sequence[Seed],
    preset: str | None = None,
    device: str | torch.device = "auto",
    progress: bool = False,
    initialise: bool | None = None,
    weights: Any = None,
    **options: Any,
) -> list[Fit]:
    """Fits a program from several seeds, as one vectorised computation where the method's step can be compiled.

    Each fit has a copy of the program, and its own minibatches and noise: what comes out is what `fit` gives for that
    seed with `compile='always'`, to rounding. Where the step cannot be compiled, or `compile` says not to, they run one
    after the other.

    Args:
        program: A program, which is left as it is: each fit has a copy, so that its networks start alike (what
            `initialise` draws does not). Or a name of the catalogue, built anew for each seed.
        data, method, preset, device, progress, initialise, weights, options: As for `fit`.
        seeds: One for each fit.

    Returns: The fits in the order of `seeds`. `Fit.seconds` is the time of all together over their number.
    """
    given: dict[str, Any] = {"program": program, "method": method, "preset": preset, "progress": progress}
    seeds = plain(seeds if isinstance(seeds, list | tuple) else list(seeds))
    check_options(fit_many, {**given, "initialise": initialise, "device": device, "seeds": seeds})
    where = _Where(device=device, progress=progress, initialise=initialise, weights=weights)
    return _many(_wish(program, method, preset, options), data, seeds, where)


def _many(wish: _Wish, data: Any, seeds: Sequence[int], where: _Where) -> list[Fit]:
    def jobs() -> Iterator[_Job]:
        for seed in seeds:
            job = _Job.of(replace(wish, program=copy.deepcopy(wish.program)), data, seed, where)
            for module in job.program.modules():  # a network that it has met in the meantime would be one for all
                if isinstance(module, Stated) and len(seeds) > 1:
                    module.refuse_borrowed()
            yield job

    if not Team.now().alone:
        raise OptionError("Several processes share one fit, not several seeds; fit them without torchrun.")
    if isinstance(wish.method, GradientMethod) and len(seeds) > 1:
        started, together, begun = time.perf_counter(), list(jobs()), []
        for job in together:
            with job.started():
                begun.append(Begun(wish.method.prepare(job.program, job.run)))
        if train_together(begun, where.progress):
            outcomes = [each.finish() for each in begun]
            seconds = (time.perf_counter() - started) / len(seeds)
            return [job.fit(outcome, seconds) for job, outcome in zip(together, outcomes, strict=True)]
    return [job.done() for job in jobs()]
