"""Every generator of images takes faces of 64x64 and colour images as well as digits, by its small preset."""

from __future__ import annotations

import math

import pytest
import torch

from inference import fit
from zoo import catalogue

GENERATORS = ("gan", "dcgan", "infogan", "wgan", "wgan-gp", "sngan", "ali", "aae", "puzzle-gan")


@pytest.mark.parametrize("shape", [(64, 64), (3, 32, 32)])
@pytest.mark.parametrize("name", GENERATORS)
def test_one_step_on_faces_and_on_colour(name: str, shape: tuple[int, ...]) -> None:
    images = torch.rand(6, *shape)
    preset = catalogue.get(name).presets["small"]
    options = {k: v for k, v in preset.fit.items() if k not in ("steps", "epochs")}
    grey = {"likelihood": "normal"} if name == "aae" else {}  # its preset is for binary images
    program = catalogue.create_for(name, images, **{**preset.program, **grey})
    found = fit(program, images, preset.method, **{**options, "steps": 1, "batch_size": 4, "compile": "never"})
    assert math.isfinite(found.history.last("loss"))
    context = program.example_context(2)
    made = found.program.generate(2, context)
    assert made.shape == (2, *shape)
    assert bool(made.isfinite().all())
    assert grey or bool(((made >= 0) & (made <= 1)).all())
