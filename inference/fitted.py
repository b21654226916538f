"""`Fit`: a fitted program and what came with it; it draws from its posterior, saves and loads itself."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inference.checkpoint import CHECKPOINT
from inference.encoding import NO_GUIDE, encode, refuse_codes
from inference.environment import resolve_device, seeded, versions
from inference.guides.named import build_guide
from inference.history import History
from inference.hub import push
from inference.posterior import Posterior
from inference.prediction import predicted
from zoo import catalogue, datasets, folders
from zoo.adopted import Adopted
from zoo.arguments import Arguments
from zoo.datasets import Data
from zoo.errors import CheckpointError, OptionError
from zoo.hub import local
from zoo.notebook import facts
from zoo.options import Count, Seed, check_value
from zoo.process import one_at_a_time
from zoo.program import Encodes, ExactPosterior, Program

__all__ = ["Fit", "why_not_saved"]

FIT_VERSION = 3
PLAIN = (int, float, str, bool, list, tuple, type(None))
RECORD, GUIDE, TRAIN, SAMPLES = "fit.json", "guide.safetensors", "train.safetensors", "samples.safetensors"
KINDS: dict[str, Any] = {
    "method": str,
    "options": dict,
    "seed": int,
    "device": str,
    "seconds": (int, float),
    "gradient_evaluations": int,
    "info": dict,
    "versions": dict,
    "history": list,
}
"""Fields of a fit that fit.json holds, and what they are there."""


@dataclass(kw_only=True, repr=False)
class Fit:
    """A fitted program and what came with it. Loads and saves itself; draws from its posterior."""

    program: Program
    method: str
    data: str
    seed: int
    options: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    seconds: float = 0.0
    history: History = field(default_factory=History)
    gradient_evaluations: int = 0
    guide: Callable[..., Any] | None = None
    guide_spec: dict[str, Any] | None = None
    samples: dict[str, Tensor] | None = None
    info: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=versions)
    train: Data | None = None
    """The training data: global latents are drawn given these, and an autoguide is set up on them again when loaded."""
    modules: dict[str, nn.Module] = field(default_factory=dict)
    """Networks of the method's own (the critic of a game); for inspection, not saved."""

    def __repr__(self) -> str:
        said = [type(self.program).__name__, self.method, f"data {_short(self.data)}", f"seed {self.seed}"]
        said += [f"{name} {self.history.last(name):.4g}" for name in self.history.metrics[:1]]
        return f"Fit({', '.join(said)}, {self.seconds:.1f} s)"

    def _repr_html_(self) -> str:
        guide = None if self.guide is None else (self.guide_spec or {}).get("name", (self.guide_spec or {}).get("kind"))
        options = ", ".join(f"{name}={value}" for name, value in self.options.items() if isinstance(value, PLAIN))
        said = {
            "data": self.data,
            "method": self.method,
            "options": options,
            "answer": f"samples of {', '.join(self.samples)}" if self.samples else guide and f"guide: {guide}",
            "parameters": f"{self.parameter_count():,}",
            "seed": self.seed,
            "cost": f"{self.gradient_evaluations:,} gradient evaluations, {self.seconds:.1f} s on {self.device}",
            "verdict": self.info.get("convergence", {}).get("verdict"),
            "warning": self.info.get("warning"),
        }
        return facts(f"Fit of {type(self.program).__name__}", said) + self.history._repr_html_()

    def parameter_count(self) -> int:
        """How many free numbers the fit has: of the program, and of a guide that is not the program's own."""
        owned = {id(p) for p in self.program.parameters()}
        guide = self.guide.parameters() if isinstance(self.guide, nn.Module) else ()
        return self.program.parameter_count() + sum(p.numel() for p in guide if id(p) not in owned)

    @property
    def posterior(self) -> Posterior:
        """Its guide or samples, and the training data that they are given."""
        return Posterior(program=self.program, guide=self.guide, samples=self.samples, train=self.train)

    @torch.no_grad()
    def draw(self, n: Count, x: Any = None, context: Any = None, seed: Seed | None = None) -> dict[str, Tensor]:
        """Posterior draws of every latent site given x: local (n, B, *event), global (n, *event).

        Samples of a Markov chain are resampled with replacement, and belong to the training data.

        Args:
            n: How many.
            x: Examples (B, *event_shape); None is the training data. A guide of global latents that looks at x draws
                them given *these* examples: to generate new ones given the training data see `predict`.
            context: That of x, or None.
            seed: None is that of the fit.

        Raises: CapabilityError when the program has no latents, or x is None and the fit has no training data;
            OptionError for n below 1 or a bad seed; what `Program.accept` raises for data that it cannot take.
        """
        check_value("n", n, Count)
        x, context = self.posterior.training() if x is None else self.program.take(x, context)
        with seeded(self.seed if seed is None else seed, x.device):
            values = self.posterior.draws(n, x, context)
        sites = self.program.sites()
        return {
            name: value[:, 0] if name in sites and sites[name].is_global else value for name, value in values.items()
        }

    @torch.no_grad()
    def predict(
        self,
        n: Count = 1000,
        x: Any = None,
        context: Any = None,
        *,
        size: Count | None = None,
        seed: Seed | None = None,
    ) -> dict[str, Tensor]:
        """Draws from the posterior predictive distribution, of every observed and every `pyro.deterministic` site.

        Global latents come from their posterior given the training data.

        Args:
            n: Number of draws of the latents.
            x: None generates *new* examples, whose local latents the model draws. Examples (N, *event_shape) are
                generated *again*: from their own local latents, drawn from the posterior given x.
            context: Of the examples, (N, ...); None is that of the training data, if they have one. For adopted code
                its arguments by name; an observed one can be left out where it has a default.
            size: How many new examples under each draw; None is as many as the context has, or the training data.
            seed: None is that of the fit.

        Returns: Site -> (n, N, *event), the examples of a draw under the same global latents; (n, *event) for a
            deterministic site outside of the plate of examples; (n, *plates, *event) for adopted code.

        Raises: CapabilityError when the fit has no posterior, no training data, or local latents of its training data
            alone and x are others; OptionError; what `Program.accept` raises.
        """
        check_value("n", n, Count)
        if size is not None:
            check_value("size", size, Count)
        if x is not None:
            x, context = self.program.take(x, context)
        else:
            given = None if self.train is None else self.train.context
            context = self.program.accept_context(given if context is None else context)
        size = _number(self, size, x if x is not None else context)
        with seeded(self.seed if seed is None else seed, self._device()):
            latents = self.posterior.globals(n) if x is None else self.posterior.given(n, x, context)
            return predicted(self.program, latents, n, size, context)

    def encode(self, x: Any = None, context: Any = None, seed: Seed | None = None) -> Tensor:
        """What stands for each example, in d numbers: (N, d). See `inference.encoding.encode`.

        Args:
            x: Examples; None is the training data.
            context: Of the examples.
            seed: Of means that have no closed form; None is that of the fit.

        Raises: CapabilityError for a program without codes, or a fit without a guide to read them by; what
            `Program.accept` raises.
        """
        if self.guide is None and not isinstance(self.program, Encodes | ExactPosterior):
            refuse_codes(self.program, NO_GUIDE)
        data = self.posterior.training() if x is None else Data(x, context)
        return encode(self.program, *data, guide=self.guide, seed=self.seed if seed is None else seed)

    def _device(self) -> torch.device:
        tensors = (*self.program.state_dict().values(), *(self.samples or {}).values())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    def save(self, folder: str | Path) -> Path:
        """Writes a folder that `Fit.load` reads back, offline and bit for bit.

        config.json and model.safetensors (the program, in huggingface_hub's form), fit.json, and the guide's or
        sampler's tensors if it has any.

        A fit that was saved there before stays whole until this one is; then nothing of it is left, nor a checkpoint.

        Raises: CheckpointError for a guide given as code, which cannot be saved, for NaN, and for a folder that cannot
            be written, is in use or holds what no fit wrote.
        """
        folder = folders.as_path(folder)
        custom = self.guide_spec is not None and self.guide_spec["kind"] == "custom"
        why_not = why_not_saved(self.program, self.guide if custom else None)
        if why_not is not None:
            raise CheckpointError(f"This fit cannot be saved: {why_not}")
        files = {RECORD: folders.to_json(self._record(folder))}
        if isinstance(self.guide, nn.Module):
            files[GUIDE] = folders.pack(self.guide.state_dict(), "The guide")
        if self.train is not None and self._needs_training_data():
            files[TRAIN] = folders.pack(self.train.named(), "The training data")
        if self.samples is not None:
            files[SAMPLES] = folders.pack(self.samples, "The samples")
        with folders.held(folder):
            catalogue.save(self.program, folder, beside=files)
            folders.remove(folder / CHECKPOINT)
        return folder

    def push_to_hub(
        self,
        repository: str,
        *,
        licence: str | None = None,
        scores: Mapping[str, Any] | None = None,
        private: bool = False,
        token: str | None = None,
    ) -> str:
        """Uploads the fit to the Hugging Face hub, where `Fit.load(repository)` and `zoo.load(repository)` find it.

        What is saved goes there, training data too where draws are given them (docs/security.md), and a card that says
        what it is. A program from a file of your own takes its source along.

        Args:
            repository: 'user/name'; made if it is not there.
            licence: For the card, by the hub's name for it ('apache-2.0').
            scores: For the card: numbers, or estimates such as `log_likelihood` gives, by name.
            private: Whether a new repository is.
            token: None is that of `hf auth login`.

        Returns: The address of the commit.

        Raises: OptionError for another name; CheckpointError for what cannot be saved, or when the hub refuses.
        """
        return push(self, repository, licence=licence, scores=scores, private=private, token=token)

    def _needs_training_data(self) -> bool:
        """Whether what it draws depends on them, or its guide cannot be set up without."""
        tied = isinstance(self.program, Adopted) or any(site.is_global for site in self.program.sites().values())
        return tied or self.samples is not None or isinstance(self.guide, nn.Module)

    def _record(self, folder: Path) -> dict[str, Any]:
        """What fit.json says; what is not finite is null."""
        return {
            "version": FIT_VERSION,
            "data": _address(self.data, folder),
            "options": folders.finite({k: v for k, v in self.options.items() if isinstance(v, PLAIN)}),
            "guide": self.guide_spec,
            "history": folders.finite(self.history.rows),
            **{name: folders.finite(getattr(self, name)) for name in KINDS if name not in ("options", "history")},
        }

    @classmethod
    @one_at_a_time
    def load(
        cls,
        folder: str | Path,
        device: str = "cpu",
        *,
        program: type[Program] | Adopted | None = None,
        trust_code: bool = False,
    ) -> Fit:
        """Reads what `save` wrote, and runs no code to do so.

        Args:
            folder: The folder; or 'user/repository' of the Hugging Face hub, see `zoo.hub.local`.
            device: Where the tensors go.
            program: The class, where the catalogue has none (it is yours, from a script, a file or a notebook); of
                adopted code, what `zoo.adopt` gives.
            trust_code: True imports the module or file that the folder names, *which executes it*.

        Raises: CheckpointError when it is missing, damaged, of another version, or of a class that was not given.
        """
        saved, where = folders.read(local(folder)), resolve_device(device)
        if RECORD not in saved.files:
            raise CheckpointError(f"{folder} holds a program, and no fit of it (no {RECORD}); zoo.load reads it.")
        record = _checked(folders.from_json(saved.files[RECORD], saved.folder / RECORD), saved.folder)
        made = catalogue.restore(saved, program, trust_code).to(where)
        tensors = {
            name: folders.unpack(saved.files[name], str(saved.folder / name))
            for name in (GUIDE, TRAIN, SAMPLES)
            if name in saved.files
        }
        try:
            guide, spec, train = None, record["guide"], None
            if TRAIN in tensors:
                train = Data.from_named(tensors[TRAIN], isinstance(made, Adopted), getattr(made, "examples", None))
                train = train.to(where)
                if isinstance(made, Adopted):
                    made.declare(*train)  # its sites are those of its data
            if spec is not None:
                guide = build_guide(spec, made, train if train is not None else Data(torch.empty(0)))
                if isinstance(guide, nn.Module) and GUIDE in tensors:
                    guide.load_state_dict(tensors[GUIDE])
                    guide.eval()
        except Exception as error:  # whatever a guide has against its spec or its tensors
            raise CheckpointError(f"{folder} is not a whole fit ({type(error).__name__}: {error}).") from error
        rows = [{k: math.nan if v is None else v for k, v in row.items()} for row in record["history"]]
        return cls(
            program=made, history=History(rows), guide=guide, guide_spec=spec, samples=tensors.get(SAMPLES),
            train=train, data=_found(record["data"], saved.folder),
            **{name: record[name] for name in KINDS if name != "history"},
        )  # fmt: skip


