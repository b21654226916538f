"""What notebooks show: escaped facts, figures as pictures."""

from __future__ import annotations

import subprocess
import sys

from zoo import datasets, notebook


def test_facts_are_escaped_and_what_is_empty_is_left_out() -> None:
    said = notebook.facts("A <b>", {"x & y": "<script>", "none": None, "empty": "", "zero": 0})
    assert said == (
        "<b>A &lt;b&gt;</b><table><tr><th>x &amp; y</th><td>&lt;script&gt;</td></tr>"
        "<tr><th>zero</th><td>0</td></tr></table>"
    )


def test_a_figure_shows_itself_without_pyplot() -> None:
    code = (
        "import sys; from zoo import notebook; assert 'matplotlib' not in sys.modules; drawn = notebook.figure(1, 1); "
        "assert drawn._repr_png_().startswith(b'\\x89PNG'); sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert notebook.image(notebook.figure(1, 1), 'a "b"').startswith(
        '<img alt="a &quot;b&quot;" src="data:image/png;base64,iVBOR'
    )


def test_a_data_set_is_told_in_a_line() -> None:
    coin = datasets.load("coin")
    assert (
        repr(coin)
        == f"Dataset('coin', x () binary, train/valid/test {coin.train.size}/{coin.valid.size}/{coin.test.size})"
    )
    named = datasets.Dataset.of([[1.0, 2.0]], name="<" * 300)
    assert len(repr(named)) < 200
    assert "&lt;" in named._repr_html_()
    assert "<<" not in named._repr_html_()
