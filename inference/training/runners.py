"""The loop without Python, for each kind of device: a compiled library, a CUDA graph, or one operation after another.

Each maker takes the body of the loop `while i < stop: (i, state, sums) = body(i, state, sums, stop, ...)`, how many of
its arguments after i are handed on, and arguments of the right shapes. It returns `run(arguments, n)`, which takes n
turns and returns (i, state, sums).
"""

from __future__ import annotations

import hashlib
import operator
import os
import platform
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from inference.training.scripted import as_it_is, scripted
from inference.training.tracing import make_fx
from zoo.datasets.sources import cache_folder
from zoo.native import native

__all__ = ["Body", "Runner", "captured", "captured_loop", "graph_loop", "library_loop", "scripted_loop"]

KEPT = 200
"""Libraries in the cache folder, some 2 MB each."""
PART = ".part"

TINY = 1024
INLINED = {"realize_reads_threshold": 100, "realize_opcount_threshold": 200, "max_pointwise_cat_inputs": 64}
"""Where no tensor in a step is larger than TINY, computing a value again is cheaper than keeping it in a tensor."""
SMALL = 2**18
"""Numbers that fit in the cache of a core and, one MiB or two, on the stack."""
ON_STACK = {"aot_inductor.allow_stack_allocation": True, "allow_buffer_reuse": False}
"""Where all of a turn is no more: making its forty tensors takes longer than computing what is in them, so that they
are arrays instead."""
ONCE = {"aot_inductor.precompile_headers": False, "cpp_cache_precompile_headers": False}
"""Compiling torch's headers for later takes as long as the rest of a library, and saves each later one far less."""
PRODUCTS = tuple(getattr(torch.ops.aten, name).default for name in ("mm", "bmm", "mv", "dot"))
OF_TENSORS = ("mm", "bmm", "dot", "mv", "conv", "linalg", "cholesky", "solve", "grad", "scatter", "put", "sort", "topk")
"""Parts of the names of operations that call torch, for which each array would have to become a tensor again."""
CONVOLUTIONS = {torch.ops.aten.convolution.default: 1, torch.ops.aten.convolution_backward.default: 2}
"""What convolves, and how many images it is given first: those of a layer; its slope and those."""
VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)
INCLUDES = """\
#include <torch/csrc/inductor/aoti_include/common.h>
#include <torch/csrc/inductor/aoti_runtime/arrayref_tensor.h>
#include <torch/csrc/inductor/aoti_runtime/thread_local.h>
#include <torch/csrc/inductor/cpp_wrapper/device_internal/cpu.h>
"""
"""Of inductor's headers for arrays those that are needed: the others include all of ATen, a third of the reading."""
HANDED_ON = """{outer}.reset();
{outer} = [](auto&& value) {{
    if constexpr (is_arrayref_tensor_type_v<std::decay_t<decltype(value)>>) return value.expensiveCopyToTensor();
    else return RAIIAtenTensorHandle(std::move(value));
}}(std::move({inner}));"""

Body = Callable[..., tuple[Tensor, ...]]
Runner = Callable[[list[Any], int], Sequence[Tensor]]


def scripted_loop(body: Body, carried: int, inputs: list[Any]) -> Runner:
    """Operation by operation, without Python and without a compiler."""
    step = scripted(body, [value.clone() if k <= carried else value for k, value in enumerate(inputs)])

    def run(arguments: list[Any], n: int) -> Sequence[Tensor]:
        with as_it_is():
            # A step may write to what it is handed over.
            arguments[: 1 + carried] = [value.clone() for value in arguments[: 1 + carried]]
            for _ in range(n):
                arguments[: 1 + carried] = step(*arguments)
        return arguments[: 1 + carried]

    return run


