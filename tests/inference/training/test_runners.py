"""The libraries and graphs a step is compiled to: Python's numbers, made once, made again when damaged."""

from __future__ import annotations

import platform
import re
import time
import zipfile
from contextlib import nullcontext
from pathlib import Path
from threading import Event, Thread
from unittest import mock

import pytest
import torch
from filelock import FileLock
from torch._inductor import codecache, cpu_vec_isa
from torch._inductor.codegen import common
from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from inference.checkpoint import CHECKPOINT
from inference.fit import fit_many
from inference.training import runners
from inference.training.compiled import Compiled, State, reference
from inference.training.loop import Loop
from tests import processes
from tests.inference.factors import steps_done
from tests.inference.killed import killed_after
from tests.inference.steps import both, ready, small
from tests.inference.training.lines import NAMES, Line, agree, fitted, in_float32, keeping, line_data, numbers
from zoo.datasets import Data

# On one worker, where a library that was made is found again by the next test.
pytestmark = pytest.mark.xdist_group("libraries")


def libraries(cache: Path) -> set[tuple[str, int]]:
    return {(path.name, path.stat().st_mtime_ns) for path in cache.rglob("*.pt2")}


@pytest.fixture(scope="module")
def straight(cache):
    """A fit, and the library that was made for it: by this module's other fits of its program it is found again."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)  # which a library is made for; a test before may have left another number
    before = libraries(cache)
    with mock.patch.object(codecache, "_precompile_header", side_effect=AssertionError("which takes as long again")):
        found = fitted("always", 3)
    ((name, _),) = libraries(cache) - before
    return found, next(cache.rglob(name))


LIBRARY = [
    ("eight-schools", "svi", {"guide": "multivariate_normal", "batch_size": 50}),
    ("gaussian-mixture", "svi", {"batch_size": 5}),
    *((name, "svi", {"batch_size": 5}) for name in NAMES if name != "gaussian-mixture"),
    ("gan", "gan", {"batch_size": 5, "critic_steps": 2}),
    ("dcgan", "gan", {"batch_size": 5}),
    ("vae", "avb", {"batch_size": 5, "hidden": [16], "critic_hidden": [16]}),
    ("vae", "wake-sleep", {"batch_size": 5}),
]


def test_the_library_gives_the_numbers_of_python(cache, straight):
    """Of the program whose library is there; each of the others takes the compiler twenty seconds and more."""
    made = libraries(cache)
    agree(both(ready(Line(), Data(line_data()), batch_size=32), gear="library"), rtol=1e-6, atol=1e-7)
    assert libraries(cache) == made


def test_the_small_tensors_of_a_turn_are_arrays(straight):
    with zipfile.ZipFile(straight[1]) as package:
        code = "".join(package.read(name).decode() for name in package.namelist() if name.endswith("wrapper.cpp"))
    turn = code[code.index("subgraph: while_loop_body") :]
    assert re.search(r"ArrayRefTensor<\w+> while_loop_body_graph_0_buf\d+\(", turn)
    assert "aoti_torch_empty_strided" not in turn, "which takes longer than computing what is in it"


A, ROW, COLUMN, VECTOR, MANY = (torch.rand(shape) for shape in [(4, 3), (1, 4), (3, 1), (3,), (2, 4, 3)])


@pytest.mark.parametrize(
    ("product", "factors"),
    [
        (torch.mm, (A, COLUMN)),
        (torch.mm, (ROW, A)),
        (torch.mm, (ROW.T[:1], ROW)),
        (torch.mv, (A, VECTOR)),
        (torch.mv, (A, VECTOR.new_zeros(1).expand(3))),
        (torch.dot, (VECTOR, A[0])),
        (torch.bmm, (MANY, COLUMN.expand(2, 3, 1))),
        (torch.bmm, (ROW.expand(2, 1, 4), MANY)),
    ],
)
def test_a_product_with_a_vector_is_written_as_a_sum(product, factors):
    graph = runners.make_fx(product)(*factors)
    assert runners._vectors_summed(graph)
    assert not any(node.target in runners.PRODUCTS for node in graph.graph.nodes)
    torch.testing.assert_close(graph(*factors), product(*factors))


def test_a_product_of_matrices_stays_one():
    large = torch.rand(2, runners.SMALL)
    for product, factors in ((torch.mm, (A, A.T)), (torch.bmm, (MANY, MANY.mT)), (torch.mv, (large, large[0]))):
        graph = runners.make_fx(product)(*factors)
        assert not runners._vectors_summed(graph)
        torch.testing.assert_close(graph(*factors), product(*factors))


def slopes_of_images(x, first, second, back):
    """Of a network with convolutions both ways and a view between them."""

    def loss(x, first, second, back):
        h = torch.relu(torch.conv2d(x, first, padding=1))
        h = torch.relu(torch.conv2d(h, second, stride=2))
        flat = torch.tanh(h.reshape(len(h), -1))
        return torch.conv_transpose2d(flat.reshape(h.shape), back, stride=2).square().sum()

    return torch.func.grad(loss, argnums=(0, 1, 2, 3))(x, first, second, back)


def test_images_lie_as_convolutions_take_them_on_the_way_back_too():
    given = torch.rand(2, 3, 8, 8), torch.rand(4, 3, 3, 3), torch.rand(5, 4, 2, 2), torch.rand(5, 3, 2, 2)
    graph = runners.make_fx(slopes_of_images)(*given)
    runners._channels_last(graph)
    lying = []

    class Seen(torch.fx.Interpreter):
        def call_function(self, target, args, kwargs):
            images = args[: runners.CONVOLUTIONS.get(target, 0)]
            lying.extend(image.is_contiguous(memory_format=torch.channels_last) for image in images)
            return super().call_function(target, args, kwargs)

    found = Seen(graph).run(*given)
    assert lying == [True] * 9, "three convolutions, and of each derivative a slope and an image"
    for got, want in zip(found, slopes_of_images(*given), strict=True):
        torch.testing.assert_close(got, want)


def test_sounds_lie_as_they_did():
    given = torch.rand(2, 3, 8), torch.rand(4, 3, 3)
    graph = runners.make_fx(torch.conv1d)(*given)
    runners._channels_last(graph)
    assert [node.target for node in graph.graph.nodes if node.op == "call_function"] == [
        torch.ops.aten.convolution.default
    ]


@pytest.mark.parametrize("works", ["arrays", "tensors", "nothing"])
def test_where_arrays_cannot_be_compiled_the_turn_is_made_of_tensors(monkeypatch, works):
    asked = []

    def compiled(program, package_path, inductor_configs):
        asked.append(inductor_configs)
        if works == "nothing" or (works == "tensors" and inductor_configs.keys() >= runners.ON_STACK.keys()):
            raise RuntimeError("no compiler")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", compiled)
    writer = common.device_codegens["cpu"].cpp_wrapper_codegen if "cpu" in common.device_codegens else None
    with pytest.raises(RuntimeError) if works == "nothing" else nullcontext():
        runners._make(None, "", {**runners.INLINED, **runners.ON_STACK})
    assert asked == [{**runners.INLINED, **runners.ON_STACK}, runners.INLINED][: 1 if works == "arrays" else 2]
    assert common.device_codegens["cpu"].cpp_wrapper_codegen is (writer or CppWrapperCpu), "others compile as before"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "method", "chosen"), LIBRARY)
def test_the_library_of_every_program_gives_the_numbers_of_python(cache, name, method, chosen):
    program, data = small(name)
    agree(both(ready(program, data, method, **chosen), gear="library"), rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_the_library_in_float32(cache):
    """By plain gradient descent: Adam would turn the rounding of a gradient that is zero into a step."""
    torch.set_default_dtype(torch.float32)
    program, data = small("gaussian-mixture")
    loop = ready(program, data, batch_size=5, optimizer="sgd")
    assert loop.data.x.dtype == torch.float32
    agree(both(loop, gear="library"), rtol=1e-4, atol=1e-5)


def test_a_seed_gives_the_same_fit_bit_for_bit_and_its_library_is_made_once(cache, straight):
    first, made = straight[0], libraries(cache)
    assert "compile_seconds" in first.info
    assert numbers(first) == numbers(fitted("always", 3))
    assert numbers(first) != numbers(fitted("always", 4))
    longer = fitted("always", 4, steps=333, lr=0.003, decay="constant")
    assert "compile_seconds" in longer.info
    assert libraries(cache) == made


def test_a_damaged_library_is_made_again(straight, monkeypatch):
    expected, path = straight
    whole, made = path.read_bytes(), []

    def remake(program, package_path, inductor_configs):
        made.append(package_path)
        Path(package_path).write_bytes(whole)

    middle = len(whole) // 2
    flipped = whole[:middle] + bytes(b ^ 255 for b in whole[middle : middle + 9]) + whole[middle + 9 :]
    assert runners._whole(path)
    for damaged in (b"", whole[:middle], flipped):
        path.write_bytes(damaged)
        assert not runners._whole(path)
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", remake)
    assert numbers(fitted("always", 3)) == numbers(expected)
    assert len(made) == 1
    assert path.read_bytes() == whole


def test_neither_making_nor_loading_tries_what_the_processor_can_do(straight, monkeypatch):
    """Each trial is a compilation or a process, in every process anew. What others compile is tried as before."""
    _, path = straight
    whole, tried, kinds = path.read_bytes(), [], []

    def check(self, code):
        tried.append(code)
        return True

    def remake(program, package_path, inductor_configs):
        kinds.append(cpu_vec_isa.pick_vec_isa())
        Path(package_path).write_bytes(whole)

    monkeypatch.setattr(cpu_vec_isa.VecISA, "check_build", check)
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", remake)
    path.write_bytes(b"")
    fitted("always", 3)
    assert len(kinds) == 1
    assert not tried
    assert cpu_vec_isa.VecISA.check_build is check
    plain = cpu_vec_isa.pick_vec_isa()
    assert tried or platform.machine() != "x86_64"
    assert kinds[0].bit_width() == plain.bit_width()
    with runners._untried():  # which forgets the answers of this test
        pass


def test_what_killed_processes_were_making_is_dropped_and_what_is_being_made_is_not(tmp_path):
    for name in ("killed", "busy"):
        (tmp_path / f"{name}.part" / "deep").mkdir(parents=True)
    (tmp_path / "made.pt2").write_bytes(b"")
    held, go = Event(), Event()

    def make() -> None:
        with FileLock(runners._lock(tmp_path / "busy.pt2")):
            held.set()
            go.wait()

    thread = Thread(target=make)
    thread.start()
    held.wait()
    runners._prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")) == [
        "busy.part",
        "made.pt2",
    ]
    go.set()
    thread.join()
    with runners._workplace(tmp_path / "busy.pt2") as folder:
        assert list(folder.iterdir()) == []
    runners._prune(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == ["made.pt2"]


KILLED = """
import sys, torch
from tests.inference.training import lines as t
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
t.fitted("always", steps=30_000, checkpoint_seconds=0.0, out=sys.argv[1])
"""


def test_a_killed_fit_resumes_in_its_library_and_ends_with_the_same_numbers(straight, tmp_path):
    with killed_after(Loop, "save", 4):
        fitted("always", 3, checkpoint_seconds=0.0, out=tmp_path)
    assert 1 < steps_done(tmp_path / CHECKPOINT) < 200
    resumed = fitted("always", 3, out=tmp_path)
    assert "compile_seconds" in resumed.info
    assert numbers(resumed) == numbers(straight[0])


@pytest.mark.slow
def test_so_does_one_whose_process_was_killed(cache, tmp_path):
    process = processes.start(KILLED, [str(tmp_path)])
    checkpoint, deadline, done = tmp_path / CHECKPOINT, time.monotonic() + 120, 0
    while done <= 1:  # the first step is Python's
        assert process.is_alive(), "the fit ended before it could be killed"
        assert time.monotonic() < deadline
        if checkpoint.exists():
            done = steps_done(checkpoint)
        time.sleep(0.01)
    process.kill()
    process.join()
    done = steps_done(checkpoint)
    assert 1 < done < 30_000
    resumed = fitted("always", steps=30_000, out=tmp_path)
    straight = fitted("always", steps=30_000)
    assert "compile_seconds" in resumed.info
    assert numbers(resumed) == numbers(straight)


# On the GPU a CUDA graph is replayed: what that does is here done by the processor, in the same places, without Python.


class Recording(TorchDispatchMode):
    """Keeps every operation with the very tensors that it read and wrote."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, made))
        return made

    def replay(self):
        for func, args, kwargs, made in self.calls:
            again = func(*args, **kwargs)
            for place, value in zip(tree_leaves(made), tree_leaves(again), strict=True):
                if isinstance(place, torch.Tensor) and place.data_ptr() != value.data_ptr():
                    place.copy_(value)


