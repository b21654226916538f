"""The Chow-Liu tree: a density, exact samples, and the best of all labelled trees, on made and on real bits."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from inference.fit import fit
from tests.conftest import FAILURE_RATE
from tests.zoo.test_chains import all_states, chi_square, randomise
from zoo import datasets
from zoo.chains.chow_liu import ChowLiuTree, mutual_information
from zoo.chains.markov import MarkovChain
from zoo.errors import OptionError
from zoo.testing import check_program


def fitted(x: torch.Tensor, **options) -> ChowLiuTree:
    """By the one step that a fit takes."""
    program = ChowLiuTree.for_data(x, **options)
    program.initialise(x)
    program.m_step(program.e_step(x)[1])
    return program


def with_tree(program: ChowLiuTree, edges: list[tuple[int, int]], root: int = 0) -> ChowLiuTree:
    """Gives the program an undirected tree, directed away from a root."""
    order, parents = [root], {root: -1}
    for site in order:
        for a, b in [*edges, *((b, a) for a, b in edges)]:
            if a == site and b not in parents:
                order.append(b)
                parents[b] = a
    program.order.copy_(torch.tensor(order))
    program.parents.copy_(torch.tensor([parents[i] for i in range(len(order))]))
    return program


def labelled_trees(n: int) -> list[list[tuple[int, int]]]:
    """All n^(n-2) of them (Cayley), each by its Pruefer code."""
    found = []
    for code in itertools.product(range(n), repeat=n - 2):
        degree, edges = [1 + code.count(i) for i in range(n)], []
        for a in code:
            leaf = degree.index(1)
            edges.append((leaf, a))
            degree[leaf] -= 1
            degree[a] -= 1
        edges.append(tuple(i for i in range(n) if degree[i] == 1))
        found.append(edges)
    return found


def dependent_bits(rows: int, n: int) -> torch.Tensor:
    """A chain along a shuffled order, so that the raster order is not the best tree."""
    steps = (torch.rand(rows, n) < torch.linspace(0.15, 0.4, n)).cumsum(-1) % 2
    return steps[:, torch.randperm(n)].double()


def random_tree(n: int) -> list[tuple[int, int]]:
    return [(i, int(torch.randint(i, ()))) for i in range(1, n)]


@pytest.mark.parametrize("shape", [[12], [3, 4]])
def test_sums_to_one_over_all_states_of_12_bits(shape):
    for root in (0, 7):
        program = with_tree(randomise(ChowLiuTree(shape)), random_tree(12), root)
        assert program.log_prob(all_states(shape)).exp().sum().item() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("shape", "values"), [([5], 3), ([2, 2], 5), ([], 4), ([1], 3)])
def test_categorical_trees_sum_to_one(shape, values):
    program = randomise(ChowLiuTree(shape, values=values))
    with_tree(program, random_tree(program.length))
    assert program.log_prob(all_states(shape, values)).exp().sum().item() == pytest.approx(1.0, abs=1e-12)


def test_before_a_fit_it_is_the_markov_chain():
    tree, chain = randomise(ChowLiuTree([2, 3], values=3)), MarkovChain([2, 3], values=3)
    with torch.no_grad():
        chain.initial_logits.copy_(tree.root_logits)
        chain.transition_logits.copy_(tree.edge_logits)
    x = all_states([2, 3], 3)
    torch.testing.assert_close(tree.log_prob(x), chain.log_prob(x))
    assert tree.parameter_count() == chain.parameter_count()


@pytest.mark.parametrize("values", [2, 3])
def test_samples_agree_with_the_density(values):
    program = with_tree(randomise(ChowLiuTree([5], values=values)), random_tree(5), root=3)
    states = all_states([5], values)
    x = program.generate(20_000)
    program.check(x)
    counts = torch.bincount((x.long() * values ** torch.arange(4, -1, -1)).sum(-1), minlength=len(states))
    assert chi_square(program.log_prob(states).exp(), counts) > FAILURE_RATE


@pytest.mark.parametrize("smoothing", [0.0, 2.0])
@pytest.mark.parametrize("n", [4, 5])
def test_no_labelled_tree_is_better(n, smoothing):
    trees = labelled_trees(n)
    assert len({frozenset(map(frozenset, edges)) for edges in trees}) == n ** (n - 2)
    x = dependent_bits(60, n)

    def objective(program: ChowLiuTree) -> float:
        return (program.log_prob(x).sum() + program.log_prior()).item()

    best, others = objective(fitted(x, smoothing=smoothing)), []
    for edges in trees:
        program = with_tree(ChowLiuTree([n], smoothing=smoothing), edges, root=int(torch.randint(n, ())))
        program.m_step(program.e_step(x)[1])
        others.append(objective(program))
    assert best == pytest.approx(max(others), abs=1e-9)
    assert sorted(others)[-2] < best - 1e-3  # one tree is the best, so that finding it means something


def test_it_finds_the_tree_that_made_the_data():
    truth = with_tree(ChowLiuTree([3, 3]), random_tree(9), root=4)
    with torch.no_grad():
        truth.edge_logits.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    found = fitted(truth.generate(5000))

    def edges(program: ChowLiuTree) -> set[frozenset[int]]:
        return {frozenset((i, p)) for i, p in enumerate(program.parents.tolist()) if i != int(program.order[0])}

    assert edges(found) == edges(truth)


def test_the_root_changes_no_density():
    x, edges = dependent_bits(40, 6), random_tree(6)
    found = []
    for root in range(6):
        program = with_tree(ChowLiuTree([6], smoothing=3.0), edges, root)
        program.m_step(program.e_step(x)[1])
        found.append(program.log_prob(all_states([6])))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


def test_the_prior_is_the_likelihood_of_the_pseudo_examples():
    program = with_tree(randomise(ChowLiuTree([4], values=3, smoothing=2.5)), random_tree(4))
    expected = 2.5 * program.log_prob(all_states([4], 3)).mean()
    torch.testing.assert_close(program.log_prior(), expected)


def test_mutual_information_by_hand():
    equal = torch.tensor([[0, 0, 0], [1, 1, 0], [0, 0, 1], [1, 1, 1]])
    found = mutual_information(equal, 2)
    assert found[0, 1].item() == pytest.approx(math.log(2))  # copies: all of the entropy
    assert found[0, 2].item() == pytest.approx(0.0, abs=1e-12)
    torch.testing.assert_close(found, found.T)
    joint = torch.tensor([[2.25, 0.25], [0.25, 2.25]]) / 5
    smoothed = (joint * (joint / 0.25).log()).sum()
    torch.testing.assert_close(mutual_information(equal, 2, smoothing=1.0)[0, 1], smoothed)


def test_em_fits_it_in_one_step():
    x = dependent_bits(300, 8)
    found = fit(ChowLiuTree([8]), x, "em")
    assert found.info["converged"]
    assert found.info["iterations"] == 2  # the second finds that nothing changes
    torch.testing.assert_close(found.program.log_prob(x), fitted(x).log_prob(x))
    assert found.program.log_prob(x).sum() > fit(MarkovChain([8]), x, "em").program.log_prob(x).sum()


def test_gradient_ascent_comes_to_the_same_tables():
    x = dependent_bits(200, 5)
    found = fit(ChowLiuTree([5], smoothing=0.0), x, "svi", steps=600, lr=0.1, batch_size=200)
    exact = fitted(x, smoothing=0.0)
    assert torch.equal(found.program.parents, exact.parents)
    assert found.program.log_prob(x).mean().item() == pytest.approx(exact.log_prob(x).mean().item(), abs=1e-3)


def test_contract_and_errors():
    check_program(fitted(dependent_bits(50, 6)))
    check_program(fitted(torch.randint(4, (50, 2, 2)).double()))
    with pytest.raises(OptionError, match="smoothing must be at least 0"):
        ChowLiuTree([4], smoothing=-1.0)
    with pytest.raises(OptionError, match="all pairs of sites"):
        ChowLiuTree([3, 8, 8], values=256)


@pytest.mark.parametrize(("name", "known"), [("nltcs", 6.76), ("plants", 16.52), ("dna", 87.66), ("mushrooms", 20.96)])
def test_gives_the_known_negative_log_likelihood(zoo_data, name, known):
    dataset = datasets.load(name)
    program = fitted(dataset.train.x)
    assert -program.log_prob(dataset.test.x).mean().item() == pytest.approx(known, abs=0.02)
