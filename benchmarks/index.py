"""What `zoo list` and `zoo show` print of the project's own programs and data, made beforehand and read without torch.

`python docs/models.py` writes index.json anew from `benchmarks.cards`; a test compares the two.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

__all__ = ["FILE", "card", "dataset_list", "made", "program_list"]

FILE = Path(__file__).with_name("index.json")


def program_list() -> list[dict[str, Any]]:
    """As `cards.program_list`; only programs of other packages are imported."""
    ours = {each["name"] for each in _read()["programs"]}
    if {point.name for point in entry_points(group="zoo.programs")} <= ours:
        return list(_read()["programs"])
    from benchmarks import cards

    return cards.program_list()


def dataset_list() -> list[dict[str, Any]]:
    """As `cards.dataset_list`."""
    return list(_read()["datasets"])


def card(name: str, data: str | None = None) -> dict[str, Any]:
    """As `cards.program_card`; only a program of somebody else's, or one for other data than its own, is built."""
    known: dict[str, dict[str, Any]] = _read()["cards"]
    if name in known and data is None:
        return known[name]
    from benchmarks import cards

    return cards.program_card(name, data)


def made() -> str:
    """The content of index.json as the programs say it now."""
    from benchmarks import cards
    from zoo import catalogue

    programs = [each for each in cards.program_list() if each["name"] in catalogue.BUILTIN]
    parts = {
        "programs": [json.dumps(each) for each in programs],
        "datasets": [json.dumps(each) for each in cards.dataset_list()],
        "cards": [f"{json.dumps(name)}: {json.dumps(cards.program_card(name))}" for name in sorted(catalogue.BUILTIN)],
    }
    # One line for each, so that a change of one program is a change of two lines.
    lists = [f'"{part}": [\n{_lines(parts[part])}\n]' for part in ("programs", "datasets")]
    return "{\n" + ",\n".join([*lists, f'"cards": {{\n{_lines(parts["cards"])}\n}}']) + "\n}\n"


def _lines(found: list[str]) -> str:
    return ",\n".join(found)


@cache
def _read() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text())
    return content
