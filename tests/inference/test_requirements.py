"""What a method may ask of a program, and the reasons it gives."""

from __future__ import annotations

import math

import pytest
import torch

from inference import fit
from inference.games.ali import ALIGame
from inference.games.avb import AVB
from inference.guides.ratio import CONTRASTS
from inference.methods.wake_sleep import WakeSleep
from inference.requirements import (
    why_no_draws,
    why_no_dreams,
    why_no_implicit_guide,
    why_not_local,
    why_not_local_density,
)
from tests.inference.latents import Counts, Levels, NoLatents
from tests.inference.scalar import Scalar
from tests.zoo.readings import Nudged, Pulled, TwoReadings
from zoo import catalogue
from zoo.errors import CapabilityError
from zoo.latent.ppca import PPCA
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
        if why_no_implicit_guide(program, contrast) is not None:
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
    assert {contrast for contrast in CONTRASTS if why_no_implicit_guide(program, contrast) is None} == suits


GANS = ("gan", "cyclegan")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ppca", None),
        ("vae", None),
        ("nade", "it has no latents"),
        ("coin", "its latent 'p' is global"),
        ("gaussian-mixture", "its latent 'z' is discrete"),
        ("gan", None),
        ("cyclegan", "its latent 'source' is what it was given"),
    ],
)
def test_which_latents_are_continuous_and_of_single_examples(name: str, reason: str | None) -> None:
    program = catalogue.create(name)
    for found, wanted in (
        (why_not_local(program), reason),
        (why_not_local_density(program), "it is implicit: it has no density" if name in GANS else reason),
    ):
        assert found == wanted or (wanted is not None and found is not None and found.startswith(wanted)), found


def test_reasons_name_the_site() -> None:
    assert why_no_implicit_guide(Counts(), "adaptive") == (
        "the discrete latent site 'k' cannot be summed out: it is not local with finitely many values"
    )
    assert why_no_implicit_guide(Levels(), "joint") == (
        "its latent site 'level' is global, and pairs are of an example and its own latents"
    )
    assert why_no_implicit_guide(catalogue.create("gan"), "prior").startswith("it is implicit")
    assert why_no_implicit_guide(NoLatents()) == "it has no latent sites"
    assert why_no_implicit_guide(catalogue.create("hmm")) == "it has no continuous latent sites"
    assert why_no_implicit_guide(Levels(), "adaptive") is None


def test_draws_that_a_game_can_follow() -> None:
    assert why_no_draws(catalogue.create("ppca")) is None
    assert why_no_draws(catalogue.create("gaussian-mixture")) is not None
    program = catalogue.create("vae")
    state = torch.get_rng_state()
    assert why_no_draws(program) is None
    assert torch.equal(torch.get_rng_state(), state)


class Silent(PPCA):
    """A guide that leaves its latent out."""

    def guide(self, x=None, context=None, size=None):
        return None


def test_draws_without_a_gradient_are_refused_and_the_way_out_is_named() -> None:
    assert why_no_draws(Scalar()) is None
    assert why_no_draws(Silent([3], 2)) == "its guide leaves out 'z'; take guide='implicit'"
    assert (
        why_no_draws(Scalar(reparameterised=False))
        == "its guide's draws of 'z' have no gradient; take guide='implicit'"
    )


def test_methods_that_learn_from_dreams_want_all_observations_dreamt() -> None:
    assert why_no_dreams(PPCA([3], 2)) is None
    reason = "it observes 'y' besides x, and what it generates does not heed that"
    for program in (TwoReadings(), Pulled()):
        assert why_no_dreams(program) == reason
        assert why_no_implicit_guide(program, "joint") == reason
        assert why_no_implicit_guide(program, "prior") is None
        assert WakeSleep().why_not(program) == reason
        assert WakeSleep(reweighted=True, guide_update="wake", particles=2).why_not(program) is None
        assert ALIGame().why_not(program) == reason
    assert why_no_dreams(Nudged()) == "it observes 'nudge' besides x, and what it generates does not heed that"
