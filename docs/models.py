"""Writes docs/models.md, the page of all programs, and benchmarks/index.json, what `zoo list` reads of them.

`python docs/models.py`; tests compare both with what the programs say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import index
from benchmarks.cards import CAPABILITIES, program_list
from inference import methods_for
from zoo import ImplicitProgram, Site, catalogue
from zoo.energy.base import EnergyProgram

PAGE = Path(__file__).with_name("models.md")
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
        papers = [f"- `{name}`: {cards[name]['paper']}." for name in members if cards[name]["paper"]]
        parts.append("\n" + "\n".join(papers))
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


def _latent(site: Site) -> str:
    scope = ", global" if site.is_global else ""
    return f"`{site.name}` ({', '.join(map(str, site.event_shape))}){scope}"


if __name__ == "__main__":
    PAGE.write_text(page())
    index.FILE.write_text(index.made())
