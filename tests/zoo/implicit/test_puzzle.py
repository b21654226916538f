"""The puzzle GAN: the contract, puzzles, that given pixels stay, that its reconstruction asks for the true spread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyro
import pytest
import torch
from torch import Tensor

from inference import fit
from inference.evaluation.samples.completion import (
    completion_scores,
    frechet_in_components,
    gaussian_completion,
    nearest_completion,
)
from zoo import datasets
from zoo.errors import OptionError, ShapeError, SupportError, UnknownNameError
from zoo.implicit.puzzle import PuzzleCritic, PuzzleGAN
from zoo.latent.ppca import PPCA
from zoo.puzzles import puzzle_from_boxes
from zoo.testing import check_program

SMALL = {"latent_dim": 4, "hidden": 16, "channels": [4, 4], "critic": {"whole": [4, 4], "local": [4]}}


def small(event_shape: tuple[int, ...] = (9, 6), **options: object) -> PuzzleGAN:
    return PuzzleGAN(list(event_shape), **{**SMALL, **options})


@pytest.mark.parametrize("event_shape", [(9, 6), (3, 8, 8)])
def test_contract(event_shape: tuple[int, ...]) -> None:
    check_program(small(event_shape))


@pytest.mark.parametrize("name", PuzzleGAN.presets)
def test_presets_build_and_fit(name: str) -> None:
    preset, x = PuzzleGAN.presets[name], torch.rand(4, 12, 10)
    cut = {"hidden": 32, "channels": [16, 16], "critic": {"whole": [16, 16], "local": [16]}} if name == "paper" else {}
    program = PuzzleGAN.for_data(x, **{**preset.program, **cut})
    found = fit(program, x, preset.method, **{**preset.fit, "steps": 1, "epochs": None})
    context = puzzle_from_boxes(x, [[0, 0, 6, 10]])
    made = found.program.generate(context=context)
    assert made.shape == x.shape
    assert torch.equal(made[:, :6], x[:, :6])


def test_the_papers_sizes() -> None:
    with torch.device("meta"):
        program = PuzzleGAN([128, 128], **PuzzleGAN.presets["paper"].program)
    shapes = {name: tuple(p.shape) for name, p in program.net.named_parameters()}
    assert shapes["down.0.0.weight"] == (64, 2, 4, 4)
    assert shapes["told.1.weight"] == (4000, 512 * 4 * 4)
    assert shapes["inner.0.weight"] == (512 * 4 * 4, 4100)


@pytest.mark.parametrize("event_shape", [(9, 6), (3, 8, 8)])
def test_given_pixels_stay_and_the_others_differ(event_shape: tuple[int, ...]) -> None:
    program, x = small(event_shape).eval(), torch.rand(20, *event_shape)
    context = program.puzzles(x)
    given = context[:, -1:].expand(-1, program.shape[0], -1, -1).reshape(x.shape).bool()
    first, second = program.generate(context=context), program.generate(context=context)
    assert torch.equal(first[given], x[given])
    assert ((first - second)[~given] != 0).double().mean() > 0.99


def test_what_is_drawn_depends_on_what_is_given() -> None:
    program = small().eval()
    boxes, z = [[0, 0, 4, 3]], torch.randn(1, 4)
    dark, light = (puzzle_from_boxes(torch.full((1, 9, 6), grey), boxes) for grey in (0.1, 0.9))
    assert not torch.allclose(program.completed(z, dark)[:, 5:], program.completed(z, light)[:, 5:])
    # What lay where nothing is given makes no difference: a context does not hold it.
    x = torch.rand(1, 9, 6)
    assert torch.equal(puzzle_from_boxes(x, boxes)[0, 0, 4:], torch.zeros(5, 6))


def test_completions_take_particle_dimensions() -> None:
    program = small().eval()
    context, z = program.example_context(5), torch.randn(7, 5, 4)
    each = torch.stack([program.completed(one, context) for one in z])
    assert torch.allclose(program.completed(z, context), each)
    with pyro.plate("particles", 7, dim=-2):
        assert program.model(None, context, None).shape == (7, 5, 9, 6)


def patches(context: Tensor, grid: tuple[int, int]) -> Tensor:
    """Which patches of a grid that divides the image are given, (B, patches); each must be given wholly or not."""
    mask = context[:, -1]
    rows, columns = mask.shape[1] // grid[0], mask.shape[2] // grid[1]
    cut = mask.reshape(len(mask), grid[0], rows, grid[1], columns)
    assert torch.equal(cut.amin((2, 4)), cut.amax((2, 4)))
    return cut[:, :, 0, :, 0].flatten(1)


def test_puzzles_are_subsets_of_the_patches() -> None:
    program, x = small((8, 6), grid=[4, 3], keep=[0.25, 0.5]), torch.rand(4000, 8, 6)
    context = program.puzzles(x)
    given = patches(context, (4, 3))
    assert torch.equal(context[:, 0], x * context[:, 1])
    counts = torch.bincount(given.sum(1).long())
    # Three to six of twelve patches, each number as likely: five standard errors of a share of 4,000.
    assert counts[:3].sum() == 0
    assert len(counts) == 7
    assert float((counts[3:] / 4000 - 0.25).abs().max()) < 5 * (0.25 * 0.75 / 4000) ** 0.5
    # Each patch as often as another, 4.5 of 12.
    assert float((given.mean(0) - 4.5 / 12).abs().max()) < 5 * 0.5 / 4000**0.5
    assert torch.equal(program.puzzles(x, seed=3), program.puzzles(x, seed=3))
    assert not torch.equal(program.puzzles(x), program.puzzles(x))


def test_images_without_a_context_are_accepted_with_the_same_puzzles() -> None:
    program, x = small(), torch.rand(6, 9, 6)
    taken, again = program.take(x), program.take(x)
    assert taken.context.shape == (6, 2, 9, 6)
    assert torch.equal(taken.context, again.context)
    own = puzzle_from_boxes(x, [])
    assert torch.equal(program.take((x, own)).context, own)


def test_every_step_has_puzzles_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    program, x, seen = small(), torch.rand(6, 9, 6), []
    puzzles = PuzzleGAN.puzzles

    def recorded(self: PuzzleGAN, x: Tensor, seed: int | None = None) -> Tensor:
        seen.append(puzzles(self, x, seed))
        return seen[-1]

    taken = program.take(x)
    monkeypatch.setattr(PuzzleGAN, "puzzles", recorded)
    fit(program, taken, "gan", steps=4, critic_steps=2, reconstruction=1.0)
    masks = {tuple(context[:, -1].flatten().tolist()) for context in seen}
    assert len(masks) >= 9  # eight turns of the critic, and the end


def test_boxes() -> None:
    x = torch.rand(2, 3, 5, 4)
    context = puzzle_from_boxes(x, [[0, 1, 2, 3], [4, 0, 1, 1]])
    want = torch.zeros(5, 4)
    want[0:2, 1:4] = 1
    want[4, 0] = 1
    assert torch.equal(context[:, 3], want.expand(2, -1, -1))
    assert torch.equal(context[:, :3], x * want)


def test_the_distance_is_the_score_of_two_completions() -> None:
    """Where nothing is given and completions are known: E|X - x| - E|X - X'| / 2, over what is missing."""
    program, x = small(), torch.rand(3, 9, 6)
    context = puzzle_from_boxes(x, [[0, 0, 3, 6]])
    program.completed = lambda z, context: torch.where(context[:, 1] > 0.5, x, x + 0.2)
    made = torch.where(context[:, 1] > 0.5, x, x - 0.3)
    assert float(program.distance(made, x, context)) == pytest.approx((0.3 + 0.2 - 0.5) / 2)
    made = torch.where(context[:, 1] > 0.5, x, x + 0.3)
    assert float(program.distance(made, x, context)) == pytest.approx((0.3 + 0.2 - 0.1) / 2)


