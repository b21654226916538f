"""The hidden Markov model against brute force over all paths, Pyro's enumeration, hmmlearn and finite differences."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from hmmlearn.hmm import CategoricalHMM, GaussianHMM
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from inference.fit import fit
from inference.particles import guide_log_prob, log_joint, log_weights
from tests.conftest import FAILURE_RATE
from tests.zoo.test_chains import chi_square
from zoo import catalogue, datasets
from zoo.chains import hmm as hmm_module
from zoo.chains import messages
from zoo.chains.forward_backward import _log_counts, _scaled_counts, _sweep, forward_backward, log_evidence
from zoo.chains.hmm import HMM
from zoo.errors import CapabilityError, OptionError, ShapeError, SupportError
from zoo.program import ClosedFormEM, ExactDensity, ExactPosterior

CASES = [
    {"event_shape": [5], "states": 3, "emission": "bernoulli"},
    {"event_shape": [5, 2], "states": 3, "emission": "bernoulli"},
    {"event_shape": [4, 2], "states": 3, "emission": "categorical", "values": 4},
    {"event_shape": [5, 2], "states": 3, "emission": "normal"},
    {"event_shape": [4], "states": 6, "emission": "normal"},  # more states than the scan takes
    {"event_shape": [1], "states": 2, "emission": "bernoulli"},
    {"event_shape": [2], "states": 2, "emission": "normal"},
]
PADDED = [{**case, "lengths": True} for case in CASES]


def name(case: dict) -> str:
    return "-".join(str(v) for v in case.values())


def hmm(**options) -> HMM:
    program = HMM(**options)
    with torch.no_grad():
        for p in program.parameters():
            p.copy_(torch.randn_like(p))
    return program


def data(program: HMM, n: int = 6) -> tuple[Tensor, Tensor | None]:
    context = program.example_context(n)
    return program.generate(n, context), context


def brute_force(program: HMM, x: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """All paths of the first `length` steps (K^L, L) and log p(x_1 ... x_L, path) of one example, one factor a time."""
    initial, matrix = program.initial_logits.log_softmax(-1), program.transition_logits.log_softmax(-1)
    rows, emission = x.reshape(program.steps, program.dim), program.emission
    factors = torch.zeros(length, program.states)
    for t, k in itertools.product(range(length), range(program.states)):
        for d in range(program.dim):
            if program.support is torch.distributions.constraints.boolean:
                p = emission.logits[k, d].sigmoid()
                factors[t, k] += torch.log(p if rows[t, d] == 1 else 1 - p)
            elif program.support is torch.distributions.constraints.real:
                scale = emission.scale[k, d]
                residual = (rows[t, d] - emission.loc[k, d]) / scale
                factors[t, k] += -(residual**2) / 2 - torch.log(scale) - np.log(2 * np.pi) / 2
            else:
                factors[t, k] += torch.log(emission.logits[k, d].softmax(-1)[int(rows[t, d])])
    start, chain, factors = initial.tolist(), matrix.tolist(), factors.tolist()
    paths = list(itertools.product(range(program.states), repeat=length))
    found = []
    for path in paths:
        total = start[path[0]] + sum(chain[i][j] for i, j in itertools.pairwise(path))
        found.append(total + sum(factors[t][k] for t, k in enumerate(path)))
    return torch.tensor(paths), torch.tensor(found)


def lengths_of(program: HMM, context: Tensor | None, n: int) -> list[int]:
    return [program.steps] * n if context is None else [int(length) for length in context]


@pytest.mark.parametrize("case", CASES + PADDED, ids=name)
def test_everything_exact_equals_brute_force_over_all_paths(case):
    program = hmm(**case)
    assert isinstance(program, ExactDensity)
    assert isinstance(program, ExactPosterior)
    assert isinstance(program, ClosedFormEM)
    x, context = data(program, 4)
    with torch.no_grad():
        log_prob, marginals = program.log_prob(x, context), program.marginals(x, context)
        best, log_best = program.viterbi(x, context)
        _, statistics = program.e_step(x, context)
        transitions = torch.zeros(program.states, program.states)
        for b, length in enumerate(lengths_of(program, context, 4)):
            paths, joint = brute_force(program, x[b], length)
            torch.testing.assert_close(log_prob[b], joint.logsumexp(0))
            posterior = joint.softmax(0)
            expected = torch.stack([(posterior[:, None] * (paths == k)).sum(0) for k in range(program.states)], -1)
            torch.testing.assert_close(marginals[b, :length], expected)
            assert marginals[b, length:].abs().sum() == 0
            # Several paths may be equally probable; any of them will do.
            torch.testing.assert_close(joint[(paths == best[b, :length]).all(1)], joint.max()[None])
            assert best[b, length:].sum() == 0
            torch.testing.assert_close(log_best[b], joint.max())
            for t in range(length - 1):
                transitions.index_put_((paths[:, t], paths[:, t + 1]), posterior, accumulate=True)
    torch.testing.assert_close(statistics["transition"], transitions)
    torch.testing.assert_close(statistics["initial"], marginals[:, 0].sum(0))


@pytest.mark.parametrize("case", CASES + PADDED, ids=name)
def test_posterior_guide_gives_the_evidence_at_every_draw(case):
    program = hmm(**case)
    x, context = data(program)
    draws, weights = log_weights(program, program.posterior, 5, x, context)
    assert not weights.joint
    for b, length in enumerate(lengths_of(program, context, 6)):
        assert draws.values["z"][:, b, length:].abs().sum() == 0
    torch.testing.assert_close(weights.local, program.log_prob(x, context).expand(5, -1))


@pytest.mark.parametrize("case", CASES[:4] + PADDED[:4], ids=name)
def test_mean_field_guide_is_a_distribution_over_paths_with_a_gap(case):
    program = hmm(**case)
    x, context = data(program, 4)
    paths = torch.tensor(list(itertools.product(range(program.states), repeat=program.steps)))
    values = {"z": paths[:, None].expand(-1, 4, -1)}
    with torch.no_grad():
        log_q = guide_log_prob(program.guide, values, x, context).local
        log_p = log_joint(program, values, x, context).local
        q = log_q.exp()
        torch.testing.assert_close(q.sum(0), torch.ones(4))
        torch.testing.assert_close(log_p.logsumexp(0), program.log_prob(x, context))
        gap = torch.where(q > 0, q * (log_q - log_p), 0.0).sum(0) + program.log_prob(x, context)
    assert bool((gap > 0).all())  # KL(q || posterior), by summing over all paths


@pytest.mark.parametrize("padded", [False, True])
def test_density_sums_to_one(padded):
    program = hmm(event_shape=[3, 2], states=3, lengths=padded)
    x = torch.tensor(list(itertools.product((0.0, 1.0), repeat=6))).double().reshape(-1, 3, 2)
    if padded:  # padded steps contribute nothing, so they are counted once: all zero
        x = x[(x[:, 2:] == 0).flatten(1).all(1)]
    context = torch.full((len(x),), 2.0) if padded else None
    assert program.log_prob(x, context).exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    categorical = hmm(event_shape=[3], states=2, emission="categorical", values=4)
    x = torch.tensor(list(itertools.product(range(4), repeat=3))).double()
    assert categorical.log_prob(x).exp().sum().item() == pytest.approx(1.0, abs=1e-12)


def test_samples_agree_with_the_density():
    program = hmm(event_shape=[3, 2], states=3)
    states = torch.tensor(list(itertools.product((0.0, 1.0), repeat=6))).double()
    x = program.generate(20_000)
    counts = torch.bincount((x.flatten(1) @ 2.0 ** torch.arange(5, -1, -1.0)).long(), minlength=64)
    probs = program.log_prob(states.reshape(-1, 3, 2)).exp()
    assert chi_square(probs, counts) > FAILURE_RATE


def test_generated_padding_is_zero_and_ignored():
    program = hmm(event_shape=[5, 2], states=3, emission="normal", lengths=True)
    context = torch.tensor([5.0, 3.0, 1.0])
    x = program.generate(3, context)
    assert (x != 0).flatten(2).any(-1).tolist() == [[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4]
    changed = torch.where(x == 0, torch.tensor(7.0), x)
    torch.testing.assert_close(program.log_prob(changed, context), program.log_prob(x, context))
    short = hmm(event_shape=[3, 2], states=3, emission="normal")
    short.load_state_dict(program.state_dict())
    torch.testing.assert_close(short.log_prob(x[1:2, :3]), program.log_prob(x[1:2], context[1:2]))


def log_space(initial: Tensor, transition: Tensor, values: Tensor) -> Tensor:
    """The evidence by the plain recursion in log space, differentiated by autograd."""
    return messages.forward(initial, transition, values)[:, -1].logsumexp(-1)


@pytest.mark.parametrize("states", [1, 3, 9])
def test_scaled_and_log_space_recursions_agree_and_so_do_their_gradients(states):
    for steps in (1, 2, 3, 8, 13):
        initial = messages.log_normalise(torch.randn(states))
        matrix = messages.log_normalise(torch.randn(states, states))
        inputs = [t.detach().requires_grad_() for t in (initial, matrix, 3 * torch.randn(4, steps, states))]
        values = [compute(*inputs) for compute in (log_evidence, log_space)]
        torch.testing.assert_close(*values)
        with torch.no_grad():
            torch.testing.assert_close(log_evidence(*inputs), values[1])  # one direction alone
        weight = torch.randn(4)
        grads = [
            torch.autograd.grad((weight * v).sum(), inputs, allow_unused=True, materialize_grads=True) for v in values
        ]
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("states", [3, 6])
def test_gradient_equals_finite_differences(states):
    emission = torch.randn(2, 5, states)
    inputs = [torch.randn(states), torch.randn(states, states), emission]

    def evidence(initial: Tensor, matrix: Tensor, emission: Tensor) -> Tensor:
        return log_evidence(messages.log_normalise(initial), messages.log_normalise(matrix), emission)

    assert torch.autograd.gradcheck(evidence, [t.requires_grad_() for t in inputs])


@pytest.mark.parametrize("case", CASES[:4], ids=name)
def test_program_gradient_equals_finite_differences(case):
    program = hmm(**case)
    x, _ = data(program, 3)
    names, values = zip(*((n, p) for n, p in program.named_parameters() if not n.startswith("encoder")), strict=True)

    def evidence(*parameters: Tensor) -> Tensor:
        given = {f"program.{n}": p for n, p in zip(names, parameters, strict=True)}
        return functional_call(Evidence(program), given, (x,))

    assert torch.autograd.gradcheck(evidence, values)


class Evidence(nn.Module):
    """`log_prob` as a forward pass, for functional_call."""

    def __init__(self, program: HMM):
        super().__init__()
        self.program = program

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.program.log_prob(x, context)


def test_equals_pyro_enumeration_of_a_markov_program():
    """The same model as a loop of sites in `pyro.markov`, summed out by TraceEnum_ELBO."""
    program = hmm(event_shape=[7, 2], states=3)
    x, _ = data(program, 5)
    initial, matrix = program.initial_logits.detach().clone(), program.transition_logits.detach().clone()
    logits = program.emission.logits.detach().clone()
    tensors = [t.requires_grad_() for t in (initial, matrix, logits)]

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = None
            for t in pyro.markov(range(7)):
                prior = initial if z is None else matrix[z]
                z = pyro.sample(f"z{t}", dist.Categorical(logits=prior), infer={"enumerate": "parallel"})
                pyro.sample(f"x{t}", dist.Bernoulli(logits=logits[z]).to_event(1), obs=x[:, t])

    loss = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(model, lambda x: None, x)
    total = program.log_prob(x).sum()
    torch.testing.assert_close(-loss, total)
    expected = torch.autograd.grad(-loss, tensors)
    got = torch.autograd.grad(total, [program.initial_logits, program.transition_logits, program.emission.logits])
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("case", [CASES[1], PADDED[3]], ids=name)
def test_enumerating_the_path_site_gives_the_same_evidence(case):
    """TraceEnum_ELBO on the program itself, the whole path as one enumerated site."""
    program = hmm(**case)
    x, context = data(program, 3)
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    loss = elbo.differentiable_loss(program.model, lambda *args: None, x, context, None)
    torch.testing.assert_close(-loss, program.log_prob(x, context).sum())
    with pytest.raises(CapabilityError, match=r"8\^40 paths"):
        elbo.differentiable_loss(HMM([40, 2]).model, lambda *args: None, torch.zeros(2, 40, 2), None, None)


def left_to_right(states: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities of a chain that starts in state 0 and each step stays or moves on by one, with even odds."""
    start, chain = torch.full((states,), -torch.inf), torch.full((states, states), -torch.inf)
    start[0] = 0.0
    for i in range(states - 1):
        chain[i, i] = chain[i, i + 1] = np.log(0.5)
    chain[-1, -1] = 0.0
    return start, chain


