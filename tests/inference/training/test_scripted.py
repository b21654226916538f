"""A function run by TorchScript gives what its Python code gives, or says why it cannot be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inference.training.scripted import Scripted, as_it_is, scripted
from inference.training.tracing import NotStatic

POINTS = [torch.tensor(rows, dtype=torch.float64) for rows in ([[0.3, -1.0], [2.0, 0.5]], [[-0.7, 0.1], [1.0, 1.5]])]


def slope_of(function):
    """Values and slopes, as a density has them."""

    def both(z: Tensor) -> tuple[Tensor, Tensor]:
        at = z.detach().requires_grad_()
        with torch.enable_grad():
            value = function(at)
            (slope,) = torch.autograd.grad(value.sum(), at)
        return value.detach(), slope

    return both


def matrices(z: Tensor) -> Tensor:
    """A matrix for each row, positive definite where the row's second number is below one in size."""
    off = z[:, 1]
    return torch.stack([torch.ones_like(off), off, off, torch.ones_like(off)], -1).reshape(-1, 2, 2)


@pytest.mark.parametrize(
    "function",
    [
        lambda z: -(z * z).sum(-1) + z.exp().sum(-1) * 0.5,
        lambda z: (z @ torch.arange(6.0).reshape(2, 3)).softmax(-1)[:, 0].log(),
        lambda z: (
            torch.linalg.cholesky(torch.eye(2) * 3 + z[:, :, None] * z[:, None]).diagonal(0, -2, -1).log().sum(-1)
        ),
        lambda z: torch.where(z > 0, z.log1p(), z).sum(-1) + 0.0,
        lambda z: z.clone().mul_(2).add_(1).square().sum(-1),
    ],
)
def test_values_and_slopes_are_those_of_python(function) -> None:
    both = slope_of(function)
    scripted = Scripted(both, POINTS, 1e-12)
    other = torch.tensor([[0.9, 0.2], [-0.4, -0.3]])
    for found, expected in zip(scripted(other), both(other), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        assert not found.requires_grad


def test_what_does_not_depend_on_the_input_is_computed_once() -> None:
    given = torch.linspace(0.1, 1.0, 7)

    def density(z: Tensor) -> Tensor:
        weights = given
        for _ in range(40):
            weights = (weights.sin() + weights.exp()).softmax(0)
        return (z[:, :1] * weights).sum(-1)

    whole = Scripted(slope_of(density), POINTS, 1e-12)._run.graph
    assert sum(node.kind().startswith("aten::") for node in whole.nodes()) < 20


def test_a_matrix_without_a_factor_spoils_its_own_row_alone() -> None:
    both = slope_of(lambda z: torch.linalg.cholesky(matrices(z)).diagonal(0, -2, -1).log().sum(-1))
    good = torch.tensor([[0.0, 0.5], [0.0, -0.2]])
    found = Scripted(both, [good], 1e-12)
    value, slope = found(torch.tensor([[0.0, 0.5], [0.0, 2.0]]))
    assert torch.isnan(value[1])
    torch.testing.assert_close(value[0], both(good)[0][0])
    torch.testing.assert_close(slope[0], both(good)[1][0])


def test_nothing_is_left_in_the_process_when_it_is_gone() -> None:
    """`torch.jit.trace` would add each function to a unit of the process, with its constants: 3 MB for a VAE's step."""
    before = len(torch.jit._state._python_cu.get_functions())
    run = scripted(lambda z: (z.exp(),), [torch.zeros(3, dtype=torch.float64)])
    with as_it_is():
        torch.testing.assert_close(run(torch.zeros(3, dtype=torch.float64))[0], torch.ones(3, dtype=torch.float64))
    assert len(torch.jit._state._python_cu.get_functions()) == before


def test_what_cannot_be_traced_is_refused() -> None:
    def branching(z: Tensor) -> Tensor:
        return z.sum(-1) if float(z[0, 0]) > 0 else z.square().sum(-1)

    calls = []

    def counting(z: Tensor) -> Tensor:
        calls.append(None)
        return z.sum(-1) * len(calls)

    with pytest.raises(NotStatic, match="looks at the value of a tensor"):
        Scripted(slope_of(branching), POINTS, 1e-12)
    with pytest.raises(NotStatic, match="which cannot be fed"):
        Scripted(slope_of(lambda z: (z * torch.rand_like(z)).sum(-1)), POINTS, 1e-12)
    with pytest.raises(NotStatic, match="give something else"):
        Scripted(slope_of(counting), POINTS, 1e-12)
