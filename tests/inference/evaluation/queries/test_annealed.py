"""Annealed chains in the latents of a linear decoder, which is PPCA, and in x of Gaussians, beside the exact answer."""

from __future__ import annotations

import math

import pytest
import torch
from pyro.distributions import MultivariateNormal
from torch import Tensor, nn

from inference.evaluation.queries.completion import inpaint
from inference.evaluation.queries.questions import Answer
from inference.evaluation.queries.restoration import denoise, super_resolve
from tests.zoo.test_chains import all_states
from zoo import catalogue
from zoo.density import DensityProgram
from zoo.errors import CapabilityError, DivergenceError
from zoo.latent.ppca import PPCA
from zoo.latent.vae import VAE
from zoo.program import Program

CHAINS = {"draws": 1000, "particles": 1000, "steps": 12}


def linear_pair() -> tuple[VAE, PPCA]:
    """A VAE without hidden layers and the PPCA that it is."""
    vae, ppca = VAE([2, 2], 2, hidden=[], likelihood="normal"), PPCA([2, 2], 2)
    with torch.no_grad():
        vae.decoder[-1].weight.copy_(torch.tensor([[1.0, 0.2], [0.5, -1.0], [-0.7, 0.3], [0.1, 0.8]]))
        vae.bias.copy_(torch.tensor([[[0.5, -0.5], [0.0, 1.0]]]))
        ppca.weight.copy_(vae.decoder[-1].weight)
        ppca.mean.copy_(vae.bias.flatten())
        ppca.scale = vae.decode(torch.zeros(1, 2)).base_dist.scale.flatten()[0]
    return vae, ppca


class Gaussian(DensityProgram):
    """Four numbers that depend on each other, with the density alone."""

    def __init__(self) -> None:
        super().__init__()
        self.event_shape = torch.Size([2, 2])
        self.loc = nn.Parameter(torch.tensor([0.5, -0.5, 0.0, 1.0]))
        self.register_buffer("factor", torch.linalg.cholesky(0.5 * torch.eye(4) + 0.5))

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return MultivariateNormal(self.loc, scale_tril=self.factor).log_prob(x.flatten(1))

    def draw(self, n: int, context: Tensor | None = None) -> Tensor:
        return (self.loc + torch.randn(n, 4) @ self.factor.T).reshape(n, 2, 2)


def gaussian_as_ppca(program: Gaussian) -> PPCA:
    """0.5 (I + 1 1')."""
    ppca = PPCA([2, 2], 1)
    with torch.no_grad():
        ppca.weight.fill_(0.5**0.5)
        ppca.mean.copy_(program.loc)
        ppca.scale = torch.tensor(0.5**0.5)
    return ppca


def ask(program: Program, query: str, **options: int) -> Answer:
    y = torch.tensor([[[1.5, -0.3], [0.8, 0.4]], [[-1.0, 0.5], [0.2, 2.0]]])
    if query == "inpaint":
        known = torch.tensor([[[True, False], [True, False]], [[False, False], [False, True]]])
        return inpaint(program, y, known, **options)
    if query == "denoise":
        y[0, 0, 0] = torch.nan
        return denoise(program, y, 0.8, **options)
    return super_resolve(program, y.mean((1, 2), keepdim=True), 2, sd=0.0 if query == "means" else 0.5, **options)


@pytest.mark.parametrize("kind", ["latents", "values"])
@pytest.mark.parametrize("query", ["inpaint", "denoise", "noisy means", "means"])
def test_chains_come_to_the_exact_answer(kind: str, query: str) -> None:
    vae, ppca = linear_pair()
    program: Program = vae if kind == "latents" else Gaussian()
    if isinstance(program, Gaussian):
        ppca = gaussian_as_ppca(program)
    found, truth = ask(program, query, **CHAINS), ask(ppca, query, draws=20_000)
    assert (found.how, found.exact, truth.exact) == (kind, False, True)
    assert found.effective is not None
    assert (found.effective > 100).all()
    # Draws that are resampled count as so many as the chains that they come from; six standard errors of these.
    few = found.effective[:, None, None]
    spread = truth.values.std(0)
    assert ((found.mean - truth.mean).abs() <= 6 * spread / few.sqrt() + 1e-9).all()
    assert ((found.values.std(0) - spread).abs() <= 6 * spread / (2 * few).sqrt() + 1e-9).all()
    if query == "means":
        torch.testing.assert_close(found.values.mean((-1, -2)), ask(ppca, query).values.mean((-1, -2)).expand(1000, -1))


