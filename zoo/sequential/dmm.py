r"""The deep Markov model: a hidden Markov chain of real vectors whose transitions and emissions are networks.

Krishnan, Shalit & Sontag, "Structured inference networks for nonlinear state space models", AAAI 2017. Flows in the
guide: Kingma et al., "Improving variational inference with inverse autoregressive flow", 2016, as Pyro's tutorial has
them.

    z_t ~ N(m(z_t-1), s(z_t-1)^2),   x_t ~ prod_d p(x_td | e(z_t)),   q(z_t | z_t-1, x_t, ..., x_T)

    z_1 --> z_2 --> ... --> z_T       sites: z (T, K) local, the whole path; x (T, D)
     |       |               |
    x_1     x_2             x_T

The path is one site. Then prior and emissions of all steps are one pass of each network, also where a path has
particles; only drawing from the guide, in which each state waits for the one before, goes step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

import pyro
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.arrays import fill
from zoo.distributions import observed
from zoo.errors import OptionError
from zoo.guide_flows import flow_layers
from zoo.likelihoods import make_likelihood
from zoo.nets import mlp
from zoo.options import Count, Counts, Natural, OneOf, Shape
from zoo.program import Preset, Program
from zoo.sequential.neural_path import NeuralPath, walked
from zoo.specs import Spec, make_part

__all__ = ["CELLS", "DMM", "Combiner", "GatedTransition"]

CELLS: dict[str, Callable[..., nn.Module]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
"""Recurrent networks of the guide."""
LEAST = 1e-4
"""Of standard deviations of a step: softplus reaches zero in float32."""


class GatedTransition(nn.Module):
    """p(z_t | z_t-1): a gate chooses, number by number, between a linear and a nonlinear mean.

    Args:
        latent_dim: K.
        hidden: Units of the hidden layers of gate and proposal.
    """

    def __init__(self, latent_dim: int, hidden: int):
        super().__init__()
        self.gate = mlp(latent_dim, [hidden], latent_dim)
        self.proposal = mlp(latent_dim, [hidden], latent_dim)
        self.linear, self.scale = nn.Linear(latent_dim, latent_dim), nn.Linear(latent_dim, latent_dim)
        with torch.no_grad():  # states stay where they are until something else is learned
            self.linear.weight.copy_(torch.eye(latent_dim))
            self.linear.bias.zero_()

    def forward(self, z: Tensor, features: None = None) -> tuple[Tensor, Tensor]:
        """States (..., K) to mean and standard deviation of the next ones."""
        gate, proposal = self.gate(z).sigmoid(), self.proposal(z)
        loc = (1 - gate) * self.linear(z) + gate * proposal
        return loc, nn.functional.softplus(self.scale(proposal.relu())) + LEAST


class Combiner(nn.Module):
    """q(z | x): each state from the one before it and from what a recurrent network, run backward, saw from there on.

    These are what the true posterior of a state depends on, given the state before. With `flows` each state goes
    through inverse autoregressive flows, the same ones at every step.

    Args:
        latent_dim: K; given by the program.
        features: Numbers of a step; given by the program.
        hidden: Units of the recurrent network.
        cell: A key of `CELLS`.
        flows: How many.
    """

    def __init__(
        self,
        latent_dim: int,
        features: int,
        hidden: Count = 64,
        cell: Annotated[str, OneOf(CELLS)] = "gru",
        flows: Natural = 0,
    ):
        super().__init__()
        self.rnn = CELLS[cell](features, hidden, batch_first=True)
        self.before = nn.Linear(latent_dim, hidden)
        self.moments = nn.Linear(hidden, 2 * latent_dim)
        self.start = nn.Parameter(torch.zeros(latent_dim))
        self.flows: Any = flow_layers("iaf", latent_dim, flows, max(hidden, latent_dim))

    def forward(self, seen: Tensor, lengths: Tensor | None = None) -> NeuralPath:
        """Sequences (B, T, features), zero where padded, to a distribution over paths."""
        if lengths is None:
            features, mask = self.rnn(seen.flip(1))[0].flip(1), None
        else:
            steps = torch.arange(seen.shape[1], device=seen.device)
            mask, longest = steps < lengths.unsqueeze(-1), walked(lengths, seen.shape[1])
            # Backward over what is there, so that padding comes last.
            order = torch.where(mask, lengths.unsqueeze(-1) - 1 - steps, steps).long().unsqueeze(-1)[:, :longest]
            out = self.rnn(seen.gather(1, order.expand(-1, -1, seen.shape[2])))[0]
            features = out.gather(1, order.expand_as(out))
            features = nn.functional.pad(features, (0, 0, 0, seen.shape[1] - longest))
        return NeuralPath(self.step, self.start, seen.shape[1], features=features, mask=mask, flows=tuple(self.flows))

    def step(self, z: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """The states before (..., K) and what was seen from there on (..., hidden), to mean and standard deviation."""
        loc, scale = self.moments(0.5 * (self.before(z).tanh() + features)).chunk(2, -1)
        return loc, nn.functional.softplus(scale) + LEAST


GUIDES: dict[str, type[Combiner]] = {"combiner": Combiner}
JSB = {"compile": "never", "clip_norm": 10.0}
"""How far a batch of chorales goes depends on its lengths, so its step cannot be compiled; all 160 states, unrolled,
would take minutes to compile."""


class DMM(Program):
    """A nonlinear state space model, with a structured inference network.

    Args:
        event_shape: (T, D): T steps of D numbers.
        latent_dim: Size K of the state.
        hidden: Units of the transition's hidden layers.
        emission: Widths of the emission's hidden layers; empty for a linear one.
        likelihood: What a number of x follows, see `zoo.likelihoods.LIKELIHOODS`.
        lengths: Whether sequences are padded at the end; the context is then their lengths (B,). Padded steps
            contribute nothing to any density of x, and there z is standard normal in model and guide, so that it
            contributes nothing to any bound.
        guide: 'combiner', or with options: {"name": "combiner", "hidden": 600, "cell": "rnn", "flows": 2}.

    Raises: UnknownNameError, OptionError.
    """

    family = "sequential"
    paper = "Krishnan, Shalit & Sontag, Structured inference networks for nonlinear state space models, 2017"
    dataset = "digits-binary"
    takes_missing = True
    presets: ClassVar[Mapping[str, Preset]] = {
        "small": Preset(
            {"latent_dim": 32, "hidden": 64, "emission": [64],
             "guide": {"name": "combiner", "hidden": 128, "cell": "rnn"}}, "svi",
            {**JSB, "steps": 700, "batch_size": 32, "lr": 1.5e-2, "kl_anneal": 0.1}, data="jsb",
        ),
        "chorales": Preset(  # half an hour on two cores
            {"latent_dim": 64, "hidden": 128, "emission": [100],
             "guide": {"name": "combiner", "hidden": 256, "cell": "rnn"}}, "svi",
            {**JSB, "epochs": 600, "batch_size": 32, "lr": 3e-3, "kl_anneal": 0.1, "weight_decay": 0.03,
             "validate_every": 200, "patience": 5}, data="jsb",
        ),
        "paper": Preset(
            {"latent_dim": 100, "hidden": 200, "emission": [100, 100],
             "guide": {"name": "combiner", "hidden": 600, "cell": "rnn"}}, "svi",
            {**JSB, "epochs": 5000, "batch_size": 20, "lr": 3e-4, "kl_anneal": 0.2, "weight_decay": 0.1}, data="jsb",
        ),
    }  # fmt: skip

    def __init__(
        self,
        event_shape: Shape = (8, 8),
        latent_dim: Count = 8,
        hidden: Count = 32,
        emission: Counts = (32,),
        likelihood: Spec = "bernoulli",
        lengths: bool = False,
        guide: Spec = "combiner",
    ):
        super().__init__()
        if len(event_shape) != 2:
            raise OptionError(
                f"DMM takes sequences of shape (T, D), got event_shape={list(event_shape)}. Of a table with a row a "
                "step zoo.datasets.Data.sequences makes them."
            )
        self.event_shape, self.lengths = torch.Size(event_shape), lengths
        self.steps, self.dim = self.event_shape
        self.likelihood = make_likelihood(likelihood, [self.dim])
        self.support = self.likelihood.support
        self.context_support = constraints.integer_interval(1, self.steps)
        self.start = nn.Parameter(torch.zeros(latent_dim))
        self.transition = GatedTransition(latent_dim, hidden)
        self.emitter = mlp(latent_dim, emission, self.dim * self.likelihood.size)
        self.combiner = make_part("guide", guide, GUIDES, latent_dim=latent_dim, features=self.dim)

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """The path, then all steps given the path."""
        mask = self._mask(context)
        with self.plate(x, context, size):
            z = pyro.sample("z", NeuralPath(self.transition, self.start, self.steps, mask=mask))
            x, present = self.seen(x)
            out = self.emitter(z).reshape(*z.shape[:-1], self.dim, self.likelihood.size)
            if mask is not None:
                present = mask.unsqueeze(-1) if present is None else mask.unsqueeze(-1) & present
            drawn = pyro.sample("x", observed(self.likelihood.distribution(out), present, 2), obs=x)
        drawn = drawn.to(self.start.dtype)  # categories are drawn as integers
        return drawn if mask is None or x is not None else drawn * mask.unsqueeze(-1)

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """q(z | x) from the combiner, which sees zeros where numbers are missing or steps are padding."""
        assert x is not None
        seen, present = self.seen(x)
        seen, mask = self.likelihood.embed(seen.to(self.start.dtype)), self._mask(context)
        if present is not None:
            seen = seen * present
        if mask is not None:
            seen = seen * mask.unsqueeze(-1)
        with self.plate(x, context, size):
            pyro.sample("z", self.combiner(seen, context))

    @torch.no_grad()
    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Sets the emission's last bias to what fits each number of a step on its own, and a scale to the spread."""
        mask = self._mask(context)
        filled = fill(x)
        rows = filled.flatten(0, 1) if mask is None else filled[mask]
        last: Any = self.emitter[-1]
        last.bias.copy_(self.likelihood.initial(rows).flatten())

    @classmethod
    def for_data(cls, x: Tensor, context: Tensor | None = None, **options: Any) -> Program:
        """Takes the shape from the data, and `lengths` from whether there is a context."""
        options.setdefault("lengths", context is not None)
        return super().for_data(x, context, **options)

    def example_context(self, n: int) -> Tensor | None:
        """Lengths T, T-1, ... (if sequences are padded)."""
        if not self.lengths:
            return None
        return (self.steps - torch.arange(n).remainder(self.steps)).to(self.start)

    def _mask(self, context: Tensor | None) -> Tensor | None:
        """(B, T), False at padded steps; None when there are none."""
        if context is None:
            return None
        return torch.arange(self.steps, device=context.device) < context.unsqueeze(-1)
