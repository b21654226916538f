"""A fit that diverges names what is not finite; a bound on held-out data is the same each time."""

from __future__ import annotations

import pytest
import torch

from inference import fit
from inference.guides.named import build_guide
from inference.methods.bounds import make_objective
from inference.methods.diagnosis import diagnose, evaluate_objective
from tests.inference.factors import data, ppca
from zoo import errors
from zoo.datasets.data import Data


@pytest.mark.filterwarnings("ignore:Encountered NaN")
def test_divergence_says_where_and_what_to_do():
    with pytest.raises(errors.DivergenceError, match=r"step \d+ of 300.*'.*'.*learning rate"):
        fit(ppca(), data(), "svi", steps=300, lr=1e8, optimizer="sgd")


def test_what_is_not_finite_has_a_name():
    x = data(5)
    program = ppca()
    assert diagnose(program, program.guide, Data(x)) == ""
    with torch.no_grad():
        program.weight[1, 0] = float("nan")
    assert diagnose(program, program.guide, Data(x)) == "The parameter 'weight' is not finite."


def test_a_guide_of_its_own_and_a_site_are_named_too():
    x = data(5)
    program = ppca()
    guide = build_guide({"kind": "auto", "name": "multivariate_normal"}, program, Data(x))
    with torch.no_grad():
        guide.loc.fill_(float("inf"))
    assert diagnose(program, guide, Data(x)) == "The guide parameter 'loc' is not finite."
    program = ppca()
    with torch.no_grad():
        program.mean.fill_(1e200)  # finite, but not its square
    assert diagnose(program, ppca().guide, Data(x)) == "The log density of site 'x' is not finite."


def test_a_bound_on_held_out_data_is_the_same_each_time_and_in_every_chunking():
    x = data(50)
    program, objective = ppca().train(), make_objective("trace", particles=2)
    before = torch.get_rng_state()
    first, again, other = (evaluate_objective(objective, program, program.guide, Data(x), 20, s) for s in (1, 1, 2))
    assert first == again
    assert first != other
    assert program.training
    assert torch.equal(torch.get_rng_state(), before)
    # By the exact density nothing is left to chance: minus the mean over examples, the last batch smaller.
    exact = make_objective("exact")
    found = evaluate_objective(exact, program, program.guide, Data(x), 20, 0)
    assert found == pytest.approx(-float(program.log_prob(x).detach().mean()), rel=1e-12)
