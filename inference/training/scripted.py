"""Functions of tensors without Python: traced once, run by TorchScript's interpreter, which needs no compiler.

Between Python, where a small density takes a millisecond of Pyro's handlers, and compiled code, which takes seconds to
make. Densities of chains (`Scripted`) and training steps (`inference.training.compiled`) are run by it: what is the
same at every call is computed once, and the operations that are left run one by one in C++.
"""

from __future__ import annotations

import operator
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from inference.training.tracing import NotStatic, explain, made_static, make_fx, without_mutations

__all__ = ["INSTEAD", "Scripted", "as_it_is", "scripted", "simplify", "update_in_place"]

aten = torch.ops.aten

MASKED = """
def backward({arguments}, {wanted}):
    {made} = torch.ops.aten.{name}({names}, [{flags}])
    return {returned}
"""
"""Slopes of a layer as TorchScript: its tracer takes no list of truth values, and no result that is not there."""

FILLED = (aten.zeros_like.default, aten.ones_like.default, aten.full_like.default, aten.new_zeros.default)
"""Operations whose results depend on the shape alone."""
NEUTRAL = {aten.add.Tensor: 0.0, aten.sub.Tensor: 0.0, aten.mul.Tensor: 1.0, aten.div.Tensor: 1.0}
"""Operation -> the second argument that changes nothing."""


class Scripted:
    """Calls give what the function gives, faster.

    Args:
        function: Of a tensor of one shape; what its closure holds is constant from now on.
        points: Where its results are compared with the function's own, the first of which it is traced at.
        rtol: Relative difference that is allowed, of the largest number of a result.

    Raises: NotStatic when it cannot be traced (its control flow depends on values, it draws), or gives something else
        traced.
    """

    def __init__(self, function: Callable[[Tensor], tuple[Tensor, ...]], points: Sequence[Tensor], rtol: float):
        graph = _graph(function, points[0])
        simplify(graph, INSTEAD)
        self._run = scripted(graph.eval(), [points[0].detach()])
        for point in points:
            for found, expected in zip(self(point), function(point), strict=True):
                scale = expected.abs().nan_to_num(posinf=0.0).max() if expected.numel() else 0.0
                near = torch.allclose(found, expected, rtol=rtol, atol=rtol * float(scale), equal_nan=True)
                if found.shape != expected.shape or not near:
                    raise NotStatic("its operations, one after the other, give something else than its Python code")

    def __call__(self, point: Tensor) -> tuple[Tensor, ...]:
        """The function's results."""
        with as_it_is():
            return self._run(point)


def scripted(function: Callable[..., Any], inputs: Sequence[Tensor]) -> Any:
    """A function of tensors with the shapes of `inputs`, as TorchScript; to be called inside `as_it_is`."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is taken for constants: all is

        # What `torch.jit.trace` does, which keeps each function for ever in a unit that belongs to all of the process.
        try:
            graph = _recorded(lambda *given: tuple(function(*given)), inputs)
        except RuntimeError as error:
            if "data dependence" not in str(error):
                raise
            # A result is the same whatever is given: it has to come out of an operation.
            graph = _recorded(lambda *given: tuple(aten.alias.default(value) for value in function(*given)), inputs)
        return torch._C.CompilationUnit().create_function("run", graph)


def _recorded(function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor]) -> Any:
    graph, _ = torch._C._create_graph_by_tracing(function, tuple(inputs), lambda value: "", True, False, None, [])
    return graph


@contextmanager
def as_it_is() -> Iterator[None]:
    """Without gradients, and without torch's optimizer, which looks at every call whether shapes are as before."""
    with torch.no_grad(), torch.jit.optimized_execution(False):
        yield


def _graph(function: Callable[[Tensor], tuple[Tensor, ...]], point: Tensor) -> GraphModule:
    """What a function does, as a pure graph."""
    try:
        graph = make_fx(lambda z: function(z))(point.detach())  # a bound method is counted with its self
    except Exception as error:
        raise NotStatic(explain(error)) from error
    for node in reversed(graph.graph.nodes):
        if node.op == "call_function" and "profiler" in str(node.target):
            graph.graph.erase_node(node)
    pure = without_mutations(graph, [point.detach()])
    for name in {str(node.target) for node in pure.graph.nodes if node.op == "get_attr"}:
        held = getattr(pure, name)
        if isinstance(held, Tensor) and held.requires_grad:  # parameters are constants here
            delattr(pure, name)
            pure.register_buffer(name, held.detach())
    # Draws of discrete latents that are summed out are made and not used.
    pure.graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    for node in list(pure.graph.nodes):
        if node.op == "call_function":
            made_static(pure, node)
    return pure


