"""The networks of image translation: who sees what, and the distance in which ink weighs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from zoo.errors import OptionError, ShapeError
from zoo.implicit.cyclegan import CycleGAN
from zoo.implicit.pix2pix import Pix2Pix
from zoo.implicit.translators import PatchCritic, ResidualTranslator, Translates, TranslatesBack, UNet, shifted


def parameters_without_gradient(net: nn.Module, out: Tensor) -> list[str]:
    out.square().sum().backward()
    return [name for name, p in net.named_parameters() if p.grad is None or not bool(p.grad.any())]


# The U-Net


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("size", [(32, 32), (9, 6), (2, 31)])
def test_u_net_takes_any_size(norm: str, size: tuple[int, int]) -> None:
    net = UNet((3, *size), 2, [4, 5, 6], norm=norm)
    made = net(torch.rand(4, 3, *size), torch.ones(4, net.kept))
    assert made.shape == (4, 2, *size)
    assert float(made.detach().min()) >= 0
    assert float(made.detach().max()) <= 1
    assert parameters_without_gradient(net, made) == []


def test_u_net_has_the_papers_layers() -> None:
    with torch.device("meta"):
        net = UNet((3, 256, 256), 3, [64, 128, 256, 512, 512, 512, 512, 512], norm="batch")
    down = [layer.weight.shape[0] for layer in net.down.modules() if isinstance(layer, nn.Conv2d)]
    up = [tuple(layer.weight.shape[:2]) for layer in net.up.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert down == [64, 128, 256, 512, 512, 512, 512, 512]
    # "CD512-CD1024-CD1024-C1024-C1024-C512-C256-C128" are the widths beside the skips, which the next layer reads.
    assert [read for read, _ in up] == [512, 1024, 1024, 1024, 1024, 512, 256, 128]
    assert [made for _, made in up] == [512, 512, 512, 512, 256, 128, 64, 3]
    assert net.masks == [(512, 2, 2), (512, 4, 4), (512, 8, 8)]
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in net.modules()) == 6 + 7


def test_skips_carry_what_the_bottleneck_does_not() -> None:
    """With nothing through the innermost layer the output still tells images apart; without skips it does not."""
    net = UNet((1, 16, 16), 1, [4, 8, 8, 8], norm="none")
    x, kept = torch.rand(2, 1, 16, 16), torch.ones(2, net.kept)
    innermost = net.down[-1]
    assert isinstance(innermost, nn.Sequential)
    nn.init.zeros_(innermost[1].weight)
    made = net(x, kept)
    assert not torch.equal(made[0], made[1])
    with torch.no_grad():
        for layer in list(net.up)[1:]:
            assert isinstance(layer, nn.Sequential)
            layer[1].weight[layer[1].in_channels // 2 :] = 0  # what a layer reads of its skip
    made = net(x, kept)
    assert torch.equal(made[0], made[1])


def test_a_pixel_reaches_its_own_place_by_the_outermost_skip() -> None:
    net = UNet((1, 16, 16), 1, [4, 8, 8, 8], norm="none")
    x = torch.rand(1, 1, 16, 16, requires_grad=True)
    innermost = net.down[-1]
    assert isinstance(innermost, nn.Sequential)
    nn.init.zeros_(innermost[1].weight)
    (gradient,) = torch.autograd.grad(net(x, torch.zeros(1, net.kept))[0, 0, 8, 8], x)
    # Units of the three inner layers are dropped, which leaves the outermost skip: one layer down, one up.
    seen = gradient[0, 0].nonzero()
    assert len(seen) > 0
    assert int((seen - 8).abs().max()) <= 4


def test_dropped_units_are_given_and_scaled() -> None:
    net = UNet((1, 8, 8), 1, [4, 8, 8], norm="none", dropout=0.5)
    x = torch.rand(1, 1, 8, 8)
    kept = torch.bernoulli(torch.full((5, 3, net.kept), 0.5))
    made = net(x, kept)
    assert made.shape == (5, 3, 1, 8, 8)
    # Particles and batches are the same numbers, one by one.
    torch.testing.assert_close(made[4, 2], net(x, kept[4, 2][None])[0])
    # What the second layer on the way up reads of the first: the unit that is kept, twice as large, and no other.
    made_by_first: list[Tensor] = []
    net.up[0].register_forward_hook(lambda _, __, made: made_by_first.append(made))
    read_by_second: list[Tensor] = []
    net.up[1].register_forward_pre_hook(lambda _, inputs: read_by_second.append(inputs[0][:, :8]))
    one = torch.zeros(1, net.kept)
    one[0, 5] = 1
    net(x, one)
    want = torch.zeros(1, 32)
    want[0, 5] = 2 * made_by_first[0].flatten()[5]
    torch.testing.assert_close(read_by_second[0].flatten(1), want)


# The residual translator


@pytest.mark.parametrize("size", [(32, 32), (9, 6)])
def test_residual_translator_takes_any_size(size: tuple[int, int]) -> None:
    net = ResidualTranslator((3, *size), 2, [4, 5, 6], blocks=1)
    made = net(torch.rand(5, 4, 3, *size))
    assert made.shape == (5, 4, 2, *size)
    assert float(made.detach().min()) >= 0
    assert float(made.detach().max()) <= 1
    assert parameters_without_gradient(net, made) == []


def test_residual_translator_has_the_papers_layers() -> None:
    net = ResidualTranslator((3, 256, 256), 3, [64, 128, 256], blocks=9)
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    assert [(layer.out_channels, layer.kernel_size[0], layer.stride[0]) for layer in layers] == [
        (64, 7, 1), (128, 3, 2), (256, 3, 2), *[(256, 3, 1)] * 18, (128, 3, 2), (64, 3, 2), (3, 7, 1)
    ]  # fmt: skip


def test_residual_translator_treats_each_image_alone() -> None:
    net, x = ResidualTranslator((1, 8, 8), 1, [4, 8], blocks=1), torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(net(x)[1], net(x[1:2])[0])


# The critic of patches


@pytest.mark.parametrize(
    ("channels", "kernel", "field"),
    [([64, 128], 1, 1), ([64, 128], 4, 16), ([64, 128, 256, 512], 4, 70), ([64, 128, 256, 512, 512, 512], 4, 286)],
)
def test_patches_of_the_papers_critics(channels: Sequence[int], kernel: int, field: int) -> None:
    critic = PatchCritic([3, 256, 256], [3, 256, 256], channels, kernel=kernel, norm="batch")
    assert critic.field == field
    sizes = [layer.out_channels for layer in critic.net if isinstance(layer, nn.Conv2d)]
    assert sizes == [*channels, 1]


@pytest.mark.parametrize(("channels", "kernel"), [([3, 4], 1), ([3], 4), ([3, 4], 4), ([3, 4, 5], 4)])
def test_a_patch_sees_no_further_than_its_field(channels: Sequence[int], kernel: int) -> None:
    critic = PatchCritic([40, 40], [40, 40], channels, kernel=kernel, norm="none")
    x, context = torch.rand(1, 40, 40, requires_grad=True), torch.rand(1, 40, 40, requires_grad=True)
    logits = critic(x, context)
    patches = round(logits.shape[1] ** 0.5)
    middle = patches // 2 * patches + patches // 2
    for seen in torch.autograd.grad(logits[0, middle], (x, context)):
        rows, columns = seen[0].nonzero().unbind(1)
        for where in (rows, columns):
            # Leaky ReLUs are nowhere flat, so that the whole field counts.
            assert int(where.max() - where.min()) + 1 == critic.field


def test_a_critic_of_patches_judges_each_pair() -> None:
    critic = PatchCritic([3, 9, 7], [9, 7], [4, 5])
    logits = critic(torch.rand(6, 3, 9, 7), torch.rand(6, 9, 7))
    assert logits.ndim == 2
    assert len(logits) == 6
    assert parameters_without_gradient(critic, logits) == []


# The programs' common part


def test_ink_and_ground_count_alike() -> None:
    """A tenth of ink: to miss all of it costs as much as to fill all of the ground, one half of the whole."""
    x = torch.zeros(2, 10, 10)
    x[:, 0] = 1
    program = Pix2Pix([10, 10], [10, 10], [4, 4], ink=True)
    program.initialise(x)
    half = torch.full((2,), 0.5)
    torch.testing.assert_close(program.distance(torch.zeros_like(x), x), half)
    torch.testing.assert_close(program.distance(torch.ones_like(x), x), half)
    torch.testing.assert_close(program.distance(x, x), 0 * half)
    plain = Pix2Pix([10, 10], [10, 10], [4, 4])
    plain.initialise(x)
    torch.testing.assert_close(plain.distance(torch.zeros_like(x), x), torch.full((2,), 0.1))


def test_translations_are_promised() -> None:
    pix2pix, cyclegan = Pix2Pix([8, 8], [8, 8], [4, 4]), CycleGAN([8, 8], [8, 8], [4, 4], 1)
    assert isinstance(pix2pix, Translates)
    assert not isinstance(pix2pix, TranslatesBack)
    assert isinstance(cyclegan, TranslatesBack)
    assert pix2pix.translate(torch.rand(3, 8, 8)).shape == (3, 8, 8)
    with pytest.raises(OptionError, match="got to='serif'"):
        pix2pix.translate(torch.rand(3, 8, 8), to="serif")


def test_bad_networks() -> None:
    with pytest.raises(OptionError, match="at least 2 of them"):
        UNet((1, 8, 8), 1, [4])
    with pytest.raises(OptionError, match="got 'layer'"):
        UNet((1, 8, 8), 1, [4, 4], norm="layer")
    with pytest.raises(ShapeError, match="too small"):
        ResidualTranslator((1, 3, 9), 1, [4])
    with pytest.raises(OptionError, match="kernel must be 4, or 1"):
        PatchCritic([8, 8], None, [4], kernel=3)
    with pytest.raises(ShapeError, match="leave nothing"):
        PatchCritic([4, 4], None, [4, 4, 4])
    with pytest.raises(ShapeError, match="one height and width"):
        Pix2Pix([8, 8], [9, 8], [4, 4])


def test_images_are_shifted_by_whole_pixels_and_borders_repeat() -> None:
    images = torch.rand(3, 2, 5, 4)
    down, right = torch.tensor([0, 2, -1]), torch.tensor([0, -1, 2])
    moved = shifted(images, down, right, most=2)
    assert torch.equal(moved[0], images[0])
    assert torch.equal(moved[1, :, 2:, :3], images[1, :, :3, 1:])
    assert torch.equal(moved[1, :, :2, :3], images[1, :, :1, 1:].expand(2, 2, 3))
    assert torch.equal(moved[2, :, :4, 2:], images[2, :, 1:, :2])
    assert torch.equal(moved[2, :, 4, 2:], images[2, :, 4, :2])
