"""Draws docs/img/rooms.svg, the rooms of the house and their imports: `python docs/rooms.py`. A test compares the two.

Rooms are the folders and files of the three packages, floors are the contracts of import-linter in pyproject.toml, and
arrows are the imports that the code has; an arrow that follows from others is left out. Nothing is drawn by hand.
"""

from __future__ import annotations

import ast
import itertools
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "img" / "rooms.svg"
PACKAGES = {"benchmarks": "compares", "inference": "fits and judges", "zoo": "programs, guides, data"}
BY_NAME = re.compile(rf"({'|'.join(PACKAGES)})(\.\w+)+:\w+")  # "zoo.latent.vae:VAE", imported when it is asked for

WIDTH, MARGIN, PAD = 860, 14, 7  # pixels
LETTER, LINE = 6.05, 13.5  # width of a letter in monospace of 10 pixels; from line to line
GAP, LANE, FLOOR = 9, 6, 27  # between slots of a floor; width of a passing arrow; between floors, where arrows bend


@dataclass(frozen=True)
class Arrow:
    """That one room imports from another; `by_name`: only when a name is asked for."""

    source: str
    target: str
    by_name: bool


@dataclass(eq=False)
class Slot:
    """A place on a floor: a room, or (of no height) a lane by which all arrows to one room pass this floor."""

    name: str
    floor: int
    lines: list[str] = field(default_factory=list)
    width: float = LANE
    height: float = 0
    x: float = 0
    above: list[Slot] = field(default_factory=list)
    below: list[Slot] = field(default_factory=list)