@pytest.mark.parametrize("states", [3, 6])
def test_impossible_paths_are_exact_in_float32(states):
    """Emissions favour, by hundreds of nats, states that the chain must not enter: shifted exponentials underflow."""
    start, chain = left_to_right(states)
    emission = 300 * torch.randn(4, 9, states)
    expected = []
    for moves in itertools.product((0, 1), repeat=8):
        path = [min(sum(moves[:t]), states - 1) for t in range(9)]
        # Several `moves` are one path once the end is reached; each then carries its share of the probability.
        expected.append(8 * np.log(0.5) + emission[:, range(9), path].sum(-1))
    truth = torch.stack(expected).logsumexp(0)
    float32 = [messages.log_normalise(t.float()) for t in (start, chain)]
    torch.testing.assert_close(log_evidence(*float32, emission.float()).double(), truth, rtol=1e-5, atol=1e-3)


def conflict(batch: int, steps: int, states: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """A left-to-right chain, and emissions that by 120 nats a step favour a state chosen at random."""
    start, chain = (messages.log_normalise(t) for t in left_to_right(states))
    emission = 120 * nn.functional.one_hot(torch.randint(states, (batch, steps)), states) + torch.randn(states)
    return start.to(dtype), chain.to(dtype), emission.to(dtype)


def trusted(*inputs: Tensor) -> Tensor:
    """The sequences that need no log space."""
    return _scaled_counts(*(t.unsqueeze(0) for t in inputs), None)[-1].squeeze(0)


class TestScaledRecursionInFloat32:
    """Against log space in float64 on the same numbers; errors are those of float32 (eps 1.2e-7)."""

    def check(self, inputs: tuple[Tensor, ...], tolerance: float) -> None:
        expected = _log_counts(*(t.double() for t in inputs), None)
        found = forward_backward(*inputs)
        torch.testing.assert_close(found[0].double(), expected[0], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(found[1].double(), expected[1], rtol=0, atol=tolerance)
        steps = inputs[-1].shape[1]
        torch.testing.assert_close(found[2].double() / steps, expected[2] / steps, rtol=0, atol=tolerance)
        torch.testing.assert_close(log_evidence(*inputs).double(), expected[0], rtol=tolerance, atol=tolerance)

    @pytest.mark.parametrize("steps", [50, 2_000])
    def test_emissions_in_conflict_with_forbidden_transitions(self, steps):
        inputs = conflict(3, steps, 6, torch.float32)
        assert not trusted(*inputs).any()
        self.check(inputs, 1e-6)

    def test_long_sequences_without_conflict(self):
        start, chain = (messages.log_normalise(t.float()) for t in (torch.randn(5), torch.randn(5, 5)))
        inputs = start, chain, 5 * torch.randn(2, 3_000, 5).float() - 40
        assert trusted(*inputs).all()
        self.check(inputs, 3e-6)

    @pytest.mark.parametrize("scale", [1.0, 10.0, 30.0, 100.0, 500.0])
    @pytest.mark.parametrize("forbidden", [False, True])
    def test_the_bound_catches_what_is_lost(self, scale, forbidden):
        """Trusted or not, the answer is right; where it is not trusted, log space gives it."""
        for states in (2, 4, 8):
            start, chain = scale**0.5 * torch.randn(states), scale**0.5 * torch.randn(states, states)
            if forbidden:
                chain[(torch.rand(states, states) < 0.5) & ~torch.eye(states, dtype=torch.bool)] = -torch.inf
            values = (scale * torch.randn(40, 30, states)).float()
            self.check((*(messages.log_normalise(t.float()) for t in (start, chain)), values), 3e-6)

    def test_the_recursion_without_the_bound_would_be_wrong(self):
        inputs = conflict(3, 50, 6, torch.float32)
        alone = _scaled_counts(*(t.unsqueeze(0) for t in inputs), None)[0].squeeze(0)
        assert not ((alone - log_space(*(t.double() for t in inputs))).abs() < 1).any()

    def test_a_sequence_in_trouble_leaves_the_others_alone(self):
        start, chain, bad = conflict(1, 20, 4, torch.float32)
        good = torch.randn(5, 20, 4).float()
        mixed = torch.cat([good[:2], bad, good[2:]])
        assert trusted(start, chain, mixed).tolist() == [True, True, False, True, True, True]
        self.check((start, chain, mixed), 1e-6)

    def test_impossible_emissions(self):
        start, chain = (messages.log_normalise(t.float()) for t in (torch.randn(4), torch.randn(4, 4)))
        emission = torch.where(torch.rand(6, 30, 4) < 0.4, -torch.inf, torch.randn(6, 30, 4)).float()
        emission[..., 0] = 0.0  # some state is always possible
        assert trusted(start, chain, emission).all()
        self.check((start, chain, emission), 1e-6)
        emission[0, 7] = -torch.inf
        assert log_evidence(start, chain, emission)[0].item() == -torch.inf
        self.check((start, chain, emission[1:]), 1e-6)


class TestTransforms:
    def inputs(self, steps: int = 30) -> list[Tensor]:
        logs = messages.log_normalise(torch.randn(6)), messages.log_normalise(torch.randn(6, 6))
        return [t.detach() for t in (*logs, torch.randn(4, steps, 6))]

    @pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
    def test_make_fx_traces_value_and_gradient_into_a_small_graph(self, mode):
        def step(*inputs: Tensor) -> tuple[Tensor, ...]:
            inputs = tuple(t.detach().requires_grad_() for t in inputs)
            value = log_evidence(*inputs).sum()
            return value, *torch.autograd.grad(value, inputs)

        sizes = []
        for steps in (30, 60):
            graph = make_fx(step, tracing_mode=mode)(*self.inputs(steps))
            sizes.append(len(graph.graph.nodes))
            fresh = self.inputs(steps)
            torch.testing.assert_close(graph(*fresh), step(*fresh), rtol=0, atol=0)
        assert sizes[0] == sizes[1] < 50

    def test_make_fx_traces_the_program(self):
        program = hmm(event_shape=[7, 2], states=3, lengths=True)
        x, context = data(program)
        names, values = zip(*((n, p) for n, p in program.named_parameters() if "encoder" not in n), strict=True)

        def step(*given: Tensor) -> tuple[Tensor, ...]:
            parameters = tuple(p.detach().requires_grad_() for p in given)
            named = {f"program.{n}": p for n, p in zip(names, parameters, strict=True)}
            value = functional_call(Evidence(program), named, (x, context)).sum()
            return value, *torch.autograd.grad(value, parameters)

        graph = make_fx(step)(*values)
        other = [torch.randn_like(p) for p in values]
        torch.testing.assert_close(graph(*other), step(*other), rtol=0, atol=0)

    def test_operators_keep_the_rules_of_torch(self):
        inputs = [t.unsqueeze(0) for t in self.inputs()]
        torch.library.opcheck(torch.ops.zoo.hmm_evidence.default, tuple(inputs))
        torch.library.opcheck(torch.ops.zoo.hmm_counts.default, (*inputs, None))
        torch.library.opcheck(torch.ops.zoo.hmm_counts.default, (*inputs, torch.rand(1, 4, 30) < 0.5))

    @pytest.mark.parametrize("dims", [(0, 0, 0), (0, None, None), (None, None, 1), (1, 2, 0)])
    def test_vmap_of_value_and_gradient_equals_one_model_at_a_time(self, dims):
        inputs = self.inputs()
        models = [lambda t, k=k: (1 - k / 4) * t - k for k in range(9)]
        many = [t if d is None else torch.stack([f(t) for f in models], d) for t, d in zip(inputs, dims, strict=True)]

        def value(*inputs: Tensor) -> Tensor:
            return log_evidence(*inputs).square().sum()

        gradient = grad(value, argnums=(0, 1, 2))
        found = vmap(value, dims)(*many), *vmap(gradient, dims)(*many)
        for r in range(len(models)):
            one = [t if d is None else t.select(d, r) for t, d in zip(many, dims, strict=True)]
            torch.testing.assert_close([t[r] for t in found], [value(*one), *gradient(*one)])

    def test_slopes_of_what_vmap_found_are_those_of_one_model_at_a_time(self):
        inputs = [torch.stack([t, t - 1, t / 2]).requires_grad_() for t in self.inputs()]
        found = vmap(log_evidence)(*inputs).sum()
        expected = torch.stack([log_evidence(*(t[r] for t in inputs)).sum() for r in range(3)]).sum()
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs))

    def test_second_derivatives_are_refused(self):
        inputs = [t.requires_grad_() for t in self.inputs()]
        first = torch.autograd.grad(log_evidence(*inputs).sum(), inputs, create_graph=True)
        with pytest.raises(CapabilityError, match="differentiated twice"):
            torch.autograd.grad(first[1].square().sum(), inputs)


