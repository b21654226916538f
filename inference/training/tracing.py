"""One training step in Python as a pure function of tensors: (state, minibatch, noise, scalars) -> (state, metrics).

Under `make_fx`, what model, guide, bound, backward and optimizer do leaves a list of tensor operations. Tensors are
known to the tracer by identity, so a step needs no rewriting: what its closures hold, parameters and the optimizers'
own included, becomes an input and, where it was changed in place, an output.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.func import functionalize
from torch.fx import Graph, GraphModule, Node
from torch.fx._lazy_graph_module import _use_lazy_graph_module
from torch.fx.experimental import proxy_tensor
from torch.overrides import TorchFunctionMode

from inference.training.noise import Noise
from zoo.datasets.data import Data

__all__ = [
    "NotStatic",
    "State",
    "Step",
    "Trace",
    "explain",
    "made_static",
    "make_fx",
    "trace_step",
    "without_mutations",
]

Step = Callable[[Data, Mapping[str, Any]], Mapping[str, Tensor]]
"""(minibatch, scalars of this step) -> metrics, updating modules and optimizers in place."""

INTEGER_POWERS = (torch.ops.aten.pow.Scalar, torch.ops.aten.pow.Tensor_Scalar)


class NotStatic(Exception):
    """The step cannot be traced: its control flow depends on values, or it draws what cannot be fed to it."""


class State:
    """The tensors that a step updates in place: parameters, buffers, and the optimizers' own."""

    def __init__(self, parts: Mapping[str, Any]):
        self.modules = [part for part in parts.values() if isinstance(part, nn.Module)]
        self.optimizers = [part for part in parts.values() if isinstance(part, torch.optim.Optimizer)]

    def tensors(self) -> list[Tensor]:
        """Each tensor once, always in the same order."""
        found: dict[int, Tensor] = {}
        for module in self.modules:
            for tensor in (*module.parameters(), *module.buffers()):
                found.setdefault(id(tensor), tensor)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    for value in optimizer.state.get(parameter, {}).values():
                        if isinstance(value, Tensor):
                            found.setdefault(id(value), value)
        return list(found.values())

    def copy(self) -> list[Tensor]:
        """A copy of their values."""
        return [tensor.detach().clone() for tensor in self.tensors()]

    @torch.no_grad()
    def restore(self, values: Sequence[Tensor]) -> None:
        """Writes values back."""
        for tensor, value in zip(self.tensors(), values, strict=True):
            tensor.copy_(value)


@dataclass(frozen=True)
class Trace:
    """One step as a graph: (state, x, context, normals, uniforms, scalars, constants) to (state, metrics)."""

    graph: GraphModule
    constants: list[Tensor]
    metrics: list[str]
    normals: int
    uniforms: int


class CapturableOptimizers:
    """While it lasts, optimizers take the path that keeps step counts in tensors, as under torch.compile.

    Args:
        optimizers: Of the step.
        fused: Leaves Adam and AdamW their one operation for all parameters, where they have it.
    """

    OPTIONS = {"capturable": True, "foreach": False, "fused": False}  # noqa: RUF012

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], fused: bool):
        self.groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self.fused = [fused and isinstance(o, torch.optim.Adam) for o in optimizers for _ in o.param_groups]

    def __enter__(self) -> None:
        self.before = [{k: group[k] for k in (*self.OPTIONS, "lr") if k in group} for group in self.groups]
        for group, fused in zip(self.groups, self.fused, strict=True):
            group.update({k: v for k, v in self.OPTIONS.items() if k in group and not (fused and k == "fused")})
        self.flag = torch.compiler._is_compiling_flag
        torch.compiler._is_compiling_flag = True

    def __exit__(self, *exc: object) -> None:
        torch.compiler._is_compiling_flag = self.flag
        for group, before in zip(self.groups, self.before, strict=True):
            group.update(before)


FUSED = {torch._fused_adam_: torch.ops.aten._fused_adam, torch._fused_adamw_: torch.ops.aten._fused_adamw}
"""An update of all parameters in place -> the one that returns them, which tracing needs (no shapes of the first)."""


RECURRENT = (torch.gru, torch.lstm, torch.rnn_relu, torch.rnn_tanh)
"""Networks whose weights cuDNN moves to a place of its own."""


