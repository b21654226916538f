"""Stochastic variational inference: maximise a bound on the evidence over the program's and the guide's parameters.

Hoffman et al. 2013; Ranganath et al. 2014; Kingma & Welling 2014.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from inference.guides.named import (
    build_guide,
    guide_parameters,
    guide_sites,
    guide_spec,
    init_function,
    needs_full_batch,
    refuse_disordered,
    refuse_partial,
    refuse_point,
    stated_guide,
)
from inference.method import Outcome, Run
from inference.methods.bounds import OBJECTIVES, Objective, make_objective
from inference.methods.diagnosis import convergence, diagnose, evaluate_objective
from inference.methods.disentangling import Disentangling, refuse_entangled
from inference.methods.settling import Start, begin
from inference.training.convergence import Path
from inference.training.gradient import GradientMethod, Training
from inference.training.loop import Loop, Schedule
from inference.training.optimizers import check_optimizer, descend, make_optimizer
from zoo.adopted import Adopted
from zoo.datasets.data import Data
from zoo.errors import BrokenProgramError, CapabilityError, OptionError, UnknownNameError, ZooError
from zoo.options import Count, Fraction, NonNegative, Positive
from zoo.program import ExactDensity, ImplicitProgram, KeepsAverages, MakesContexts, Program
from zoo.weights import Weighted

__all__ = ["OF_STEPS", "SVI"]

LEARNING_RATE = 0.01
OF_STEPS = ("lr", "decay", "epochs", "optimizer", "particles", "weight_decay", "clip_norm", "kl_anneal", "precision")
"""Options that say how gradient steps are taken: who gives one wants these."""


@contextmanager
def _named(program: Program, first: bool) -> Iterator[None]:
    """What Pyro has against a user's own code, as an error of ours; contract programs have their own tests."""
    try:
        yield
    except (ValueError, NotImplementedError) as error:
        if not first or isinstance(error, ZooError) or not isinstance(program, Adopted):
            raise
        reason = " ".join(str(error).split())
        raise BrokenProgramError(f"Pyro refuses {type(program).__name__} at the first step: {reason}") from error


def _fresh(program: Program, batch: Data) -> Data:
    """The batch with new contexts, where the program makes them of examples; weighted rows keep theirs."""
    if isinstance(program, MakesContexts) and not isinstance(batch.context, Weighted):
        return Data(batch.x, program.puzzles(batch.x))
    return batch


def _check_bound(elbo: str, program: Program, guide: Callable[..., Any], data: Data) -> None:
    """Raises CapabilityError for a bound that the guide, or weights of the data, make no sense of."""
    if elbo == "mean_field":
        refuse_partial(guide, program, data.plain())
        refuse_disordered(guide, program, data.plain())
    if isinstance(data.context, Weighted) and elbo not in ("trace", "mean_field"):
        raise CapabilityError(
            f"Row weights scale the terms of elbo='trace' and 'mean_field', and this is {elbo!r}, which sums or "
            "compares them otherwise; give a guide of all latents, or repeat the rows."
        )
    if elbo in ("iwae", "renyi", "score"):  # 'trace' fits a point: the mode
        refuse_point(guide, program, data.plain(), f"elbo={elbo!r}")


