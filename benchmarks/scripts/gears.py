"""What a training step of a preset takes in each gear, on this machine: `python -m benchmarks.scripts.gears`.

    python -m benchmarks.scripts.gears --device cuda --rows gears.json > docs/results/gears-cuda.md

Each preset is prepared as a fit would, in float32, and takes steps for some seconds, the gears in turns; ready is what
the second step took, which traces or compiles. Rows that the file holds already are not measured again.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.machine import hardware, in_words
from benchmarks.scripts.kept import Row, measured
from inference.environment import resolve_device, versions
from inference.fit import make_method
from inference.method import Run
from inference.training.compiled import CompileNotice
from inference.training.gradient import GradientMethod
from inference.training.loop import Loop
from zoo import catalogue, datasets

__all__ = ["GEARS", "PRESETS", "main", "measure", "page"]

GEARS = ("never", "traced", "always")
"""Values of the option `compile`."""
TURNS = 7
"""Of each gear."""
PRESETS: tuple[tuple[str, str, str | None], ...] = (
    ("vae", "small", "mnist10k-binary"), ("nade", "small", "mnist10k-binary"), ("made", "small", "mnist10k-binary"),
    ("gated-pixelcnn", "small", "mnist10k-binary"), ("wavenet", "small", None), ("dcgan", "small", "mnist10k"),
    ("dcgan", "paper", "mnist10k"), ("wgan-gp", "small", "mnist10k"), ("pix2pix", "small", None),
    ("cyclegan", "small", None), ("stargan", "small", None), ("puzzle-gan", "small", None),
    ("text2image", "small", None), ("tag-gan", "small", None), ("wavegan", "small", None),
)  # fmt: skip
"""(program, preset, data set or None for the preset's own)."""


def measure(
    name: str, preset: str, data: str | None, gears: Sequence[str], device: torch.device, seconds: float
) -> Row:
    """Gear -> milliseconds a step, seconds until it was ready, and why it went on eagerly if so.

    Gears take turns, so that a machine that is slow for a while is slow for all; medians over the turns.

    Raises: ZooError, when the data are not on this machine.
    """
    chosen = catalogue.get(name).preset(preset)
    loaded = datasets.load(data or chosen.data or catalogue.get(name).dataset)
    options = {key: value for key, value in chosen.fit.items() if key not in ("epochs", "patience", "report_every")}
    loops: list[Loop] = []
    found: Row = {}
    for gear in gears:
        program = catalogue.create_for(name, loaded.train, preset).to(device, torch.float32)
        train = program.take(loaded.train).to(device, torch.float32)
        method = make_method(chosen.method, **{**options, "steps": 10**6, "compile": gear})
        assert isinstance(method, GradientMethod)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loops.append(method.prepare(program, Run(train)).loop)
            _timed(loops[-1], 1)
            ready = _timed(loops[-1], 1)
        refused = [str(each.message) for each in caught if issubclass(each.category, CompileNotice)]
        found[gear] = {"ready": ready, "refused": "".join(refused[:1])}
    steps = [max(1, int(seconds / TURNS / max(_timed(loop, 2) / 2, 1e-6))) for loop in loops]
    turns = [[_timed(loop, n) / n for loop, n in zip(loops, steps, strict=True)] for _ in range(TURNS)]
    for gear, times in zip(gears, zip(*turns, strict=True), strict=True):
        found[gear]["ms"] = 1e3 * statistics.median(times)
    return found


def _timed(loop: Loop, steps: int) -> float:
    """Seconds that steps take, the device's included."""
    started = time.perf_counter()
    float(sum(value.sum() for value in loop.advance(steps).values()))  # waits for the device
    return time.perf_counter() - started


def page(found: Mapping[str, Row], machine: str) -> str:
    """The table as Markdown."""
    lines = [
        "# A training step in each gear", "",
        f"`python -m benchmarks.scripts.gears` on {machine}.", "",
        "Milliseconds a step; in brackets the seconds until the first. [What the gears are](../speed.md#when).", "",
        "| program | preset | eager | traced | compiled |", "|---|---|---:|---:|---:|",
    ]  # fmt: skip
    notes: list[str] = []
    for key, gears in found.items():
        name, preset = key.split()
        if "refused" in gears:
            lines.append(f"| {name} | {preset} |{' refused |' * len(GEARS)}")
            notes.append(f"{name}, {preset}: {gears['refused']}")
            continue
        cells = []
        for gear in GEARS:
            row = gears.get(gear)
            if row is None:
                cells.append("")
            elif row["refused"]:
                cells.append("refused")
                notes.append(f"{name}, {preset}: {row['refused']}")
            else:
                cells.append(f"{row['ms']:.3g} ({row['ready']:.1f})" if gear != "never" else f"{row['ms']:.3g}")
        lines.append(f"| {name} | {preset} | {' | '.join(cells)} |")
    return "\n".join([*lines, *([""] if notes else []), *(f"- {note}" for note in notes), ""])


def main(arguments: list[str] | None = None) -> None:
    """Prints the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cpu", help="'cpu', 'cuda' or 'auto'")
    parser.add_argument("--seconds", type=float, default=2.0, help="of steps, for each row")
    parser.add_argument("--rows", type=Path, help="a JSON file that keeps rows, of which known ones are not measured")
    parser.add_argument("--only", help="programs, separated by commas")
    parser.add_argument(
        "--gears", help="some of never,traced,always: the last compiles for minutes", default="never,traced"
    )
    given = parser.parse_args(arguments)
    device = resolve_device(given.device)
    torch.set_default_dtype(torch.float32)
    wanted = [each for each in PRESETS if not given.only or each[0] in given.only.split(",")]
    # At the size of papers a step takes a processor many seconds.
    chosen = [each for each in wanted if device.type != "cpu" or each[1] == "small"]
    gears = [gear for gear in GEARS if gear in given.gears.split(",")]
    cases = {
        f"{name} {preset}": partial(measure, name, preset, data, gears, device, given.seconds)
        for name, preset, data in chosen
    }
    here = f"{in_words(hardware(str(device)))}, torch {versions()['torch']}"
    machine, found = measured(cases, given.rows, here, "gears")
    print(page(found, machine), end="")


if __name__ == "__main__":
    main()
