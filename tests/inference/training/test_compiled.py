"""Compiled steps: the same numbers as Python's, the same fits, and a clear notice where that is impossible."""

from __future__ import annotations

import functools
import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import scipy.stats as stats
import torch
from torch import nn

import inference.training.compiled
from inference import fit
from inference.fit import fit_many
from inference.training.compiled import Compiled, CompileNotice, NotStatic, pays, reference
from inference.training.loop import CHECKPOINT, Loop
from tests.conftest import FAILURE_RATE
from tests.inference.steps import both, bounds, ready, small
from zoo import catalogue
from zoo.datasets import Card, Data, Dataset
from zoo.errors import DivergenceError
from zoo.program import Program

NAMES = [name for name in catalogue.names() if bounds(name)]
BOUNDS = [(name, bound) for name in NAMES for bound in bounds(name)]
# Quick to trace, and between them: global and local sites, contexts, enumeration, networks.
FEW = ("eight-schools", "gaussian-mixture", "hmm", "vae")


def agree(found: tuple[list[torch.Tensor], list[torch.Tensor]], rtol: float = 1e-8, atol: float = 1e-9) -> None:
    """Rounding is all that may differ; in float64 a step of these programs has a relative error below 1e-10."""
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)


def options(name: str, bound: str) -> dict:
    """Options of an SVI step: minibatches, except where the bound does not allow them."""
    tied = any(site.is_global for site in catalogue.create(name).sites().values())
    several = {"particles": 3} if bound in ("iwae", "score") else {}
    return {"elbo": bound, "batch_size": 12 if bound == "iwae" and tied else 5, **several}


def marked(cases, quick):
    """Cases as parameters; those that are not quick are slow."""
    return [pytest.param(*case, marks=[] if quick(*case) else pytest.mark.slow) for case in cases]


# The traced operations, run one by one: the same numbers as the step in Python.


@pytest.mark.parametrize(("name", "bound"), marked(BOUNDS, lambda name, bound: bound == "auto" or name in FEW))
def test_every_bound_of_every_program(name, bound):
    program, data = small(name)
    agree(both(ready(program, data, **options(name, bound))))


@pytest.mark.parametrize(
    ("name", "chosen"),
    marked(
        [
            (name, chosen)
            for name in NAMES
            if catalogue.create(name).sites() and name not in ("bernoulli-mixture", "gaussian-mixture", "hmm")
            for chosen in (
                {"guide": "normal"},
                {"guide": "multivariate_normal"},
                *([] if name == "bayesian-gaussian-mixture" else [{"kl_anneal": 0.5, "clip_norm": 1.0}]),
            )
        ],
        lambda name, chosen: name == "eight-schools" or (name == "vae" and "guide" not in chosen),
    ),
    ids=lambda value: value if isinstance(value, str) else value.get("guide", "anneal and clip"),
)
def test_autoguides_annealing_and_clipping(name, chosen):
    program, data = small(name)
    agree(both(ready(program, data, batch_size=50 if "guide" in chosen else 5, **chosen)))


def named(factory, **settings):
    return pytest.param(functools.partial(factory, **settings), id=f"{factory.__name__} {settings}")


@pytest.mark.parametrize(
    "optimizer",
    [
        "adam",
        "adamw",
        "adagrad",
        "adadelta",
        "nadam",
        "rmsprop",
        "sgd",
        named(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=0.1),
        named(torch.optim.RMSprop, momentum=0.9, centered=True),
        named(torch.optim.Adam, amsgrad=True, weight_decay=0.1),
        named(torch.optim.Adam, foreach=True),
    ],
)
def test_optimizers_keep_their_state(optimizer):
    program, data = small("coin")
    agree(both(ready(program, data, batch_size=5, optimizer=optimizer)))


