"""The executor 'ray': each cell is a task of a Ray cluster, which says what it needs and runs where there is room.

Ray schedules, sends what a cell needs, and runs a cell again whose worker or machine was lost. Machines share no
folder: what a cell reads of the user's own files, and the program that several cells have in common, goes out through
Ray's object store, and draws and samples for pictures come back the same way. Only the driver writes.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.cells import posterior
from benchmarks.freshness import bases, basis
from benchmarks.measuring import ARTIFACTS, failure, run_cell
from benchmarks.results import Record
from benchmarks.status import News, Start
from benchmarks.suite import Cell
from zoo import datasets
from zoo.datasets.files import is_path
from zoo.errors import OptionError
from zoo.process import guest

__all__ = ["RETRIES", "executor", "needs"]

RETRIES = 3
"""Times that a cell is run again whose worker died."""
AT_ONCE = 100
"""Cells that are handed out before the driver looks again whether there are results."""

COLOUR = re.compile(r"\x1b\[\d*m")
"""What Ray paints its errors with."""

Files = dict[str, bytes]
"""Content by path, relative to some folder."""


def executor(jobs: int | None, device: str, gpus: float | None) -> Callable[[list[Cell], Path], Iterator[News]]:
    """What runs cells on the cluster that RAY_ADDRESS names, or where Ray was started already; else on this machine.

    Args:
        jobs: Tasks under way at most; None leaves it to Ray.
        device: 'cpu' or 'cuda', or 'auto': 'cuda' where the cluster has GPUs.
        gpus: What a cell on 'cuda' takes of a GPU; None is one.

    Raises: OptionError for another device, or GPUs that no cell can have; where Ray is missing; and as cells are run
        where the cluster cannot be reached or has no GPU.
    """
    needs(device, gpus)
    ray = _ray()

    def run(cells: list[Cell], folder: Path) -> Iterator[News]:
        ours = not ray.is_initialized()
        if ours:
            _connect(ray)
        try:
            has = ray.cluster_resources().get("GPU", 0.0)
            where = device if device != "auto" else "cuda" if has else "cpu"
            asks = needs(where, gpus)
            if asks["num_gpus"] > has:
                raise OptionError(
                    f"A cell takes {asks['num_gpus']:g} GPU and the cluster has {has:g}: start a machine of it by "
                    "`ray start --num-gpus N`, or choose device 'cpu'."
                )
            driver = _Run(ray, where, asks, folder=folder)
            try:
                yield from driver.news(cells, jobs)
            finally:
                ray.kill(driver.board)  # who still listens would keep it
        finally:
            if ours:
                ray.shutdown()

    return run


def needs(device: str, gpus: float | None) -> dict[str, float]:
    """What a cell asks of the cluster, in Ray's words.

    Raises: OptionError.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise OptionError(f"Of a cluster, device must be 'auto', 'cpu' or 'cuda' (Ray says which GPU), got {device!r}.")
    if gpus is not None and (device == "cpu" or not (0 < gpus <= 1 or (gpus > 1 and gpus == int(gpus)))):
        raise OptionError(
            f"gpus must be a part of one (0.25: four cells share a GPU) or a whole number, and device 'cuda'; got "
            f"{gpus} and {device!r}."
        )
    return {"num_cpus": 1, "num_gpus": 0 if device == "cpu" else 1 if gpus is None else gpus}


def _ray() -> Any:
    try:
        return guest("ray")
    except ImportError as error:
        raise OptionError(
            f"The executor 'ray' needs Ray ({error}): pip install 'pyro-model-zoo[cluster]', or choose 'local'."
        ) from error


def _connect(ray: Any) -> None:
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        address = os.environ.get("RAY_ADDRESS")
        raise OptionError(
            f"Ray cannot be reached at RAY_ADDRESS={address} ({error}): start it by `ray start --head`, or unset "
            "RAY_ADDRESS and cells run on this machine."
            if address
            else f"Ray cannot be started here ({error}); choose executor 'local'."
        ) from error


