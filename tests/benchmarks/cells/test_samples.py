"""Cells of kind 'samples' and the suite of games: scores see what they are for, and what fails is counted."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from benchmarks import targets
from benchmarks.cells import posterior, samples
from benchmarks.cells.samples import REAL_DATA
from benchmarks.metrics import Measurement
from benchmarks.report import document
from benchmarks.report.page import build, rows_as_json
from benchmarks.run import run_suite
from benchmarks.suite import Cell, Grid, MethodSpec, ProgramSpec, Suite
from benchmarks.suites import adversarial
from benchmarks.suites.adversarial import COUNTED, IMAGES
from benchmarks.suites.posterior import METRICS
from inference import Fit
from inference.evaluation.two_samples import mmd
from zoo import datasets
from zoo.program import Implicit, ImplicitProgram

QUICK = {
    "samples": 200, "classifier_steps": 150, "particles": 5,
    "ais_examples": 3, "ais_chains": 2, "ais_steps": 3, "ais_sigmas": (0.2,),
}  # fmt: skip
"""Of the digits, whose classifier is then right about four times in five."""
ONE_STEP = {"steps": 1, "batch_size": 20}


class Average(ImplicitProgram):
    """Draws the mean image of the class asked for, or of one that is `shift` further."""

    def __init__(self, event_shape: list[int], context_shape: list[int], shift: int = 0):
        super().__init__()
        self.event_shape, self.classes, self.shift = torch.Size(event_shape), context_shape[0], shift
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("means", torch.zeros(self.classes, *event_shape))

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        assert context is not None
        self.means.copy_(torch.stack([x[context[:, c] > 0].mean(0) for c in range(self.classes)]))

    def example_context(self, n: int) -> Tensor:
        return torch.eye(self.classes)[torch.arange(n) % self.classes].to(self.scale)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        assert context is not None
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(self.scale.new_zeros(1), 1.0).to_event(1))
            mean = self.means[(context.argmax(-1) + self.shift) % self.classes]
            value = (mean + 0.001 * self.scale * z[..., None]).clamp(0, 1)
            return pyro.sample("x", Implicit(value, len(self.event_shape)), obs=x)

    def critic(self) -> nn.Module:
        return Blind(self.event_shape.numel())


class OneMode(Average):
    """Draws near one point of the plane, or near it three times out of four and else far from all."""

    def __init__(self, event_shape: list[int], stray: float = 0.0):
        super().__init__(event_shape, [1])
        self.stray = stray

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Nothing."""

    def example_context(self, n: int) -> None:
        return None

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        with self.plate(x, context, size):
            z = pyro.sample("z", dist.Normal(self.scale.new_zeros(2), 1.0).to_event(1))
            strays = (torch.rand_like(z[..., :1]) < self.stray).to(z)
            value = 0.05 * self.scale * z + z.new_tensor([2.0, 0.0]) + 9 * strays
            return pyro.sample("x", Implicit(value, 1), obs=x)


