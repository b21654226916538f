"""pix2pix: the contract, the noise of dropped units, the critic that sees the source, and what it learns from pairs."""

from __future__ import annotations

from statistics import median

import pyro
import pytest
import torch
from pyro import poutine

from inference import fit
from inference.evaluation.samples.classifier import train_classifier
from inference.evaluation.samples.quality import frechet
from inference.evaluation.samples.translation import absolute_error, nearest_pair, recognition
from tests.zoo.implicit.translations import PAIRS, held_out, recognised, translated
from zoo import datasets
from zoo.datasets.data import Data
from zoo.errors import OptionError, UnknownNameError
from zoo.implicit.pix2pix import Pix2Pix
from zoo.testing import check_program

TINY = {"channels": [4, 4, 4], "critic": {"channels": [4]}}


def tiny(**options: object) -> Pix2Pix:
    return Pix2Pix([9, 6], [3, 9, 6], **{**TINY, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_contract(norm: str) -> None:
    check_program(tiny(norm=norm, ink=True))


@pytest.mark.parametrize("name", Pix2Pix.presets)
def test_presets_build_and_fit(name: str) -> None:
    """The paper's networks halve eight times, at any size of image; here two images of 16 x 16 for one step."""
    preset = Pix2Pix.presets[name]
    critic = {**preset.program.get("critic", {}), "channels": [4, 4]}
    data = Data(torch.rand(2, 16, 16), torch.rand(2, 16, 16))
    program = Pix2Pix.for_data(*data, **{**preset.program, "critic": critic}).to(torch.float32)
    found = fit(program, data, preset.method, **{**preset.fit, "steps": 1, "epochs": None, "compile": "never"})
    assert found.program.translate(data.context).shape == (2, 16, 16)
    assert {"reconstruction", "loss", "critic_accuracy"} <= set(found.history.metrics)


def test_the_papers_sizes() -> None:
    options = Pix2Pix.presets["paper"].program
    with torch.device("meta"):
        program = Pix2Pix([3, 256, 256], [3, 256, 256], **options)
        critic = program.critic()
    # The authors' code counts 54.414 million parameters in the U-Net for 256 x 256, and 2.769 in the critic of pairs;
    # with gains and offsets of batch norm, which instance norm has none of, and without the biases of the outermost and
    # the innermost convolution.
    gains, biases = 2 * (128 + 256 + 512 * 4 + 512 * 4 + 256 + 128 + 64), 64 + 512
    assert round((program.parameter_count() + gains - biases) / 1e6, 3) == 54.414
    assert round(sum(p.numel() for p in critic.parameters()) / 1e6, 3) == 2.769
    assert critic.field == 70


def test_what_is_kept_is_the_latent() -> None:
    program, source = tiny().eval(), torch.rand(5, 3, 9, 6)
    with pyro.plate("particles", 7, dim=-2):
        trace = poutine.trace(program.model).get_trace(None, source, None)
    kept = trace.nodes["kept"]["value"]
    assert kept.shape == (7, 5, program.net.kept)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert trace.nodes["x"]["value"].shape == (7, 5, 9, 6)
    # The same units, the same answer; others, another.
    again = poutine.condition(program.model, {"kept": kept[3]})(None, source, None)
    torch.testing.assert_close(again, trace.nodes["x"]["value"][3])
    assert not torch.equal(program.translate(source), program.translate(source))


def test_critic_sees_the_source() -> None:
    program = tiny()
    critic, x = program.critic().eval(), torch.rand(2, 9, 6)
    source, other = torch.rand(2, 3, 9, 6), torch.rand(2, 3, 9, 6)
    assert not torch.allclose(critic(x, source), critic(x, other))


def pairs(n: int) -> Data:
    """Bars at random places, to be moved two columns to the right."""
    place = torch.randint(0, 6, (n,))
    source, target = torch.zeros(n, 8, 8), torch.zeros(n, 8, 8)
    rows = torch.arange(n)
    source[rows, :, place], target[rows, :, place + 2] = 1.0, 1.0
    return Data(target, source)


@pytest.mark.parametrize("adversarial", [0.0, 1.0])
def test_learns_what_belongs_to_each_source(adversarial: float) -> None:
    torch.manual_seed(0)
    data = pairs(120)
    program = Pix2Pix.for_data(*data, channels=[8, 16, 16], norm="batch", ink=True, critic={"channels": [8]})
    found = fit(
        program, data, "gan", steps=120, batch_size=30, lr=5e-3, critic_lr=1e-3, reconstruction=20.0,
        adversarial=adversarial, compile="never",
    )  # fmt: skip
    test = pairs(60)
    made = program.translate(test.context)
    # Of 48 pixels a bar has 8, so that nothing and the bar two columns too far left are off by 0.125 and 0.25.
    assert float((made - test.x).abs().mean()) < 0.03
    series = found.history.series("reconstruction")[1]
    assert series[-1] < series[0] / 4


def test_bad_options() -> None:
    with pytest.raises(UnknownNameError, match="'slope'"):
        tiny(critic={"slope": 0.1})
    with pytest.raises(OptionError, match="adversarial=0 leaves nothing"):
        fit(tiny(), Data(torch.rand(4, 9, 6), torch.rand(4, 3, 9, 6)), "gan", adversarial=0.0)


def test_jitter_moves_pairs_as_a_whole_and_only_in_training() -> None:
    x = torch.rand(40, 8, 8)
    program = Pix2Pix([8, 8], [8, 8], channels=[4, 4], jitter=2)
    moved, source = program.augmented(x, 0.5 * x)
    assert torch.equal(source, 0.5 * moved)
    assert not torch.equal(moved, x)
    # Of 25 moves each is as likely: 40 images have more than one, and some stay (their chance: 1 - (24 / 25)^40 = 0.8).
    middles = {tuple(each[2:6, 2:6].flatten().tolist()) for each in moved}
    assert len(middles) == 40
    inside = x.unfold(1, 4, 1).unfold(2, 4, 1).flatten(1, 2)
    for image, windows in zip(moved, inside, strict=True):
        assert bool((windows == image[2:6, 2:6]).all((1, 2)).any())
    still = Pix2Pix([8, 8], [8, 8], channels=[4, 4]).augmented(x, x)
    assert still[0] is x


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("pairs", PAIRS)
def test_letters_are_better_than_what_costs_nothing(pairs: str) -> None:
    """Closer to the true letters than the given ones, and than what the most similar training letter became."""
    test, train = held_out(pairs), datasets.load(pairs).train
    made = translated("pix2pix", pairs)
    for other in (test.context, nearest_pair(test.context, train.context.float(), train.x.float())):
        assert float(absolute_error(made, test.x).mean()) < float(absolute_error(other, test.x).mean())
        assert recognised(made, pairs) > recognised(other, pairs)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "pairs",
    [
        # Seeds differ by more than the game changes there; see the record.
        pytest.param(pairs, marks=[pytest.mark.xfail(reason="not met")] if "bold" in pairs else [])
        for pairs in PAIRS
    ],
)
def test_the_game_makes_letters_sharper_and_no_less_right(pairs: str) -> None:
    """Beside the same network with the same steps and without the game, in the median of three seeds."""
    test, network = held_out(pairs), train_classifier("glyphs")
    game, alone = (
        [translated("pix2pix", pairs, adversarial, seed) for seed in range(3)] for adversarial in (None, 0.0)
    )
    sharp, plain = (median(frechet(made, test.x, network).value for made in each) for each in (game, alone))
    assert sharp < plain
    right = [recognition(made, test.x) for made in alone]
    error = right[0].standard_error
    assert median(recognised(made, pairs) for made in game) >= median(found.share for found in right) - error
