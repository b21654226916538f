"""Chains: densities sum to one, samples agree with them, maximum likelihood is counting, parameter counts are free."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy import stats

from inference.fit import fit
from inference.particles import log_joint
from tests.conftest import FAILURE_RATE
from zoo import catalogue, datasets
from zoo.arrays import count_values
from zoo.chains.ar import AutoregressiveChain
from zoo.chains.chain import log_frequencies
from zoo.chains.independent import Independent
from zoo.chains.joint import FullJoint
from zoo.chains.markov import MarkovChain
from zoo.chains.markov_path import MarkovPath
from zoo.chains.raster import Raster
from zoo.errors import CapabilityError, OptionError, ShapeError, SupportError
from zoo.program import ClosedFormEM, ExactDensity, Program

TABLES = [Independent, FullJoint, MarkovChain]


def randomise(program: Program) -> Program:
    with torch.no_grad():
        for p in program.parameters():
            p.copy_(torch.randn_like(p))
    return program


def all_states(shape: list[int], values: int = 2) -> torch.Tensor:
    n = torch.Size(shape).numel()
    return torch.tensor(list(itertools.product(range(values), repeat=n))).double().reshape(-1, *shape)


def binary_chains(shape: list[int]) -> list[Program]:
    orders = [AutoregressiveChain(shape, order=k) for k in (1, 3, 20)]
    return [randomise(p) for p in [*(cls(shape) for cls in TABLES), *orders]]


def chi_square(probs: torch.Tensor, counts: torch.Tensor) -> float:
    """p-value of Pearson's test; states expected less than five times are counted with the commonest."""
    expected = counts.sum() * probs.detach()
    cell = torch.where(expected < 5, expected.argmax(), torch.arange(len(probs)))
    merged = [torch.zeros(len(probs)).index_add(0, cell, v.double()) for v in (counts, expected)]
    observed, expected = (v[merged[1] > 0].numpy() for v in merged)
    return stats.chisquare(observed, expected).pvalue


def test_binary_chains_sum_to_one_over_all_states_of_12_bits():
    x = all_states([12])
    for program in binary_chains([12]):
        assert isinstance(program, ExactDensity)
        assert program.log_prob(x).exp().sum().item() == pytest.approx(1.0, abs=1e-5), type(program).__name__


@pytest.mark.parametrize("cls", TABLES)
@pytest.mark.parametrize(("shape", "values"), [([5], 3), ([2, 2], 5), ([], 4), ([1], 3)])
def test_categorical_chains_sum_to_one(cls, shape, values):
    program = randomise(cls(shape, values=values))
    assert program.log_prob(all_states(shape, values)).exp().sum().item() == pytest.approx(1.0, abs=1e-12)


def test_samples_agree_with_the_density():
    chains = [*binary_chains([2, 2]), *(randomise(cls([3], values=3)) for cls in TABLES)]
    for program in chains:
        values = getattr(program, "values", 2)
        states = all_states(list(program.event_shape), values)
        x = program.generate(20_000)
        assert x.shape == (20_000, *program.event_shape)
        assert x.dtype == torch.float64
        program.check(x)
        place = values ** torch.arange(program.length - 1, -1, -1)
        counts = torch.bincount((x.flatten(1).long() * place).sum(-1), minlength=len(states))
        assert chi_square(program.log_prob(states).exp(), counts) > FAILURE_RATE, type(program).__name__


def test_gaussian_autoregression_is_the_multivariate_normal_it_defines():
    n, k = 6, 2
    program = randomise(AutoregressiveChain([2, 3], order=k, likelihood="normal"))
    dense = torch.zeros(n, n)
    for i in range(n):
        for j in range(1, min(i, k) + 1):
            dense[i, i - j] = program.weight[i, k - j]
    inverse = torch.linalg.inv(torch.eye(n) - dense)
    covariance = inverse @ torch.diag(program.scale**2) @ inverse.T
    expected = torch.distributions.MultivariateNormal(inverse @ program.bias, covariance)
    x = torch.randn(7, 2, 3)
    torch.testing.assert_close(program.log_prob(x), expected.log_prob(x.flatten(1)))
    # Samples, in the coordinates in which the density is standard normal: marginally, and uncorrelated.
    samples = 20_000
    centred = program.generate(samples).flatten(1).detach() - expected.mean
    white = torch.linalg.solve_triangular(expected.scale_tril, centred.T, upper=False).detach()
    assert stats.kstest(white.flatten().numpy(), "norm").pvalue > FAILURE_RATE
    correlation = torch.triu(white @ white.T / samples, diagonal=1)
    assert stats.chi2(n * (n - 1) / 2).sf(samples * correlation.square().sum().item()) > FAILURE_RATE


