"""`fit(program, data, method)`: the one door to every method; its answer is a `Fit`."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from inference.guides import build_guide
from inference.history import History
from inference.loop import Begun, Trainable, train_together
from inference.method import Method, Outcome, Run
from inference.particles import draw
from zoo import catalogue, datasets
from zoo.datasets import Data, Dataset
from zoo.errors import CapabilityError, CheckpointError, OptionError, UnknownNameError
from zoo.program import Program

__all__ = ["METHODS", "Fit", "final_loss", "fit", "fit_many", "make_method", "methods_for", "seeded", "versions"]

METHODS: dict[str, str] = {
    "exact": "inference.exact:Exact",
    "svi": "inference.svi:SVI",
    "em": "inference.em:EM",
    "cavi": "inference.em:CAVI",
    "mcem": "inference.mcem:MonteCarloEM",
    "wake-sleep": "inference.wake_sleep:WakeSleep",
    "nuts": "inference.mcmc:NUTS",
    "gan": "inference.adversarial:GANGame",
    "avb": "inference.adversarial:AVB",
    "aae": "inference.adversarial:AAEGame",
    "ali": "inference.ali:ALIGame",
}
"""Name -> where the method lives. `fit(..., method=NAME, **options)` builds it."""

FIT_VERSION = 1


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


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Runs a block from an explicit seed and leaves the caller's random state as it was."""
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def resolve_device(device: str | torch.device) -> torch.device:
    """'auto' is CUDA when there is one, else the CPU (MPS has no float64: ask for it by name)."""
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = torch.device(device)
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(found.type, True):
        raise OptionError(f"Device {device!r} is not available here; use 'auto' or 'cpu'.")
    return found


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {}
    for package in ("pyro-model-zoo", "torch", "pyro-ppl", "numpy", "arviz"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


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


@dataclass
class Fit:
    """A fitted program and what came with it. Loads and saves itself; draws from its posterior."""

    program: Program
    method: str
    options: dict[str, Any]
    data: str
    seed: int
    device: str
    seconds: float
    history: History
    gradient_evaluations: int
    guide: Callable[..., Any] | None = None
    guide_spec: dict[str, Any] | None = None
    samples: dict[str, Tensor] | None = None
    info: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=versions)
    prototype: Data | None = None
    """The rows on which an autoguide is set up again when loaded."""
    modules: dict[str, nn.Module] = field(default_factory=dict)
    """Networks of the method's own (the critic of a game); for inspection, not saved."""

    @torch.no_grad()
    def draw(self, n: int, x: Tensor, context: Tensor | None = None, seed: int | None = None) -> dict[str, Tensor]:
        """Posterior draws of every latent site: local (n, B, *event), global (n, *event).

        Samples of a Markov chain are resampled with replacement, and belong to the training data.

        Raises: CapabilityError when the program has no latents.
        """
        sites = self.program.sites()
        if self.guide is None and self.samples is None:
            raise CapabilityError(f"This fit of {type(self.program).__name__} has no posterior to draw from.")
        with seeded(self.seed if seed is None else seed, x.device):
            if self.samples is not None:
                stored = len(next(iter(self.samples.values())))
                index = torch.arange(n) if n == stored else torch.randint(stored, (n,))
                return {name: value[index.to(value.device)] for name, value in self.samples.items()}
            assert self.guide is not None
            values = draw(self.guide, n, x, context, density=False).values
        return {
            name: value[:, 0] if name in sites and sites[name].is_global else value for name, value in values.items()
        }

    def save(self, folder: str | Path) -> Path:
        """Writes a folder that `Fit.load` reads back, offline and bit for bit.

        config.json and model.safetensors (the program, in huggingface_hub's form), fit.json, and the guide's or
        sampler's tensors if it has any.

        Raises: CheckpointError for a guide given as code, which cannot be saved.
        """
        folder = Path(folder)
        if self.guide_spec is not None and self.guide_spec["kind"] == "custom":
            raise CheckpointError(
                "This fit's guide was given as code and cannot be saved by name. Save its state_dict yourself, or make "
                "it the program's own guide."
            )
        catalogue.save(self.program, folder)
        if isinstance(self.guide, nn.Module):
            save_file(
                {k: v.detach().cpu().clone() for k, v in self.guide.state_dict().items()}, folder / "guide.safetensors"
            )
            assert self.prototype is not None
            rows = {k: v.cpu().contiguous() for k, v in self.prototype._asdict().items() if v is not None}
            save_file(rows, folder / "prototype.safetensors")
        if self.samples is not None:
            save_file({k: v.cpu().contiguous() for k, v in self.samples.items()}, folder / "samples.safetensors")
        record = {
            "version": FIT_VERSION,
            "method": self.method,
            "options": {k: v for k, v in self.options.items() if isinstance(v, (int, float, str, bool, type(None)))},
            "data": self.data,
            "seed": self.seed,
            "device": self.device,
            "seconds": self.seconds,
            "gradient_evaluations": self.gradient_evaluations,
            "guide": self.guide_spec,
            "info": self.info,
            "versions": self.versions,
            "history": self.history.rows,
        }
        (folder / "fit.json").write_text(json.dumps(record, indent=2))
        return folder

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Fit:
        """Reads what `save` wrote.

        Raises: CheckpointError when it is missing, damaged or of another version.
        """
        folder, program = Path(folder), catalogue.load(folder)
        program = program.to(resolve_device(device)).eval()
        try:
            record = json.loads((folder / "fit.json").read_text())
            if record["version"] != FIT_VERSION:
                raise CheckpointError(
                    f"{folder} was written by version {record['version']} of the fit format; this reads {FIT_VERSION}."
                )
            guide, spec, prototype, samples = None, record["guide"], None, None
            if (folder / "prototype.safetensors").exists():
                prototype = Data(**load_file(folder / "prototype.safetensors", device=str(resolve_device(device))))
            if spec is not None:
                guide = build_guide(spec, program, prototype if prototype is not None else Data(torch.empty(0)))
                if isinstance(guide, nn.Module):
                    guide.load_state_dict(load_file(folder / "guide.safetensors"))
                    guide.eval()
            if (folder / "samples.safetensors").exists():
                samples = load_file(folder / "samples.safetensors")
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(f"{folder} is not a whole fit ({type(error).__name__}: {error}).") from error
        keep = ("method", "options", "data", "seed", "device", "seconds", "gradient_evaluations", "info", "versions")
        return cls(
            program, history=History(record["history"]), guide=guide, guide_spec=spec, samples=samples,
            prototype=prototype, **{k: record[k] for k in keep},
        )  # fmt: skip


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
