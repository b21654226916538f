"""The report of a comparison: the worst numbers first, and sentences that say what the pictures show."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from benchmarks.cells.beside import judged
from benchmarks.cells.truths import find_truth
from benchmarks.report.beside import Differences, build
from benchmarks.suite import Cell, MethodSpec, ProgramSpec
from inference import Fit
from tests.benchmarks.report.test_comparison import check
from zoo.datasets import Data
from zoo.program import Program

CELL = Cell(
    "compare", "posterior", ProgramSpec("eight"), method=MethodSpec("m", "svi"), dataset="made", split="train",
    metrics=(), seed=0, evaluation={"particles": 100},
)  # fmt: skip
SHIFT, WRONG = 1.5, 5


class Eight(Program):
    """w ~ N(0, I) of eight numbers, x | w ~ N(w, I): the posterior is N(N mean(x) / (N + 1), 1 / (N + 1))."""

    event_shape = torch.Size([8])

    def model(self, x=None, context=None, size=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(8), 1.0).to_event(1))
        with self.plate(x, context, size):
            pyro.sample("x", dist.Normal(w, 1.0).to_event(1), obs=x)

    def _answer(self, x, shift):
        scale = (len(x) + 1) ** -0.5
        loc = x.sum(0) / (len(x) + 1) + shift * scale * torch.eye(8)[WRONG]
        pyro.sample("w", dist.Normal(loc, scale).to_event(1))

    def posterior(self, x, context=None, size=None):
        self._answer(x, 0.0)

    def wrong(self, x, context=None, size=None):
        self._answer(x, SHIFT)


@pytest.fixture(scope="module")
def rows():
    torch.set_default_dtype(torch.float64)
    data = Data(torch.randn(9, 8, generator=torch.Generator().manual_seed(0)))
    program = Eight()
    truth = find_truth("auto", program, data, seed=0)
    guides = {"wrong": program.wrong, "right": program.posterior}
    fits = {
        label: Fit(program=program, method="svi", data="made", seed=0, guide=guide, train=data)
        for label, guide in guides.items()
    }
    return [judged(label, CELL, found, truth) for label, found in fits.items()], truth


def test_the_number_that_is_wrong_is_found(rows) -> None:
    found = Differences.of(*rows)
    assert found.names == tuple(f"w[{i}]" for i in range(8))
    assert found.worst[0] == WRONG
    assert found.culprit(WRONG) == 0
    # A shift of a normal is the distance; all others are the noise of 4000 draws.
    assert found.off[0, WRONG] == pytest.approx(SHIFT, abs=0.1)
    assert np.delete(found.off[0], WRONG).max() < 0.1
    assert found.off[1].max() < 0.1


def test_sentences_say_what_the_pictures_show(rows) -> None:
    given, truth = rows
    report = build("Eight <i> on made", given, truth, ["a note"], ["nuts failed: why"])
    sections = {section.title: section for section in report.sections}
    assert list(sections) == [
        "What the methods are held against", "Methods", "Where they differ", "The gap in three parts",
    ][: len(sections)]  # fmt: skip
    assert sections["What the methods are held against"].text == [truth.sentence, "a note"]
    assert "nuts failed: why" in sections["Methods"].remarks
    table = sections["Where they differ"].tables[0]
    assert table.rows[0][0].text == "w[5]"
    pictures = {picture.name: picture for picture in sections["Where they differ"].pictures}
    assert set(pictures) == {"marginals", "pairs"}
    assert "The worst is w[5], where wrong is 1.5" in pictures["marginals"].caption
    assert "standard deviations off." in pictures["marginals"].caption
    assert "not the first" in pictures["pairs"].caption
    assert pictures["pairs"].figure.axes[0].get_ylabel() or pictures["pairs"].figure.axes[0].get_xlabel() == "w[5]"
    named = [ax.get_xlabel() for ax in pictures["pairs"].figure.axes] + [
        ax.get_ylabel() for ax in pictures["pairs"].figure.axes
    ]
    assert "w[5]" in named
    for picture in pictures.values():
        check(picture.figure, picture.name)


def test_nothing_but_noise_is_called_so(rows) -> None:
    given, truth = rows
    report = build("Eight", given[1:], truth, [], [])
    (caption,) = [p.caption for s in report.sections for p in s.pictures if p.name == "marginals"]
    assert "which is the noise of so many draws" in caption
