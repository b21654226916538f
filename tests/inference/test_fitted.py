"""`Fit`: what is saved comes back bit for bit, a folder holds exactly one, and what is not whole is refused."""

from __future__ import annotations

import json
import math
import os
import shutil
from functools import partial
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference import SVI, Fit, fit
from inference.history import History
from tests.inference.factors import data, ppca, same, state
from tests.zoo.test_folders import Killed, killed_at
from zoo import catalogue, errors, folders
from zoo.bayes.coin import BetaBernoulli
from zoo.datasets import Data


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda number: None)


def test_saved_fit_reproduces_its_predictions_bit_for_bit(tmp_path):
    x = data()
    for guide in ("own", "posterior"):
        found = fit(ppca(), x, SVI(guide=guide, steps=20, elbo="trace"), out=tmp_path / guide)
        again = Fit.load(tmp_path / guide)
        assert same(state(found.program), state(again.program))
        assert torch.equal(found.draw(4, x)["z"], again.draw(4, x)["z"])
        assert again.history.rows == found.history.rows
        assert again.seconds == found.seconds


@pytest.mark.parametrize("guide", ["normal", "multivariate_normal", "low_rank", "structured", "iaf", "delta"])
def test_autoguides_survive_a_checkpoint(tmp_path, guide):
    x = data(20)
    found = fit(ppca(), x, "svi", guide=guide, steps=10, out=tmp_path)
    again = Fit.load(tmp_path)
    assert torch.equal(found.draw(3, x)["z"], again.draw(3, x)["z"])


def rewritten(folder: Path, **changes) -> None:
    """Another fit.json, under its right sum."""
    saved = folders.read(folder)
    record = {**json.loads(saved.files["fit.json"]), **changes}
    record = {name: value for name, value in record.items() if value is not ...}
    files = {**saved.files, "fit.json": folders.to_json(record)}
    folders.write(folder, saved.options, saved.record["program"], files)


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    torch.set_default_dtype(torch.float64)
    folder = tmp_path_factory.mktemp("kept")
    fit(ppca(), data(20), "svi", guide="normal", steps=2, out=folder)
    return folder


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "fit"))


def test_fit_of_another_version_and_half_a_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    rewritten(folder, version=99)
    with pytest.raises(errors.CheckpointError, match="version 99"):
        Fit.load(folder)
    (folder / "fit.json").write_text("{")
    with pytest.raises(errors.CheckpointError, match=r"fit\.json is damaged"):
        Fit.load(folder)
    with pytest.raises(errors.CheckpointError, match="no saved program"):
        Fit.load(tmp_path / "nowhere")
    catalogue.save(ppca(), folder)
    with pytest.raises(errors.CheckpointError, match="a program, and no fit of it"):
        Fit.load(folder)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("method", (..., None, 3)),
        ("data", (..., None, 3, {}, {"file": "x", "form": 3})),
        ("seed", (..., None, "x", 1.5)),
        ("options", (..., None, [])),
        ("info", (..., None, [])),
        ("history", (..., None, {}, "x", [3], [[]], [{}], [{"step": 1, "seconds": "x"}])),
        ("guide", (..., "own", ["own"])),
        ("versions", (..., None, [])),
        ("seconds", (..., None, "x")),
        ("gradient_evaluations", (..., None, 1.5)),
    ],
)
def test_a_record_that_lacks_a_field_or_has_another_kind_is_refused(folder: Path, field: str, values) -> None:
    for value in values:
        rewritten(folder, **{field: value})
        with pytest.raises(errors.CheckpointError, match=f"not a whole fit.*{field}"):
            Fit.load(folder)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"kind": "auto"},
        {"kind": "auto", "name": "os:system"},
        {"kind": "os:system", "name": "true"},
        {"kind": "implicit"},
        {"kind": "implicit", "options": {"model": "os:system"}},
        {"kind": 3},
        {"kind": ["own"]},
        {"kind": "auto", "name": "multivariate_normal"},
    ],
)
def test_no_spec_of_a_guide_gets_through_that_is_not_this_fits(folder: Path, spec: dict) -> None:
    rewritten(folder, guide=spec)
    with pytest.raises(errors.CheckpointError, match="not a whole fit"):
        Fit.load(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "fit.json", "guide.safetensors", "train.safetensors"]
)
@pytest.mark.parametrize("where", [0.02, 0.3, 0.5, 0.8, 0.97])
def test_a_flipped_bit_of_any_file_is_seen(folder: Path, name: str, where: float) -> None:
    content = bytearray((folder / name).read_bytes())
    content[int(where * len(content))] ^= 4
    (folder / name).write_bytes(content)
    with pytest.raises(errors.CheckpointError, match=name):
        Fit.load(folder)