@pytest.mark.parametrize(
    ("name", "method", "chosen"),
    marked(
        [
            ("gan", "gan", {}),
            ("gan", "gan", {"critic_steps": 2}),
            ("gan", "gan", {"critic_steps": 2, "batch_size": 50}),
            ("ppca", "wake-sleep", {}),
            ("vae", "wake-sleep", {}),
            ("coin", "avb", {}),
            ("vae", "avb", {}),
            ("eight-schools", "avb", {}),
            ("logistic-regression", "avb", {}),
            ("normal", "avb", {}),
        ],
        lambda name, method, chosen: name in ("gan", "ppca", "coin") and "batch_size" not in chosen,
    ),
)
def test_other_methods_through_the_same_loop(name, method, chosen):
    program, data = small(name)
    agree(both(ready(program, data, method, **{"batch_size": 5, **chosen})))


@pytest.mark.parametrize(("name", "bound"), [("ppca", "auto"), ("gaussian-mixture", "auto"), ("hmm", "score")])
def test_gradients_when_the_batch_size_changes(name, bound):
    """One step of gradient descent at rate 1 is the gradient."""
    program, data = small(name)
    found = []
    for size in (5, 9):
        given = {**options(name, bound), "batch_size": size, "optimizer": "sgd", "lr": 1.0, "decay": "constant"}
        loop = ready(program, data, **given)
        before = [p.detach().clone() for p in program.parameters()]
        ours, theirs = both(loop, 1)
        n = len(before)
        gradients = [[b - a for a, b in zip(each[:n], before, strict=True)] for each in (ours, theirs)]
        assert any(bool(g.abs().max() > 0) for g in gradients[0])
        agree((gradients[0], gradients[1]))
        found.append(loop.indices(1))
    assert [index.shape[1] for index in found] == [5, 9]


# The C++ library that inductor makes of it.


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """An empty cache for this module's libraries."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


def libraries(cache: Path) -> set[tuple[str, int]]:
    return {(path.name, path.stat().st_mtime_ns) for path in cache.rglob("*.pt2")}


LIBRARY = [
    ("eight-schools", "svi", {"guide": "multivariate_normal", "batch_size": 50}),
    ("gaussian-mixture", "svi", {"batch_size": 5}),
    *((name, "svi", {"batch_size": 5}) for name in NAMES if name != "gaussian-mixture"),
    ("gan", "gan", {"batch_size": 5, "critic_steps": 2}),
    ("vae", "avb", {"batch_size": 5}),
    ("vae", "wake-sleep", {"batch_size": 5}),
]


@pytest.mark.parametrize(
    ("name", "method", "chosen"),
    marked(LIBRARY, lambda *case: case in LIBRARY[:1]),
)
def test_the_library_gives_the_numbers_of_python(cache, name, method, chosen):
    program, data = small(name)
    agree(both(ready(program, data, method, **chosen), interpreted=False), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("power", [lambda n: 2**n, lambda n: n**40], ids=["of a number", "of a tensor"])
def test_integer_powers_are_handed_to_the_library_as_tensors(power):
    """As numbers they become float there, and the bits of the result are read as integers, beyond its end."""
    loop = ready(Line(), Data(line_data()), batch_size=32)
    inner = loop.step

    def step(batch, now):
        metrics = inner(batch, now)
        return {**metrics, "power": power(torch.ones(4, dtype=torch.long).cumsum(0)).sum().to(batch.x)}

    loop.step = step
    compiled = Compiled([loop], [reference(loop)], interpreted=True)
    powers = [node for node in compiled.trace.graph.graph.nodes if "aten.pow" in str(node.target)]
    whole = [node.target for node in powers if node.meta["val"].dtype == torch.long]
    assert whole == [torch.ops.aten.pow.Tensor_Tensor]


def test_the_library_in_float32(cache):
    """By plain gradient descent: Adam would turn the rounding of a gradient that is zero into a step."""
    torch.set_default_dtype(torch.float32)
    program, data = small("gaussian-mixture")
    loop = ready(program, data, batch_size=5, optimizer="sgd")
    assert loop.data.x.dtype == torch.float32
    agree(both(loop, interpreted=False), rtol=1e-4, atol=1e-5)


class Line(Program):
    """z ~ N(0, 1), x | z ~ N(w z + b, 1) for three numbers x; what else a step does is up to `twist`."""

    event_shape = torch.Size([3])

    def __init__(self, twist: str = "") -> None:
        super().__init__()
        torch.manual_seed(1)
        self.twist, self.calls = twist, 0
        self.w = nn.Parameter(torch.randn(3))
        self.b = nn.Parameter(torch.zeros(3))
        self.encoder = nn.Linear(3, 2)

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(self.w.new_zeros(()), 1.0))[..., None]
            mean = self.w * z + self.b
            self.calls += 1
            if self.twist == "branch" and self.b.sum() > 0.05:
                mean = mean * 1.1
            if self.twist == "item":
                mean = mean + 0.1 * self.b.sum().item()
            if self.twist == "counter" and self.calls % 2:
                mean = mean + 0.5
            if self.twist == "random" and random.random() < 0.5:
                mean = mean + 0.5
            if self.twist == "poisson":
                mean = mean + 0.1 * torch.poisson(torch.ones(3))
            if self.twist == "number of draws" and self.calls % 2:
                mean = mean + 0.1 * torch.randn(3)
            return pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def log_prob(self, x, context=None):
        cov = torch.outer(self.w, self.w) + torch.eye(3)
        return dist.MultivariateNormal(self.b, cov).log_prob(x)

    def guide(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            mean, scale = self.encoder(x).unbind(-1)
            pyro.sample("z", dist.Normal(mean, scale.exp()))


def line_data(n: int = 100) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    z = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    return z * torch.tensor([1.0, -2.0, 0.5]) + 0.3 * torch.randn(n, 3, generator=generator, dtype=torch.float64)


def fitted(compile: str, seed: int = 0, twist: str = "", data=None, **given):
    given = {"steps": 200, "batch_size": 32, **given}
    return fit(Line(twist), line_data() if data is None else data, "svi", seed=seed, compile=compile, **given)


def numbers(found) -> list:
    """All that a fit ends with, but for times."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in found.history.rows]
    return [rows, *(v.tolist() for v in found.program.state_dict().values())]