def test_markov_chain_is_the_product_along_the_raster():
    program = randomise(MarkovChain([2, 2], values=3))
    x = torch.tensor([[[2.0, 0.0], [1.0, 1.0]]])
    tables = program.transition_logits.softmax(-1)
    expected = program.initial_logits.softmax(-1)[2] * tables[0, 2, 0] * tables[1, 0, 1] * tables[2, 1, 1]
    torch.testing.assert_close(program.log_prob(x).exp(), expected[None])


def test_ar1_on_bits_is_the_markov_chain():
    markov, ar = randomise(MarkovChain([9])), AutoregressiveChain([9], order=1)
    with torch.no_grad():
        rows = markov.transition_logits.log_softmax(-1)
        logits = rows[..., 1] - rows[..., 0]
        ar.bias.copy_(torch.cat([markov.initial_logits.diff(), logits[:, 0]]))
        ar.weight[1:, 0] = logits[:, 1] - logits[:, 0]
    x = all_states([9])
    torch.testing.assert_close(ar.log_prob(x), markov.log_prob(x))
    assert ar.parameter_count() == markov.parameter_count() == 2 * 9 - 1


def test_parameter_counts_tell_the_story():
    for n in (1, 4, 12):
        assert FullJoint([n]).parameter_count() == 2**n - 1
        assert Independent([n]).parameter_count() == n
        assert MarkovChain([n]).parameter_count() == 2 * n - 1
        assert AutoregressiveChain([n], order=n).parameter_count() == n + n * (n - 1) // 2
    assert AutoregressiveChain([6], order=2, likelihood="normal").parameter_count() == 6 + 6 + (0 + 1 + 2 * 4)
    # The RGB pixel: three sites of 256 values.
    assert FullJoint.free_parameters(3, 256) == 256**3 - 1 != 255**3
    assert Independent.free_parameters(3, 256) == 3 * 255
    assert MarkovChain.free_parameters(3, 256) == 255 + 2 * 256 * 255
    # The count is that of the logits, less one for each row that sums to one.
    markov = MarkovChain([4], values=5)
    rows = sum(p.numel() // 5 for p in markov.parameters())
    assert markov.parameter_count() == sum(p.numel() for p in markov.parameters()) - rows


@pytest.mark.parametrize("cls", TABLES)
def test_closed_form_fit_gives_the_empirical_frequencies(cls):
    x = torch.randint(3, (500, 2, 2)).double()
    program = cls.for_data(x, smoothing=0.0)
    assert isinstance(program, ClosedFormEM)
    assert program.values == 3
    whole = program.e_step(x)
    parts = [program.e_step(part) for part in x.split(170)]
    torch.testing.assert_close(whole[0], sum(p[0] for p in parts))
    for name, value in whole[1].items():
        torch.testing.assert_close(value, sum(p[1][name] for p in parts))
    program.m_step(whole[1])
    flat = x.flatten(1).long()
    if cls is Independent:
        expected = torch.stack([(flat == v).double().mean(0) for v in range(3)], -1)
        torch.testing.assert_close(program.logits.softmax(-1), expected)
    elif cls is FullJoint:
        index = (flat * torch.tensor([27, 9, 3, 1])).sum(-1)
        torch.testing.assert_close(program.logits.softmax(-1), torch.bincount(index, minlength=81) / 500)
    else:
        torch.testing.assert_close(program.initial_logits.softmax(-1), torch.bincount(flat[:, 0], minlength=3) / 500)
        pairs = ((flat[:, 1] == 2) & (flat[:, 2] == 1)).sum() / (flat[:, 1] == 2).sum()
        torch.testing.assert_close(program.transition_logits.softmax(-1)[1, 2, 1], pairs.double())
    # It is the maximum: the gradient of the likelihood vanishes, and a second round changes nothing.
    program.log_prob(x).mean().backward()
    assert all(p.grad.abs().max() < 1e-12 for p in program.parameters())
    before = [p.detach().clone() for p in program.parameters()]
    program.m_step(program.e_step(x)[1])
    for a, b in zip(before, program.parameters(), strict=True):
        torch.testing.assert_close(a, b.detach())


def test_smoothing_keeps_unseen_values_possible():
    assert torch.allclose(log_frequencies(torch.tensor([3.0, 0.0]), 1.0).exp(), torch.tensor([3.5, 0.5]) / 4)
    assert torch.allclose(log_frequencies(torch.zeros(4)).exp(), torch.full((4,), 0.25))
    assert torch.isfinite(log_frequencies(torch.tensor([3.0, 0.0]))).all()
    x = torch.zeros(20, 3)
    for cls in TABLES:
        program = cls.for_data(x)
        program.m_step(program.e_step(x)[1])
        unseen = program.log_prob(torch.ones(1, 3))
        assert -20 < unseen.item() < -1


def test_svi_comes_to_the_closed_form():
    x = (torch.rand(300, 4) < torch.tensor([0.1, 0.4, 0.6, 0.9])).double()
    program = Independent([4])
    fit(program, x, "svi", steps=400, lr=0.1, batch_size=300)
    torch.testing.assert_close(program.logits.softmax(-1)[:, 1], x.mean(0), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("likelihood", "data"), [("bernoulli", "bits"), ("normal", "reals")])
def test_autoregression_learns_what_independence_cannot(likelihood, data):
    x = torch.randn(400, 6).cumsum(-1)
    if data == "bits":
        x = (x > 0).double()
    program = AutoregressiveChain.for_data(x, order=2, likelihood=likelihood)
    with torch.no_grad():
        program.initialise(x)
    start = program.log_prob(x).mean().item()
    if likelihood == "bernoulli":
        independent = Independent([6], smoothing=1.0)
        independent.m_step(independent.e_step(x)[1])
        assert start == pytest.approx(independent.log_prob(x).mean().item(), abs=1e-9)
    else:
        expected = torch.distributions.Normal(x.mean(0), x.std(0, correction=0)).log_prob(x).sum(-1).mean()
        assert start == pytest.approx(expected.item(), abs=1e-9)
    fit(program, x, "svi", steps=300, lr=0.05, batch_size=400)
    gain = program.log_prob(x).mean().item() - start
    assert gain > 1.0
    if likelihood == "normal":  # least squares is the maximum
        gram = torch.cat([torch.ones(400, 1), x[:, 1:3]], -1)
        best = torch.linalg.lstsq(gram, x[:, 3:4]).solution.flatten()
        torch.testing.assert_close(torch.cat([program.bias[3:4], program.weight[3]]).detach(), best, atol=0.02, rtol=0)


def test_gradients_reach_every_parameter_and_match_finite_differences():
    for program in [*binary_chains([2, 3]), randomise(AutoregressiveChain([4], order=2, likelihood="normal"))]:
        x = program.generate(20)
        parameters = list(program.parameters())
        grads = torch.autograd.grad(program.log_prob(x).sum(), parameters)
        assert all(g.abs().sum() > 0 for g in grads), type(program).__name__
        direction = [torch.randn_like(p) for p in parameters]
        slope = sum((g * d).sum() for g, d in zip(grads, direction, strict=True))
        values, step = [], 1e-5
        for moves in (step, -2 * step):  # to +step, then to -step
            with torch.no_grad():
                for p, d in zip(parameters, direction, strict=True):
                    p += moves * d
                values.append(program.log_prob(x).sum().item())
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope.item(), rel=1e-4, abs=1e-4)