@pytest.mark.parametrize("case", [PADDED[3], CASES[4]], ids=name)
def test_rows_at_a_time_change_nothing(case, monkeypatch):
    program = hmm(**case)
    x, context = data(program, 7)
    whole, (value, statistics) = program.marginals(x, context), program.e_step(x, context)
    monkeypatch.setattr(hmm_module, "CHUNK", 3 * program.steps * program.states)
    torch.testing.assert_close(program.marginals(x, context), whole)
    torch.testing.assert_close(program.e_step(x, context), (value, statistics))


@pytest.mark.parametrize("states", [3, 6])
def test_impossible_starts_and_transitions_make_no_nan(states):
    start, chain = left_to_right(states)
    program = HMM([9], states=states, emission="normal", smoothing=0.0).float()
    with torch.no_grad():
        program.initial_logits.copy_(start)
        program.transition_logits.copy_(chain)
    x = 100 * torch.randn(4, 9).float()
    program.log_prob(x).sum().backward()
    grads = {which: p.grad for which, p in program.named_parameters() if not which.startswith("encoder")}
    assert len(grads) == 4
    assert all(bool(torch.isfinite(g).all()) for g in grads.values())
    path, _ = program.viterbi(x)
    assert bool((path[:, 0] == 0).all())
    assert set(path.diff().flatten().tolist()) <= {0, 1}
    drawn = log_weights(program, program.posterior, 20, x)[0].values["z"]
    assert bool((drawn[..., 0] == 0).all())
    assert set(drawn.diff().flatten().tolist()) <= {0, 1}
    program.m_step(program.e_step(torch.randn(30, 9).float())[1])  # what is impossible stays so
    assert torch.equal(program.transition_logits.exp() < 1e-30, torch.isinf(chain))


