"""Classes and modes that samples cover: counted by hand where an image says its class, and on real digits."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch.nn.functional import one_hot

from inference.evaluation.samples.classifier import Classifier, train_classifier
from inference.evaluation.samples.coverage import class_accuracy, class_shares, gaussian_modes, stacked_modes
from inference.evaluation.samples.quality import frechet, manifold_scores
from tests.conftest import FAILURE_RATE
from zoo import datasets
from zoo.datasets.modes import GAUSSIANS
from zoo.errors import OptionError, ShapeError, UnknownNameError


class Reader(Classifier):
    """Reads the class of an image off its pixels, which all hold its number."""

    def __init__(self, classes: int = 4):
        super().__init__((2, 2), classes)

    def forward(self, x):
        return one_hot(x[:, 0, 0].long(), self.classes)


def images(classes: torch.Tensor) -> torch.Tensor:
    return classes.double()[..., None, None].expand(*classes.shape, 2, 2)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return train_classifier("digits", steps=300, cache=False)


# Classes


def test_class_accuracy_by_hand():
    shown, asked = torch.tensor([0, 0, 1, 1, 1, 2]), torch.tensor([0, 0, 1, 2, 2, 2])
    found = class_accuracy(images(shown), asked, Reader())
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.standard_error == pytest.approx(math.sqrt(4 / 6 * 2 / 6 / 6))
    assert found.by_class[:3].tolist() == pytest.approx([1, 1, 1 / 3])
    assert found.by_class[3].isnan()
    assert (found.samples, found.ceiling) == (6, None)
    same = class_accuracy(images(shown), one_hot(asked, 4).double(), Reader())
    assert same.accuracy == found.accuracy
    with pytest.raises(ShapeError, match="one class for each"):
        class_accuracy(images(shown), asked[:2], Reader())


def test_class_accuracy_of_real_digits_is_the_classifiers_and_of_random_classes_a_tenth(classifier):
    digits = datasets.load("digits")
    found = class_accuracy(digits.test.x, digits.labels["test"], classifier)
    assert found.accuracy == pytest.approx(found.ceiling)
    assert found.features == classifier.hash
    wrong = class_accuracy(digits.test.x, digits.labels["test"][torch.randperm(250)], classifier)
    assert stats.binomtest(round(250 * wrong.accuracy), 250, 0.1).pvalue > FAILURE_RATE


def test_class_shares_by_hand():
    found = class_shares(images(torch.tensor([0, 0, 0, 1])), Reader())
    assert found.shares.tolist() == [0.75, 0.25, 0, 0]
    assert found.reference.tolist() == [0.25] * 4
    assert (found.covered, found.samples) == (2, 4)
    entropy = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert found.entropy == pytest.approx(entropy)
    assert found.kl == pytest.approx(math.log(4) - entropy)
    assert found.total_variation == pytest.approx(0.5)


def test_class_shares_against_data():
    data = images(torch.tensor([0] * 9 + [1] * 3))
    found = class_shares(images(torch.tensor([0, 0, 0, 1])), Reader(), data)
    assert (found.kl, found.total_variation, found.covered) == (0, 0, 2)
    # A class that the data lack.
    assert class_shares(images(torch.tensor([0, 2])), Reader(), data).kl == math.inf


# Gaussians


@pytest.mark.parametrize("name", GAUSSIANS)
def test_modes_of_exact_draws(name):
    x = datasets.load(name).train.x
    found = gaussian_modes(x, name)
    assert found.covered == found.of == len(GAUSSIANS[name].centres)
    assert found.expected_good == pytest.approx(1 - math.exp(-4.5))
    assert stats.binomtest(round(found.good * len(x)), len(x), found.expected_good).pvalue > FAILURE_RATE
    # 2n KL to equal shares is chi-squared, to first order.
    good = int(found.counts.sum())
    assert FAILURE_RATE < stats.chi2.cdf(2 * good * found.kl, found.of - 1) < 1 - FAILURE_RATE


def test_modes_by_hand():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    samples = torch.tensor([[0.0, 0.0], [0.0, 2.99], [0.0, 3.01], [5.0, 0.0], [9.0, 1.0]])
    found = gaussian_modes(samples, centres, 1.0)
    assert found.counts.tolist() == [2, 1, 0]
    assert (found.covered, found.of, found.good, found.samples) == (2, 3, 0.6, 5)
    assert found.kl == pytest.approx(2 / 3 * math.log(2) + 1 / 3 * math.log(1))
    assert gaussian_modes(samples, centres, 1.0, least=2).covered == 1
    assert gaussian_modes(samples, centres, 1.0, reach=4).counts.tolist() == [3, 1, 0]


def test_samples_between_the_modes_are_not_good_and_bare_centres_are():
    centres = torch.from_numpy(GAUSSIANS["narrow-ring"].centres)
    between = gaussian_modes((centres + centres.roll(1, 0)) / 2, "narrow-ring")
    assert (between.covered, between.good, between.kl) == (0, 0, math.inf)
    bare = gaussian_modes(centres, "narrow-ring")
    assert (bare.covered, bare.good, bare.kl) == (8, 1, 0)
    assert gaussian_modes(centres[:5].float(), "narrow-ring").covered == 5


# Stacks


def test_stacked_modes_by_hand():
    stacks = torch.tensor([[0, 0, 1], [0, 0, 1], [1, 0, 0], [3, 3, 3]])
    found = stacked_modes(images(stacks), Reader())
    assert (found.covered, found.of, found.samples) == (3, 64, 4)
    assert found.kl == pytest.approx(math.log(64) - 1.5 * math.log(2))
    assert stacked_modes(images(stacks), Reader(), least=2).covered == 1
    with pytest.raises(ShapeError, match="stacks"):
        stacked_modes(images(stacks[:, 0]), Reader())


def test_stacked_modes_of_even_draws_are_as_expected():
    found = [stacked_modes(images(torch.randint(4, (2000, 3))), Reader(), least=25) for _ in range(40)]
    for name in ("covered", "kl"):
        values, expected = torch.tensor([[getattr(f, name), getattr(f, f"expected_{name}")] for f in found]).T
        error = values.std() / math.sqrt(len(values))
        # The expected KL is to first order; the next term is smaller by of / 6n, half a percent here.
        assert abs(values.mean() - expected[0]) < 4.3 * error + 0.01 * expected[0] * (name == "kl"), name


def test_stacked_digits_cover_what_their_labels_cover(classifier):
    stacks = datasets.load("stacked-digits").test.x
    found = stacked_modes(stacks, classifier)
    assert found.of == 1000
    # One digit in twenty misread moves an example to another mode, and leaves the number of modes much as it was.
    assert found.covered == pytest.approx(found.expected_covered, rel=0.05)
    assert found.features == classifier.hash
    one = stacked_modes(stacks[:1].expand(500, -1, -1, -1), classifier)
    assert (one.covered, one.kl) == (1, pytest.approx(math.log(1000)))


# Features


def test_scores_in_features_name_the_network_and_see_what_pixels_hide(classifier):
    digits = datasets.load("digits")
    real, test = digits.valid.x, digits.test.x
    found = frechet(real, test, classifier)
    assert (found.features, found.dimension) == (classifier.hash, 64)
    assert found.value == pytest.approx(frechet(classifier.describe(real), classifier.describe(test)).value)
    # Only some classes, or noise: both are farther than real data.
    few = real[digits.labels["valid"] < 5]
    assert frechet(few, test, classifier).value > 3 * found.value
    assert frechet(torch.rand_like(real), test, classifier).value > 10 * found.value
    held, halved = (manifold_scores(samples, test, classifier) for samples in (real, few))
    noise = manifold_scores(torch.rand_like(real), test, classifier)
    assert max(halved.coverage, noise.coverage) < 0.65 < held.coverage
    assert noise.recall < 0.2 < held.recall
    # Precision is not asked: a network for digits may well put noise where some unusual digit has a large ball.


# Mistakes


def test_wrong_options_are_named():
    x = torch.randn(5, 2)
    with pytest.raises(UnknownNameError, match="narrow-ring"):
        gaussian_modes(x, "narow-ring")
    with pytest.raises(OptionError, match="sd and reach"):
        gaussian_modes(x, torch.randn(3, 2))
    with pytest.raises(OptionError, match="least"):
        gaussian_modes(x, "ring", least=0)
