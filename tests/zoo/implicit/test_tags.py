"""The tag GAN: the contract, features that are learned first and then stay, a distribution over words."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

import pytest
import torch

from inference import fit
from inference.evaluation.samples.tags import different_lists, mean_average_precision, precision_at, rank_by_draws
from zoo import datasets
from zoo.datasets.letter_names import WORDS
from zoo.datasets.tags import glyph_vectors, named
from zoo.errors import ShapeError, UnknownNameError
from zoo.implicit.tags import TagGAN
from zoo.testing import check_program

SMALL = {
    "latent_dim": 4, "hidden": [16, 16], "features": {"channels": [4, 4], "width": 8, "steps": 60},
    "critic": {"hidden": [16, 16], "joint": 16},
}  # fmt: skip


@pytest.mark.parametrize("shape", [(8, 8), (3, 9, 6)])
def test_contract(shape: tuple[int, ...]) -> None:
    check_program(TagGAN([3], list(shape), **SMALL))


@pytest.mark.parametrize("name", TagGAN.presets)
def test_presets_build_and_fit(name: str) -> None:
    preset, x, context = TagGAN.presets[name], torch.randn(10, 5), torch.rand(10, 8, 8)
    program = TagGAN.for_data(x, context, **preset.program)
    found = fit(
        program, (x, context), preset.method, initialise=False, **{**preset.fit, "steps": 1, "epochs": None}
    )  # fmt: skip
    assert found.program.generate(context=context[:3]).shape == (3, 5)


def test_the_papers_sizes() -> None:
    program = TagGAN([200], [32, 32], **TagGAN.presets["paper"].program)
    assert tuple(program.of_noise[0].weight.shape) == (500, 100)
    assert tuple(program.of_image[0].weight.shape) == (2000, 4096)
    critic = {name: tuple(p.shape) for name, p in program.critic().named_parameters() if "weight" in name}
    assert list(critic.values()) == [(500, 200), (1200, 4096), (3 * 1000, 1700), (1, 1000)]


@torch.no_grad()
def test_features_are_learned_first_and_then_stay() -> None:
    """Of images that are bright above or below, which says what their vector is."""
    bright = torch.arange(200) % 2
    context = 0.1 * torch.rand(200, 8, 8)
    context[bright == 0, :4] += 0.8
    context[bright == 1, 4:] += 0.8
    x = torch.stack([1.0 - bright, bright.double()], 1)
    program = TagGAN.for_data(x, context, **SMALL)
    before = program.describe(context)
    program.initialise(x, context)
    after = program.describe(context)
    assert not torch.allclose(before, after)
    # A linear map of the features tells the two apart.
    padded = torch.cat([after, torch.ones(200, 1)], 1)
    error = padded @ torch.linalg.lstsq(padded, x, driver="gelsd").solution - x
    assert float(error.square().mean()) < 0.01
    with torch.enable_grad():
        fit(program, (x, context), "gan", steps=3, batch_size=50, initialise=False)
    assert torch.equal(program.describe(context), after)


def test_neither_player_moves_the_features() -> None:
    program = TagGAN([3], [8, 8], **SMALL)
    critic = program.critic()
    assert not any("reader" in name for name, _ in program.named_parameters())
    assert not any("reader" in name for name in critic.state_dict())
    x, context = torch.randn(2, 3), torch.rand(2, 8, 8)
    assert not torch.allclose(critic(x, context), critic(x, 1 - context))


def test_draws_every_word_that_an_image_has() -> None:
    """Of two words an image has one or the other, never their mean."""
    context = torch.rand(1, 8, 8).expand(200, -1, -1)
    x = torch.eye(2)[torch.arange(200) % 2]
    program = TagGAN.for_data(x, context, **SMALL)
    fit(program, (x, context), "gan", steps=200, batch_size=50, lr=5e-3, reconstruction=10.0, initialise=False)
    drawn = program.generate(context=context)
    difference = drawn[:, 0] - drawn[:, 1]
    assert 0.25 < float((difference > 0).double().mean()) < 0.75
    assert float(difference.abs().mean()) > 0.6  # 1 in the data, 0 for their mean


def test_the_distance_is_the_energy_score_of_two_draws() -> None:
    program, x = TagGAN([2], [8, 8], **SMALL), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    other = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    program._word = lambda z, seen: other
    made = torch.tensor([[4.0, 4.0], [0.0, 0.0]])
    found = program.distance(made, x, torch.rand(2, 8, 8))
    assert torch.allclose(found, torch.tensor([(5 + 2 - 13**0.5) / 2, (0 + 5 - 5) / 2]))


def test_bad_options() -> None:
    with pytest.raises(ShapeError, match="vectors of words"):
        TagGAN([2, 3])
    with pytest.raises(ShapeError, match="images"):
        TagGAN([3], [7])
    with pytest.raises(UnknownNameError, match="tags' features 'hidden'"):
        TagGAN(features={"hidden": 3})
    with pytest.raises(UnknownNameError, match="tags' critic 'width'"):
        TagGAN(critic={"width": 3})


@pytest.fixture
def _single_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float64)


@pytest.mark.slow
@pytest.mark.usefixtures("_single_precision")
@pytest.mark.timeout(1800)
def test_letters_get_the_words_of_their_names() -> None:
    """Of characters that are not in training, in the median of three seeds: better than the most common words, and not
    one list for all."""
    names = datasets.load("glyphs-captions")
    truth, trained = (
        torch.tensor(named(names.split(split).context.long().numpy(), len(WORDS))) for split in ("test", "train")
    )
    images, vectors = datasets.load("glyphs-tags").test.context, torch.tensor(glyph_vectors()).float()
    common = trained.float().mean(0).expand(len(truth), -1)
    precisions, means, lists = [], [], []
    for seed in range(3):
        found = fit("tag-gan", "glyphs-tags", preset="small", seed=seed, device="cpu")
        draws = torch.stack([found.program.generate(context=images) for _ in range(100)])
        ranks = rank_by_draws(draws, vectors)
        precisions.append(precision_at(ranks, truth))
        means.append(mean_average_precision(ranks, truth))
        lists.append(different_lists(draws, vectors))
    assert median(precisions) > precision_at(common, truth)
    assert median(means) > mean_average_precision(common, truth)
    assert median(lists) > 2