def _number(found: Fit, size: int | None, given: Any) -> int:
    """How many examples to predict: as many as are given, as asked, or as there are training data.

    Raises: OptionError.
    """
    if given is None:
        if size is None and found.train is None:
            raise OptionError("size must say how many examples to predict: this fit has no training data to count.")
        return size if size is not None else found.posterior.training().size
    rows = max((len(value) for value in given.values()), default=1) if isinstance(given, Arguments) else len(given)
    if size not in (None, rows):
        raise OptionError(f"size is {size}, and there are {rows} examples or contexts; leave size out.")
    return rows


def why_not_saved(program: Program | str, guide: object) -> str | None:
    """The reason why a fit could not be saved, or None: to be asked before it is computed.

    Args:
        program: Its options must be JSON; a name when it is not built yet.
        guide: As given to the method.
    """
    if callable(guide):
        return (
            "its guide was given as code and cannot be saved by name. Save its state_dict yourself, or make it the "
            "program's own guide."
        )
    if isinstance(program, str):
        return None
    if isinstance(program, Adopted) and program.has_own_autoguide:
        return "its guide is an autoguide that was adopted: adopt the model alone, and name it (guide='normal')."
    try:
        folders.to_json(program.config())
    except CheckpointError as error:
        return f"the options of {type(program).__name__} are no JSON. {error}"
    return None


