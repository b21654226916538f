"""Callbacks hear a fit from its start to its end, and change nothing of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from inference import fit
from inference.callbacks import Callback
from inference.training.compiled import Compiled
from tests.inference.factors import data, ppca, same, state
from zoo import errors


class Heard(Callback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def on_start(self, start) -> None:
        self.events.append(("start", start))

    def on_report(self, step, metrics) -> None:
        self.events.append(("report", {"step": step, **metrics}))

    def on_checkpoint(self, step, path) -> None:
        self.events.append(("checkpoint", (step, path)))

    def on_end(self, found) -> None:
        self.events.append(("end", found))

    def on_failure(self, error) -> None:
        self.events.append(("failure", error))

    def named(self, name: str) -> list[Any]:
        return [what for event, what in self.events if event == name]


class Meddles(Callback):
    """Draws, switches modes, and steps in the way as far as it can without touching a parameter."""

    def __init__(self) -> None:
        self.calls = 0

    def on_start(self, start) -> None:
        self.program = start.program

    def on_report(self, step, metrics) -> None:
        self.calls += 1
        torch.manual_seed(step)
        self.program.train(self.calls % 2 == 0)
        self.program.generate(3)


def test_a_fit_is_heard_from_start_to_end(tmp_path: Path) -> None:
    heard = Heard()
    options = {"steps": 8, "batch_size": 64, "checkpoint_seconds": 0.0}
    found = fit(ppca(), data(), "svi", seed=3, out=tmp_path / "fit", callbacks=[heard], **options)
    assert [event for event, _ in heard.events] == ["start", *["report", "checkpoint"] * 8, "end"]
    (start,) = heard.named("start")
    assert (start.method, start.seed, start.examples, start.device) == ("svi", 3, 300, "cpu")
    assert start.options["steps"] == 8
    assert start.program is found.program
    assert heard.named("report") == found.history.rows
    assert [row["step"] for row in heard.named("report")] == list(range(1, 9))
    assert heard.named("checkpoint") == [(step, tmp_path / "fit" / "checkpoint.pt") for step in range(1, 9)]
    assert heard.named("end") == [found]


@pytest.mark.parametrize(
    ("method", "options", "rows"),
    [("em", {"iterations": 5}, None), ("exact", {}, 0), ("nuts", {"warmup": 4, "draws": 4, "chains": 2}, 2)],
)
def test_methods_without_gradient_steps_are_heard_too(method: str, options: dict, rows: int | None) -> None:
    heard = Heard()
    program = "gaussian-mixture" if method == "em" else "coin"
    found = fit(program, None if program == "coin" else data(40), method, callbacks=[heard], **options)
    assert [len(heard.named("start")), heard.events[-1]] == [1, ("end", found)]
    assert heard.named("report") == found.history.rows
    assert len(found.history.rows) == rows if rows is not None else found.history.rows


@pytest.mark.parametrize("compile", ["never", "always"])
def test_a_callback_that_draws_and_switches_modes_changes_no_number(monkeypatch, compile: str) -> None:
    monkeypatch.setattr(
        "inference.training.loop.Compiled", lambda loops, references, _: Compiled(loops, references, "scripted")
    )
    given = {"steps": 30, "batch_size": 32, "compile": compile}
    plain, meddled = ppca(), ppca()
    meddler = Meddles()
    one = fit(plain, data(100), "svi", **given)
    other = fit(meddled, data(100), "svi", callbacks=[meddler], **given)
    assert meddler.calls == 30
    assert same(state(plain), state(meddled))
    assert [r["loss"] for r in one.history.rows] == [r["loss"] for r in other.history.rows]
    assert not other.program.training


@pytest.mark.parametrize("event", ["on_start", "on_report", "on_end"])
def test_what_a_callback_raises_stops_the_fit_as_it_is(event: str) -> None:
    class Stop(Exception):
        pass

    def stop(*what: Any) -> None:
        raise Stop("enough")

    raising, heard = Callback(), Heard()
    setattr(raising, event, stop)
    with pytest.raises(Stop, match="enough"):
        fit(ppca(), data(50), "svi", steps=4, callbacks=[heard, raising])
    assert isinstance(heard.events[-1][1], Stop)


def test_a_fit_that_goes_on_reports_its_history_from_the_beginning(tmp_path: Path) -> None:
    class Kill(Callback):
        def on_checkpoint(self, step, path) -> None:
            if step == 3:
                raise KeyboardInterrupt

    given = {"steps": 8, "checkpoint_seconds": 0.0, "out": tmp_path / "fit"}
    with pytest.raises(KeyboardInterrupt):
        fit(ppca(), data(50), "svi", callbacks=[Kill()], **given)
    heard = Heard()
    found = fit(ppca(), data(50), "svi", callbacks=[heard], **given)
    assert [row["step"] for row in heard.named("report")] == list(range(1, 9))
    assert heard.named("report") == found.history.rows


def test_what_ends_a_fit_is_told(monkeypatch) -> None:
    heard = Heard()
    with pytest.raises(errors.DivergenceError) as raised:
        fit(ppca(), data(50), "svi", steps=50, lr=1e30, callbacks=[heard])
    assert heard.named("failure") == [raised.value]
    assert not heard.named("end")


def test_callbacks_are_of_one_fit() -> None:
    heard = Heard()
    with pytest.raises(errors.OptionError, match="num_restarts=2 are several"):
        fit(ppca(), data(50), "svi", steps=2, num_restarts=2, callbacks=[heard])
    with pytest.raises(errors.OptionError, match="callbacks must be a list"):
        fit(ppca(), data(50), "svi", steps=2, callbacks=[print])
    assert not heard.events
