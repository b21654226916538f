r"""The Chow-Liu tree: of all distributions in which each site depends on one other, the one nearest to the data.

Chow & Liu, "Approximating discrete probability distributions with dependence trees", IEEE Transactions on Information
Theory, 1968.

    p(x) = p(x_r) prod_{i != r} p(x_i | x_pa(i))       the tree maximises the sum of its edges' mutual information

    x_r --> x_a --> x_b      sites: x (*event_shape); no latents      (m - 1) + (n - 1) m (m - 1) free parameters
       \--> x_c              as many as the Markov chain has, along better edges
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.chains.chain import MAX_PARAMETERS, TableChain, log_dirichlet, log_frequencies
from zoo.errors import OptionError
from zoo.options import NonNegative, Shape, Values
from zoo.process import guest

__all__ = ["ChowLiuTree", "Tree", "mutual_information"]

ROWS = 4096
"""Rows whose one-hot form is held at a time while pairs are counted."""


class ChowLiuTree(TableChain):
    """The tree of largest mutual information, and the frequencies along its edges: maximum likelihood of both.

    The structure (buffers `order` and `parents`) is chosen by `initialise`, from data; before, it is the Markov chain
    in raster order. Then one step of EM counts the tables. Which site is the root changes no density.

    Args:
        event_shape: Shape of one example, n sites.
        values: Number m of values a site takes, 0 ... m-1.
        smoothing: Pseudo-examples, spread evenly over all m^n states, that count beside the data for the structure and
            for the tables: both then maximise log-likelihood + `log_prior()`. Zero is plain maximum likelihood.
    """

    paper = "Chow & Liu, Approximating discrete probability distributions with dependence trees, 1968"
    order: Tensor
    parents: Tensor

    def __init__(self, event_shape: Shape = (8, 8), values: Values = 2, smoothing: NonNegative = 1.0):
        super().__init__(event_shape, values, smoothing)
        if (self.length * values) ** 2 > MAX_PARAMETERS:
            raise OptionError(
                f"ChowLiuTree counts all pairs of sites and values, and {self.length} sites of {values} values have "
                f"{(self.length * values) ** 2:,}; at most {MAX_PARAMETERS:,} are allowed. Use fewer sites or values, "
                "or a program with a fixed structure such as MarkovChain."
            )
        self.root_logits = nn.Parameter(torch.zeros(values))
        self.edge_logits = nn.Parameter(torch.zeros(self.length - 1, values, values))
        self.register_buffer("order", torch.arange(self.length))
        self.register_buffer("parents", torch.arange(self.length) - 1)

    def distribution(self) -> Tree:
        """The tree with its tables."""
        return Tree(self.root_logits, self.edge_logits, order=self.order, parents=self.parents)

    @torch.no_grad()
    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Chooses the tree, a maximum spanning tree of the pairwise mutual information."""
        information = mutual_information(self._sites(x), self.values, self.smoothing).cpu().numpy()
        # A spanning tree of least weight; scipy takes a zero for a missing edge, so all weights are positive.
        graphs = guest("scipy.sparse.csgraph")
        tree = graphs.minimum_spanning_tree(1.0 + information.max() - information)
        order, parents = graphs.breadth_first_order(tree, 0, directed=False, return_predecessors=True)
        parents[0] = -1
        self.order.copy_(torch.from_numpy(order.astype(np.int64)))
        self.parents.copy_(torch.from_numpy(parents.astype(np.int64)))

    @torch.no_grad()
    def e_step(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Counts of the root's value (m,) and of each edge's pair of values (n-1, m, m)."""
        sites, tree = self._sites(x), self.distribution()
        return self.log_prob(x).sum(), {
            "root": self._count(sites[:, self.order[:1]], self.values),
            "edges": self._count(tree.cells(sites), self.edge_logits.numel()).view_as(self.edge_logits),
        }

    @torch.no_grad()
    def m_step(self, statistics: Mapping[str, Tensor]) -> None:
        """Conditional frequencies; a row of an edge's table gets the m-th part of the pseudo-examples."""
        self.root_logits.copy_(log_frequencies(statistics["root"], self.smoothing))
        self.edge_logits.copy_(log_frequencies(statistics["edges"], self.smoothing / self.values))

    def log_prior(self) -> Tensor:
        """The log prior () of which `smoothing` makes the fit the mode: the pseudo-examples' log-likelihood."""
        tree = self.distribution()
        edges = log_dirichlet(tree.edge_logits, self.smoothing / self.values)
        return log_dirichlet(tree.root_logits, self.smoothing) + edges

    @staticmethod
    def free_parameters(sites: int, values: int = 2) -> int:
        """(m - 1) + (n - 1) m (m - 1): 2n - 1 for n bits."""
        return (values - 1) * (1 + (sites - 1) * values)


class Tree(TorchDistribution):
    """n sites of m values in a directed tree.

    Args:
        root_logits: (m,), of the first site of the order.
        edge_logits: (n-1, m, m), row = the parent's value; the e-th table belongs to the site order[e + 1].
        order: (n,) the sites, every parent before its children.
        parents: (n,) parent of each site; what it says of the root, order[0], does not matter.
        batch_shape: Of independent copies.

    Shapes: values are (*batch_shape, n).
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(
        self,
        root_logits: Tensor,
        edge_logits: Tensor,
        *,
        order: Tensor,
        parents: Tensor,
        batch_shape: torch.Size = torch.Size(),
    ):
        self.root_logits, self.edge_logits = root_logits.log_softmax(-1), edge_logits.log_softmax(-1)
        self.order, self.parents = order, parents
        self.values = root_logits.shape[-1]
        super().__init__(batch_shape, order.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Integers 0 ... m-1 at every site."""
        return constraints.independent(constraints.integer_interval(0, self.values - 1), 1)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> Tree:
        """The same over more batch dimensions."""
        tables = self.root_logits, self.edge_logits
        return Tree(*tables, order=self.order, parents=self.parents, batch_shape=torch.Size(batch_shape))

    def cells(self, value: Tensor) -> Tensor:
        """Which cell of `edge_logits`, flattened, each edge of values (..., n) is in: (..., n-1)."""
        value, children = value.long(), self.order[1:]
        edge = torch.arange(len(children), device=children.device)
        return (edge * self.values + value[..., self.parents[children]]) * self.values + value[..., children]

    def log_prob(self, value: Tensor) -> Tensor:
        """All edges at once, (..., n) -> (...)."""
        root = self.root_logits[value[..., self.order[:1]].long()].squeeze(-1)
        return root + self.edge_logits.flatten()[self.cells(value)].sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Ancestral: from the root outwards, by the Gumbel-max trick with all noise drawn at once."""
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = -torch.empty((*shape, self.values)).to(self.root_logits).exponential_().log()
        drawn = torch.zeros(shape, dtype=torch.long, device=noise.device)
        order, parents = self.order.tolist(), self.parents.tolist()
        drawn[..., order[0]] = (self.root_logits + noise[..., 0, :]).argmax(-1)
        for edge, site in enumerate(order[1:]):
            row = self.edge_logits[edge][drawn[..., parents[site]]]
            drawn[..., site] = (row + noise[..., edge + 1, :]).argmax(-1)
        return drawn


def mutual_information(sites: Tensor, values: int, smoothing: float = 0.0) -> Tensor:
    """Mutual information of all pairs of sites, in nats, by the frequencies of the rows: (N, n) integers -> (n, n).

    Args:
        sites: Values 0 ... values-1.
        values: Number m of values.
        smoothing: Pseudo-rows, spread evenly over all m^n states.
    """
    n = sites.shape[1]
    counts = torch.zeros(n * values, n * values, dtype=torch.float64, device=sites.device)
    for rows in sites.split(ROWS):
        one_hot = nn.functional.one_hot(rows, values).reshape(len(rows), -1).to(counts)
        counts += one_hot.T @ one_hot
    single = (counts.diagonal() + smoothing / values) / (len(sites) + smoothing)
    joint = (counts + smoothing / values**2) / (len(sites) + smoothing)
    expected = single.unsqueeze(1) * single
    terms = torch.where(joint > 0, joint * (joint / expected.clamp(min=torch.finfo(joint.dtype).tiny)).log(), 0.0)
    return terms.reshape(n, values, n, values).sum((1, 3))
