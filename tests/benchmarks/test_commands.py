"""What the commands do: score, sample, benchmark; and files of data and programs through all of them."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import suite as suite_module
from benchmarks.commands import sample_program, score_program
from benchmarks.fitting import OF_THE_COMMAND, fit_program
from benchmarks.metrics import Measurement
from benchmarks.report import plots
from benchmarks.suite import Cell, Grid, MethodSpec, ProgramSpec, Suite
from inference import fit
from zoo import catalogue, datasets
from zoo.datasets import Data
from zoo.datasets.audio import read_wav

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


def test_features_trains_a_classifier_and_says_how_good_it_is(zoo, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("inference.evaluation.samples.classifier.cache_folder", lambda: tmp_path)
    code, out, _ = zoo("features", "digits", "--steps", 20, "--json")
    found = json.loads(out)
    assert (code, found["data"], found["steps"], found["test_size"]) == (0, "digits", 20, 250)
    assert zoo("features", "digits", "--steps", 20)[1].strip().endswith(f"hash {found['hash']}")  # from the cache
    assert zoo("features", "photo-patches")[0] == 2


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


def test_samples_of_a_table_are_written_as_a_table(zoo: Any, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3)) * [10.0, 1.0, 0.1]
    names = ["age", "income, yearly", "score"]
    with (tmp_path / "people.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows.tolist()])
    code, out, error = zoo(
        "fit", "ppca", "--data", tmp_path / "people.csv", "-o", "latent_dim=1", "--out", tmp_path / "p"
    )
    assert code == 0, error
    assert f"zoo sample {tmp_path / 'p'} --out {tmp_path / 'p' / 'samples.csv'}" in out
    for ending in ("csv", "npz"):
        assert zoo("sample", tmp_path / "p", "-n", 5, "--out", tmp_path / f"s.{ending}")[0] == 0
    with (tmp_path / "s.csv").open(newline="") as file:
        header, *found = csv.reader(file)
    assert header == names
    np.testing.assert_allclose(np.array(found, float), np.load(tmp_path / "s.npz")["samples"], rtol=1e-6)
    # It loads again, as data.
    assert datasets.load(tmp_path / "s.csv").card.names == tuple(names)


def test_what_was_given_stands_beside_what_was_drawn(zoo: Any, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3))
    np.savetxt(tmp_path / "d.csv", rows, delimiter=",", header="y,a,b", comments="")
    data = f"{tmp_path / 'd.csv'}?target=y&context=*"
    code, _, error = zoo("fit", "linear-regression", "--data", data, "--out", tmp_path / "r", "--method", "exact")
    assert code == 0, error
    assert zoo("sample", tmp_path / "r", "-n", 6, "--out", tmp_path / "s.csv")[0] == 0
    header = (tmp_path / "s.csv").read_text().splitlines()[0]
    found = np.loadtxt(tmp_path / "s.csv", delimiter=",", skiprows=1)
    assert (header, found.shape) == ("y,context0,context1", (6, 3))
    np.testing.assert_allclose(found[:, 1:], datasets.load(data).test.context[:6], rtol=1e-6)


@pytest.mark.parametrize("option", sorted(OF_THE_COMMAND))
def test_an_option_of_the_command_is_none_of_the_program(zoo: Any, tmp_path: Path, option: str) -> None:
    code, _, error = zoo("fit", "coin", "--out", tmp_path / "r", "-o", f"{option}=1")
    assert (code, error.count("\n")) == (2, 1)
    assert f"-o {option}= " in error
    assert "command" in error
    assert {name for name, p in signature(fit).parameters.items() if p.kind is p.KEYWORD_ONLY} - {
        "initialise", "num_restarts", "weights",
    } <= OF_THE_COMMAND  # fmt: skip


def test_columns_whose_names_are_longer_than_a_path_may_be(zoo: Any, tmp_path: Path) -> None:
    names = [f"expression of gene {i}" for i in range(30)]
    np.savetxt(tmp_path / "d.csv", np.eye(40, 31), delimiter=",", header=",".join([*names, "y"]), comments="")
    columns = ("--target", "y", "--context", ",".join(names))
    code, _, error = zoo("fit", "linear-regression", "-d", tmp_path / "d.csv", *columns, "--out", tmp_path / "r")
    assert code == 0, error
    for command in (("score", tmp_path / "r"), ("sample", tmp_path / "r", "--out", tmp_path / "s.csv")):
        assert zoo(*command)[0] == 0


def test_what_is_no_row_of_numbers_is_no_table(zoo: Any, fitted: Path, tmp_path: Path) -> None:
    code, _, error = zoo("sample", fitted, "--out", tmp_path / "s.csv")
    assert code == 2
    assert "Examples of shape (8, 8) are no rows of numbers" in error
    assert not (tmp_path / "s.csv").exists()


def test_sounds_are_written_to_be_heard_and_seen(zoo: Any, tmp_path: Path, zoo_data: Path) -> None:
    if not (zoo_data / "spoken_digits.npz").exists():
        pytest.skip("spoken_digits.npz is not under ZOO_DATA")
    out = tmp_path / "sound"
    code, _, error = zoo(
        "fit", "wavegan", "--out", out, "-o", "steps=1", "-o", "batch_size=2", "-o", "channels=[4,4,2,2]"
    )  # fmt: skip
    assert code == 0, error
    assert zoo("sample", out, "-n", 2, "--out", tmp_path / "two.wav")[0] == 0
    found, rate = read_wav(tmp_path / "two.wav")
    assert (rate, len(found)) == (4000, 2 * 4096 + 1000)
    assert zoo("sample", out, "-n", 2, "--out", tmp_path / "two.png")[0] == 0
    assert (tmp_path / "two.png").read_bytes().startswith(b"\x89PNG")
    assert zoo("fit", "gan", "--data", "digits", "--out", tmp_path / "g", "-o", "steps=1")[0] == 0
    code, _, error = zoo("sample", tmp_path / "g", "--out", tmp_path / "g.wav")
    assert code != 0
    assert "no sounds at a rate that is known (fitted on digits)" in error


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
    assert (code, printed) == (2, "")
    assert "--trust-code" in error
    code, printed, error = zoo("score", out, "--trust-code", "--json")  # on the file of the fit
    assert code == 0, error
    assert json.loads(printed)["examples"] == 10


def test_columns_of_a_file(zoo: Any, tmp_path: Path) -> None:
    first, second = tmp_path / "f.csv", tmp_path / "new, too.csv"
    rng = np.random.default_rng(0)
    for path, rows in ((first, 40), (second, 20)):
        x = rng.standard_normal((rows, 2))
        table = np.column_stack([x @ [1.0, -2.0] + rng.standard_normal(rows), x])
        lines = [",".join(map(str, row)) + ",text" for row in table]
        path.write_text("\n".join(["y,x1,x2,note", *lines]))
    out = tmp_path / "runs" / "f"
    words = ["--data", str(first), "--target", "y", "--context", "x1, x2", "--out", str(out), "--json"]
    found = json.loads(zoo("fit", "linear-regression", "--method", "exact", *words)[1])
    assert found["data"] == f"{first}?target=y&context=x1,x2"
    assert json.loads(zoo("score", out, "--json")[1])["examples"] == 4
    assert json.loads(zoo("score", out, "--data", second, "--split", "train", "--json")[1])["examples"] == 16
    drawn = zoo("sample", out, "--out", tmp_path / "s.npz", "--data", second, "-n", 3, "--json")
    assert json.loads(drawn[1])["shape"] == []
    for data, target, message in (
        (["--data", first], "z", "Unknown column"),
        ([], "y", "--data f.csv"),
        (["--data", "diabetes"], "y", "is a data set of the zoo"),
    ):
        code, _, said = zoo("fit", "linear-regression", *data, "--target", target, "--context", "x1", "--out", out)
        assert code == 2
        assert message in said


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
    code, out, _ = zoo("report", tmp_path, "--csv")
    assert code == 0
    assert len(list(csv.DictReader(io.StringIO(out)))) == 2 * 3 * 2


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
    np.save(tmp_path / "few.npy", np.random.default_rng(0).random((20, 8, 8)))
    for wrong, says in (
        (("--how", "iwae"), "no density for --how iwae"),
        (("--data", tmp_path / "few.npy"), "has 2 examples, fewer than the 6"),
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


def test_only_what_is_in_nats_is_said_to_be(zoo: Any, tmp_path: Path) -> None:
    code, out, _ = zoo("fit", "markov-chain", "--data", "digits-binary", "--out", tmp_path / "a")
    assert code == 0
    assert " nats per example\nconvergence: converged\n" in out
    code, out, error = zoo(
        "fit", "coin", "-m", "nuts", "-o", "warmup=5", "-o", "draws=5", "-o", "chains=2", "--out", tmp_path / "b"
    )
    assert code == 0
    assert "at the end: divergences " in out
    assert "nats per example" not in out
    assert "convergence: not to be trusted" in out
    assert error.startswith("zoo: warning: R-hat is above")


def test_global_latents_are_given_the_training_data_and_the_commands_say_so(zoo: Any, tmp_path: Path) -> None:
    bits = np.ones(98)
    np.savez(tmp_path / "mine.npz", train=bits, valid=bits[:2], test=bits[:2])
    out, drawn = tmp_path / "coin", tmp_path / "next.npz"
    assert zoo("fit", "coin", "--method", "exact", "--data", tmp_path / "mine.npz", "--out", out)[0] == 0
    for options, where, mean in (((), "posterior", 0.99), (("--prior",), "prior", 0.5)):
        code, printed, error = zoo("sample", out, "-n", 400, "--out", drawn, *options)
        assert code == 0, error
        assert f"from the {where} predictive distribution" in printed
        assert float(np.load(drawn)["samples"].mean()) == pytest.approx(mean, abs=0.11)
    scored = json.loads(zoo("score", out, "--json")[1])
    assert scored["quantity"] == "log_predictive_density"
    assert scored["log_predictive_density"] == pytest.approx(np.log(0.99), abs=0.003)
    assert "the predictive density" in zoo("score", out)[1]
    scored = json.loads(zoo("score", out, "--evidence", "--json")[1])
    assert (scored["how"], scored["log_evidence"]) == ("exact", pytest.approx(np.log(1 / 3) / 2))
    code, _, error = zoo("score", out, "--how", "iwae")
    assert (code, "add --evidence" in error) == (2, True)


def test_adopted_code_goes_from_a_table_to_a_prediction(tmp_path):
    (tmp_path / "coin.py").write_text(
        "import pyro\nimport pyro.distributions as dist\n\n\n"
        "def model(heads):\n"
        "    p = pyro.sample('p', dist.Beta(1.0, 1.0))\n"
        "    with pyro.plate('tosses', len(heads)):\n"
        "        pyro.sample('heads', dist.Bernoulli(p), obs=heads.float())\n"
    )
    (tmp_path / "coin.csv").write_text("who,heads\n" + "ann,1\nbob,0\n" * 6)
    (tmp_path / "new.csv").write_text("heads\n1\n")
    name, out = f"{tmp_path / 'coin.py'}:model", tmp_path / "fit"
    fitted = fit_program(name, str(tmp_path / "coin.csv"), out, "exact")
    assert fitted["splits"] is False
    climbed = fit_program(name, str(tmp_path / "coin.csv"), tmp_path / "svi", "svi", options={"steps": 300})
    assert climbed["units"]["loss"] == "nats of all data"
    assert climbed["last"]["loss"] > math.log(13 * math.comb(12, 6)) - 1  # minus log evidence of twelve tosses
    own = score_program(out, trust_code=True)
    assert (own["split"], own["examples"]) == ("all of the fit", 12)
    found = score_program(out, str(tmp_path / "new.csv"), trust_code=True)
    assert found["split"] is None
    assert found["log_predictive_density"] == pytest.approx(math.log(0.5), abs=5 * found["monte_carlo_error"])
    drawn = sample_program(out, 5, tmp_path / "drawn.npz", trust_code=True)
    assert drawn["shape"] == {"heads": [12]}
    with np.load(tmp_path / "drawn.npz") as arrays:
        assert arrays["heads"].shape == (5, 12)


def test_sequences_of_real_numbers_are_drawn_as_curves_up_to_their_ends(tmp_path: Path) -> None:
    sequences = Data.sequences([[[70.0, 36.5]] * 3, [[80.0, 38.0]] * 5])
    hmm = catalogue.create("hmm", event_shape=[5, 2], states=1, emission="normal", lengths=True)
    fit(hmm, sequences, "em", iterations=1, out=tmp_path / "hmm")
    own = dict.fromkeys(("train", "valid", "test"), sequences.x)
    np.savez(tmp_path / "own.npz", **own, **{f"{split}_context": sequences.context for split in own})
    found = sample_program(tmp_path / "hmm", 2, tmp_path / "curves.png", data=str(tmp_path / "own.npz"))
    assert found["shape"] == [5, 2]
    assert (tmp_path / "curves.png").stat().st_size > 5_000
    ax, other = plots.curves(sequences.x.numpy(), [3, 5]).axes[:2]
    assert ax.lines[0].get_xydata().tolist() == [[1.0, 70.0], [2.0, 70.0], [3.0, 70.0]]
    assert [len(line.get_xydata()) for line in other.lines] == [3, 5]
