"""Writes docs/models.md, the page of all programs, and benchmarks/index.json, what `zoo list` reads of them.

`python docs/models.py`; tests compare both with what the programs say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks import index
from benchmarks.cards import CAPABILITIES, program_list
from benchmarks.suites import SUITES, get_suite
from inference import make_method, methods_for
from zoo import ImplicitProgram, Program, Site, catalogue
from zoo.energy.base import EnergyProgram
from zoo.program import Preset

PAGE = Path(__file__).with_name("models.md")
RECORDS = PAGE.with_name("results")
PARTS = {"growth-and-sound": "adversarial"}
"""Record of a part of a suite -> that suite."""
CRITERIA = {
    "svi": "a bound on log p(x)",
    "em": "maximum likelihood, by steps in closed form",
    "cavi": "the evidence lower bound (ELBO), one factor after the other in closed form",
    "cd": "maximum likelihood, by examples beside draws of chains",
    "gan": "a game of generator and critic",
    "gan-cls": "a game in which the critic sees wrong captions too",
    "cycle": "a game in which each translation must lead back",
    "star": "a game in which the critic also reads attributes",
    "ali": "a game over pairs of example and latents",
    "aae": "reconstruction, and a game of codes with draws of the prior",
}
"""Method -> what it makes best."""
BOUNDS = {
    "exact": "maximum likelihood, log p(x) itself",
    "trace": "the evidence lower bound (ELBO), by draws",
    "mean_field": "the evidence lower bound (ELBO), its KL in closed form",
    "enum": "the evidence lower bound (ELBO), discrete latents summed out",
}
"""Bound of SVI -> the same."""
FAMILIES = {
    "chains": "Sites in order, each given none, one, some or all of those before it; and one chain that is hidden.",
    "sequential": "A hidden chain of real vectors for each sequence: linear and exact, or of networks.",
    "mixtures": "One discrete cause for each example.",
    "topics": "Documents as counts of words, each a mixture of topics that all documents share.",
    "latent": "Continuous latents for each example, and a matrix or a network from them to the data.",
    "bayes": "Small programs whose posteriors are known: global latents, or shapes that are hard to fit.",
    "implicit": "Samples without a density: the generators of adversarial games.",
    "energy": "A density up to a constant, which small ones sum and large ones anneal.",
    "autoregressive": "Every site given those before it, by one network: an exact density.",
    "flows": "An invertible network between data and noise: an exact density of real numbers.",
}
TOP = """# Programs

<!-- Written by `python docs/models.py`; edit the programs, not this page. -->

Each is one file with its guide. `zoo list` prints this list, `zoo show NAME` everything about one program: sites,
supports, options, presets and the number of parameters on your data. *Latents* have the shape of the default size;
*global* means one for the whole data set, otherwise each example has its own. *Promises* are exact, and methods rely on
them.

Below each table stand, for every program, the paper and its preset `small`: the *architecture* by its options, the
*criterion* that the fit makes best, where *figures* of it are, and the *command* that fits it. `zoo show NAME` has the
other presets.
"""


def page() -> str:
    """The page as text."""
    cards = {card["name"]: card for card in program_list()}
    parts = [TOP]
    for family in dict.fromkeys([*FAMILIES, *(cards[name]["family"] for name in catalogue.BUILTIN)]):
        members = [name for name in catalogue.BUILTIN if cards[name]["family"] == family]
        parts.append(f"\n## {family}\n\n{FAMILIES.get(family, '')}\n")
        parts.append("| program | what it is | latents | promises | methods | data |\n|---|---|---|---|---|---|")
        parts += [_row(name, cards[name]) for name in members]
        parts += ["", *(_entry(name, cards[name]) for name in members)]
    return "\n".join(parts) + "\n"


def _row(name: str, card: dict[str, Any]) -> str:
    # Built at its default size, so that the page needs no data.
    program = catalogue.create(name)
    promises = [what for protocol, what in CAPABILITIES.items() if isinstance(program, protocol)]
    if isinstance(program, ImplicitProgram):
        promises = ["density up to a constant" if isinstance(program, EnergyProgram) else "samples only"]
    cells = [
        f"`{name}`",
        card["what"].rstrip("."),
        "<br>".join(_latent(site) for site in program.sites().values()) or "none",
        "<br>".join(promises) or "-",
        ", ".join(f"`{method}`" for method in methods_for(program)),
        f"`{card['data']}`",
    ]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _entry(name: str, card: dict[str, Any]) -> str:
    """Paper, architecture, criterion, figures and command, as the preset 'small' has them."""
    preset = catalogue.get(name).presets["small"]
    program = catalogue.create(name, **preset.program)
    count = program.parameter_count()
    said = [
        *([f"{card['paper']}."] if card["paper"] else []),
        f"*Architecture:* {_options(preset.program) or 'the defaults'}; {count:,} parameters at the default size.",
        f"*Criterion:* {_criterion(program, preset)} (`{preset.method}`).",
        f"*Figures:* {', '.join([f'[picture](gallery.md#{anchor(name)})', *_records(name)])}.",
        f"*Command:* `zoo fit {name} --out runs/{name}`",
    ]
    return f"- **`{name}`** " + " ".join(said)


def _options(given: Mapping[str, Any]) -> str:
    return ", ".join(f"`{option}={json.dumps(value)}`" for option, value in given.items())


def _criterion(program: Program, preset: Preset) -> str:
    """What the preset's method makes largest or smallest, in words."""
    method = make_method(preset.method, **preset.fit)
    said = CRITERIA[preset.method]
    if preset.method == "svi":
        bound = method.elbo
        if bound == "auto":
            bound = "exact" if not program.sites() else "trace"
        return BOUNDS[bound]
    game = getattr(method, "game", None)
    if isinstance(game, Mapping):
        game = game["name"]
    return said if game is None else f"{said}, `{game}`"


@cache
def _texts() -> dict[str, str]:
    """The records of suites."""
    return {path.stem: path.read_text() for path in sorted(RECORDS.glob("*-cpu.md"))}


@cache
def _rows() -> dict[str, set[str]]:
    """Program -> the records whose tables have a row of it."""
    found: dict[str, set[str]] = {}
    for suite in SUITES:
        records = [suite, *(part for part, whole in PARTS.items() if whole == suite)]
        for spec in (spec for grid in get_suite(suite).grids for spec in grid.programs):
            for record in records:
                if f"| {spec.title} |" in _texts().get(f"{record}-cpu", ""):
                    found.setdefault(spec.name, set()).add(record)
    return found


def _records(name: str) -> list[str]:
    """Links to the records that have figures of a program."""
    return [f"[{record.replace('-', ' ')}](results/{record}-cpu.md)" for record in sorted(_rows().get(name, ()))]


def anchor(name: str) -> str:
    """Where the gallery has a program: signs are no part of an anchor, and the second of a name gets a number."""
    return name.replace("++", "_1")


def _latent(site: Site) -> str:
    scope = ", global" if site.is_global else ""
    return f"`{site.name}` ({', '.join(map(str, site.event_shape))}){scope}"


if __name__ == "__main__":
    PAGE.write_text(page())
    index.FILE.write_text(index.made())
