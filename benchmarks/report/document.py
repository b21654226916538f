"""A report: sections built once from records, then rendered for a terminal, as Markdown and as one page of HTML.

Text is plain in all three; what stands between backticks is code. Results come first in a section, and what explains
them is folded away below.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from jinja2 import Environment, FileSystemLoader, Template
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from zoo.notebook import png

__all__ = [
    "Cell", "Column", "Details", "Picture", "Report", "Section", "Table", "body", "once", "print_report", "write",
]  # fmt: skip

Said = TypeVar("Said")
Who = TypeVar("Who")
PLOTS = "plots"
"""Folder of the pictures, beside the report."""


@dataclass(frozen=True)
class Cell:
    """What stands at one place of a table; `why` explains it, `brief` fits a terminal (None: the text does)."""

    text: str
    why: str = ""
    brief: str | None = None


@dataclass(frozen=True)
class Column:
    """The head of a column and what it means. Terminals show those that are `brief`."""

    title: str
    meaning: str = ""
    brief: bool = True
    number: bool = True


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns; without a title it has that of its section."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    title: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure, the name of its file and what it shows."""

    name: str
    caption: str
    figure: Figure

    @cached_property
    def png(self) -> bytes:
        """The file."""
        return png(self.figure, dpi=130)


@dataclass(frozen=True)
class Details:
    """A folded list."""

    title: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Section:
    """What belongs together, in the order in which it is shown."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    remarks: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    details: Sequence[Details] = ()


@dataclass(frozen=True)
class Report:
    """A question and the sections that answer it; `note` is what must be known to read any of them."""

    title: str
    question: str
    note: str
    sections: Sequence[Section]

    @property
    def columns(self) -> Details:
        """What the columns of all tables mean, each said once."""
        found = [column for section in self.sections for table in section.tables for column in table.columns]
        lines = dict.fromkeys(f"{column.title}: {column.meaning}" for column in found if column.meaning)
        return Details("What the columns mean", list(lines))


def once(pairs: Iterable[tuple[Said, Who]]) -> list[tuple[Said, list[Who]]]:
    """What is said, with all of whom it is said."""
    found: dict[Said, list[Who]] = {}
    for said, who in pairs:
        found.setdefault(said, []).append(who)
    return list(found.items())


def write(report: Report, folder: Path) -> Path:
    """Writes report.md, plots/*.png and report.html, which needs no other file; returns the last."""
    (folder / PLOTS).mkdir(parents=True, exist_ok=True)
    for section in report.sections:
        for picture in section.pictures:
            (folder / PLOTS / f"{picture.name}.png").write_bytes(picture.png)
    (folder / "report.md").write_text(_markdown(report))
    page = folder / "report.html"
    page.write_text(_template("page").render(report=report))
    return page


def body(report: Report) -> str:
    """The page without its head and style: what a notebook shows of a report."""
    return str(_template("body").module.body(report))  # type: ignore[attr-defined]


def _template(name: str) -> Template:
    environment = Environment(autoescape=True, trim_blocks=True, loader=FileSystemLoader(Path(__file__).parent))
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    environment.filters["code"] = lambda text: Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))
    return environment.get_template(f"{name}.html.jinja")


def print_report(report: Report, console: Console) -> None:
    """The tables on a terminal of 80 columns: brief columns and cells; the text of a section without a table."""
    for section in report.sections:
        for table in section.tables:
            shown = RichTable(title=table.title or section.title, title_justify="left", box=box.SIMPLE_HEAD)
            shown.pad_edge, shown.padding = False, (0, 1, 0, 0)
            kept = [i for i, column in enumerate(table.columns) if column.brief]
            for column in (table.columns[i] for i in kept):
                side, title = "right" if column.number else "left", column.title.replace(" ", "\n", 1)
                shown.add_column(title, justify=side, no_wrap=True, max_width=None if column.number else 34)  # type: ignore[arg-type]
            last = ""
            for row in table.rows:
                first, *rest = (cell.text if cell.brief is None else cell.brief for cell in (row[i] for i in kept))
                shown.add_row(Text(first if first != last else ""), *map(Text, rest))
                last = first
            console.print(shown)
        for text in section.text if not section.tables else ():
            console.print(f"{section.title}: {text}\n", markup=False)
    console.print("Spreads, all columns and how each number was measured are in the page.", style="dim")


def _markdown(report: Report) -> str:
    parts = [f"# {report.title}", report.question, report.note, _fold(report.columns)]
    for section in report.sections:
        parts += [f"## {section.title}", *map(_inert, section.text)]
        for table in section.tables:
            parts += [f"### {table.title}"] if table.title else []
            rule = "|" + "".join("---:|" if column.number else "---|" for column in table.columns)
            rows = [[column.title for column in table.columns], *([cell.text for cell in row] for row in table.rows)]
            head, *body = ("| " + " | ".join(_inert(text).replace("|", r"\|") for text in row) + " |" for row in rows)
            parts.append("\n".join([head, rule, *body]))
        parts += ["\n".join(f"- {_inert(remark)}" for remark in section.remarks)]
        parts += [f"![{picture.caption}]({PLOTS}/{picture.name}.png)" for picture in section.pictures]
        parts += [_fold(details) for details in section.details]
    return "\n\n".join(part for part in parts if part) + "\n"


def _fold(details: Details) -> str:
    if not details.lines:
        return ""
    lines = "\n".join(f"- {_inert(line)}" for line in details.lines)
    return f'<details markdown="1">\n<summary>{details.title}</summary>\n\n{lines}\n\n</details>'


def _inert(text: str) -> str:
    """One line, in which Markdown sees no tag of HTML."""
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", text.replace("\n", " "))