def library_loop(body: Body, carried: int, inputs: list[Any]) -> Runner:
    """All steps in one call of a C++ library."""
    # Here, because inductor takes seconds to import and most fits compile nothing.
    import torch._inductor.test_operators
    from torch._higher_order_ops.while_loop import while_loop_op

    stop = 1 + carried
    with torch.no_grad():
        turn = make_fx(body)(*inputs)
        more = make_fx(lambda *args: args[0] < args[stop])(*inputs)
    root, graph = nn.Module(), Graph()
    root.more, root.turn = more, turn
    places = [graph.placeholder(f"input_{i}") for i in range(len(inputs))]
    arguments = (graph.get_attr("more"), graph.get_attr("turn"), tuple(places[:stop]), tuple(places[stop:]))
    loop = graph.call_function(while_loop_op, arguments)
    graph.output(tuple(graph.call_function(operator.getitem, (loop, i)) for i in range(stop)))
    if _vectors_summed(turn):
        _rows_once(turn)
    operations = [str(node.target) for node in turn.graph.nodes if node.op == "call_function"]
    called = any(part in operation for operation in operations for part in OF_TENSORS)
    made = [_numbers(node) for node in turn.graph.nodes]
    tiny = max(made) <= TINY
    if not tiny:
        _scalars_once(turn)
    if any(node.target in CONVOLUTIONS for node in turn.graph.nodes) and torch.backends.mkldnn.is_available():
        _channels_last(turn)
    options = ONCE | (INLINED if tiny else {}) | (ON_STACK if sum(made) <= SMALL and not called else {})
    library = _library(GraphModule(root, graph), more.code + turn.code, inputs, options)

    def run(arguments: list[Any], n: int) -> Sequence[Tensor]:
        with native():
            return library(*arguments)

    return run


def _numbers(node: Node) -> int:
    """How many an operation makes, none where it looks at those of another."""
    value = node.meta.get("val")
    if node.op != "call_function" or not isinstance(value, Tensor) or getattr(node.target, "is_view", False):
        return 0
    return value.numel()


def _vectors_summed(graph: GraphModule) -> bool:
    """Writes products of small matrices with vectors as sums, which inductor joins to what stands around them.

    Whether there are any. The library of a product would be called for less work than the call is, with tensors.
    inductor's own `decompose_mm_pass` knows a row times a matrix alone, and comes after the choice of the stack.
    """
    found = False
    for node in [node for node in graph.graph.nodes if node.target in PRODUCTS]:
        a, b = factors = [factor for factor in node.args if isinstance(factor, Node)]
        left, right = (factor.meta["val"] for factor in factors)
        whole = left.ndim == right.ndim > 1
        vector = not whole or 1 in (left.shape[-2], right.shape[-1])
        if not vector or max(left.numel(), right.numel()) > SMALL or not left.is_floating_point():
            continue
        found = True
        with graph.graph.inserting_before(node):
            rows = whole and right.shape[-1] != 1
            if whole:
                turned = graph.graph.call_function(torch.ops.aten.transpose.int, (a if rows else b, -2, -1))
                a, b = (turned, b) if rows else (a, turned)
            terms = graph.graph.call_function(torch.ops.aten.mul.Tensor, (a, b))
            total = graph.graph.call_function(torch.ops.aten.sum.dim_IntList, (terms, [-2 if rows else -1], whole))
        total.meta = dict(node.meta)
        node.replace_all_uses_with(total)
        graph.graph.erase_node(node)
    graph.recompile()
    return found


def _rows_once(graph: GraphModule) -> None:
    """Has the rows of a minibatch taken from the data once, and not by each sum that they are in."""
    for node in list(graph.graph.nodes):
        if node.target is torch.ops.aten.index_select.default and _numbers(node) > TINY:
            _kept(graph, node)
    graph.recompile()


def _kept(graph: GraphModule, node: Node) -> None:
    """Has a value kept in memory, where inductor would compute it again at each use."""
    with graph.graph.inserting_after(node):
        kept = graph.graph.call_function(torch.ops._inductor_test.realize.default, (node,))
    kept.meta = dict(node.meta)
    node.replace_all_uses_with(kept, delete_user_cb=lambda user: user is not kept)


def _scalars_once(graph: GraphModule) -> None:
    """Has a computed number that a tensor meets, as Adam's powers of beta, kept in memory.

    inductor would write it into the loop over that tensor, and compute two powers for every sixteen weights.
    """
    for node in list(graph.graph.nodes):
        value = node.meta.get("val")
        if node.op != "call_function" or not isinstance(value, Tensor) or value.ndim or not node.all_input_nodes:
            continue
        met = [user.meta.get("val") for user in node.users]
        if any(isinstance(other, Tensor) and other.ndim for other in met):
            _kept(graph, node)
    graph.recompile()


