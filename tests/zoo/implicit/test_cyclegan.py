"""CycleGAN: the contract, the two translators, and what each of them is to the other."""

from __future__ import annotations

import pytest
import torch
from pyro import poutine

from inference import fit, methods_for
from tests.zoo.implicit.translations import PAIRS, held_out, recognised, translated
from zoo.datasets.data import Data
from zoo.errors import ShapeError, UnknownNameError
from zoo.implicit.cyclegan import CycleGAN
from zoo.testing import check_program

TINY = {"channels": [4, 4], "blocks": 1, "critic": {"channels": [4]}}


@pytest.mark.parametrize("shape", [[9, 6], [3, 8, 8]])
def test_contract(shape: list[int]) -> None:
    check_program(CycleGAN(shape, shape, **TINY))


@pytest.mark.parametrize("name", CycleGAN.presets)
def test_presets_build_and_fit(name: str) -> None:
    preset = CycleGAN.presets[name]
    critic = {**preset.program.get("critic", {}), "channels": [4, 4]}
    data = Data(torch.rand(2, 16, 16), torch.rand(2, 16, 16))
    program = CycleGAN.for_data(*data, **{**preset.program, "critic": critic}).to(torch.float32)
    found = fit(program, data, preset.method, **{**preset.fit, "steps": 1, "epochs": None, "compile": "never"})
    assert found.program.translate(data.context).shape == (2, 16, 16)
    assert {"cycle", "identity", "loss", "critic_accuracy"} <= set(found.history.metrics)


def test_the_papers_sizes() -> None:
    with torch.device("meta"):
        program = CycleGAN([3, 256, 256], [3, 256, 256], **CycleGAN.presets["paper"].program)
        critic = program.critic()
    # The authors' code counts 11.378 million parameters in each translator, 2.765 in each critic, biases before
    # instance norm included, which undo themselves and are left out here.
    of_translator = sum(p.numel() for p in program.to_x.parameters())
    idle = 64 + 128 + 256 * 19 + 128 + 64
    assert round((of_translator + idle) / 1e6, 3) == 11.378
    assert round((sum(p.numel() for p in critic.parameters()) + 128 + 256 + 512) / 1e6, 3) == 2.765
    assert critic.field == 70


def test_translators_are_model_and_guide() -> None:
    program, source = CycleGAN([8, 8], [8, 8], **TINY).eval(), torch.rand(5, 8, 8)
    x = program.translate(source)
    trace = poutine.trace(program.model).get_trace(None, source, None)
    assert torch.equal(trace.nodes["source"]["value"], source)
    torch.testing.assert_close(trace.nodes["x"]["value"], x)
    torch.testing.assert_close(x, program.to_x(source[:, None])[:, 0])
    guided = poutine.trace(program.guide).get_trace(x, None, None)
    torch.testing.assert_close(guided.nodes["source"]["value"], program.back(x))
    torch.testing.assert_close(program.back(x), program.to_source(x[:, None])[:, 0])


def test_methods() -> None:
    """The game alone, of one direction and without cycles, is the paper's ablation."""
    program = CycleGAN([8, 8], [8, 8], **TINY)
    assert set(methods_for(program)) == {"cycle", "gan"}
    before = program.to_source.net[1].weight.clone()
    fit(program, Data(torch.rand(4, 8, 8), torch.rand(4, 8, 8)), "gan", steps=2, compile="never")
    assert torch.equal(program.to_source.net[1].weight, before)


def test_bad_options() -> None:
    with pytest.raises(ShapeError, match="both ways"):
        CycleGAN([8, 8], [3, 8, 8])
    with pytest.raises(UnknownNameError, match="'width'"):
        CycleGAN(critic={"width": 3})
    with pytest.raises(ShapeError, match="context"):
        fit(CycleGAN([8, 8], [8, 8], **TINY), torch.rand(4, 8, 8), "cycle")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "pairs",
    [
        # Plain letters are recognised nearly as often as what pairs make of them, and no seed has come between.
        pytest.param(pairs, marks=[pytest.mark.xfail(reason="not met")] if pairs == "glyphs-sans-to-serif" else [])
        for pairs in PAIRS
    ],
)
def test_without_pairs_more_than_half_of_what_pairs_are_worth(pairs: str) -> None:
    copied, paired = recognised(held_out(pairs).context, pairs), recognised(translated("pix2pix", pairs), pairs)
    assert recognised(translated("cyclegan", pairs), pairs) > (copied + paired) / 2
