"""What a notebook shows of an object: facts as a small table, figures as pictures. Everything is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from functools import cache
from html import escape
from typing import Any

__all__ = ["facts", "figure", "image", "png"]


def facts(title: str, said: Mapping[str, object]) -> str:
    """A title and a table of two columns as HTML, a line for each fact that is neither None nor empty."""
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in said.items()
        if value not in (None, "")
    )
    return f"<b>{escape(title)}</b><table>{rows}</table>"


def figure(width: float, height: float, layout: str = "constrained") -> Any:
    """An empty matplotlib figure of so many inches, which notebooks show also where pyplot was never imported."""
    return _shown()(figsize=(width, height), layout=layout)


@cache
def _shown() -> Any:
    from matplotlib.figure import Figure  # takes seconds, and most who import the zoo draw nothing

    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            return png(self)

    return Shown


def png(drawn: Any, dpi: int = 110) -> bytes:
    """A figure as the bytes of a file."""
    drawn.savefig(file := io.BytesIO(), dpi=dpi, format="png")
    return file.getvalue()


def image(drawn: Any, said: str) -> str:
    """A figure as HTML, with the words that stand for it where pictures are not seen."""
    return f'<img alt="{escape(said)}" src="data:image/png;base64,{base64.b64encode(png(drawn)).decode()}">'