@pytest.mark.parametrize("query", ["inpaint", "denoise", "super_resolve"])
def test_a_decoder_of_bits_answers_as_by_a_grid(query: str) -> None:
    program = VAE([2, 2], 1, hidden=[3])
    with torch.no_grad():
        for p in program.decoder.parameters():
            p.mul_(4.0)
    states = all_states([2, 2])
    with torch.no_grad():
        z = torch.linspace(-8, 8, 801)[:, None, None]
        log_prob = (program.decode(z).log_prob(states) - z.squeeze(-1).square() / 2).logsumexp(0)
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    if query == "inpaint":
        found = inpaint(program, x, torch.eye(2).bool(), **CHAINS)
        log_noise = torch.where((states[:, [0, 1], [0, 1]] == 1).all(-1), 0.0, -torch.inf)
    elif query == "denoise":
        found = denoise(program, x, 0.6, **CHAINS)
        log_noise = -((states - x) / 0.6).square().sum((1, 2)) / 2
    else:
        found = super_resolve(program, torch.full((1, 1, 1), 0.75), 2, **CHAINS)
        log_noise = torch.where(states.sum((1, 2)) == 3, 0.0, -torch.inf)
    truth = torch.einsum("s,shw->hw", (log_prob + log_noise).softmax(0), states)
    assert found.how == "latents"
    assert found.effective is not None
    error = 6 * ((truth * (1 - truth)).clamp(min=0.0) / found.effective).sqrt()
    assert ((found.mean[0] - truth).abs() <= error + 1e-9).all()


def test_given_pixels_stay_and_any_likelihood_is_completed() -> None:
    program = VAE([4, 4], 2, hidden=[5], likelihood={"name": "levels", "values": 4})
    x, known = program.generate(3), torch.rand(3, 4, 4) < 0.5
    found = inpaint(program, x, known, draws=5, particles=8, steps=4)
    assert torch.equal(found.values[:, known], x[known].expand(5, -1))
    assert program.support.check(found.values).all()
    with pytest.raises(CapabilityError, match="neither normal nor bits"):
        denoise(program, x, 0.1)


def test_a_flow_is_completed_and_the_answer_is_finite() -> None:
    program = catalogue.create("realnvp", event_shape=[4])
    found = inpaint(program, torch.randn(2, 4), torch.tensor([1, 0, 0, 1]).bool(), draws=3, particles=8, steps=5)
    assert found.how == "values"
    assert found.values.isfinite().all()
    x = torch.randn(2, 4)
    assert torch.equal(inpaint(program, x, torch.ones(4).bool(), particles=4, steps=3).values[0], x)


def test_single_numbers_are_answered() -> None:
    program = catalogue.create("gaussian-mixture", event_shape=[])
    assert denoise(program, torch.randn(3), 0.5, draws=2).values.shape == (2, 3)
    flow = catalogue.create("maf", event_shape=[])
    found = denoise(flow, torch.randn(3), 0.5, draws=2, particles=4, steps=3)
    assert (found.how, found.values.shape) == ("values", (2, 3))
    assert inpaint(flow, torch.randn(3), torch.tensor(False), particles=4, steps=3).values.isfinite().all()


def test_the_same_seed_gives_the_same_answer_and_the_program_stays_as_it_was() -> None:
    vae, _ = linear_pair()
    vae.train()
    first, second = (ask(vae, "denoise", particles=4, steps=3, seed=1) for _ in range(2))
    assert torch.equal(first.values, second.values)
    assert vae.training
    assert all(p.grad is None for p in vae.parameters())


def test_what_no_chain_explains_is_an_error() -> None:
    class Nowhere(Gaussian):
        def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
            return super().log_prob(x) + torch.where(x.flatten(1)[:, 0] > 100, 0.0, -math.inf)

    with pytest.raises(DivergenceError, match="No chain came"):
        denoise(Nowhere(), torch.zeros(1, 2, 2), 0.5, particles=4, steps=3)
