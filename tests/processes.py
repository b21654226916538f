"""Python processes for tests that need one: the packages are imported once, which takes longer than most scripts.

They are forked from a server that holds the imports and nothing else, so that no test sees what another one did.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

__all__ = ["Done", "run", "start"]

_FORKS = get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "benchmarks.commands",
        "benchmarks.comparing",
        "benchmarks.run",
        "inference.methods.svi",
        "sklearn.datasets",
        "sklearn.neural_network",
        "torch._inductor.compile_fx",
    ]
)


@dataclass(frozen=True)
class Done:
    """How a process ended and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def start(
    script: str | Path, arguments: Sequence[str] = (), folder: Path | None = None, prints_to: Path | None = None
) -> BaseProcess:
    """A process that runs a script as `python SCRIPT ARGUMENTS` would, one thread each.

    Args:
        script: A file, or code.
        arguments: `sys.argv[1:]` of it.
        folder: Where it runs; None is where the tests do.
        prints_to: A folder for what it prints, in 'stdout' and 'stderr'.
    """
    setting = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    process = _FORKS.Process(target=_main, args=(script, list(arguments), folder, prints_to, setting, sys.path))
    process.start()
    return process


def run(script: str | Path, arguments: Sequence[str] = (), folder: Path | None = None, *, scratch: Path) -> Done:
    """Runs a script to its end, see `start`; `scratch` is a folder for what it prints."""
    scratch.mkdir(parents=True, exist_ok=True)
    process = start(script, arguments, folder, scratch)
    process.join()
    assert process.exitcode is not None
    return Done(process.exitcode, (scratch / "stdout").read_text(), (scratch / "stderr").read_text())


def _main(
    script: str | Path,
    arguments: list[str],
    folder: Path | None,
    prints_to: Path | None,
    setting: Mapping[str, str],
    path: list[str],
) -> None:
    os.environ.clear()
    os.environ.update(setting)
    sys.path[:] = path
    if folder is not None:
        os.chdir(folder)
    if prints_to is not None:
        for stream in (sys.stdout, sys.stderr):
            file = os.open(prints_to / stream.name.strip("<>"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, stream.fileno())
    import torch

    torch.set_num_threads(1)
    sys.argv[:] = [str(script), *arguments]
    sys.path.insert(0, str(script.parent) if isinstance(script, Path) else "")
    if isinstance(script, Path):
        runpy.run_path(str(script), run_name="__main__")
    else:
        exec(compile(script, "<code>", "exec"), {"__name__": "__main__"})