class TestBaumWelch:
    """Against hmmlearn from the same start, with its priors flat and its variance floor out of the way."""

    def start(self, program: HMM) -> tuple[np.ndarray, np.ndarray]:
        return (
            program.initial_logits.softmax(-1).detach().numpy(),
            program.transition_logits.softmax(-1).detach().numpy(),
        )

    def sequences(self, x: Tensor, context: Tensor | None) -> tuple[np.ndarray, list[int]]:
        lengths = [x.shape[1]] * len(x) if context is None else [int(v) for v in context]
        rows = x.reshape(len(x), x.shape[1], -1)
        return torch.cat([row[:length] for row, length in zip(rows, lengths, strict=True)]).numpy(), lengths

    def climb(self, program: HMM, x: Tensor, context: Tensor | None, rounds: int) -> list[float]:
        """Log-likelihoods before each round and after the last."""
        found = []
        for _ in range(rounds):
            value, statistics = program.e_step(x, context)
            found.append(value.item())
            program.m_step(statistics)
        found.append(program.log_prob(x, context).sum().item())
        assert all(b >= a - 1e-9 * abs(a) for a, b in itertools.pairwise(found)), "the likelihood went down"
        return found

    @pytest.mark.parametrize("padded", [False, True])
    def test_gaussian(self, padded):
        truth = hmm(event_shape=[12, 2], states=3, emission="normal", lengths=padded)
        x, context = data(truth, 40)
        program = hmm(event_shape=[12, 2], states=3, emission="normal", lengths=padded, smoothing=0.0, min_scale=1e-6)
        rows, lengths = self.sequences(x, context)
        flat = {"min_covar": 0, "covars_prior": 0, "covars_weight": 0, "means_weight": 0}
        peer = GaussianHMM(3, "diag", **flat, n_iter=1, init_params="", tol=-np.inf)
        peer.startprob_, peer.transmat_ = self.start(program)
        peer.means_ = program.emission.loc.detach().numpy().copy()
        peer.covars_ = program.emission.scale.detach().numpy() ** 2
        ours = self.climb(program, x, context, 15)
        theirs = self.peer_climb(peer, rows, lengths, 15)
        assert ours == pytest.approx(theirs, abs=1e-3)
        np.testing.assert_allclose(program.emission.loc.detach().numpy(), peer.means_, atol=1e-5)

    @pytest.mark.parametrize("padded", [False, True])
    def test_categorical(self, padded):
        truth = hmm(event_shape=[15], states=2, emission="categorical", values=4, lengths=padded)
        x, context = data(truth, 40)
        program = hmm(event_shape=[15], states=2, emission="categorical", values=4, lengths=padded, smoothing=0.0)
        rows, lengths = self.sequences(x, context)
        peer = CategoricalHMM(2, n_features=4, n_iter=1, init_params="", tol=-np.inf)
        peer.startprob_, peer.transmat_ = self.start(program)
        peer.emissionprob_ = program.emission.logits.softmax(-1)[:, 0].detach().numpy()
        ours = self.climb(program, x, context, 15)
        theirs = self.peer_climb(peer, rows.astype(int), lengths, 15)
        assert ours == pytest.approx(theirs, abs=1e-3)
        np.testing.assert_allclose(program.transition_logits.softmax(-1).detach().numpy(), peer.transmat_, atol=1e-5)

    def peer_climb(self, peer, rows: np.ndarray, lengths: list[int], rounds: int) -> list[float]:
        found = []
        for _ in range(rounds):
            found.append(peer.score(rows, lengths))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # hmmlearn warns that one iteration is no convergence
                peer.fit(rows, lengths)
        return [*found, peer.score(rows, lengths)]

    @pytest.mark.parametrize("case", PADDED[:5], ids=name)
    def test_statistics_add_over_minibatches_and_the_likelihood_rises(self, case):
        x, context = data(hmm(**case), 30)
        program = hmm(**case, smoothing=0.0)
        whole = program.e_step(x, context)
        parts = [program.e_step(a, b) for a, b in zip(x.split(7), context.split(7), strict=True)]
        torch.testing.assert_close(whole[0], sum(p[0] for p in parts))
        torch.testing.assert_close(whole[0], program.log_prob(x, context).sum().detach())
        for key, value in whole[1].items():
            torch.testing.assert_close(value, sum(p[1][key] for p in parts))
        found = self.climb(program, x, context, 20)
        assert found[-1] > found[0]

    @pytest.mark.parametrize("case", PADDED[:4], ids=name)
    def test_m_step_maximises_the_expected_log_joint_plus_the_log_prior(self, case):
        program = hmm(**case, smoothing=3.0)
        x, context = data(program, 200)
        found = []
        for _ in range(10):
            value, statistics = program.e_step(x, context)
            found.append((value + program.log_prior()).item())
            weight = program.marginals(x, context).detach()
            program.m_step(statistics)
        assert all(b >= a - 1e-9 * abs(a) for a, b in itertools.pairwise(found))
        # The last m_step, differentiated: every gradient of its objective is zero there.
        objective = (
            (statistics["initial"] * program.initial_logits.log_softmax(-1)).sum()
            + (statistics["transition"] * program.transition_logits.log_softmax(-1)).sum()
            + (weight * program.emission.log_prob(x.reshape(200, program.steps, -1))).sum()
            + program.log_prior()
        )
        objective.backward()
        grads = [p.grad for n, p in program.named_parameters() if not n.startswith("encoder")]
        assert max(g.abs().max().item() for g in grads) < 1e-9

    def test_variance_survives_float32_far_from_zero(self):
        x = (1e4 + torch.randn(50, 6)).float()
        program = HMM([6], states=1, emission="normal").float()
        program.initialise(x)
        for _ in range(3):
            program.m_step(program.e_step(x)[1])
        assert program.emission.scale.item() == pytest.approx(x.double().std(correction=0).item(), rel=1e-2)

    @pytest.mark.parametrize("levels", [(101_300.0, 101_310.0), (0.0, 1e5), (-1e6, -1e6 + 200)])
    def test_em_finds_levels_far_from_zero_in_float32(self, levels):
        at = torch.arange(20) // 5 % 2
        noise = torch.randn(100, 20, dtype=torch.float64)
        x = (torch.tensor(levels, dtype=torch.float64)[at] + noise).float()
        program = HMM([20], states=2, emission="normal").float()
        found = fit(program, x, "em")
        assert found.info["converged"]
        order = program.emission.loc[:, 0].argsort()
        # Against the data as they are in float32, each step given to its state.
        step = torch.finfo(torch.float32).eps * max(abs(level) for level in levels)
        for state, k in enumerate(order):
            own = x.double()[:, at == state]
            assert program.emission.loc[k].item() == pytest.approx(own.mean().item(), abs=step)
            assert program.emission.scale[k].item() == pytest.approx(own.std(correction=0).item(), rel=1e-3)

    def test_dead_states_stay_where_they_are(self):
        program = HMM([4], states=2, emission="normal", smoothing=0.0)
        with torch.no_grad():
            program.emission.loc.copy_(torch.tensor([[0.0], [1e6]]))
        program.m_step(program.e_step(torch.randn(30, 4))[1])
        assert program.emission.loc[1].item() == 1e6
        assert all(torch.isfinite(p).all() for p in program.parameters())
        assert torch.isfinite(program.log_prob(torch.randn(3, 4))).all()