class Traceable(TorchFunctionMode):
    """Writes out what is done out of the tracer's sight: running averages, fused optimizers, rates that are tensors.

    Optimizers want a number where the learning rate stands in add_(alpha=) and addcdiv_(value=).
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Writes the product, or the changes in place, out."""
        kwargs = kwargs or {}
        if func in FUSED:
            parameters, _, means, squares, largest, _ = args
            found = FUSED[func](*args, **kwargs)
            for old, new in zip((parameters, means, squares, largest), (found[0], *found[2:]), strict=True):
                for tensor, value in zip(old, new, strict=True):
                    tensor.copy_(value)
            return None
        if func is torch.nn.functional.batch_norm:
            return _batch_norm(*args, **kwargs)
        if func is torch.nn.functional.one_hot and (classes := [*args[1:], *kwargs.values(), -1][0]) > 0:
            # Which would see whether the classes are there.
            return (args[0][..., None] == torch.arange(classes, device=args[0].device)).long()
        if func in RECURRENT:
            with torch.backends.cudnn.flags(enabled=False):
                return func(*args, **kwargs)
        if func is Tensor.add_ and isinstance(kwargs.get("alpha"), Tensor):
            return args[0].add_(kwargs["alpha"] * args[1])
        if func is Tensor.addcdiv_ and isinstance(kwargs.get("value"), Tensor):
            return args[0].add_(kwargs["value"] * args[1] / args[2])
        return func(*args, **kwargs)


