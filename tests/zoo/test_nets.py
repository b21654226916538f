"""Shared networks: sizes, any number of batch dimensions, gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zoo.errors import ShapeError, UnknownNameError
from zoo.nets import ACTIVATIONS, OverBatch, activation, conv_decoder, conv_encoder, image_shape, mlp

SIZES = [(8, 8), (28, 28), (28, 20), (7, 5), (1, 1)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [[], [3], [4, 3, 2]])
def test_convolutions_take_any_size_and_batch(size: tuple[int, int], channels: list[int]) -> None:
    encoder, decoder = conv_encoder((2, *size), channels, 6), conv_decoder(5, channels[::-1], (4, *size))
    x, z = torch.randn(3, 2, 2, *size), torch.randn(2, 3, 1, 5)
    assert encoder(x).shape == (3, 2, 6)
    assert decoder(z).shape == (2, 3, 1, 4, *size)
    # Examples do not mix: one at a time gives the same numbers.
    torch.testing.assert_close(encoder(x)[1, 1], encoder(x[1, 1]))
    torch.testing.assert_close(decoder(z)[1, 2, 0], decoder(z[1, 2, 0]))


@pytest.mark.parametrize("out_bias", [True, False])
def test_gradients_reach_every_parameter(out_bias: bool) -> None:
    nets = [mlp(5, [4, 3], 2, "tanh", out_bias=out_bias), conv_decoder(5, [3, 2], (1, 7, 6), "tanh", out_bias=out_bias)]
    for net in nets:
        net(torch.randn(6, 5)).square().sum().backward()
        assert all(bool((p.grad != 0).any()) for p in net.parameters() if p.grad is not None)
        assert all(p.grad is not None for p in net.parameters())
        last = [m for m in net.modules() if isinstance(m, (nn.Linear, nn.ConvTranspose2d))][-1]
        assert (last.bias is not None) == out_bias


def test_mlp_without_hidden_layers_is_linear() -> None:
    net, x = mlp(3, [], 2), torch.randn(4, 3)
    torch.testing.assert_close(net(2 * x) - net(x), net(x) - net(torch.zeros_like(x)))


def test_over_batch_takes_no_batch_and_an_empty_one() -> None:
    net = OverBatch(nn.Sequential(nn.Flatten(), nn.Linear(6, 4)), 2)
    assert net(torch.randn(2, 3)).shape == (4,)
    assert net(torch.randn(0, 2, 3)).shape == (0, 4)


def test_names_and_shapes_that_do_not_exist() -> None:
    for name in ACTIVATIONS:
        assert activation(name)(torch.zeros(2)).shape == (2,)
    with pytest.raises(UnknownNameError, match="softplus"):
        mlp(2, [2], 2, "softpuls")
    assert image_shape((5, 4)) == (1, 5, 4)
    assert image_shape((3, 5, 4)) == (3, 5, 4)
    with pytest.raises(ShapeError, match=r"\(16,\)"):
        image_shape((16,))
