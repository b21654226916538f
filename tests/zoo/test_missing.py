"""Missing values: what a program says of a row with gaps is its density with these integrated out, at every door."""

from __future__ import annotations

import itertools
import math

import pyro
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal
from torch.fx.experimental.proxy_tensor import make_fx

from inference import fit
from inference.evaluation import elbo, log_likelihood
from inference.methods.em import e_step
from inference.particles import log_joint
from zoo import catalogue
from zoo.arrays import TAKE_MISSING, fill
from zoo.datasets import Data
from zoo.errors import NonFiniteError
from zoo.program import Program

NAN = torch.nan
PROGRAMS = {
    "independent": ("independent", {"event_shape": [2, 2]}),
    "independent of three values": ("independent", {"event_shape": [4], "values": 3}),
    "Bernoulli mixture": ("bernoulli-mixture", {"event_shape": [2, 2], "components": 3}),
    "HMM of bits": ("hmm", {"event_shape": [2, 2], "states": 2}),
    "HMM of categories": ("hmm", {"event_shape": [4], "states": 2, "emission": "categorical", "values": 3}),
    "HMM of numbers": ("hmm", {"event_shape": [2, 2], "states": 2, "emission": "normal"}),
    "padded HMM": ("hmm", {"event_shape": [4], "states": 2, "lengths": True}),
    "spherical mixture": ("gaussian-mixture", {"event_shape": [4], "covariance": "spherical"}),
    "diagonal mixture": ("gaussian-mixture", {"event_shape": [2, 2], "covariance": "diagonal"}),
    "full mixture": ("gaussian-mixture", {"event_shape": [2, 2], "covariance": "full"}),
    "PPCA": ("ppca", {"event_shape": [2, 2], "latent_dim": 2}),
    "VAE of bits": ("vae", {"event_shape": [2, 2], "hidden": [8]}),
    "VAE of levels": ("vae", {"event_shape": [4], "hidden": [8], "likelihood": {"name": "logistic", "values": 3}}),
    "VAE of numbers": ("vae", {"event_shape": [4], "hidden": [8], "likelihood": "normal"}),
}
EM = [name for name in PROGRAMS if "VAE" not in name]
GAPS = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 1, 1]]).bool()


def made(name: str, seed: int = 0) -> Program:
    torch.manual_seed(seed)
    kind, options = PROGRAMS[name]
    program = catalogue.create(kind, **options).double().eval()
    with torch.no_grad():
        for parameter in program.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter).tril() if parameter.ndim == 3 else 0.0)
            if parameter.ndim < 3:
                parameter.add_(0.5 * torch.randn_like(parameter))
    return program


def rows(program: Program, n: int = 5) -> Data:
    """Examples of the program's own with gaps, the last context shorter than the row."""
    torch.manual_seed(1)
    context = program.example_context(n)
    x = program.generate(n, context).double()
    gaps = GAPS.repeat(math.ceil(n / len(GAPS)), 1)[:n] if n != 5 else GAPS
    return Data(torch.where(gaps.reshape(x.shape), NAN, x), context)


def values_of(program: Program) -> list[float]:
    """All that a number of x may be."""
    candidates = [[0.0, 0.5, 1.0], [0.0, 1.0, 2.0], [0.0, 1.0]]
    return next(found for found in candidates if bool(program.support.check(torch.tensor(found)).all()))


def filled_in(row: Tensor, program: Program) -> Tensor:
    """Every way in which the gaps of a row may be filled (ways, *event_shape)."""
    flat = row.flatten()
    gaps = flat.isnan().nonzero()[:, 0]
    ways = list(itertools.product(values_of(program), repeat=len(gaps)))
    found = flat.repeat(len(ways), 1)
    found[:, gaps] = torch.tensor(ways, dtype=row.dtype).reshape(len(ways), len(gaps))
    return found.reshape(-1, *row.shape)


def density(program: Program, x: Tensor, context: Tensor | None, z: Tensor | None) -> Tensor:
    """log p(x), or log p(x, z) for programs without it, of each row."""
    if z is None:
        return program.log_prob(x, context)
    latents = {"z": z.expand(1, len(x), -1)}
    return log_joint(program, latents, x, context, particles=1).local[0]


# What it is


@pytest.mark.parametrize(
    "name", [n for n in PROGRAMS if not any(w in n for w in ("numbers", "PPCA", "spherical", "diagonal", "full"))]
)
@torch.no_grad()
def test_gaps_are_summed_out(name):
    program = made(name)
    x, context = rows(program)
    z = torch.randn(1, program.latent_dim).double() if "VAE" in name else None
    found = density(program, x, context, z)
    for i, row in enumerate(x):
        ways = filled_in(row, program)
        given = None if context is None else context[i : i + 1].expand(len(ways))
        expected = density(program, ways, given, z).logsumexp(0)
        if context is not None:  # padded steps have no density, of which each way counts one
            padded = int(row.flatten()[int(context[i]) :].isnan().sum())
            expected = expected - padded * math.log(2)
        torch.testing.assert_close(found[i], expected)


