"""`fit(program, data, method)`: the one door to every method; its answer is a `Fit`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
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
from inference.method import Method, Run
from inference.particles import draw
from zoo import catalogue, datasets
from zoo.datasets import Data, Dataset
from zoo.errors import CapabilityError, CheckpointError, OptionError, UnknownNameError
from zoo.program import Program

__all__ = ["METHODS", "Fit", "fit", "make_method", "methods_for", "seeded", "versions"]

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

    Raises: an error of `zoo.errors`, before any compute is spent, for data or options that make no sense;
        DivergenceError during it.
    """
    name, train, valid = as_dataset(data, None if isinstance(program, str) else program)
    if isinstance(program, str):
        with seeded(seed):
            program = catalogue.create_for(program, train)
    chosen = make_method(method, **options)
    reason = chosen.why_not(program)
    if reason is not None:
        able = ", ".join(methods_for(program)) or "none"
        raise CapabilityError(
            f"Method {chosen.name!r} cannot fit {type(program).__name__}: {reason}. Methods that can: {able}."
        )
    program.check(*train)
    where = resolve_device(device)
    program.to(where)
    train = train.to(where)
    valid = None if valid is None else valid.to(where)
    folder = None if out is None else Path(out)
    started = time.perf_counter()
    with seeded(seed, where):
        if initialise:
            with torch.no_grad():
                program.initialise(*train)
        outcome = chosen.run(program, Run(train, valid, seed, progress, folder))
    program.eval()
    prototype = None
    if isinstance(outcome.guide, nn.Module):
        local = any(not s.is_global for s in program.sites().values())
        prototype = train if local else train.rows(slice(0, 2))
    found = Fit(
        program, chosen.name, chosen.options(), name, seed, str(where), time.perf_counter() - started, outcome.history,
        outcome.gradient_evaluations, outcome.guide, outcome.guide_spec, outcome.samples, outcome.info,
        prototype=prototype, modules=outcome.modules,
    )  # fmt: skip
    if folder is not None:
        found.save(folder)
    return found
