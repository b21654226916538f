"""Runs the suite `speed`: each workload in a process of its own, then its memory, contender by contender.

What is timed and how: `benchmarks.speed.timing`. Who takes part: `benchmarks.speed.workloads`. Records are JSON files,
one a workload and device; those measured with the same setting are kept.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import platform
import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import cores, hardware
from benchmarks.speed.contender import Contender, Unavailable
from benchmarks.speed.resources import extra_memory, forget_peak, peak, resident
from benchmarks.speed.suite import DUELS, SWEEPS, WORKLOADS, Duel, Workload, chosen
from benchmarks.speed.timing import Report, Setting, empty_caches, measure, prepared, time_to_target, utilisation
from inference.environment import resolve_device, versions
from inference.training.loop import progress_bar
from zoo import folders
from zoo.errors import OptionError

__all__ = ["FOLDER", "run_speed"]

FOLDER = "speed"
"""Folder of the records, beside the report."""


# Fresh processes.


def run_workload(workload: Workload, setting: Setting, report: Report) -> dict[str, Any]:
    """One record; runs in a process of its own."""
    module = import_module(f"benchmarks.speed.workloads.{workload.module}")
    torch.compile(lambda x: x + 1)(torch.zeros(8))  # imports the compiler, which then does not count for its first user
    report("data")
    job = module.work(device=setting.device, seed=setting.seed, **workload.options)
    contenders: list[Contender] = [
        c for c in module.contenders(job) if not workload.contenders or c.name in workload.contenders
    ]
    record = measure(contenders, setting, report)
    record["work"] = {
        "examples": job.data.size, "batch": min(job.batch_size, job.data.size), "lr": job.lr, **job.facts,
    }  # fmt: skip
    record["how"] = {c.name: c.how for c in contenders}
    steps = int(workload.target_steps * setting.target)
    record["target"] = time_to_target(contenders, record["contenders"], steps, report) if steps else None
    if torch.device(setting.device).type == "cuda":
        ready = prepared([c for c in contenders if c.name in record["contenders"]], report)[0]
        utilisation(ready, record["contenders"], setting.device)
    return record


def run_memory(workload: Workload, setting: Setting, name: str, report: Report) -> dict[str, float]:
    """Peak memory (MiB) of one contender above what the process held with libraries and data loaded.

    Returns: 'memory_mib' over everything, compiling included, and 'running_memory_mib' over the steps after that.
    """
    module = import_module(f"benchmarks.speed.workloads.{workload.module}")
    job = module.work(device=setting.device, seed=setting.seed, **workload.options)
    contender = next(c for c in module.contenders(job) if c.name == name)
    for library in contender.imports:
        import_module(library)
    before = resident()
    forget_peak()
    advance = contender.prepare()
    advance(2)
    found = {"memory_mib": max(0.0, peak() - before)}
    forget_peak()
    advance(4)
    found["running_memory_mib"] = max(0.0, peak() - before)
    if torch.device(setting.device).type == "cuda":
        found["gpu_memory_mib"] = torch.cuda.max_memory_allocated(setting.device) / 2**20
    return found


def run_duel(duel: Duel, setting: Setting, report: Report) -> dict[str, Any]:
    """Each problem by each side in turn, and the memory of each in a process of its own."""
    if torch.device(setting.device).type != "cpu":
        raise Unavailable("the other library runs on the CPU alone")
    module, rows = import_module(f"benchmarks.speed.workloads.{duel.module}"), []
    for label, options in duel.problems.items():
        report(label)
        problem = module.Problem(**{**options, "seed": setting.seed, **(duel.quick if not setting.memory else {})})
        found = module.compare(problem, 3, setting.threads)
        row: dict[str, Any] = {
            "label": label,
            "problem": asdict(problem),
            "seconds": dict(found.seconds),
            "ratio": {"median": found.ratio, "low": found.least_ratio, "high": found.largest_ratio},
            "difference": found.difference,
        }
        if setting.memory and duel.memory:
            threads = setting.threads
            row["memory_mib"] = {side: extra_memory(duel.module, problem, side, threads) for side in module.SIDES}
        rows.append(row)
    return {"rows": rows}


def _child(connection: Connection, task: str, cache: str, setting: Setting, arguments: tuple[Any, ...]) -> None:
    """The body of a fresh process: the same cores and threads for every library, then the task."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: setting.threads])  # what XLA sizes its pool by
    torch.set_num_threads(setting.threads)
    empty_caches(Path(tempfile.mkdtemp(dir=cache)) / "first")
    if torch.device(setting.device).type == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    warnings.simplefilter("ignore")  # they would tear the progress bar
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    try:
        result = TASKS[task](*arguments, lambda note: connection.send(("progress", note)))
        connection.send(("result", result))
    except Unavailable as error:
        connection.send(("unavailable", str(error)))
    except ModuleNotFoundError as error:
        connection.send(("unavailable", f"{error.name} is not installed: pip install 'pyro-model-zoo[peers]'"))
    except Exception:
        connection.send(("error", traceback.format_exc()))


TASKS: dict[str, Callable[..., Any]] = {"workload": run_workload, "memory": run_memory, "duel": run_duel}


