"""The judge of guides: an exact one has codes like the prior, and its reconstructions are looked at."""

from __future__ import annotations

from dataclasses import replace

from inference.environment import seeded
from inference.evaluation.samples.coverage import class_accuracy
from inference.evaluation.samples.guide_judge import GUIDE_SCORES, judge_guide
from inference.evaluation.samples.judge import (
    Networks,
)
from inference.particles import draw
from tests.inference.toys import linear
from zoo import create, datasets
from zoo.datasets import Data, Dataset, binarise


def test_an_exact_guide_has_codes_like_the_prior() -> None:
    program = linear(6, 2)
    x = program.generate(900)
    card = replace(datasets.card("moons"), shape=(6,))
    made = Dataset(card, Data(x[:300]), Data(x[300:600]), Data(x[600:]))
    exact = judge_guide(program, program.posterior, made)
    assert set(exact) == set(GUIDE_SCORES)
    assert exact["prior_p"].value > 0.01  # one fixed seed
    assert exact["code_accuracy"].how == "n/a: no single discrete code"
    assert exact["reconstruction"].how == "n/a: no classifier, or no labels"
    assert judge_guide(program, program.guide, made)["prior_p"].value < 0.01
    assert {score.how for score in judge_guide(program, None, made).values()} == {"n/a: no guide"}


def test_reconstructions_are_seen_by_the_classifier(networks: Networks) -> None:
    binary, network = datasets.load("digits-binary"), networks["classifier"]
    program = create("vae", event_shape=[8, 8], latent_dim=2, hidden=[8]).eval()
    found = judge_guide(program, program.guide, binary, classifier=network, scores=("reconstruction",), seed=1)
    with seeded(1 + 2):
        z = draw(program.guide, 1, *binary.test, density=False).values["z"][0]
    shown = class_accuracy(binarise(program.decode(z).mean.detach()), binary.labels["test"], network)
    assert list(found) == ["reconstruction"]
    assert (found["reconstruction"].value, found["reconstruction"].standard_error) == (
        shown.accuracy, shown.standard_error,
    )  # fmt: skip
