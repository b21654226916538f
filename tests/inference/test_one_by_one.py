"""Particles of adopted code, against the same densities written out by hand."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import zoo
from inference import one_by_one
from inference.guides.named import build_guide, guide_spec
from inference.particles import draw, guide_log_prob, log_joint, prior_and_likelihood, prior_draws
from zoo.errors import CapabilityError

Y = torch.tensor([0.5, -1.0, 2.0])
GROUP = torch.tensor([0, 1, 1])


def grouped(group, y=None):
    scale = pyro.sample("scale", dist.Gamma(2.0, 2.0))
    with pyro.plate("groups", 2):
        a = pyro.sample("a", dist.Normal(0.0, scale))
    with pyro.plate("rows", len(group)):
        pyro.deterministic("mean", a[group])
        return pyro.sample("y", dist.Normal(a[group], 1.0), obs=y)


def grouped_guide(group, y=None):
    pyro.sample("scale", dist.Gamma(3.0, 1.0))
    with pyro.plate("groups", 2):
        pyro.sample("a", dist.Normal(1.0, 2.0))


def by_hand(scale, a):
    prior = dist.Gamma(2.0, 2.0).log_prob(scale) + dist.Normal(0.0, scale).log_prob(a).sum()
    return prior, dist.Normal(a[GROUP], 1.0).log_prob(Y)


@pytest.fixture
def adopted():
    program = zoo.adopt(grouped, grouped_guide)
    return program, program.take({"group": GROUP, "y": Y})


def test_draws_and_both_densities_are_those_of_each_particle(adopted):
    program, data = adopted
    torch.manual_seed(0)
    found = draw(program.guide, 4, *data)
    assert found.values["a"].shape == (4, 1, 2)
    assert found.values["scale"].shape == (4, 1)
    joint = log_joint(program, found.values, *data)
    assert joint.joint
    for s in range(4):
        scale, a = found.values["scale"][s, 0], found.values["a"][s, 0]
        prior, likelihood = by_hand(scale, a)
        torch.testing.assert_close(joint.total[s], prior + likelihood.sum())
        guided = dist.Gamma(3.0, 1.0).log_prob(scale) + dist.Normal(1.0, 2.0).log_prob(a).sum()
        torch.testing.assert_close(found.log_prob.total[s], guided)
    torch.testing.assert_close(guide_log_prob(program.guide, found.values, *data).total, found.log_prob.total)
    prior, likelihood = prior_and_likelihood(program, found.values, *data)
    torch.testing.assert_close(prior.total + likelihood.total, joint.total)
    torch.testing.assert_close(prior.total[0], by_hand(found.values["scale"][0, 0], found.values["a"][0, 0])[0])


def moved(kind):
    """An autoguide of a program of groups, away from its start, and the data."""
    program = zoo.adopt(grouped)
    data = program.take({"group": GROUP, "y": Y})
    guide = build_guide(guide_spec(kind), program, data)
    for parameter in guide.parameters():
        parameter.add_(0.2 * torch.rand_like(parameter))
    return guide, data


@pytest.mark.parametrize("kind", ["normal", "multivariate_normal", "low_rank"])
@torch.no_grad()
def test_draws_of_gaussian_guides_made_at_once_follow_the_density_that_they_have(kind):
    guide, data = moved(kind)
    found = draw(guide, 4000, *data)
    assert guide not in one_by_one.LOOPED
    scale, a = found.values["scale"], found.values["a"]
    assert (scale.shape, a.shape) == ((4000, 1), (4000, 1, 2))
    u = torch.cat([scale.log(), a[:, 0]], -1)
    if kind == "normal":
        loc, sd = (torch.cat([each.scale.reshape(1), each.a]) for each in (guide.locs, guide.scales))
        q = dist.Normal(loc, sd).to_event(1)
    else:
        q = guide.get_posterior()
    torch.testing.assert_close(found.log_prob.total, q.log_prob(u) - scale[:, 0].log())
    # Five standard errors: one in 300,000 for each of six numbers.
    sd = q.variance.sqrt()
    assert bool(((u.mean(0) - q.mean).abs() < 5 * sd / 4000**0.5).all())
    assert bool(((u.std(0) - sd).abs() < 5 * sd / 8000**0.5).all())
    assert len(u.unique(dim=0)) == 4000


@pytest.mark.parametrize("kind", ["iaf", "spline"])
@torch.no_grad()
def test_draws_of_flows_made_at_once_have_the_density_that_inverting_them_gives(kind):
    guide, data = moved(kind)
    found = draw(guide, 500, *data)
    assert guide not in one_by_one.LOOPED
    scale, a = found.values["scale"], found.values["a"]
    u = torch.cat([scale.log(), a[:, 0]], -1)
    assert len(u.unique(dim=0)) == 500
    torch.testing.assert_close(
        found.log_prob.total, guide.get_posterior().log_prob(u) - scale[:, 0].log(), rtol=1e-6, atol=1e-6
    )
    assert found.log_prob.joint
    torch.manual_seed(3)
    once = draw(guide, 2, *data)
    torch.manual_seed(3)
    again = draw(guide, 2, *data, density=False)
    torch.testing.assert_close(once.values, again.values)
    assert bool(again.log_prob.total.isnan().all())


@torch.no_grad()
def test_local_latents_drawn_at_once_have_noise_of_their_own_in_each_example():
    def local(y):
        with pyro.plate("rows", len(y)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    program = zoo.adopt(local, examples="rows")
    data = program.take(Y)
    guide = build_guide(guide_spec("normal"), program, data)
    found = draw(guide, 1000, *data)
    assert guide not in one_by_one.LOOPED
    z = found.values["z"]
    assert len(z.flatten().unique()) == 3000
    torch.testing.assert_close(found.log_prob.local, dist.Normal(guide.locs.z, guide.scales.z).log_prob(z))
    assert not found.log_prob.joint
    assert bool(draw(guide, 1000, *data, density=False).log_prob.local.isnan().all())


def test_the_prior_is_drawn_from_given_some_of_it(adopted):
    program, data = adopted
    torch.manual_seed(1)
    scale = torch.full((2000, 1), 3.0)
    drawn = prior_draws(program.model, 2000, *data, {"scale": scale})
    assert torch.equal(drawn["scale"], scale)
    assert abs(float(drawn["a"].std()) - 3.0) < 4 * 3.0 / (2 * 4000) ** 0.5  # four standard errors


def test_code_that_looks_at_values_is_run_plainly_to_the_same_densities():
    def looking(y):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        width = 2.0 if float(loc) > 0 else 1.0
        pyro.sample("y", dist.Normal(loc, width), obs=y)

    program = zoo.adopt(looking)
    data = program.take(torch.tensor(0.3))
    loc = torch.tensor([[-1.0], [1.0]])
    want = dist.Normal(0.0, 1.0).log_prob(loc[:, 0])
    want = want + dist.Normal(loc[:, 0], torch.tensor([1.0, 2.0])).log_prob(torch.tensor(0.3))
    torch.testing.assert_close(log_joint(program, {"loc": loc}, *data).total, want)


def test_discrete_sites_that_are_left_out_are_summed_out():
    def mixture(y):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            z = pyro.sample("z", dist.Bernoulli(0.3))
            pyro.sample("y", dist.Normal(loc + 2 * z, 1.0), obs=y)

    program = zoo.adopt(mixture)
    data = program.take(Y)
    loc = torch.tensor([[0.1], [-0.7], [1.5]])
    terms = torch.stack([dist.Normal(loc + 2 * z, 1.0).log_prob(Y) + torch.tensor([0.7, 0.3])[z].log() for z in (0, 1)])
    want = dist.Normal(0.0, 1.0).log_prob(loc[:, 0]) + terms.logsumexp(0).sum(-1)
    torch.testing.assert_close(log_joint(program, {"loc": loc}, *data).total, want)


def test_named_examples_keep_their_densities_apart():
    def local(y):
        with pyro.plate("rows", y.shape[-1]):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
            with pyro.plate("columns", 3):
                pyro.sample("y", dist.Normal(z.T, 1.0), obs=y)

    program = zoo.adopt(local, examples="rows")
    y = torch.arange(12.0).reshape(3, 4) / 10
    data = program.take(y)
    assert data.size == 4
    torch.manual_seed(0)
    z = torch.randn(2, 4, 3)
    found = log_joint(program, {"z": z}, *data)
    want = dist.Normal(0.0, 1.0).log_prob(z).sum(-1) + dist.Normal(z, 1.0).log_prob(y.T).sum(-1)
    assert not found.joint
    torch.testing.assert_close(found.local, want)
    few = data.rows(torch.tensor([3, 1]))
    torch.testing.assert_close(log_joint(program, {"z": z[:, [3, 1]]}, *few).local, want[:, [3, 1]])


def test_a_plate_that_draws_a_subsample_has_no_density():
    def subsampled(y):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y), subsample_size=2) as rows:
            pyro.sample("y", dist.Normal(loc, 1.0), obs=y[rows])

    program = zoo.adopt(subsampled)
    data = program.take(Y)
    with pytest.raises(CapabilityError, match="'rows' draws a subsample"):
        log_joint(program, {"loc": torch.zeros(2, 1)}, *data)


def test_sites_are_summed_out_example_by_example():
    def topics(words):
        with pyro.plate("topics", 2):
            phi = pyro.sample("phi", dist.Dirichlet(torch.ones(3)))
        with pyro.plate("documents", words.shape[1]):
            theta = pyro.sample("theta", dist.Dirichlet(torch.ones(2)))
            with pyro.plate("words", words.shape[0]):
                z = pyro.sample("z", dist.Categorical(theta), infer={"enumerate": "parallel"})
                pyro.sample("w", dist.Categorical(phi[z]), obs=words)

    words = torch.tensor([[0, 1], [2, 1], [1, 1]])  # three words of each of two documents
    program = zoo.adopt(topics, examples="documents")
    data = program.take(words)
    phi = dist.Dirichlet(torch.ones(3)).sample((4, 1, 2))
    theta = dist.Dirichlet(torch.ones(2)).sample((4, 2))
    found = log_joint(program, {"phi": phi, "theta": theta}, *data)
    for s in range(4):
        each = (theta[s] @ phi[s, 0]).log()  # (documents, vocabulary)
        want = torch.stack([each[d, words[:, d]].sum() for d in range(2)])
        want = want + dist.Dirichlet(torch.ones(2)).log_prob(theta[s])
        torch.testing.assert_close(found.local[s], want)
        torch.testing.assert_close(found.globals[s], dist.Dirichlet(torch.ones(3)).log_prob(phi[s, 0]).sum())
    alone = log_joint(zoo.adopt(topics), {"phi": phi, "theta": theta[:, None]}, *zoo.adopt(topics).take(words))
    torch.testing.assert_close(alone.total, found.total)


def test_the_layout_of_a_program_is_looked_at_once_for_the_same_arguments(adopted, monkeypatch):
    program, data = adopted
    runs, look = [], one_by_one._layout_of
    monkeypatch.setattr(one_by_one, "_layout_of", lambda *given: runs.append(given) or look(*given))
    values = {"scale": torch.rand(3, 1) + 0.5, "a": torch.randn(3, 1, 2)}
    for _ in range(3):
        log_joint(program, values, *data)
    assert len(runs) == 1
    other = program.take({"group": torch.tensor([0, 1]), "y": Y[:2]})
    log_joint(program, values, *other)
    guide_log_prob(program.guide, values, *data)
    assert len(runs) == 3


def test_prior_and_likelihood_are_found_in_one_run():
    runs = []

    def counted(y):
        runs.append(1)
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    program = zoo.adopt(counted)
    data = program.take({"y": torch.tensor(0.5)})
    values = {"z": torch.randn(1, 1)}
    log_joint(program, values, *data)  # looks at the layout
    runs.clear()
    prior, likelihood = prior_and_likelihood(program, values, *data)
    assert len(runs) == 1
    torch.testing.assert_close(prior.total, dist.Normal(0.0, 1.0).log_prob(values["z"][:, 0]))
    torch.testing.assert_close(likelihood.total, dist.Normal(values["z"][:, 0], 1.0).log_prob(data.context["y"]))