def test_a_seed_gives_the_same_fit_bit_for_bit_and_its_library_is_made_once(cache):
    first, made = fitted("always", 3), libraries(cache)
    assert "compile_seconds" in first.info
    again = fitted("always", 3)
    assert numbers(first) == numbers(again)
    other = fitted("always", 4)
    assert numbers(first) != numbers(other)
    longer = fitted("always", 4, steps=333, lr=0.003, decay="constant")
    assert "compile_seconds" in longer.info
    assert libraries(cache) == made


def test_a_damaged_library_is_made_again(cache, monkeypatch):
    loaded, made, load = [], [], torch._inductor.aoti_load_package

    def spy(path):
        loaded.append(Path(path))
        return load(path)

    monkeypatch.setattr(torch._inductor, "aoti_load_package", spy)
    expected = numbers(fitted("always", steps=20))
    whole, middle = loaded[-1].read_bytes(), loaded[-1].stat().st_size // 2

    def remake(program, package_path, inductor_configs):
        made.append(package_path)
        Path(package_path).write_bytes(whole)

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", remake)
    damages = [
        b"",
        whole[:middle],
        whole[:middle] + bytes(b ^ 255 for b in whole[middle : middle + 9]) + whole[middle + 9 :],
    ]
    for damaged in damages:
        loaded[0].write_bytes(damaged)
        assert numbers(fitted("always", steps=20)) == expected
    assert len(made) == len(damages)
    assert set(loaded) == {loaded[0]}


KILLED = """
import sys, torch
from tests.inference.training import test_compiled as t
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
t.fitted("always", steps=30_000, checkpoint_seconds=0.0, out=sys.argv[1])
"""