@torch.no_grad()
def simplify(graph: GraphModule, instead: Mapping[Any, Any]) -> None:
    """Computes once what does not depend on the input; drops what changes nothing or is computed twice.

    Args:
        graph: Changed in place.
        instead: Operation -> what is done in its place.
    """
    known: dict[Node, Any] = {}
    first: dict[tuple[Any, str], Node] = {}  # torch has a pass for this, whose import takes longer than all else here
    for node in list(graph.graph.nodes):
        node.target = instead.get(node.target, node.target)
        if node.op in ("get_attr", "call_function"):
            same = first.setdefault((node.target, f"{node.args} {node.kwargs}"), node)
            if same is not node:
                node.replace_all_uses_with(same)
                continue
        if node.op == "get_attr":
            known[node] = getattr(graph, str(node.target))
        elif node.op == "call_function":
            arguments = node.args
            if node.target in FILLED and (like := _shape(node.args[0])) is not None:
                arguments = (like, *node.args[1:])
            if all(each in known for each in _nodes(arguments, node.kwargs)):
                values, options = map_arg(arguments, known.__getitem__), map_arg(node.kwargs, known.__getitem__)
                known[node] = node.target(*values, **options)
            elif node.target is aten.detach.default or _changes_nothing(node, known):
                node.replace_all_uses_with(node.args[0])
    for i, (node, value) in enumerate(known.items()):
        if isinstance(value, Tensor) and node.op == "call_function" and any(user not in known for user in node.users):
            graph.register_buffer(f"known_{i}", value.detach())
            with graph.graph.inserting_before(node):
                node.replace_all_uses_with(graph.graph.get_attr(f"known_{i}"))
    graph.graph.eliminate_dead_code()
    graph.recompile()


@cache
def _masked(operation: Any) -> Any:
    schema = operation._schema
    names, made = [each.name for each in schema.arguments[:-1]], [f"made_{i}" for i in range(len(schema.returns))]
    source = MASKED.format(
        name=schema.name.removeprefix("aten::"),
        arguments=", ".join(f"{each.name}: {each.type.annotation_str}" for each in schema.arguments[:-1]),
        names=", ".join(names),
        wanted=", ".join(f"wants_{one}: bool" for one in made),
        flags=", ".join(f"wants_{one}" for one in made),
        made=", ".join(made),
        returned=", ".join(f"{one} if wants_{one} else {names[0]}" for one in made),
    )
    return torch.jit.CompilationUnit(source).backward


def masked(operation: Any) -> Callable[..., Any]:
    """A backward operation, its first argument in the place of results that its last one says are not wanted."""
    return lambda *arguments: _masked(operation)(*arguments[:-1], *arguments[-1])


def filled(like: Tensor, value: Tensor) -> Tensor:
    """`aten.fill.Tensor`, which TorchScript knows with numbers alone."""
    return value.to(like.dtype).expand(like.shape)


BACKWARD = (
    aten.convolution_backward.default,
    aten.grid_sampler_2d_backward.default,
    aten.grid_sampler_3d_backward.default,
    aten.native_batch_norm_backward.default,
    aten.native_group_norm_backward.default,
    aten.native_layer_norm_backward.default,
)
INSTEAD = {**{operation: masked(operation) for operation in BACKWARD}, aten.fill.Tensor: filled}
"""Operation -> what TorchScript is given in its place."""


WRITING = """
def update({arguments}, {options}):
    torch.ops.aten.{name}_({names}, {given})
    return {names}
"""
"""A fused optimizer's operation as TorchScript, whose tracer does not see an operation without results."""


@cache
def _writing(operation: Any) -> Any:
    schema = operation._schema
    lists = [each for each in schema.arguments if not each.kwarg_only]
    options = [each for each in schema.arguments if each.kwarg_only and not each.has_default_value()]
    source = WRITING.format(
        name=schema.name.removeprefix("aten::"),
        arguments=", ".join(f"{each.name}: List[Tensor]" for each in lists),
        options=", ".join(f"{each.name}: {each.type.annotation_str}" for each in options),
        names=", ".join(each.name for each in lists),
        given=", ".join(f"{each.name}={each.name}" for each in options),
    )
    return torch.jit.CompilationUnit(source).update


