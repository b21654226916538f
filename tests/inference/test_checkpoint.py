"""The checkpoint of a folder: no other fit goes on from it, the same one does, and damage is seen."""

from __future__ import annotations

import os
import warnings
from functools import partial
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import SVI, Fit, fit
from inference.checkpoint import CHECKPOINT, Checkpoint, ResumeNotice, differences, fingerprint
from inference.methods import em, nuts
from inference.training.loop import Loop, Schedule
from inference.training.target import Target
from tests.inference.factors import data, ppca, same, state, steps_done
from tests.inference.killed import Killed, killed_after
from zoo import datasets
from zoo.datasets import Data
from zoo.errors import CheckpointError, NonFiniteError, OptionError
from zoo.latent.ppca import PPCA
from zoo.program import Program


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda number: None)


class Line(Program):
    """x ~ N(mean, 1): the cheapest program with a weight."""

    def __init__(self, start: float = 0.0, unused: int = 0) -> None:
        super().__init__()
        self.mean = torch.nn.Parameter(torch.tensor(start))

    def model(self, x=None, context=None, size=None):
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Normal(self.mean, 1.0), obs=x)


X = torch.linspace(-1.0, 3.0, 40, dtype=torch.float64)
VALID = X[:7] + 0.1
ASKED = {"lr": 0.1, "steps": 8, "batch_size": 16, "checkpoint_seconds": 0.0, "compile": "never"}


def dataset(train: torch.Tensor, valid: torch.Tensor) -> datasets.Dataset:
    sizes = {"train": len(train), "valid": len(valid), "test": 1}
    card = datasets.Card("test", "made up", (), "real", sizes, "here", "none")
    return datasets.Dataset(card, Data(train), Data(valid), Data(valid[:1]))


def asked(out: Path | None, program: Program | None = None, x=X, valid=VALID, seed=0, **changes) -> Fit:
    given = {name: changes.pop(name) for name in ("restart", "initialise") if name in changes}
    options = {**ASKED, **changes}
    return fit(program or Line(), dataset(x, valid), SVI(**options), seed=seed, device="cpu", out=out, **given)


def kill(folder: Path, after: int = 3, **changes) -> None:
    """A fit that ends right after so many checkpoints."""
    with killed_after(Loop, "save", after):
        asked(folder, **changes)
    assert (folder / CHECKPOINT).exists()