def test_a_killed_fit_resumes_in_its_library_and_ends_with_the_same_numbers(cache, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path)], env=environment)
    checkpoint, deadline, done = tmp_path / CHECKPOINT, time.monotonic() + 120, 0
    while done <= 1:  # the first step is Python's
        assert process.poll() is None, "the fit ended before it could be killed"
        assert time.monotonic() < deadline
        if checkpoint.exists():
            done = torch.load(checkpoint, weights_only=True)["done"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = torch.load(checkpoint, weights_only=True)["done"]
    assert 1 < done < 30_000
    resumed = fitted("always", steps=30_000, out=tmp_path)
    straight = fitted("always", steps=30_000)
    assert "compile_seconds" in resumed.info
    assert numbers(resumed) == numbers(straight)


# Whole fits, through the loop, with the operations run one by one.


@pytest.fixture
def interpreted(monkeypatch):
    """Counts the fits that compile, and spares the C++ compiler."""
    made = []

    def make(*args):
        made.append(Compiled(*args, interpreted=True))
        return made[-1]

    monkeypatch.setattr("inference.training.loop.Compiled", make)
    return made


def test_the_same_loss_in_the_end_as_eagerly(interpreted):
    """Seed by seed, with the same start and minibatches and other noise."""
    given = {"steps": 150, "batch_size": 32, "lr": 0.02}
    compiled = fit_many(Line(), line_data(), "svi", seeds=range(16), compile="always", **given)
    eager = [fitted("never", seed, **given) for seed in range(16)]
    assert len(interpreted) == 1
    with torch.no_grad():
        losses = [
            torch.stack([-found.program.log_prob(line_data()).mean() for found in fits]) for fits in (compiled, eager)
        ]
        start = -Line().log_prob(line_data()).mean()
    differences = losses[0] - losses[1]
    assert bool((differences != 0).all())
    assert stats.ttest_1samp(differences, 0.0).pvalue > FAILURE_RATE
    # Training moves the loss by far more than the ways differ.
    assert start - losses[1].max() > 10 * differences.abs().max()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("kill_at", [1, 7])
def test_resumed_anywhere_on_the_way(interpreted, tmp_path, monkeypatch, kill_at):
    """Killed right after a checkpoint, the first of which is before the step is compiled."""
    save, saved = Loop.save, []

    def killed(loop):
        save(loop)
        saved.append(loop.done)
        if len(saved) == kill_at:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "save", killed)
        with pytest.raises(Killed):
            fitted("always", checkpoint_seconds=0.0, out=tmp_path)
    assert saved[0] == 1
    resumed, straight = fitted("always", out=tmp_path), fitted("always")
    assert numbers(resumed) == numbers(straight)


def test_validation_and_early_stopping(interpreted):
    """The answer is the best state that was seen, and both ways see the same: the exact bound draws no noise."""
    train, valid = line_data(60)[:20], line_data(60)[20:]
    card = Card("test", "made up", (3,), "real", {"train": 20, "valid": 40, "test": 1}, "here", "none")
    data = Dataset(card, Data(train), Data(valid), Data(valid[:1]))
    given = {"elbo": "exact", "lr": 0.05, "decay": "constant", "validate_every": 20, "patience": 3}
    found, eager = (fitted(way, data=data, steps=4000, batch_size=8, **given) for way in ("always", "never"))
    assert len(interpreted) == 1
    steps, losses = found.history.series("validation_loss")
    assert steps[-1] < 4000
    assert -found.program.log_prob(valid).mean().item() == pytest.approx(min(losses), abs=1e-12)
    assert steps == eager.history.series("validation_loss")[0]
    assert losses == pytest.approx(eager.history.series("validation_loss")[1], rel=1e-8)


@pytest.mark.filterwarnings("ignore:Encountered NaN")
def test_divergence_is_noticed_and_says_what_to_do(interpreted):
    with pytest.raises(DivergenceError, match=r"step \d+ of 300.*'.*'.*learning rate"):
        fitted("always", steps=300, lr=3.0, optimizer="sgd", decay="constant")
    assert len(interpreted) == 1


# The rule of 'auto'.


@pytest.mark.parametrize("clock", ["as it is", "mad"])
def test_auto_compiles_a_long_run_and_leaves_a_short_one(interpreted, monkeypatch, clock):
    if clock == "mad":
        monkeypatch.setattr(time, "perf_counter", lambda: random.random() * 1e6)
    loop = ready(Line(), Data(line_data()), batch_size=32)
    calls = reference(loop).calls
    monkeypatch.setattr(inference.training.compiled, "PAYS_FROM", 100 * calls)
    monkeypatch.setattr(inference.training.compiled, "PAYS_STEPS", 0)
    short, eager = fitted("auto", steps=99), fitted("never", steps=99)
    assert not interpreted
    assert numbers(short) == numbers(eager)
    long, always = fitted("auto", steps=100), fitted("always", steps=100)
    assert len(interpreted) == 2
    assert numbers(long) == numbers(always)


