"""Judges a generator's guide: whether its codes name classes, rebuild images, and lie as the prior does."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch

from inference.environment import seeded
from inference.evaluation.estimates import checked
from inference.evaluation.samples.classifier import Classifier
from inference.evaluation.samples.codes import aggregate_codes, code_accuracy, decoded, guess_codes, match_codes
from inference.evaluation.samples.coverage import (
    class_accuracy,
)
from inference.evaluation.samples.judge import Score, _device, about, black_and_white
from inference.evaluation.two_samples import mmd
from inference.guides.named import guided_sites
from inference.particles import draw
from zoo.datasets import Dataset
from zoo.program import Program

__all__ = ["GUIDE_SCORES", "judge_guide"]


GUIDE_SCORES = ("code_accuracy", "reconstruction", "prior_p")
"""What `judge_guide` may give."""


def judge_guide(
    program: Program,
    guide: Callable[..., Any] | None,
    dataset: Dataset,
    *,
    split: str = "test",
    classifier: Classifier | None = None,
    scores: Collection[str] | None = None,
    seed: int = 0,
) -> dict[str, Score]:
    """What the guide knows: classes by a discrete code, classes of reconstructions, codes of data against the prior.

    Args:
        program: In eval mode.
        guide: None has no scores.
        dataset, split: Whose examples are encoded; labels are needed for classes.
        classifier: Of the data binarised at 0.5; it looks at reconstructions.
        scores: Some of GUIDE_SCORES; None is all.
        seed: Of the draws (2 and 3 above it) and permutations.
    """
    wanted = set(GUIDE_SCORES) & set(GUIDE_SCORES if scores is None else scores)
    sites = program.sites()
    if not wanted or guide is None or not sites:
        return {name: Score(None, how="n/a: no guide") for name in sorted(wanted)}
    device = _device(program)
    data = checked(program, dataset.split(split)).to(device)
    guided = guided_sites(guide, data)
    discrete = [name for name in sites if sites[name].is_discrete and name in guided]
    found: dict[str, Score] = {}
    if "code_accuracy" in wanted:
        found["code_accuracy"] = _named_classes(program, dataset, split, discrete)
    if guided != set(sites) or discrete:
        why = "n/a: the guide leaves latents out, or has discrete ones"
        return found | {name: Score(None, how=why) for name in sorted(wanted - {"code_accuracy"})}
    if "reconstruction" in wanted and (classifier is None or split not in dataset.labels):
        found["reconstruction"] = Score(None, how="n/a: no classifier, or no labels")
    elif "reconstruction" in wanted:
        assert classifier is not None
        with seeded(seed + 2, device), torch.no_grad():
            codes = draw(guide, 1, *data, density=False).values
            made = decoded(program, {name: value[0] for name, value in codes.items()}, data.context)
        shown = class_accuracy(black_and_white(made).cpu(), dataset.labels[split], classifier)
        how = f"one draw of each of {data.size} {split} images, decoded, thresholded at 0.5; {about(classifier)}"
        found["reconstruction"] = Score(shown.accuracy, shown.standard_error, how=how)
    if "prior_p" in wanted:
        codes_of, prior = aggregate_codes(program, guide, data, seed + 3)
        test = mmd(codes_of, prior, seed=seed)
        how = f"codes of {len(codes_of)} {split} images, {len(prior)} draws of the prior, 200 permutations"
        found["prior_p"] = Score(test.p_value, how=f"{how}; MMD² {test.value:.2g}")
    return found


def _named_classes(program: Program, dataset: Dataset, split: str, discrete: list[str]) -> Score:
    """How often the one discrete code names the class, codes and classes matched on other examples."""
    labels = dataset.labels
    if len(discrete) != 1:
        return Score(None, how="n/a: no single discrete code")
    if not {split, "valid"} <= labels.keys():
        return Score(None, how="n/a: no labels")
    data, others = (dataset.split(name).to(_device(program)).x for name in (split, "valid"))
    guessed, known = (guess_codes(program, x, discrete[0]) for x in (data, others))
    value = code_accuracy(guessed, labels[split], match_codes(known, labels["valid"]))
    how = f"{len(data)} {split} images, codes matched with classes one to one on {len(others)} others"
    return Score(value, how=how)