class TestFit:
    def test_initialise_is_data_driven_and_follows_the_seed(self):
        centres = torch.tensor([-5.0, 0.0, 5.0])
        z = torch.randint(3, (30, 10))
        x = centres[z] + 0.1 * torch.randn(30, 10)
        found = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            program = HMM([10], states=3, emission="normal")
            program.initialise(x)
            found.append(program.emission.loc.detach().flatten())
        assert torch.equal(found[0], found[1])
        # Nine tenths of each step go to its cluster, so the means lie a tenth inside.
        torch.testing.assert_close(found[2].sort().values, 0.9 * centres, atol=0.5, rtol=0)

    @pytest.mark.parametrize("case", [*PADDED[:5], {"event_shape": [2], "states": 9}], ids=name)
    def test_initialise_takes_any_data(self, case):
        program = hmm(**case)
        x, context = data(program)
        for rows in (1, 6):
            program.initialise(x[:rows], None if context is None else context[:rows])
            assert torch.isfinite(program.log_prob(x, context)).all()

    def test_em_finds_the_states_and_returns_the_posterior(self):
        truth = HMM([20], states=2, emission="normal")
        with torch.no_grad():
            truth.transition_logits.copy_(torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
            truth.emission.loc.copy_(torch.tensor([[-3.0], [3.0]]))
        x = truth.generate(200)
        program = HMM([20], states=2, emission="normal")
        found = fit(program, x, "em")
        assert program.emission.loc.flatten().sort().values.tolist() == pytest.approx([-3, 3], abs=0.1)
        # 3800 transitions: the standard error of a logit is about 0.05.
        assert program.transition_logits.softmax(-1).diagonal().tolist() == pytest.approx([0.88, 0.88], abs=0.03)
        draws = found.draw(3, x[:4])["z"]
        assert draws.shape == (3, 4, 20)
        losses = [row["penalised_loss"] for row in found.history.rows]
        assert losses == sorted(losses, reverse=True)

    def test_svi_on_the_exact_likelihood_matches_baum_welch(self):
        truth = hmm(event_shape=[8, 2], states=2, emission="normal")
        with torch.no_grad():
            truth.emission.loc.copy_(torch.tensor([[-3.0, 0.0], [3.0, 1.0]]))
            truth.emission.scale = torch.ones(2, 2)
        x = truth.generate(100)
        em, svi = (HMM([8, 2], states=2, emission="normal", smoothing=0.0) for _ in range(2))
        fit(em, x, "em")
        fit(svi, x, "svi", elbo="exact", steps=500, lr=0.1, batch_size=100)
        assert svi.log_prob(x).mean().item() == pytest.approx(em.log_prob(x).mean().item(), abs=1e-3)
        assert svi.log_prob(x).mean().item() >= truth.log_prob(x).mean().item()

    def test_the_mean_field_guide_learns_and_keeps_a_gap(self):
        torch.manual_seed(2)
        program = HMM([6], states=2, emission="normal")
        with torch.no_grad():
            program.transition_logits.copy_(torch.tensor([[3.0, 0.0], [0.0, 3.0]]))
            program.emission.loc.copy_(torch.tensor([[-0.7], [0.7]]))
        x = program.generate(200)
        exact = program.log_prob(x).mean().item()

        def gap() -> float:
            with torch.no_grad():
                return exact - log_weights(program, program.guide, 500, x)[1].local.mean().item()

        before = gap()
        fit(program, x, "svi", elbo="score", particles=8, initialise=False, train_program=False, steps=400, lr=0.05)
        assert program.log_prob(x).mean().item() == pytest.approx(exact)
        assert 0.05 < gap() < before / 2

    def test_trace_elbo_is_a_bound_and_trains_model_and_guide(self):
        program = hmm(event_shape=[5, 2], states=3, lengths=True)
        x, context = data(program)
        loss = Trace_ELBO(num_particles=200, vectorize_particles=True, max_plate_nesting=1)
        value = -loss.differentiable_loss(program.model, program.guide, x, context, None)
        value.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in program.parameters())
        assert value.item() < program.log_prob(x, context).sum().item()

    def test_saving_is_bit_exact(self, tmp_path):
        program = hmm(event_shape=[4, 2], states=3, emission="normal", lengths=True)
        x, context = data(program)
        catalogue.save(program, tmp_path)
        assert torch.equal(catalogue.load(tmp_path).log_prob(x, context), program.log_prob(x, context))