def test_the_rule_counts_the_calls_that_are_left():
    assert not pays(2000, 300)
    assert pays(5000, 300)
    assert pays(1_001_000, 1)
    assert not pays(1_000_999, 1)
    assert not pays(1000, 10**9)


# What cannot be compiled goes on eagerly, and says why.


def notices(caught) -> list[str]:
    return [str(w.message) for w in caught if issubclass(w.category, CompileNotice)]


@pytest.mark.parametrize(
    ("twist", "says"),
    [
        ("branch", "looks at the value of a tensor, .*test_compiled.py, line"),
        ("item", "looks at the value of a tensor, .*test_compiled.py, line"),
        ("poisson", "poisson"),
    ],
)
def test_a_step_that_is_not_static_goes_on_as_if_it_had_not_been_asked(twist, says):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = fitted("always", twist=twist, steps=60)
    (notice,) = notices(caught)
    assert re.search(f"goes on eagerly: .*{says}", notice), notice
    assert numbers(found) == numbers(fitted("never", twist=twist, steps=60))


@pytest.mark.parametrize(
    ("twist", "says"),
    [
        ("counter", "does not do the same every time"),
        ("random", "does not do the same every time"),
        ("number of draws", "another number of random numbers"),
    ],
)
def test_a_step_that_changes_from_call_to_call_is_caught(monkeypatch, twist, says):
    """By two steps in Python. What such a step keeps for itself has moved on by then, so fits are not compared."""
    random.seed(1)
    compiled = Counter()
    monkeypatch.setattr("inference.training.loop.Compiled", functools.partial(Compiled, interpreted=True))
    monkeypatch.setattr(Compiled, "advance", compiled)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = fitted("always", twist=twist, steps=60)
    (notice,) = notices(caught)
    assert says in notice
    assert compiled.calls == 0
    assert len(found.history.rows) > 10


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *args):
        self.calls += 1
        raise AssertionError("a step that was found out went on compiled")


def test_without_a_compiler_fits_go_on_eagerly(cache, monkeypatch):
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "/no/such/compiler"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "none"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = fitted("always", steps=60)
    (notice,) = notices(caught)
    assert "cannot be compiled on this machine" in notice
    assert "C++ compiler" in notice
    assert numbers(found) == numbers(fitted("never", steps=60))


def test_a_step_that_is_compiled_gives_no_notice(interpreted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted("always", steps=20)
    assert len(interpreted) == 1


def test_the_check_finds_wrong_code_out(monkeypatch):
    """Were one operation compiled wrongly, its numbers would not be used."""
    right = inference.training.compiled.python_loop

    def wrong(*args):
        run = right(*args)
        return lambda *given: [v * 1.001 if v.is_floating_point() else v for v in run(*given)]

    monkeypatch.setattr(inference.training.compiled, "python_loop", wrong)
    loop = ready(Line(), Data(line_data()), batch_size=32)
    with pytest.raises(NotStatic, match="where Python gives"):
        Compiled([loop], [reference(loop)], interpreted=True)


# The same on the GPU, where a CUDA graph is replayed.


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("name", "method", "chosen"), LIBRARY)
def test_the_cuda_graph_gives_the_numbers_of_python(name, method, chosen):
    program, data = small(name)
    loop = ready(program.to("cuda"), data.to("cuda"), method, **chosen)
    agree(both(loop, interpreted=False), rtol=1e-6, atol=1e-7)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_the_gpu_a_seed_gives_the_same_fit_and_a_killed_one_resumes(tmp_path, monkeypatch):
    first, again = (fitted("always", 3, device="cuda") for _ in range(2))
    assert "compile_seconds" in first.info
    assert numbers(first) == numbers(again)
    save, saved = Loop.save, []

    def killed(loop):
        save(loop)
        saved.append(loop.done)
        if len(saved) == 4:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "save", killed)
        with pytest.raises(Killed):
            fitted("always", 3, device="cuda", checkpoint_seconds=0.0, out=tmp_path)
    assert numbers(fitted("always", 3, device="cuda", out=tmp_path)) == numbers(first)