class _Run:
    """The driver's side: hands out cells and takes back what they found."""

    def __init__(self, ray: Any, device: str, asks: Mapping[str, float], folder: Path):
        self.ray, self.device, self.artifacts = ray, device, folder / ARTIFACTS
        self.work = ray.remote(max_retries=RETRIES, **asks)(_work)
        self.prepare = ray.remote(max_retries=RETRIES, num_cpus=1)(_prepare)
        self.board = _board(ray)
        self.cells: dict[Any, Cell] = {}
        self.shared: dict[Path, Any] = {}
        """By its place, the reference of what cells have in common."""
        self.making: dict[Any, Path] = {}
        """Those of `shared` that are still being made."""

    def news(self, cells: list[Cell], jobs: int | None) -> Iterator[News]:
        """Until all cells are done; each wake-up hands over all that is there."""
        files, expected = self.ray.put(_own(cells)), bases(cells)
        waiting, listening = deque(cells), [self.board.take.remote()]
        while waiting or self.cells:
            for _ in range(AT_ONCE):
                if waiting and self.has_room(jobs):
                    self.submit(waiting, expected, files)
            refs = [*self.cells, *self.making, *listening]
            if not (waiting and self.has_room(jobs)):
                self.ray.wait(refs)
            ready, _ = self.ray.wait(refs, num_returns=len(refs), timeout=0)
            started: list[Start] = []
            for ref in listening:
                if ref in ready:
                    listening, started = self.listen(ref)
            for ref in ready:
                if ref in self.making:
                    self.keep(self.making.pop(ref), ref)
            if ready:
                yield News(started, [self.found(self.cells.pop(ref), ref) for ref in ready if ref in self.cells])

    def has_room(self, jobs: int | None) -> bool:
        """Whether another task may be under way."""
        return jobs is None or len(self.cells) + len(self.making) < jobs

    def submit(self, waiting: deque[Cell], expected: Mapping[str, Mapping[str, str]], files: Any) -> None:
        """Hands out the next cell, or what has to be made before it; Ray waits with the cell until that is there."""
        cell = waiting[0]
        place = posterior.shared(cell, self.artifacts) if cell.kind == "posterior" else None
        if place is not None and place not in self.shared:
            if place.is_dir():
                self.shared[place] = self.ray.put(_pack(self.artifacts, place))
            else:
                self.shared[place] = ref = self.prepare.remote(cell)
                self.making[ref] = place
                return
        waiting.popleft()
        common = {} if place is None else self.shared[place]
        ref = self.work.remote(cell, self.device, expected[cell.key], files, common, board=self.board)
        self.cells[ref] = cell

    def listen(self, ref: Any) -> tuple[list[Any], list[Start]]:
        """What the board has, and how to go on listening; a board that was lost is not missed."""
        try:
            found = [Start(*each) for each in self.ray.get(ref)]
        except self.ray.exceptions.RayError:
            return [], []
        return [self.board.take.remote()], found

    def keep(self, place: Path, ref: Any) -> None:
        """Writes what cells have in common, whole or not at all; where it could not be made, each cell will say why."""
        try:
            files = self.ray.get(ref)
        except self.ray.exceptions.RayError:
            return
        if files:
            made = place.with_name(f"{place.name}.part")
            _unpack({Path(name).name: content for name, content in files.items()}, made)
            os.replace(made, place)

    def found(self, cell: Cell, ref: Any) -> list[Record]:
        """The records of a cell, its artifacts written; of one that Ray gave up, why."""
        try:
            records, files = self.ray.get(ref)
        except self.ray.exceptions.RayError as error:
            said = " ".join(COLOUR.sub("", str(error)).split())[:500]
            return [failure(cell, self.device, f"{type(error).__name__}: {said}")]
        _unpack(files, self.artifacts)
        return list(records)


def _board(ray: Any) -> Any:
    """Where tasks say that they start; whoever takes waits until there is something."""
    import asyncio

    class Board:  # Ray sends it by value, being local: its process imports nothing of ours
        def __init__(self) -> None:
            self.notes: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()

        async def note(self, *start: Any) -> None:
            await self.notes.put(start)

        async def take(self) -> list[tuple[Any, ...]]:
            found = [await self.notes.get()]
            while not self.notes.empty():
                found.append(self.notes.get_nowait())
            return found

    return ray.remote(num_cpus=0)(Board).remote()


# On the machines of the cluster.


def _work(
    cell: Cell, device: str, expected: dict[str, str], files: Files, common: Files, board: Any
) -> tuple[list[Record], Files]:
    """Runs a cell in a folder of its own, with the user's files where they lie for the driver; records, artifacts."""
    board.note.remote(cell.key, platform.node(), os.getpid(), time.time())
    torch.set_num_threads(1)
    with TemporaryDirectory(prefix="zoo-bench-") as own, TemporaryDirectory(prefix="zoo-bench-") as out, chdir(own):
        _unpack(files, Path(own))
        artifacts = Path(out) / ARTIFACTS
        artifacts.mkdir()
        _unpack(common, artifacts)
        if basis(cell) != expected:
            reason = (
                f"OptionError: {platform.node()} has other code of this program or method, or other data, than the "
                "machine that runs `zoo bench`: install the same version there, and the same data."
            )
            return [failure(cell, device, reason)], {}
        records = run_cell(cell, Path(out), device)
        return records, {path: content for path, content in _pack(artifacts, artifacts).items() if path not in common}


def _prepare(cell: Cell) -> Files:
    """What a cell has in common with others; nothing where it cannot be made: the cells then fail of the same."""
    torch.set_num_threads(1)
    with TemporaryDirectory(prefix="zoo-bench-") as here:
        place = posterior.shared(cell, Path(here))
        assert place is not None
        try:
            posterior.prepare(cell, Path(here))
        except Exception:
            return {}
        return _pack(Path(here), place)


def _own(cells: list[Cell]) -> Files:
    """Programs, data and truths from files below this folder; what lies elsewhere must lie there on every machine."""
    named = {place for cell in cells if (place := cell.program.name.rpartition(":")[0]).endswith(".py")}
    named |= {datasets.base_name(cell.dataset) for cell in cells if is_path(cell.dataset)}
    truths = [truth for cell in cells if isinstance(truth := cell.evaluation.get("truth"), Mapping)]
    named |= {str(truth["draws"]) for truth in truths if "draws" in truth}
    found: Files = {}
    for path in map(Path, sorted(named)):
        if not path.is_absolute() and ".." not in path.parts and path.exists():
            found |= _pack(Path(), path)
    return found


def _pack(root: Path, path: Path) -> Files:
    """A file, or all in a folder but locks."""
    every = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {str(p.relative_to(root)): p.read_bytes() for p in every if p.is_file() and not p.name.endswith(".lock")}


def _unpack(files: Files, folder: Path) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
