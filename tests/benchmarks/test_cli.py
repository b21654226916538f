"""The command line: every command does what it says, prints JSON when asked, and names mistakes in one line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import cli
from benchmarks import suite as suite_module
from benchmarks.commands import parse_options
from benchmarks.metrics import Measurement
from benchmarks.suite import Cell, Grid, MethodSpec, ProgramSpec, Suite
from zoo import catalogue, datasets
from zoo.errors import OptionError, ZooError

ROOT = Path(__file__).parents[2]
COMMANDS = ("list", "show", "fit", "sample", "score", "features", "bench", "report")

SIDE = '''
"""Independent Bernoullis, each with its own probability: a program outside the package."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from zoo import Program


class Bits(Program):
    """Bits."""

    def __init__(self, event_shape: list[int] = [8, 8]):
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.support = torch.distributions.constraints.boolean
        self.logits = nn.Parameter(torch.zeros(event_shape))

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Bernoulli(logits=self.logits).to_event(len(self.event_shape)), obs=x)
'''


@pytest.fixture
def zoo(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command: (exit code, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = 0
        try:
            cli.main([str(a) for a in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Markov chain on binary digits; EM takes milliseconds."""
    folder = tmp_path_factory.mktemp("fits") / "chain"
    with pytest.raises(SystemExit, match="0"):
        cli.main(["fit", "markov-chain", "--data", "digits-binary", "--out", str(folder), "--json"])
    return folder


def test_help_of_every_command_has_an_example(zoo: Any) -> None:
    code, out, _ = zoo("--help")
    assert code == 0
    assert all(command in out for command in COMMANDS)
    for command in COMMANDS:
        code, out, _ = zoo(command, "--help")
        assert code == 0
        assert f"zoo {command}" in out.split("Usage", 1)[1].split("\n", 1)[1], command


def test_features_trains_a_classifier_and_says_how_good_it_is(zoo, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("inference.evaluation.samples.classifier.cache_folder", lambda: tmp_path)
    code, out, _ = zoo("features", "digits", "--steps", 20, "--json")
    found = json.loads(out)
    assert (code, found["data"], found["steps"], found["test_size"]) == (0, "digits", 20, 250)
    assert zoo("features", "digits", "--steps", 20)[1].strip().endswith(f"hash {found['hash']}")  # from the cache
    assert zoo("features", "photo-patches")[0] == 2


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, benchmarks.cli; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_list_names_every_program_and_data_set(zoo: Any) -> None:
    code, out, _ = zoo("list", "--json")
    assert code == 0
    assert {card["name"] for card in json.loads(out)} == set(catalogue.names())
    _, out, _ = zoo("list", "--datasets", "--json")
    assert {card["name"] for card in json.loads(out)} == set(datasets.names())
    _, out, _ = zoo("list")
    assert "markov-chain" in out
    _, out, _ = zoo("list", "--datasets")
    assert "digits-binary" in out


def test_show_prints_the_card(zoo: Any) -> None:
    code, out, _ = zoo("show", "hmm", "--json")
    card = json.loads(out)
    assert code == 0
    assert card["family"] == "chains"
    assert [site["name"] for site in card["sites"]] == ["z"]
    assert "exact posterior" in card["capabilities"]
    assert {"em", "svi"} <= set(card["methods"])
    assert "nuts" not in card["methods"]
    assert card["parameters"] == catalogue.create("hmm").parameter_count()
    # The story of the chains: the same 12 bits take 2^n - 1, n and 2n - 1 numbers.
    sizes = {"full-joint": 2**12 - 1, "independent": 12, "markov-chain": 23}
    for name, size in sizes.items():
        assert catalogue.create(name, event_shape=[12]).parameter_count() == size
    _, out, _ = zoo("show", "independent")
    assert re.search(r"parameters\s+64 \(built for digits-binary\)", out)


@pytest.mark.parametrize("name", catalogue.names())
def test_every_program_has_a_card(name: str, zoo: Any) -> None:
    code, out, error = zoo("show", name)
    assert code == 0, error
    assert name in out


def test_fit_score_and_sample(zoo: Any, fitted: Path, tmp_path: Path) -> None:
    assert {"config.json", "model.safetensors", "fit.json", "history.png"} <= {p.name for p in fitted.iterdir()}
    code, out, _ = zoo("score", fitted, "--data", "digits-binary", "--split", "test", "--json")
    assert code == 0
    scored = json.loads(out)
    program, test = catalogue.load(fitted), datasets.load("digits-binary").test
    exact = program.log_prob(test.x).detach()
    assert scored["log_likelihood"] == pytest.approx(float(exact.mean()))
    assert scored["standard_error"] == pytest.approx(float(exact.std() / len(exact) ** 0.5))
    assert scored["bits_per_dim"] == pytest.approx(-float(exact.mean()) / 64 / np.log(2))
    assert scored["how"] == "exact"
    assert scored["examples"] == test.size
    _, out, _ = zoo("score", fitted)
    assert re.match(
        r"-\d+\.\d+ ± \d\.\d+ nats per example \(.*\), 250 examples of digits-binary \(test\), .*exact", out
    )

    code, _, _ = zoo("sample", fitted, "-n", 9, "--out", tmp_path / "s.npz")
    assert code == 0
    samples = np.load(tmp_path / "s.npz")["samples"]
    assert samples.shape == (9, 8, 8)
    zoo("sample", fitted, "-n", 9, "--out", tmp_path / "again.npz")
    np.testing.assert_array_equal(samples, np.load(tmp_path / "again.npz")["samples"])
    zoo("sample", fitted, "-n", 9, "--seed", 1, "--out", tmp_path / "other.npz")
    assert not np.array_equal(samples, np.load(tmp_path / "other.npz")["samples"])
    zoo("sample", fitted, "--out", tmp_path / "s.png")
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.filterwarnings("ignore::inference.games.game.CollapseNotice")
def test_what_has_no_density_is_scored_by_its_samples(zoo: Any, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr("inference.evaluation.samples.classifier.cache_folder", lambda: tmp_path)
    monkeypatch.setattr("inference.evaluation.samples.classifier.STEPS", 100)
    small = ("-o", "hidden=[16]", "-o", "critic_hidden=[8]", "-o", "steps=3", "--out", tmp_path / "gan")
    assert zoo("fit", "gan", "--data", "digits", *small)[0] == 0
    code, out, error = zoo("score", tmp_path / "gan", "-n", 60, "--json")
    assert code == 0, error
    found = json.loads(out)
    frechet = found["scores"]["frechet"]
    assert frechet["value"] > 10 * frechet["real_data"] > 0
    assert frechet["how"].startswith("60 samples, 250 test images, grey, thresholded at 0.5; features ")
    assert {path.name.rsplit("-", 1)[0] for path in (tmp_path / "classifiers").iterdir()} == {"digits", "digits-binary"}
    assert json.loads(zoo("score", tmp_path / "gan", "-n", 60, "--json")[1]) == found
    _, out, _ = zoo("score", tmp_path / "gan", "-n", 60)
    row = re.search(r"^Fréchet +([\d.]+) +([\d.]+) ", out, re.MULTILINE)
    assert row is not None
    assert [float(row[1]), float(row[2])] == [round(frechet[side], 2) for side in ("value", "real_data")]
    assert re.search(r"^asked +n/a +not conditional on a class", out, re.MULTILINE)
    assert frechet["how"].split("features ")[1].split()[0] in out
    assert "No real data beside" in zoo("score", tmp_path / "gan", "-n", 300)[1]
    for wrong, says in (
        (("--how", "iwae"), "no density for --how iwae"),
        (("--data", "digits-labelled"), "give --data digits."),
        (("-n", 3), "n must be at least 10"),
    ):
        code, _, error = zoo("score", tmp_path / "gan", *wrong)
        assert (code, says in error) == (2, True), error


def test_samples_of_a_density_are_judged_when_asked_for(
    zoo: Any, fitted: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("inference.evaluation.samples.classifier.cache_folder", lambda: tmp_path)
    monkeypatch.setattr("inference.evaluation.samples.classifier.STEPS", 20)
    code, out, error = zoo("score", fitted, "--samples", "-n", 100, "--json")
    assert code == 0, error
    found = json.loads(out)
    assert found["how"] == "exact"
    assert found["judged"]["samples"] == 100
    assert "judged" not in json.loads(zoo("score", fitted, "--json")[1])
    assert "add --samples" in zoo("score", fitted, "-n", 100)[2]


def test_fit_with_options_of_program_and_method(zoo: Any, tmp_path: Path) -> None:
    out = tmp_path / "vae"
    code, printed, error = zoo(
        "fit", "vae", "--out", out, "-o", "latent_dim=3", "-o", "hidden=[16]", "-o", "steps=5", "-o", "lr=0.01"
    )
    assert code == 0, error
    assert f"zoo score {out}" in printed
    record = json.loads((out / "fit.json").read_text())
    assert record["options"]["steps"] == 5
    assert record["options"]["epochs"] is None  # the preset's epochs give way
    assert record["options"]["lr"] == 0.01
    config = json.loads((out / "config.json").read_text())
    assert (config["latent_dim"], config["hidden"]) == (3, [16])
    code, printed, error = zoo("score", out, "--how", "iwae", "--particles", 20, "--json")
    assert code == 0, error
    scored = json.loads(printed)
    assert scored["how"] == "IWAE-20"
    assert scored["bound"] is True


def test_the_same_seed_gives_the_same_fit(zoo: Any, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        zoo("fit", "vae", "--out", tmp_path / name, "-o", "hidden=[8]", "-o", "steps=3", "--seed", seed)
    a, b, c = (catalogue.load(tmp_path / name).state_dict() for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


def test_a_file_of_data_and_a_program_in_a_file(zoo: Any, tmp_path: Path) -> None:
    bits = (np.random.RandomState(0).rand(60, 5) < 0.3).astype(float)
    np.savez(tmp_path / "mine.npz", train=bits[:40], valid=bits[40:50], test=bits[50:])
    (tmp_path / "side.py").write_text(SIDE)
    out = tmp_path / "fit"
    code, _, error = zoo(
        "fit", f"{tmp_path}/side.py:Bits", "--data", tmp_path / "mine.npz", "--out", out, "-o", "steps=50"
    )
    assert code == 0, error
    code, printed, error = zoo("score", out, "--data", tmp_path / "mine.npz", "--json")
    assert code == 0, error
    assert json.loads(printed)["examples"] == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "mixtur"), "Unknown program 'mixtur'"),
        (("fit", "vae", "--data", "digitz", "--out", "OUT"), "Did you mean 'digits"),
        (("fit", "vae", "--data", "digits", "--out", "OUT"), "Binarise the data first"),
        (("fit", "vae", "--method", "svy", "--out", "OUT"), "Did you mean 'svi'"),
        (("fit", "independent", "--method", "nuts", "--out", "OUT"), "Methods that can: svi, em"),
        (("fit", "vae", "--preset", "smal", "--out", "OUT"), "Did you mean 'small'"),
        (("fit", "vae", "-o", "latent_dims=2", "--out", "OUT"), "Did you mean 'latent_dim'"),
        (("fit", "vae", "-o", "latent_dim", "--out", "OUT"), "write it as name=value"),
        (("fit", "vae", "-o", "lr=-1", "--out", "OUT"), "lr must be positive"),
        (("score", "OUT"), "holds no saved program"),
        (("score", "FIT", "--split", "tset"), "expected 'train', 'valid' or 'test'"),
        (("score", "FIT", "--how", "magic"), "how must be"),
        (("score", "FIT", "--data", "digits"), "needs values in"),
        (("sample", "FIT", "--out", "x.jpeg"), "give a .png"),
        (("sample", "FIT", "--out", "x.png", "-n", "0"), "n must be at least 1"),
        (("bench", "posteriors", "--out", "OUT"), "Did you mean 'posterior'"),
        (("bench", "main", "--select", "no-such-cell", "--out", "OUT"), "No cell of suite 'main' matches no-such-cell"),
        (("report", "OUT"), "does not exist"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(
    zoo: Any, fitted: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    places = {"OUT": str(tmp_path / "out"), "FIT": str(fitted)}
    code, out, error = zoo(*(places.get(a, a) for a in arguments))
    assert code == 2
    assert not out
    assert message in error
    assert error.startswith("zoo: ")
    assert "Traceback" not in error


def test_debug_shows_where_it_was_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_DEBUG", "1")
    with pytest.raises(ZooError):
        cli.main(["show", "no-such-program"])


def test_options_are_read_as_json_where_they_are() -> None:
    assert parse_options(["a=1", "b=0.5", "c=[1, 2]", "d=true", "e=null", "f=full", "g=x=y"]) == {
        "a": 1, "b": 0.5, "c": [1, 2], "d": True, "e": None, "f": "full", "g": "x=y",
    }  # fmt: skip
    with pytest.raises(OptionError, match="name=value"):
        parse_options(["=3"])


def measure(cell: Cell, artifacts: Path, device: str) -> list[Measurement]:
    """A cell that needs no model."""
    return [Measurement("elbo", -1.0 - cell.seed), Measurement("kl_reverse", 0.5)]


def test_bench_and_report(zoo: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(suite_module.KINDS, "posterior", f"{__name__}:measure")
    methods = (MethodSpec("SVI", "svi"), MethodSpec("NUTS", "nuts"))
    grid = Grid("posterior", (ProgramSpec("coin"),), methods, ("elbo", "kl_reverse"), ("toy",))
    monkeypatch.setattr("benchmarks.suites.get_suite", lambda name: Suite(name, "Tiny", "", (grid,)))
    code, out, error = zoo("bench", "tiny", "--out", tmp_path, "--jobs", 1, "--select", "SVI")
    assert code == 0, error
    assert "KL(q‖p)" in out
    assert str(tmp_path / "report.html") in out
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 6
    code, out, _ = zoo("bench", "tiny", "--out", tmp_path, "--jobs", 1, "--json")
    assert code == 0
    (svi, nuts) = sorted(json.loads(out)["rows"], key=lambda row: row["method"], reverse=True)
    assert svi["values"]["elbo"]["median"] == -2.0
    assert nuts["seeds"] == [0, 1, 2]
    (tmp_path / "report.html").unlink()
    code, _, _ = zoo("report", tmp_path)
    assert code == 0
    assert (tmp_path / "report.html").exists()


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cli", "show", "no-such-program"],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("zoo: Unknown program 'no-such-program'")
    assert not done.stdout
