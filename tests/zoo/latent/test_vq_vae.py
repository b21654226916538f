"""The VQ-VAE: its bound is a term of the sum that p(x) is; straight-through gradients, running averages, its prior."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from inference import fit
from inference.evaluation import elbo, log_likelihood
from inference.methods.bounds import make_objective
from inference.particles import log_joint
from tests.zoo.test_chains import all_states
from zoo import datasets
from zoo.datasets import Data
from zoo.errors import OptionError, ShapeError, UnknownNameError
from zoo.latent.vq_vae import VQVAE, perplexity
from zoo.program import KeepsAverages
from zoo.testing import checks

NETWORK: dict[str, Any] = {"name": "residual", "hidden": 6, "blocks": 1, "halvings": 1}
PRIOR: dict[str, Any] = {"name": "gated-pixelcnn", "features": 6, "layers": 2, "head_hidden": 8, "first_kernel": 3}


def small(event_shape: list[int] | None = None, codes: int = 3, **options: Any) -> VQVAE:
    return VQVAE(event_shape or [4, 4], codes, 2, network=NETWORK, prior=PRIOR, **options)


PROGRAMS = {
    "bits": small,
    "odd sizes and colours": lambda: small([3, 7, 5], likelihood="normal"),
    "halved twice": lambda: VQVAE([9, 6], network={"name": "residual", "hidden": 4}, prior=PRIOR),
}


@pytest.mark.parametrize("check", list(checks()), ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", PROGRAMS)
def test_contract(name, check):
    check(PROGRAMS[name]())


@pytest.mark.parametrize(("name", "side"), [("small", 4), ("paper", 7)])
def test_presets_build(name, side):
    preset = VQVAE.presets[name]
    program = VQVAE.for_data(torch.zeros(2, 28, 28), **preset.program).float()
    assert program.codes(program.generate(2)).shape == (2, side, side)


# The bound


def grids(program: VQVAE) -> Tensor:
    """All grids of codes (K^(h w), h, w)."""
    shape = program.prior.event_shape
    values = torch.arange(float(program.number))
    return torch.cartesian_prod(*[values] * shape.numel()).reshape(-1, *shape)


@torch.no_grad()
def test_the_bound_is_one_term_of_the_sum_over_all_codes():
    program = small().eval()  # four positions of three codes: 81 grids
    x = program.generate(6)
    program.initialise(x)
    z = grids(program)
    joint = log_joint(program, {"z": z[:, None].expand(-1, 6, -1, -1)}, x).local
    truth, bound = joint.logsumexp(0), log_likelihood(program, x, particles=1)
    assert bound.bound
    mine = (z[:, None] == program.codes(x)).flatten(2).all(-1)
    torch.testing.assert_close(bound.values, joint[mine.to(torch.bool)].reshape(-1)[mine.nonzero()[:, 1].argsort()])
    assert bool((bound.values < truth).all())
    # More draws of a guide that is certain are the same draw.
    torch.testing.assert_close(log_likelihood(program, x, particles=20).values, bound.values)
    torch.testing.assert_close(elbo(program, None, x, 3).values, bound.values)


@torch.no_grad()
def test_masses_of_all_images_sum_to_one_and_their_bounds_to_less():
    program = small([2, 4]).eval()
    images = all_states([2, 4])
    z = grids(program)
    joint = log_joint(program, {"z": z[:, None].expand(-1, len(images), -1, -1)}, images).local
    torch.testing.assert_close(joint.exp().sum(), torch.ones(()))
    assert float(log_likelihood(program, images, particles=1).values.exp().sum()) < 1


# How it learns


def test_gradients_of_codes_go_straight_through_and_the_commitment_pulls():
    program = small(commitment=0.7).train()
    x = program.generate(5).detach()
    with torch.no_grad():
        program.initialise(x)
    make_objective("trace")(program, program.guide, Data(x), 5)[0].backward()
    last = program.encoder.net[-1]
    seen, vectors = program.look(x).detach(), program.quantised(program.codes(x)).requires_grad_()
    program.decode(vectors).log_prob(x).sum().neg().backward()
    assert vectors.grad is not None
    by_hand = vectors.grad + 2 * 0.7 * (seen - vectors.detach())
    torch.testing.assert_close(last.bias.grad, by_hand.sum((0, 2, 3)) / 5)


def test_the_commitment_is_no_part_of_the_density():
    program = small(commitment=50.0).eval()
    plain = small(commitment=0.0).eval()
    plain.load_state_dict(program.state_dict())
    x = program.generate(5)
    for particles in (1, 3):
        torch.testing.assert_close(
            log_likelihood(program, x, particles=particles).values, log_likelihood(plain, x, particles=particles).values
        )


@torch.no_grad()
def test_running_averages_are_of_what_each_code_stands_for():
    program, x = small(memory=0.9), torch.rand(8, 4, 4).round()
    program.initialise(x)
    assert isinstance(program, KeepsAverages)
    rows = program.look(x).movedim(1, -1).reshape(-1, 2)
    chosen = (rows[:, None] - program.codebook).square().sum(-1).argmin(-1)
    assert torch.equal(chosen, program.codes(x).flatten().long())
    counts, sums = program.counts.clone(), program.sums.clone()
    metrics = program.keep_averages(x)
    for k in range(3):
        n = 0.9 * counts[k] + 0.1 * (chosen == k).sum()
        total = 0.9 * sums[k] + 0.1 * rows[chosen == k].sum(0)
        torch.testing.assert_close(program.counts[k], n)
        torch.testing.assert_close(program.codebook[k], total / n)
    torch.testing.assert_close(metrics["code_perplexity"], perplexity(program.counts))


@torch.no_grad()
def test_averages_move_in_half_precision_too():
    """A hundredth of a code is less than bfloat16 tells apart: a codebook kept in it would stand still."""
    torch.manual_seed(0)
    full, x = small(memory=0.999).float(), torch.rand(8, 4, 4).round().float()
    full.initialise(x)
    half, before = copy.deepcopy(full), full.codebook.clone()
    full.keep_averages(x.flip(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half.keep_averages(x.flip(2))
    moved = float((full.codebook - before).norm())
    assert half.codebook.dtype == torch.float32
    assert moved > 0
    assert float((half.codebook - full.codebook).norm()) < 0.2 * moved


@torch.no_grad()
def test_a_code_that_is_not_used_begins_anew_where_the_encoder_is():
    program, x = small(), torch.rand(8, 4, 4).round()
    program.initialise(x)
    program.codebook[1] = program.sums[1] = 1e3
    program.counts[1] = 0.01
    program.keep_averages(x)
    rows = program.look(x).movedim(1, -1).reshape(-1, 2)
    assert float((rows - program.codebook[1]).square().sum(-1).min()) < 1e-20
    assert float(program.counts[1]) == pytest.approx(8 * 4 / 3)
    used = program.codes(x)
    assert bool((used == 1).any())


@torch.no_grad()
def test_a_collapse_is_seen():
    program, x = small(), torch.rand(50, 4, 4).round()
    program.codebook.copy_(torch.tensor([[0.0, 0.0], [1e3, 0.0], [0.0, 1e3]]))
    assert program.code_perplexity(x) == pytest.approx(1.0)
    assert float(perplexity(torch.tensor([5.0, 5.0, 5.0]))) == pytest.approx(3.0)
    assert float(perplexity(torch.tensor([0.5, 0.25, 0.25, 0.0]))) == pytest.approx(math.exp(1.5 * math.log(2)))


def test_a_fit_describes_images_by_codes_and_its_prior_can_be_fitted_alone():
    """Images whose four quarters are black or white, with all four alike: two codes and a prior that knows."""
    bright = (torch.arange(64) % 2).double()[:, None, None].expand(-1, 4, 4)
    x = torch.where(torch.rand(64, 4, 4) < 0.02, 1 - bright, bright)
    program = small()
    found = fit(program, x, "svi", steps=120, lr=3e-2, batch_size=32, compile="never")
    # A coin for the colour and a flaw in fifty pixels: 0.69 + 16 * 0.098 nats at best; 11.1 for pixels on their own.
    assert -5.0 < log_likelihood(program, x, particles=1).mean < -2.0
    assert found.history.series("code_perplexity")[1][-1] > 1.5
    with torch.no_grad():
        for p in program.prior.parameters():
            p.add_(0.3 * torch.randn_like(p))
    before = log_likelihood(program, x, particles=1).mean
    fit(program.prior, program.codes(x), "svi", steps=50, compile="never")
    assert log_likelihood(program, x, particles=1).mean > before


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"event_shape": [16]}, ShapeError, "images"),
        ({"codes": 1}, OptionError, "codes"),
        ({"memory": 1.0}, OptionError, "memory"),
        ({"network": "mlp"}, UnknownNameError, "network 'mlp'"),
        ({"prior": {"name": "gated-pixelcnn", "likelihood": "levels"}}, UnknownNameError, "option of gated-pixelcnn"),
    ],
)
def test_options_that_make_no_sense(options, error, says):
    with pytest.raises(error, match=says):
        VQVAE(**options)


@pytest.mark.slow
def test_the_small_preset_uses_its_codes_and_beats_pixels_on_their_own(zoo_data):
    torch.set_default_dtype(torch.float32)
    data = datasets.load("mnist10k-binary")
    found = fit("vq-vae", data, preset="small", seed=0)
    score, used = log_likelihood(found, data.test, particles=1).mean, found.program.code_perplexity(data.test.x)
    alone = log_likelihood(fit("independent", data, "em"), data.test).mean
    print(score, used, alone)
    assert used > found.program.number / 3
    assert score > alone + 40