@pytest.mark.parametrize("after", [1, 3, 7, 8])
def test_the_same_goes_on_and_ends_as_it_would_have(tmp_path: Path, after: int) -> None:
    kill(tmp_path, after)
    assert steps_done(tmp_path / CHECKPOINT) == after
    resumed, straight = asked(tmp_path), asked(None)
    assert same(state(resumed.program), state(straight.program))
    assert [r["loss"] for r in resumed.history.rows if "loss" in r] == straight.history.series("loss")[1]
    assert not (tmp_path / CHECKPOINT).exists()
    assert same(state(Fit.load(tmp_path, program=Line).program), state(straight.program))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lr": 0.2}, "option lr 0.1 there, 0.2 here"),
        ({"decay": "constant"}, "option decay"),
        ({"steps": 7}, "steps 8 there, 7 here"),
        ({"steps": None, "epochs": 1}, "steps 8 there, 3 here"),
        ({"batch_size": 8}, "option batch_size 16 there, 8 here"),
        ({"compile": "auto"}, "option compile"),
        ({"precision": "tf32"}, "option precision"),
        ({"particles": 2}, "option particles"),
        ({"elbo": "exact"}, "option elbo"),
        ({"alpha": 0.5}, "option alpha"),
        ({"optimizer": "sgd"}, "option optimizer 'adam' there, 'sgd' here"),
        ({"optimizer": torch.optim.SGD}, "option optimizer 'adam' there, 'torch.optim.sgd.SGD' here"),
        ({"weight_decay": 0.1}, "option weight_decay"),
        ({"clip_norm": 1.0}, "option clip_norm"),
        ({"kl_anneal": 0.5}, "option kl_anneal"),
        ({"train_program": False, "initialise": True}, "option train_program"),
        ({"validate_every": 2}, "option validate_every"),
        ({"patience": 2}, "option patience"),
        ({"guide": "posterior"}, "option guide"),
        ({"beta": 0.5}, "option beta"),
        ({"tc": 2.0}, "option tc"),
        ({"init_loc_fn": "sample"}, "option init_loc_fn"),
        ({"seed": 3}, "seed 0 there, 3 here"),
        ({"x": X + 1e-12}, "other training data"),
        ({"x": X[:-1]}, "other training data"),
        ({"x": X.float()}, "other training data"),
        ({"valid": VALID + 1.0}, "other validation data"),
        ({"initialise": False}, "initialise True there, False here"),
        ({"program": lambda: Line(unused=1)}, "config unused"),
        ({"program": lambda: Line().float()}, "dtype"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_another_command_is_refused_and_the_difference_named(tmp_path: Path, change: dict, says: str) -> None:
    kill(tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    change = {name: value() if name == "program" else value for name, value in change.items()}
    with pytest.raises(CheckpointError, match="belongs to another fit") as caught:
        asked(tmp_path, **change)
    assert says in str(caught.value)
    assert "restart=True (--restart)" in str(caught.value)
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    # None of the others is said to differ; but data are converted to the program's dtype, and so differ with it.
    most = 5 if says == "dtype" else 3
    assert str(caught.value).count("there, ") + str(caught.value).count("other ") <= most


def test_every_option_of_svi_is_among_those_changed_above() -> None:
    marks = test_another_command_is_refused_and_the_difference_named.pytestmark
    changed = {name for mark in marks for change, _ in mark.args[1] for name in change}
    assert set(SVI.option_names()) - {"checkpoint_seconds"} <= changed


def test_another_program_or_method_is_refused(tmp_path: Path) -> None:
    kill(tmp_path)
    with pytest.raises(CheckpointError, match=r"program .*Line' there, 'ppca' here"):
        fit(ppca(), data(20), "svi", steps=8, out=tmp_path)
    for method, program, x in (("em", ppca(), data(20)), ("exact", "coin", "coin")):
        with pytest.raises(CheckpointError, match=f"method 'svi' there, '{method}' here"):
            fit(program, x, method, out=tmp_path)
    with pytest.raises(CheckpointError, match="leaves no checkpoints"):
        fit(Line(), X, SVI(**ASKED), num_restarts=2, out=tmp_path)


def test_changed_source_is_another_fit_and_changed_comments_are_not(tmp_path: Path, monkeypatch) -> None:
    source = '"""A module."""\nfrom tests.inference.test_checkpoint import Line\n\n\nclass Mine(Line):\n    x = 1\n'
    file = tmp_path / "mine_of_this_test.py"
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for text in (source, source.replace("x = 1", "x = 1  # one"), source.replace("x = 1", "x = 2")):
        file.write_text(text)
        os.utime(file, ns=(0, 10**9 * len(found)))
        cls = __import__("mine_of_this_test").Mine
        of = fingerprint(cls(), SVI(), Data(X), None, seed=0, initialise=True, steps=8, given=True)
        found.append(of["source"])
    assert found[0] == found[1] != found[2]


def test_how_often_it_writes_and_who_watches_may_differ(tmp_path: Path) -> None:
    kill(tmp_path)
    resumed = asked(tmp_path, checkpoint_seconds=100.0)
    assert same(state(resumed.program), state(asked(None).program))


def test_steps_and_epochs_of_the_same_number_are_the_same(tmp_path: Path) -> None:
    kill(tmp_path, steps=5)
    asked(tmp_path, steps=None, epochs=2)  # ceil(2 * 40 / 16) steps


def test_more_steps_of_the_same_fit_go_on_and_it_is_said(tmp_path: Path) -> None:
    kill(tmp_path, decay="constant")
    with pytest.warns(ResumeNotice, match="12 steps instead of 8, and what is scheduled"):
        longer = asked(tmp_path, steps=12, decay="constant")
    # Nothing is scheduled here, so it is the longer run to the bit.
    assert same(state(longer.program), state(asked(None, steps=12, decay="constant").program))
    assert longer.options["steps"] == 12


def test_other_weights_of_a_program_that_was_given_are_told(tmp_path: Path) -> None:
    other = Line()
    other.mean.data.fill_(5.0)
    kill(tmp_path)
    with pytest.warns(ResumeNotice, match="gets those of the checkpoint"):
        resumed = asked(tmp_path, program=other)
    assert same(state(resumed.program), state(asked(None).program))
    # Weights that `fit` was told to start from are part of what was asked.
    other.mean.data.fill_(5.0)
    kill(tmp_path, initialise=False)
    with pytest.raises(CheckpointError, match="weights at the start"):
        asked(tmp_path, program=other, initialise=False)


def test_restart_starts_anew(tmp_path: Path) -> None:
    kill(tmp_path)
    anew = asked(tmp_path, seed=3, steps=4, restart=True)
    assert same(state(anew.program), state(asked(None, seed=3, steps=4).program))
    assert not (tmp_path / CHECKPOINT).exists()
    with pytest.raises(OptionError, match="give the folder"):
        asked(None, restart=True)


def test_what_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError):
        asked(tmp_path / "f", x=X / 0)
    assert not (tmp_path / "f").exists()


def test_the_seconds_of_a_killed_run_count(tmp_path: Path) -> None:
    kill(tmp_path)
    of = fingerprint(Line(), SVI(**ASKED), Data(X), Data(VALID), seed=0, initialise=True, steps=8, given=True)
    found = Checkpoint(tmp_path, of)
    stood = found.take()
    assert stood is not None
    found.seconds = 1000.0
    found.write(stood)
    assert asked(tmp_path).seconds > 1000.0


def test_the_checkpoint_stays_until_the_fit_is_saved(tmp_path: Path, monkeypatch) -> None:
    def fails(found: Fit, folder: Path) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "save", fails)
        with pytest.raises(Killed):
            asked(tmp_path)
    assert steps_done(tmp_path / CHECKPOINT) == 8
    assert same(state(asked(tmp_path).program), state(asked(None).program))