def test_learns_the_spread_that_a_distance_would_blur() -> None:
    """The lower half is all dark or all light, and the upper says nothing of it: both must be drawn."""
    lower = (torch.arange(200) % 2).double()[:, None, None].expand(-1, 4, 4)
    x = torch.cat([torch.full((200, 4, 4), 0.5), 0.1 + 0.8 * lower], 1)
    program = small((8, 4), grid=[2, 1], keep=[0.5, 0.5])
    fit(program, x, "gan", reconstruction=20.0, steps=120, batch_size=32, lr=1e-2, compile="never")
    drawn = program.generate(context=puzzle_from_boxes(x, [[0, 0, 4, 4]]))[:, 4:].mean((1, 2))
    assert 0.25 < float((drawn > 0.5).double().mean()) < 0.75
    assert float((drawn - 0.5).abs().mean()) > 0.25  # 0.4 in the data, 0 for the mean


def test_the_local_critic_looks_at_what_was_missing_alone() -> None:
    critic = PuzzleCritic(torch.Size([16, 16]), whole=[4], local=[4])
    torch.nn.init.zeros_(critic.whole.net[-1].weight)
    x = torch.rand(1, 16, 16)
    context = puzzle_from_boxes(x, [[0, 0, 8, 16]])
    far, near = x.clone(), x.clone()
    far[:, 0] += 0.5
    near[:, 12] += 0.5
    assert torch.equal(critic(far, context), critic(x, context))
    assert not torch.equal(critic(near, context), critic(x, context))
    assert bool(critic(x, puzzle_from_boxes(x, [[0, 0, 16, 16]])).isfinite())


