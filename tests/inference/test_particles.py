"""Draws and log densities with a particle dimension: sites kept apart, dreams of a program."""

from __future__ import annotations

import torch
from scipy.stats import kstest

from inference.particles import dreams, flatten_draws
from tests.conftest import FAILURE_RATE
from zoo.datasets import Data
from zoo.latent.ppca import PPCA


def test_flatten_puts_sites_side_by_side_whatever_their_order():
    draws = {"b": torch.arange(12.0).reshape(2, 3, 2), "a": torch.tensor([100.0, 200.0])}
    flat = flatten_draws(draws)
    assert flat.shape == (2, 7)
    assert flat[:, 0].tolist() == [100.0, 200.0]
    torch.testing.assert_close(flat, flatten_draws(dict(reversed(draws.items()))))


def test_dreams_are_draws_of_the_program() -> None:
    program = PPCA([4], 2)
    data, latents = dreams(program, Data(torch.zeros(20_000, 4)))
    assert latents["z"].shape == (1, 20_000, 2)
    residual = (data.x - latents["z"][0] @ program.weight.T - program.mean) / program.scale
    for values in (residual.detach(), latents["z"]):
        assert kstest(values.flatten(), "norm").pvalue > FAILURE_RATE