def _short(text: str, most: int = 60) -> str:
    """The end of a long name, which says more of a file than its beginning."""
    return text if len(text) <= most else f"...{text[3 - most :]}"


def _address(data: str, folder: Path) -> str | dict[str, str]:
    """The name of a data set; a file by its way from the folder, so that both can be moved together."""
    base = datasets.base_name(data)
    if base in datasets.names() or not os.path.exists(base):
        return data
    return {"file": os.path.relpath(base, os.path.realpath(folder)), "form": data[len(base) :]}


def _found(address: str | dict[str, str], folder: Path) -> str:
    if isinstance(address, str):
        return address
    return os.path.normpath(folder.resolve() / address["file"]) + address["form"]


def _is_row(row: object) -> bool:
    return (
        isinstance(row, dict)
        and {"step", "seconds"} <= set(row)
        and all(value is None or isinstance(value, (int, float)) for value in row.values())
    )


def _checked(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A record that has all that a fit needs, each of its kind.

    Raises: CheckpointError.
    """
    if record.get("version") != FIT_VERSION:
        raise CheckpointError(
            f"{folder} was written by version {record.get('version')} of the fit format; this reads {FIT_VERSION}."
        )
    kinds = {**KINDS, "data": (str, dict), "guide": (dict, type(None))}
    wrong = [name for name, kind in kinds.items() if name not in record or not isinstance(record[name], kind)]
    data = record.get("data")
    if isinstance(data, dict) and not all(isinstance(data.get(key), str) for key in ("file", "form")):
        wrong.append("data")
    if not wrong and not all(_is_row(row) for row in record["history"]):
        wrong.append("history")
    if wrong:
        raise CheckpointError(f"{folder} is not a whole fit: {RECORD} has no {', '.join(wrong)}, or of another kind.")
    return record