def floors(package: str) -> list[list[str]]:
    """The floors of a package from the top, as the contract names them.

    Raises: ValueError for a room that stands on no floor.
    """
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (each["layers"] for each in contracts if each.get("containers") == [package])
    found = [re.findall(r"\w+", layer) for layer in layers]
    there = {
        path.stem for path in (ROOT / package).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    if homeless := there - {"__init__"} - {room for floor in found for room in floor}:
        raise ValueError(f"{package}: {sorted(homeless)} stand on no floor; give each one in pyproject.toml.")
    return found


def files(package: str, room: str) -> list[list[str]]:
    """The modules in a room, then those of each folder in it, behind its name. Empty where the room is a file."""
    folder = ROOT / package / room
    found = [[path.stem for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]]
    for inner in sorted(path.parent for path in folder.glob("*/__init__.py")):
        found.append([f"{inner.name}/", *files(f"{package}/{room}", inner.name)[0]])
    return [group for group in found if group]


def imports(package: str) -> list[Arrow]:
    """Between which rooms of a package something is imported, in the order of their names."""
    direct, named = set(), set()
    for path in sorted((ROOT / package).rglob("*.py")):
        room = path.relative_to(ROOT / package).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            found: list[str] = []
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found = [f"{node.module}.{alias.name}" for alias in node.names]
            direct |= {(room, name.split(".")[1]) for name in found if name.startswith(f"{package}.")}
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and BY_NAME.fullmatch(node.value):
                parts = re.split(r"[.:]", node.value)
                named |= {(room, parts[1])} if parts[0] == package else set()
    rooms = {room for floor in floors(package) for room in floor}
    pairs = sorted(pair for pair in direct | named if set(pair) <= rooms and pair[0] != pair[1])
    return [Arrow(*pair, by_name=pair not in direct) for pair in pairs]


def reduced(arrows: list[Arrow]) -> list[Arrow]:
    """Without those that follow from others: where A has B and B has C, A's arrow to C says nothing new."""
    after: dict[str, set[str]] = {}
    for arrow in arrows:
        after.setdefault(arrow.source, set()).add(arrow.target)

    @cache
    def reach(room: str) -> set[str]:
        return {room}.union(*(reach(other) for other in after.get(room, ())))

    return [a for a in arrows if not any(a.target in reach(other) for other in after[a.source] - {a.target})]


def place(package: str) -> tuple[list[list[Slot]], list[tuple[Slot, Slot, str]]]:
    """The slots of each floor, and the pieces of arrows between them: (upper, lower, 'solid', 'named' or 'up')."""
    stack = floors(package)
    level = {room: i for i, floor in enumerate(stack) for room in floor}
    slots = [[_room(package, room, i, len(floor)) for room in floor] for i, floor in enumerate(stack)]
    slot = {each.name: each for floor in slots for each in floor}
    arrows = imports(package)
    down = reduced([a for a in arrows if level[a.source] < level[a.target]])
    up = [a for a in arrows if level[a.source] > level[a.target]]
    lanes: dict[tuple[str, str, int], Slot] = {}
    pieces: dict[tuple[Slot, Slot, str], None] = {}
    for arrow in down + up:
        first, last = sorted((arrow.source, arrow.target), key=level.__getitem__)
        kind = "up" if arrow in up else "named" if arrow.by_name else "solid"
        at = slot[first]
        for i in range(level[first] + 1, level[last]):
            if (last, kind, i) not in lanes:
                lanes[last, kind, i] = Slot("", i)
                slots[i].append(lanes[last, kind, i])
            pieces[at, lanes[last, kind, i], kind] = None
            at = lanes[last, kind, i]
        pieces[at, slot[last], kind] = None
    for upper, lower, _ in pieces:
        upper.below.append(lower)
        lower.above.append(upper)
    _order(slots)
    _spread(slots)
    return slots, list(pieces)


def _room(package: str, room: str, floor: int, neighbours: int) -> Slot:
    # A floor of many rooms shares its width, less some for lanes; a room alone need not fill it.
    most = 72 if neighbours == 1 else int((WIDTH - 2 * MARGIN - 100) / neighbours / LETTER) - 3
    lines = [line for group in files(package, room) for line in _lines(group, most)]
    widest = max([1.2 * len(f"{room}/"), *map(len, lines)])
    return Slot(room, floor, lines, widest * LETTER + 2 * PAD, LINE * len(lines) + (28 if lines else 24))


def _lines(names: list[str], most: int) -> list[str]:
    """Names in as few lines of `most` letters as they need, about equally long."""

    def filled(letters: int) -> list[str]:
        lines = [names[0]]
        for name in names[1:]:
            joint = " " if lines[-1].endswith("/") else " · "
            if len(lines[-1] + joint + name) > letters:
                lines.append(name)
            else:
                lines[-1] += joint + name
        return lines

    longest = max(map(len, names))
    return min(
        (filled(n) for n in range(longest, max(longest, most) + 1)),
        key=lambda lines: (len(lines), len(max(lines, key=len))),
    )


def _crossings(slots: list[list[Slot]]) -> int:
    total = 0
    for floor, below in itertools.pairwise(slots):
        at = {slot: i for i, slot in enumerate(below)}
        ends = [(i, at[lower]) for i, slot in enumerate(floor) for lower in slot.below]
        total += sum((a - c) * (b - d) < 0 for k, (a, b) in enumerate(ends) for c, d in ends[:k])
    return total


def _order(slots: list[list[Slot]]) -> None:
    """Sorts each floor so that few arrows cross: by the mean place of neighbours, then by swapping side by side."""
    best = (_crossings(slots), [list(floor) for floor in slots])
    for turn in range(24):
        for floor in slots if turn % 2 else slots[::-1]:
            place = {slot: (i + 0.5) / len(other) for other in slots for i, slot in enumerate(other)}

            def mean(slot: Slot, place: dict[Slot, float] = place, side: int = turn % 2) -> float:
                near = (slot.above if side else slot.below) or slot.above + slot.below
                return sum(place[other] for other in near) / len(near) if near else place[slot]

            floor.sort(key=mean)
            near = slots[max(0, floor[0].floor - 1) : floor[0].floor + 2]
            for _ in range(2):
                for i in range(len(floor) - 1):
                    before = _crossings(near)
                    floor[i : i + 2] = floor[i : i + 2][::-1]
                    if _crossings(near) >= before:
                        floor[i : i + 2] = floor[i : i + 2][::-1]
        if (count := _crossings(slots)) < best[0]:
            best = (count, [list(floor) for floor in slots])
    slots[:] = best[1]


def _spread(slots: list[list[Slot]]) -> None:
    """Gives each slot the x of its middle: as near as can be to its neighbours', in order and without overlap.

    Lanes pull at lanes more than at rooms, so that long arrows are straight.
    """
    for floor in slots:
        _settle(floor, [WIDTH / 2] * len(floor))
    for turn in range(80):
        for floor in slots if turn % 2 else slots[::-1]:
            wish = []
            for slot in floor:
                pull = {other: 1 if slot.height or other.height else 8 for other in slot.above + slot.below}
                wish.append(sum(n * other.x for other, n in pull.items()) / sum(pull.values()) if pull else slot.x)
            _settle(floor, wish)
    left = min(slot.x - slot.width / 2 for floor in slots for slot in floor)
    right = max(slot.x + slot.width / 2 for floor in slots for slot in floor)
    for slot in (slot for floor in slots for slot in floor):
        slot.x += (WIDTH - left - right) / 2


def _settle(floor: list[Slot], wish: list[float]) -> None:
    """The x in order that are nearest to the wishes in squares (pooling of neighbours that would overlap)."""
    offsets, at = [], 0.0
    for left, slot in zip([None, *floor], floor, strict=False):
        at += 0 if left is None else (left.width + slot.width) / 2 + GAP
        offsets.append(at)
    pools: list[tuple[float, int]] = []
    for x, offset in zip(wish, offsets, strict=True):
        pools.append((x - offset, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, n), (b, m) = pools[-2:]
            pools[-2:] = [((a * n + b * m) / (n + m), n + m)]
    starts = [start for start, count in pools for _ in range(count)]
    low = MARGIN + PAD + floor[0].width / 2
    high = WIDTH - MARGIN - PAD - floor[-1].width / 2 - offsets[-1]
    for slot, start, offset in zip(floor, starts, offsets, strict=True):
        slot.x = min(max(start, low), max(low, high)) + offset


def _port(slot: Slot, others: Iterable[Slot], other: Slot) -> float:
    """Where an arrow leaves a room: arrows are shared out along its edge in the order of where they go."""
    if not slot.height:
        return slot.x
    order = sorted(others, key=lambda each: each.x)
    step = min(14.0, (slot.width - 2 * PAD) / max(1, len(order)))
    return slot.x + step * (order.index(other) - (len(order) - 1) / 2)


def _panel(package: str, top: float) -> tuple[list[str], float]:
    """The drawing of a package whose upper edge is at `top`, and where its lower edge is."""
    slots, pieces = place(package)
    y, tops, heights = top + 38, [], []
    for floor in slots:
        tops.append(y)
        heights.append(max(slot.height for slot in floor))
        y += heights[-1] + FLOOR
    bottom = y - FLOOR + 14
    out = [
        f'<g class="{package}">',
        f'<rect class="house" x="{MARGIN}" y="{top:.1f}" width="{WIDTH - 2 * MARGIN}" '
        f'height="{bottom - top:.1f}" rx="10"/>',
        f'<text class="package" x="{MARGIN + 14}" y="{top + 23:.1f}">{package}/'
        f'<tspan class="what" dx="8">{PACKAGES[package]}</tspan></text>',
    ]
    for upper, lower, kind in pieces:
        x0, x1 = _port(upper, upper.below, lower), _port(lower, lower.above, upper)
        bend, straight = tops[upper.floor] + heights[upper.floor], tops[lower.floor]
        start = bend - (heights[upper.floor] - upper.height) / 2 if upper.height else bend
        end = straight + (heights[lower.floor] - lower.height) / 2 if lower.height else straight + heights[lower.floor]
        half = (bend + straight) / 2
        path = f"M{x0:.1f} {start:.1f}V{bend:.1f}C{x0:.1f} {half:.1f} {x1:.1f} {half:.1f} {x1:.1f} {straight:.1f}"
        path += f"V{end:.1f}"
        head = ' marker-start="url(#up)"' if kind == "up" and upper.height else ""
        head += ' marker-end="url(#down)"' if kind != "up" and lower.height else ""
        out.append(f'<path class="arrow {kind}" d="{path}"{head}/>')
    for slot in (slot for floor in slots for slot in floor if slot.height):
        y = tops[slot.floor] + (heights[slot.floor] - slot.height) / 2
        x = slot.x - slot.width / 2
        out.append(
            f'<rect class="room" x="{x:.1f}" y="{y:.1f}" width="{slot.width:.1f}" height="{slot.height}" rx="5"/>'
        )
        name = f"{slot.name}/" if slot.lines else slot.name
        out.append(f'<text class="name" x="{slot.x:.1f}" y="{y + 16:.1f}">{name}</text>')
        for i, line in enumerate(slot.lines):
            out.append(f'<text class="file" x="{slot.x:.1f}" y="{y + 31 + LINE * i:.1f}">{line}</text>')
    return [*out, "</g>"], bottom


STYLE = """
text { font-family: ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace; fill: #1f2430 }
.ground { fill: #fff }
.package { font-size: 15px; font-weight: 700 }
.what { font-size: 12px; font-weight: 400; font-family: system-ui, sans-serif; fill: #5b6270 }
.name { font-size: 12px; font-weight: 700; text-anchor: middle }
.file { font-size: 10px; text-anchor: middle; fill: #4a5160 }
.note { font-size: 12px; font-family: system-ui, sans-serif; fill: #5b6270 }
.room { fill: #fff; stroke-width: 1.2 }
.arrow { fill: none; stroke: #7b8394; stroke-width: 1.2 }
.named, .up { stroke-dasharray: 4 3 }
.between { fill: none; stroke: #7b8394; stroke-width: 4 }
.head { fill: #7b8394 }
.benchmarks .house { fill: #fdf3e7 } .benchmarks .room { stroke: #c98a3d }
.inference .house { fill: #eef0fb } .inference .room { stroke: #6b78c9 }
.zoo .house { fill: #eaf6ee } .zoo .room { stroke: #55a06f }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e9f0 } .what, .note { fill: #a4abbb } .file { fill: #b9c0cf }
  .ground { fill: #1b1e26 } .room { fill: #262a35 }
  .arrow, .between { stroke: #8f98ab } .head { fill: #8f98ab }
  .benchmarks .house { fill: #2b241b } .benchmarks .room { stroke: #a97a40 }
  .inference .house { fill: #20243a } .inference .room { stroke: #6d7ac4 }
  .zoo .house { fill: #1c2b23 } .zoo .room { stroke: #4e9468 }
}
"""


def picture() -> str:
    """The picture as SVG."""
    body: list[str] = []
    top = float(MARGIN)
    for package in PACKAGES:
        if body:  # what a lower package lends, it lends to any floor above
            body.append(f'<path class="between" d="M{WIDTH / 2} {top:.1f}v18" marker-end="url(#thick)"/>')
            top += 30
        panel, top = _panel(package, top)
        body += panel
    note = "An arrow: imports from. Dashed: by name, when it is asked for. Left out: what follows from other arrows."
    body.append(f'<text class="note" x="{MARGIN + 2}" y="{top + 24:.1f}">{note}</text>')
    head = '<marker id="{}" viewBox="0 0 8 8" refX="{}" refY="4" markerWidth="{}" markerHeight="{}" orient="auto">'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 38:.0f}" role="img">',
            "<title>The rooms of the three packages, floor by floor, and which imports from which</title>",
            f"<style>{STYLE}</style>",
            "<defs>",
            head.format("down", 7.5, 7, 7) + '<path class="head" d="M0 1L8 4L0 7z"/></marker>',
            head.format("up", 0.5, 7, 7) + '<path class="head" d="M8 1L0 4L8 7z"/></marker>',
            head.format("thick", 2, 3, 3) + '<path class="head" d="M0 0L8 4L0 8z"/></marker>',
            "</defs>",
            f'<rect class="ground" width="{WIDTH}" height="{top + 38:.0f}" rx="10"/>',
            *body,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    PICTURE.write_text(picture())
