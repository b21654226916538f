"""The judge against the pieces that it calls, and on samples whose scores are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from inference.evaluation.samples.coverage import class_accuracy, class_shares, gaussian_modes, stacked_modes
from inference.evaluation.samples.judge import (
    SCORES,
    Networks,
    classifiers_for,
    draw_samples,
    fair_size,
    held_out,
    judge,
)
from inference.evaluation.samples.quality import frechet, inception_score, manifold_scores, nearest_training
from inference.evaluation.two_samples import c2st, mmd
from inference.games.game import diversity
from tests.inference.evaluation.samples.conftest import quick
from zoo import create, datasets
from zoo.datasets import Data, Dataset, binarise
from zoo.errors import NonFiniteError, OptionError, ShapeError, UnknownNameError


def test_scores_are_those_of_the_pieces(digits: Dataset, networks: Networks) -> None:
    few = digits.valid.x[:120]
    grey = (few + 0.3 * torch.rand(few.shape)).clamp(0, 1)
    found = judge(Data(grey), digits, seed=3, **networks)
    network, of_grey = networks["classifier"], networks["grey_classifier"]
    x, real, train = (binarise(each) for each in (grey, digits.test.x, digits.train.x))
    a, b = network.describe(x), network.describe(real)
    shares, kinds = manifold_scores(x, real, network), class_shares(x, network, real)
    told, test = c2st(b, a, classifier="quadratic", seed=3), mmd(a, b, seed=3)
    expected = {
        "frechet": frechet(x, real, network).value,
        "frechet_grey": frechet(grey, digits.test.x, of_grey).value,
        "precision": shares.precision,
        "recall": shares.recall,
        "sample_density": shares.density,
        "coverage": shares.coverage,
        "mmd": test.value,
        "mmd_p": test.p_value,
        "c2st_features": told.accuracy,
        "inception": inception_score(x, network).value,
        "class_accuracy": None,
        "classes": kinds.covered,
        "class_difference": kinds.total_variation,
        "memorisation": nearest_training(x, train, real).ratio,
        "diversity": float(diversity(x, real)),
    }
    assert {name: score.value for name, score in found.scores.items()} == expected
    assert list(expected) == [name for name in SCORES if name in expected]
    assert found["c2st_features"].standard_error == told.standard_error
    assert found["class_accuracy"].how == "n/a: not conditional on a class"
    assert torch.equal(found.nearest.index, nearest_training(x, train, real).index)
    assert torch.equal(found.shares.shares, kinds.shares)
    for name in ("frechet", "mmd", "class_difference"):
        assert f"120 samples, 250 test images, grey, thresholded at 0.5; features {network.hash} " in found[name].how
    assert of_grey.hash in found["frechet_grey"].how
    assert network.hash in found.how
    assert of_grey.hash in found.how


def test_the_data_themselves_have_the_best_scores_there_are(digits: Dataset, networks: Networks) -> None:
    scores = (
        "frechet", "frechet_grey", "precision", "recall", "coverage", "mmd_p", "classes", "class_difference",
        "memorisation", "diversity",
    )  # fmt: skip
    found = judge(digits.test, digits, scores=scores, **networks)
    assert found["frechet"].value == pytest.approx(0, abs=1e-8)
    assert found["frechet_grey"].value == pytest.approx(0, abs=1e-8)
    assert found["precision"].value == found["recall"].value == found["coverage"].value == 1
    assert found["mmd_p"].value > 0.5  # no relabelling is nearer
    assert found["classes"].value == 10
    assert found["class_difference"].value == 0
    assert found["memorisation"].value == found["diversity"].value == 1


def test_copies_and_a_single_image_are_told(digits: Dataset, networks: Networks) -> None:
    copies = judge(digits.train.rows(slice(0, 250)), digits, scores=("memorisation",), **networks)
    assert list(copies.scores) == ["memorisation"]
    assert copies["memorisation"].value == 0
    assert torch.equal(copies.nearest.distances, torch.zeros(250, dtype=torch.float64))
    one = Data(digits.test.x[:1].repeat(50, 1, 1))
    same = judge(one, digits, scores=("diversity", "classes", "coverage"), **networks)
    assert (same["diversity"].value, same["classes"].value) == (0, 1)
    assert same["coverage"].value < 0.2


def test_the_class_asked_for_is_looked_for(networks: Networks) -> None:
    digits = datasets.load("digits-labelled")
    scores = ("class_accuracy", "frechet")
    right = judge(digits.valid, digits, scores=scores, **networks)
    direct = class_accuracy(binarise(digits.valid.x), digits.labels["valid"], networks["classifier"])
    assert right["class_accuracy"].value == direct.accuracy
    assert right["class_accuracy"].standard_error == direct.standard_error
    shifted = Data(digits.valid.x, digits.valid.context.roll(1, 1))
    assert judge(shifted, digits, scores=scores, **networks)["class_accuracy"].value < 0.2
    other = judge(Data(digits.valid.x, torch.ones(250, 3)), digits, scores=scores, **networks)
    assert other["class_accuracy"].how == "n/a: contexts (250, 3) are not 10 classes"


def test_without_a_classifier_pixels_are_compared(digits: Dataset) -> None:
    unlabelled = replace(digits, card=replace(digits.card, classes=0, name="mine"), labels={})
    assert classifiers_for(unlabelled, train=quick) == {}
    found = judge(digits.valid, unlabelled)
    assert not {"frechet_grey", "class_accuracy", "classes", "class_difference", "modes"} & set(found.scores)
    assert found["frechet"].value == pytest.approx(frechet(digits.valid.x, digits.test.x).value)
    assert found.how == "250 samples, 250 test images; raw pixels"
    few = judge(digits.valid.rows(slice(0, 30)), unlabelled, scores=("frechet", "coverage"))
    assert few["frechet"].value is None
    assert few["frechet"].how.startswith("n/a: 30 examples have no covariance of 64 numbers")
    assert few["coverage"].value is not None


def test_modes_of_points_are_counted_and_the_rest_compared() -> None:
    ring = datasets.load("ring")
    found = judge(ring.train, ring)
    modes = gaussian_modes(ring.train.x, "ring", least=25)
    assert (found["modes"].value, found["good"].value, found["mode_kl"].value) == (8, modes.good, modes.kl)
    assert found["modes"].how.startswith("of 8, by at least 25 good samples each; 2000 samples")
    assert found["coverage"].how.startswith("500 samples, 500 test examples")
    one = judge(Data(torch.tensor([2.0, 0.0]) + 0.05 * torch.randn(400, 2)), ring)
    assert (one["modes"].value, one["good"].value) == (1, 1)
    assert one["recall"].value < 0.25
    assert classifiers_for(ring, train=quick) == {}
    assert (fair_size(ring), fair_size(datasets.load("digits"))) == (10_000, 250)


def test_stacks_are_counted_by_a_classifier_of_single_digits() -> None:
    stacks = datasets.load("stacked-digits")
    networks = classifiers_for(stacks, train=quick)
    found = judge(stacks.test, stacks, **networks)
    assert set(found.scores) == {"modes", "mode_kl"}
    assert found["modes"].value == stacked_modes(stacks.test.x, networks["classifier"]).covered
    assert judge(stacks.test, stacks)["modes"].value is None


def test_samples_are_drawn_from_a_seed_and_for_the_contexts_of_data() -> None:
    digits = datasets.load("digits-labelled")
    program = create("cgan", event_shape=[8, 8], context_shape=[10])
    drawn = draw_samples(program, digits.test, 300, seed=4)
    again = draw_samples(program.train(), digits.test, 300, seed=4)
    assert torch.equal(drawn.x, again.x)
    assert torch.equal(drawn.context, torch.cat([digits.test.context, digits.test.context[:50]]))
    assert not torch.equal(drawn.x, draw_samples(program, digits.test, 300, seed=5).x)
    with pytest.raises(ShapeError, match="is conditional"):
        draw_samples(program, Data(digits.test.x), 10)


def test_held_out_data_are_none_of_the_split(digits: Dataset) -> None:
    assert torch.equal(held_out(digits, 100).x, digits.valid.x[:100])
    assert torch.equal(held_out(digits, 100, "valid").x, digits.test.x[:100])
    with pytest.raises(OptionError, match="250 validation data, fewer than 300"):
        held_out(digits, 300)
    assert held_out(datasets.load("ring"), 10_000).size == 2000


@pytest.mark.parametrize(
    ("samples", "scores", "error"),
    [
        (torch.zeros(20, 8, 8), ("beauty",), UnknownNameError),
        (torch.zeros(20, 9, 8), None, ShapeError),
        (torch.full((20, 8, 8), float("nan")), None, NonFiniteError),
    ],
)
def test_what_cannot_be_judged_is_refused(
    digits: Dataset, samples: torch.Tensor, scores: tuple[str, ...] | None, error: type[Exception]
) -> None:
    with pytest.raises(error):
        judge(Data(samples), digits, scores=scores)
