"""Processes that share a fit: they take the steps that one takes, and end together."""

from __future__ import annotations

import warnings

import pytest
import torch

from inference import fit, make_method
from inference.processes import MEASURED, ProcessesNotice, Team, average_gradients, joined, leads
from inference.training.gradient import check_team
from tests.inference import sharing
from zoo import catalogue
from zoo.errors import CapabilityError, OptionError

SHARED = """
import sys
from pathlib import Path
from inference.processes import joined
folder, rank = Path(sys.argv[1]), int(sys.argv[2])
with joined("cpu"):
    sharing.work(folder, rank)
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """What two processes found, by rank, and the folder of their checkpoints."""
    folder = tmp_path_factory.mktemp("shared")
    torch.set_default_dtype(torch.float64)
    with sharing.noise_by_row(), sharing.interrupted(5):
        sharing.job("vae", out=folder / "one", checkpoint_seconds=0.0)
    for done in sharing.launch(SHARED, folder):
        assert done.returncode == 0, done.stderr
    return folder, [torch.load(folder / f"found{rank}.pt") for rank in (0, 1)]


def close(a, b) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], atol=1e-10, rtol=0.0, msg=lambda said, name=name: f"{name}: {said}")


@pytest.mark.parametrize("name", sharing.JOBS)
def test_two_processes_take_the_steps_of_one(shared, name):
    """To rounding: means over shares, weighted by their rows, are means over the minibatch."""
    mine = sharing.numbers(sharing.alone(name))
    assert len(mine["losses"]) == 12
    close(mine, shared[1][0][name])
    close(mine, shared[1][1][name])


def test_one_process_goes_on_where_two_stood(shared):
    with sharing.noise_by_row():
        resumed = sharing.job("vae", out=shared[0] / "two", checkpoint_seconds=0.0)
    assert len(resumed.history.series("loss")[1]) == 12
    close(sharing.numbers(resumed), shared[1][0]["vae"])


def test_two_processes_go_on_where_one_stood(shared):
    close(shared[1][0]["resumed"], shared[1][0]["vae"])
    close(shared[1][1]["resumed"], shared[1][0]["vae"])
    assert (shared[0] / "one" / "fit.json").exists()


def test_each_process_has_noise_of_its_own_and_a_resumed_fit_the_same(shared):
    noisy = shared[1][0]["noisy"]
    close(noisy, shared[1][1]["noisy"])
    close(noisy, shared[1][0]["noisy, resumed"])
    # The first draws what it would alone, for half of the rows: with the second's the same this would be another fit.
    assert (noisy["losses"] - sharing.numbers(sharing.job("vae"))["losses"]).abs().max() > 1e-3
    drawn = []
    for rank in (0, 1, 1):
        torch.manual_seed(5)
        with Team(rank, 2).step(10, seed=5, done=3):
            drawn.append(torch.rand(4))
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[1], drawn[2])


FAILS = """
import sys
from benchmarks.ending import ending
from inference.processes import joined
from inference.training.loop import Loop
from zoo.errors import OptionError

rank, advance = int(sys.argv[2]), Loop.advance

def fails(self, n):
    if self.done == 3 and rank == WHO:
        raise WHAT
    return advance(self, n)

Loop.advance = fails
with ending(), joined("cpu") as leads:
    sharing.job("nade")
    if leads:
        print("done")
"""


@pytest.mark.parametrize("who", [0, 1, "rank"])
@pytest.mark.parametrize(("what", "code", "said"), [("OptionError('no such sun')", 2, "no such sun"),
                                                    ("KeyboardInterrupt", 130, "interrupted.")])  # fmt: skip
def test_one_that_fails_ends_all_with_one_message(tmp_path, who, what, code, said):
    ends = sharing.launch(FAILS.replace("WHO", str(who)).replace("WHAT", what), tmp_path)
    lines = [line for end in ends for line in end.stderr.splitlines() if line.startswith("zoo:") or said in line]
    assert lines == [f"zoo: {said}"]
    assert sorted(end.returncode for end in ends) == sorted([1, code])
    assert "done" not in ends[0].stdout + ends[1].stdout


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [7, 8, 20])
def test_shares_are_all_rows_once(n, size):
    parts = [list(range(n))[Team(rank, size).share(n)] for rank in range(size)]
    assert [row for part in parts for row in part] == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert sum(Team(rank, size).weight(n) for rank in range(size)) == pytest.approx(1, abs=1e-12)


def test_alone_nothing_happens():
    with joined() as speaks:
        assert speaks
        assert leads()
    assert Team.now() == Team() == Team(0, 1)
    p = torch.nn.Parameter(torch.ones(2))
    p.grad = torch.full((2,), 3.0)
    with Team().step(10, seed=0, done=0):
        average_gradients([p])
    assert torch.equal(p.grad, torch.full((2,), 3.0))
    assert Team().told("a") == "a"


def refused(method: str, program: str = "vae", size: int = 100, **options) -> None:
    check_team(Team(0, 4), make_method(method, **options), catalogue.create(program), size)


@pytest.mark.parametrize(
    ("method", "program", "options", "remedy"),
    [
        ("em", "ppca", {}, "one process"),
        ("nuts", "eight-schools", {}, "one process"),
        ("mcem", "vae", {}, "one process"),
        ("cd", "rbm", {"chains": "persistent"}, "chains='data'"),
        ("svi", "vq-vae", {}, "one process"),
        ("svi", "vae", {"tc": 2.0}, "leave it at 1"),
    ],
)
def test_what_cannot_be_shared_says_what_to_do(method, program, options, remedy):
    with pytest.raises(CapabilityError, match=f"4 processes cannot share a fit of '{method}': .*{remedy}"):
        refused(method, program, **options)


def test_each_process_must_have_a_row():
    refused("svi", batch_size=4)
    refused("cd", "rbm", chains="data")
    for case in ({"batch_size": 3}, {"batch_size": 10, "size": 3}):
        with pytest.raises(OptionError, match=r"it has 3 .*larger batch_size or fewer processes"):
            refused("svi", **case)


def test_guides_of_all_rows_are_not_shared(monkeypatch):
    monkeypatch.setattr(Team, "now", classmethod(lambda cls: cls(0, 2)))
    with pytest.raises(CapabilityError, match=r"holds one factor for each example.*fit in one"):
        fit("ppca", sharing.rows(), "svi", guide="normal")
    with pytest.raises(CapabilityError, match=r"settled on all the data.*lr=0.01"):
        fit("logistic-regression", method="svi", guide="normal")
    with pytest.raises(OptionError, match="not several seeds"):
        fit("nade", sharing.rows(), "svi", num_restarts=2)


@pytest.mark.parametrize(("waiting", "warned"), [(0.6, True), (0.4, False)])
def test_a_team_that_waits_most_of_its_time_is_told(monkeypatch, waiting, warned):
    """Of a clock that this test turns."""
    clock = [0.0]
    monkeypatch.setattr("inference.processes.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("inference.processes.dist.all_reduce", lambda flat: clock.__setitem__(0, clock[0] + waiting))
    team, p = Team(0, 2), torch.nn.Parameter(torch.ones(2))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for done in range(MEASURED.stop):
            with team.step(10, seed=0, done=done):
                clock[0] += 1 - waiting
                average_gradients([p])
    assert [issubclass(each.category, ProcessesNotice) for each in said] == [True] * warned