def chain(value: float) -> Fit:
    samples = {"p": torch.full((20,), value)}
    return Fit(program=BetaBernoulli(), method="nuts", data="coin", seed=1, samples=samples, info={"rhat": {"p": 1.0}})


def exact() -> Fit:
    program = BetaBernoulli(2.0, 5.0)
    return Fit(
        program=program,
        method="exact",
        data="tensor",
        seed=2,
        guide=program.posterior,
        guide_spec={"kind": "posterior"},
    )


def test_a_second_fit_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    """Two hundred heads less: the truth is 0.005, and the chain of before said 0.85."""
    fit("coin", "coin", "nuts", warmup=2, draws=4, chains=1, max_tree_depth=2, out=tmp_path)
    (tmp_path / "history.png").write_bytes(b"a picture")
    (tmp_path / "samples.npz").write_bytes(b"draws")
    found = fit("coin", torch.zeros(200), "exact", out=tmp_path)
    again = Fit.load(tmp_path)
    assert (again.method, again.samples, again.data) == ("exact", None, "tensor")
    draws = again.draw(4000, torch.zeros(200))["p"]
    assert torch.equal(draws, found.draw(4000, torch.zeros(200))["p"])
    assert float(draws.mean()) == pytest.approx(1 / 202, rel=0.1)
    names = {path.name for path in tmp_path.iterdir()}
    kept = {"config.json", "fit.json", "model.safetensors", "train.safetensors"}
    assert names == {*kept, ".lock", "history.png", "samples.npz"}


