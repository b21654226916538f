"""Every generator of images takes faces of 64x64 and colour as well as digits, by its small preset, on any device."""

from __future__ import annotations

import math

import pyro
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


GIVEN = ("pix2pix", "cyclegan", "stargan", "progan", "puzzle-gan", "text2image", "tag-gan", "wavegan", "cgan")


@pytest.mark.parametrize("name", GIVEN)
def test_nothing_is_left_behind_on_another_device(name: str) -> None:
    """On the device `meta`, which has shapes and no numbers, tensors of two devices do not meet."""
    program = catalogue.create(name).eval()
    context = program.example_context(4)
    context = None if context is None else context.to("meta")
    program = program.to("meta")
    with pyro.validation_enabled(False):
        made = program.model(None, context, 4)
        critic = program.critic().to("meta")
        logits = critic(made) if context is None else critic(made, context)
    assert made.is_meta
    assert logits.is_meta
    assert (made.shape, len(logits)) == ((4, *program.event_shape), 4)
