"""`Fit`: a fitted program and what came with it; it draws from its posterior, saves and loads itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from inference.environment import resolve_device, seeded, versions
from inference.guides.named import build_guide
from inference.history import History
from inference.particles import draw
from zoo import catalogue
from zoo.datasets import Data
from zoo.errors import CapabilityError, CheckpointError
from zoo.program import Program

__all__ = ["Fit"]


FIT_VERSION = 1


@dataclass(kw_only=True)
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
    prototype: Data | None = None
    """The rows on which an autoguide is set up again when loaded."""
    modules: dict[str, nn.Module] = field(default_factory=dict)
    """Networks of the method's own (the critic of a game); for inspection, not saved."""

    def parameter_count(self) -> int:
        """How many free numbers the fit has: of the program, and of a guide that is not the program's own."""
        owned = {id(p) for p in self.program.parameters()}
        guide = self.guide.parameters() if isinstance(self.guide, nn.Module) else ()
        return self.program.parameter_count() + sum(p.numel() for p in guide if id(p) not in owned)

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
            program=program, history=History(record["history"]), guide=guide, guide_spec=spec, samples=samples,
            prototype=prototype, **{k: record[k] for k in keep},
        )  # fmt: skip
