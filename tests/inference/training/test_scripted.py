"""A function run by TorchScript gives what its Python code gives, or says why it cannot be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from inference.training.compiled import Compiled, State, reference
from inference.training.loop import Loop
from inference.training.scripted import IN_PLACE, Scripted, as_it_is, scripted, update_in_place
from inference.training.tracing import NotStatic
from tests.inference.steps import both, ready, small
from tests.inference.training.lines import Line, agree, in_float32, keeping

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


# Adam, one operation in float32, writes where the numbers stand, unless they are read afterwards.


@pytest.fixture
def float32() -> None:
    torch.set_default_dtype(torch.float32)


def test_what_a_step_keeps_of_weights_is_not_written_to(float32) -> None:
    agree(both(keeping(ready(Line(), in_float32(), batch_size=32)), n=7), rtol=1e-4, atol=1e-5)


def written(loop: Loop) -> list[list[str]]:
    """Where the numbers come from that each fused update changes: an input, or an operation."""
    nodes = Compiled([loop], [reference(loop)], "scripted").trace.graph.graph.nodes
    updates = [node for node in nodes if node.target in IN_PLACE.values()]
    changed = [[value for k in (0, 2, 3, 4) for value in node.args[k]] for node in updates]
    return [[str(value.target) if value.op == "call_function" else value.op for value in each] for each in changed]


def test_adam_changes_weights_and_moments_where_they_are(float32) -> None:
    (update,) = written(ready(Line(), in_float32(), batch_size=32))
    assert update == ["placeholder"] * (3 * 4)
    (update,) = written(keeping(ready(Line(), in_float32(), batch_size=32)))
    assert update == ["aten.clone.default"] + ["placeholder"] * (3 * 4 - 1)  # of w, which is kept


def test_a_second_update_of_the_same_step_changes_what_the_first_one_left(float32) -> None:
    program, data = small("gan")
    found = written(ready(program, data, "gan", batch_size=5, critic_steps=2))
    critic = len(list(found[0]))
    assert [len(each) for each in found[:2]] == [critic] * 2
    assert set(found[0]) == {"placeholder"}
    assert set(found[1]) == {"<built-in function getitem>"}


@pytest.mark.parametrize(
    ("name", "method", "chosen"),
    [
        ("vae", "svi", {}),
        ("vae", "svi", {"optimizer": "adamw", "weight_decay": 0.1}),
        pytest.param("vae", "avb", {}, marks=pytest.mark.slow),
        ("gan", "gan", {"critic_steps": 3, "ema": 0.9}),
        pytest.param("cyclegan", "cycle", {}, marks=pytest.mark.slow),
    ],
)
def test_in_place_or_not_the_numbers_are_the_same_bit_for_bit(float32, monkeypatch, name, method, chosen) -> None:
    def trained() -> list[Tensor]:
        torch.manual_seed(0)
        loop = ready(*small(name), method, batch_size=5, **chosen)
        compiled = Compiled([loop], [reference(loop)], "scripted")
        loop.generator.manual_seed(1)
        compiled.advance(6, loop.done)
        return State(loop.parts).copy()

    found = trained()
    monkeypatch.setattr("inference.training.compiled.update_in_place", lambda graph, owned: None)
    for ours, plain in zip(found, trained(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=0, equal_nan=True)


def graph_of(function, *inputs: Tensor) -> GraphModule:
    return make_fx(function)(*inputs)


@pytest.mark.parametrize("view", [lambda w: w, lambda w: w.t(), lambda w: w.reshape(-1), lambda w: w.split(1)[0]])
def test_weights_that_are_read_after_their_update_are_copied_before_it(view) -> None:
    """Through whatever view, and also where the view was made before."""

    def step(w, m, v, count, slope):
        seen = view(w)
        found = torch.ops.aten._fused_adam(
            [w], [slope], [m], [v], [], [count], lr=0.1, beta1=0.9, beta2=0.99, weight_decay=0.0, eps=1e-8,
            amsgrad=False, maximize=False,
        )  # fmt: skip
        return found[0][0], found[2][0], found[3][0], seen * 2

    inputs = [*torch.rand(3, 2, 2), torch.ones(()), torch.randn(2, 2)]
    graph = graph_of(step, *inputs)
    expected = [value.clone() for value in graph(*inputs)]
    update_in_place(graph, range(3))
    given = [value.clone() for value in inputs]
    for found, right in zip(graph(*given), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=0, atol=0)
    torch.testing.assert_close(given[0], inputs[0], rtol=0, atol=0)
    torch.testing.assert_close(given[1], expected[1], rtol=0, atol=0)  # the mean, where it was
    only = graph_of(step, *inputs)
    update_in_place(only, [])
    for found, right in zip(only(*inputs), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=0, atol=0)