def test_model_trace_is_the_density_and_particles_broadcast():
    for program in binary_chains([2, 2]):
        x = program.generate(5)
        joint = log_joint(program, {}, x, particles=3)
        torch.testing.assert_close(joint.local, program.log_prob(x).expand(3, 5))
        assert program.sites() == {}


def test_saving_is_bit_exact(tmp_path):
    for program in [*binary_chains([3]), randomise(Independent([2, 2], values=4))]:
        x = program.generate(4)
        catalogue.save(program, tmp_path)
        loaded = catalogue.load(tmp_path)
        assert type(loaded) is type(program)
        assert torch.equal(loaded.log_prob(x), program.log_prob(x))
        assert loaded.parameter_count() == program.parameter_count()


def test_float32_stays_float32():
    for program in binary_chains([4]):
        program.float()
        x = program.generate(3)
        assert x.dtype == program.log_prob(x).dtype == torch.float32


def test_program_sizes_come_from_the_data():
    assert MarkovChain.for_data(torch.tensor([[0.0, 2.0], [5.0, 1.0]])).values == 6
    assert Independent.for_data(torch.zeros(3, 2, 2)).values == 2
    for data in (torch.empty(0, 3), torch.tensor([[0.5, 7.0]]), torch.tensor([[float("nan")]]), torch.tensor([[-1.0]])):
        assert count_values(data) == 2
    with pytest.raises(SupportError, match=r"0\.5"):
        Independent.for_data(torch.full((2, 3), 0.5)).check(torch.full((2, 3), 0.5))
    with pytest.raises(SupportError, match="whole numbers from 0 to 2, got values from 0 to 3"):
        Independent([2], values=3).check(torch.tensor([[0.0, 3.0]]))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FullJoint([8, 8]), "18,446,744,073,709,551,615|10\\^19"),
        (lambda: FullJoint([28, 28, 3], values=256), "10\\^5664"),
        (lambda: MarkovChain([28, 28], values=256), f"{255 * (1 + 783 * 256):,} parameters"),
        (lambda: Independent([3], values=1), "at least 2, got 1"),
        (lambda: Independent([3], smoothing=-1.0), "at least 0"),
        (lambda: Independent([3, 0]), "each at least 1"),
        (lambda: AutoregressiveChain([3], order=0), "at least 1, got 0"),
        (lambda: AutoregressiveChain([3], likelihood="poisson"), "poisson"),
    ],
)
def test_options_that_make_no_sense_are_refused(build, message):
    with pytest.raises(OptionError, match=message):
        build()