def _batch_norm(
    x: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm`, which would change the running averages inside of its kernel."""
    if not training or mean is None or var is None:
        return torch.nn.functional.batch_norm(x, mean, var, weight, bias, training, momentum, eps)
    found, seen, inverse = torch.native_batch_norm(x, weight, bias, None, None, True, momentum, eps)
    with torch.no_grad():
        rows = x.numel() // x.shape[1]
        spread = (inverse**-2 - eps) * (rows / (rows - 1))
        for average, value in ((mean, seen), (var, spread)):
            average.copy_((1 - momentum) * average + momentum * value)
    return found


def make_fx(function: Callable[..., Any]) -> Callable[..., GraphModule]:
    """`make_fx` of torch, whose nodes note of a tensor its shape, strides and type (`val`) and its `device`.

    torch's own notes are fake tensors, which take nearly as long to make as all else that a trace does; and it would
    write out and compile as Python what is changed afterwards.
    """

    def noted(proxy: Any, value: Any) -> Any:
        proxy.node.meta["val"] = _shapes(value)
        if isinstance(value, Tensor):
            proxy.node.meta["device"] = value.device
        return proxy

    def traced(*args: Any) -> GraphModule:
        proxy_tensor.set_meta = noted  # type: ignore[assignment]
        try:
            with _use_lazy_graph_module(True):
                return proxy_tensor.make_fx(function)(*args)
        finally:
            proxy_tensor.set_meta = own

    own = proxy_tensor.set_meta
    return traced


def _shapes(value: Any) -> Any:
    """Tensors without their numbers."""
    if isinstance(value, list | tuple):
        return type(value)(map(_shapes, value))
    if not isinstance(value, Tensor):
        return value
    if value.layout is not torch.strided:
        return None
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def trace_step(
    step: Step,
    state: State,
    batch: Data,
    scalars: Mapping[str, Tensor],
    noise: tuple[Tensor, Tensor],
    fused: bool = False,
) -> Trace:
    """Traces a step; its effect on the state is undone. `fused` keeps Adam one operation, which vmap cannot take."""
    before = state.copy()
    graph, names = _recorded(step, state, batch, scalars, noise, fused)
    constants = _lift_constants(graph)
    inputs = [value.detach() for value in (*before, *batch.tensors(), *noise, *scalars.values(), *constants)]
    pure = without_mutations(graph, [v.clone() if i < len(before) else v for i, v in enumerate(inputs)])
    for node in list(pure.graph.nodes):
        if node.op == "call_function":
            made_static(pure, node)
    constants += _lift_constants(pure)
    pure.graph.eliminate_dead_code()
    pure.recompile()
    return Trace(pure, constants, names, normals=noise[0].numel(), uniforms=noise[1].numel())


def _recorded(
    step: Step,
    state: State,
    batch: Data,
    scalars: Mapping[str, Tensor],
    noise: tuple[Tensor, Tensor],
    fused: bool,
) -> tuple[GraphModule, list[str]]:
    """What the step does, as a graph that changes the state in place, and the names of its metrics."""
    names: list[str] = []

    # Tensors are known to the tracer by identity: what the step's closures hold is what is passed here.
    def traced(tensors: list[Tensor], rows: list[Tensor], noise: Any, now: dict[str, Tensor]) -> Any:
        with Traceable(), Noise(*noise):
            metrics = step(batch.like(rows), now)
        names[:] = list(metrics)
        return state.tensors(), [value.detach() for value in metrics.values()]

    before = state.copy()
    gradients = {p: p.grad for module in state.modules for p in module.parameters()}
    try:
        with CapturableOptimizers(state.optimizers, fused):
            graph = make_fx(traced)(state.tensors(), batch.tensors(), noise, dict(scalars))
    except NotStatic:
        raise
    except Exception as error:
        raise NotStatic(explain(error)) from error
    finally:
        state.restore(before)
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
    for node in reversed(graph.graph.nodes):
        if node.op == "call_function" and "profiler" in str(node.target):
            graph.graph.erase_node(node)
    return graph, names


def without_mutations(graph: GraphModule, inputs: Sequence[Tensor]) -> GraphModule:
    """The same graph as a pure function."""
    try:
        with torch.no_grad():
            return make_fx(functionalize(lambda *args: graph(*args), remove="mutations"))(*inputs)
    except Exception as error:
        raise NotStatic(explain(error)) from error


def made_static(pure: GraphModule, node: Any) -> None:
    """Replaces an operation that vmap, inductor or a CUDA graph cannot take by one that they can."""
    if node.target is torch.ops.aten.copy_.default and node.args[0].op == "placeholder":
        node.replace_all_uses_with(node.args[1])
        pure.graph.erase_node(node)
    elif node.target is torch.ops.aten.copy.default and _same(*node.args[:2]):
        with pure.graph.inserting_before(node):  # vmap has no rule for it, nor for the next one
            node.replace_all_uses_with(_as_laid_out(pure.graph, *node.args[:2]))
    elif node.target is torch.ops.aten.fill.Scalar:
        node.target = torch.ops.aten.full_like.default
    elif node.target in INTEGER_POWERS and not node.meta["val"].is_floating_point():
        # A C++ library would compute in floating point, and take the bits of the result for integers.
        like = next(value for value in node.args if isinstance(value, Node))
        for position, value in enumerate(node.args):
            if not isinstance(value, Node):
                with pure.graph.inserting_before(node):
                    filled = pure.graph.call_function(torch.ops.aten.full_like.default, (like, value))
                node.update_arg(position, filled)
        node.target = torch.ops.aten.pow.Tensor_Tensor
    elif node.target is torch.ops.aten._linalg_check_errors.default:
        _check_in_tensors(pure.graph, node)
    elif torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        raise NotStatic(f"it draws by {node.target}, which cannot be fed from given noise")


def _as_laid_out(graph: Graph, place: Node, value: Node) -> Node:
    """A value whose numbers stand in memory as they would in its place: a fused optimizer takes them as they come."""
    if place.meta["val"].stride() == value.meta["val"].stride() or not place.meta["val"].is_contiguous():
        return value
    options: dict[str, Any] = {"memory_format": torch.contiguous_format}
    kept = graph.call_function(torch.ops.aten.clone.default, (value,), options)
    kept.meta = dict(place.meta)
    return kept


def _check_in_tensors(graph: Graph, check: Node) -> None:
    """A decomposition that fails raises in Python, which waits for the device; here its results become NaN instead."""
    info = check.args[0]
    assert isinstance(info, Node)
    decomposition: Any = info.args[0]
    for result in list(decomposition.users):
        value = result.meta["val"]
        if result is info or not value.is_floating_point():
            continue
        users = list(result.users)
        with graph.inserting_before(max(result, info).next):
            good = graph.call_function(torch.ops.aten.eq.Scalar, (info, 0))
            for _ in range(value.ndim - info.meta["val"].ndim):
                good = graph.call_function(torch.ops.aten.unsqueeze.default, (good, -1))
            nan = graph.call_function(torch.ops.aten.full_like.default, (result, float("nan")))
            kept = graph.call_function(torch.ops.aten.where.self, (good, result, nan))
        for user in users:
            user.replace_input_with(result, kept)
    graph.erase_node(check)


def explain(error: Exception) -> str:
    """Why a step could not be traced, in the user's terms where the reason is known."""
    reason = str(error).strip().split("\n")[0]
    if "_local_scalar_dense" not in reason:
        return f"it cannot be traced ({type(error).__name__}: {reason})"
    frames = traceback.extract_tb(error.__traceback__)
    inside = tuple(str(Path(str(module.__file__)).parent) for module in (torch, pyro))
    own = [f for f in frames if not f.filename.startswith(inside) and f.name != "__torch_function__"]
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"its Python code looks at the value of a tensor, as `if tensor:` and `.item()` do{where}"


def _same(a: Any, b: Any) -> bool:
    """Whether two nodes hold tensors of the same shape and type."""
    a, b = a.meta["val"], b.meta["val"]
    return a.shape == b.shape and a.dtype == b.dtype


def _lift_constants(graph: GraphModule) -> list[Tensor]:
    """Makes the tensors that a graph holds into further inputs, and returns them."""
    found: dict[str, tuple[Any, Tensor]] = {}
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    for node in list(graph.graph.nodes):
        if node.op == "get_attr":
            if node.target not in found:
                with graph.graph.inserting_after(last):
                    last = graph.graph.placeholder(f"constant_{node.target}")
                found[node.target] = (last, getattr(graph, node.target))
            node.replace_all_uses_with(found[node.target][0])
            graph.graph.erase_node(node)
    graph.graph._codegen = torch.fx.graph.CodeGen()  # inputs are flat from here on
    graph.recompile()
    return [tensor.detach() for _, tensor in found.values()]