def gaussian_parts(program: Program) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(log weight, mean, covariance) of the mixture that a program is."""
    if hasattr(program, "weight_logits"):
        d = program.means.shape[1]
        if program.covariance == "full":
            covariances = program.scale @ program.scale.mT
        else:
            covariances = torch.diag_embed(program.scale.reshape(program.components, -1).expand(-1, d).square())
        return list(zip(program.weights.log(), program.means, covariances, strict=True))
    if hasattr(program, "emission"):
        initial, transition = program._log_probabilities()
        loc, scale = program.emission.loc, program.emission.scale
        return [
            (
                initial[a] + transition[a, b],
                torch.cat([loc[a], loc[b]]),
                torch.diag(torch.cat([scale[a], scale[b]]) ** 2),
            )
            for a in range(2)
            for b in range(2)
        ]
    covariance = program.weight @ program.weight.T + program.scale**2 * torch.eye(4).double()
    return [(torch.zeros(()).double(), program.mean, covariance)]


def marginal(program: Program, row: Tensor) -> Tensor:
    there = ~row.flatten().isnan()
    if not bool(there.any()):
        return torch.zeros(()).double()
    parts = [
        weight + MultivariateNormal(mean[there], covariance[there][:, there]).log_prob(row.flatten()[there])
        for weight, mean, covariance in gaussian_parts(program)
    ]
    return torch.stack(parts).logsumexp(0)


GAUSSIANS = [name for name in EM if any(w in name for w in ("numbers", "PPCA", "spherical", "diagonal", "full"))]


@pytest.mark.parametrize("name", GAUSSIANS)
@torch.no_grad()
def test_gaps_are_integrated_out(name):
    program = made(name)
    x = rows(program).x
    torch.testing.assert_close(program.log_prob(x), torch.stack([marginal(program, row) for row in x]))


@torch.no_grad()
def test_a_decoder_counts_what_is_there():
    program = made("VAE of numbers")
    x, z = rows(program).x, torch.randn(1, 2).double()
    decoded = program.decode(z.expand(5, 2))
    each = Normal(decoded.base_dist.loc, decoded.base_dist.scale).log_prob(x.nan_to_num())
    expected = torch.where(x.isnan(), 0.0, each).sum(-1) + Normal(0, 1).log_prob(z).sum()
    torch.testing.assert_close(density(program, x, None, z), expected)


@pytest.mark.parametrize("name", EM)
def test_model_and_posterior_agree_with_the_density(name):
    program = made(name)
    data = rows(program)
    exact = log_likelihood(program, data, how="exact").values
    if not program.sites():
        torch.testing.assert_close(log_joint(program, {}, *data, particles=1).local[0], exact)
        return
    torch.testing.assert_close(elbo(program, program.posterior, data, particles=5).values, exact)


@pytest.mark.parametrize("name", ["PPCA", "HMM of bits", "padded HMM"])
def test_a_bound_stays_below(name):
    program = made(name)
    data = rows(program)
    bound = elbo(program, program.guide, data, particles=2000)
    exact = log_likelihood(program, data, how="exact").values
    assert bool((bound.values <= exact + 4 * bound.monte_carlo_error + 1e-9).all())


@pytest.mark.parametrize("name", PROGRAMS)
@torch.no_grad()
def test_a_row_without_gaps_is_what_it_was(name, monkeypatch):
    program = made(name)
    torch.manual_seed(1)
    x, context = (lambda c: (program.generate(6, c).double(), c))(program.example_context(6))
    z = torch.randn(1, program.latent_dim).double() if "VAE" in name else None
    before = density(program, x, context, z)
    statistics = program.e_step(x, context) if name in EM else None
    monkeypatch.setattr(type(program), "seen", lambda self, x: (x, None if x is None else torch.ones_like(x).bool()))
    torch.testing.assert_close(density(program, x, context, z), before)
    if statistics is not None:
        value, found = program.e_step(x, context)
        torch.testing.assert_close(value, statistics[0])
        program.m_step(found)
        once = {key: parameter.clone() for key, parameter in program.state_dict().items()}
        again = made(name)
        again.m_step(statistics[1])
        for key, parameter in again.state_dict().items():
            torch.testing.assert_close(once[key], parameter)


# EM


@pytest.mark.parametrize("name", EM)
def test_em_climbs_the_exact_likelihood_to_where_it_is_flat(name):
    truth, program = made(name), made(name)
    data = rows(truth, 200)
    with torch.no_grad():
        for parameter in program.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter).tril() if parameter.ndim == 3 else 0.0)
            if parameter.ndim < 3:
                parameter.add_(0.3 * torch.randn_like(parameter))
    if hasattr(program, "smoothing"):
        program.smoothing = 0.0
    before = -math.inf
    for _ in range(200 if program.sites() else 2):
        value, statistics = e_step(program, data, 67)
        assert value >= before - 1e-8 * abs(value)
        before = value
        program.m_step(statistics)
    torch.testing.assert_close(torch.tensor(value).double(), program.log_prob(*data).sum().detach(), atol=0.01, rtol=0)
    assert value > float(truth.log_prob(*data).sum().detach())
    program.log_prob(*data).sum().backward()
    slopes = [p.grad.abs().max() for key, p in program.named_parameters() if not key.startswith("encoder")]
    assert float(max(slopes)) < 0.5  # of 200 rows


@pytest.mark.parametrize("name", EM)
def test_em_by_batches_is_em_of_all(name):
    data = rows(made(name), 30)
    found = []
    for batch in (30, 7, 1):
        program = made(name)
        value, statistics = e_step(program, data, batch)
        program.m_step(statistics)
        found.append((value, program.state_dict()))
    for value, state in found[1:]:
        assert value == pytest.approx(found[0][0])
        for key, parameter in state.items():
            torch.testing.assert_close(parameter, found[0][1][key])


@pytest.mark.parametrize("name", PROGRAMS)
def test_fits_from_data_with_gaps(name):
    kind, options = PROGRAMS[name]
    data = rows(made(name), 40)
    options = {key: value for key, value in options.items() if key != "event_shape"}
    if name in EM:
        found = fit(kind, data, "em", iterations=3, **options)
        assert math.isfinite(found.history.last("loss"))
    how = {"method.steps": 4, "method.compile": "never", "batch_size": 10}
    assert math.isfinite(fit(kind, data, "svi", **how, **options).history.last("loss"))


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "HMM of categories"])  # not traced: one_hot
@torch.no_grad()
def test_a_traced_step_sees_the_gaps_of_any_batch(name):
    program = made(name)
    x, context = rows(program)
    z = torch.randn(1, program.latent_dim).double() if "VAE" in name else None
    whole = torch.where(x.isnan(), 0.0, x)
    program.declare(x, context)
    with pyro.validation_enabled(False):  # as a fit traces its steps; of a batch that happens to have no gaps
        traced = make_fx(lambda x: density(program, x, context, z))(whole)
    torch.testing.assert_close(traced(x), density(program, x, context, z))
    program.declare(whole, context)
    torch.testing.assert_close(traced(whole), density(program, whole, context, z))


def test_a_number_that_no_example_has_keeps_its_weights():
    x = torch.randn(20, 3).double()
    x[:, 1] = NAN
    program = catalogue.create("ppca", event_shape=[3], latent_dim=1).double()
    before = program.weight.detach().clone()
    fit(program, x, "em", iterations=5)
    assert torch.equal(program.weight[1], before[1])
    assert not torch.allclose(program.weight[0], before[0])


# Who takes them


def test_the_list_of_who_takes_missing_values_is_the_catalogues():
    names = [name for name in catalogue.BUILTIN if catalogue.get(name).takes_missing]
    assert sorted(names) == sorted(TAKE_MISSING)


def test_others_say_who_does():
    x = torch.rand(6, 4)
    x[1, 2] = NAN
    with pytest.raises(NonFiniteError, match=r"1 of 24 data values.*integrate it out: .*gaussian-mixture, hmm"):
        fit("maf", x, "svi", steps=1)
    with pytest.raises(NonFiniteError, match=r"'avb' looks at whole examples, and 1 values.*'svi'"):
        fit("vae", x.round(), "avb", **{"method.steps": 1})
    with pytest.raises(NonFiniteError, match="1 of 24 data"):
        fit("aae", x.round(), "aae", **{"method.steps": 1})


def test_infinity_contexts_and_nothing_at_all_are_no_missing_values():
    program = made("PPCA")
    x = rows(program).x
    with pytest.raises(NonFiniteError, match=r"1 of 20 data values are NaN or infinite; clean them\.$"):
        program.check(torch.where(x == x[3, 0, 0], torch.inf, x))
    with pytest.raises(NonFiniteError, match="all 20 values of the data are missing"):
        program.check(torch.full_like(x, NAN))
    padded = made("padded HMM")
    data = rows(padded)
    with pytest.raises(NonFiniteError, match="context"):
        padded.check(data.x, torch.where(data.context == 1, NAN, data.context))
    assert program.log_prob(torch.full((1, 2, 2), torch.inf).double()).item() == -torch.inf


def test_gaps_are_filled_by_the_median_of_their_column():
    x = torch.tensor([[1.0, NAN, NAN], [3.0, 2.0, NAN], [NAN, 0.0, NAN], [5.0, 7.0, NAN]])
    assert fill(x).tolist() == [[1, 2, 0], [3, 2, 0], [3, 0, 0], [5, 7, 0]]
    whole = torch.randn(3, 2)
    assert fill(whole) is whole
