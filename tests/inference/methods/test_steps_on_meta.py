"""A step of every method that takes steps, on the device 'meta': a tensor on the wrong device is seen without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from inference import METHODS
from inference.fit import make_method
from inference.method import Run
from inference.training.gradient import GradientMethod
from inference.training.loop import Loop
from tests.inference.steps import small
from tests.valueless import move, without_values

STEPS: list[tuple[str, str, dict[str, Any]]] = [
    *(("vae", "svi", options) for options in (
        {}, {"elbo": "iwae", "particles": 2}, {"elbo": "score", "particles": 2}, {"elbo": "mean_field"},
        {"elbo": "renyi", "particles": 2}, {"beta": 2.0}, {"tc": 2.0}, {"kl_anneal": 0.5}, {"clip_norm": 1.0},
        {"optimizer": "adamw", "weight_decay": 0.1},
    )),
    *((name, "svi", {}) for name in (
        "ppca", "cvae", "dmm", "semi-supervised-vae", "hvae", "realnvp", "nade", "wavenet",
    )),
    *(("ppca", "svi", {"batch_size": None, "guide": guide})
      for guide in ("normal", "multivariate_normal", "low_rank", "iaf", "delta")),
    ("vae", "wake-sleep", {}),
    *(("vae", "avb", {"contrast": contrast}) for contrast in ("adaptive", "prior")),
    ("ppca", "avb", {"contrast": "joint", "train_program": False}),
    ("vae", "ali", {}),
    ("vae", "aae", {}),
    *((name, "gan", {}) for name in (
        "gan", "dcgan", "wgan", "sngan", "cgan", "pix2pix", "puzzle-gan", "wavegan", "tag-gan", "progan",
    )),
    *(("gan", "gan", {"game": game}) for game in ("least-squares", "hinge", "minimax")),
    *(("gan", "gan", {"regulariser": name}) for name in ("gradient-penalty", "r1", "spectral-norm", "clip")),
    ("infogan", "gan", {"information": {"c": 1.0, "s": 0.1}}),
    ("pix2pix", "gan", {"reconstruction": 100.0}),
    ("ali", "ali", {}),
    ("cyclegan", "cycle", {}),
    ("stargan", "star", {}),
    ("text2image", "gan-cls", {}),
    *(("rbm", "cd", {"chains": chains}) for chains in ("data", "persistent")),
    ("deep-energy", "cd", {"chains": "replay"}),
    ("deep-energy", "nce", {}),
]  # fmt: skip
ELSEWHERE = {
    "mcem": "its chains stay where they were when the program lost its values",
    "score-matching": "its step keeps the scale of the data, which was measured before the data lost their values",
}


@pytest.fixture(autouse=True)
def valueless() -> Iterator[None]:
    with without_values():
        yield


def on_meta(name: str, method: str, options: dict[str, Any]) -> Loop:
    program, data = small(name)
    options = {"batch_size": 5, **options}
    options["batch_size"] = options["batch_size"] or data.size
    made = make_method(method, steps=40, **options)
    assert isinstance(made, GradientMethod)
    loop = made.prepare(program, Run(data)).loop
    move(loop)
    return loop


def step(loop: Loop) -> dict[str, torch.Tensor]:
    now = {name: values[0] for name, values in loop.scalars(loop.done, 1).items()}
    return loop.step(loop.data.rows(slice(0, loop.rows)), now)


@pytest.mark.parametrize(("name", "method", "options"), STEPS, ids=lambda value: str(value))
def test_nothing_in_a_step_is_made_on_another_device(name, method, options):
    loop = on_meta(name, method, options)
    metrics = step(loop)
    assert {value.device.type for value in metrics.values()} == {"meta"}
    modules = [part for part in loop.parts.values() if isinstance(part, nn.Module)]
    kept = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    assert {tensor.device.type for tensor in kept} == {"meta"}


def test_every_method_that_takes_steps_is_among_them():
    gradient = {name for name in METHODS if isinstance(make_method(name), GradientMethod)}
    assert {method for _, method, _ in STEPS} | set(ELSEWHERE) == gradient


@pytest.mark.parametrize("method", ELSEWHERE)
def test_what_needs_values_still_needs_them(method):
    with pytest.raises(RuntimeError, match="meta"):
        step(on_meta("vae" if method == "mcem" else "deep-energy", method, {}))


def test_a_tensor_of_the_cpu_in_a_step_is_an_error():
    loop = on_meta("vae", "svi", {})
    right = loop.step
    loop.step = lambda batch, now: right(batch.like([batch.x + torch.zeros(batch.x.shape)]), now)
    with pytest.raises(RuntimeError, match="meta"):
        step(loop)
