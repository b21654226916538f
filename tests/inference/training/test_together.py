"""Several fits as one computation: what each gives is what it would give alone."""

import warnings

import pytest
import torch
from torch import nn

from inference.fit import fit, fit_many
from inference.fitted import Fit
from inference.restarts import final_loss
from inference.training import compiled
from inference.training.compiled import CompileNotice
from inference.training.runners import scripted_loop
from zoo import catalogue, datasets
from zoo.bayes.eight_schools import EightSchools
from zoo.datasets import Data
from zoo.errors import CapabilityError, OptionError


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and vectorised, but run operation by operation: compiling is tested elsewhere."""
    monkeypatch.setattr(compiled, "library_loop", scripted_loop)


def digits(n: int) -> Data:
    return datasets.load("digits-binary").train.rows(slice(0, n))


def parameters(found: Fit) -> torch.Tensor:
    modules = [found.program] + ([found.guide] if isinstance(found.guide, nn.Module) else [])
    return torch.cat([value.detach().flatten() for module in modules for value in module.state_dict().values()])


def grey(n: int) -> Data:
    return datasets.load("digits").train.rows(slice(0, n))


WAKE = {"method": "wake-sleep", "reweighted": True, "particles": 3, "guide_update": "both", "batch_size": 40}
NARROW = {"hidden": [16], "critic_hidden": [8]}
"""One layer where there would be two: what takes long is to trace them."""
CASES = {
    "minibatches": ("vae", lambda: digits(90), {"batch_size": 40}),
    "clipping and annealing": ("vae", lambda: digits(40), {"kl_anneal": 0.5, "clip_norm": 1.0}),
    "enumeration": ("bernoulli-mixture", lambda: digits(60), {"batch_size": 25}),
    "autoguide": ("eight-schools", lambda: datasets.load("eight_schools").train, {"guide": "multivariate_normal"}),
    "wake-sleep": ("vae", lambda: digits(40), {"method": "wake-sleep"}),
    "reweighted": ("vae", lambda: digits(90), WAKE),
    "game": ("gan", lambda: grey(90), {"method": "gan", "batch_size": 40, "critic_steps": 2, "ema": 0.9, **NARROW}),
    "penalty": ("gan", lambda: grey(40), {"method": "gan", "game": "wasserstein", "regulariser": "gradient-penalty"}),
    "convolutions": ("sngan", lambda: grey(40), {"method": "gan", "regulariser": "spectral-norm", "game": "hinge"}),
    "pairs": ("ppca", lambda: grey(40), {"method": "ali"}),
    "codes": ("vae", lambda: digits(40), {"method": "aae"}),
    "adversarial guide": ("ppca", lambda: grey(40), {"method": "avb", **NARROW}),
}


SLOW = ("penalty", "convolutions", "codes")
"""Tracing their networks takes half a minute each; the other cases have their methods and parts between them."""


@pytest.mark.parametrize("name", [pytest.param(c, marks=[pytest.mark.slow] if c in SLOW else []) for c in CASES])
def test_together_is_as_alone(name: str):
    program, load, options = CASES[name]
    data, options = load(), {"steps": 4, "compile": "always", **options}
    with warnings.catch_warnings():
        warnings.simplefilter("error", CompileNotice)
        together = fit_many(program, data, seeds=[3, 4], **options)
    found, alone = together[1], fit(program, data, seed=4, **options)  # tracing is what takes long: one alone will do
    assert [each.seed for each in together] == [3, 4]
    torch.testing.assert_close(parameters(found), parameters(alone), rtol=1e-9, atol=1e-9)
    losses = [[row["loss"] for row in each.history.rows] for each in (found, alone)]
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-9, atol=1e-9)
    said = [
        {k: v for k, v in each.info.items() if isinstance(v, float) and "seconds" not in k} for each in (found, alone)
    ]
    assert said[0] == pytest.approx(said[1], rel=1e-8)
    assert not torch.allclose(parameters(together[0]), parameters(together[1]))


def test_together_is_as_alone_over_several_calls(monkeypatch: pytest.MonkeyPatch):
    """Noise drawn in other pieces is other noise: the pieces must not depend on how many fits there are."""
    monkeypatch.setattr(compiled, "CHUNK_BYTES", 8_000)
    options = {"steps": 700, "compile": "always", "batch_size": 40, "hidden": [16]}  # reports every 7 steps, calls of 5
    together = fit_many("vae", digits(90), seeds=[0, 1], **options)
    alone = fit("vae", digits(90), seed=1, **options)
    torch.testing.assert_close(parameters(together[1]), parameters(alone), rtol=1e-9, atol=1e-9)


def test_one_that_stops_early_keeps_what_it_had():
    """With patience 1 the fits end at different steps; those that go on must not move those that have ended."""
    data = datasets.Dataset(datasets.load("digits-binary").card, digits(40), digits(80).rows(slice(40, 80)), digits(1))
    options = {"steps": 60, "validate_every": 3, "patience": 1, "lr": 0.05, "compile": "always", "hidden": [16]}
    together = fit_many("vae", data, seeds=range(4), **options)
    together.sort(key=lambda found: found.history.rows[-1]["step"])
    first, last = together[0], together[-1]
    steps = [found.history.rows[-1]["step"] for found in (first, last)]
    assert steps[0] < steps[1], "all stopped at the same step: choose other seeds"
    for found in (first, last):
        alone = fit("vae", data, seed=found.seed, **options)
        torch.testing.assert_close(parameters(found), parameters(alone), rtol=1e-9, atol=1e-9)


def test_restarts_keep_the_best_in_the_program_that_was_given():
    data = digits(60)
    program = catalogue.create_for("bernoulli-mixture", data)
    best = fit(program, data, num_restarts=3, steps=15, compile="always", seed=7)
    losses = best.info["restarts"]
    assert len(losses) == 3
    assert final_loss(best) == min(losses) < max(losses)
    assert best.seed == 7 + losses.index(min(losses))
    for name, value in program.state_dict().items():
        assert torch.equal(value, best.program.state_dict()[name])


class Branching(EightSchools):
    """Looks at a value to decide what to do."""

    def model(self, x=None, context=None, size=None):
        if next(self.parameters()).sum() > 1e9:
            raise AssertionError
        return super().model(x, context, size)


def test_what_cannot_be_compiled_runs_one_after_the_other():
    data = datasets.load("eight_schools").train
    with pytest.warns(CompileNotice, match="goes on eagerly"):
        together = fit_many(Branching(), data, seeds=[0, 1], steps=5, compile="always")
    for found, seed in zip(together, [0, 1], strict=True):
        alone = fit(Branching(), data, seed=seed, steps=5, compile="never")
        assert torch.equal(parameters(found), parameters(alone))


def test_methods_without_steps_restart_too():
    data = digits(60)
    found = fit("bernoulli-mixture", data, "em", num_restarts=2, iterations=3)
    assert len(found.info["restarts"]) == 2


def test_refusals():
    data = datasets.load("eight_schools").train
    with pytest.raises(OptionError, match="num_restarts"):
        fit("eight-schools", data, num_restarts=0)
    with pytest.raises(CapabilityError, match="no loss"):
        fit("coin", datasets.load("coin"), "exact", num_restarts=2)
