"""Fits that two processes share and one takes alone, with the same noise in every row, so that they must agree."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from inference import Fit, fit
from inference.training.loop import Loop
from tests import processes

__all__ = ["JOBS", "alone", "interrupted", "launch", "numbers", "rows"]

VAE = {"latent_dim": 2, "hidden": (8,)}
JOBS: dict[str, tuple[str, dict[str, Any]]] = {
    # 10 rows of 40 on two processes, and 7 on two: shares of unequal size.
    "nade": ("nade", {"method": "svi", "hidden": 5, "batch_size": 10, "clip_norm": 0.5}),
    "uneven": ("nade", {"method": "svi", "hidden": 5, "batch_size": 7, "lr": 0.05}),
    # Adam would enlarge rounding: biases start where they are best for all rows, with slopes of 1e-17.
    "all rows": ("nade", {"method": "svi", "hidden": 5, "batch_size": 100, "optimizer": "sgd"}),
    "vae": ("vae", {"method": "svi", "batch_size": 10, "patience": 50, "validate_every": 3, **VAE}),
    "wake-sleep": ("vae", {"method": "wake-sleep", "batch_size": 10, "reweighted": True, "particles": 2, **VAE}),
    "gan": (
        "gan",
        {"method": "gan", "hidden": (8,), "critic_hidden": (6,), "latent_dim": 3, "dropout": 0.0, "batch_size": 8,
         "critic_steps": 2, "regulariser": "r1", "ema": 0.9},
    ),
}  # fmt: skip
"""Name -> program and options of a fit of 12 steps."""


def rows(n: int = 40) -> torch.Tensor:
    """n examples of 6 bits."""
    return torch.rand(n, 6, generator=torch.Generator().manual_seed(3)).round()


def job(name: str, **more: Any) -> Fit:
    """One of `JOBS`, eagerly."""
    from zoo.datasets import Dataset

    program, options = JOBS[name]
    data = Dataset.of(rows(), rows(12), rows(12))
    return fit(program, data, steps=12, compile="never", **options, **more)


def alone(name: str, **more: Any) -> Fit:
    """One of `JOBS`, with the same noise in every row."""
    with noise_by_row():
        return job(name, **more)


def numbers(found: Fit) -> dict[str, torch.Tensor]:
    """All that was learnt, and the losses."""
    parts = {"program": found.program, **found.modules}
    state = {f"{part}.{k}": v.clone() for part, module in parts.items() for k, v in module.state_dict().items()}
    return {**state, "losses": torch.tensor(found.history.series("loss")[1])}


@contextmanager
def noise_by_row() -> Iterator[None]:
    """Every row of normal noise is the same, whoever draws it and with how many others."""

    def row(shape: Any, dtype: Any, device: Any) -> torch.Tensor:
        return torch.linspace(-1.3, 1.1, shape[-1], dtype=dtype, device=device).expand(shape).clone()

    def sample(self: Any, shape: Any = torch.Size()) -> torch.Tensor:
        with torch.no_grad():
            return self.rsample(shape)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.distributions.normal._standard_normal", row)
        patch.setattr("torch.distributions.Normal.sample", sample)
        patch.setattr("torch.distributions.Bernoulli.sample", lambda self, shape=(): self.probs.expand(
            self._extended_shape(shape)).round())  # fmt: skip
        yield


class Interrupted(BaseException):
    """What ends an interrupted fit."""


@contextmanager
def interrupted(after: int) -> Iterator[None]:
    """The block's fit ends, with a checkpoint, once this many steps are done."""
    advance = Loop.advance

    def deadly(self: Loop, n: int) -> Any:
        if self.done >= after:
            raise Interrupted
        return advance(self, n)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "advance", deadly)
        with pytest.raises(Interrupted):
            yield


def launch(script: str, folder: Path, size: int = 2) -> list[processes.Done]:
    """Runs a script on several processes as `torchrun` would set them up; `folder` is `sys.argv[1]`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    places = [folder / f"printed{rank}" for rank in range(size)]
    begun = []
    for rank, place in enumerate(places):
        place.mkdir(parents=True, exist_ok=True)
        words = [str(folder), str(rank), str(size), port]
        begun.append(
            processes.start(f"from tests.inference import sharing\nsharing.join()\n{script}", words, None, place)
        )
    found = []
    for process, place in zip(begun, places, strict=True):
        process.join()
        found.append(processes.Done(process.exitcode, *((place / s).read_text() for s in ("stdout", "stderr"))))
    return found


def join() -> None:
    """What `torchrun` tells a process, and what tests set."""
    _, _, rank, size, port = sys.argv
    os.environ |= {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    torch.set_default_dtype(torch.float64)


def work(folder: Path, rank: int) -> None:
    """What `test_processes` looks at, one launch for all: each process leaves its numbers in the folder."""
    kept = {name: numbers(alone(name)) for name in JOBS}
    with noise_by_row():
        out = {"out": folder / "two", "checkpoint_seconds": 0.0}
        with interrupted(5):
            job("vae", **out)
        out["out"] = folder / "one"
        kept["resumed"] = numbers(job("vae", **out))
    # With noise of their own.
    kept["noisy"] = numbers(job("vae"))
    out["out"] = folder / "noisy"
    with interrupted(5):
        job("vae", **out)
    kept["noisy, resumed"] = numbers(job("vae", **out))
    torch.save(kept, folder / f"found{rank}.pt")