class Blind(nn.Module):
    """A critic that hardly sees anything."""

    def __init__(self, numbers: int):
        super().__init__()
        self.net = nn.Linear(numbers, 1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.net(x.flatten(1)).squeeze(-1)


def run(
    program: str,
    data: str,
    folder: Path,
    method: str = "gan",
    metrics: tuple[str, ...] = IMAGES,
    options: Mapping[str, Any] = MappingProxyType({}),
    evaluation: Mapping[str, Any] = MappingProxyType(QUICK),
    **fit: Any,
) -> dict[str, Measurement]:
    """Metric -> measurement of one cell."""
    spec = MethodSpec(method, method, {} if method == "none" else {**ONE_STEP, **fit})
    cell = Cell("t", "samples", ProgramSpec(program, options), spec, data, "test", metrics, 0, evaluation)
    found = samples.measure(cell, folder, "cpu")
    assert len({m.metric for m in found}) == len(found)
    return {m.metric: m for m in found}


def here(cls: type) -> str:
    return f"{__name__}:{cls.__name__}"


@pytest.mark.filterwarnings("ignore::inference.games.game.CollapseNotice")
def test_every_metric_is_measured_or_says_why_not(tmp_path: Path) -> None:
    found = run("gan", "digits", tmp_path, options={"hidden": [16], "critic_hidden": [8]})
    assert set(found) == set(IMAGES)
    without = {"class_accuracy", "code_accuracy", "reconstruction", "prior_p", "log_likelihood"}
    assert {m for m, v in found.items() if v.value is None} == without
    assert all(found[m].how.startswith("n/a") for m in without)
    for metric in ("frechet", "precision", "coverage", "mmd_p", "c2st_features"):
        assert "200 samples, 250 test images, grey, thresholded at 0.5; features " in found[metric].how
        assert "classifier of digits-binary" in found[metric].how
    assert "classifier of digits," in found["frechet_grey"].how
    assert found["collapsed"].value in (0.0, 1.0)
    with np.load(next(tmp_path.glob("*.npz"))) as left:
        assert left["samples"].shape == left["data"].shape == (64, 8, 8)
        assert left["interpolation"].shape == (6, 10, 8, 8)
        assert {"loss", "critic_loss", "critic_accuracy", "divergence", "diversity"} <= set(left.files)


@pytest.mark.filterwarnings("ignore::inference.games.game.CollapseNotice")
def test_real_data_are_the_yardstick(tmp_path: Path) -> None:
    metrics = ("frechet", "precision", "coverage", "mmd_p", "memorisation", "diversity", "seconds")
    real = run(REAL_DATA, "digits", tmp_path, "none", metrics)
    poor = run("gan", "digits", tmp_path, metrics=metrics, options={"hidden": [16], "critic_hidden": [8]})
    assert "seconds" not in real
    assert real["frechet"].value < 0.1 * poor["frechet"].value
    assert real["precision"].value > 0.9 > poor["coverage"].value
    assert real["mmd_p"].value > 0.01 > poor["mmd_p"].value - 0.004  # 200 permutations: at least 0.005
    assert real["memorisation"].value == pytest.approx(1.0, abs=0.1)
    assert real["diversity"].value == pytest.approx(1.0, abs=0.05)


def test_programs_with_a_density_have_it_and_their_codes_are_judged(tmp_path: Path) -> None:
    found = run("vae", "digits-binary", tmp_path, "svi", options={"hidden": [8]})
    assert found["log_likelihood"].value is not None
    assert "a lower bound, 250 binary images" in found["log_likelihood"].how
    assert (
        found["ais"].value is found["parzen"].value is found["frechet_grey"].value is found["collapsed"].value is None
    )
    assert "grey" not in found["frechet"].how
    assert 0 <= found["reconstruction"].value <= 1
    assert "one draw of each of 250 test images" in found["reconstruction"].how
    assert 0 < found["prior_p"].value <= 1
    with np.load(next(tmp_path.glob("*.npz"))) as left:
        assert left["codes"].shape == left["prior"].shape == (250, 2)
        assert len(left["labels"]) == 250


@pytest.mark.filterwarnings("ignore::inference.games.game.CollapseNotice")
def test_a_guide_without_density_leaves_annealing(tmp_path: Path) -> None:
    options = {"hidden": [8], "guide": "deterministic", "latent_dim": 2}
    metrics = ("log_likelihood", "reconstruction", "prior_p", "collapsed")
    found = run("aae", "digits-binary", tmp_path, "aae", metrics, options)
    assert found["log_likelihood"].value < 0
    assert found["log_likelihood"].how == "AIS-3x2, a lower bound, 3 binary images"
    rolled = run("aae", "digits-binary", tmp_path, "aae", metrics, {**options, "prior": "swiss-roll"})
    assert rolled["log_likelihood"].value is None
    assert rolled["log_likelihood"].how.startswith("n/a")
    assert rolled["prior_p"].value is not None


@pytest.mark.filterwarnings("ignore::inference.games.game.CollapseNotice")
def test_the_class_asked_for_is_looked_for(tmp_path: Path) -> None:
    metrics = ("class_accuracy", "diversity", "collapsed", "memorisation", "parzen")
    right = run(here(Average), "digits-labelled", tmp_path, metrics=metrics)
    wrong = run(here(Average), "digits-labelled", tmp_path, metrics=metrics, options={"shift": 1})
    assert right["class_accuracy"].value > 0.7
    assert wrong["class_accuracy"].value < 0.15
    assert "of real test images are classified rightly" in right["class_accuracy"].how
    assert right["parzen"].value is not None
    with np.load(next(tmp_path.glob("*.npz"))) as left:
        assert left["class_grid"].shape == (10, 10, 8, 8)


class Digit(Average):
    """The mean image of the class that its code names; the guide takes the class whose mean is nearest."""

    def __init__(self, event_shape: list[int]):
        super().__init__(event_shape, [10])

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """From the labels of the digits, in another order."""
        digits = datasets.load("digits-binary")
        self.means.copy_(
            torch.stack([digits.train.x[digits.labels["train"] == (3 * c) % 10].mean(0) for c in range(10)])
        )

    def example_context(self, n: int) -> None:
        return None

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        with self.plate(x, context, size):
            c = pyro.sample("c", dist.OneHotCategorical(logits=self.scale.new_zeros(10)))
            z = pyro.sample("z", dist.Normal(self.scale.new_zeros(1), 1.0).to_event(1))
            value = (self.means[c.argmax(-1)] + 0.001 * self.scale * z[..., None]).clamp(0, 1)
            return pyro.sample("x", Implicit(value, len(self.event_shape)), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        assert x is not None
        with self.plate(x, context, size):
            logits = -torch.cdist(x.flatten(1), self.means.flatten(1)).square() * self.scale
            pyro.sample("c", dist.OneHotCategorical(logits=logits))


@pytest.mark.filterwarnings("ignore::inference.games.game.CollapseNotice")
def test_codes_that_name_classes_are_found_out(tmp_path: Path) -> None:
    found = run(here(Digit), "digits-binary", tmp_path, metrics=("code_accuracy", "reconstruction", "prior_p"))
    assert found["code_accuracy"].value > 0.8
    assert found["code_accuracy"].how == "250 test images, codes matched with classes one to one on 250 others"
    assert found["reconstruction"].value is found["prior_p"].value is None
    with np.load(next(tmp_path.glob("*.npz"))) as left:
        assert left["traversal_c"].shape == (10, 10, 8, 8)


def test_modes_in_the_plane_are_counted(tmp_path: Path) -> None:
    real = run(REAL_DATA, "ring", tmp_path, "none", COUNTED)
    assert real["modes"].value == 8
    assert real["good"].value == pytest.approx(0.989, abs=0.01)  # 2,000 draws: four standard errors
    with pytest.warns(match="collapsed"):
        one = run(here(OneMode), "ring", tmp_path, metrics=COUNTED, evaluation={"modes_samples": 400})
    assert (one["modes"].value, one["good"].value) == (1, 1.0)
    assert one["modes"].how.startswith("of 8, by at least 5 good samples each; 400 samples")
    assert (one["collapsed"].value, one["diversity"].value < 0.2) == (1.0, True)
    stray = run(here(OneMode), "ring", tmp_path, metrics=COUNTED, options={"stray": 0.25})
    assert stray["good"].value == pytest.approx(0.75, abs=0.02)  # 10,000 draws: four standard errors
    with np.load(sorted(tmp_path.glob("*OneMode*.npz"))[0]) as left:
        assert left["points"].shape[1] == 2


def test_stacks_are_counted_channel_by_channel(tmp_path: Path) -> None:
    found = run(REAL_DATA, "stacked-digits", tmp_path, "none", COUNTED, evaluation={"classifier_steps": 150})
    assert 950 < found["modes"].value <= 1000  # 10,000 even draws cover all
    assert "10000 grey samples" in found["modes"].how
    assert "classifier of digits," in found["modes"].how


def test_posteriors_are_learnt_from_what_the_program_makes() -> None:
    method = MethodSpec("ALI", "ali", {})
    cell = Cell("t", "posterior", ProgramSpec("banana"), method, "banana", "test", METRICS, 0, {"simulate": 400})
    problem = posterior.load_problem(cell, Path())
    assert problem.train.size == 400
    target = targets.load("banana")
    assert torch.equal(problem.target.data.x, target.data.x)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        more = target.program().generate(400)
    assert mmd(problem.train.x, more).p_value > 0.01  # one fixed seed


@pytest.mark.parametrize("method", ["ali", "aae"])
@pytest.mark.parametrize("guide", ["own", "implicit"])
def test_games_approach_posteriors_and_leave_the_program_alone(
    method: str, guide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits, fit_method = [], posterior.fit_method

    def kept(cell: Cell, problem: posterior.Problem, device: str) -> Fit:
        fits.append((problem, fit_method(cell, problem, device)))
        return fits[-1][1]

    monkeypatch.setattr(posterior, "fit_method", kept)
    spec = MethodSpec(method, method, {"guide": guide, "steps": 5})
    metrics = tuple(m for m in METRICS if m != "c2st")
    evaluation = {"simulate": 200, "particles": 50}
    cell = Cell("t", "posterior", ProgramSpec("ppca-digits"), spec, "d", "test", metrics, 0, evaluation)
    found = {m.metric: m for m in posterior.measure(cell, tmp_path, "cpu")}
    assert found["kl_reverse"].value > 0
    assert found["mean_error"].value > 0
    assert (found["elbo"].value is None) == (guide == "implicit")
    ((problem, made),) = fits
    before = problem.target.program().state_dict()
    moved = {name for name, value in made.program.state_dict().items() if not torch.equal(value, before[name])}
    assert moved <= {"encoder.weight", "encoder.bias", "encoder_scale_unconstrained"}


def test_seeds_that_collapse_or_fail_are_counted(tmp_path: Path) -> None:
    """Of three seeds all collapse; a program that cannot be fitted fails; both stand in the report."""
    points = Grid(
        "samples", (ProgramSpec(here(OneMode), {}, "one mode"),), (MethodSpec("GAN", "gan", ONE_STEP),), COUNTED,
        ("ring",), "test", 3, {"modes_samples": 50},
    )  # fmt: skip
    broken = Grid(
        "samples", (ProgramSpec("vae", {}, "broken"),), (MethodSpec("GAN", "gan", ONE_STEP),), COUNTED, ("ring",)
    )
    yardstick = adversarial.real_data("ring", COUNTED)
    run_suite(Suite("made-up", "A title", "A question?", (points, broken, yardstick)), tmp_path, jobs=1)
    rows = {row["program"]: row for row in rows_as_json(tmp_path)}
    assert rows["one mode"]["values"]["collapsed"]["median"] == 3
    assert rows["one mode"]["values"]["modes"]["median"] == 1
    assert len(rows["broken"]["failures"]) == 3
    shown = io.StringIO()
    document.print_report(build(tmp_path), Console(file=shown, width=80))
    assert re.search(r"one mode +GAN +1 +\d", shown.getvalue())  # modes come first, nothing is cut off
    page = document.write(build(tmp_path), tmp_path).read_text()
    table = (tmp_path / "report.md").read_text()
    assert "## Samples: ring" in table
    assert "| broken | GAN (3 of 3 seeds failed) |" in table
    assert table.index("| real data | held out") < table.index("| one mode | GAN")  # best first
    assert "- Seeds: 0, 1, 2" in table
    assert {path.stem for path in (tmp_path / "plots").glob("*.png")} == {"points-ring", "games-ring"}
    assert "how many pairs of a real and a made example" in page


def test_the_report_shows_how_games_for_posteriors_went(tmp_path: Path) -> None:
    method = MethodSpec("ALI", "ali", {"steps": 4})
    metrics = ("kl_reverse", "collapsed", "saturated")
    evaluation = {"simulate": 100, "particles": 50}
    grid = Grid("posterior", (ProgramSpec("banana"),), (method,), metrics, ("banana",), "test", 1, evaluation)
    run_suite(Suite("made-up", "A title", "A question?", (grid,)), tmp_path, jobs=1)
    (row,) = rows_as_json(tmp_path)
    assert row["values"]["collapsed"]["median"] == 0  # the program stays as it is, and so do its samples
    document.write(build(tmp_path), tmp_path)
    assert {"games-banana", "posterior-banana"} <= {path.stem for path in (tmp_path / "plots").glob("*.png")}


def test_sounds_are_heard(tmp_path: Path, zoo_data: Path) -> None:
    if not (zoo_data / "spoken_digits.npz").exists():
        pytest.skip("spoken_digits.npz is not under ZOO_DATA")
    metrics = ("class_accuracy", "inception", "frechet", "diversity")
    quick = {**QUICK, "classifier_steps": 20}
    found = run(REAL_DATA, "spoken_digits-4khz-labelled", tmp_path, "none", metrics, evaluation=quick)
    assert set(found) == set(metrics)
    assert found["class_accuracy"].value > 0.1  # twenty steps: better than chance, hardly more
    assert "classifier of spoken_digits-4khz-spectrogram" in found["frechet"].how


def test_a_report_shows_sounds_as_spectrograms(tmp_path: Path, zoo_data: Path) -> None:
    if not (zoo_data / "spoken_digits.npz").exists():
        pytest.skip("spoken_digits.npz is not under ZOO_DATA")
    quick = {**QUICK, "classifier_steps": 2}
    tiny = ProgramSpec("wavegan", {"channels": [4, 2], "latent_dim": 2}, "tiny")
    grid = Grid(
        "samples", (tiny,), (MethodSpec("GAN", "gan", {**ONE_STEP}),), ("diversity",), ("spoken_digits-4khz-labelled",),
        "test", 1, quick,
    )  # fmt: skip
    run_suite(Suite("made-up", "A title", "A question?", (grid,)), tmp_path, jobs=1)
    document.write(build(tmp_path), tmp_path)
    drawn = {path.stem for path in (tmp_path / "plots").glob("*.png")}
    assert any(name.startswith("samples-") for name in drawn)
    with np.load(next((tmp_path / "artifacts").glob("*.npz"))) as arrays:
        for name in ("samples", "data", "class_grid", "interpolation"):
            assert arrays[name].shape[-2:] == arrays["data"].shape[-2:]
            assert 0 <= arrays[name].min() <= arrays[name].max() <= 1