@pytest.fixture
def recorded(monkeypatch):
    """Loops as on the GPU; how often the recorded step was done again."""
    replays = []

    def captured(work):
        for _ in range(3):
            work()
        with torch.no_grad(), Recording() as recording:
            work()

        def replay():
            replays.append(None)
            with torch.no_grad():
                recording.replay()

        return replay

    monkeypatch.setattr(runners, "captured", captured)
    monkeypatch.setattr("inference.training.compiled.scripted_loop", runners.captured_loop)
    return replays


def weights(found) -> list[torch.Tensor]:
    return list(found.program.state_dict().values())


@pytest.mark.parametrize(("name", "method", "chosen"), LIBRARY[:6] + LIBRARY[-3:])
def test_a_replayed_step_gives_the_numbers_of_python(recorded, name, method, chosen):
    program, data = small(name)
    agree(both(ready(program, data, method, **chosen)), rtol=1e-6, atol=1e-7)
    assert len(recorded) == 2 + 5  # the check, and the steps


def test_making_a_replayed_step_leaves_every_parameter_alone(recorded):
    """Even the largest tensor of all, which a loop over few data would leave in its place."""
    loop = ready(*small("vae", 2, hidden=[64]))
    before = [tensor.clone() for tensor in State(loop.parts).tensors()]
    assert max(v.numel() for v in before) > loop.data.x.numel()
    Compiled([loop], [reference(loop)], "scripted")
    for found, expected in zip(State(loop.parts).tensors(), before, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_what_a_replayed_step_keeps_of_weights_is_not_written_to(recorded):
    torch.set_default_dtype(torch.float32)  # where Adam is one operation, which writes where the numbers stand
    agree(both(keeping(ready(Line(), in_float32(), batch_size=32)), n=7), rtol=1e-4, atol=1e-5)
    assert len(recorded) == 2 + 7


def test_replayed_fits_draw_new_noise_every_step_and_new_rows(recorded):
    """A whole fit, in chunks, equals the traced one: what is copied to the fixed places is what that was given."""
    replayed = fitted("traced", 3, steps=90)
    assert len(recorded) > 80
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inference.training.compiled.scripted_loop", runners.scripted_loop)
        traced = fitted("traced", 3, steps=90)
    agree((weights(replayed), weights(traced)))


def test_many_replayed_fits_are_each_what_it_is_alone(recorded):
    given = {"steps": 30, "batch_size": 32, "lr": 0.02, "compile": "traced"}
    together = fit_many(Line(), line_data(), "svi", seeds=[0, 1], **given)
    assert recorded
    for seed, found in enumerate(together):
        agree((weights(found), weights(fitted("traced", seed, steps=30, batch_size=32, lr=0.02))))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("name", "method", "chosen"), LIBRARY)
@pytest.mark.parametrize("gear", ["scripted", "library"])
def test_the_cuda_graph_gives_the_numbers_of_python(name, method, chosen, gear):
    program, data = small(name)
    loop = ready(program.to("cuda"), data.to("cuda"), method, **chosen)
    agree(both(loop, gear=gear), rtol=1e-6, atol=1e-7)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_the_gpu_a_seed_gives_the_same_fit_and_a_killed_one_resumes(tmp_path):
    first, again = (fitted("always", 3, device="cuda") for _ in range(2))
    assert "compile_seconds" in first.info
    assert numbers(first) == numbers(again)
    with killed_after(Loop, "save", 4):
        fitted("always", 3, device="cuda", checkpoint_seconds=0.0, out=tmp_path)
    assert numbers(fitted("always", 3, device="cuda", out=tmp_path)) == numbers(first)