def _fresh(task: str, cache: str, setting: Setting, arguments: tuple[Any, ...], report: Report) -> tuple[str, Any]:
    """Runs a task in a process that was started, not forked; ('result' | 'unavailable' | 'error', what came)."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(theirs, task, cache, setting, arguments))
    process.start()
    theirs.close()
    try:
        while True:
            kind, value = ours.recv()
            if kind != "progress":
                return kind, value
            report(value)
    except EOFError:
        process.join()
        return "error", f"the process ended with code {process.exitcode}"
    except BaseException:
        process.kill()
        raise
    finally:
        process.join()


# The run.


def run_speed(
    out: str | Path,
    only: str | None = None,
    quick: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Path:
    """Measures the workloads that `out` does not hold yet with the same setting; returns the folder.

    Args:
        out: Folder for speed/*.json and the report.
        only: Names of workloads, duels and sweeps, separated by commas; None is all.
        quick: Fewer and shorter rounds, no memory.
        device: 'cpu', 'cuda', ...
        threads: Of every contender; None is one a core.
        seed: Of data, weights, batches and noise.
        progress: Shows a bar on standard error.

    Raises: UnknownNameError, OptionError.
    """
    names = chosen(only)
    if threads is not None and not 1 <= threads <= cores():
        raise OptionError(f"threads must be from 1 to {cores()}, the cores of this machine, got {threads}.")
    where = str(resolve_device(device))
    make = Setting.quick if quick else Setting
    setting = make(threads=threads or cores(), seed=seed, device=where)
    folder = Path(out) / FOLDER
    with folders.held(out), progress_bar(progress) as bar, tempfile.TemporaryDirectory() as cache:
        folder.mkdir(exist_ok=True)
        task = bar.add_task("bench speed", total=len(names), note="")
        for name in names:

            def report(note: str, name: str = name) -> None:
                bar.update(task, note=f"{name}: {note}")

            path = folder / f"{name}-{torch.device(where).type}.json"
            if not _done(path, setting):
                if name in SWEEPS:
                    record = _sweep(name, setting, cache, report)
                elif name in DUELS:
                    record = _duel(DUELS[name], setting, cache, report)
                else:
                    record = _one(WORKLOADS[name], setting, cache, report)
                folders.write_bytes(path, json.dumps(_header(name, setting) | record, indent=1).encode())
            bar.update(task, advance=1)
    return Path(out)


def _done(path: Path, setting: Setting) -> bool:
    """Whether the record is there, measured with this setting and not for want of something."""
    if not os.path.lexists(path):
        return False
    record = folders.from_json(folders.read_bytes(path), path)
    return record.get("setting") == asdict(setting) and "skipped" not in record


def _header(name: str, setting: Setting) -> dict[str, Any]:
    """What makes a number worth reading later."""
    peers = {}
    for package in ("numpyro", "blackjax", "jax", "jaxlib", "pymc", "nutpie"):
        try:
            peers[package] = version(package)
        except PackageNotFoundError:
            peers[package] = "not installed"
    return {
        "workload": name,
        "device": setting.device,
        "setting": asdict(setting),
        "hardware": {**hardware(setting.device), "threads": setting.threads},
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": versions() | peers | {"python": platform.python_version()},
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _one(workload: Workload, setting: Setting, cache: str, report: Report) -> dict[str, Any]:
    kind, found = _fresh("workload", cache, setting, (workload, setting), report)
    if kind != "result":
        return {"kind": "workload", "title": workload.title, "skipped": found}
    if setting.memory:
        for name, row in found["contenders"].items():
            report(f"memory of {name}")
            kind, memory = _fresh("memory", cache, setting, (workload, setting, name), report)
            row.update(memory if kind == "result" else {})
    return {"kind": "workload", "title": workload.title, **found}


def _duel(duel: Duel, setting: Setting, cache: str, report: Report) -> dict[str, Any]:
    said = {"kind": "duel", "title": duel.title, "peer": duel.peer, "agreement": duel.agreement}
    rows, missing = [], []
    for label, options in duel.problems.items():  # each by itself: compilers keep what they make as long as they live
        one = replace(duel, problems={label: options})
        kind, found = _fresh("duel", cache, setting, (one, setting), functools.partial(_prefixed, report, f"{label}: "))
        if kind == "result":
            rows += found["rows"]
        else:
            missing.append(f"{label}: {str(found).strip().splitlines()[-1]}")
    return {**said, "rows": rows, "missing": missing} if rows else {**said, "skipped": "; ".join(missing)}


def _sweep(name: str, setting: Setting, cache: str, report: Report) -> dict[str, Any]:
    sweep = SWEEPS[name]
    short = Setting(**{**asdict(setting), "rounds": 3, "target": 0.0, "memory": False})
    points = []
    for value in sweep.values:
        note = f"{sweep.over} = {value}: "
        kind, found = _fresh(
            "workload", cache, short, (sweep.workload(value), short), functools.partial(_prefixed, report, note)
        )
        if kind == "result":
            times = {who: row["per_step"] for who, row in found["contenders"].items()}
            points.append({"value": value, "per_step": times, "absent": found["absent"]})
        else:
            points.append({"value": value, "per_step": {}, "skipped": found})
    return {"kind": "growth", "title": sweep.title, "over": sweep.over, "points": points}


def _prefixed(report: Report, prefix: str, note: str) -> None:
    report(prefix + note)
