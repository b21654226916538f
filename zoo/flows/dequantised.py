r"""Flows for data on a grid: x is the cell of a continuous image u, and the guide dequantises.

Theis, van den Oord & Bethge, "A note on the evaluation of generative models", ICLR 2016 (uniform); Ho et al.,
"Flow++", ICML 2019 (variational); the logit space with its margin: Dinh et al., "Density estimation using Real NVP".

    u ~ flow on R^D,   x_i = the level k whose cell holds sigmoid(u_i)
    cells of [0, 1]: edges alpha + (1 - 2 alpha) k / values; the outermost ones reach to 0 and 1

    q(u | x): sigmoid(u_i) = lower + width v_i with v uniform, or a flow of uniform noise on (0, 1)^D, given x

so that the ELBO is the dequantisation bound on log P(x), a log mass, and importance sampling sharpens it.

    u --> x      sites: u (*event_shape) local; x (*event_shape)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.utils import clamp_probs
from torch.nn.functional import logsigmoid

from zoo.density import NetworkDensity
from zoo.distributions import Grid
from zoo.errors import UnknownNameError
from zoo.flows.coupling import Univariate, coupling_mlp, start_at_zero
from zoo.flows.flow import Flow, Permutation
from zoo.flows.maf import MAF
from zoo.flows.nice import NICE
from zoo.flows.realnvp import RealNVP
from zoo.flows.spline import NeuralSpline
from zoo.nets import mlp
from zoo.options import Counts, Natural, Range, Shape, Values
from zoo.program import Preset, Program

__all__ = ["DEQUANTISATIONS", "FLOWS", "CellGuide", "Cells", "DequantisedFlow", "Rounded"]

FLOWS: dict[str, type[Flow]] = {"nice": NICE, "realnvp": RealNVP, "maf": MAF, "neural-spline": NeuralSpline}
DEQUANTISATIONS = ("uniform", "variational")


class DequantisedFlow(Program):
    """A flow for bits and grey levels.

    Args:
        event_shape: Shape of one example.
        flow: A key of FLOWS.
        flow_options: Its constructor options but for event_shape, by name.
        values: Number of levels of the grid 0, 1/(values-1), ..., 1.
        alpha: The margin of the logit space, in [0, 1/2).
        dequantisation: 'uniform' or 'variational'.
        guide_hidden: Of 'variational', widths of the hidden layers.
        guide_couplings: Of 'variational', how many couplings.

    Raises: UnknownNameError, OptionError, ShapeError.
    """

    family = "flows"
    paper = "Dinh, Sohl-Dickstein & Bengio, Density estimation using Real NVP, 2017; Ho et al., Flow++, 2019"
    dataset = "digits-binary"
    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"flow_options": {"couplings": 6, "hidden": [128]}}, "svi", {"steps": 3000, "batch_size": 64, "lr": 1e-3}
        ),
        "paper": Preset(
            {
                "flow_options": {"network": "conv", "couplings": 3, "hidden": [64] * 8, "scales": 3},
                "values": 256,
                "dequantisation": "uniform",
            },
            "svi",
            {"epochs": 100, "batch_size": 64, "lr": 1e-3},
        ),
    }

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        flow: str = "realnvp",
        flow_options: Mapping[str, Any] | None = None,
        values: Values = 2,
        alpha: Annotated[float, Range(least=0, below=0.5)] = 0.05,
        dequantisation: str = "variational",
        guide_hidden: Counts = (64,),
        guide_couplings: Natural = 2,
    ):
        super().__init__()
        if flow not in FLOWS:
            raise UnknownNameError("flow", flow, FLOWS)
        if dequantisation not in DEQUANTISATIONS:
            raise UnknownNameError("dequantisation", dequantisation, DEQUANTISATIONS)
        options: dict[str, Any] = {**(flow_options or {})}
        for option in options:
            if option not in FLOWS[flow].option_names() or option == "event_shape":
                raise UnknownNameError(f"option of {flow}", option, set(FLOWS[flow].option_names()) - {"event_shape"})
        self.event_shape, self.cells, self.support = torch.Size(event_shape), Cells(values, alpha), Grid(values)
        self.flow = FLOWS[flow](event_shape=event_shape, **options)
        d = self.event_shape.numel()
        self.within = _Within(d, guide_hidden, guide_couplings) if dequantisation == "variational" else None

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """A continuous image, rounded."""
        with self.plate(x, context, size):
            u = pyro.sample("u", NetworkDensity(self.flow))
            return pyro.sample("x", Rounded(u, self.cells, len(self.event_shape)), obs=x)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(u | x) within the cells."""
        assert x is not None
        with self.plate(x, context, size):
            pyro.sample("u", CellGuide(x, self.cells, len(self.event_shape), flow=self.within))

    def codes_of(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The noise that the middles of the cells are made of, (B, D)."""
        lower, upper = self.cells.edges(x)
        return self.flow.codes_of(torch.logit((lower + upper) / 2))

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Standardises the flow by a draw of the guide."""
        self.flow.initialise(CellGuide(x, self.cells, len(self.event_shape)).rsample())


class Cells(NamedTuple):
    """The cells of [0, 1], one for each level 0, 1/(values-1), ..., 1."""

    values: int
    """How many."""
    alpha: float
    """The margin."""

    def edges(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper edge of the cell of each level x."""
        values, alpha = self
        level = (x * (values - 1)).round()
        lower = torch.where(level == 0, 0.0, alpha + (1 - 2 * alpha) * level / values)
        upper = torch.where(level == values - 1, 1.0, alpha + (1 - 2 * alpha) * (level + 1) / values)
        return lower, upper

    def level(self, y: Tensor) -> Tensor:
        """The level x in whose cell each y in [0, 1] lies."""
        inside = (y - self.alpha) / (1 - 2 * self.alpha)
        return (inside * self.values).floor().clamp(0, self.values - 1) / (self.values - 1)


class Rounded(TorchDistribution):
    """The cell in which sigmoid(u) lies: mass one there, none elsewhere.

    Args:
        u: (*batch, *event).
        cells: Of the levels.
        event_dim: Number of dimensions of the event.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, u: Tensor, cells: Cells, event_dim: int):
        self.u, self.cells = u, cells
        cut = u.ndim - event_dim
        super().__init__(u.shape[:cut], u.shape[cut:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The grid."""
        return constraints.independent(Grid(self.cells.values), len(self.event_shape))

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> Rounded:
        """The same over more batch dimensions."""
        u = self.u.expand(torch.Size(batch_shape) + self.event_shape)
        return Rounded(u, self.cells, len(self.event_shape))

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """The level."""
        return self.cells.level(self.u.sigmoid()).expand(torch.Size(sample_shape) + self.u.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Zero, or minus infinity."""
        y, (lower, upper) = self.u.sigmoid(), self.cells.edges(value)
        # A guide's draw next to an edge may come out beyond it by the rounding of logit and sigmoid.
        slack = 16 * torch.finfo(y.dtype).eps
        inside = ((y >= lower - slack) & (y <= upper + slack)).flatten(y.ndim - len(self.event_shape)).all(-1)
        return torch.where(inside, 0.0, -torch.inf).to(y.dtype)


class CellGuide(TorchDistribution):
    """u = logit(lower + width v) with v in (0, 1): uniform, or a flow of uniform noise.

    Args:
        x: Levels (*batch, *event).
        cells: Of the levels.
        event_dim: Number of dimensions of the event.
        flow: Of 2 v - 1, given x; None for uniform.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True

    def __init__(self, x: Tensor, cells: Cells, event_dim: int, *, flow: _Within | None = None):
        self.x, self.cells, self.flow = x, cells, flow
        cut = x.ndim - event_dim
        super().__init__(x.shape[:cut], x.shape[cut:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Real numbers; outside of its cell the density is zero."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> CellGuide:
        """The same over more batch dimensions."""
        x = self.x.expand(torch.Size(batch_shape) + self.event_shape)
        return CellGuide(x, self.cells, len(self.event_shape), flow=self.flow)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Reparameterised draws."""
        x = self.x.expand(torch.Size(sample_shape) + self.x.shape)
        v = torch.rand(x.shape, dtype=x.dtype, device=x.device)
        if self.flow is not None:
            d = self.event_shape.numel()
            w, _ = self.flow((2 * v - 1).reshape(-1, d), x.reshape(-1, d))
            v = (0.5 * (w + 1)).reshape(x.shape)
        lower, upper = self.cells.edges(x)
        return torch.logit(clamp_probs(lower + (upper - lower) * v))

    def log_prob(self, value: Tensor) -> Tensor:
        """By the change of variables; values are taken to lie in their cells, as the model's site x says whether."""
        cut = value.ndim - len(self.event_shape)
        lower, upper = self.cells.edges(self.x)
        log_slope = logsigmoid(value) + logsigmoid(-value) - (upper - lower).log()
        if self.flow is None:
            return log_slope.flatten(cut).sum(-1)
        d, x = self.event_shape.numel(), self.x.expand(value.shape)
        v = (value.sigmoid() - lower) / (upper - lower)
        rows = x.reshape(-1, d)
        _, log_det = self.flow(self.flow.inverse((2 * v - 1).reshape(-1, d), rows), rows)
        return log_slope.flatten(cut).sum(-1) - log_det.reshape(value.shape[:cut])


class _Within(nn.Module):
    """The flow of variational dequantisation on [-1, 1]^D: splines given x, at first the identity.

    A spline for each number from x alone, then couplings of halves; both map the interval onto itself, so that every
    draw lies in its cell and all of the cell is covered.

    Args:
        features: D.
        hidden: Widths of the hidden layers of each network.
        couplings: How many; none for a single number.
    """

    def __init__(self, features: int, hidden: Sequence[int], couplings: int):
        super().__init__()
        self.univariate = Univariate("spline", bins=4, bound=1.0)
        self.net = mlp(features, hidden, features * self.univariate.size)
        start_at_zero(self.net[-1])
        self.couplings = nn.ModuleList(
            coupling_mlp(self.univariate, features, hidden, context=features, identity=True)
            for _ in range(couplings if features > 1 else 0)
        )
        self.permutation = Permutation(features)

    def forward(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """(n, D) and rows of x (n, D) -> (n, D) and log |det| (n,)."""
        w, log_slope = self._own(x).call_and_ladj(t)
        total = log_slope.sum(-1)
        for coupling in self.couplings:
            w, log_det = coupling(self.permutation(w)[0], 2 * x - 1)
            total = total + log_det
        return w, total

    def inverse(self, w: Tensor, x: Tensor) -> Tensor:
        """Back to what was uniform."""
        coupling: Any
        for coupling in reversed(self.couplings):
            w = self.permutation.inverse(coupling.inverse(w, 2 * x - 1))
        return self._own(x).inv(w)

    def _own(self, x: Tensor) -> Any:
        return self.univariate(self.net(2 * x - 1).unflatten(1, (-1, self.univariate.size)))