def _channels_last(graph: GraphModule) -> None:
    """Has images and their slopes lie with the channels of a pixel side by side, as oneDNN takes both.

    inductor asks this of a convolution, but its derivative takes them as they lay when it was traced: each of the
    images between the two would be turned around.
    """
    turned: dict[Node, Node] = {}
    for node in list(graph.graph.nodes):
        if node.target in VIEWS:
            node.target = torch.ops.aten.reshape.default  # what lies in another order has to be copied
        images = CONVOLUTIONS.get(node.target, 0)
        for image in node.args[:images]:
            value = image.meta.get("val")
            if image not in turned and isinstance(value, Tensor) and value.ndim == 4:
                with graph.graph.inserting_after(image):
                    copied = graph.graph.call_function(torch.ops.aten.clone.default, (image,))
                copied.kwargs, copied.meta = {"memory_format": torch.channels_last}, dict(image.meta)
                turned[image] = copied
        node.args = (*(turned.get(image, image) for image in node.args[:images]), *node.args[images:])
    graph.recompile()


def graph_loop(body: Body, carried: int, inputs: list[Any]) -> Runner:
    """One step compiled for the GPU, captured as a CUDA graph and replayed."""
    return _replayed(body, carried, inputs, lambda step: torch.compile(step, fullgraph=True, dynamic=False))


def captured_loop(body: Body, carried: int, inputs: list[Any]) -> Runner:
    """The operations of one step as they are, captured as a CUDA graph and replayed: no Python and no compiler."""
    return _replayed(body, carried, inputs, lambda step: step)


def _replayed(body: Body, carried: int, inputs: list[Any], made: Callable[[GraphModule], Any]) -> Runner:
    """The step in fixed places; the data, when they are the largest, stay where they are, all else is copied there."""
    stop = 1 + carried
    large = max(v.numel() for v in inputs[stop:])
    buffers = [v if k >= stop and v.numel() == large else v.clone() for k, v in enumerate(inputs)]

    def turn(*buffers: Tensor) -> None:
        pairs = [pair for pair in zip(buffers, body(*buffers), strict=False) if pair[0] is not pair[1]]
        torch._foreach_copy_([buffer for buffer, _ in pairs], [value for _, value in pairs])

    with torch.no_grad():
        step = made(make_fx(turn)(*buffers))
        replay = captured(lambda: step(*buffers))

    def run(arguments: list[Any], n: int) -> Sequence[Tensor]:
        for buffer, value in zip(buffers, arguments, strict=True):
            if buffer is not value:
                buffer.copy_(value)
        for _ in range(n):
            replay()
        return [buffer.clone() for buffer in buffers[:stop]]

    return run