@dataclass(frozen=True, kw_only=True)
class SVI(GradientMethod):
    """SVI with any guide and any bound; see `inference.methods.bounds.OBJECTIVES` and
    `inference.guides.named.AUTOGUIDES`.

    Args:
        guide: 'own' (the program's; 'normal' where it has none), an autoguide's name, or a guide with the signature of
            `Program.guide`.
        elbo: 'auto', or one of 'trace', 'mean_field', 'enum', 'iwae', 'renyi', 'score', 'exact'. 'auto' takes 'trace',
            'enum' when the guide leaves enumerable latents out or marks its own by `infer={"enumerate": ...}`, 'exact'
            when it leaves others out that the program can sum out itself.
        particles: Monte Carlo samples a step (the K of IWAE).
        alpha: Order of the Renyi bound.
        optimizer: Name in torch.optim, or a factory (params, lr=...).
        weight_decay: Of weights, not of biases; None is the optimizer's own.
        clip_norm: Clips the gradient's norm; None does not.
        kl_anneal: Fraction of the run over which the weight of the KL grows from 0 to its end.
        beta: That end, the weight of the KL in what is climbed (Higgins et al. 2017). 1 is the bound on the evidence.
        tc: Weight of the total correlation of codes, one of the parts of the KL (Chen et al. 2018); see
            `inference.methods.disentangling`. Where `beta` or `tc` is not 1, the history has what is climbed as
            'penalised_loss', and 'loss' and 'validation_loss' stay minus the bound, which costs another pass a step.
        train_program: False fits the guide alone and leaves the model's parameters as they are.
        validate_every: Steps between two looks at the validation data; None is a twentieth of the run.
        patience: Looks without an improvement after which the run stops, with the best state; None never stops early.
            Looks count once `kl_anneal` is over.
        init_loc_fn: Where an autoguide starts: one of Pyro's init functions, or its name without init_to_. None looks
            from several places, draws of the prior, for the best mode.
        lr: Learning rate at the start; None is 0.01, where gradient steps are taken at all.
        steps: Of either kind; None is 2,000 at most.
        decay, epochs, batch_size, checkpoint_seconds, compile, precision: See `GradientMethod`.

    A Gaussian autoguide over global latents is settled (`inference.methods.settling`): without gradient steps, and so
    without lr, unless an option of theirs is given (OF_STEPS). Any other autoguide over global latents starts at the
    best mode, and `lr` is in units of the posterior's spread there. Where that cannot be, `Fit.info['start']` says why.
    """

    name: ClassVar[str] = "svi"
    takes_weights: ClassVar[bool] = True

    guide: str | Callable[..., Any] = "own"
    elbo: str = "auto"
    particles: Count = 1
    alpha: float = 0.0
    optimizer: str | Callable[..., torch.optim.Optimizer] = "adam"
    weight_decay: NonNegative | None = None
    clip_norm: Positive | None = None
    kl_anneal: Fraction = 0.0
    beta: Positive = 1.0
    tc: NonNegative = 1.0
    train_program: bool = True
    init_loc_fn: str | Callable[..., Any] | None = None
    lr: Positive | None = None  # type: ignore[assignment]
    validate_every: Count | None = None
    patience: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.elbo not in ("auto", *OBJECTIVES):
            raise UnknownNameError("ELBO", self.elbo, ("auto", *OBJECTIVES))
        if self.elbo != "auto":
            make_objective(self.elbo, self.particles, self.alpha)  # which refuses what makes no sense
        check_optimizer(self.optimizer)
        if isinstance(self.guide, str):
            guide_spec(self.guide)  # knows the names
        if self._weighed and self.patience is not None:
            raise OptionError(
                "patience stops where the bound is best on validation data, and beta or tc climb something else; leave "
                "patience out, or beta and tc at 1."
            )
        if self.init_loc_fn is not None:
            init_function(self.init_loc_fn)
            if callable(self.guide):
                raise OptionError(
                    f"init_loc_fn says where an autoguide starts, and guide={self.guide!r} is none; leave it out."
                )

    @property
    def _weighed(self) -> bool:
        """Whether what is climbed is not the bound."""
        return self.beta != 1 or self.tc != 1

    def for_restarts(self) -> SVI:
        """Autoguides start at a draw of the prior, each restart at another, unless an option says where."""
        return self if self.init_loc_fn is not None or callable(self.guide) else replace(self, init_loc_fn="sample")

    def why_not(self, program: Program) -> str | None:
        """Implicit programs have no density to bound."""
        if isinstance(program, ImplicitProgram):
            return "it is implicit: it has no density, so no evidence bound"
        return None

    def why_not_shared(self, program: Program) -> str | None:
        """Not where a step looks at its minibatch as a whole."""
        if isinstance(program, KeepsAverages):
            return "its running averages are of whole minibatches; fit in one process"
        if self.tc != 1:
            return f"tc={self.tc} compares the examples of a whole minibatch; leave it at 1, or fit in one process"
        return None

    def prepare(self, program: Program, run: Run) -> Training:
        """Builds guide, objective and optimizer, ready to take steps."""
        seen = run.train.plain()
        guide, spec = self._guide(program, run)
        elbo = self._choose_elbo(program, guide, seen)
        _check_bound(elbo, program, guide, run.train)
        objective = make_objective(elbo, self.particles, self.alpha)
        parameters, size = self._parameters(program, guide, seen), run.train.size
        objective.prepare(program, guide, seen)
        climbed = self._climbed(elbo, objective, program, guide, run.train)
        averages = program if isinstance(program, KeepsAverages) else None
        start = self._start(program, guide, spec, run, elbo)
        optimizer = make_optimizer(self.optimizer, parameters, self._lr, self.weight_decay) if parameters else None

        def step(batch: Data, now: Mapping[str, Any]) -> Mapping[str, Tensor]:
            assert optimizer is not None
            with _named(program, first=loop.done == 0):
                batch = _fresh(program, batch)
                loss, bound = climbed(program, guide, batch, size, now.get("beta", 1.0))
            start.step(partial(descend, optimizer, loss, now["lr"], clip_norm=self.clip_norm))
            metrics = {"loss": -bound}
            if climbed is not objective:
                with torch.no_grad():
                    metrics = {"loss": -objective(program, guide, batch, size)[1], "penalised_loss": -bound}
            return metrics if averages is None else {**metrics, **averages.keep_averages(*batch)}

        scalars = {"lr": self.rate(run, self._lr)}
        if self.kl_anneal:
            scalars["beta"] = self.growing(run, self.kl_anneal)
        parts = {"program": program, "guide": guide, "optimizer": optimizer, "stretch": start.stretch}
        loop = Loop(
            run, Schedule.of(self), {name: part for name, part in parts.items() if hasattr(part, "state_dict")},
            label=f"svi {type(program).__name__}", step=step, scalars=scalars,
            diagnose=lambda batch: diagnose(program, guide, batch.plain()),
        )  # fmt: skip
        # While the weight of the KL grows, a bound that falls says nothing of the end.
        loop.settled = round(self.kl_anneal * loop.total)
        if not parameters:
            loop.total = 0  # the exact posterior of a program without parameters: all is known
        start.shorten(loop)
        loop.path = Path(parameters, loop.total)

        def validate() -> float:
            assert run.valid is not None
            return evaluate_objective(objective, program, guide, run.valid, self.batch_size, run.seed)

        def finish() -> Outcome:
            program.eval()
            info: dict[str, Any] = {} if loop.compiled is None else {"compile_seconds": loop.compiled.seconds}
            info |= start.info
            info["convergence"] = start.ending(program, size) or convergence(loop, climbed, program, guide)
            evaluations = start.evaluations + loop.done * (1 if elbo == "exact" else self.particles)
            return Outcome(guide, spec, history=loop.history, gradient_evaluations=evaluations, info=info)

        program.train()
        local = not any(site.is_global for site in program.sites().values())
        return Training(loop, finish, validate if run.valid is not None and local else None)

    def _climbed(
        self, elbo: str, objective: Objective, program: Program, guide: Callable[..., Any], data: Data
    ) -> Objective:
        """What steps climb: the bound, or its parts with weights of their own.

        Raises: OptionError for a bound without such parts; what `refuse_entangled` raises.
        """
        if not self._weighed:
            return objective
        if elbo not in ("trace", "mean_field"):
            raise OptionError(
                f"beta and tc weigh the KL of elbo='trace' and 'mean_field', and this is {elbo!r}; take one of these."
            )
        if self.tc != 1:
            refuse_entangled(guide, program, data, self.batch_size)
        return Disentangling(objective, self.beta, self.tc)

    @property
    def _lr(self) -> float:
        """Of gradient steps."""
        return LEARNING_RATE if self.lr is None else self.lr

    def _guide(self, program: Program, run: Run) -> tuple[Callable[..., Any], dict[str, Any]]:
        """The guide, and how to build it again.

        Raises: CapabilityError for an autoguide over local latents that would see minibatches.
        """
        data = run.train.plain()
        spec = guide_spec(self.guide) if isinstance(self.guide, str) else {"kind": "custom"}
        if spec["kind"] == "own" and not program.has_guide and any(not s.is_discrete for s in program.sites().values()):
            spec = guide_spec("normal")
        named = isinstance(self.guide, str)
        init = None if self.init_loc_fn is None else init_function(self.init_loc_fn)
        guide = build_guide(spec, program, data, init) if named else stated_guide(self.guide, data)  # type: ignore[arg-type]
        if needs_full_batch(guide, program) and not run.team.alone:
            raise CapabilityError(
                f"An autoguide holds one factor for each example of {type(program).__name__}'s local latents, so "
                "processes cannot share their rows: fit in one (without torchrun), or take an amortised guide "
                "(guide='own')."
            )
        if needs_full_batch(guide, program) and data.size > self.batch_size:
            raise CapabilityError(
                f"An autoguide holds one factor for each example of {type(program).__name__}'s local latents, so it "
                f"cannot see minibatches: use batch_size >= {data.size}, or an amortised guide (guide='own')."
            )
        return guide, spec

    def _start(self, program: Program, guide: Any, spec: dict[str, Any], run: Run, elbo: str) -> Start:
        """Puts an autoguide where the posterior is, if it is of global latents; all else starts as it is."""
        if spec["kind"] != "auto":
            return Start()
        if elbo not in ("trace", "mean_field", "enum") or self._weighed:
            return Start({"start": "as Pyro has it: this objective is not that of a density's best fit"})
        init = None if self.init_loc_fn is None else init_function(self.init_loc_fn)
        asked = self.compile in ("always", "traced")
        given = asked or any(getattr(self, name) != getattr(type(self), name) for name in OF_STEPS)
        if not given and not run.team.alone:
            raise CapabilityError(
                "An autoguide over global latents is settled on all the data, where more processes do not help: fit in "
                "one process (without torchrun), or ask for gradient steps (lr=0.01)."
            )
        most = None if given else Schedule.of(self).total_steps(run.train.size)
        return begin(spec["name"], guide, program, run, trained=self.train_program, init=init, most=most)

    def _parameters(self, program: Program, guide: Callable[..., Any], data: Data) -> list[nn.Parameter]:
        """What to optimise, each parameter once; nothing only under the exact posterior.

        Raises: CapabilityError where there is nothing.
        """
        found = guide_parameters(guide, program, data)
        if self.train_program:
            found = [*program.parameters(), *found]
        parameters = [p for p in dict.fromkeys(found) if p.requires_grad]
        if not parameters and self.guide != "posterior":
            raise CapabilityError(
                f"svi {type(program).__name__}: neither the program nor its guide has a parameter to learn, so the "
                "answer would be the guide as it is. Give the guide parameters (nn.Parameter, PyroParam or "
                "pyro.param), use an autoguide (guide='normal'), or draw by 'exact' or 'nuts'."
            )
        return parameters

    def _choose_elbo(self, program: Program, guide: Callable[..., Any], data: Data) -> str:
        if self.elbo != "auto":
            return self.elbo
        sites = program.sites()
        guided = guide_sites(guide, data) if sites else {}
        missing = set(sites) - set(guided)
        if not missing and not any(site["infer"].get("enumerate") for site in guided.values()):
            return "trace"
        if all(sites[m].is_discrete and len(sites[m].event_shape) == sites[m].plates for m in missing):
            return "enum"
        if isinstance(program, ExactDensity):
            return "exact"
        raise CapabilityError(
            f"The guide of {type(program).__name__} does not sample the latent sites {sorted(missing)}, and they "
            f"cannot be summed out. Add them to the guide, or use an autoguide (guide='normal')."
        )
