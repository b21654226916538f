"""Loggers write what a fit reports, where TensorBoard and others find it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from inference import fit
from inference.loggers import LOGGERS, TensorBoard, Trackio, WeightsAndBiases, make_logger
from tests.inference.factors import data, ppca
from zoo import errors


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Modules in the place of wandb and trackio, which write down their calls."""

    def make(name: str) -> list[tuple[str, Any]]:
        calls: list[tuple[str, Any]] = []
        module: Any = ModuleType(name)
        module.init = lambda **given: calls.append(("init", given))
        module.log = lambda values, step: calls.append(("log", (step, values)))
        module.Image = lambda array: SimpleNamespace(array=array)
        module.finish = lambda **given: calls.append(("finish", given))
        monkeypatch.setitem(sys.modules, name, module)
        return calls

    return make


def images(n: int = 40) -> torch.Tensor:
    return (torch.rand(n, 8, 8) < 0.3).double()


@pytest.mark.parametrize("cls", [WeightsAndBiases, Trackio])
def test_a_run_has_options_history_result_and_samples(online: Any, cls: type) -> None:
    calls = online(cls.module)
    found = fit("vae", images(), steps=3, latent_dim=2, seed=5, callbacks=[cls(name="mine")])
    (_, opened), *logged, finished = calls
    assert (opened["project"], opened["name"]) == ("pyro-model-zoo", "mine")
    assert opened["config"]["program"] == "vae"
    assert opened["config"]["program.latent_dim"] == 2
    assert opened["config"]["method.steps"] == 3
    assert opened["config"]["seed"] == 5
    rows = [{"step": step, **values} for _, (step, values) in logged[:-1]]
    assert rows == found.history.rows
    step, result = logged[-1][1]
    assert (step, result["result/loss"]) == (3, found.history.last("loss"))
    sheet = result["samples"].array
    assert (sheet.shape, sheet.dtype, set(np.unique(sheet))) == ((35, 35, 3), np.uint8, {0, 128, 255})
    assert (sheet[8] == 128).all()
    assert (sheet[:, 17] == 128).all()
    assert finished == ("finish", {"exit_code": 0} if cls is WeightsAndBiases else {})


def test_a_failed_fit_closes_its_run(online: Any) -> None:
    calls = online("wandb")
    with pytest.raises(errors.DivergenceError):
        fit(ppca(), data(50), "svi", steps=50, lr=1e30, callbacks=[WeightsAndBiases()])
    assert calls[-1] == ("finish", {"exit_code": 1})


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, module in (("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb"), ("trackio", "trackio")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(errors.OptionError, match=rf"pip install 'pyro-model-zoo\[{name}\]'"):
            make_logger(name, tmp_path)
    with pytest.raises(errors.UnknownNameError, match="Did you mean 'tensorboard'"):
        make_logger("tensorbord", tmp_path)


def test_each_logger_is_made_by_its_name(online: Any, tmp_path: Path) -> None:
    for name in ("wandb", "trackio"):
        online(name)
        made = make_logger(name, tmp_path / "runs" / "mine")
        assert type(made) is LOGGERS[name]
        assert made.settings["name"] == "mine"


def events(folder: Path) -> Any:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    return accumulator.EventAccumulator(str(folder)).Reload()


def test_tensorboard_reads_curves_options_result_and_samples(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for _ in range(2):  # the second run's curves take the place of the first's
        found = fit("vae", images(), steps=3, callbacks=[TensorBoard(tmp_path)])
    read = events(tmp_path)
    steps, losses = found.history.series("loss")
    assert [(e.step, e.value) for e in read.Scalars("loss")] == [
        (step, pytest.approx(loss, rel=1e-6)) for step, loss in zip(steps, losses, strict=True)
    ]
    assert read.Scalars("result/loss")[-1].value == pytest.approx(losses[-1], rel=1e-6)
    assert {"options/text_summary", "result/text_summary"} <= set(read.Tags()["tensors"])
    assert "| program | vae |" in read.Tensors("options/text_summary")[0].tensor_proto.string_val[0].decode()
    image = read.Images("samples")[-1]
    assert (image.height, image.width) == (35, 35)


def test_what_draws_no_images_has_no_samples(online: Any) -> None:
    calls = online("trackio")
    for program, given, method in ((ppca(), data(30), "em"), ("coin", "coin", "exact")):
        fit(program, given, method, callbacks=[Trackio()])
        assert calls[-1] == ("finish", {})
        assert "samples" not in calls[-2][1][1]