def writing(operation: Any) -> Callable[..., Any]:
    """A fused optimizer's operation in place; its results are the lists that it was given."""
    in_place = getattr(getattr(aten, f"{operation._schema.name.removeprefix('aten::')}_"), operation._overloadname)

    def update(*lists: list[Tensor], **options: Any) -> Any:
        if torch._C._get_tracing_state() is not None:
            return _writing(operation)(*lists, **options)
        in_place(*lists, **options)
        return lists

    return update


FUSED = (aten._fused_adam, aten._fused_adamw)
IN_PLACE = {one: writing(one) for each in FUSED for one in (each.default, each.tensor_lr)}
"""Operation on (parameters, slopes, means, squares, largest squares, counts) -> the same in place."""
CHANGED = (0, 2, 3, 4)
"""Which of these lists it changes."""


def update_in_place(graph: GraphModule, owned: Collection[int]) -> None:
    """Has fused optimizers write where the numbers stand; what is read afterwards is copied before.

    Args:
        graph: A pure one, changed in place.
        owned: Inputs that may be written to, each of which has its memory for itself.
    """
    nodes = list(graph.graph.nodes)
    order = {node: i for i, node in enumerate(nodes)}
    starts = [node for node in nodes if node.op == "placeholder"]
    may = {starts[i] for i in owned}
    memory: dict[Node, set[Node]] = {}  # by the node that was the first there
    last: dict[Node, int] = {}  # where it is read for the last time
    for node in nodes:
        shared = _shares(node, memory)
        if node.op == "call_function" and not shared:
            may.add(node)
        memory[node] = shared or {node}
        for place in memory[node]:
            last[place] = max([last.get(place, 0), *(order[user] for user in node.users)])
    for node in nodes:
        if node.target not in IN_PLACE:
            continue
        lists: list[Any] = [list(each) for each in cast("Any", node.args)]
        read = Counter(place for each in lists for value in each for place in memory[value])
        for k in CHANGED:
            for j, value in enumerate(lists[k]):
                (place, *others) = memory[value]
                if others or place not in may or last[place] > order[node] or read[place] > 1:
                    with graph.graph.inserting_before(node):
                        lists[k][j] = graph.graph.call_function(aten.clone.default, (value,))
        node.args, node.target = tuple(lists), IN_PLACE[node.target]
    graph.recompile()


def _shares(node: Node, memory: Mapping[Node, set[Node]]) -> set[Node]:
    """Whose memory a node's value may be in; nobody's where it is new, as what an optimizer changed is taken to be."""
    schema = getattr(node.target, "_schema", None)
    views = schema is None or node.target is aten._unsafe_view.default or any(r.alias_info for r in schema.returns)
    if node.op != "call_function" or not views:
        return set()
    return {place for value in node.all_input_nodes if not _updates(value) for place in memory[value]}


def _updates(node: Node) -> bool:
    """Whether its value is all that a fused optimizer changed, or one of the lists."""
    source = node.args[0] if node.target is operator.getitem else node
    return isinstance(source, Node) and source.target in IN_PLACE


def _nodes(*arguments: Any) -> list[Node]:
    found: list[Node] = []
    map_arg(arguments, found.append)
    return found


def _shape(node: Any) -> Tensor | None:
    """A tensor of the shape, type and device of a node's."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    if not isinstance(value, Tensor):
        return None
    return torch.empty(value.shape, dtype=value.dtype, device=node.meta.get("device", value.device))


def _changes_nothing(node: Node, known: dict[Node, Any]) -> bool:
    """Whether a sum, difference, product or quotient is its first argument."""
    if node.target not in NEUTRAL or node.kwargs or not isinstance(node.args[0], Node):
        return False
    other = node.args[1]
    other = known.get(other) if isinstance(other, Node) else other
    before, after = node.args[0].meta.get("val"), node.meta.get("val")
    if other is None or not isinstance(before, Tensor) or not isinstance(after, Tensor):
        return False
    same = (before.shape, before.dtype, before.stride()) == (after.shape, after.dtype, after.stride())
    return same and bool((torch.as_tensor(other) == NEUTRAL[node.target]).all())
