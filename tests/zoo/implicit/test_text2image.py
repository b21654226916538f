"""Text to image: the contract, the critic of images and captions, the encoder that learns before the game."""

from __future__ import annotations

from typing import Any

import pyro
import pytest
import torch
from pyro import poutine

from inference import fit
from inference.evaluation.samples.captions import caption_retrieval, caption_scorer
from inference.evaluation.samples.judge import draw_samples
from zoo import datasets
from zoo.datasets import Data
from zoo.errors import OptionError, ShapeError, SupportError, UnknownNameError
from zoo.implicit.text2image import CaptionCritic, TextToImage
from zoo.testing import check_program

TINY: dict[str, Any] = {
    "latent_dim": 4, "projection": 4, "channels": [4, 4], "encoder": {"code": 4, "width": 4, "steps": 2}
}  # fmt: skip


def tiny(event_shape: tuple[int, ...] = (8, 6), words: int = 5) -> TextToImage:
    return TextToImage(event_shape, [3], words, **TINY)


@pytest.mark.parametrize("event_shape", [(9, 6), (3, 8, 8)])
def test_contract(event_shape: tuple[int, ...]) -> None:
    check_program(tiny(event_shape))


@pytest.mark.parametrize("name", TextToImage.presets)
def test_presets_build_and_fit(name: str) -> None:
    """One step of each preset's method, with networks that are narrower but as deep."""
    preset = TextToImage.presets[name]
    narrow = {
        option: [4] * len(preset.program[option]) for option in ("channels", "critic_channels")
        if option in preset.program
    }  # fmt: skip
    x, context = torch.rand(6, 32, 32), torch.randint(0, 9, (6, 3)).to(torch.get_default_dtype())
    program = TextToImage.for_data(x, context, **{**preset.program, **narrow, "encoder": TINY["encoder"]})
    options = {**preset.fit, "steps": 1, "epochs": None, "batch_size": 4}
    found = fit(program, (x, context), preset.method, **options)
    assert found.program.generate(context=context).shape == (6, 32, 32)


def test_the_papers_sizes() -> None:
    with torch.device("meta"):
        program = TextToImage([3, 64, 64], [10], 1000, **TextToImage.presets["paper"].program)
        critic = program.code_critic()
    assert program.encoder.code.out_features == 1024
    assert [tuple(p.shape) for p in program.project.parameters()] == [(128, 1024), (128,)]
    # Noise and text together make the first image, 4 x 4.
    assert next(p for p in program.image.parameters()).shape == (1024 * 16, 100 + 128)
    assert [tuple(layer.weight.shape) for layer in critic.both if hasattr(layer, "weight")] == [
        (512, 512 + 128, 1, 1), (1, 512, 4, 4)
    ]  # fmt: skip


def test_the_code_is_a_site_and_decides_what_is_made() -> None:
    program = tiny().eval()
    context = program.example_context(6)
    with pyro.plate("particles", 7, dim=-2):
        trace = poutine.trace(program.model).get_trace(None, context, None)
    assert trace.nodes["x"]["value"].shape == (7, 6, 8, 6)
    assert torch.equal(trace.nodes["code"]["value"][0], program.encode(context))
    other = program.encode(context.flip(0))
    torch.manual_seed(0)
    made = poutine.condition(program.model, data={"code": other})(None, context, 6)
    torch.manual_seed(0)
    assert torch.allclose(made, program.model(None, context.flip(0), 6))
    torch.manual_seed(0)
    assert not torch.allclose(made, program.model(None, context, 6))


def test_critics_of_captions_and_of_codes() -> None:
    program = tiny()
    x, context = torch.rand(5, 8, 6), program.example_context(5)
    of_captions, of_codes = program.critic(), program.code_critic()
    of_codes.load_state_dict(of_captions.state_dict())  # the encoder is no part of either
    assert of_captions(x, context).shape == (5,)
    assert isinstance(of_captions.down[-1], torch.nn.LeakyReLU)  # what it sees of an image has gone through one
    assert torch.equal(of_captions(x, context), of_codes(x, program.encode(context)))
    assert not torch.allclose(of_captions(x, context), of_captions(x, context.flip(0)))
    assert not torch.allclose(of_captions(x, context), of_captions(x.flip(0), context))
    # Each pair is judged alone.
    assert torch.allclose(of_captions(x, context)[:2], of_captions(x[:2], context[:2]))


def test_the_encoder_learns_before_the_game_and_not_in_it() -> None:
    program = tiny()
    x, context = torch.rand(20, 8, 6), torch.randint(0, 5, (20, 3)).to(torch.get_default_dtype())
    before = [p.clone() for p in program.encoder.parameters()]
    fit(program, (x, context), "gan-cls", steps=1, batch_size=8)
    assert not torch.equal(next(program.encoder.parameters()), before[0])
    before = [p.clone() for p in program.encoder.parameters()]
    fit(program, (x, context), "gan-cls", steps=2, batch_size=8, initialise=False)
    assert all(torch.equal(p, q) for p, q in zip(program.encoder.parameters(), before, strict=True))


def test_built_for_data() -> None:
    context = torch.tensor([[1.0, 7, 0], [2, 0, 0]])
    program = TextToImage.for_data(torch.rand(2, 6, 5), context, **TINY)
    assert (program.words, tuple(program.context_shape), tuple(program.event_shape)) == (8, (3,), (6, 5))
    assert TextToImage.for_data(torch.rand(2, 6, 5), context, words=20, **TINY).words == 20


def test_bad_options_and_data() -> None:
    with pytest.raises(UnknownNameError, match="caption encoder"):
        TextToImage(encoder={"depth": 3})
    with pytest.raises(OptionError, match="steps of the caption encoder"):
        TextToImage(encoder={"steps": 0})
    with pytest.raises(ShapeError, match="images"):
        TextToImage([7])
    with pytest.raises(SupportError, match="contexts in"):
        fit(tiny(words=5), (torch.rand(6, 8, 6), torch.full((6, 3), 5.0)), "gan-cls")
    assert isinstance(tiny().critic(), CaptionCritic)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_letters_show_what_their_names_say() -> None:
    """Letters that the fit has not seen, by their names, looked up among a hundred by a judge of real letters."""
    torch.set_default_dtype(torch.float32)
    try:
        preset, dataset = TextToImage.presets["small"], datasets.load(TextToImage.dataset)
        torch.manual_seed(0)
        program = TextToImage.for_data(*dataset.train, words=len(dataset.card.context_names), **preset.program)
        found = fit(program, dataset, preset.method, seed=0, device="cpu", **preset.fit)
        scorer, test = caption_scorer(dataset), dataset.test
        drawn = caption_retrieval(draw_samples(found.program, test, test.size), scorer.similarity)
        others = caption_retrieval(Data(test.x.roll(test.size // 2, 0), test.context), scorer.similarity)
    finally:
        torch.set_default_dtype(torch.float64)
    assert not found.info["collapsed"]
    assert drawn.candidates == 100
    assert others.accuracy < 3 * drawn.chance  # the judge sees that letters are not those that were asked for
    assert drawn.accuracy > 10 * drawn.chance
