"""Tensors without values: the device 'meta' stands for a GPU: what is made on the CPU by mistake cannot meet it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import pytest
import torch
from torch import Tensor, nn

from inference.training.loop import Loop


@contextmanager
def without_values() -> Iterator[None]:
    """Nothing looks whether values are allowed; tensors without values are taken for others, which are refused."""
    with pytest.MonkeyPatch.context() as patch, pyro.validation_enabled(False):
        patch.setattr(torch.Tensor, "is_meta", property(lambda self: False), raising=False)
        patch.setattr(torch.distributions.Distribution, "_validate_args", False)
        yield


def move(loop: Loop) -> None:
    """Parameters, buffers and data of a loop that stands ready lose their values; its optimizers follow."""
    moved: dict[Tensor, Tensor] = {}

    def meta(tensor: Tensor) -> Tensor:
        if tensor not in moved:
            new = tensor.detach().to("meta")
            trained = isinstance(tensor, nn.Parameter)
            moved[tensor] = nn.Parameter(new, requires_grad=tensor.requires_grad) if trained else new
        return moved[tensor]

    parts = loop.parts.values()
    for module in (each for part in parts if isinstance(part, nn.Module) for each in part.modules()):
        for kept in (module._parameters, module._buffers):
            kept.update({name: meta(tensor) for name, tensor in kept.items() if tensor is not None})
    for group in (each for part in parts if isinstance(part, torch.optim.Optimizer) for each in part.param_groups):
        # One operation for all parameters is made for devices with values alone.
        group.update(params=[meta(tensor) for tensor in group["params"]], fused=False, foreach=False)
    loop.data = loop.data.like([tensor.to("meta") for tensor in loop.data.tensors()])
    loop.done = 1  # the first step of all is validated, which looks at values
