"""Cells on a Ray cluster of two workers: the records of a serial run, whoever is killed; without Ray, what is asked."""

from __future__ import annotations

import os
import signal
import textwrap
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import cluster, status
from benchmarks.cluster import executor, needs
from benchmarks.freshness import basis
from benchmarks.measuring import ARTIFACTS
from benchmarks.results import Record, read_results
from benchmarks.run import run_suite
from benchmarks.suite import Grid, MethodSpec, ProgramSpec, Suite
from benchmarks.suites import get_suite
from tests import processes
from zoo.errors import OptionError
from zoo.process import guest

pytestmark = pytest.mark.xdist_group("cluster")
on_a_cluster = [
    pytest.mark.cluster,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: make cluster"),
]

PROGRAMS = textwrap.dedent(
    """
    import os, time
    from pathlib import Path
    from zoo.mixtures.gaussian import GaussianMixture

    class Mine(GaussianMixture):
        "Ours."

    class Deadly(GaussianMixture):
        "Its process dies as it is made the first time."
        def __init__(self, **options):
            super().__init__(**options)
            mark = Path(os.environ["MARKS"]) / "died"
            if not mark.exists():
                mark.touch()
                os._exit(1)

    class Patient(GaussianMixture):
        "Waits until it is told."
        def __init__(self, **options):
            super().__init__(**options)
            while not (Path(os.environ["MARKS"]) / "go").exists():
                time.sleep(0.05)
    """
)
SUITE = textwrap.dedent(
    """
    from benchmarks.suite import Grid, MethodSpec, ProgramSpec, Suite

    def grid(*names, seeds=2):
        programs = tuple(ProgramSpec(name, {"components": 2}) for name in names)
        methods = (MethodSpec("EM", "em", {"iterations": 3}), MethodSpec("sad", "em", {"iterations": -1}))
        return Grid("density", programs, methods, ("log_likelihood",), ("table.csv",), seeds=seeds)

    MINE = Suite("mine", "Mine", "", (grid("mine.py:Mine", "gaussian-mixture"),))
    DEADLY = Suite("deadly", "Deadly", "", (grid("mine.py:Deadly", "mine.py:Mine", seeds=1),))
    PATIENT = Suite("patient", "Patient", "", (grid("mine.py:Mine", "mine.py:Patient", seeds=1),))
    """
)


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that tests and cells share; nothing else of this machine is."""
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(scope="module")
def address(marks: Path) -> Iterator[str]:
    """A cluster of two workers, on which this process is a driver."""
    ray = guest("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARKS", str(marks))
        patch.setenv("RAY_worker_niceness", "0")  # else they wait for whatever else this machine does
        ray.init(
            num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False,
            logging_level="ERROR",
        )  # fmt: skip
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


@pytest.fixture
def here(tmp_path: Path, marks: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a suite, programs and data of a user's own, where commands run, in the dtype of commands."""
    torch.set_default_dtype(torch.float32)
    (tmp_path / "mine.py").write_text(PROGRAMS)
    (tmp_path / "suites.py").write_text(SUITE)
    (tmp_path / "table.csv").write_text("".join(f"{i % 7},{i % 5 - 0.5 * i}\n" for i in range(60)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MARKS", str(marks))
    return tmp_path


def said(records: list[Record]) -> list[Record]:
    """What has to be the same wherever a cell runs."""
    own = {"seconds", "started", "hardware"}
    return sorted(
        ({key: value for key, value in record.items() if key not in own} for record in records),
        key=lambda record: (record["cell"], record["metric"]),
    )


class TestOnACluster:
    pytestmark = on_a_cluster

    def test_records_are_those_of_a_serial_run(self, address: str, here: Path) -> None:
        suite = get_suite("suites.py:MINE")
        run_suite(suite, "ray", executor="ray", jobs=2)
        run_suite(suite, "serial", jobs=1)
        records = read_results("ray")
        assert said(records) == said(read_results("serial"))
        assert len({r["cell"] for r in records}) == 8
        assert sum(bool(r.get("failed")) for r in records) == 4
        assert {r["hardware"]["threads"] for r in records} == {1}
        found = status.read_status("ray")
        assert (found["state"], found["executor"], found["done"], found["failed"]) == ("finished", "ray", 4, 4)
        # Done is done: the same command, by whichever executor, tries the failed ones again and no others.
        run_suite(suite, "ray", executor="ray")
        again = read_results("ray")[len(records) :]
        assert len(again) == 4
        assert all(r["failed"] for r in again)

    def test_pictures_come_back_and_what_cells_have_in_common_is_made_once(self, address: str, tmp_path: Path) -> None:
        methods = MethodSpec("exact", "exact"), MethodSpec("SVI", "svi", {"steps": 2, "batch_size": 10})
        programs = (ProgramSpec("vae-digits", {"epochs": 1}),)
        suite = Suite("common", "", "", (Grid("posterior", programs, methods, ("log_evidence",), seeds=1),))
        run_suite(suite, tmp_path / "ray", executor="ray")
        assert len(list((tmp_path / "ray" / ARTIFACTS / "programs").iterdir())) == 1  # whole, and nothing beside it
        before = read_results(tmp_path / "ray")
        run_suite(suite, tmp_path / "ray", jobs=1)  # takes what is there, of which the cells are done
        assert read_results(tmp_path / "ray") == before
        run_suite(suite, tmp_path / "serial", jobs=1)
        assert said(before) == said(read_results(tmp_path / "serial"))
        ours, theirs = files(tmp_path / "ray"), files(tmp_path / "serial")
        assert ours.keys() == theirs.keys()
        assert sorted(path.suffix for path in ours) == [".json", ".npz", ".npz", ".safetensors"]
        assert all(alike(ours[path], theirs[path]) for path in ours)

    def test_a_cell_whose_worker_is_killed_is_run_again(self, address: str, here: Path, marks: Path) -> None:
        suite = get_suite("suites.py:DEADLY")
        run_suite(suite, "ray", select=("EM",), executor="ray")
        assert (marks / "died").exists()
        assert not [r for r in read_results("ray") if r.get("failed")]
        run_suite(suite, "serial", select=("EM",), jobs=1)
        assert said(read_results("ray")) == said(read_results("serial"))

    def test_a_cell_that_kills_every_worker_is_written_down(
        self, address: str, here: Path, marks: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cluster, "RETRIES", 0)
        (marks / "died").unlink(missing_ok=True)
        run_suite(get_suite("suites.py:DEADLY"), "out", select=("EM",), executor="ray", jobs=1)
        records = {r["program"]: r.get("failed") or "" for r in read_results("out")}
        assert records["mine.py:Mine"] == ""
        assert "WorkerCrashedError" in records["mine.py:Deadly"]
        assert status.read_status("out")["failed"] == 1

    def test_a_driver_that_is_killed_is_seen_and_continues(self, address: str, here: Path, marks: Path) -> None:
        script = here / "driver.py"
        script.write_text(
            "import os, sys\n"
            "os.environ['RAY_ADDRESS'] = sys.argv[1]\n"
            "from benchmarks.run import run_suite\n"
            "from benchmarks.suites import get_suite\n"
            "run_suite(get_suite('suites.py:PATIENT'), 'out', select=('EM',), executor='ray')\n"
        )
        driver = processes.start(script, [address], folder=here, prints_to=here)
        deadline = time.monotonic() + 300
        found: dict[str, Any] = {"done": 0, "running": []}
        while not (found["done"] == 1 and len(found["running"]) == 1):
            assert time.monotonic() < deadline, (here / "stderr").read_text()
            assert driver.is_alive(), (here / "stderr").read_text()
            time.sleep(0.1)
            if (here / "out" / status.FILE).exists():
                found = status.read_status("out")
        (running,) = found["running"]
        assert "Patient" in running["cell"]
        assert (found["state"], found["waiting"], running["node"]) == ("running", 0, found["node"])
        assert running["pid"] != driver.pid
        os.kill(running["pid"], 0)  # it is there
        assert driver.pid is not None
        os.kill(driver.pid, signal.SIGKILL)
        driver.join()
        found = status.read_status("out")
        assert (found["state"], found["waiting"], found["lost"]) == ("stopped", 1, [running])
        before = read_results("out")
        (marks / "go").touch()
        run_suite(get_suite("suites.py:PATIENT"), "out", select=("EM",), executor="ray")
        after = read_results("out")
        assert after[: len(before)] == before
        assert [("Patient" in r["cell"], r.get("failed")) for r in after[len(before) :]] == [(True, None)]

    def test_what_the_cluster_has_not_is_refused_before_anything_waits_for_it(self, address: str, here: Path) -> None:
        with pytest.raises(OptionError, match=r"takes 0.5 GPU and the cluster has 0: start .* by `ray start"):
            run_suite(get_suite("suites.py:MINE"), "out", executor="ray", device="cuda", gpus=0.5)
        run_suite(get_suite("suites.py:MINE"), "out", select=("Mine/EM",), seeds=1, executor="ray", device="auto")
        assert {r["device"] for r in read_results("out")} == {"cpu"}


def files(folder: Path) -> dict[Path, Path]:
    """The artifacts by name; locks are none."""
    found = [path for path in (folder / ARTIFACTS).rglob("*") if path.is_file() and not path.name.endswith(".lock")]
    return {path.relative_to(folder): path for path in found}


def alike(one: Path, other: Path) -> bool:
    """Whether files hold the same; archives say when they were made."""
    if one.suffix != ".npz":
        return one.read_bytes() == other.read_bytes()
    with np.load(one) as ours, np.load(other) as theirs:
        return set(ours) == set(theirs) and all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_what_a_cell_asks_of_the_cluster() -> None:
    assert needs("cpu", None) == {"num_cpus": 1, "num_gpus": 0}
    assert needs("cuda", None) == {"num_cpus": 1, "num_gpus": 1}
    assert needs("cuda", 0.25)["num_gpus"] == 0.25
    assert needs("auto", 2)["num_gpus"] == 2
    for device, gpus, message in [
        ("cuda:1", None, "Ray says which GPU"), ("mps", None, "'auto', 'cpu' or 'cuda'"), ("cpu", 1, "device 'cuda'"),
        ("cuda", 0, "a part of one"), ("cuda", 1.5, "a whole number"), ("cuda", float("nan"), "got nan"),
    ]:  # fmt: skip
        with pytest.raises(OptionError, match=message):
            executor(None, device, gpus)


@pytest.mark.parametrize("same", [True, False])
def test_a_machine_with_other_code_or_data_refuses_a_cell(same: bool) -> None:
    cell = get_suite("main").cells(select=("coin/exact",), seeds=1)[0]
    expected = basis(cell) if same else {**basis(cell), "code": "another"}
    told: list[str] = []
    board = SimpleNamespace(note=SimpleNamespace(remote=lambda key, *rest: told.append(key)))
    records, _ = cluster._work(cell, "cpu", expected, {}, {}, board)
    assert told == [cell.key]
    refused = [record["failed"] for record in records if record["metric"] == "failed"]
    assert [("install the same version" in reason) for reason in refused] == ([] if same else [True])
    assert same == any(record["metric"] == "elbo" for record in records)


def test_the_users_files_travel_under_their_names_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in (
        ("own/model.py", "x = 1"),
        ("own/table.csv", "a\n1\n"),
        ("draws/chain.npy", "?"),
        ("other.py", ""),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "draws" / "fit.lock").touch()
    programs, methods = (ProgramSpec("own/model.py:Model"),), (MethodSpec("svi", "svi"),)
    grid = Grid("posterior", programs, methods, ("elbo",), ("own/table.csv",), evaluation={"truth": {"draws": "draws"}})
    found = cluster._own(Suite("mine", "", "", (grid,)).cells())
    assert set(found) == {"own/model.py", "own/table.csv", "draws/chain.npy"}
    assert found["own/model.py"] == b"x = 1"