def test_a_save_killed_at_any_call_leaves_one_whole_fit(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(catalogue, "_locations", lambda: catalogue.BUILTIN)
    chain(0.85).save(tmp_path / "before")
    (tmp_path / "before" / "checkpoint.pt").write_bytes(b"of a killed fit")
    seen, call, ended, zeros = [], 0, False, torch.zeros(200)
    while not ended:
        call += 1
        folder = tmp_path / str(call)
        shutil.copytree(tmp_path / "before", folder)
        with killed_at(call, half=True):
            try:
                exact().save(folder)
                ended = True
            except Killed:
                pass
        found = Fit.load(folder)
        seen.append(found.method)
        if found.method == "nuts":
            assert (found.seed, found.data, found.guide, found.program.config()["beta"]) == (1, "coin", None, 1.0)
            assert torch.equal(found.samples["p"], torch.full((20,), 0.85))
        else:
            assert (found.seed, found.data, found.samples, found.info) == (2, "tensor", None, {})
            assert found.program.config() == {"alpha": 2.0, "beta": 5.0}
            assert float(found.draw(50, zeros)["p"].max()) < 0.2
    assert seen == ["nuts"] * seen.count("nuts") + ["exact"] * seen.count("exact")
    assert min(seen.count("nuts"), seen.count("exact")) > 3
    assert not (folder / "checkpoint.pt").exists()


def test_what_is_not_finite_is_null_in_the_record(tmp_path: Path) -> None:
    one = chain(0.5)
    one.info = {"rhat": {"p": math.nan}, "ess": {"p": math.inf}, "losses": torch.tensor([1.0, math.nan])}
    one.history = History([{"step": 1, "seconds": 0.1, "loss": math.nan}])
    one.save(tmp_path)
    record = json.loads((tmp_path / "fit.json").read_text(), parse_constant=pytest.fail)
    assert record["info"] == {"rhat": {"p": None}, "ess": {"p": None}, "losses": [1.0, None]}
    (row,) = Fit.load(tmp_path).history.rows
    assert math.isnan(row["loss"])


def test_nan_in_samples_or_guide_is_refused_and_what_was_there_stays(tmp_path: Path) -> None:
    chain(0.5).save(tmp_path)
    with pytest.raises(errors.CheckpointError, match="The samples: NaN in 'p'"):
        chain(math.nan).save(tmp_path)
    assert float(Fit.load(tmp_path).samples["p"][0]) == 0.5


class Doubled(BetaBernoulli):
    """A class that no catalogue has, such as one of a notebook."""


def test_a_class_of_ones_own_is_given_when_a_fit_is_loaded(tmp_path: Path) -> None:
    found = fit(Doubled(), "coin", "exact", out=tmp_path)
    with pytest.raises(errors.CheckpointError, match=r"class Doubled of .*program=Doubled"):
        Fit.load(tmp_path)
    for again in (Fit.load(tmp_path, program=Doubled), Fit.load(tmp_path, trust_code=True)):
        assert type(again.program) is Doubled
        assert torch.equal(again.draw(3, torch.ones(2))["p"], found.draw(3, torch.ones(2))["p"])


def test_a_file_of_data_is_found_from_the_folder(tmp_path: Path, monkeypatch) -> None:
    import numpy as np

    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "mine.npy", np.ones(20))
    monkeypatch.chdir(tmp_path / "a")
    fit("coin", "mine.npy", "exact", out="runs/fit")
    assert json.loads(Path("runs/fit/fit.json").read_text())["data"] == {"file": "../../mine.npy", "form": ""}
    (tmp_path / "a").rename(tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    assert Fit.load("b/runs/fit").data == str(tmp_path / "b" / "mine.npy")


@pytest.mark.parametrize("case", ["a file", "too long", "foreign"])
def test_a_folder_that_will_not_do_is_refused_before_any_compute(tmp_path: Path, case: str, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    out = {"a file": "file", "too long": "n" * 300, "foreign": "mine"}[case]
    monkeypatch.setattr(SVI, "run", lambda *given: pytest.fail("it was computed"))
    monkeypatch.setattr(BetaBernoulli, "initialise", lambda *given: pytest.fail("it was begun"))
    with pytest.raises(errors.CheckpointError, match=r"another folder|name another"):
        fit(BetaBernoulli(), "coin", "svi", out=tmp_path / out)


def test_what_could_not_be_saved_is_refused_before_any_compute(tmp_path: Path, monkeypatch) -> None:
    def guide(x=None, context=None, size=None):
        pyro.sample("p", dist.Beta(1.0, 1.0))

    monkeypatch.setattr(SVI, "run", lambda *given: pytest.fail("it was computed"))
    with pytest.raises(errors.CheckpointError, match=r"could not be saved in .*given as code"):
        fit(BetaBernoulli(), "coin", "svi", guide=guide, out=tmp_path)
    with pytest.raises(errors.CheckpointError, match="given as code"):
        fit("coin", "coin", "svi", guide=guide, out=tmp_path, num_restarts=2)
    monkeypatch.setattr(BetaBernoulli, "config", lambda self: {"alpha": math.inf})
    with pytest.raises(errors.CheckpointError, match="no JSON"):
        fit(BetaBernoulli(), "coin", "svi", out=tmp_path)
    given = Fit(
        program=BetaBernoulli(), method="svi", data="coin", seed=0, guide=guide, guide_spec={"kind": "custom"},
        train=Data(torch.ones(2)),
    )  # fmt: skip
    with pytest.raises(errors.CheckpointError, match="cannot be saved: its guide was given as code"):
        given.save(tmp_path)


def test_no_folder_at_all_is_refused() -> None:
    for deed in (exact().save, Fit.load, partial(catalogue.save, ppca()), catalogue.load, partial(fit, "coin", out=3)):
        with pytest.raises(errors.OptionError, match=r"Path.*got 3"):
            deed() if isinstance(deed, partial) and "out" in deed.keywords else deed(3)


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    """By another thread here; a lock of the operating system tells no difference."""
    from concurrent.futures import ThreadPoolExecutor

    with folders.held(tmp_path), ThreadPoolExecutor(1) as pool:
        for deed in (lambda: fit("coin", "coin", "exact", out=tmp_path), lambda: exact().save(tmp_path)):
            with pytest.raises(errors.CheckpointError, match="in use by another process"):
                pool.submit(deed).result()
    assert not (tmp_path / "config.json").exists()
    exact().save(tmp_path)


def test_parameters_are_the_programs_and_those_of_a_guide_of_its_own():
    x = data(20)
    own, auto = (fit(ppca(), x, "svi", guide=guide, steps=1) for guide in ("own", "normal"))
    assert own.parameter_count() == own.program.parameter_count()
    # A mean and a deviation for each of 20 examples and 2 latents.
    assert auto.parameter_count() == own.parameter_count() + 20 * 2 * 2


def test_a_step_on_the_exact_likelihood_is_one_gradient():
    x = data(20)
    assert fit(ppca(), x, "svi", elbo="exact", particles=5, steps=3).gradient_evaluations == 3
    assert fit(ppca(), x, "svi", elbo="trace", particles=5, steps=3).gradient_evaluations == 15


def test_predictions_are_given_the_training_data_and_survive_a_checkpoint(tmp_path: Path) -> None:
    """A thousand heads: Laplace's rule of succession says 1001/1002 for the next, whatever else is asked."""
    found = fit("coin", torch.ones(1000), "exact", out=tmp_path)
    again = Fit.load(tmp_path)
    for each in (found, again):
        new = each.predict(500, size=3, seed=1)["x"]
        assert new.shape == (500, 3)
        assert float(new.mean()) > 0.99
        assert float(each.predict(500, torch.zeros(4), seed=1)["x"].mean()) > 0.99
        assert each.predict(2)["x"].shape == (2, 1000)
        assert float(each.draw(10)["p"].min()) > 0.9
    assert torch.equal(found.predict(9, size=2)["x"], again.predict(9, size=2)["x"])
    assert not torch.equal(found.draw(9, seed=1)["p"], found.draw(9, seed=2)["p"])


def test_predictions_in_other_contexts() -> None:
    c = torch.eye(2).repeat(500, 1)
    found = fit("linear-regression", (c @ torch.tensor([3.0, -3.0]), c), "exact")
    x = found.predict(4000, context=torch.tensor([[1.0, 1.0], [1.0, -1.0], [0.0, 0.0]]))["x"]
    assert x.shape == (4000, 3)
    assert bool(((x.mean(0) - torch.tensor([0.0, 6.0, 0.0])).abs() < 0.1).all())
    # noise 0.7, and weights known to 0.7 / sqrt(500)
    assert float(x[:, 0].std()) == pytest.approx(0.7, rel=0.05)
    assert found.predict(2)["x"].shape == (2, 1000)


def test_predictions_without_global_latents_need_no_training_data(tmp_path: Path) -> None:
    x = data(20)
    found = fit(ppca(), x, "em", out=tmp_path)
    again = Fit.load(tmp_path)
    assert again.train is None
    assert torch.equal(found.predict(5, size=2)["x"], again.predict(5, size=2)["x"])
    assert again.predict(5, x[:3])["x"].shape == (5, 3, *x.shape[1:])
    for wrong, error, says in (
        ({}, errors.OptionError, "size must say"),
        ({"x": x[:3], "size": 2}, errors.OptionError, "leave size out"),
        ({"n": 0, "size": 2}, errors.OptionError, "n must"),
        ({"x": x[:3] * torch.nan}, errors.NonFiniteError, "NaN"),
    ):
        with pytest.raises(error, match=says):
            again.predict(**wrong)


def test_samples_of_a_chain_predict_after_a_checkpoint(tmp_path: Path) -> None:
    c = torch.tensor([9.0, 10.0, 11.0])
    fit("eight-schools", (torch.tensor([1.0, 2.0, 3.0]), c), "nuts", warmup=10, draws=20, chains=1, out=tmp_path)
    again = Fit.load(tmp_path)
    assert again.predict(20, *again.train)["x"].shape == (20, 3)
    assert again.predict(7, context=c[:2])["x"].shape == (7, 2)


def test_a_fit_is_told_in_a_line_and_shown_in_a_notebook() -> None:
    found = fit("coin", None, "svi", steps=3, compile="never")
    loss = found.history.last("loss")
    assert repr(found) == f"Fit(BetaBernoulli, svi, data coin, seed 0, loss {loss:.4g}, {found.seconds:.1f} s)"
    found.data = "/" + "<long>/" * 40
    assert len(repr(found)) <= 200
    shown = found._repr_html_()
    assert "&lt;long&gt;" in shown
    assert "<long>" not in shown
    assert "guide: own" in shown
    assert "steps=3" in shown
    assert shown.count("data:image/png;base64,") == 1
