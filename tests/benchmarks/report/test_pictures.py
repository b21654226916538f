"""Pictures of what a cell left: histories of games, latents."""

from __future__ import annotations

import io

import numpy as np
import torch

from benchmarks.report import pictures
from benchmarks.report.pictures import history_picture
from inference import fit
from inference.history import History
from zoo.implicit.gan import GAN


def test_every_games_instability_is_drawn() -> None:
    found = fit(
        GAN([2], hidden=[4], critic_hidden=[4], support="real"), torch.randn(40, 2), "gan", steps=20, device="cpu"
    )
    flat = History()
    flat.add(10, 1.0, loss=1.0)
    figure = history_picture([("GAN", found.history), ("only a loss", flat)])
    axes = np.array(figure.axes).reshape(2, 4)
    assert [ax.get_title() for ax in axes[0]] == ["losses", "critic accuracy", "divergence", "diversity"]
    assert [ax.get_xlabel() for ax in axes[1]] == ["step"] * 4
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["GAN", "only a loss"]
    steps, accuracy = found.history.series("critic_accuracy")
    line = axes[0, 1].lines[0]
    assert (list(line.get_xdata()), list(line.get_ydata())) == (steps, accuracy)
    assert axes[1, 3].texts[0].get_text() == "not measured"
    figure.savefig(io.BytesIO(), dpi=20)


def test_what_a_cell_left_is_drawn() -> None:
    rng = np.random.RandomState(0)
    images = {"samples": rng.rand(64, 4, 4), "data": rng.rand(64, 4, 4), "interpolation": rng.rand(3, 5, 4, 4)}
    codes = {"codes": rng.randn(30, 3), "prior": rng.randn(30, 3), "labels": rng.randint(10, size=30)}
    turned = {"traversal_c": rng.rand(2, 3, 4, 4), "class_grid": rng.rand(3, 2, 4, 4)}
    found = pictures.pictures([("A", {**images, **codes}), ("B", {**images, **turned})])
    names = ["samples", "interpolation-A", "codes-A", "interpolation-B", "classes-B", "traversal-c-B"]
    assert [name for name, _, _ in found] == names
    for name, caption, figure in found:
        assert caption
        figure.savefig(io.BytesIO(), dpi=20)
        assert figure.axes, name
        if name.startswith("codes"):  # two square panels side by side
            assert figure.get_figwidth() > 1.5 * figure.get_figheight()
    given = {"given": rng.rand(30, 4, 4), "samples": rng.rand(30, 4, 4), "data": rng.rand(30, 4, 4)}
    grid = {"attribute_grid": rng.rand(3, 3, 4, 4), "attributes": np.array(["bold", "serif"])}
    grown = {"growth": rng.rand(2, 3, 4, 4), "captions": np.array([f"a letter called {i}" for i in range(64)])}
    for left, wanted in (
        ([("A", given), ("B", given)], ["translations"]),
        ([("A", {**images, **grid})], ["samples", "interpolation-A", "attributes-A"]),
        ([("A", {**images, **grown})], ["samples", "interpolation-A", "growth-A", "captions-A"]),
    ):
        found = pictures.pictures(left)
        assert [name for name, _, _ in found] == wanted
        for _, _, figure in found:
            figure.savefig(io.BytesIO(), dpi=20)
    labels = [
        tick.get_text() for tick in pictures.pictures([("A", given), ("B", given)])[0][2].axes[0].get_xticklabels()
    ]
    assert labels == ["given", "A", "B", "true"]
    points = {"points": rng.randn(50, 2), "data": rng.randn(50, 2)}
    game = {"critic_accuracy": np.ones(3), "critic_accuracy_step": np.arange(3)}
    assert [name for name, _, _ in pictures.pictures([("A", {**points, **game})])] == ["points", "games"]
    assert pictures.pictures([]) == []
