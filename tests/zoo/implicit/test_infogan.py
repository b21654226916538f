"""InfoGAN: the contract, the guide as code network, the information bound as an ELBO term; measures of codes."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints

from inference import fit
from inference.evaluation.samples.codes import code_accuracy, code_effects, guess_codes, match_codes, slant, width
from inference.games.gan import GANGame
from zoo.datasets.data import Data
from zoo.errors import EmptyDataError, OptionError, ShapeError, UnknownNameError
from zoo.implicit.gan import GAN
from zoo.implicit.infogan import InfoGAN
from zoo.testing import check_program

SMALL = {"categories": 4, "latent_dim": 3, "hidden": 8, "channels": [4, 4], "reader": {"hidden": 8}}


@pytest.mark.parametrize("event_shape", [[8, 8], [7, 9], [3, 8, 8]])
def test_contract(event_shape: list[int]) -> None:
    check_program(InfoGAN(event_shape, **SMALL))


@pytest.mark.parametrize("name", InfoGAN.presets)
def test_presets_build_and_fit(name: str) -> None:
    preset = InfoGAN.presets[name]
    program, x = InfoGAN(**preset.program), torch.rand(10, 8, 8)
    found = fit(program, x, preset.method, **{**preset.fit, "steps": 1, "epochs": None})
    assert found.program.generate(2).shape == (2, 8, 8)


def test_the_papers_sizes() -> None:
    program = InfoGAN([28, 28], **InfoGAN.presets["paper"].program)
    shapes = [tuple(p.shape) for name, p in program.named_parameters() if name.startswith("generator") and p.ndim > 1]
    assert shapes == [(1024, 74), (7 * 7 * 128, 1024), (128, 64, 4, 4), (64, 1, 4, 4)]
    critic = [tuple(p.shape) for p in program.critic().parameters() if p.ndim > 1]
    assert critic == [(64, 1, 4, 4), (128, 64, 4, 4), (1024, 7 * 7 * 128), (1, 1024)]
    reader = [tuple(p.shape) for p in program.reader.parameters() if p.ndim > 1]
    assert reader == [(128, 1024), (10 + 2 * 2, 128)]


def test_sites_and_guide() -> None:
    program = InfoGAN(**SMALL)
    assert list(program.sites()) == ["c", "s", "z"]
    guided = poutine.trace(program.guide).get_trace(torch.rand(5, 8, 8), None, None)
    assert guided.nodes["c"]["value"].shape == (5, 4)
    assert guided.nodes["s"]["value"].shape == (5, 2)
    assert "z" not in guided.nodes
    # The guide's support is the prior's.
    assert guided.nodes["s"]["fn"].support.base_constraint is constraints.real
    assert program.sites()["s"].support.base_constraint is constraints.real


def test_the_guide_is_read_from_images_as_they_are_but_in_training() -> None:
    program, x = InfoGAN(**SMALL), torch.rand(5, 8, 8)

    def read() -> tuple[Tensor, Tensor]:
        nodes = poutine.trace(program.guide).get_trace(x, None, None).nodes
        return nodes["c"]["fn"].logits, nodes["s"]["fn"].mean

    (first, slants), (second, again) = read(), read()
    assert not torch.allclose(first, second)
    assert torch.equal(slants, again)  # continuous codes are of how the image stands
    program.eval()
    for a, b in zip(read(), read(), strict=True):
        assert torch.equal(a, b)


def test_scale_has_a_floor_and_moves_can_be_left_out() -> None:
    program, x = InfoGAN(**{**SMALL, "reader": {"least_scale": 0.7, "moves": 0.0}}), torch.rand(5, 8, 8)
    first = poutine.trace(program.guide).get_trace(x, None, None).nodes
    second = poutine.trace(program.guide).get_trace(x, None, None).nodes
    assert torch.equal(first["c"]["fn"].logits, second["c"]["fn"].logits)
    assert float(first["s"]["fn"].stddev.detach().min()) > 0.7


def test_samples_take_particle_dimensions() -> None:
    program = InfoGAN(**SMALL)
    with pyro.plate("particles", 7, dim=-2):
        trace = poutine.trace(program.model).get_trace(None, None, 5)
    assert trace.nodes["c"]["value"].shape == (7, 5, 4)
    assert trace.nodes["x"]["value"].shape == (7, 5, 8, 8)


def test_moves_keep_where_nothing_moves_and_move_otherwise() -> None:
    program = InfoGAN(**{**SMALL, "reader": {"moves": 1e-6}})
    x = torch.rand(3, 1, 8, 8)
    assert torch.allclose(program._moved(x), x, atol=1e-4)
    program.moves = 1.0
    assert not torch.allclose(program._moved(x), x, atol=1e-1)


def test_the_generators_turn_does_not_move_what_judges_it() -> None:
    """The guide's layers, the critic's among them, learn in the critic's turn; the generator's in its own."""
    program, data = InfoGAN(**SMALL), Data(torch.rand(20, 8, 8))
    contest = GANGame().contest(program, data)
    moved, judges = {id(p) for p in contest.parameters}, {id(p) for p in contest.critic_parameters()}
    assert moved == {id(p) for p in program.generator.parameters()}
    assert judges >= {id(p) for module in (program.trunk, program.reader) for p in module.parameters()}
    assert not moved & judges
    sides = contest.sides(data, makers=False)
    loss = contest.critic_loss(sides, data)
    assert loss is not None
    loss.backward()
    assert all(p.grad is not None for module in (program.trunk, program.reader) for p in module.parameters())
    with pytest.raises(OptionError, match="leave ema out"):
        fit(program, data, "gan", ema=0.9)


def test_bad_options() -> None:
    with pytest.raises(OptionError, match="categories must be at least 2"):
        InfoGAN(categories=1)
    with pytest.raises(OptionError, match="least_scale must be positive"):
        InfoGAN(reader={"least_scale": 0.0})
    with pytest.raises(UnknownNameError, match="InfoGAN's reader 'width'"):
        InfoGAN(reader={"width": 8})
    with pytest.raises(ShapeError, match="images"):
        InfoGAN([5])


# The bound


def bounds(program: InfoGAN, information: object) -> tuple[Tensor, Tensor]:
    """(What the makers minimise besides the game, the bound in nats) from the same dreams."""
    data = Data(torch.rand(2000, 8, 8))
    contest = GANGame(information=information).contest(program, data)  # type: ignore[arg-type]
    torch.manual_seed(0)
    sides = contest.sides(data, makers=True)
    assert sides.loss is not None
    return sides.loss.detach(), sides.metrics["information"].detach()


def test_the_information_bound_of_a_guide_that_knows_nothing() -> None:
    """q(c) = p(c) gives no nats; q(s) = N(0, sd^2) gives minus its divergence from the prior."""
    program = InfoGAN(**SMALL)
    with torch.no_grad():
        program.reader[-1].weight.zero_()
        program.reader[-1].bias.zero_()
    sd = 0.5 + math.log(2)
    # E_p[log q - log p] of one code, minus the divergence of p from q.
    exact = -math.log(sd) - 0.5 / sd**2 + 0.5
    loss, information = bounds(program, {"s": 0.25})
    # Standard error: that of 4000 squared normals times |1 / sd^2 - 1| / 2, of two codes each.
    error = 2 * abs(1 / sd**2 - 1) / 2 * math.sqrt(2 / 4000)
    assert abs(float(information) - 2 * exact) < 5 * error
    assert torch.allclose(loss, -0.25 * information)


def test_weights_are_by_code() -> None:
    program = InfoGAN(**SMALL)
    one, information = bounds(program, 1.0)
    assert torch.allclose(one, -information)
    of_class, _ = bounds(program, {"s": 0.0})
    of_codes, _ = bounds(program, {"c": 0.0})
    mixed, _ = bounds(program, {"c": 2.0, "s": 0.5})
    assert torch.allclose(one, of_class + of_codes)
    assert torch.allclose(mixed, 2 * of_class + 0.5 * of_codes)
    with pytest.raises(UnknownNameError, match="'t'"):
        bounds(program, {"t": 1.0})
    with pytest.raises(OptionError, match=r"information .*at least 0"):
        GANGame(information={"c": -1.0})


def test_a_guide_learns_to_read_dreams_and_is_what_comes_out() -> None:
    torch.manual_seed(0)
    x = torch.rand(400, 8, 8)
    program = InfoGAN.for_data(
        x, categories=2, codes=1, latent_dim=2, hidden=16, channels=[4, 8], reader={"moves": 0.5}
    )
    found = fit(program, x, "gan", steps=100, batch_size=50, lr=2e-3, information={"s": 0.0}, compile="never")
    assert found.history.rows[-1]["information"] > 0.9 * math.log(2)
    dreams = poutine.trace(program.model).get_trace(None, None, 500).nodes
    assert float((guess_codes(program, dreams["x"]["value"]) == dreams["c"]["value"].argmax(-1)).double().mean()) > 0.95
    assert found.draw(3, x[:5])["c"].shape == (3, 5, 2)


# Measures of codes


def test_codes_are_matched_one_to_one_and_judged_on_others() -> None:
    codes, labels = torch.tensor([2, 2, 2, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 1, 1, 1, 0, 0, 0])
    # Code 2 is for class 0 twice and code 1 three times: only one of them can have it.
    matching = match_codes(codes, labels)
    assert matching == {0: 1, 1: 0}
    assert code_accuracy(torch.tensor([0, 1, 2, 1]), torch.tensor([1, 0, 0, 1]), matching) == 0.5
    with pytest.raises(ShapeError):
        match_codes(codes, labels[:3])
    with pytest.raises(EmptyDataError):
        match_codes(codes[:0], labels[:0])


def test_slant_and_width_of_drawn_strokes() -> None:
    rows, columns = torch.meshgrid(torch.arange(21.0), torch.arange(31.0), indexing="ij")

    def stroke(lean: float, half: float) -> Tensor:
        return ((columns - 15 + lean * (rows - 10)).abs() <= half).double()

    drawn = torch.stack([stroke(0.0, 2), stroke(0.5, 2), stroke(-0.5, 2), stroke(0.0, 4), stroke(0.5, 4)])
    assert torch.allclose(slant(drawn), torch.tensor([0.0, 0.5, -0.5, 0.0, 0.5]), atol=0.02)
    wide = torch.tensor([2.0, 2, 2, 4, 4])
    # n columns 1 apart have variance (n^2 - 1) / 12; on leaning strokes their ends are rounded.
    assert torch.allclose(width(drawn), (((2 * wide + 1) ** 2 - 1) / 12).sqrt(), atol=0.15)
    with pytest.raises(ShapeError, match="images"):
        slant(drawn[0])


def test_effects_of_a_code_that_leans_its_image() -> None:
    class Leaning(InfoGAN):
        """The first code leans a stroke, the second does nothing."""

        def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
            with self.plate(x, context, size):
                pyro.sample("c", dist.OneHotCategorical(torch.ones(4)))
                s = pyro.sample("s", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            lean = s[:, 0, None, None]
            row, column = torch.arange(8.0)[:, None], torch.arange(8.0)
            image = (-((column - 3.5 + 0.2 * lean * (row - 3.5)) ** 2)).exp()
            return pyro.sample("x", dist.Delta(image, event_dim=2))

    first, second = code_effects(Leaning(**SMALL), n=400)
    assert first["slant"] > 0.95
    assert abs(second["slant"]) < 0.3
    with pytest.raises(OptionError, match="no site 't'"):
        code_effects(InfoGAN(**SMALL), site="t")
    with pytest.raises(OptionError, match="no categorical site 's'"):
        guess_codes(InfoGAN(**SMALL), torch.rand(4, 8, 8), site="s")
    with pytest.raises(OptionError, match="no categorical site 'c'"):
        guess_codes(GAN(), torch.rand(4, 8, 8))
