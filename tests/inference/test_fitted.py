"""`Fit`: what is saved comes back bit for bit, and what is not whole is refused."""

from __future__ import annotations

import json

import pytest
import torch

from inference import SVI, Fit, fit
from tests.inference.factors import data, ppca, same, state
from zoo import errors


def test_saved_fit_reproduces_its_predictions_bit_for_bit(tmp_path):
    x = data()
    for guide in ("own", "posterior"):
        found = fit(ppca(), x, SVI(guide=guide, steps=20, elbo="trace"), out=tmp_path / guide)
        again = Fit.load(tmp_path / guide)
        assert same(state(found.program), state(again.program))
        assert torch.equal(found.draw(4, x)["z"], again.draw(4, x)["z"])
        assert again.history.rows == found.history.rows
        assert again.seconds == found.seconds


@pytest.mark.parametrize("guide", ["normal", "multivariate_normal", "low_rank", "iaf", "delta"])
def test_autoguides_survive_a_checkpoint(tmp_path, guide):
    x = data(20)
    found = fit(ppca(), x, "svi", guide=guide, steps=10, out=tmp_path)
    again = Fit.load(tmp_path)
    assert torch.equal(found.draw(3, x)["z"], again.draw(3, x)["z"])


def test_fit_of_another_version_and_half_a_fit_are_refused(tmp_path):
    fit(ppca(), data(20), "svi", steps=2, out=tmp_path)
    record = json.loads((tmp_path / "fit.json").read_text())
    (tmp_path / "fit.json").write_text(json.dumps({**record, "version": 99}))
    with pytest.raises(errors.CheckpointError, match="version 99"):
        Fit.load(tmp_path)
    (tmp_path / "fit.json").write_text("{")
    with pytest.raises(errors.CheckpointError, match="not a whole fit"):
        Fit.load(tmp_path)
    with pytest.raises(errors.CheckpointError, match="no saved program"):
        Fit.load(tmp_path / "nowhere")


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
