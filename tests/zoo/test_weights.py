"""Row weights: whole numbers are repeated rows, in the bound, its gradient and the posterior."""

import pyro
import pytest
import torch

from inference import fit
from inference.fit import fit_many
from inference.guides.named import build_guide
from inference.methods.bounds import make_objective
from inference.training import compiled
from inference.training.runners import scripted_loop
from inference.training.target import Target
from zoo.bayes.coin import BetaBernoulli
from zoo.bayes.regression import BayesianLinearRegression
from zoo.datasets.data import Data
from zoo.errors import NonFiniteError, ShapeError, SupportError
from zoo.latent.vae import VAE
from zoo.weights import Weighted, weighed

X = torch.tensor([1.0, 0.0, 1.0])
TIMES = torch.tensor([3, 1, 2])


def test_the_bound_and_its_gradient_are_those_of_repeated_rows():
    program = BetaBernoulli()
    repeated = Data(X.repeat_interleave(TIMES))
    found = []
    for data, size in ((Data(X, Weighted(TIMES.float())), 3), (repeated, 6)):
        torch.manual_seed(0)
        guide = build_guide({"kind": "auto", "name": "normal"}, program, data.plain())
        torch.manual_seed(1)
        loss, bound = make_objective("trace", 5)(program, guide, data, size)
        loss.backward()
        found.append([size * value for value in (loss.detach(), bound, *(p.grad for p in guide.parameters()))])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("own", [True, False])
def test_latents_of_a_row_are_weighed_with_it_in_model_and_guide(own):
    torch.manual_seed(0)
    program, x = VAE([4], latent_dim=2, hidden=[8]), torch.rand(3, 4).round()
    weights = torch.tensor([2.0, 0.0, 0.5])
    guide = program.guide if own else build_guide({"kind": "auto", "name": "normal"}, program, Data(x))
    objective = make_objective("mean_field" if own else "trace")
    torch.manual_seed(1)
    _, bound = objective(program, guide, Data(x, Weighted(weights)), 3)

    torch.manual_seed(1)
    q = pyro.poutine.trace(guide).get_trace(x, None, None)
    z = q.nodes["z"]["value"]
    p = pyro.poutine.trace(pyro.poutine.condition(program.model, data={"z": z})).get_trace(x, None, None)
    q.compute_log_prob()
    p.compute_log_prob()
    likelihood = p.nodes["x"]["log_prob"]
    if own:
        terms = likelihood - torch.distributions.kl_divergence(q.nodes["z"]["fn"], p.nodes["z"]["fn"])
    else:
        guided = sum(
            site["log_prob"] for site in q.nodes.values() if site["type"] == "sample" and site["name"] != "data"
        )
        terms = likelihood + p.nodes["z"]["log_prob"] - guided
    torch.testing.assert_close(bound, (weights * terms).sum() / 3)


def test_minibatches_are_unbiased():
    program = BetaBernoulli()
    weights = torch.tensor([3.0, 1.0, 2.0])
    guide = build_guide({"kind": "auto", "name": "normal"}, program, Data(X))
    objective = make_objective("trace")

    def bound(rows):
        torch.manual_seed(0)
        return objective(program, guide, Data(X, Weighted(weights)).rows(rows), 3)[1]

    parts = torch.stack([bound(torch.tensor([i])) for i in range(3)])
    torch.testing.assert_close(parts.mean(), bound(torch.arange(3)))


def test_a_chain_follows_the_density_of_repeated_rows():
    program, found = BetaBernoulli(alpha=2.0, beta=3.0), []
    for data in (Data(X, Weighted(TIMES.float())), Data(X.repeat_interleave(TIMES))):
        found.append(Target(program, data)(torch.tensor([[-2.0], [0.3], [1.5]])))
    torch.testing.assert_close(*found)
    drawn = fit(program, X, "nuts", weights=TIMES, warmup=5, draws=5, chains=1)
    assert drawn.train.context is None  # weights are of the fit, not of its data


def test_a_context_stays_with_its_rows():
    torch.manual_seed(0)
    context, y = torch.randn(4, 2), torch.randn(4)
    times = torch.tensor([1, 2, 1, 3])
    program = BayesianLinearRegression(2)
    repeated = Data(y.repeat_interleave(times), context.repeat_interleave(times, 0))
    found = []
    for data, size in ((Data(y, Weighted(times.float(), context)), 4), (repeated, 7)):
        torch.manual_seed(0)
        guide = build_guide({"kind": "auto", "name": "normal"}, program, data.plain())
        found.append(size * make_objective("trace")(program, guide, data, size)[1])
    torch.testing.assert_close(*found)


def test_a_traced_step_weighs_too(monkeypatch):
    monkeypatch.setattr(compiled, "library_loop", scripted_loop)
    options = {"guide": "normal", "particles": 100, "lr": 1e-6}  # which stays where it starts
    ends = {}
    for how, weights in (("always", TIMES), ("never", TIMES), ("unweighted", None)):
        way = "never" if how == "unweighted" else how
        found = fit(BetaBernoulli(), X, "svi", weights=weights, steps=20, compile=way, **options)
        assert ("compile_seconds" in found.info) == (how == "always")
        ends[how] = found.history.last("loss")
    # The loss, around 1.4, is the mean of 100 draws; ten standard errors are below 0.05.
    assert ends["always"] == pytest.approx(ends["never"], abs=0.05)
    assert abs(ends["never"] - ends["unweighted"]) > 0.5


def test_fits_of_many_seeds_are_weighed():
    both = fit_many(BetaBernoulli(), X, "svi", seeds=[0, 1], weights=TIMES, guide="normal", steps=3, compile="never")
    alone = fit(BetaBernoulli(), X, "svi", seed=1, weights=TIMES, guide="normal", steps=3, compile="never")
    assert both[1].history.last("loss") == alone.history.last("loss")


@pytest.mark.parametrize(
    ("weights", "error"),
    [
        (torch.ones(2), ShapeError),
        (torch.ones(3, 1), ShapeError),
        ([1.0, -1.0, 1.0], SupportError),
        ([0.0, 0.0, 0.0], SupportError),
        ([1.0, float("nan"), 1.0], NonFiniteError),
    ],
)
def test_weights_that_make_no_sense_are_refused(weights, error):
    with pytest.raises(error):
        weighed(weights, X, None)
