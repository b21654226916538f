"""The generator with an encoder as its guide: its networks' shapes, both encoders, the critic of pairs."""

from __future__ import annotations

import pytest
import torch
from pyro import poutine
from torch import nn

from inference import fit
from zoo.datasets import load
from zoo.errors import CapabilityError, ImplicitDensityError, OptionError, ShapeError, UnknownNameError
from zoo.implicit.ali import ALI
from zoo.implicit.networks import JointCritic
from zoo.testing import check_program

CONVOLUTIONS = [[6, 3, 1], [8, 4, 2]]


@pytest.mark.parametrize("encoder", ["normal", "deterministic"])
@pytest.mark.parametrize("layers", [[16], CONVOLUTIONS])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_contract(encoder: str, layers: list, batch_norm: bool) -> None:
    critic = {"latent": [8], "joint": [8]}
    check_program(ALI([8, 8], 3, layers, encoder=encoder, batch_norm=batch_norm, critic=critic))


@pytest.mark.parametrize("shape", [[5, 7], [3, 9, 6], [1, 8, 8]])
def test_convolutions_of_any_size_go_up_the_way_they_came_down(shape: list[int]) -> None:
    program = ALI(shape, 4, [[5, 3, 2], [7, 2, 1]], support="real")
    x = torch.randn(6, *shape)
    down = [m for m in program.encoder.modules() if isinstance(m, nn.Conv2d)]
    up = [m for m in program.decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    seen: list[torch.Size] = []
    hooks = [m.register_forward_hook(lambda _, inputs, out: seen.extend((inputs[0].shape, out.shape))) for m in down]
    program.encode(x)
    ways, seen[:] = list(seen), []
    hooks += [m.register_forward_hook(lambda _, inputs, out: seen.extend((inputs[0].shape, out.shape))) for m in up]
    assert program.decode(torch.randn(6, 4)).shape == x.shape
    assert seen == ways[::-1]
    for hook in hooks:
        hook.remove()


def test_the_papers_networks() -> None:
    """ALI's table for SVHN and CIFAR-10: 32 -> 28 -> 13 -> 10 -> 4 -> 1, all widths."""
    layers = [[32, 5, 1], [64, 4, 2], [128, 4, 1], [256, 4, 2], [512, 4, 1], [512, 1, 1]]
    program = ALI([3, 32, 32], 64, layers)
    down = [m for m in program.encoder.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in down] == [32, 64, 128, 256, 512, 512]
    sides = []
    hooks = [m.register_forward_hook(lambda _, inputs, out: sides.append(out.shape[-1])) for m in down]
    program.encode(torch.rand(2, 3, 32, 32))
    assert sides == [28, 13, 10, 4, 1, 1]
    for hook in hooks:
        hook.remove()
    assert program.generate(2).shape == (2, 3, 32, 32)
    # The preset is the same for 28 x 28.
    preset = ALI([28, 28], **ALI.presets["paper"].program)
    assert preset.generate(2).shape == (2, 28, 28)
    critic = preset.joint_critic()
    assert critic(torch.rand(2, 28, 28), torch.randn(2, 64)).shape == (2,)


@pytest.mark.parametrize("name", ALI.presets)
def test_presets_build_and_fit(name: str) -> None:
    preset = ALI.presets[name]
    x = torch.rand(8, 28, 28)
    found = fit(ALI([28, 28], **preset.program), x, preset.method, **{**preset.fit, "steps": 1, "epochs": None})
    assert found.draw(2, x)["z"].shape == (2, 8, found.program.latent_dim)
    assert found.program.reconstruct(x).shape == x.shape


def test_a_deterministic_encoder_has_no_density_and_one_answer() -> None:
    program = ALI([4], 2, [8], encoder="deterministic").eval()
    trace = poutine.trace(program.guide).get_trace(torch.rand(5, 4))
    with pytest.raises(ImplicitDensityError):
        trace.log_prob_sum()
    x = torch.rand(5, 4)
    assert torch.equal(program.encode(x).rsample(), program.encode(x).rsample())
    normal = ALI([4], 2, [8]).eval()
    assert not torch.equal(normal.encode(x).rsample(), normal.encode(x).rsample())
    assert torch.equal(normal.reconstruct(x), normal.decode(normal.encode(x).mean))


def test_initialise_sets_the_mean_image() -> None:
    x = torch.rand(50, 3, 3)
    for support in ("unit", "real"):
        program = ALI([3, 3], 2, [8], support=support)
        with torch.no_grad():
            program.initialise(x)
            program.decoder.net[-2].weight.zero_()
        assert torch.allclose(program.generate(2), x.mean(0).expand(2, 3, 3))


def test_the_critic_sees_both_and_judges_each_pair_alone() -> None:
    for layers in ([16], CONVOLUTIONS):
        critic = JointCritic(torch.Size([8, 8]), 3, layers=layers, latent=[5], joint=[7]).eval()
        x, z = torch.rand(4, 8, 8, requires_grad=True), torch.randn(4, 3, requires_grad=True)
        logits = critic(x, z)
        assert logits.shape == (4,)
        assert torch.allclose(critic(x[1:3], z[1:3]), logits[1:3])
        gx, gz = torch.autograd.grad(logits[0], (x, z))
        for gradient in (gx, gz):
            assert float(gradient[0].abs().sum()) > 0
            assert float(gradient[1:].abs().sum()) == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"encoder": "gaussian"}, OptionError),
        ({"support": "positive"}, OptionError),
        ({"layers": []}, OptionError),
        ({"layers": [8, [8, 3, 1]]}, OptionError),
        ({"layers": [[8, 5, 1], [8, 5, 1]]}, ShapeError),
        ({"critic": {"layers": [[8, 9, 1]]}}, ShapeError),
        ({"critic": {"width": 8}}, UnknownNameError),
        ({"critic": [64]}, OptionError),
        ({"event_shape": [4], "layers": [[8, 3, 1]]}, ShapeError),
    ],
)
def test_what_does_not_fit_is_refused(options: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        ALI(**options)


def test_a_game_of_images_needs_another_critic() -> None:
    with pytest.raises(CapabilityError, match="suggests no critic"):
        fit(ALI([4], 2, [8]), torch.rand(5, 4), "gan")


@pytest.mark.slow
def test_reconstructions_of_held_out_digits_are_of_the_right_class(zoo_data) -> None:
    from inference.evaluation.samples.classifier import train_classifier

    torch.set_default_dtype(torch.float32)
    data, preset = load("mnist10k"), ALI.presets["small"]
    torch.manual_seed(0)
    program = ALI.for_data(data.train.x, **preset.program)
    found = fit(program, data.train.x, preset.method, seed=0, device="cpu", **preset.fit)
    assert not found.info["collapsed"]
    assert not found.info["saturated"]
    again = program.reconstruct(data.test.x)
    right = train_classifier(data).classify(again) == data.labels["test"]
    assert float(right.double().mean()) >= 0.9
