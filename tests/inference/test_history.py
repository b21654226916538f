"""The history of a fit: rows, series of what was reported, plots."""

from __future__ import annotations

import pytest

from inference import fit
from inference.history import History
from tests.inference.factors import data, ppca


def test_history_plots_itself(tmp_path):
    found = fit(ppca(), data(20), "svi", steps=20)
    found.history.plot(tmp_path / "history.png")
    assert (tmp_path / "history.png").stat().st_size > 1000


def test_a_metric_may_be_absent_from_a_row():
    history = History()
    history.add(10, 0.5, loss=3.0, acceptance=0.8)
    history.add(20, 0.9, validation_loss=4.0)
    history.add(30, 1.5, loss=2.0)
    assert history.rows[1] == {"step": 20, "seconds": 0.9, "validation_loss": 4.0}
    assert history.metrics == ["loss", "acceptance", "validation_loss"]
    assert history.series("loss") == ([10, 30], [3.0, 2.0])
    assert history.series("seconds") == ([10, 20, 30], [0.5, 0.9, 1.5])
    assert (history.last("loss"), history.last("acceptance")) == (2.0, 0.8)
    with pytest.raises(KeyError, match=r"'elbo'.*validation_loss"):
        history.last("elbo")


def test_a_plot_has_a_panel_for_each_metric():
    history = History()
    history.add(1, 0.1, loss=3.0, acceptance=0.5)
    history.add(2, 0.2, loss=1.0)
    loss, acceptance = history.plot().axes
    assert (loss.get_title(), acceptance.get_title()) == ("loss", "acceptance")
    assert loss.lines[0].get_xydata().tolist() == [[1, 3], [2, 1]]
    assert acceptance.lines[0].get_xydata().tolist() == [[1, 0.5]]


def test_it_is_told_in_a_line_and_notebooks_see_its_plot():
    assert repr(History()) == "History(no rows)"
    history = History()
    for step in (10, 20):
        history.add(step, 0.5, loss=1 / step, **{"<b>": 2.0})
    assert repr(history) == "History(2 rows to step 20: loss 0.05, <b> 2)"
    shown = history._repr_html_()
    assert shown.count("data:image/png;base64,") == 1
    assert "&lt;b&gt;, last" in shown
    assert "<b>, last" not in shown
    many = History()
    many.add(1, 0.0, **{f"a_metric_with_a_long_name_{i}": 1.0 for i in range(50)})
    assert len(repr(many)) <= 200
    assert history.plot()._repr_png_().startswith(b"\x89PNG")