def test_bad_options_and_data() -> None:
    with pytest.raises(OptionError, match="finer than images"):
        small(grid=[10, 2])
    with pytest.raises(OptionError, match="least share"):
        small(keep=[0.7, 0.2])
    with pytest.raises(UnknownNameError, match="puzzle's critic 'hidden'"):
        small(critic={"hidden": [3]})
    with pytest.raises(ShapeError, match="images"):
        PuzzleGAN([7])
    x = torch.rand(2, 9, 6)
    for box in ([0, 0, 10, 2], [8, 0, 2, 2], [0, 0, 0, 2]):
        with pytest.raises(OptionError, match="must lie inside"):
            puzzle_from_boxes(x, [box])
    with pytest.raises(OptionError, match="a box"):
        puzzle_from_boxes(x, [[-1, 0, 2, 2]])
    with pytest.raises(SupportError, match="last plane"):
        small().generate(context=torch.full((1, 2, 9, 6), 0.5))
    with pytest.raises(ShapeError, match="expects examples"):
        fit(small(), torch.rand(6, 5, 4), "gan")
    with pytest.raises(ShapeError, match="conditional"):
        small().generate(3)


@pytest.fixture
def _single_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float64)


@pytest.mark.slow
@pytest.mark.usefixtures("_single_precision")
@pytest.mark.timeout(1800)
def test_faces_are_completed_better_than_by_the_most_alike(zoo_data: Path) -> None:
    """On frames that come after all of the training: nearer than the mean face and than the frame that fits best."""
    found = fit("puzzle-gan", "freyfaces", preset="small", seed=0, device="cpu")
    data = datasets.load("freyfaces")
    x, context = found.program.take(data.test)
    known = context[:, -1].bool()
    completions = torch.stack([found.program.generate(context=context) for _ in range(10)])
    mine = completion_scores(completions, x, known)
    assert mine.kept == 0
    copied = completion_scores(nearest_completion(x, known, data.train.x)[None], x, known)
    mean = completion_scores(torch.where(known, x, data.train.x.mean(0))[None], x, known)
    assert mine.rmse < min(copied.rmse, mean.rmse)
    assert mine.crps < min(copied.crps, mean.crps)
    # Completions differ as much as their mean is wrong, to within a third: for ten that know the truth by root 1.1.
    assert abs(mine.spread / (mine.rmse / 1.1**0.5) - 1) < 1 / 3
    # The exact answer of a Gaussian of 128 components: its mean is further off, its draws are further from the truth.
    gaussian = PPCA(list(x.shape[1:]), 128)
    gaussian.maximum_likelihood(data.train.x)
    best, drawn = gaussian_completion(gaussian, x, known, draws=10)
    assert mine.rmse < completion_scores(best[None], x, known).rmse
    assert mine.crps < completion_scores(drawn, x, known).crps

    def distance(completed: Tensor) -> float:
        return frechet_in_components(completed, x, data.train.x)

    assert distance(completions[0]) < min(distance(drawn[0]), distance(nearest_completion(x, known, data.train.x)))
