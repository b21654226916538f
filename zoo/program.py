"""The contract: a `Program` is a Pyro generative program with its guide.

Subclass `Program`, write `model` (and `guide`, if there are latents) as plain Pyro, and every method, query, benchmark
and command works on it. What else a program can promise, an exact density say, it promises by *having* the method:
see the protocols at the end. They are true or absent; methods ask for them with `isinstance`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import pyro
import pyro.distributions as dist
import torch
from huggingface_hub import PyTorchModelHubMixin
from pyro import poutine
from pyro.nn import PyroModule
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import constraints

from zoo.acceptance import Acceptance
from zoo.arrays import count_gaps
from zoo.datasets.data import Data
from zoo.errors import ImplicitDensityError, UnknownNameError
from zoo.flat import FlatPriors, drawing
from zoo.options import Count, check_call, check_value
from zoo.parameters import KEPT, keeps_statements, make_stated, state_parameters
from zoo.process import one_at_a_time
from zoo.weights import weighs_rows

__all__ = [
    "ClosedFormEM", "CoordinateAscent", "Encodes", "ExactDensity", "ExactEvidence", "ExactPosterior", "Grows",
    "Implicit", "ImplicitProgram", "KeepsAverages", "MakesContexts", "Preset", "Program", "Site",
]  # fmt: skip

# Parameters live in the module, never in Pyro's global store, so that two programs, or two guides of one program, can
# be fitted in one process (pyro#3209). PyroModule reads this setting; there is no per-module form of it.
pyro.settings.set(module_local_params=True)


@dataclass(frozen=True)
class Site:
    """One latent sample site: a global one lies outside the plate of examples, which `event_shape` excludes.

    Other plates, which adopted programs may have, are its first dimensions: `plates` of them.
    """

    name: str
    event_shape: torch.Size
    is_global: bool
    is_discrete: bool
    support: Any
    distribution: str
    plates: int = 0
    is_finite: bool = False
    """Whether its values can be listed."""
    is_independent: bool = False
    """Whether its numbers are independent of each other."""

    @property
    def is_enumerable(self) -> bool:
        """Whether Pyro can sum it out: single discrete numbers, finitely many."""
        return self.is_discrete and self.is_finite and len(self.event_shape) == self.plates


def site_of(site: Any, examples: str | None) -> Site:
    """What is known of a sample site of a trace.

    Args:
        site: A node of the trace.
        examples: The plate that holds the examples.
    """
    fn, base = site["fn"], site["fn"]
    while isinstance(base, torch.distributions.Independent) or hasattr(base, "_base"):
        base = base.base_dist if hasattr(base, "base_dist") else base._base
    frames = [frame for frame in site["cond_indep_stack"] if frame.vectorized]
    depth = max((-frame.dim for frame in frames), default=0)
    is_global = all(frame.name != examples for frame in site["cond_indep_stack"])
    value = site["value"]
    batch = value.shape[: value.ndim - len(fn.event_shape)]
    plates = batch[len(batch) - depth :] if is_global else batch[len(batch) - depth : -1]
    return Site(
        site["name"], torch.Size((*plates, *fn.event_shape)), is_global,
        is_discrete=bool(fn.support.is_discrete), support=fn.support, distribution=type(base).__name__,
        plates=len(plates), is_finite=bool(fn.has_enumerate_support), is_independent=not base.event_shape,
    )  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """A named configuration: constructor options, the method that fits it, that method's options, and the data.

    `data` is the name of the data set that the preset is for; None is the program's default.
    """

    program: Mapping[str, Any] = field(default_factory=dict)
    method: str = "svi"
    fit: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None

    def merged(
        self, program: Mapping[str, Any] | None = None, method: str | None = None, fit: Mapping[str, Any] | None = None
    ) -> Preset:
        """The preset under changes, which win: `steps` replaces `epochs`; another method has none of its options."""
        changes = dict(fit or {})
        kept = dict(self.fit) if method in (None, self.method) else {}
        for length, other in (("steps", "epochs"), ("epochs", "steps")):
            if length in changes:
                kept.pop(other, None)
        return Preset({**self.program, **(program or {})}, method or self.method, {**kept, **changes}, data=self.data)


class Program(Acceptance, PyroModule, PyTorchModelHubMixin):
    """A generative program p(latents) p(x | latents) and its guide q(latents | x).

    The rules, all checked by `zoo.testing.check_program`:

    - `model(x, context, size)` and `guide(x, context, size)` take a batch `x` of shape `(B, *event_shape)`. `x=None`
      generates. `context` is what is conditioned on and never generated (covariates, labels, lengths), `(B, ...)`.
      `size` is how many examples the plate stands for: the size of the whole data set in a minibatch, the number to
      generate when `x` is None.
    - The examples lie in the one plate, `self.plate(x, context, size)`; everything else is an event dimension
      (`.to_event`). The observed site is called `"x"` and `model` returns its value.
    - Latent values may carry extra batch dimensions on the left (particles, grids, enumeration): index parameters
      with them and let them broadcast.
    - Constructor arguments are JSON-like and are all that is needed to build the program again.
    - Constants are buffers, so that `.to(device)` moves them.
    - Parameters are `nn.Parameter`s, `PyroParam`s, networks, or `pyro.param` statements in model and guide: these
      become parameters of the program at their first run (`pyro_params.NAME`, unconstrained), never of Pyro's store.
    """

    family: ClassVar[str] = "other"
    """The room of the zoo: chains, mixtures, latent, bayes, implicit, ..."""
    paper: ClassVar[str] = ""
    """The source, authors and year."""
    dataset: ClassVar[str] = "digits"
    """Name of the data set used when none is given."""
    presets: ClassVar[Mapping[str, Preset]] = {"small": Preset()}
    """`small` trains on two CPU cores in a minute or two; `paper` is the paper's size."""
    examples: ClassVar[str | None] = "data"
    """The plate that holds the examples; None where all data are one unit (`zoo.adopt`)."""
    subsampled: str | None = None
    """A plate that draws a subsample of its own at every run, as adopted code may have one."""
    plate_nesting: int = 1
    """How many dimensions on the left of an event belong to plates."""

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        for name in ("model", "guide", "posterior"):
            if name in vars(cls):
                setattr(cls, name, weighs_rows(keeps_statements(vars(cls)[name])))

    def __init__(self) -> None:
        super().__init__()  # without the name that a PyroModule takes: a program that defines none has no options

    def model(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> Tensor:
        """Generates (`x=None`) or conditions on a batch; returns x."""
        raise NotImplementedError(f"{type(self).__name__} must define model(x, context, size)")

    def guide(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> None:
        """The variational family over the same latent sites; empty when there are none."""

    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        """Sets parameters from training data before a fit (k-means centres, pixel means); by default does nothing.

        Draws only from torch's global generator, which the fit has seeded.
        """

    def declare(self, x: Tensor, context: Tensor | None = None) -> None:
        """Makes the `pyro.param` statements of model and guide parameters, by a run of both on the first examples.

        `fit` does so before anything is optimised; without statements nothing changes, the random state included.

        Raises: CapabilityError where a statement has a value for each example.
        """
        state_parameters(self, [self.model, self.guide], x, context)
        self.__dict__["_declared_gaps"] = self.takes_missing and count_gaps(x)[0] > 0

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any) -> None:
        if any(key.startswith(f"{prefix}{KEPT}.") for key in state_dict):
            make_stated(self)  # whose own loading makes the parameters that no statement has made yet
        super()._load_from_state_dict(state_dict, prefix, *args)

    def plate(self, x: Tensor | None = None, context: Tensor | None = None, size: int | None = None) -> pyro.plate:
        """The plate over examples, at dimension -1; scales a minibatch of B by size / B."""
        given = x if x is not None else context
        batch = len(given) if given is not None else (size or 1)
        full = batch if size is None or x is None else size
        # Explicit indices, whose number alone matters: Pyro must not draw rows of its own (pyro#3468).
        return pyro.plate("data", full, subsample=torch.arange(batch), dim=-1)

    @one_at_a_time
    @torch.no_grad()
    def generate(self, n: Count = 1, context: Any = None) -> Tensor:
        """Draws n examples `(n, *event_shape)` from the prior predictive; with a context, one for each of its rows.

        Raises: OptionError for n below 1; CapabilityError for a flat prior; what `check_context` raises.
        """
        check_value("n", n, Count)
        context = self.accept_context(context)
        with drawing(type(self).__name__):
            return self.model(None, context, n if context is None else len(context))

    @one_at_a_time
    @torch.no_grad()
    def sites(self) -> dict[str, Site]:
        """The latent sites in the order in which the model samples them."""
        with torch.random.fork_rng(devices=[]), pyro.validation_enabled(False):
            trace = poutine.trace(FlatPriors()(self.model)).get_trace(None, self.example_context(2), 2)
        return {
            name: site_of(site, self.examples)
            for name, site in trace.nodes.items()
            if site["type"] == "sample" and name != "x" and not site["is_observed"] and not site_is_subsample(site)
        }

    def take(self, data: Any = None, context: Any = None) -> Data:
        """Data of any kind as the program takes them, checked: what every fit and every instrument asks first.

        Args:
            data: What `Data.of` takes.
            context: That of x, where `data` is x alone.

        Raises: what `Data.of` and `accept` raise.
        """
        return Data(*self.accept(*Data.of(data if context is None else (data, context))))

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Checks the constructor's options against its annotations (`zoo.options`), before anything is built."""
        check_call(cls, args, options)
        return super().__new__(cls, *args, **options)

    @property
    def has_guide(self) -> bool:
        """Whether somebody wrote a guide for it."""
        return type(self).guide is not Program.guide

    @classmethod
    def for_data(cls, x: Tensor, context: Tensor | None = None, **options: Any) -> Program:
        """Builds a program of the right size for a data set; by default sets the option `event_shape`, if there is one.

        Args:
            x: Data of shape (N, *event_shape).
            context: What x is conditioned on, or None.
            options: Constructor options that win over what the data say.
        """
        accepted = cls.option_names()
        if "event_shape" in accepted:
            options.setdefault("event_shape", list(x.shape[1:]))
        if "context_shape" in accepted and context is not None:
            options.setdefault("context_shape", list(context.shape[1:]))
        return cls(**options)

    @classmethod
    def option_names(cls) -> list[str]:
        """Names of the constructor's options."""
        return [name for name in cls._hub_mixin_init_parameters if name != "self"]

    def config(self) -> dict[str, Any]:
        """The constructor's options as this program has them; `type(program)(**config)` builds one of its kind."""
        options: Any = self._hub_mixin_config or {}
        return dict(options)

    @classmethod
    def preset(cls, name: str | None) -> Preset:
        """A preset by name; None is none: the constructor's and the method's defaults.

        Raises: UnknownNameError.
        """
        if name is None:
            return Preset()
        if name not in cls.presets:
            raise UnknownNameError(f"preset of {cls.__name__}", name, cls.presets)
        return cls.presets[name]

    def parameter_count(self) -> int:
        """How many free numbers the program has (guide included, if it owns one)."""
        return sum(p.numel() for p in self.parameters())


class ImplicitProgram(Program):
    """A program that can be sampled but has no density: its image is an implicit site (GAN generators).

    Write `model` as any other, but end in `pyro.sample("x", Implicit(value, event_dim))`. Asking for its density raises
    `ImplicitDensityError`, never a silent number.
    """

    family = "implicit"

    def critic(self) -> nn.Module:
        """A fresh critic (B, *event_shape) -> (B,) logits, or (B, patches): what the paper pairs with this generator.

        It belongs to the adversarial method, as the estimator of a density ratio; the program only suggests it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define critic()")

    def distance(self, made: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """How far what was made for a context lies from the example of it, (B,), or their mean ().

        Mean absolute difference, unless a program says otherwise; games that reconstruct add it to their loss.

        Args:
            made, x: (B, *event_shape); gradients flow to what was made.
            context: Of them.
        """
        return (made - x).abs().reshape(len(x), -1).mean(1)


class Implicit(dist.TorchDistribution):
    """A point that a sampler produced, with no density to go with it.

    Args:
        value: The drawn value, of shape batch_shape + event_shape.
        event_dim: How many dimensions on the right are the event.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True

    def __init__(self, value: Tensor, event_dim: int = 0, validate_args: bool | None = False):
        self.value = value
        cut = value.ndim - event_dim
        super().__init__(value.shape[:cut], value.shape[cut:], validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """Anywhere: nothing is known of the density."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """The value itself; differentiable with respect to what produced it."""
        return self.value.expand(torch.Size(sample_shape) + self.value.shape)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> Implicit:
        """The same value over more batch dimensions."""
        return Implicit(self.value.expand(torch.Size(batch_shape) + self.event_shape), len(self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Raises ImplicitDensityError, always."""
        raise ImplicitDensityError(
            "An implicit site has samples but no density. Fit an implicit model by 'gan', an implicit guide by 'avb', "
            "and judge them by samples (MMD, C2ST, Parzen, AIS under an observation noise)."
        )


# Capabilities: what a program can promise beyond the contract. Each is exact, or absent.


@runtime_checkable
class ExactDensity(Protocol):
    """log p(x), all latents summed or integrated out, of each example on its own (no global latents)."""

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, *event_shape) -> (B,), differentiable in the parameters."""
        ...


@runtime_checkable
class ExactEvidence(Protocol):
    """log p(x_1, ..., x_N), global latents integrated out."""

    def log_evidence(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(N, *event_shape) -> ().

        Raises: CapabilityError for data beyond what can be computed (the sum over all assignments of a mixture).
        """
        ...


@runtime_checkable
class ExactPosterior(Protocol):
    """The true p(latents | x) *as a guide*: the ELBO under it is the log evidence, without variance."""

    def posterior(self, x: Tensor, context: Tensor | None = None, size: int | None = None) -> None:
        """Samples the latent sites from their exact posterior."""
        ...


@runtime_checkable
class ClosedFormEM(Protocol):
    """Expectation-maximisation with both steps in closed form; statistics add over minibatches."""

    def e_step(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns (summed log-likelihood (), expected sufficient statistics) at the current parameters."""
        ...

    def m_step(self, statistics: Mapping[str, Tensor]) -> None:
        """Sets the parameters to the maximiser given the statistics."""
        ...


@runtime_checkable
class CoordinateAscent(Protocol):
    """Variational EM: closed-form coordinate updates of the program's own guide (CAVI)."""

    def cavi_step(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """One sweep over the factors of the guide; returns the ELBO (), which never decreases."""
        ...


@runtime_checkable
class Grows(Protocol):
    """A generator that makes small images first and grows during a fit; so does its critic, by a `grow` of its own."""

    def grow(self, share: float) -> None:
        """Grows to where a fit stands after this share of its steps."""
        ...

    def stages(self, n: int = 1) -> Sequence[Tensor]:
        """What n latents give at each size, from the smallest on, (n, channels, height, width) each."""
        ...

    def at_size(self, x: Tensor, *, made: bool) -> Tensor:
        """A batch (B, *event_shape), of data or `made` by the program, at the size reached, (B, ...)."""
        ...


@runtime_checkable
class MakesContexts(Protocol):
    """A program whose contexts are made of the examples themselves, often at random: games and SVI make new ones at
    every step (`zoo.puzzles.Solves`). Its `accept` makes them where data have none."""

    def puzzles(self, x: Tensor, seed: int | None = None) -> Tensor:
        """Examples (B, *event_shape) to contexts (B, ...); with a seed always the same."""
        ...


@runtime_checkable
class KeepsAverages(Protocol):
    """A program that keeps running averages of what it makes of the examples, in buffers: SVI tells it after each step.
    Model and guide are run at other times too, and change nothing."""

    def keep_averages(self, x: Tensor, context: Tensor | None = None) -> Mapping[str, Tensor]:
        """Takes a step's examples (B, *event_shape) in; returns metrics () for the history."""
        ...


@runtime_checkable
class Encodes(Protocol):
    """A program that says what stands for an example; of others it is the mean of latents (`inference.encoding`)."""

    def codes_of(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, *event_shape) -> (B, d), the same at every call; in evaluation mode."""
        ...