@pytest.mark.parametrize("bit", [*range(0, 600, 37), *range(-6000, -1, 149)])
def test_a_flipped_bit_is_seen(killed: bytes, tmp_path: Path, bit: int) -> None:
    damaged = bytearray(killed)
    damaged[bit // 8] ^= 1 << bit % 8
    (tmp_path / CHECKPOINT).write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"[dD]elete it"):
        Checkpoint(tmp_path, {})


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> bytes:
    torch.set_default_dtype(torch.float64)
    folder = tmp_path_factory.mktemp("killed")
    kill(folder)
    return (folder / CHECKPOINT).read_bytes()


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "version", "pickle", "pipe", "folder", "link"])
def test_what_is_no_checkpoint_is_refused_before_any_step(killed: bytes, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "f" / CHECKPOINT
    path.parent.mkdir()
    contents = {
        "text": b"not a checkpoint",
        "empty": b"",
        "cut": killed[:-100],
        "version": killed.replace(b"zoo checkpoint 3", b"zoo checkpoint 4", 1),
        "pickle": killed[: killed.index(b"\n") + 1] + b"cos\nsystem\n(S'touch /tmp/never'\ntR.",
    }
    if kind in contents:
        path.write_bytes(contents[kind])
    elif kind == "link":
        (tmp_path / "elsewhere").write_bytes(killed)
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.mkdir() if kind == "folder" else os.mkfifo(path)
    program = Line(2.0)
    with pytest.raises(CheckpointError, match="checkpoint"):
        asked(tmp_path / "f", program=program)
    assert float(program.mean.detach()) == 2.0


def test_differences_are_named_key_by_key() -> None:
    assert differences({"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 4, "d": 3}}) == ["b c 2 there, 4 here"]
    assert differences({"a": 1.0, "s": [1, 2]}, {"a": 1, "s": [1, 2]}) == []
    assert differences({"data": "x"}, {"data": "y"}) == ["other training data"]


class Pair(Program):
    """Two means, one prior: what NUTS can sample quickly, with a weight that it holds."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.tensor(scale).log())

    def model(self, x=None, context=None, size=None):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(2), self.log_scale.exp()).to_event(1))
        with self.plate(x, context, size):
            return pyro.sample("x", dist.Normal(mean.sum(-1), 1.0), obs=x)


def chains(out: Path | None, program: Program | None = None, **changes) -> Fit:
    options = {"warmup": 10, "draws": 6, "chains": 3, "max_tree_depth": 3, **changes}
    return fit(program or Pair(), X[:5], "nuts", seed=1, device="cpu", out=out, **options)


@pytest.mark.parametrize("after", [1, 8, None])
def test_chains_go_on_where_they_stood(tmp_path: Path, monkeypatch, after: int | None) -> None:
    straight, writes = chains(None), []
    write = Checkpoint.write

    def deadly(checkpoint, state) -> None:
        write(checkpoint, state)
        writes.append(None)
        if len(writes) == after:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(nuts, "KEEP_SECONDS", 0.0)  # after each draw
        patch.setattr(Checkpoint, "write", deadly)
        if after is None:
            patch.setattr(Fit, "save", lambda *given: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            chains(tmp_path)
    for change, says in (({"draws": 7}, "option draws"), ({"program": Pair(2.0)}, "weights at the start")):
        with pytest.raises(CheckpointError, match=says):
            chains(tmp_path, **change)
    gradients = []
    slope = Target.slope
    monkeypatch.setattr(Target, "slope", lambda target, z: gradients.append(len(z)) or slope(target, z))
    resumed = chains(tmp_path)
    assert torch.equal(resumed.samples["mean"], straight.samples["mean"])
    assert resumed.gradient_evaluations == straight.gradient_evaluations
    if after == 8:  # of sixteen draws
        assert sum(gradients) < straight.gradient_evaluations, "what was done is not done again"
    elif after is None:
        assert not gradients
    assert resumed.info == straight.info
    assert [row["step"] for row in resumed.history.rows] == [row["step"] for row in straight.history.rows]


METHODS = {
    "svi": (PPCA, {}),
    "wake-sleep": (PPCA, {}),
    "mcem": (PPCA, {"leapfrog": 2, "m_steps": 1, "draws": 1}),
    "avb": (PPCA, {"hidden": (4,), "critic_hidden": (4,), "moments": 8, "particles": 4}),
}


@pytest.mark.parametrize("method", METHODS)
def test_methods_that_take_steps_resume_bit_for_bit(tmp_path: Path, method: str) -> None:
    cls, options = METHODS[method]

    def run(out: Path | None) -> Fit:
        torch.manual_seed(0)
        given = {"steps": 6, "batch_size": 8, "compile": "never", "checkpoint_seconds": 0.0, **options}
        return fit(cls([6], 2), data(20), method, device="cpu", out=out, **given)

    straight = run(None)
    with killed_after(Loop, "save", 3):
        run(tmp_path)
    resumed = run(tmp_path)
    assert same(state(resumed.program), state(straight.program))
    assert resumed.history.series("loss") == straight.history.series("loss")
    assert resumed.gradient_evaluations == straight.gradient_evaluations


def test_a_run_that_had_stopped_does_not_go_on(tmp_path: Path, monkeypatch) -> None:
    """An ascent that has converged ends with a checkpoint; resumed, it is still at its end."""
    x = data(30)

    def run(out: Path | None) -> Fit:
        return fit(ppca(), x, "em", iterations=400, tolerance=1e-3, device="cpu", out=out)

    monkeypatch.setattr(em, "Schedule", partial(Schedule, checkpoint_seconds=0.0))
    straight = run(None)
    with monkeypatch.context() as patch:
        patch.setattr(Fit, "save", lambda *given: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run(tmp_path)
    resumed = run(tmp_path)
    assert resumed.info == straight.info
    assert resumed.info["converged"]
    assert same(state(resumed.program), state(straight.program))


def test_a_resumed_fit_without_a_difference_gives_no_notice(tmp_path: Path) -> None:
    kill(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked(tmp_path)
