"""Makes every picture of the docs again: `python docs/figures.py [posterior | main | speed | speed:WORKLOADS | SUITE]`.

`posterior` draws docs/img/posterior.png and gaps.png, a VAE's true posterior beside each guide. `main` records the main
job, as docs/results/main-cpu.md and its pictures; it runs the job first, unless runs/main holds it. These two take
minutes and are what is made by default. Any other suite, or part of one (`PARTS`), is recorded in the same way when it
is asked for: speed, published, anomalies and density take an hour or more. `speed:mixture,vae-128` measures these
again; all others stay as docs/results/speed-cpu.json has them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from gallery_pictures import save_small  # beside this file
from PIL import Image

from benchmarks.results import FILE
from benchmarks.speed.suite import WORKLOADS
from inference import Fit, fit
from inference.evaluation.gaps import Gap, posterior_gap
from inference.evaluation.two_samples import c2st
from inference.guides.grid import Grid, GridGuide
from inference.particles import draw
from zoo import Program, catalogue, datasets

DOCS = Path(__file__).parent
EXAMPLES, SHOWN, DRAWS = 20, 3, 1000
GUIDES = {"diagonal": "diagonal Gaussian", "full": "full Gaussian", "iaf": "flow (IAF)", "avb": "implicit (AVB)"}
PARTS = {"growth-and-sound": ("adversarial", ("*/glyphs", "spoken"))}
"""Parts of suites that have a record of their own: suite, and which of its cells."""
WORTH = {
    "eight-schools": "",
    "mixture": "",
    "hmm-chorales": "recursions",
    "vae-conv": "images",
    "gated-pixelcnn": "images",
}
"""Workloads of the ablation, and which of its ways; empty for all."""
COLOURS = 96
"""Of a picture of a record."""
ROWS = 2**20
"""Bytes of rows up to which they are kept beside a page."""
BLUE, RED, GREY = "#3b6fb6", "#d1495b", "#9aa5b3"


def posterior() -> None:
    """The two pictures of docs/study-a-posterior.md, of the VAE with two latents on the first test digits."""
    digits = datasets.load("digits-binary")
    preset = catalogue.get("vae").presets["plane"]
    torch.manual_seed(0)  # a fit follows its own seed; programs and draws follow torch's
    program = fit(catalogue.create("vae", **preset.program), digits, preset.method, **preset.fit).program
    data = digits.test.rows(slice(0, EXAMPLES))
    exact = GridGuide(program)
    grid = exact.grid(*data)
    truth = draw(exact, DRAWS, *data, density=False).values["z"]
    fits: dict[str, Fit] = {}
    gaps: dict[str, Gap] = {}
    for family in ("diagonal", "full", "iaf"):
        fits[family] = found = fit(
            with_guide(program, family), digits, preset.method, train_program=False, **preset.fit
        )
        best = "full" if family == "iaf" else None  # q* of a flow cannot be searched for; a full Gaussian stands in
        gaps[family] = posterior_gap(found.program, found.guide, data, grid.log_evidence, family=best)
    # The method's own options, whatever comes of them: see "When AVB goes wrong" in docs/choose.md.
    fits["avb"] = fit(with_guide(program, "diagonal"), digits, "avb", train_program=False, steps=4000, batch_size=64)
    draws = {family: found.draw(DRAWS, *data)["z"] for family, found in fits.items()}
    draw_posteriors(data.x, grid, truth, draws)
    draw_gaps(gaps)


def with_guide(program: Program, family: str) -> Program:
    """The same decoder with another guide."""
    options = {**dict(program._hub_mixin_config or {}), "guide": family}
    new = catalogue.create("vae", **options)
    new.decoder.load_state_dict(program.decoder.state_dict())
    new.bias.data.copy_(program.bias)
    return new


def draw_posteriors(x: torch.Tensor, grid: Grid, truth: torch.Tensor, draws: dict[str, torch.Tensor]) -> None:
    """A row for each digit: the digit, then the exact density (blue) under the draws of each guide (red)."""
    figure, axes = plt.subplots(SHOWN, 1 + len(draws), figsize=(11, 6.4), layout="constrained")
    side = round(len(grid.points) ** 0.5)
    for unit in range(SHOWN):
        axes[unit, 0].imshow(x[unit], cmap="Greys")
        axes[unit, 0].axis("off")
        first, second = (grid.points[:, unit, i].reshape(side, side) for i in range(2))
        density = grid.log_mass[:, unit].exp().reshape(side, side)
        # The frame is that of the truth, so that a guide which runs away leaves the others legible.
        low, high = truth[:, unit].amin(0), truth[:, unit].amax(0)
        pad = 0.25 * (high - low)
        low, high = low - pad, high + pad
        for column, (family, values) in enumerate(draws.items(), 1):
            panel = axes[unit, column]
            levels = density.max() * torch.tensor([0.02, 0.1, 0.3, 0.6, 0.9])
            panel.contourf(first, second, density, [*levels.tolist(), float(density.max()) * 1.01], cmap="Blues")
            panel.contour(first, second, density, levels.tolist(), colors=BLUE, linewidths=0.8)
            panel.scatter(*values[:400, unit].T, s=5, color=RED, alpha=0.6, linewidths=0)
            panel.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
            outside = ((values[:, unit] < low) | (values[:, unit] > high)).any(-1).double().mean()
            if outside > 0.005:
                panel.text(0.03, 0.03, f"{outside:.0%} outside", transform=panel.transAxes, color=RED, fontsize=9)
            panel.set(xticks=[], yticks=[])
            if unit == 0:
                tests = [c2st(values[:, u], truth[:, u], max_draws=DRAWS).accuracy for u in range(SHOWN)]
                panel.set_title(f"{GUIDES[family]}\nC2ST {sum(tests) / SHOWN:.2f}", fontsize=11)
    axes[0, 0].set_title("x", fontsize=11)
    figure.savefig(DOCS / "img" / "posterior.png", dpi=110)
    plt.close(figure)


def draw_gaps(gaps: dict[str, Gap]) -> None:
    """A bar for each guide, log p(x) - ELBO in its parts."""
    figure, panel = plt.subplots(figsize=(7.5, 2.4), layout="constrained")
    for row, gap in enumerate(gaps.values()):
        parts = {name: value for name, (value, _) in gap.summary().items()}
        left = 0.0
        for name, colour in (("approximation", BLUE), ("amortisation", RED)):
            width = parts[name]
            panel.barh(row, width, left=left, color=colour, height=0.6, label=name if row == 0 else None)
            panel.text(left + width / 2, row, f"{width:.2f}", ha="center", va="center", color="white", fontsize=9)
            left += width
    panel.set_yticks(range(len(gaps)), [GUIDES[family] for family in gaps])
    panel.invert_yaxis()
    panel.set_xlabel(f"log p(x) - ELBO, nats, mean of {EXAMPLES} test digits")
    panel.legend(frameon=False, loc="lower right")
    panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(DOCS / "img" / "gaps.png", dpi=110)
    plt.close(figure)


def record(name: str) -> None:
    """Runs what is missing of a suite in runs/NAME, then copies its tables and pictures into the docs."""
    name, _, only = name.partition(":")
    from benchmarks.report import document, page
    from benchmarks.run import run_suite
    from benchmarks.speed import report as speed
    from benchmarks.speed.run import run_speed
    from benchmarks.suites import get_suite

    folder = Path("runs") / name
    if name == "speed":
        if only:
            taken_from_the_page(folder, but=only.split(","))
        run_speed(folder, only or None, threads=1, progress=sys.stderr.isatty())
        document.write(speed.build(folder), folder)
    else:
        suite, select = PARTS.get(name, (name, ()))
        if not folder.exists() and (rows := DOCS / "results" / f"{name}-cpu.jsonl").exists():
            folder.mkdir(parents=True)
            shutil.copy(rows, folder / FILE)  # what was measured with today's code is not measured again
        run_suite(get_suite(suite), folder, select=select, progress=sys.stderr.isatty())
        document.write(page.build(folder), folder)
    publish(folder, name)


def publish(folder: Path, name: str) -> None:
    """Copies the tables and pictures of a report into the docs."""
    results, plots = DOCS / "results", f"{name}-plots"
    text = (folder / "report.md").read_text().replace("](plots/", f"]({plots}/")
    page = results / f"{name}-cpu.md"
    if page.exists():
        text = with_pictures_of(page.read_text(), text)
    shutil.copytree(folder / "plots", results / plots, dirs_exist_ok=True)
    for picture in (results / plots).iterdir():
        if f"]({plots}/{picture.name})" not in text:
            picture.unlink()
        else:
            with Image.open(picture) as image:
                save_small(image.convert("RGB"), picture, COLOURS)
    page.write_text(text + (ablation(folder) if name == "speed" else ""))
    if name == "speed":
        records = {path.name: json.loads(path.read_text()) for path in sorted((folder / "speed").glob("*.json"))}
        page.with_suffix(".json").write_text(json.dumps(records, indent=0) + "\n")
    rows = folder / FILE
    if name != "main" and rows.exists() and rows.stat().st_size < ROWS:  # the main job is measured again in minutes
        shutil.copy(rows, page.with_suffix(".jsonl"))
    else:
        page.with_suffix(".jsonl").unlink(missing_ok=True)


def taken_from_the_page(folder: Path, but: list[str]) -> None:
    """The records behind the page on speed into a folder of results, and there none of some workloads."""
    (folder / "speed").mkdir(parents=True, exist_ok=True)
    for name in but:
        (folder / "speed" / f"{name}-cpu.json").unlink(missing_ok=True)
    page = DOCS / "results" / "speed-cpu.md"
    for file, record in json.loads(page.with_suffix(".json").read_text()).items():
        if record["workload"] not in but and not (folder / "speed" / file).exists():
            (folder / "speed" / file).write_text(json.dumps(record, indent=1))
    worth = page.read_text().partition("## What each piece is worth")
    (folder / "ablation.md").write_text("".join(("\n", *worth[1:])))


def with_pictures_of(before: str, text: str) -> str:
    """A page whose sections without pictures have those of the page before, of fits that were not run again."""
    drawn = {part.split("\n")[0]: re.findall(r"^!\[.*$", part, re.MULTILINE) for part in before.split("\n## ")[1:]}
    head, *parts = text.split("\n## ")
    for i, part in enumerate(parts):
        old = drawn.get(part.split("\n")[0], [])
        if old and "\n![" not in part:
            above, fold, below = part.partition("<details")
            parts[i] = above + "".join(line + "\n\n" for line in old) + fold + below
    return "\n## ".join([head, *parts])


def ablation(folder: Path) -> str:
    """The section on what each piece of the compiled step is worth; measured unless the folder holds it."""
    kept = folder / "ablation.md"
    if not kept.exists():
        lines = ["", "## What each piece is worth", "", "One thread; `python -m benchmarks.scripts.ablation`.", ""]
        for workload, ways in WORTH.items():
            lines += worth(workload, ways)
        kept.write_text("\n".join(lines))
    return kept.read_text()


def worth(workload: str, ways: str) -> list[str]:
    """The lines of the ablation of one workload, of all ways unless some are chosen."""
    chosen = ["--workload", workload, *(("--ways", ways) if ways else ())]
    command = [sys.executable, "-m", "benchmarks.scripts.ablation", *chosen]
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = [line for line in table.splitlines() if line.startswith("|")]
    return [f"### {WORKLOADS[workload].title}", "", f"`{' '.join(chosen)}`", "", *rows, ""]


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["posterior", "main"]
    torch.set_num_threads(1)
    for name in chosen:
        posterior() if name == "posterior" else record(name)