def test_raster_refuses_another_size():
    base = Independent([4]).distribution()
    with pytest.raises(ShapeError, match="4 sites"):
        Raster(base, torch.Size([3]), torch.float64)


class TestMarkovPath:
    def test_sums_to_one_and_marginals_match_enumeration(self):
        path = MarkovPath(torch.randn(2, 3), torch.randn(2, 4, 3, 3))
        paths = path.enumerate_support()
        assert paths.shape == (3**5, 2, 5)
        probs = path.log_prob(paths).exp()
        torch.testing.assert_close(probs.sum(0), torch.ones(2))
        expected = torch.stack([(probs[..., None] * (paths == k)).sum(0) for k in range(3)], -1)
        torch.testing.assert_close(path.marginals(), expected)

    def test_samples_agree_with_the_density(self):
        path = MarkovPath(torch.randn(3), torch.randn(3, 3), steps=4)
        drawn = path.sample(torch.Size([20_000]))
        counts = torch.bincount((drawn * 3 ** torch.arange(3, -1, -1)).sum(-1), minlength=81)
        assert chi_square(path.log_prob(path.enumerate_support()).exp(), counts) > FAILURE_RATE

    def test_homogeneous_is_the_same_matrix_at_each_step_and_batches_broadcast(self):
        initial, matrix = torch.randn(2, 3), torch.randn(3, 3)
        path = MarkovPath(initial, matrix, steps=5)
        written_out = MarkovPath(initial, matrix.expand(4, 3, 3))
        z = path.sample(torch.Size([7]))
        assert z.shape == (7, 2, 5)
        torch.testing.assert_close(path.log_prob(z), written_out.log_prob(z))
        wide = path.expand(torch.Size([6, 2]))
        assert wide.sample().shape == (6, 2, 5)
        assert wide.log_prob(z[:6]).shape == (6, 2)
        assert MarkovPath(initial, matrix, steps=1).sample().shape == (2, 1)

    def test_impossible_transitions_are_never_drawn(self):
        ring = torch.full((3, 3), -torch.inf)
        ring[[0, 1, 2], [1, 2, 0]] = 0.0
        path = MarkovPath(torch.tensor([0.0, -torch.inf, -torch.inf]), ring, steps=6)
        assert torch.equal(path.sample(torch.Size([50])), torch.tensor([0, 1, 2, 0, 1, 2]).expand(50, 6))
        assert path.log_prob(torch.tensor([0, 1, 2, 0, 1, 2])).item() == 0.0
        assert path.log_prob(torch.tensor([0, 2, 2, 0, 1, 2])).item() == -torch.inf

    def test_refuses_to_enumerate_what_cannot_be(self):
        with pytest.raises(CapabilityError, match=r"4\^20"):
            MarkovPath(torch.zeros(4), torch.zeros(4, 4), steps=20).enumerate_support()
        with pytest.raises(OptionError, match="steps=0"):
            MarkovPath(torch.zeros(4), torch.zeros(4, 4), steps=0)


@pytest.mark.parametrize(("name", "published"), [("nltcs", 9.23), ("plants", 31.27), ("dna", 100.39)])
def test_independent_bits_give_the_known_negative_log_likelihood(zoo_data, name, published):
    dataset = datasets.load(name)
    program = Independent.for_data(dataset.train.x)
    program.m_step(program.e_step(dataset.train.x)[1])
    assert -program.log_prob(dataset.test.x).mean().item() == pytest.approx(published, abs=0.005)


def test_nested_chains_fit_real_bits_ever_better(zoo_data):
    x = datasets.load("nltcs").train.x
    found = []
    for cls in (Independent, MarkovChain, FullJoint):
        program = cls.for_data(x, smoothing=0.0)
        program.m_step(program.e_step(x)[1])
        found.append(program.log_prob(x).mean().item())
    assert found[0] < found[1] < found[2]