def captured(work: Callable[[], Any]) -> Callable[[], None]:
    """What a function of tensors in fixed places asks of the GPU, to be asked for again in one call."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries take their workspace, and kernels are compiled, before the recording
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def _library(
    loop: GraphModule, code: str, inputs: Sequence[Tensor], options: Mapping[str, Any]
) -> Callable[..., Sequence[Tensor]]:
    """The compiled library of a graph, with options of inductor: from the cache of this machine, or newly made."""
    shapes = [(tuple(v.shape), tuple(v.stride()), str(v.dtype)) for v in inputs]
    machine = (platform.machine(), platform.node(), torch.backends.cpu.get_cpu_capability())
    setting = (torch.__version__, torch.get_num_threads(), machine, shapes, options, code)
    path = cache_folder() / "compiled" / f"{hashlib.sha256(repr(setting).encode()).hexdigest()[:32]}.pt2"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(_lock(path)):
        if not _whole(path):
            with _workplace(path) as folder, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's, about torch's own future
                program = torch.export.export(loop, tuple(inputs), strict=False)
                package = str(folder / "loop.pt2")
                _make(program, package, options)
                os.replace(package, path)
            _prune(path.parent)
    with _untried():
        return torch._inductor.aoti_load_package(str(path))


def _make(program: torch.export.ExportedProgram, package: str, options: Mapping[str, Any]) -> None:
    """Compiles; where this torch cannot keep tensors on the stack, without that."""
    on_stack = ON_STACK.keys() <= options.keys()
    configs = dict(options)  # which inductor adds to
    try:
        with _untried(), _arrays() if on_stack else nullcontext():
            torch._inductor.aoti_compile_and_package(program, package_path=package, inductor_configs=configs)
    except Exception:
        if not on_stack:
            raise
        _make(program, package, {name: value for name, value in options.items() if name not in ON_STACK})


@contextmanager
def _untried() -> Iterator[None]:
    """What the processor says that it can is believed, and what only whole and half numbers have from it is not asked.

    inductor would try each of these by a compilation, from empty caches, and a process of its own, in every process
    that makes or loads a library. What others then compile is tried as before.
    """
    from torch._inductor import config, cpu_vec_isa

    kinds = [kind for kind in vars(cpu_vec_isa).values() if isinstance(kind, type)]
    known = [cpu_vec_isa.valid_vec_isa_list, *(getattr(kind, "__bool__", None) for kind in kinds)]
    check = cpu_vec_isa.VecISA.check_build

    def forget() -> None:
        for function in known:
            getattr(function, "cache_clear", lambda: None)()

    forget()
    cpu_vec_isa.VecISA.check_build = lambda self, code: False  # type: ignore[method-assign]
    try:
        with config.patch({"cpp.vec_isa_ok": True}):
            yield
    finally:
        cpu_vec_isa.VecISA.check_build = check  # type: ignore[method-assign]
        forget()


@contextmanager
def _arrays() -> Iterator[None]:
    """While it lasts, inductor writes small tensors as arrays on the stack, in the body of a loop as well.

    It chooses who writes the code of a library once for the process, and its own way with arrays does not know that
    what a turn hands on must be a tensor.
    """
    from torch._inductor import ir
    from torch._inductor.codegen import common
    from torch._inductor.codegen.cpp_wrapper_cpu_array_ref import CppWrapperCpuArrayRef

    class Writer(CppWrapperCpuArrayRef):
        @staticmethod
        def get_device_include_path_aot(device: str) -> str:
            return INCLUDES

        @staticmethod
        def create(*_args: Any) -> CppWrapperCpuArrayRef:
            return Writer()

        def codegen_subgraph_suffix(self, subgraph: Any, outer_inputs: Any, outer_outputs: Any) -> None:
            for value, outer in zip(subgraph.graph.graph_outputs, outer_outputs, strict=True):
                inner = value.codegen_reference()
                number = isinstance(value, ir.ShapeAsConstantBuffer)
                self.writeline(f"{outer} = {inner};" if number else HANDED_ON.format(outer=outer, inner=inner))

    common.init_backend_registration()
    chosen = common.device_codegens["cpu"]
    before, chosen.cpp_wrapper_codegen = chosen.cpp_wrapper_codegen, Writer
    try:
        yield
    finally:
        chosen.cpp_wrapper_codegen = before


def _lock(package: Path) -> Path:
    return package.with_suffix(".pt2.lock")


@contextmanager
def _workplace(package: Path) -> Iterator[Path]:
    """The one folder in which a library is made, under its lock; what a killed process left there is dropped."""
    folder = package.with_suffix(PART)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prune(folder: Path) -> None:
    """Drops the oldest libraries beyond KEPT, one in use stays loaded; and what killed processes were making."""
    for part in folder.glob(f"*{PART}"):
        try:
            with FileLock(_lock(part), timeout=0):
                shutil.rmtree(part, ignore_errors=True)
        except Timeout:
            continue  # it is being made
    packages = sorted(folder.glob("*.pt2"), key=lambda package: package.stat().st_mtime)
    for package in packages[:-KEPT]:
        package.unlink(missing_ok=True)
        _lock(package).unlink(missing_ok=True)


def _whole(package: Path) -> bool:
    """Whether a library is there and undamaged: a damaged one could end the process."""
    try:
        with zipfile.ZipFile(package) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False