class TestWrongInput:
    def test_sizes_come_from_the_data(self):
        program = HMM.for_data(torch.tensor([[[0.0], [4.0]]]), torch.tensor([2.0]), emission="categorical", states=2)
        assert program.event_shape == (2, 1)
        assert program.emission.values == 5
        assert program.lengths
        assert not HMM.for_data(torch.zeros(3, 4)).lengths

    @pytest.mark.parametrize("lengths", [[0.0, 2.0], [2.0, 6.0], [1.5, 2.0]])
    def test_lengths_must_fit(self, lengths):
        program = HMM([5], states=2, lengths=True)
        with pytest.raises(SupportError, match="whole numbers from 1 to 5"):
            program.check(torch.zeros(2, 5), torch.tensor(lengths))

    def test_context_must_be_there_or_not(self):
        with pytest.raises(ShapeError, match="conditional"):
            HMM([5], lengths=True).check(torch.zeros(2, 5))
        with pytest.raises(ShapeError, match="no context"):
            HMM([5]).check(torch.zeros(2, 5), torch.ones(2))
        with pytest.raises(SupportError, match="Binarise"):
            HMM([5]).check(torch.full((2, 5), 0.5))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"event_shape": [3, 3, 3]}, r"\[3, 3, 3\]"),
            ({"event_shape": []}, r"\(T,\)"),
            ({"emission": "poisson"}, "poisson"),
            ({"states": 0}, "states must be at least 1"),
            ({"window": 4}, "odd"),
            ({"values": 1}, "values must be at least 2"),
            ({"smoothing": -1.0}, "smoothing"),
            ({"min_scale": 0.0}, "min_scale"),
        ],
    )
    def test_options_that_make_no_sense_are_refused(self, options, message):
        with pytest.raises(OptionError, match=message):
            HMM(**options)

    def test_parameter_count_is_free_numbers_of_model_and_guide(self):
        guide = 3 * (2 * 4 * 5) + 3
        categorical = HMM([6, 2], states=3, emission="categorical", values=4)
        assert categorical.parameter_count() == 2 + 3 * 2 + 3 * 2 * 3 + guide
        assert HMM([6], states=2, emission="normal", window=1).parameter_count() == 1 + 2 + 4 + (2 + 2)


