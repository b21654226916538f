"""What a method may ask of a program, and the reasons it gives."""

from __future__ import annotations

import math

import pytest
import torch

from inference import fit
from inference.games.avb import AVB
from inference.guides.ratio import CONTRASTS
from inference.requirements import unsuitable
from zoo import catalogue
from zoo.errors import CapabilityError
from zoo.testing import draw_data


@pytest.mark.parametrize("name", sorted(catalogue.BUILTIN))
def test_every_program_can_have_an_implicit_guide_or_says_why_not(name: str) -> None:
    torch.manual_seed(0)
    program = catalogue.create(name)
    x, context = draw_data(program, 12)
    data = x if context is None else (x, context)
    options = {"moments": 8, "particles": 2, "hidden": [8], "critic_hidden": [8], "steps": 2}
    for contrast in CONTRASTS:
        method = AVB(contrast=contrast, train_program=False, **options)
        if unsuitable(program, contrast) is not None:
            with pytest.raises(CapabilityError, match="cannot fit"):
                fit(program, data, method, initialise=False)
            continue
        found = fit(program, data, method, initialise=False)
        assert math.isfinite(found.history.last("loss"))
        continuous = {site.name: site for site in program.sites().values() if not site.is_discrete}
        draws = found.draw(3, x, context)
        assert set(draws) == set(continuous)
        for site_name, site in continuous.items():
            assert bool(site.support.check(draws[site_name]).all()), site_name
            plates = (3,) if site.is_global else (3, 12)
            assert tuple(draws[site_name].shape) == plates + tuple(site.event_shape)


@pytest.mark.parametrize(
    ("name", "suits"),
    [
        ("ppca", {"adaptive", "prior", "joint"}),
        ("eight-schools", {"adaptive", "prior"}),
        ("gan", {"joint"}),
        ("hmm", set()),
        ("nade", set()),
    ],
)
def test_which_program_can_have_which_contrast(name: str, suits: set[str]) -> None:
    program = catalogue.create(name)
    assert {contrast for contrast in CONTRASTS if unsuitable(program, contrast) is None} == suits