@pytest.mark.parametrize("padded", [False, True])
def test_log_joint_at_the_viterbi_path_is_what_viterbi_says(padded):
    program = hmm(event_shape=[4], states=3, emission="normal", lengths=padded)
    x, context = data(program, 4)
    path, value = program.viterbi(x, context)
    torch.testing.assert_close(log_joint(program, {"z": path[None]}, x, context).local[0], value)


def test_chorales_beat_independent_notes(zoo_data):
    """Nats per time step of the test set; independent notes give 11.06 (published.md, Boulanger-Lewandowski et al.)."""
    chorales = datasets.load("jsb")
    program = HMM.for_data(*chorales.train, states=8)
    fit(program, chorales, "em", iterations=15)
    per_step = -program.log_prob(*chorales.test).sum() / chorales.test.context.sum()
    assert per_step.item() < 11.06


@pytest.mark.parametrize("emission", ["bernoulli", "categorical"])
def test_emissions_of_probability_zero(emission):
    program = hmm(event_shape=[3, 2], states=2, emission=emission, values=2)
    logits = program.emission.logits
    with torch.no_grad():  # a one for certain at the first bit, in both states; in one of them at the second
        if emission == "bernoulli":
            logits[:, 0], logits[0, 1] = torch.inf, torch.inf
        else:
            logits[:, 0, 0], logits[0, 1, 0] = -torch.inf, -torch.inf
    x = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6))).reshape(-1, 3, 2)
    got, possible = program.log_prob(x), x[:, :, 0].bool().all(-1)
    assert torch.equal(got == -torch.inf, ~possible)
    assert got.exp().sum().item() == pytest.approx(1.0)
    gradients = torch.autograd.grad(got.where(possible, 0.0).sum(), program.emission.logits)[0]
    assert torch.isfinite(gradients).all()
    assert all(torch.isfinite(v).all() for v in program.e_step(x[possible])[1].values())
    latents = {"z": torch.zeros(int(possible.sum()), 3).long()}
    site = pyro.poutine.trace(pyro.poutine.condition(program.model, data=latents)).get_trace(x[possible], None, None)
    assert not site.nodes["x"]["fn"].log_prob(x[possible]).isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("models", [1, 2])
def test_small_and_large_steps_are_the_same_sweep(monkeypatch: pytest.MonkeyPatch, models: int, dtype: torch.dtype):
    """By numpy and by torch: messages, their sums, and where a likelihood is zero."""
    matrix = torch.rand(models, 5, 5, dtype=dtype).softmax(-1)
    flow = torch.rand(models, 30, 7, 5, dtype=dtype)
    flow[:, 20, 3] = 0.0
    found = []
    for alone in (2**18, 0):
        monkeypatch.setattr("zoo.chains.forward_backward.ALONE", alone)
        messages = flow.clone()
        found.append((_sweep(matrix, messages), messages))
    torch.testing.assert_close(found[0], found[1], equal_nan=True)
    assert torch.isnan(found[0][1][:, 20:, 3]).all()
    assert torch.isfinite(found[0][1][:, :20]).all()
    torch.testing.assert_close(found[0][1][:, :20].sum(-1), torch.ones(models, 20, 7, dtype=dtype))
